"""The main screen as a whole: pictures of it, sizes, colours, and what bad input gets."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from mbtui.themes import OWN
from textual.color import Color

from mbframework.monitor import Event, SegmentRow, View
from tests.tui.scripted import EVENTS, NOW, ScriptedSource, buffering, lane, live, segments, view
from tests.tui.stage import Stage, compare, staged

pytestmark = pytest.mark.timeout(60)

SIZES = [(80, 24), (120, 40), (200, 60)]
GONE = View(directory="/gone", at=NOW, error="/gone is not a directory; give that of a buffer")


def run(coroutine: Any) -> None:
    asyncio.run(coroutine)


def several() -> ScriptedSource:
    return ScriptedSource((view(lane(), live("audit")), view(buffering(), directory="/srv/events"), GONE))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("kind", ["plain", "ascii", "no-color"])
def test_pictures(size: tuple[int, int], kind: str) -> None:
    async def play() -> None:
        options = {"plain": {}, "ascii": {"ascii": True}, "no-color": {"color": False}}[kind]
        async with staged(several(), size=size, **options) as stage:
            text = stage.text
            colors = _colors(stage.app.export_screenshot())
        compare(f"main-{kind}-{size[0]}x{size[1]}", text)
        assert len(text.splitlines()) == size[1]
        if kind == "ascii":
            assert text.isascii()
        if kind == "no-color":
            assert colors <= PLAIN
        else:
            assert not colors <= PLAIN

    run(play())


#: What a picture is drawn with where nothing has a colour.
PLAIN = {"#c5c8c6", "#292929", "#ff5f57", "#febc2e", "#28c840"}


def _colors(svg: str) -> set[str]:
    import re

    return set(re.findall(r"fill[:=]\s*\"?(#[0-9a-fA-F]{6})", svg))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("buffering", ScriptedSource((view(buffering()),), EVENTS[:6])),
        ("live", ScriptedSource((view(live()),), EVENTS[:2])),
        ("gone", ScriptedSource((GONE,))),
        ("stale", ScriptedSource((view(lane(state="stale", heartbeat_age_s=64.0)),))),
        ("empty", ScriptedSource((View(directory="/var/lib/mb/new", at=NOW, id="0" * 32),))),
        ("problem", ScriptedSource((view(problems=("lane main: its head cannot be read",)),))),
    ],
)
def test_pictures_of_states(name: str, source: ScriptedSource) -> None:
    async def play() -> None:
        async with staged(source, size=(80, 24)) as stage:
            compare(f"main-{name}", stage.text)

    run(play())


@pytest.mark.parametrize("size", [(59, 24), (80, 14), (40, 8), (20, 3), (5, 2), (1, 1)])
def test_below_the_smallest_size_the_banner_and_the_strip_remain(size: tuple[int, int]) -> None:
    async def play() -> None:
        async with staged(size=size) as stage:
            assert "SEGMENTS" not in stage.text
            if size[0] >= 40:
                assert "▲ DRAINING" in stage.lines[0]
                assert "LOST 120k" in stage.lines[1]
                assert "out 2,605/s" in stage.text
            await stage.pilot.resize_terminal(100, 30)
            await stage.until_shown("SEGMENTS 23")

    run(play())


def test_a_directory_that_goes_and_comes_back() -> None:
    async def play() -> None:
        source = ScriptedSource((view(),))
        async with staged(source) as stage:
            for views, text in [
                ((GONE,), "? UNREADABLE"),
                ((view(directory="/gone"),), "▲ DRAINING"),
                ((view(),), "SEGMENTS 23"),
            ]:
                source.views = views
                stage.app.scout.nudge()
                await stage.until_shown(text)

    run(play())


def test_a_fault_of_ours_is_on_the_screen_and_passes() -> None:
    async def play() -> None:
        source = ScriptedSource((view(),))
        async with staged(source) as stage:
            source.broken.append(RuntimeError("[bold]broken\x1b"))
            stage.app.scout.nudge()
            await stage.until_shown("could not be read: RuntimeError: [bold]broken\\x1b")
            await stage.until_shown("draining, ETA 2h8m")

    run(play())


def test_hostile_texts_stay_texts() -> None:
    async def play() -> None:
        evil = "\x1b[31m[red]x[/red]\x07"
        shown = buffering(last_error=evil, provider=f"{evil}://x")
        source = ScriptedSource((view(shown),), [Event(NOW, "main", "failure", "error", evil)])
        async with staged(source) as stage:
            await stage.until_shown("\\x1b[31m[red]x[/red]\\x07")
            assert "\x1b" not in stage.text

    run(play())


def test_a_clock_that_jumps_shows_no_negative_age() -> None:
    async def play() -> None:
        async with staged(clock=lambda: NOW - 86_400) as stage:
            assert "▲ DRAINING  0s" in stage.text
            assert "-" not in stage.lines[0].replace("03-14", "")

    run(play())


def test_a_hundred_thousand_segments_are_read_by_the_screenful() -> None:
    async def play() -> None:
        rows = segments(100_000)
        async with staged(ScriptedSource((view(lane(rows=rows)),))) as stage:
            before, looks = rows.reads, stage.app.main.sight.looks
            await stage.press("G")
            await stage.until_shown("filling")
            asked = 1 + stage.app.main.sight.looks - looks
            assert rows.reads - before <= 300 * (asked + 3)
            assert "SEGMENTS 100k" in stage.text

    run(play())


@pytest.mark.parametrize("theme", OWN, ids=lambda theme: theme.name)
def test_own_themes_are_legible(theme: Any) -> None:
    inks = ["text-primary", "text-success", "text-warning", "text-error", "text-muted"]
    colors = [Color.parse(theme.variables[ink]) for ink in inks] + [Color.parse(theme.foreground)]
    for ground in (theme.background, theme.surface, theme.panel):
        for color in colors:
            assert contrast(color, Color.parse(ground)) >= 4.5, (color, ground)
    for one, other in itertools.combinations(colors[:4], 2):
        assert one != other


def contrast(one: Color, other: Color) -> float:
    """As WCAG 2 counts it."""

    def luminance(color: Color) -> float:
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in color.normalized]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_themes_can_be_gone_through_and_every_one_draws() -> None:
    async def play() -> None:
        async with staged() as stage:
            seen = {stage.app.theme}
            for _ in range(6):
                await stage.press("t")
                seen.add(stage.app.theme)
                assert "▲ DRAINING" in stage.text
                # Also where the theme leaves it to the background which colour is legible there.
                for text, color, ground in _texts(stage):
                    assert contrast(color, ground) >= 2.8, (stage.app.theme, text, color, ground)
            assert len(seen) == 7

    run(play())


def _texts(stage: Stage) -> Iterator[tuple[str, Color, Color]]:
    """What stands on the screen, but for lines and bars, with the colours of its letters and of what is behind them."""
    for strip in stage.app.screen._compositor.render_strips(stage.app.size):
        for text, style, _ in strip:
            if style is not None and style.color and style.bgcolor and any(map(str.isalnum, text)):
                yield text, Color.from_rich_color(style.color), Color.from_rich_color(style.bgcolor)


def test_an_unknown_theme_is_named() -> None:
    async def play() -> None:
        async with staged(theme="nosuch") as stage:
            await stage.until_shown("no theme nosuch")

    run(play())


def test_lanes_that_come_and_go_keep_the_choice() -> None:
    async def play() -> None:
        source = ScriptedSource((view(lane(), live("audit")),))
        async with staged(source) as stage:
            await stage.press("]")
            await stage.until(lambda: "audit" in stage.lines[0])
            source.views = (view(lane(), replace(live("aaa")), live("audit")),)
            stage.app.scout.nudge()
            await stage.until_shown("3/3")
            assert "audit" in stage.lines[0]
            source.views = (view(lane()),)
            stage.app.scout.nudge()
            await stage.until(lambda: "orders/main" in stage.lines[0])

    run(play())


class SlowRows:
    """Segments whose headers are read one chunk at a time, when the test says so."""

    def __init__(self, count: int) -> None:
        self.inner = segments(count)
        self.go = threading.Semaphore(0)
        self.slow = False

    def __len__(self) -> int:
        return len(self.inner)

    def rows(self, start: int, stop: int) -> list[SegmentRow]:
        if self.slow and stop - start >= 100:
            assert self.go.acquire(timeout=60)
        return self.inner.rows(start, stop)

    def index_of(self, sequence: int) -> int | None:
        return self.inner.index_of(sequence)


def test_a_filter_that_takes_long_says_so_and_the_state_is_still_looked_at() -> None:
    rows = SlowRows(20_000)
    source = ScriptedSource((view(lane(rows=rows)),))  # type: ignore[arg-type]

    async def play() -> None:
        async with staged(source) as stage:
            rows.slow = True
            try:
                await stage.pilot.press("slash", *"sealed")
                deadline = time.monotonic() + 60
                while "reading 20,000 headers:" not in stage.text:
                    assert time.monotonic() < deadline, stage.text
                    rows.go.release()
                    await stage.pilot.pause(0.05)
                assert "filter sealed" in stage.text
                source.views = (view(buffering(rows=rows)),)
                while "BUFFERING" not in stage.text:
                    assert time.monotonic() < deadline, stage.text
                    rows.go.release()
                    await stage.pilot.pause(0.05)
                assert "headers:" in stage.text
            finally:
                rows.slow = False
                rows.go.release(1000)
            await stage.until_shown("SEGMENTS 19,997 of 20,000")
            assert "headers:" not in stage.text

    run(play())


def test_a_search_that_takes_long_says_so_and_every_key_works_meanwhile() -> None:
    rows = SlowRows(20_000)
    source = ScriptedSource((view(lane(rows=rows)),))  # type: ignore[arg-type]

    async def play() -> None:
        async with staged(source) as stage:
            table = stage.app.main.query_one("#segments")
            # The last one is the only one that is being filled: 20,000 rows away.
            await stage.press("slash", *"filling", "enter")
            await stage.until_shown("SEGMENTS 1 of 20,000")
            await stage.press("escape")
            await stage.until_shown("SEGMENTS 20,000")

            async def search_until(condition: Callable[[], bool]) -> None:
                deadline = time.monotonic() + 60
                while not condition():
                    assert time.monotonic() < deadline, stage.text
                    rows.go.release()
                    await stage.pilot.pause(0.02)

            rows.slow = True
            try:
                await stage.pilot.press("g", "n")
                await search_until(lambda: "searching filling:" in stage.text)
                # The cursor moves, its rows come, and the state is looked at.
                await stage.pilot.press("j", "j", "pagedown")
                at = table.cursor
                assert at > 5
                await search_until(
                    lambda: table.chosen is not None and table.chosen.first == rows.inner.table[at].first
                )
                source.views = (view(buffering(rows=rows)),)
                await search_until(lambda: "BUFFERING" in stage.text)
                assert "searching filling:" in stage.text
                await stage.pilot.press("escape")
                await search_until(lambda: "searching" not in stage.text)
                assert table.cursor == at
                await stage.pilot.press("n")
                await search_until(lambda: "searching filling:" in stage.text)
            finally:
                rows.slow = False
                rows.go.release(1000)
            await stage.until(lambda: table.cursor == 19_999)
            await stage.press("n")
            await stage.until_shown("no further match")
            await stage.press("N")
            await stage.until(lambda: "searching" not in stage.text)
            assert table.cursor == 19_999

    run(play())
