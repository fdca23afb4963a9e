"""Pages of what is on disk: right at any place, cheap in a large segment, with damage told and passed over."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from mbframework import MessageBuffer
from mbframework.browse import Entry, Gap, LaneBrowser
from mbframework.files import Files
from tests.browse.conftest import COUNT
from tests.browse.harm import HARMS, cut, patch, remove, segments


class CountingFiles(Files):
    read = 0

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        data = super().pread(fd, size, offset)
        self.read += len(data)
        return data


def numbers(page: list[Entry | Gap]) -> list[int]:
    """The sequences of a page; every one that a gap covers, negative."""
    result: list[int] = []
    for item in page:
        result += [item.sequence] if isinstance(item, Entry) else [-each for each in range(item.first, item.last + 1)]
    return result


def everything(browser: LaneBrowser) -> list[Entry | Gap]:
    items: list[Entry | Gap] = []
    at = 1
    while page := browser.page(at, 300):
        items += page
        at = abs(numbers(page)[-1]) + 1
    return items


def test_any_place_is_reached_from_both_sides(tmp_path: Path) -> None:
    chance = random.Random(7)
    written: dict[int, tuple[str, bytes | None, bytes | None]] = {}
    with MessageBuffer(tmp_path / "b", segment_size="64KiB", total_size="8MiB") as buffer:
        while len(written) < 3000:
            size = chance.choice([0, 10, 10, 3000])
            if chance.random() < 0.3:
                values = [os.urandom(size) for _ in range(chance.randrange(1, 60))]
                for sequence, value in zip(buffer.write_many("many", values), values, strict=True):
                    written[sequence] = "many", None, value
            else:
                value = None if chance.random() < 0.1 else os.urandom(size)
                written[buffer.write("one", value, key=b"k")] = "one", b"k", value
        for _ in range(2):
            browser = LaneBrowser(str(tmp_path / "b" / "main"))
            first, end = browser.first, browser.end
            assert (first, end) == (1, len(written) + 1)
            for _ in range(60):
                at, limit = chance.randrange(1, end), chance.randrange(1, 400)
                page = [item for item in browser.page(at, limit) if isinstance(item, Entry)]
                assert [each.sequence for each in page] == list(range(at, min(at + limit, end)))
                assert all((each.topic, each.key, each.value) == written[each.sequence] for each in page)
                assert numbers(browser.before(at, limit)) == list(range(max(1, at - limit), at))
            # Once while it is written, once when it is closed.
            buffer.close()


def test_a_message_in_a_large_segment_costs_little(tmp_path: Path) -> None:
    with MessageBuffer(tmp_path / "b", segment_size="64MiB") as buffer:
        for start in range(0, 300_000, 3000):
            buffer.write_many("t", [b"%0100d" % number for number in range(start, start + 3000)])
        files = CountingFiles()
        browser = LaneBrowser(str(tmp_path / "b" / "main"), files)
        for at in (1, 150_000, 299_951):
            files.read = 0
            page = browser.page(at, 50)
            assert numbers(page) == list(range(at, at + 50))
            assert files.read < 8 << 20
        files.read = 0
        assert numbers(browser.before(browser.end, 10)) == list(range(299_991, 300_001))
        assert files.read < 8 << 20


def test_a_segment_inside_a_message_is_not_taken_for_it(tmp_path: Path) -> None:
    with MessageBuffer(tmp_path / "b", segment_size="16MiB") as buffer:
        for number in range(3000):
            buffer.write("t", b"%05d" % number + b"x" * 500)
        buffer.sync()
        segment = segments(tmp_path / "b")[-1]
        buffer.write("t", segment.read_bytes()[: 3 << 20])
        for number in range(3001, 6000):
            buffer.write("t", b"%05d" % number + b"x" * 500)
        browser = LaneBrowser(str(tmp_path / "b" / "main"))
        for at in range(1, 5900, 97):
            assert numbers(browser.page(at, 40)) == list(range(at, at + 40))
        page = browser.page(3001, 2)
        assert isinstance(page[0], Entry)
        assert page[0].value_size == 3 << 20


def test_large_messages_take_no_more_than_what_is_kept_of_them(tmp_path: Path) -> None:
    with MessageBuffer(tmp_path / "b", segment_size="64MiB", total_size="512MiB") as buffer:
        for number in range(8):
            buffer.write("t", bytes([number]) * (15 << 20))
    browser = LaneBrowser(str(tmp_path / "b" / "main"))
    tracemalloc.start()
    page = browser.page(1, 8, value_limit=100)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 80 << 20
    found = [item for item in page if isinstance(item, Entry)]
    assert [(len(item.value or b""), item.value_size, item.sequence) for item in found] == [
        (100, 15 << 20, number) for number in range(1, 9)
    ]
    assert numbers(browser.page(2, 8)) == [2, 3, 4]
    assert numbers(browser.before(9, 8)) in ([6, 7, 8], [5, 6, 7, 8])
    assert numbers(browser.before(9, 8, value_limit=0)) == list(range(1, 9))


@pytest.mark.parametrize("name", [name for name in HARMS if name not in {"all segments are missing", "the head"}])
def test_damage_is_a_gap_and_everything_else_is_there(outbox: Path, name: str) -> None:
    HARMS[name](outbox)
    browser = LaneBrowser(str(outbox / "main"))
    items = everything(browser)
    told = numbers(items)
    assert [abs(number) for number in told] == sorted({abs(number) for number in told})
    for item in items:
        if isinstance(item, Entry):
            assert item.value == b"%05d" % (item.sequence - 1) + b"x" * 95
        else:
            assert item.messages == item.last - item.first + 1
    end = browser.end
    backwards: list[int] = []
    while page := browser.before(end, 170):
        backwards = numbers(page) + backwards
        end = abs(numbers(page)[0])
    assert [number for number in backwards if number > 0] == [number for number in told if number > 0]
    # A gap with an intact message in front of it and one behind is told by both.
    assert {number for number in told if number < 0} <= set(backwards) | set(range(-COUNT, 0))


@pytest.mark.parametrize(
    ("harm", "gaps"),
    [
        (patch(0, 4096 + 152 * 10 + 60, b"\xff"), [(11, 11)]),
        (patch(0, 4096 + 152 * 10, bytes(152 * 3)), [(11, 13)]),
        (cut(2, 4096 + 152), [(808, 1209)]),
        (remove(3), [(1210, 1612)]),
        (remove(0), []),
        (lambda outbox: None, []),
    ],
)
def test_a_gap_says_exactly_what_is_missing(outbox: Path, harm: object, gaps: list[tuple[int, int]]) -> None:
    assert callable(harm)
    harm(outbox)
    items = everything(LaneBrowser(str(outbox / "main")))
    assert [(item.first, item.last) for item in items if isinstance(item, Gap)] == gaps


def test_segments_may_go_between_two_pages(outbox: Path) -> None:
    browser = LaneBrowser(str(outbox / "main"))
    assert numbers(browser.page(1, 3)) == [1, 2, 3]
    for path in segments(outbox)[:4]:
        path.unlink()
    assert numbers(browser.page(4, 2)) == [1613, 1614]
    assert browser.first == 1613
    for path in segments(outbox):
        path.unlink()
    assert browser.page(4, 2) == browser.before(4000, 2) == []
    assert browser.first == browser.end


WRITER = """
import sys
from mbframework import MessageBuffer
buffer = MessageBuffer(sys.argv[1], segment_size="1MiB", total_size="64MiB")
number = 0
while True:
    buffer.write("t", b"%07d" % number + b"x" * (number % 700))
    number += 1
    if number % 1000 == 0:
        print(number, flush=True)
"""


def test_a_lane_that_is_written_and_then_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "b")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        browser = LaneBrowser(str(tmp_path / "b" / "main"))
        at = 1
        while at < 8000:
            page = browser.page(at, 700)
            assert numbers(page) == list(range(at, at + len(page)))
            at += len(page)
            last = numbers(browser.before(browser.end, 20))
            assert last == list(range(last[0], last[0] + 20))
        writer.send_signal(signal.SIGKILL)
        told = [int(line) for line in writer.stdout]
    page = everything(browser)
    for number, item in enumerate(page):
        assert isinstance(item, Entry)
        assert item.value == b"%07d" % number + b"x" * (number % 700)
    assert len(page) >= max(told, default=1000)
    assert browser.end == len(page) + 1


def test_the_facts_of_a_segment(outbox: Path) -> None:
    browser = LaneBrowser(str(outbox / "main"))
    info = browser.segment(404)
    assert info is not None
    assert (info.first, info.end, info.messages, info.sealed, info.damage) == (404, 807, 403, True, ())
    assert info.first_time is not None
    assert info.last_time is not None
    assert info.first_time <= info.last_time
    patch(1, 30_000, b"\xff")(outbox)
    damaged = browser.segment(404)
    assert damaged is not None
    assert damaged.messages == 402
    assert len(damaged.damage) == 1
    assert browser.segment(405) is None
