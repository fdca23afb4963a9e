"""Every key of the main screen, pressed."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from mbtui.keys import KEYS
from mbtui.source import Directories

from mbframework import MessageBuffer, read_status
from mbframework.errors import MessageBufferError
from mbframework.monitor import View
from tests.tui.scripted import NOW, ScriptedSource, buffering, lane, live, segments, view
from tests.tui.stage import staged

pytestmark = pytest.mark.timeout(60)


def run(coroutine: Any) -> None:
    asyncio.run(coroutine)


def three_lanes() -> ScriptedSource:
    return ScriptedSource((view(lane(), live("audit")), view(buffering(), directory="/srv/events")))


def test_the_cursor_begins_at_the_segment_that_is_sent_and_stays_with_its_segment() -> None:
    async def play() -> None:
        source = ScriptedSource((view(),))
        async with staged(source) as stage:
            table = stage.app.main.query_one("#segments")
            assert table.cursor == 1
            await stage.press("j")
            assert table.cursor == 2
            chosen = table.chosen.first
            # Two segments go, which were delivered.
            rows = segments()
            rows.table = rows.table[2:]
            source.views = (view(lane(rows=rows)),)
            stage.app.scout.nudge()
            await stage.until(lambda: table.total == 21)
            await stage.settled()
            assert (table.cursor, table.chosen.first) == (0, chosen)
            for key, cursor in [("down", 1), ("k", 0), ("G", 20), ("g", 0), ("end", 20), ("up", 19), ("home", 0)]:
                await stage.press(key)
                assert table.cursor == cursor, key
            await stage.press("pagedown")
            assert table.cursor > 5
            await stage.press("pageup")
            assert table.cursor == 0
            await stage.press("ctrl+f")
            assert table.cursor > 5
            await stage.press("ctrl+b")
            assert table.cursor == 0

    run(play())


def test_lanes_and_directories() -> None:
    async def play() -> None:
        async with staged(three_lanes()) as stage:
            assert "orders/main" in stage.lines[0]
            for key, name in [("]", "orders/audit"), ("]", "events/main"), ("]", "orders/main"), ("[", "events/main")]:
                await stage.press(key)
                await stage.until_shown(f" {name}]")
                assert name in stage.lines[0]
            await stage.press("l")
            assert any("nothing lost" in line and "orders/audit" in line for line in stage.lines)
            await stage.press("k", "enter")
            await stage.until(lambda: "orders/audit" in stage.lines[0])
            await stage.press("l", "escape")
            assert "orders/audit" in stage.lines[0]

    run(play())


def test_what_went_while_the_list_of_lanes_was_open_opens_nothing_else() -> None:
    orders, events = view(lane(), live("audit")), view(buffering(), directory="/srv/events")
    gone = View(directory=orders.directory, at=NOW, error="it is not a directory")

    async def play() -> None:
        source = ScriptedSource((orders, events))
        async with staged(source) as stage:

            async def meanwhile(*views: View) -> None:
                await stage.press("l")
                source.views = views
                stage.app.scout.nudge()
                await stage.until(lambda: stage.app.main.sight is not None and stage.app.main.sight.views == views)

            await meanwhile(orders, view(buffering(), directory="/srv/aside"), events)
            await stage.press("end", "enter")
            await stage.until(lambda: "events/main" in stage.lines[0])
            # More lanes than are left, and a lane in front of the one that is meant.
            await meanwhile(gone, events)
            await stage.press("home", "enter")
            await stage.until_shown("lane main of /var/lib/mb/orders is not there any more")
            assert "events/main" in stage.lines[0]
            await meanwhile(orders, events)
            await stage.press("end", "enter")
            assert "events/main" in stage.lines[0]
            # The lane that is shown goes: another one takes its place, which is said.
            await stage.press("[")
            await stage.until(lambda: "orders/audit" in stage.lines[0])
            source.views = (view(lane()), events)
            stage.app.scout.nudge()
            await stage.until_shown("lane audit of /var/lib/mb/orders", "this is lane main")

    run(play())


def test_filter_and_next_match() -> None:
    async def play() -> None:
        async with staged() as stage:
            await stage.press("slash", *"!sealed", "enter")
            await stage.until_shown("SEGMENTS 3 of 23", "filter !sealed")
            assert "✓ drained" in stage.text
            assert "■ sealed" not in stage.text
            await stage.press("escape")
            await stage.until_shown("SEGMENTS 23")
            assert "filter" not in stage.text.replace("/ filter", "")
            table = stage.app.main.query_one("#segments")
            await stage.press("n")
            await stage.until(lambda: table.cursor == 22)
            await stage.press("n")
            await stage.until_shown("no further match")
            await stage.press("N")
            await stage.until(lambda: table.cursor == 1)
            # While it is typed it is no expression yet; Enter says so, Escape leaves.
            await stage.press("slash", "ctrl+u", "(", "enter")
            await stage.until_shown("not a regular expression")
            await stage.press("escape")
            assert not stage.app.main.query("FilterBar")

    run(play())


def test_filter_of_the_events() -> None:
    async def play() -> None:
        async with staged() as stage:
            await stage.press("tab", "slash", *"prune", "enter")
            await stage.until_shown("EVENTS 1 · filter prune")
            assert "120,422 UNDELIVERED" in stage.text
            assert "RecordTooLarge" not in stage.text
            await stage.press("escape")
            await stage.until_shown("EVENTS 10")
            await stage.press("N")
            assert stage.app.main.query_one("#events").chosen.kind == "prune"
            await stage.press("enter")
            await stage.press("r")
            assert stage.app.main.query_one("#events").chosen.kind == "removed"
            assert stage.text.index("removed") < stage.text.index("provider-back")

    run(play())


def test_sort_and_reverse() -> None:
    async def play() -> None:
        async with staged() as stage:
            table = stage.app.main.query_one("#segments")

            async def first_row(text: str) -> None:
                await stage.until(
                    lambda: (
                        text in next(line for line in stage.lines if "MiB" in line and "%" in line and "/" not in line)
                    )
                )

            await stage.press("r", "g")
            await first_row("filling")
            await stage.press("r", "s")  # by state
            await stage.until_shown("state▲")
            await stage.press("g")
            await first_row("drained")
            await stage.press("s", "g")  # by size
            await first_row("filling")
            for sort in ("msgs", "done", "left", "age", "segment"):
                await stage.press("s")
                await stage.until_shown(f"{sort}▲")
            assert table.total == 23

    run(play())


def test_maximise_and_events() -> None:
    async def play() -> None:
        async with staged() as stage:
            await stage.press("m")
            assert "EVENTS" not in stage.text
            assert "BACKLOG" not in stage.text
            assert "LOST 120k" in stage.text
            await stage.press("escape")
            assert "EVENTS" in stage.text
            await stage.press("E")
            assert "SEGMENTS" not in stage.text
            assert stage.app.main.query_one("#events").has_focus
            await stage.press("E")
            assert "SEGMENTS" in stage.text
            await stage.press("tab", "m")
            assert "SEGMENTS" not in stage.text
            await stage.press("m")
            assert "SEGMENTS" in stage.text

    run(play())


def test_freeze_holds_the_picture_and_lets_it_go_on() -> None:
    async def play() -> None:
        source = ScriptedSource((view(),))
        async with staged(source) as stage:
            await stage.press("space")
            await stage.until_shown("FROZEN 20:23:05")
            source.views = (view(buffering()),)
            looks = source.looks
            stage.app.scout.nudge()
            await stage.until(lambda: source.looks > looks)
            await stage.pilot.pause(0.05)
            assert "▲ DRAINING" in stage.text
            await stage.press("space")
            await stage.until_shown("■ BUFFERING")
            assert "FROZEN" not in stage.text

    run(play())


def test_window_theme_copy_and_help() -> None:
    async def play() -> None:
        async with staged() as stage:
            assert "IN 5m" in stage.text
            for name in ("IN 1h", "IN 1m", "IN 5m"):
                await stage.press("w")
                assert name in stage.text
            before = stage.app.theme
            await stage.press("t")
            assert (before, stage.app.theme) == ("okabe-ito-dark", "okabe-ito-light")
            await stage.press("c")
            assert stage.app.clipboard.startswith(f"P{12_300_778:020}.seg")
            await stage.press("tab", "c")
            assert stage.app.clipboard == "20:22:35 removed       1 delivered segment"
            await stage.press("question_mark")
            assert "this help" in stage.text
            await stage.press("j", "k", "escape")
            assert "this help" not in stage.text
            await stage.pilot.press("ctrl+c")
        assert stage.app.return_code == 0

    run(play())


def test_picture_and_palette(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        monkeypatch.chdir(tmp_path)
        async with staged() as stage:
            await stage.press("f8")
            assert _pictures(tmp_path) == [True]
            await stage.press("ctrl+p")
            await stage.until(
                lambda: "event log" in stage.text.lower() or "All commands" in stage.text or "help" in stage.text
            )
            await stage.press("escape")
            await stage.pilot.press("q")
        assert stage.app.return_code == 0

    run(play())


def _pictures(folder: Path) -> list[bool]:
    return ["DRAINING" in picture.read_text(encoding="utf-8") for picture in folder.glob("*.svg")]


def test_enter_and_dead_letters_open_their_screens(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, Any]] = []

    async def play() -> None:
        async with staged() as stage:
            monkeypatch.setattr(stage.app, "push_screen", lambda screen, *rest: opened.append(screen))
            await stage.press("enter", "D")

    run(play())
    assert [type(screen).__name__ for screen in opened] == ["SegmentScreen", "DeadScreen"]


class Engine:
    """Answers like an engine, and remembers what it was asked."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.error = error

    def __call__(self, path: str, action: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((path, action, arguments))
        if self.error is not None:
            raise self.error
        return {}


@pytest.mark.parametrize("key", ["p", "R", "M", "X"])
def test_read_only_changes_nothing(key: str) -> None:
    engine = Engine()

    async def play() -> None:
        async with staged(ask=engine) as stage:
            assert stage.lines[0].rstrip().endswith("RO")
            await stage.press(key)
            await stage.until_shown("read-only: start mbtui with --write")

    run(play())
    assert engine.asked == []


def test_with_write_what_changes_a_buffer_is_asked_for() -> None:
    engine = Engine()
    path = "/var/lib/mb/orders/main"

    async def play() -> None:
        source = ScriptedSource((view(),))
        async with staged(source, ask=engine, write=True) as stage:
            assert stage.lines[0].rstrip().endswith("WRITE")
            await stage.press("p")
            await stage.until_shown("pause: paused")
            source.views = (view(lane(state="paused", paused=True)),)
            stage.app.scout.nudge()
            await stage.until_shown("‖ PAUSED")
            await stage.press("p", "R")
            await stage.until(lambda: len(engine.asked) == 3)
            await stage.press("M", *"always", "enter")
            assert len(engine.asked) == 3
            await stage.press(*"always", "enter")
            await stage.until(lambda: len(engine.asked) == 4)
            await stage.press("M", *"sometimes", "enter")
            await stage.until_shown("expected one of block, raise, buffer, always")
            await stage.press("escape")
            await stage.press("X", *"purge", "enter")
            await stage.press(*" main", "enter")
            await stage.until(lambda: len(engine.asked) == 5)
            await stage.press("X", "escape")
            # Two buffers may have lanes of one name.
            source.views = (view(), view(directory="/srv/other/orders"))
            stage.app.scout.nudge()
            await stage.until(lambda: len(stage.app.main.places) == 2)
            await stage.press("]", "X")
            await stage.until_shown("of /srv/other/orders?")
            await stage.press(*"purge main", "enter")
            await stage.until_shown('expected "purge orders/main"')
            await stage.press(*["backspace"] * 4, *"orders/main", "enter")
            await stage.until(lambda: len(engine.asked) == 6)

    run(play())
    assert engine.asked == [
        (path, "pause", {}),
        (path, "resume", {}),
        (path, "retry", {}),
        (path, "mode", {"mode": "always"}),
        (path, "purge", {}),
        ("/srv/other/orders/main", "purge", {}),
    ]


def test_a_pause_and_a_purge_need_no_running_program(tmp_path: Path) -> None:
    with MessageBuffer(tmp_path / "orders") as buffer:
        buffer.write_many("t", [b"1", b"2", b"3"])

    async def play() -> None:
        async with staged(Directories([str(tmp_path / "orders")]), clock=time.time, write=True) as stage:
            await stage.until_shown("† DEAD", "3 messages wait")
            await stage.press("p")
            await stage.until_shown("pause: paused; no process sends it now")
            assert (tmp_path / "orders" / "main" / "paused").exists()
            await stage.until_shown("the next program will not send; mb resume ends it", "│ paused: mb resume")
            await stage.press("p")
            await stage.until_shown("resume: resumed; no process sends it now")
            assert not (tmp_path / "orders" / "main" / "paused").exists()
            await stage.until(lambda: "will not send" not in stage.text)
            await stage.press("R")
            await stage.until_shown("retry: lane main: nothing is running")
            await stage.press("X")
            await stage.until_shown("The 3 messages that wait")
            await stage.press(*"purge main", "enter")
            await stage.until_shown("purge: 3 messages removed")
            await stage.until_shown("nothing waits")

    run(play())
    (known,) = read_status(tmp_path / "orders").lanes
    assert (known.purged, known.resident) == (3, 0)


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_the_list_of_lanes_fits(width: int) -> None:
    async def play() -> None:
        async with staged(three_lanes(), size=(width, 24)) as stage:
            await stage.press("l")
            # On a narrow screen the verdict is cut, and says so; what was lost never is.
            row = next(line for line in stage.lines if "events/main" in line and "BUFFERING" in line)
            assert "LOST 120k     3 dead" in row or width < 80
            assert "growing, full in 41m" in row or (width < 100 and "…" in row)
            assert ("oldest 55m2s" in row) == (width >= 120)

    run(play())


def test_a_refusal_is_shown_with_its_reason() -> None:
    async def play() -> None:
        engine = Engine(MessageBufferError("nobody answers [red]; is the program running?\x1b[0m"))
        async with staged(ask=engine, write=True) as stage:
            await stage.press("R")
            await stage.until_shown("nobody answers [red]", "running?\\x1b[0m")

    run(play())


def test_every_key_is_tried_here() -> None:
    tried = Path(__file__).read_text(encoding="utf-8")
    for key in KEYS:
        names = {key.keys, key.shown, {"right_square_bracket": "]", "left_square_bracket": "["}.get(key.keys, key.keys)}
        assert any(f'"{name}"' in tried for name in names), key
