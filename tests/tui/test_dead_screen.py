"""The view of dead letters: every key, marks, replay and drop with their confirmations, hostile reasons, pictures."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from mbtui import dead_source
from mbtui.dead_screen import DeadScreen
from mbtui.dead_source import place_of, slice_of, turned
from mbtui.pattern import Pattern
from textual.widgets import Input

from mbframework.browse import Entry, LaneBrowser
from mbframework.control import Control, SenderHandlers
from mbframework.deadletters import DeadLetters
from mbframework.deadstore import DeadStore
from mbframework.errors import ModeError
from mbframework.events import EventLog
from mbframework.files import Files
from mbframework.lockfile import LockFile
from mbframework.message import NO_PARTITION, NO_TIMESTAMP, Batch, Header, Position, pack_headers
from mbframework.spans import count
from mbframework.spool.writer import Identity
from tests.tui.buffers import Clock, TakesSome, buffer
from tests.tui.stage import Stage, compare, staged

pytestmark = pytest.mark.timeout(60)

REASON = "400: field \x1b[31mamount\x1b[0m of [red]order[/] is not a number, says the registry after a long look at it"


def run(play: Coroutine[Any, Any, None]) -> None:
    asyncio.run(play)


def add(
    home: Path, values: Sequence[bytes | None], *, first: int = 1, reason: str = REASON, clock: Files | None = None
) -> None:
    """Put letters into the store of lane main, as its sender does."""
    files = clock or Clock()
    path = home / "orders"
    path.mkdir(exist_ok=True)
    identity = Identity(b"I" * 16, b"R" * 16, files.boot_id(), "main")
    letters = DeadLetters(
        files, str(path / "dead" / "main"), identity=identity, total_size=64 << 20, dir_mode=0o700, mapped=False
    )
    own: list[Header] = [("trace\x1b", b"\x00id")]
    batch = Batch(
        sequences=range(first, first + len(values)),
        topics=["orders"] * len(values),
        keys=[b"user-%d" % each for each in range(first, first + len(values))],
        values=values,
        header_blocks=[pack_headers(own)] * len(values),
        timestamps=[NO_TIMESTAMP] * len(values),
        partitions=[NO_PARTITION] * len(values),
        accepted=[0] * len(values),
        position=Position(first + len(values), b"R" * 16),
    )
    letters.add(batch, dict.fromkeys(range(len(values)), reason))
    letters.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A buffer with one message and a thousand dead letters."""
    with buffer(tmp_path, Clock()) as made:
        made.write("orders", b"alive")
    add(tmp_path, [b'{"id": %d}' % number for number in range(1000)])
    return tmp_path


class Play:
    def __init__(self, stage: Stage, screen: DeadScreen, home: Path) -> None:
        self.stage, self.screen, self.home = stage, screen, home

    @property
    def letter(self) -> int | None:
        return self.screen._id_at(self.screen.list.cursor)

    @property
    def said(self) -> str:
        return self.stage.lines[-2].strip()

    @property
    def left(self) -> int:
        return count(DeadStore(Files(), str(self.home / "orders/dead/main")).ids())

    async def press(self, *keys: str) -> None:
        await self.stage.press(*keys)

    async def arrived(self) -> None:
        await self.stage.until(lambda: self.screen.list.item is not None, "the letter under the cursor")

    async def type(self, text: str) -> None:
        await self.stage.until(lambda: self.stage.app.screen is not self.screen, "the dialog")
        self.stage.app.screen.query_one(Input).value = text
        await self.press("enter")


@asynccontextmanager
async def dead(home: Path, *, size: tuple[int, int] = (120, 40), **options: Any) -> AsyncIterator[Play]:
    async with staged(size=size, **options) as stage:
        screen = DeadScreen(str(home / "orders"), "main")
        stage.app.push_screen(screen)
        await stage.until(lambda: screen.is_attached and (screen._ids is not None or screen._trouble), "the letters")
        yield Play(stage, screen, home)


def test_the_cursor_and_its_keys(home: Path) -> None:
    async def play() -> None:
        async with dead(home) as on:
            await on.arrived()
            for key, letter in [("j", 2), ("down", 3), ("k", 2), ("up", 1), ("G", 1000), ("g", 1), ("end", 1000),
                                ("home", 1)]:  # fmt: skip
                await on.press(key)
                assert on.letter == letter, key
            await on.press("pagedown")
            page = on.letter
            assert page is not None
            assert page > 10
            await on.press("pagedown", "pageup")
            assert on.letter == page
            await on.arrived()
            assert f'"id": {page - 1}' in on.stage.text
            assert f"was sequence {page}" in on.stage.text
            await on.press("tab")
            assert on.screen.pane.has_focus
            await on.press("tab")
            assert on.screen.list.has_focus
            theme = on.stage.app.theme
            await on.press("t", "question_mark")
            assert on.stage.app.theme != theme
            assert all(key.help in on.stage.text for key in on.screen.KEYS)
            await on.press("escape", "escape")
            assert on.stage.app.screen is on.stage.app.main

    run(play())


def test_views_copies_and_search(home: Path) -> None:
    async def play() -> None:
        async with dead(home) as on:
            await on.arrived()
            await on.press("c")
            assert on.stage.app.clipboard == '{"id": 0}'
            await on.press("v", "v")
            assert "00000000  7b 22 69 64" in on.stage.text
            await on.press("slash")
            await on.type('"id": 777')
            await on.stage.until(lambda: on.letter == 778, "the match")
            await on.press("n")
            await on.stage.until(lambda: "no match behind" in on.said, "the end of the search")
            await on.press("slash")
            await on.type("AMOUNT")
            await on.stage.until(lambda: "found" in on.said, "a match in the reason")
            assert on.letter == 778
            await on.press("N")
            await on.stage.until(lambda: on.letter == 777, "the match before")

    run(play())


def test_a_search_stops_for_others_and_goes_on_where_it_was(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # No time at all: one letter at a go.
    monkeypatch.setattr(dead_source, "_SLICE_S", 0.0)
    told: list[float] = []

    async def play() -> None:
        source = dead_source.DeadSource(str(home / "orders"), "main")
        try:
            ids = await source.ids()
            assert await source.find(Pattern.parse('"id": 12}'), ids, 0, 1000, told.append) == 12
            assert await source.find(Pattern.parse('"id": 985}'), ids, 1000, 0, told.append) == 985
            assert await source.find(Pattern.parse("nowhere"), ids, 990, 1000, told.append) is None
            assert await source.find(Pattern.parse("nowhere"), ids, 10, 0, told.append) is None
        finally:
            source.close()

    run(play())
    assert len(told) == 12 + 14 + 10 + 10
    assert told[-1] == 1.0


def test_read_only_changes_nothing(home: Path) -> None:
    async def play() -> None:
        async with dead(home) as on:
            await on.arrived()
            assert "RO" in on.stage.lines[0]
            assert "replay" not in on.stage.lines[-1]
            for key in ("r", "d"):
                await on.press(key)
                assert on.said == "read-only: start mbtui with --write to replay or drop"
                assert on.stage.app.screen is on.screen
            assert on.left == 1000

    run(play())


def test_a_drop_takes_a_typed_confirmation(home: Path) -> None:
    async def play() -> None:
        async with dead(home, write=True) as on:
            await on.press("j", "j", "d", "escape")
            assert (on.left, on.stage.app.screen) == (1000, on.screen)
            await on.press("d")
            assert "Drop letter 3 of lane main of" in on.stage.text
            await on.type("yes")
            assert 'expected "drop"' in on.stage.text
            await on.type("drop")
            await on.stage.until(lambda: on.said == "1 dropped", "the drop")
            await on.stage.until(lambda: on.screen.list.total == 999, "the letters that are left")
            assert (on.left, on.letter) == (999, 4)

    run(play())


def test_marked_letters_are_replayed_as_new_messages(home: Path) -> None:
    async def play() -> None:
        async with dead(home, write=True) as on:
            await on.press("space", "j", "space", "space")
            assert "3 marked" in on.stage.text
            await on.press("k", "space", "r")
            assert "Replay 2 letters of lane main of" in on.stage.text
            await on.type("replay 2")
            await on.stage.until(lambda: on.said == "2 replayed", "the replay")
            await on.stage.until(lambda: on.screen.list.total == 998, "the letters that are left")
            assert "marked" not in on.stage.lines[0]

    run(play())
    lane = LaneBrowser(str(home / "orders/main"))
    found = [(each.value, each.key, each.headers) for each in lane.page(1, 99) if isinstance(each, Entry)]
    assert found[1:] == [(b'{"id": %d}' % at, b"user-%d" % (at + 1), [("trace\x1b", b"\x00id")]) for at in (0, 2)]


def test_all_of_them(home: Path) -> None:
    async def play() -> None:
        async with dead(home, write=True) as on:
            await on.press("a", "a")
            assert "marked" not in on.stage.lines[0]
            await on.press("a", "d")
            await on.type("drop 1000")
            await on.stage.until(lambda: on.said == "1,000 dropped", "the drop")
            await on.stage.until_shown("0 letters", "no dead letters")
            for keys in ("space", "a", "c", "v", "r", "d", "G", "pagedown"):
                await on.press(keys)
            assert on.stage.app.screen is on.screen

    run(play())


def test_letters_that_come_meanwhile_are_shown(home: Path) -> None:
    async def play() -> None:
        async with dead(home) as on:
            await on.press("G")
            add(home, [b"a new one"], first=5000)
            await on.stage.until(lambda: on.screen.list.total == 1001, "the new letter")
            assert on.letter == 1000
            await on.press("j")
            await on.arrived()
            await on.stage.until_shown("a new one", "was sequence 5,000")
            shutil.rmtree(home / "orders" / "dead")
            await on.stage.until_shown("no dead letters")

    run(play())


def test_the_letters_of_a_running_engine_are_shown(tmp_path: Path) -> None:
    provider = TakesSome([0, 2, 3], [1], REASON)
    with buffer(tmp_path, Files(), None) as made:
        for number in range(4):
            made.write("orders", b"%d" % number)

    async def play() -> None:
        with buffer(tmp_path, Files(), provider, close_timeout=0.1):
            async with dead(tmp_path) as on:
                await on.stage.until(lambda: on.screen.list.total == 1, "the letter")
                await on.arrived()
                await on.stage.until_shown("was sequence 2")

    run(play())


@contextmanager
def held(home: Path, drop: Callable[[Sequence[int]], int]) -> Iterator[None]:
    """Somebody else holds the lane, and answers."""
    lane, files = home / "orders" / "main", Files()
    locks = [LockFile.take(files, str(lane / name), 0.0) for name in ("writer.lock", "sender.lock")]
    events = EventLog(files, str(lane / "events.sender.jsonl"), directory=str(lane.parent), lane="main")
    handlers = SenderHandlers(pause=bool, resume=bool, retry=bool, drop=drop, purge=int)
    control = Control(files, str(lane), events, sender=handlers)
    control.open()
    stop = threading.Event()

    def attend() -> None:
        while not stop.wait(0.01):
            control.attend()

    thread = threading.Thread(target=attend)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        for lock in locks:
            assert lock is not None
            lock.release()


def test_who_holds_the_lane_is_asked(home: Path) -> None:
    store = DeadStore(Files(), str(home / "orders" / "dead" / "main"))
    asked: list[list[int]] = []

    def drop(ids: Sequence[int]) -> int:
        asked.append(list(ids))
        if len(asked) > 1:
            raise ModeError("not now \x1b[31m[red]")
        return store.drop(ids)

    async def play() -> None:
        with held(home, drop):
            async with dead(home, write=True) as on:
                await on.press("d")
                await on.type("drop")
                await on.stage.until(lambda: on.said == "1 dropped", "the drop")
                await on.stage.until(lambda: on.screen.list.total == 999, "the letters that are left")
                await on.press("d")
                await on.type("drop")
                await on.stage.until(lambda: on.said == r"not now \x1b[31m[red]", "the refusal")
                assert (asked, on.left) == ([[1], [2]], 999)

    run(play())


def test_nobody_holds_a_lane_that_is_not_there(tmp_path: Path) -> None:
    async def play() -> None:
        async with dead(tmp_path) as on:
            assert "0 letters" in on.stage.text
            assert "no dead letters" in on.stage.text

    run(play())


def test_a_store_that_cannot_be_read_is_said(home: Path) -> None:
    shutil.rmtree(home / "orders" / "dead" / "main")
    (home / "orders" / "dead" / "main").write_text("in the way")

    async def play() -> None:
        async with dead(home) as on:
            assert "Not a directory" in on.said

    run(play())


@pytest.mark.parametrize("ascii", [False, True])
def test_hostile_letters_do_not_reach_the_terminal(tmp_path: Path, ascii: bool) -> None:
    values = [b"\x1b[2J", b"[red]x[/]", "\u202ex".encode(), b"\x00\xff", b"[" * 100_000, b"z" * (4 << 20), b"", None]
    for at, reason in enumerate(("\x1b]0;x\x07[bold]", "\u202e" * 5000, "")):
        add(tmp_path, values, first=100 * at, reason=reason)

    async def play() -> None:
        async with dead(tmp_path, ascii=ascii, write=True) as on:
            for _ in range(on.screen.list.total):
                await on.arrived()
                await on.press("v")
                text = on.stage.text
                assert all(line.isprintable() for line in text.split("\n"))
                assert text.isascii() or not ascii
                await on.press("j")
            await on.press("d")
            assert on.stage.text.isascii() or not ascii

    run(play())


PICTURES: dict[str, dict[str, Any]] = {
    "80x24": {"size": (80, 24), "write": True},
    "120x40": {"size": (120, 40)},
    "200x60": {"size": (200, 60)},
    "no-color-80x24": {"size": (80, 24), "color": False},
    "no-color-200x60": {"size": (200, 60), "color": False},
    "ascii-80x24": {"size": (80, 24), "ascii": True},
    "ascii-120x40": {"size": (120, 40), "ascii": True, "write": True},
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(tmp_path: Path, name: str) -> None:
    add(tmp_path, [b'{"id": 1}', b"\xff\x00", None, b"[red]text[/]"])
    add(tmp_path, [b'{"id": %d}' % at for at in range(40)], first=500, reason="too large for the topic")

    async def play() -> None:
        async with dead(tmp_path, **PICTURES[name]) as on:
            await on.arrived()
            await on.press("space", "j", "k")
            compare(f"dead-{name}", on.stage.text)

    run(play())


def test_rows_and_ids() -> None:
    spans = [(5, 8), (10, 11), (20, 24)]
    numbers = [5, 6, 7, 10, 20, 21, 22, 23]
    for start in range(10):
        for stop in range(10):
            found = [number for first, end in slice_of(spans, start, stop) for number in range(first, end)]
            assert found == numbers[start:stop]
    assert [place_of(spans, number) for number in (1, 5, 7, 8, 10, 23, 99)] == [0, 0, 2, 3, 3, 7, 8]
    assert turned(turned(spans, 6), 6) == spans
    assert turned(spans, 6) == [(5, 6), (7, 8), (10, 11), (20, 24)]
