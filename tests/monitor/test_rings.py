"""The engine's rings: what was put in comes out, in order, whatever else stands in the file."""

from __future__ import annotations

import os
import stat
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbframework import history
from mbframework.errors import UnsupportedFormat
from mbframework.files import Files
from mbframework.history import (
    FILE_SIZE,
    HEADER_SIZE,
    RECORD_SIZE,
    RECORDS,
    SENDER_FILE,
    WRITER_FILE,
    Record,
    Ring,
    Sent,
    Written,
    decode,
    pack_header,
    pack_record,
    place_of,
    unpack_record,
)
from mbframework.reporter import Reporter
from mbframework.spool.layout import U64_LIMIT
from mbframework.spool.record import close_record

u63 = st.integers(0, U64_LIMIT - 1)
records = st.builds(
    Record,
    number=st.integers(1, U64_LIMIT - 1),
    run=st.binary(min_size=8, max_size=8),
    boot_ns=u63,
    wall_ns=st.integers(-(1 << 63), (1 << 63) - 1),
    counters=st.tuples(u63, u63, u63, u63),
)


def content(lane: Path, name: str = WRITER_FILE) -> list[Record]:
    past = history.read(Files(), str(lane / name), name)
    assert past is not None
    return past.records


def messages(lane: Path, name: str = WRITER_FILE) -> list[int]:
    return [record.counters[0] for record in content(lane, name)]


@given(records)
def test_a_record_comes_back_as_it_was(record: Record) -> None:
    raw = pack_record(record)
    assert len(raw) == RECORD_SIZE
    assert unpack_record(raw, (record.number - 1) % RECORDS) == record
    assert unpack_record(raw, record.number % RECORDS) is None


@given(records, st.integers(0, RECORD_SIZE * 8 - 1))
def test_a_flipped_bit_costs_the_record(record: Record, bit: int) -> None:
    raw = bytearray(pack_record(record))
    raw[bit // 8] ^= 1 << bit % 8
    assert unpack_record(bytes(raw), (record.number - 1) % RECORDS) is None


@given(st.binary(max_size=3 * RECORD_SIZE))
def test_hostile_bytes_are_no_records(junk: bytes) -> None:
    header = pack_header(WRITER_FILE, bytes(16), bytes(16))
    for raw in (junk, header + junk, header + close_record(junk)):
        past = decode(raw, WRITER_FILE)
        assert past is None or all(record.number > 0 for record in past.records)


@given(st.integers(1, 2 * RECORDS), st.sets(st.integers(0, RECORDS - 1), max_size=20))
def test_a_ring_holds_the_last_records_but_the_damaged(count: int, damaged: set[int]) -> None:
    with tempfile.TemporaryDirectory() as lane:
        ring = Ring(Files(), lane, WRITER_FILE)
        for number in range(1, count + 1):
            ring.put(Written(number, 2 * number, 3, 4))
        path = Path(lane, WRITER_FILE)
        raw = bytearray(path.read_bytes())
        assert len(raw) == FILE_SIZE
        for place in damaged:
            raw[HEADER_SIZE + place * RECORD_SIZE + 40] ^= 0xFF
        path.write_bytes(raw)
        left = [n for n in range(max(1, count - RECORDS + 1), count + 1) if (n - 1) % RECORDS not in damaged]
        assert messages(Path(lane)) == left
        # It goes on behind the last of them.
        Ring(Files(), lane, WRITER_FILE).put(Written(count + 1, 0, 0, 0))
        assert messages(Path(lane))[-1] == count + 1


def test_openings_are_told_apart(tmp_path: Path) -> None:
    for opening in range(3):
        ring = Ring(Files(), str(tmp_path), SENDER_FILE)
        ring.put(Sent(opening, 10 * opening, 1))
        ring.put(Sent(opening, 10 * opening, 2))
    past = history.read(Files(), str(tmp_path / SENDER_FILE), SENDER_FILE)
    assert past is not None
    assert [record.counters for record in past.records] == [
        (opening, 10 * opening, discarded, 0) for opening in range(3) for discarded in (1, 2)
    ]
    assert len({record.run for record in past.records}) == 3
    assert past.run == past.records[-1].run
    assert past.boot_id == Files().boot_id()
    assert [record.number for record in decode((tmp_path / SENDER_FILE).read_bytes(), SENDER_FILE, 4).records] == [5, 6]  # type: ignore[union-attr]


def truncate(path: Path) -> None:
    os.truncate(path, 100)


def remove(path: Path) -> None:
    path.unlink()


def fill(path: Path) -> None:
    path.write_bytes(b"\xff" * FILE_SIZE)


def age(path: Path) -> None:
    """A newer release's."""
    raw = bytearray(path.read_bytes())
    raw[8] = 2
    raw[:HEADER_SIZE] = close_record(bytes(raw[: HEADER_SIZE - 4]))
    path.write_bytes(raw)
    with pytest.raises(UnsupportedFormat, match="format 2"):
        history.read(Files(), str(path), WRITER_FILE)


@pytest.mark.parametrize("spoil", [truncate, remove, fill, age])
def test_a_spoiled_file_is_made_anew(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    Ring(Files(), str(tmp_path), WRITER_FILE).put(Written(1, 1, 1, 1))
    spoil(tmp_path / WRITER_FILE)
    ring = Ring(Files(), str(tmp_path), WRITER_FILE, 0o640)
    ring.put(Written(2, 2, 2, 2))
    assert messages(tmp_path) == [2]
    assert stat.S_IMODE((tmp_path / WRITER_FILE).stat().st_mode) == 0o640


@pytest.mark.parametrize("spoil", [truncate, remove])
def test_so_is_one_that_is_spoiled_while_it_is_written(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    ring = Ring(Files(), str(tmp_path), WRITER_FILE)
    ring.put(Written(1, 1, 1, 1))
    spoil(tmp_path / WRITER_FILE)
    ring.put(Written(2, 2, 2, 2))
    assert messages(tmp_path) == [2]


def test_the_halves_are_not_taken_for_each_other(tmp_path: Path) -> None:
    Ring(Files(), str(tmp_path), WRITER_FILE).put(Written(1, 1, 1, 1))
    raw = (tmp_path / WRITER_FILE).read_bytes()
    assert decode(raw, SENDER_FILE) is None
    assert place_of(1) == place_of(1 + RECORDS) == HEADER_SIZE


def test_a_reporter_records_once_a_second_and_at_the_end(tmp_path: Path) -> None:
    now = 10**9
    states = iter("abcdefghijklmnopqrstuvwxyz")

    class Clock(Files):
        def boot_ns(self) -> int:
            return now

    ring = Ring(Clock(), str(tmp_path), WRITER_FILE)
    reporter = Reporter(
        files=Clock(), interval=60.0, state=lambda: (next(states), ""), sections={}, events=[],
        heartbeat=lambda: None, accepted=lambda: 0, history={ring: lambda: Written(now // 10**8, 0, 0, 0)},
    )  # fmt: skip
    for _ in range(21):
        reporter.report()
        now += 10**8
    assert messages(tmp_path) == [10, 19, 28]
    reporter.report(closed=True)
    assert messages(tmp_path) == [10, 19, 28, 31]


def test_a_device_that_refuses_a_record_does_not_stop_the_reporter(tmp_path: Path) -> None:
    asked = threading.Event()

    def counters() -> Written:
        asked.set()
        return Written(1, 1, 1, 1)

    (tmp_path / WRITER_FILE).mkdir()
    reporter = Reporter(
        files=Files(), interval=0.01, state=lambda: ("live", ""), sections={str(tmp_path / "s"): dict}, events=[],
        heartbeat=lambda: None, accepted=lambda: 0, history={Ring(Files(), str(tmp_path), WRITER_FILE): counters},
    )  # fmt: skip
    reporter.start()
    assert asked.wait(60)
    reporter.stop(5)
    reporter.report(closed=True)
    assert b"closed" in (tmp_path / "s").read_bytes()
