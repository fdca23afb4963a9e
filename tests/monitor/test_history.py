"""Rates and points: from counters of the engine's rings, and of looks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbframework.history import RECORDS, Past, Record
from mbframework.monitor.history import SECOND, Course, Now, Series, course_of
from mbframework.monitor.view import Point

BOOT = b"b" * 16
WALL_S = 1_700_000_000


def present(boot_s: float, wall_s: float | None = None) -> Now:
    """Where the wall clock is not given, it goes with the other."""
    wall = WALL_S + boot_s if wall_s is None else wall_s
    return Now(int(boot_s * SECOND), int(wall * SECOND), BOOT)


def ring(*rows: tuple[float, int, int], run: bytes = b"r" * 8, boot: bytes = BOOT) -> Past:
    """Records at (boot time in seconds, messages, third counter), of a wall clock that is an hour off."""
    records = [
        Record(number, run, int(at * SECOND), int((WALL_S + 3600 + at) * SECOND), (messages, 0, third, 0))
        for number, (at, messages, third) in enumerate(rows, 1)
    ]
    return Past(boot, run, records)


def test_a_rate_is_taken_over_the_window() -> None:
    series = Series()
    for second, value in enumerate((0, 100, 200, 200, 200, 500)):
        series.add(second * SECOND, value)
    assert series.rate(5 * SECOND, 10.0) == 100.0
    assert series.rate(5 * SECOND, 1.0) == 300.0
    assert series.rate(5 * SECOND, 10.0, since_ns=2 * SECOND) == 100.0
    assert series.rate(5 * SECOND, 0.5) is None
    assert series.rate(30 * SECOND, 10.0) is None


def test_a_restart_makes_neither_a_leap_nor_a_negative_rate() -> None:
    series = Series()
    for second, value, mark in ((0, 1000, 1), (1, 1100, 1), (2, 5, 2), (3, 105, 2), (4, 1_000_000, 3)):
        series.add(second * SECOND, value, mark)
    assert series.rate(4 * SECOND, 10.0) == 100.0


@given(
    st.lists(st.tuples(st.integers(0, 1 << 62), st.integers(0, 1 << 62), st.integers(0, 2))), st.integers(0, 1 << 62)
)
def test_no_counters_make_a_negative_rate(samples: list[tuple[int, int, int]], now: int) -> None:
    series = Series()
    for at, value, mark in samples:
        series.add(at, value, mark)
    rate = series.rate(now, 3600.0)
    assert rate is None or rate >= 0


def test_points_come_once_a_second_and_go_after_ten_minutes() -> None:
    course = Course()
    for half in range(2 * 700):
        course.add(present(half / 2), 50 * half, 25 * half, half)
    points = course.points(present(700))
    assert len(points) == 600
    assert {(point.accepted, point.delivered) for point in points} == {(100.0, 50.0)}
    assert points[-1] == Point(WALL_S + 699.0, 100.0, 50.0, 1398)
    assert points[0].at >= WALL_S + 100


def test_a_wall_clock_that_is_set_moves_the_past_along() -> None:
    course = Course()
    for second in range(5):
        course.add(present(second), 0, 0, second)
    course.add(present(5, WALL_S - 86_400), 0, 0, 5)
    points = course.points(present(5, WALL_S - 86_400))
    assert [point.at for point in points] == [WALL_S - 86_400 - 5 + second for second in range(1, 6)]


def test_counters_that_go_back_begin_anew() -> None:
    course = Course()
    for second, accepted in enumerate((100, 200, 0, 50)):
        course.add(present(second), accepted, 0, 0)
    assert [point.accepted for point in course.points(present(4))] == [100.0, 50.0]


def test_rings_become_points_dated_by_the_clock_that_is_never_set() -> None:
    written = ring((10, 100, 5), (11, 200, 6), (12, 300, 7))
    sent = ring((10.1, 10, 0), (11.1, 30, 0), (12.1, 50, 0), run=b"s" * 8)
    assert course_of(written, sent, present(13)) == [
        Point(WALL_S + 10.1, 0.0, 0.0, 5),
        Point(WALL_S + 11.1, 100.0, pytest.approx(20.0), 6),
        Point(WALL_S + 12.1, 100.0, pytest.approx(20.0), 7),
    ]


def test_what_waits_is_told_by_the_sender_where_the_writer_is_gone() -> None:
    written = ring((10, 100, 80))
    sent = ring((10, 20, 0), (11, 30, 0), (12, 30, 30), run=b"s" * 8)
    assert [point.resident for point in course_of(written, sent, present(13))] == [80, 70, 40]


def test_between_two_openings_there_is_no_rate() -> None:
    before, after = ring((10, 100, 0), run=b"a" * 8), ring((11, 1_000, 0), (12, 1_010, 0), run=b"b" * 8)
    both = Past(BOOT, b"b" * 8, [*before.records, *after.records])
    # The first is of a run whose boot is not known: its wall clock dates it, an hour later, which has not come.
    assert [(point.at, point.accepted) for point in course_of(both, None, present(13))] == [
        (WALL_S + 11, 0.0),
        (WALL_S + 12, 10.0),
    ]


def test_another_boots_ring_is_dated_by_the_wall() -> None:
    other = ring((10, 100, 0), (11, 200, 0), boot=b"o" * 16)
    points = course_of(other, None, present(5, WALL_S + 3600 + 20))
    assert [(point.at, point.accepted) for point in points] == [(WALL_S + 3610, 0.0), (WALL_S + 3611, 100.0)]
    assert course_of(other, None, present(5, WALL_S + 3600 + 620)) == []


numbers = st.integers(0, (1 << 63) - 1)
pasts = st.none() | st.builds(
    Past,
    boot_id=st.sampled_from([BOOT, b"o" * 16]),
    run=st.sampled_from([b"r" * 8, b"s" * 8]),
    records=st.lists(
        st.builds(
            Record,
            number=numbers,
            run=st.sampled_from([b"r" * 8, b"s" * 8]),
            boot_ns=numbers | st.integers(0, 100 * SECOND),
            wall_ns=st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(WALL_S * SECOND, (WALL_S + 99) * SECOND),
            counters=st.tuples(numbers, numbers, numbers, numbers),
        ),
        max_size=20,
    ),
)


@given(pasts, pasts)
def test_hostile_rings_make_sane_points(written: Past | None, sent: Past | None) -> None:
    points = course_of(written, sent, present(100))
    assert len(points) <= RECORDS
    assert [point.at for point in points] == sorted(point.at for point in points)
    for point in points:
        assert point.accepted >= 0
        assert point.delivered >= 0
        assert point.resident >= 0
