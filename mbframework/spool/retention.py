"""Which segments may go: pure decisions; the housekeeper acts on them."""

from __future__ import annotations

from collections.abc import Sequence

from mbframework.spool.segment import Segment


def sealed(segment: Segment) -> bool:
    """Whether the segment has its final name: nothing writes to it any more."""
    return segment.end is not None and segment.name.startswith("P")


def delivered(segments: Sequence[Segment], next_: int) -> list[Segment]:
    """The sealed segments at the front that lie below ``next_`` whole."""
    result: list[Segment] = []
    for segment in segments:
        if not sealed(segment) or segment.end is None or segment.end > next_:
            break
        result.append(segment)
    return result


def prunable(segments: Sequence[Segment], need: int, spare_segments: int = 0) -> list[Segment]:
    """The oldest sealed segments that must go to free ``need`` bytes and ``spare_segments`` places.

    Fewer where there are not so many; the segment behind them gives the floor, so the last one always stays.
    """
    result: list[Segment] = []
    freed = 0
    for segment in segments[:-1]:
        if (freed >= need and len(result) >= spare_segments) or not sealed(segment):
            break
        result.append(segment)
        freed += segment.size
    return result
