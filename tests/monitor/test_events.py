"""Event files from their ends: every kind in words, and nothing that a file can hold stops them."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbframework.events import EventLog
from mbframework.files import Files
from mbframework.monitor.events import MAX_LINE, EventFiles, lines_from_end, parse
from mbframework.monitor.view import Event

DOCS = Path(__file__).parents[2] / "docs" / "status.md"

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def kinds() -> dict[str, list[str]]:
    """Kinds and fields, as documented."""
    table = DOCS.read_text().split("\n## Event lines\n")[1]
    rows = re.findall(r"^\| `([a-z-]+)` \| ([^|]*) \|", table, re.MULTILINE)
    return {kind: re.findall(r"`([^`]+)`", fields) for kind, fields in rows[1:]}


def line(at: float, kind: str = "seal", **facts: Any) -> bytes:
    return json.dumps({"schema": 1, "at": at, "boot_ns": 1, "kind": kind} | facts).encode() + b"\n"


def events(lane: Path, limit: int = 500) -> list[Event]:
    return EventFiles(Files(), str(lane), "main").last(limit)


def said(kind: str, **facts: Any) -> tuple[str, str]:
    event = parse(line(1.0, kind, **facts), "main")
    assert event is not None
    return event.level, event.text


@pytest.mark.parametrize("kind", kinds())
def test_every_kind_has_words_of_its_own(kind: str) -> None:
    facts = dict.fromkeys(kinds()[kind], 7)
    _, text = said(kind, **facts)
    assert text
    # What is only listed name by name is a kind that nobody has found words for.
    assert "=7" not in text
    assert said(kind)[1]


@pytest.mark.parametrize(
    ("kind", "facts", "level", "text"),
    [
        (
            "prune",
            {"segments": 1, "first": 3, "last": 9, "bytes": 1 << 26, "messages": 300_777, "undelivered": 120_422,
             "reason": "total_size"},
            "error",
            "1 segment, 64MiB, 300,777 messages, 120,422 UNDELIVERED (sequences 3 to 9): total_size",
        ),
        ("prune", {"segments": 2, "messages": 1}, "info", "2 segments, 0B, 1 message"),
        (
            "prune", {"segments": 1, "messages": 638, "in_hand": 638}, "warning",
            "1 segment, 0B, 638 messages, 638 in the sender's hand",
        ),
        (
            "prune", {"segments": 0, "messages": 2592, "undelivered": 2592, "first": -1, "last": -1}, "error",
            "2,592 messages UNDELIVERED, which the sender had in hand when their segments were pruned",
        ),
        (
            "prune", {"segments": -2, "messages": "x", "undelivered": 1e300, "bytes": -5}, "info",
            "? segments, 0B, ? messages, ? UNDELIVERED",
        ),
        ("lost", {"messages": -7, "first": 10**30, "last": -1}, "error", "? messages LOST"),
        (
            "failure",
            {"reason": "refused\x1b[31m\n[b]", "uncertain": True, "retry_wait_s": 1.5},
            "warning",
            "refused\\x1b[31m\\n[b]; some may have arrived; next attempt in 1.5s",
        ),
        ("state", {"before": "live", "after": "blocked", "reason": "x"}, "error", "live → blocked: x"),
        ("state", {"before": "live", "after": "buffering", "reason": ""}, "warning", "live → buffering"),
        ("lost", {"first": -1, "last": -1, "messages": 2, "reason": "killed"}, "error", "2 messages LOST: killed"),
        ("recovered", {"messages": 5, "bytes": 10, "seconds": 0.25, "notes": ["a", "b"]}, "info",
         "5 messages (10B) found in 250ms: a; b"),
        ("of-a-newer-release", {"why": "new", "n": 1}, "info", "why=new, n=1"),
    ],
)  # fmt: skip
def test_what_is_said(kind: str, facts: dict[str, Any], level: str, text: str) -> None:
    assert said(kind, **facts) == (level, text)


@given(
    st.dictionaries(st.sampled_from(["kind", "at", "reason", "messages", "first", "notes", "seconds", "x"]), anything)
)
def test_wrong_types_are_told_as_far_as_they_can_be(facts: dict[str, Any]) -> None:
    for kind in kinds():
        event = parse(json.dumps({"at": 1.0} | facts | {"kind": kind}).encode(), "main")
        if event is not None:
            assert event.text.isprintable()
            assert len(event.text) < 5000
    assert parse(json.dumps(facts).encode(), "main") is None or isinstance(facts.get("kind"), str)


@given(st.binary())
def test_what_is_no_line_is_passed_over(junk: bytes) -> None:
    assert parse(junk, "main") is None


def test_both_halves_and_the_files_before_them_are_merged(tmp_path: Path) -> None:
    for name, instants in {
        "events.writer.jsonl.1": (1, 4), "events.writer.jsonl": (5, 9),
        "events.sender.jsonl.1": (2, 3), "events.sender.jsonl": (6, 7, 8),
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(b"".join(line(at) for at in instants))
    assert [event.at for event in events(tmp_path)] == list(range(1, 10))
    assert [event.at for event in events(tmp_path, 4)] == [6, 7, 8, 9]
    assert events(tmp_path, 0) == []
    assert events(tmp_path / "nowhere") == []


ONE, TWO = "1" * 32, "2" * 32


def lines(*told: tuple[str, int, float]) -> bytes:
    """Of a boot ("": of none that is told), by its clock in seconds, and by the wall clock."""
    return b"".join(
        line(at, **({"boot_id": boot, "boot_ns": seconds * 10**9} if boot else {})) for boot, seconds, at in told
    )


@pytest.mark.parametrize(
    ("writer", "sender", "order"),
    [
        # The wall clock was set back, and then ahead.
        ([(ONE, 1, 50), (ONE, 4, 11)], [(ONE, 2, 51), (ONE, 3, 10), (ONE, 5, 99)], [50, 51, 10, 11, 99]),
        # Of an older release, then of two boots, the second with an earlier wall clock.
        ([("", 0, 7), (ONE, 3, 90), (TWO, 1, 20)], [("", 0, 8), (ONE, 2, 91), (TWO, 2, 10)], [7, 8, 91, 90, 20, 10]),
        # Of a boot that only one of them has seen.
        ([(ONE, 9, 50), (TWO, 1, 60)], [(TWO, 2, 40)], [50, 60, 40]),
        ([(TWO, 1, 60)], [(ONE, 9, 99), (TWO, 2, 40)], [99, 60, 40]),
        ([(ONE, 1, 60)], [(TWO, 1, 50)], [50, 60]),
        # What contradicts itself is told all the same.
        ([(ONE, 1, 1), (TWO, 1, 2)], [(TWO, 2, 3), (ONE, 2, 4)], [3, 1, 4, 2]),
    ],
)  # fmt: skip
def test_a_wall_clock_that_is_set_puts_nothing_out_of_order(
    tmp_path: Path, writer: list[Any], sender: list[Any], order: list[float]
) -> None:
    for half, told in (("writer", writer), ("sender", sender)):
        (tmp_path / f"events.{half}.jsonl").write_bytes(lines(*told))
    assert [event.at for event in events(tmp_path)] == order


def test_what_happened_since_the_machine_started_is_dated_by_its_clock(tmp_path: Path) -> None:
    class Skewed(Files):
        skew = 0

        def wall_ns(self) -> int:
            return super().wall_ns() + self.skew

    files = Skewed()
    log = EventLog(files, str(tmp_path / "events.writer.jsonl"), directory="d", lane="main")
    log.tell("seal")
    log.flush()
    seen = EventFiles(files, str(tmp_path), "main")
    (event,) = seen.last(9)
    for hours in (-48, 48):
        files.skew = hours * 3_600 * 10**9
        (again,) = seen.last(9)
        assert again.at - event.at == pytest.approx(hours * 3_600, abs=60)
        # What has not changed stays the same, so that nothing is drawn anew.
        assert seen.last(9) == [again]
    # A line of the future is none.
    (tmp_path / "events.writer.jsonl").write_bytes(lines((files.boot_id().hex(), files.boot_ns() // 10**9 + 60, 7)))
    assert [each.at for each in seen.last(9)] == [7]


def test_hostile_lines_cost_themselves(tmp_path: Path) -> None:
    (tmp_path / "events.writer.jsonl").write_bytes(
        line(1)
        + b"\xff\xfe not text\n\n{}\n[1]\n" + b"[" * 100_000 + b"\n"
        + line(2, reason="\x1b]0;owned\x07")
        + b'{"kind": "seal", "at": "' + b"x" * (50 << 20) + b'"}\n'
        + line(3, "failure", reason="y" * (MAX_LINE // 2))
        + line(4)
        + line(5)[:-10]
    )  # fmt: skip
    found = events(tmp_path)
    assert [event.at for event in found] == [1, 2, 3, 4]
    assert all(len(event.text) <= 1000 and event.text.isprintable() for event in found)


@given(st.lists(st.binary(max_size=30).filter(lambda text: b"\n" not in text), max_size=30), st.integers(1, 64))
def test_lines_come_whole_and_backwards_whatever_the_blocks(parts: list[bytes], block: int) -> None:
    raw = b"\n".join(parts)

    class Memory(Files):
        def pread(self, fd: int, size: int, offset: int) -> bytes:
            return raw[offset : offset + size]

    import mbframework.monitor.events as module

    kept, module._BLOCK = module._BLOCK, block
    try:
        assert list(lines_from_end(Memory(), -1, len(raw))) == parts[:-1][::-1]
    finally:
        module._BLOCK = kept


def test_a_huge_file_costs_no_more_than_its_tail(tmp_path: Path) -> None:
    path = tmp_path / "events.writer.jsonl"
    path.touch()
    os.truncate(path, 1 << 30)
    with path.open("ab") as file:
        file.write(b"\n" + b"".join(line(at, "prune") for at in range(1000)))

    class Counting(Files):
        read = 0

        def pread(self, fd: int, size: int, offset: int) -> bytes:
            type(self).read += size
            return super().pread(fd, size, offset)

    files = EventFiles(Counting(), str(tmp_path), "main")
    assert [event.at for event in files.last(500)] == list(range(500, 1000))
    assert Counting.read < 2 << 20
    Counting.read = 0
    files.last(500)
    assert not Counting.read
    assert files.prunes() == 1000


def test_prunes_are_counted_once_through_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "events.writer.jsonl"
    files = EventFiles(Files(), str(tmp_path), "main")
    assert files.prunes() == 0
    path.write_bytes(line(1, "prune") + line(2, reason='"kind": "prune"') + line(3, "prune")[:-1])
    assert files.prunes() == 1
    with path.open("ab") as file:
        file.write(b"\n")
    assert files.prunes() == 2
    path.rename(f"{path}.1")
    path.write_bytes(line(4, "prune"))
    assert files.prunes() == files.prunes() == 3
    assert EventFiles(Files(), str(tmp_path), "main").prunes() == 3


def test_new_lines_are_seen(tmp_path: Path, promised: Callable[[float], float]) -> None:
    path = tmp_path / "events.sender.jsonl"
    files = EventFiles(Files(), str(tmp_path), "main")
    for number in range(1, 5):
        with path.open("ab") as file:
            file.write(line(number))
        # Two stores within one tick of the file's clock differ in size.
        assert [event.at for event in files.last(3)] == list(range(max(1, number - 2), number + 1))
    begun = time.monotonic()
    for _ in range(100):
        files.last(3)
    assert time.monotonic() - begun < promised(5)
