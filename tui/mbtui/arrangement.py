"""Which rows of a lane's segments are shown, and in which order.

Promises: as they lie in the directory, or the other way round, they cost nothing, however many there are. A filter or
another order reads the header of every segment once; of very many, they are read anew less often, and neither another
filter or order nor being interrupted begins from the start. One thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mbframework.monitor import SegmentRow, SegmentTable
from mbtui.pattern import Pattern

#: What can be sorted by, in the order in which ``s`` goes through it.
SORTS: Mapping[str, Callable[[SegmentRow], float | str]] = {
    "segment": lambda row: row.first,
    "state": lambda row: row.state,
    "size": lambda row: row.size,
    "msgs": lambda row: -1 if row.messages is None else row.messages,
    "done": lambda row: row.done,
    "left": lambda row: -1 if row.left is None else row.left,
    "age": lambda row: -1.0 if row.age_s is None else row.age_s,
}
_CHUNK = 500
#: What took t seconds to read is kept for this many times t.
_KEPT = 10


@dataclass(frozen=True, slots=True)
class Order:
    """A filter, a column to sort by, and the direction."""

    pattern: Pattern = field(default_factory=Pattern)
    sort: str = "segment"
    descending: bool = False


def row_text(row: SegmentRow) -> str:
    """What a filter looks at."""
    return f"{row.name} {row.first} {row.first:,} {row.state}"


class Arrangement:
    """The rows of one table, by their place on the screen."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._key: object = None
        #: The rows that were read of a lane, from the first on; when that was complete, and the time that it took.
        self._lane: object = None
        self._read: list[SegmentRow] = []
        self._complete: float | None = None
        self._took = 0.0
        self._order: Sequence[int] = range(0)
        self._places: dict[int, int] | None = None

    def of(
        self, lane: object, table: SegmentTable, order: Order, meanwhile: Callable[[float], object] = lambda _: None
    ) -> Sequence[int]:
        """The places of this table's rows in that order.

        :param meanwhile: called again and again while headers are read, with what is done, 0 to 1. What it raises ends
            the reading.
        """
        if not order.pattern.filters and order.sort == "segment":
            count = len(table)
            self._key, self._places = None, None
            self._order = range(count - 1, -1, -1) if order.descending else range(count)
            return self._order
        if lane != self._lane or (self._complete is not None and self._clock() >= self._complete + _KEPT * self._took):
            self._key, self._lane, self._read, self._complete, self._took = None, lane, [], None, 0.0
        if self._complete is None:
            self._read_on(table, meanwhile)
        if (lane, order) != self._key:
            began = self._clock()
            self._order = arranged(self._read, table, order)
            self._places = {index: place for place, index in enumerate(self._order)}
            self._key = (lane, order)
            self._took = max(self._took, self._clock() - began)
        return self._order

    def _read_on(self, table: SegmentTable, meanwhile: Callable[[float], object]) -> None:
        """Read what has not been read. What goes away goes at the front, so that the last one read is found again."""
        read = self._read
        start = (0 if (at := table.index_of(read[-1].first)) is None else at + 1) if read else 0
        while start < len(table):
            meanwhile(start / len(table))
            began = self._clock()
            read += table.rows(start, start + _CHUNK)
            self._took += self._clock() - began
            start += _CHUNK
        self._complete = self._clock()

    def place(self, index: int) -> int | None:
        """Where on the screen the row ``index`` of the table stands; None where it is hidden."""
        if self._places is not None:
            return self._places.get(index)
        try:
            return self._order.index(index)
        except ValueError:
            return None

    def rows(self, table: SegmentTable, start: int, stop: int) -> list[SegmentRow]:
        """The rows at these places."""
        wanted = self._order[start:stop]
        if not wanted:
            return []
        if isinstance(wanted, range):
            low, high = min(wanted[0], wanted[-1]), max(wanted[0], wanted[-1])
            found = table.rows(low, high + 1)
            return found if wanted.step > 0 else found[::-1]
        # Segments that went since the arrangement was made are no longer in the table.
        return [row for index in wanted for row in table.rows(index, index + 1)]


def arranged(rows: Sequence[SegmentRow], table: SegmentTable, order: Order) -> list[int]:
    """The places in the table of those rows that the filter leaves, in their order."""
    kept: list[tuple[float | str, int]] = []
    key = SORTS[order.sort]
    for row in rows:
        if order.pattern.shows(row_text(row)) and (at := table.index_of(row.first)) is not None:
            kept.append((key(row), at))
    return [index for _, index in sorted(kept, reverse=order.descending)]
