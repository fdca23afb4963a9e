"""The view of one segment: every key, what happens to the file meanwhile, hostile messages, pictures."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mbtui.segment_lines import segment_lines
from mbtui.segment_screen import SegmentScreen, sequence_of
from mbtui.segment_source import Facts
from textual.widgets import Input

from mbframework.browse import Gap
from mbframework.files import Files
from tests.tui.buffers import Clock, HeldFiles, TakesSome, buffer, segments, written
from tests.tui.stage import Stage, compare, staged

pytestmark = pytest.mark.timeout(60)


def run(play: Coroutine[Any, Any, None]) -> None:
    asyncio.run(play)


def orders(count: int) -> list[bytes]:
    return [json.dumps({"id": number, "tags": ["a", "b"]}).encode() for number in range(count)]


class Play:
    """The screen on its stage."""

    def __init__(self, stage: Stage, screen: SegmentScreen) -> None:
        self.stage, self.screen = stage, screen

    @property
    def sequence(self) -> int:
        return self.screen._first + self.screen.list.cursor

    @property
    def said(self) -> str:
        return self.stage.lines[-2].strip()

    async def press(self, *keys: str) -> None:
        await self.stage.press(*keys)

    async def arrived(self) -> None:
        """What is under the cursor has been read, and is previewed."""
        await self.stage.until(lambda: self.screen.list.item is not None, "the message under the cursor")

    async def checked(self) -> None:
        await self.stage.until(lambda: self.screen._check is not None, "the check")

    async def type(self, text: str) -> None:
        """Type into the dialog, and press Enter."""
        await self.stage.until(lambda: self.stage.app.screen is not self.screen, "the dialog")
        self.stage.app.screen.query_one(Input).value = text
        await self.press("enter")


@asynccontextmanager
async def segment(
    lane: Path, first: int = 1, *, files: Files | None = None, size: tuple[int, int] = (120, 40), **options: Any
) -> AsyncIterator[Play]:
    async with staged(size=size, **options) as stage:
        screen = SegmentScreen(str(lane), first, files=files)
        stage.app.push_screen(screen)
        await stage.until(lambda: (screen.is_attached and screen._facts is not None) or screen._trouble, "the facts")
        yield Play(stage, screen)


def test_the_cursor_and_its_keys(tmp_path: Path) -> None:
    lane = written(tmp_path, orders(1000))

    async def play() -> None:
        async with segment(lane) as on:
            await on.arrived()
            for key, sequence in [("j", 2), ("down", 3), ("k", 2), ("up", 1), ("up", 1), ("G", 1000), ("g", 1),
                                  ("end", 1000), ("down", 1000), ("home", 1)]:  # fmt: skip
                await on.press(key)
                assert on.sequence == sequence, key
            await on.press("pagedown")
            page = on.sequence
            assert 10 < page < 40
            await on.press("pagedown", "pageup")
            assert on.sequence == page
            await on.arrived()
            assert f"message {page}" in on.stage.text
            assert f'"id": {page - 1}' in on.stage.text
            await on.press("escape")
            assert on.stage.app.screen is on.stage.app.main

    run(play())


def test_jumping(tmp_path: Path) -> None:
    lane = written(tmp_path, orders(1000))

    async def play() -> None:
        async with segment(lane) as on:
            for key in ("colon", "J"):
                await on.press(key)
                await on.type("1,001")
                assert "this segment has 1 to 1,000" in on.stage.text
                await on.type("640")
                assert on.sequence == 640
                await on.arrived()
                assert '"id": 639' in on.stage.text
                await on.press(key, "escape")
                assert (on.sequence, on.stage.app.screen) == (640, on.screen)
                await on.press("g")

    run(play())


@pytest.mark.parametrize("text", ["", "x", "0", "101", "-5", "5.0", "9" * 5000, "٣"])
def test_what_is_no_sequence_of_the_segment(text: str) -> None:
    with pytest.raises(ValueError, match="expected a number|this segment has 1 to 100"):
        sequence_of(text, 1, 100)
    assert [sequence_of(text, 1, 100_000) for text in ("5", " 1,234 ", "1_000", "1 000")] == [5, 1234, 1000, 1000]


def test_what_is_delivered_is_marked_and_the_next_is_found(tmp_path: Path) -> None:
    lane = written(tmp_path, orders(40))
    provider = TakesSome([*range(10), 15])
    with buffer(tmp_path, Files(), provider, close_timeout=0.1):
        assert provider.asked.wait(60)

    async def play() -> None:
        async with segment(lane) as on:
            await on.arrived()
            await on.press("u")
            assert on.sequence == 11
            facts = on.screen._facts
            assert facts is not None
            assert (facts.state, facts.delivered, facts.undelivered) == ("next", 11, 11)
            marks = [facts.mark(sequence) for sequence in range(1, 41)]
            assert marks == ["delivered"] * 10 + ["next"] + ["pending"] * 4 + ["delivered"] + ["pending"] * 24
            assert "△ NEXT" in on.stage.lines[0]
            assert "delivered 27.5%" in on.stage.lines[1]
            rows = {int(line.split()[2]): line for line in on.stage.lines[4:20]}
            assert [rows[at].split()[:2] for at in (10, 11, 12, 16)] == [
                ["✓", "delivered"], ["▶", "next"], ["·", "pending"], ["✓", "delivered"],
            ]  # fmt: skip

    run(play())


def test_the_marks_are_the_ones_of_the_format() -> None:
    # Ordinals 100 to 109 are sequences 51 to 60.
    known = {"first": 51, "end": 61, "name": "P", "size": 0, "ordinal": 100, "wall_ns": 0}
    assert Facts(**known, settled=90).mark(51) == "pending"
    assert Facts(**known, settled=90, scattered=1 << 12).mark(53) == "delivered"
    assert Facts(**known, settled=90, scattered=1 << 12).delivered == 1
    assert Facts(**known, settled=90, scattered=1 << 12 | 1 << 30).delivered == 1
    assert [Facts(**known, settled=103).mark(at) for at in (53, 54, 55)] == ["delivered", "next", "pending"]
    assert Facts(**known, settled=103, scattered=1 << 2).delivered == 4
    done = Facts(**known, settled=110)
    assert (done.state, done.undelivered, done.delivered) == ("drained", None, 10)
    unknown = Facts(**known)
    assert [Facts(**known, settled=at).state for at in (99, 100, 105, 110)] == [
        "sealed",
        "draining",
        "draining",
        "drained",
    ]
    assert (unknown.mark(51), unknown.delivered, unknown.state) == ("pending", 0, "sealed")


def test_the_tail_is_followed_while_the_segment_grows(tmp_path: Path) -> None:
    clock = Clock()

    async def play() -> None:
        with buffer(tmp_path, clock) as growing:
            growing.write("orders", b"first")
            first = 1
            async with segment(Path(growing.directory, "main"), first) as on:
                assert "● FILLING" in on.stage.lines[0]
                await on.press("T")
                assert on.said.startswith("at the tail; it is followed")
                growing.write("orders", b"second")
                growing.write("orders", b"third")
                await on.stage.until(lambda: on.sequence == first + 2, "the third message")
                await on.arrived()
                await on.stage.until_shown("third")
                await on.press("k")
                growing.write("orders", b"fourth")
                await on.stage.until(lambda: on.screen.list.total == 4, "the fourth message")
                assert on.sequence == first + 1
                await on.press("G")
                await on.arrived()
                await on.stage.until_shown("fourth")

    run(play())


def test_searching(tmp_path: Path) -> None:
    values: list[bytes | None] = [*orders(3000), None]
    values[1500] = b"needle one"
    values[2500] = "NEEDLE zwei äöü".encode()
    lane = written(tmp_path, values)

    async def play() -> None:
        async with segment(lane) as on:
            await on.press("n")
            assert on.said == "nothing is searched for: / begins a search"
            await on.press("slash")
            await on.type("(")
            assert "not a regular expression" in on.stage.text
            await on.type("needle")
            await on.stage.until(lambda: on.sequence == 1501, "the first needle")
            await on.press("n")
            await on.stage.until(lambda: on.sequence == 2501, "the second needle")
            await on.press("n")
            await on.stage.until(lambda: "no match behind" in on.said, "the end of the search")
            assert on.sequence == 2501
            await on.press("N")
            await on.stage.until(lambda: on.sequence == 1501, "the first needle again")
            await on.press("N")
            await on.stage.until(lambda: "no match in front" in on.said, "the end of the search")
            await on.press("g", "slash")
            await on.type("!id|needle one")
            await on.stage.until(lambda: on.sequence == 2501, "what has no id")
            await on.press("slash")
            await on.type("user-77$")
            await on.stage.until(lambda: "no match" in on.said, "the end of the search")
            await on.press("g", "slash")
            await on.type("^user-77$|zwei ä")
            await on.stage.until(lambda: on.sequence == 2501, "text beyond ASCII")

    run(play())


def test_a_search_can_be_stopped(tmp_path: Path) -> None:
    lane = written(tmp_path, orders(100))
    files = HeldFiles()

    async def play() -> None:
        async with segment(lane, files=files) as on:
            await on.arrived()
            await on.checked()
            files.go.clear()
            try:
                await on.press("slash")
                await on.type("nowhere")
                await on.stage.until(lambda: on.said.startswith("searching nowhere"), "the search")
                await on.press("escape")
                await on.stage.until(lambda: "was stopped" in on.said, "the end of the search")
                assert on.stage.app.screen is on.screen
                await on.press("escape")
                assert on.stage.app.screen is on.stage.app.main
            finally:
                files.go.set()

    run(play())


def test_no_key_waits_for_the_disk(tmp_path: Path) -> None:
    lane = written(tmp_path, orders(1000))
    files = HeldFiles()

    async def play() -> None:
        async with segment(lane, files=files) as on:
            await on.arrived()
            await on.checked()
            files.go.clear()
            try:
                await on.press("G", "k", "k")
                assert on.sequence == 998
                assert "998 …" in on.stage.text
                await on.press("v", "question_mark")
                assert "the value as JSON" in on.stage.text
                await on.press("escape")
            finally:
                files.go.set()
            await on.arrived()
            await on.stage.until_shown('{"id": 997')

    run(play())


def test_views_and_copies(tmp_path: Path) -> None:
    lane = written(tmp_path, [b'{"a": 1}', b"\xff\x00", None, b"x" * 100_000])

    async def play() -> None:
        async with segment(lane) as on:
            await on.arrived()
            assert '  "a": 1' in on.stage.text
            await on.press("c")
            assert on.stage.app.clipboard == '{"a": 1}'
            await on.press("v")
            assert "message 1 · text" in on.stage.text
            await on.press("j", "v")
            assert "00000000  ff 00" in on.stage.text
            await on.press("c")
            assert on.stage.app.clipboard == "ff00"
            await on.press("v")
            assert "message 2 · text · not JSON" in on.stage.text
            await on.press("j", "c")
            assert on.said == "message 3 has no value to copy"
            assert "none: a tombstone" in on.stage.text
            await on.press("j", "c")
            assert on.said == "copied the first 64KiB of the value of message 4"
            await on.press("tab", "G")
            assert on.sequence == 4
            assert on.screen.pane.scroll_y > 0
            await on.press("tab", "k")
            assert on.sequence == 3

    run(play())


def test_help_theme_and_quit(tmp_path: Path) -> None:
    lane = written(tmp_path, orders(3))

    async def play() -> None:
        async with segment(lane) as on:
            theme = on.stage.app.theme
            await on.press("t")
            assert on.stage.app.theme != theme
            await on.press("question_mark")
            for key in (key for key in on.screen.KEYS if key.help):
                assert key.help in on.stage.text
            await on.press("escape", "q")
            assert on.stage.app.return_code is not None or on.stage.app._exit

    run(play())


def test_a_segment_that_goes_away(tmp_path: Path) -> None:
    lane = written(tmp_path, orders(1000))

    async def play() -> None:
        async with segment(lane) as on:
            await on.arrived()
            shutil.move(lane, tmp_path / "away")
            await on.stage.until(lambda: "✖ GONE" in on.stage.text, "the news")
            assert on.said.startswith("the segment is gone")
            # What was read is still here, the rest is not.
            assert '"id": 0' in on.stage.text
            await on.press("G")
            await on.arrived()
            await on.stage.until_shown("it is not there any more")
            shutil.move(tmp_path / "away", lane)
            await on.stage.until(lambda: "△ NEXT" in on.stage.text, "its return")
            await on.arrived()
            await on.stage.until_shown('"id": 999')

    run(play())


@pytest.mark.parametrize("first", [1, 7])
def test_a_segment_that_never_was(tmp_path: Path, first: int) -> None:
    async def play() -> None:
        async with staged() as stage:
            screen = SegmentScreen(str(tmp_path / "nowhere"), first)
            stage.app.push_screen(screen)
            await stage.until(lambda: "gone" in stage.text, "the news")
            for keys in ("u", "T", "G", "c", "v", "n", "k", "pagedown"):
                await stage.press(keys)

    run(play())


def test_damage_is_shown_at_its_place(tmp_path: Path) -> None:
    lane = written(tmp_path, orders(100))
    (path,) = lane.glob("*.seg")
    data = bytearray(path.read_bytes())
    at = data.index(b'{"id": 49,')
    data[at : at + 4] = b"\0\0\0\0"
    path.write_bytes(data)

    async def play() -> None:
        async with segment(lane) as on:
            await on.checked()
            assert "✖ damaged" in on.stage.lines[2]
            await on.press("colon")
            await on.type("50")
            await on.arrived()
            assert isinstance(on.screen.list.item, Gap)
            assert "message 50" in on.stage.text
            assert "✖ missing" in on.stage.text
            assert "tombstone" not in on.stage.text
            assert "unreadable damaged" in on.stage.text
            await on.press("j")
            assert '"id": 50' in on.stage.text

    run(play())


def test_a_damaged_header_is_said(tmp_path: Path) -> None:
    lane = written(tmp_path, orders(3))
    (path,) = lane.glob("*.seg")
    with path.open("r+b") as file:
        file.write(b"\0" * 64)

    async def play() -> None:
        async with segment(lane) as on:
            assert on.said.startswith(f"the header of {path.name} cannot be read")

    run(play())


def test_a_device_that_fails_and_heals(tmp_path: Path) -> None:
    lane = written(tmp_path, orders(1000))
    files = HeldFiles()

    async def play() -> None:
        async with segment(lane, files=files) as on:
            await on.arrived()
            await on.checked()
            files.error = OSError(errno.EIO, os.strerror(errno.EIO), "P1.seg\x1b[31m[red]")
            await on.press("G")
            await on.stage.until(lambda: "cannot be read: `mb verify` tells what is left" in on.said, "the error")
            files.error = OSError(errno.EACCES, os.strerror(errno.EACCES), "P1.seg\x1b[31m[red]")
            await on.stage.until(lambda: on.said == r"P1.seg\x1b[31m[red]: Permission denied", "the other error")
            files.error = None
            await on.arrived()
            await on.stage.until(lambda: not on.said, "the end of the error")
            assert '"id": 999' in on.stage.text

    run(play())


HOSTILE = [
    b"\x1b[2J\x1b[31mred\x1b]0;owned\x07",
    b"[red]markup[/] [@click=app.quit]x[/]",
    "\u202eevil\u2066 \u200d\ufe0f".encode(),
    b"nul\x00 \xff\xfe invalid \xc3",
    b"[" * 100_000,
    b'{"a": "' + b"y" * (15 << 20) + b'"}',
    b"line\r\nline\ttab\x7f\xc2\x9b31m",
    b"",
    None,
]


@pytest.mark.parametrize("ascii", [False, True])
def test_hostile_messages_do_not_reach_the_terminal(tmp_path: Path, ascii: bool) -> None:
    lane = written(tmp_path, HOSTILE, segment_size="64MiB", total_size="256MiB")
    with buffer(tmp_path, Clock()) as more:
        more.write("topic\x1b[31m[b]", b"v", key=b"\x1b[5m\xff[i]", headers=[("h\x1b\x07[u]", b"\x00\x1b[1m")])
    assert len(segments(lane)) >= 2

    async def play() -> None:
        for first in segments(lane):
            async with segment(lane, first, ascii=ascii) as on:
                for _ in range(on.screen.list.total):
                    await on.arrived()
                    for _ in range(3):
                        text = on.stage.text
                        assert all(line.isprintable() for line in text.split("\n"))
                        assert text.isascii() or not ascii
                        await on.press("v")
                    await on.press("j")

    run(play())


PICTURES = {
    "80x24": {"size": (80, 24)},
    "120x40": {"size": (120, 40)},
    "200x60": {"size": (200, 60)},
    "no-color-120x40": {"size": (120, 40), "color": False},
    "no-color-200x60": {"size": (200, 60), "color": False},
    "ascii-80x24": {"size": (80, 24), "ascii": True},
    "ascii-120x40": {"size": (120, 40), "ascii": True},
    "60x14": {"size": (60, 14)},
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(tmp_path: Path, name: str) -> None:
    lane = written(tmp_path, [*orders(30), *HOSTILE[:4]], segment_size="256KiB", total_size="8MiB")
    provider = TakesSome(range(27))
    with buffer(tmp_path, Files(), provider, close_timeout=0.1):
        assert provider.asked.wait(60)

    async def play() -> None:
        async with segment(lane, **PICTURES[name]) as on:
            await on.checked()
            await on.press("G")
            await on.arrived()
            await on.press("k", "k", "k")
            compare(f"segment-{name}", on.stage.text)

    run(play())


def test_the_lines_above_are_never_wider_than_the_screen() -> None:
    from mbtui.glyphs import UNICODE
    from mbtui.ink import length

    facts = Facts(10**15, 10**15 + 10**6, "P" + "9" * 20 + ".seg", 1 << 40, 10**14, 0, settled=10**14 + 5, otherwise=7)
    for width in range(20, 200, 7):
        for line in segment_lines(facts, None, "a\x1b" * 40, width=width, glyphs=UNICODE)[:1]:
            assert length(line) <= width
