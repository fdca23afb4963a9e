"""Segment rows: state, size, what is done and left, for the rows asked for and no others."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mbframework import MessageBuffer
from mbframework.files import Files
from mbframework.monitor import Monitor
from mbframework.monitor.segments import SegmentFiles, Table
from mbframework.spool import layout
from mbframework.spool.survey import read_seek
from tests.engine.rig import FAST, SMALL, padded
from tests.monitor.lanes import EACH, SIZE, make_lane, move_seek


class Counting(Files):
    """Counts what is opened and listed."""

    def __init__(self) -> None:
        self.opened = self.listed = 0

    def open(self, path: str, *, create: bool = False, exclusive: bool = False, write: bool = True) -> int:
        self.opened += 1
        return super().open(path, create=create, exclusive=exclusive, write=write)

    def list(self, path: str) -> list[str]:
        self.listed += 1
        return super().list(path)


def table_of(lane: Path, files: Files | None = None) -> Table:
    return SegmentFiles(files or Files(), str(lane)).table(read_seek(Files(), str(lane)))


def test_states_and_progress(tmp_path: Path) -> None:
    lane = make_lane(tmp_path / "b", 4, delivered=14)
    table = table_of(lane)
    rows = table.rows(0, 10)
    assert len(table) == len(rows) == 4
    assert [row.state for row in rows] == ["drained", "draining", "sealed", "sealed"]
    assert [row.left for row in rows] == [0, 6, 10, 10]
    assert [row.done for row in rows] == pytest.approx([1.0, 0.4, 0.0, 0.0])
    assert {row.messages for row in rows} == {EACH}
    assert rows[0].seek == rows[0].size > SIZE
    assert rows[2].seek == 0
    ages = [row.age_s or 0 for row in rows]
    assert [round(age - ages[-1]) for age in ages] == [3, 2, 1, 0]
    assert 1 <= ages[-1] < 60
    assert rows[3].oldest == pytest.approx(time.time() - 1, abs=60)
    assert [row.name for row in table.rows(1, 3)] == [layout.sealed_name(11), layout.sealed_name(21)]
    assert [table.index_of(sequence) for sequence in (0, 1, 10, 11, 40, 999)] == [None, 0, 0, 1, 3, 3]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(delivered=st.integers(0, 50), ahead=st.sets(st.integers(1, 49), max_size=10))
def test_what_is_left_is_counted_message_by_message(
    tmp_path_factory: pytest.TempPathFactory, delivered: int, ahead: set[int]
) -> None:
    lane = make_lane(tmp_path_factory.mktemp("lane") / "b", 5)
    ahead = {each for each in ahead if delivered + each < 50}
    move_seek(lane, delivered, ahead=tuple(ahead))
    rows = table_of(lane).rows(0, 5)
    assert sum(row.left or 0 for row in rows) == 50 - delivered - len(ahead)
    view = Monitor(lane.parent).look()
    assert view.lanes[0].status.resident == 50 - delivered - len(ahead)


def test_only_the_rows_asked_for_are_read_and_only_once(tmp_path: Path) -> None:
    lane = make_lane(tmp_path / "b", 1000)
    files = Counting()
    listing = SegmentFiles(files, str(lane))
    table = listing.table(None)
    assert files.opened == 0
    assert len(table.rows(500, 520)) == 20
    assert files.opened <= 41
    before = files.opened
    table.rows(500, 520)
    assert files.opened - before == 20
    os.utime(lane, (1, 1))
    listing.table(None)
    listed = files.listed
    listing.table(None)
    assert files.listed == listed


def test_files_come_and_go(tmp_path: Path) -> None:
    lane = make_lane(tmp_path / "b", 3)
    listing = SegmentFiles(Files(), str(lane))
    table = listing.table(None)
    (lane / layout.sealed_name(1)).unlink()
    (lane / layout.sealed_name(11)).rename(lane / layout.unsealed_name(11))
    # As of the look before: what has gone is drained, what has another name is found; where the seek is, nobody says.
    assert [(row.state, row.left) for row in table.rows(0, 2)] == [("drained", 0), ("sealed", 10)]
    again = listing.table(None)
    assert [row.name for row in again.rows(0, 9)] == [layout.unsealed_name(11), layout.sealed_name(21)]
    assert len(table) == 3
    # A prepared file is a segment while its header says so, under that name or another.
    prepared = lane / layout.prepared_name(7)
    (lane / layout.sealed_name(21)).rename(prepared)
    assert [row.name for row in listing.table(None).rows(0, 9)] == [layout.unsealed_name(11), prepared.name]
    prepared.unlink()
    assert [row.name for row in listing.table(None).rows(0, 9)] == [layout.unsealed_name(11)]


def test_damage_is_a_row_that_says_so(tmp_path: Path) -> None:
    lane = make_lane(tmp_path / "b", 5, delivered=5)
    with (lane / layout.sealed_name(11)).open("r+b") as file:
        file.write(b"\0" * 300)
    (lane / layout.sealed_name(21)).unlink()
    (lane / layout.sealed_name(21)).mkdir()
    (lane / layout.sealed_name(31)).write_bytes(b"short")
    rows = table_of(lane).rows(0, 5)
    assert [row.state for row in rows] == ["draining", "damaged", "damaged", "damaged", "sealed"]
    assert [row.messages for row in rows] == [EACH, None, None, None, EACH]
    view = Monitor(tmp_path / "b").look()
    assert view.lanes
    assert not view.error


def test_a_segment_that_is_being_filled(tmp_path: Path) -> None:
    with MessageBuffer(tmp_path / "b", None, **FAST | SMALL) as buffer:
        monitor = Monitor(tmp_path / "b")
        for number in range(20):
            buffer.write("t", padded(number, 100))
        (row,) = monitor.look().lanes[0].segments.rows(0, 5)
        assert (row.state, row.messages, row.left, row.seek) == ("filling", 20, 20, 0)
        assert layout.FIRST_FRAME + 20 * 100 < row.size < layout.FIRST_FRAME + 20 * 200
        buffer.write_many("t", [padded(number, 100) for number in range(1000)])
        lane = monitor.look().lanes[0]
        rows = lane.segments.rows(0, 99)
        assert [row.state for row in rows] == ["next", *["sealed"] * (len(rows) - 2), "filling"]
        assert sum(row.left or 0 for row in rows) == 1020 == lane.status.resident
        monitor.close()


def test_with_the_seek_in_front_of_what_was_pruned_one_segment_is_next(tmp_path: Path) -> None:
    lane = make_lane(tmp_path / "b", 6)
    for first in (1, 11):
        (lane / layout.sealed_name(first)).unlink()
    states = [row.state for row in table_of(lane).rows(0, 9)]
    assert states[:3] == ["draining", "sealed", "sealed"]
    assert states.count("draining") == 1
