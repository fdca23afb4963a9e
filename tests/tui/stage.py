"""Runs the dashboard on a scripted source, and reads the screen."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mbtui.app import DashboardApp
from mbtui.arguments import Options
from mbtui.source import Source
from textual.pilot import Pilot

from tests.tui.scripted import NOW, ScriptedSource, view

SNAPSHOTS = Path(__file__).parent / "snapshots"
_PATIENCE_S = 60.0


class Stage:
    """A running dashboard."""

    def __init__(self, app: DashboardApp, pilot: Pilot[int]) -> None:
        self.app, self.pilot = app, pilot

    @property
    def lines(self) -> list[str]:
        """What stands on the screen."""
        strips = self.app.screen._compositor.render_strips(self.app.size)
        return ["".join(segment.text for segment in strip).rstrip() for strip in strips]

    @property
    def text(self) -> str:
        """The same in one."""
        return "\n".join(self.lines) + "\n"

    async def until(self, condition: Callable[[], object], what: str = "") -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + _PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what or condition}; on the screen:\n{self.text}"
            await self.pilot.pause(0.01)
        await self.pilot.pause()

    async def until_shown(self, *texts: str) -> None:
        """Wait until these texts stand on the screen."""
        await self.until(lambda: all(text in self.text for text in texts), f"{texts}")

    async def settled(self) -> None:
        """Wait until the screen shows what it asked for."""
        main = self.app.main
        if main.frozen:
            return
        await self.until(
            lambda: (
                main.sight is not None and (main.place is None or main.place[1] is None or main.sight.wish == main.wish)
            ),
            "the rows that were asked for",
        )

    async def press(self, *keys: str) -> None:
        """Press keys, and wait for what follows."""
        await self.pilot.press(*keys)
        await self.pilot.pause()
        await self.settled()


@asynccontextmanager
async def staged(
    source: Source | None = None,
    *,
    size: tuple[int, int] = (120, 40),
    clock: Callable[[], float] = lambda: NOW,
    ask: Any = None,
    **options: Any,
) -> AsyncIterator[Stage]:
    """A dashboard, shown and settled; its threads end with the block."""
    extra = {"ask": ask} if ask is not None else {}
    app = DashboardApp(Options(**options), source=source or ScriptedSource((view(),)), clock=clock, **extra)
    try:
        async with app.run_test(size=size, notifications=True) as pilot:
            stage = Stage(app, pilot)
            await stage.settled()
            yield stage
    finally:
        app.stop()


def compare(name: str, text: str) -> None:
    """Compare with the stored snapshot. With UPDATE_SNAPSHOTS=1 it is stored instead; look at the difference in git."""
    path = SNAPSHOTS / f"{name}.txt"
    if os.environ.get("UPDATE_SNAPSHOTS") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), f"{path} differs; UPDATE_SNAPSHOTS=1 stores what is now shown"
