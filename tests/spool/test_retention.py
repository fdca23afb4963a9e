"""Which segments may go."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mbframework.spool import retention
from mbframework.spool.segment import Segment
from mbframework.spool.segment_header import SegmentHeader

HEADER = SegmentHeader(
    salt=1, buffer_id=b"I" * 16, run=b"R" * 16, first=1, ordinal=0, previous_end=1, wall_ns=0, boot_ns=0,
    boot_id=b"B" * 16, reserved=0, lane="main",
)  # fmt: skip


def segments(plan: list[tuple[int, bool]]) -> list[Segment]:
    """Segments of ten messages, of these sizes; sealed or not; the last one is active."""
    result = []
    for i, (size, sealed) in enumerate(plan):
        first = 1 + 10 * i
        end = None if i == len(plan) - 1 else first + 10
        name = f"{'P' if sealed and end else 'A'}{first:020d}.seg"
        result.append(Segment(name, first, 10 * i, first, size, end, replace(HEADER, first=first)))
    return result


plans = st.lists(st.tuples(st.integers(1, 100), st.booleans()), max_size=12)


@given(plans, st.integers(0, 130))
def test_only_a_sealed_prefix_that_lies_below_the_seek_whole_is_delivered(
    plan: list[tuple[int, bool]], next_: int
) -> None:
    all_ = segments(plan)
    gone = retention.delivered(all_, next_)
    assert gone == all_[: len(gone)]
    for each in gone:
        assert each.name.startswith("P")
        assert each.end is not None
        assert each.end <= next_
    if len(gone) < len(all_):
        stays = all_[len(gone)]
        assert not stays.name.startswith("P") or stays.end is None or stays.end > next_


@given(plans, st.integers(0, 400), st.integers(0, 5))
def test_no_more_is_pruned_than_is_needed_and_the_last_stays(
    plan: list[tuple[int, bool]], need: int, places: int
) -> None:
    all_ = segments(plan)
    gone = retention.prunable(all_, need, places)
    assert gone == all_[: len(gone)]
    assert not all_ or len(gone) < len(all_)
    assert all(each.name.startswith("P") for each in gone)
    enough = sum(each.size for each in gone) >= need and len(gone) >= places
    if enough and gone:
        fewer = gone[:-1]
        assert sum(each.size for each in fewer) < need or len(fewer) < places
    if not enough:
        stays = all_[len(gone) :]
        assert len(stays) <= 1 or not stays[0].name.startswith("P")
