"""Makes pictures of the screens: ``python -m tests.tui.pictures FOLDER [NAME…]``.

SVG files, and with ``--png`` PNG files as well, by chromium. The buffers are scripted and the clock stands still, so
that the same program makes the same pictures; only the simulator is a real one. ``make screenshots`` makes those that
the docs show.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mbframework_fake.provider import FakeProvider
from mbtui.app import DashboardApp
from mbtui.arguments import Options
from mbtui.dead_screen import DeadScreen
from mbtui.segment_screen import SegmentScreen
from mbtui.simulation import Simulation
from mbtui.simulator_screen import SimulatorApp
from textual.screen import Screen

from mbframework import MessageBuffer
from mbframework.files import Files
from mbframework.monitor import Verdict, View
from tests.tui.scripted import EVENTS, NOW, ScriptedSource, buffering, history, lane, live, view

_SIZES = {"small": (80, 24), "medium": (120, 36), "large": (200, 60)}
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
#: The same font in every picture, and none from elsewhere.
_FONT = "DejaVu Sans Mono, Menlo, Consolas, monospace"


@dataclass(frozen=True)
class Picture:
    """What is on it: a source, keys pressed before, or a screen of its own over a buffer on disk."""

    source: Callable[[], ScriptedSource]
    size: tuple[int, int] = _SIZES["medium"]
    keys: Sequence[str] = ()
    options: dict[str, Any] = field(default_factory=dict)
    screen: Callable[[Path], Screen[Any]] | None = None


def _draining() -> ScriptedSource:
    return ScriptedSource((view(),))


def _buffering() -> ScriptedSource:
    # The provider is still away: the curves end before it came back.
    outage = replace(buffering(), history=tuple(point for point in history() if point.at < NOW - 374))
    outage = replace(outage, history=tuple(replace(point, at=point.at + 374) for point in outage.history))
    return ScriptedSource((view(outage),), EVENTS[:6])


def _several() -> ScriptedSource:
    gone = View(directory="/srv/gone", at=NOW, error="/srv/gone is not a directory; give that of a buffer")
    return ScriptedSource((view(lane(), live("audit")), view(buffering(), directory="/srv/events"), gone))


def _paused() -> ScriptedSource:
    """A program that was killed after somebody had paused it."""
    dead = lane(state="dead", sender="killed", heartbeat_age_s=3_000.0, paused=True, paused_since=NOW - 4_000.0)
    told = Verdict("dead", f"dead, {dead.status.resident:,} messages wait")
    return ScriptedSource((view(replace(dead, verdict=told, incoming=None, outgoing=None)),), EVENTS)


#: One simulation, looked at in turn: the size, and whether it is light.
_SIMULATOR = {
    "simulator": ("medium", False),
    "simulator-small": ("small", False),
    "simulator-large": ("large", False),
    "simulator-large-light": ("large", True),
    "simulator-light": ("medium", True),
    "simulator-small-light": ("small", True),
}
_LIGHT = {"theme": "okabe-ito-light"}
PICTURES: dict[str, Picture] = {
    "dashboard": Picture(_draining),
    "dashboard-light": Picture(_draining, options=_LIGHT),
    "dashboard-small": Picture(_buffering, _SIZES["small"]),
    "dashboard-small-light": Picture(_buffering, _SIZES["small"], options=_LIGHT),
    "dashboard-large": Picture(_several, _SIZES["large"]),
    "dashboard-large-light": Picture(_several, _SIZES["large"], options=_LIGHT),
    "dashboard-buffering": Picture(_buffering),
    "dashboard-live": Picture(lambda: ScriptedSource((view(live()),), EVENTS[:2])),
    "dashboard-ascii": Picture(_several, _SIZES["small"], options={"ascii": True}),
    "dashboard-no-color": Picture(_several, _SIZES["small"], options={"color": False}),
    "dashboard-tiny": Picture(_buffering, (50, 8)),
    "dashboard-events": Picture(_draining, keys=("E",)),
    "dashboard-filter": Picture(_draining, keys=("slash", *"!sealed")),
    "dashboard-lanes": Picture(_several, keys=("l",)),
    "dashboard-lanes-small": Picture(_several, _SIZES["small"], keys=("l",)),
    "dashboard-lanes-light": Picture(_several, keys=("l",), options=_LIGHT),
    "dashboard-help": Picture(_draining, keys=("question_mark",)),
    "dashboard-help-small-light": Picture(_draining, _SIZES["small"], keys=("question_mark",), options=_LIGHT),
    "dashboard-gone": Picture(_several, _SIZES["small"], keys=("left_square_bracket",)),
    "dashboard-paused": Picture(_paused),
    "dashboard-paused-small-light": Picture(_paused, _SIZES["small"], options=_LIGHT),
    "dashboard-purge": Picture(_draining, keys=("X",), options={"write": True}),
    "dashboard-purge-small-light": Picture(_draining, _SIZES["small"], keys=("X",), options={"write": True, **_LIGHT}),
    "segment": Picture(_draining, screen=lambda path: SegmentScreen(str(path / "main"), 1)),
    "segment-light": Picture(_draining, options=_LIGHT, screen=lambda path: SegmentScreen(str(path / "main"), 1)),
    "segment-small": Picture(_draining, _SIZES["small"], screen=lambda path: SegmentScreen(str(path / "main"), 1)),
    "segment-large": Picture(_draining, _SIZES["large"], screen=lambda path: SegmentScreen(str(path / "main"), 1)),
    "segment-small-light": Picture(
        _draining, _SIZES["small"], options=_LIGHT, screen=lambda path: SegmentScreen(str(path / "main"), 1)
    ),
    "segment-large-light": Picture(
        _draining, _SIZES["large"], options=_LIGHT, screen=lambda path: SegmentScreen(str(path / "main"), 1)
    ),
    "dead-letters": Picture(_draining, screen=lambda path: DeadScreen(str(path), "main")),
    "dead-letters-light": Picture(_draining, options=_LIGHT, screen=lambda path: DeadScreen(str(path), "main")),
    "dead-letters-small": Picture(_draining, _SIZES["small"], screen=lambda path: DeadScreen(str(path), "main")),
    "dead-letters-large": Picture(_draining, _SIZES["large"], screen=lambda path: DeadScreen(str(path), "main")),
    "dead-letters-small-light": Picture(
        _draining, _SIZES["small"], options=_LIGHT, screen=lambda path: DeadScreen(str(path), "main")
    ),
    "dead-letters-large-light": Picture(
        _draining, _SIZES["large"], options=_LIGHT, screen=lambda path: DeadScreen(str(path), "main")
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Make them."""
    parser = argparse.ArgumentParser(prog="python -m tests.tui.pictures", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join([*PICTURES, *_SIMULATOR])} (default: all)"
    )
    parser.add_argument("--png", action="store_true", help="PNG files as well; needs chromium")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.names) - {*PICTURES, *_SIMULATOR}:
        parser.error(f"no such picture: {', '.join(sorted(unknown))}; there are {', '.join([*PICTURES, *_SIMULATOR])}")
    os.environ["TZ"] = "UTC"
    os.environ.pop("NO_COLOR", None)
    time.tzset()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    names = chosen.names or [*PICTURES, *_SIMULATOR]
    simulated = [name for name in _SIMULATOR if name in names]
    names = [name for name in names if name not in simulated]
    if simulated:
        # A real engine, before the clock stands still.
        for name, svg in asyncio.run(_draw_simulator(simulated)).items():
            _store(chosen.folder / f"{name}.svg", svg, chosen.png)
    time.time = lambda: NOW
    with tempfile.TemporaryDirectory(prefix="mb-pictures-") as folder:
        buffer = Path(folder) / "orders"
        _fill(buffer)
        for name in names:
            svg = asyncio.run(_draw(PICTURES[name], buffer)).replace(folder, "/var/lib/mb")
            _store(chosen.folder / f"{name}.svg", svg, chosen.png)


def _store(path: Path, svg: str, png: bool) -> None:
    path.write_text(svg, encoding="utf-8")
    print((_png(path, svg) if png else None) or path)


async def _draw_simulator(names: Sequence[str]) -> dict[str, str]:
    """Half a minute of it: live, then an outage."""
    drawn: dict[str, str] = {}
    simulation = Simulation(pace=800)
    try:
        app = SimulatorApp(simulation)
        async with app.run_test(size=_SIZES["medium"]) as pilot:
            await pilot.pause(14)
            await pilot.press("p")
            await pilot.pause(8)
            light = False
            for name in names:
                size, wanted = _SIMULATOR[name]
                if wanted != light:
                    light = wanted
                    await pilot.press("t")
                await pilot.resize_terminal(*_SIZES[size])
                await pilot.pause(0.7)
                drawn[name] = _with_font(app.export_screenshot(title="mbtui --simulate"))
    finally:
        simulation.close()
    return drawn


async def _draw(picture: Picture, buffer: Path) -> str:
    app = DashboardApp(Options(**picture.options), source=picture.source(), clock=lambda: NOW)
    try:
        async with app.run_test(size=picture.size, notifications=True) as pilot:
            await pilot.pause(0.3)
            if picture.screen is not None:
                await app.push_screen(picture.screen(buffer))
            await pilot.press(*picture.keys)
            # The rows come from a thread of their own.
            await pilot.pause(0.7)
            return _with_font(app.export_screenshot(title="mbtui"))
    finally:
        app.stop()


def _with_font(svg: str) -> str:
    """Without the fonts that would be fetched from elsewhere."""
    return re.sub(r"@font-face\s*\{.*?\}\s*", "", svg, flags=re.DOTALL).replace("Fira Code", _FONT)


def _fill(directory: Path) -> None:
    """A backlog, and dead letters. The clocks go on from message to message, and not by themselves."""
    number = 0
    Files.wall_ns = lambda self: int((NOW - 600) * 1e9) + number * 10**7  # type: ignore[method-assign]
    boot_ns, begun = Files.boot_ns, Files().boot_ns()
    # Who waits for an end of its time must not wait for ever.
    Files.boot_ns = lambda self: begun + number * 10**7 + (boot_ns(self) - begun) // 10**5  # type: ignore[method-assign]
    provider = FakeProvider()
    with MessageBuffer(directory, provider, mode="always", retry_wait=0.01, close_timeout=0.2) as buffer:
        provider.reject_when(lambda message: "RecordTooLarge: at most 1 MiB" if message.key == b"customer-7" else None)
        for number in range(200):
            if number == 120:
                provider.down()
            order = {"order": 12_301_440 + number, "customer": number % 13, "total": f"{number * 1.17:.2f}", "items": 3}
            buffer.write("orders", json.dumps(order).encode(), key=f"customer-{number % 13}".encode())
            if number < 120:
                buffer.flush(60)
            if number == 199:
                Files.boot_ns = boot_ns  # type: ignore[method-assign]
    Files.wall_ns = lambda self: int(NOW * 1e9)  # type: ignore[method-assign]


def _png(path: Path, svg: str) -> Path | None:
    browser = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    if browser is None or box is None:
        print(f"{path.name}: no PNG, for want of {', '.join(_BROWSERS)}", file=sys.stderr)
        return None
    made = path.with_suffix(".png")
    subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--window-size={int(float(box[1]))},{int(float(box[2]))}", f"--screenshot={made}", path.resolve().as_uri()],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, timeout=60,
    )  # fmt: skip
    return made


if __name__ == "__main__":
    main()
