"""A search among the rows of the segment table, a slice of time at a go: looks, and rows that were asked for, come in
between, however many rows there are.

One thread. Rows that come or go meanwhile move the place where it goes on.
"""

from __future__ import annotations

import time
from typing import Final

from mbframework.monitor import SegmentTable
from mbtui.arrangement import Arrangement, row_text
from mbtui.pattern import Pattern

#: Seconds that one go takes.
SLICE_S: Final = 0.15
_CHUNK: Final = 100


class Hunt:
    """For the next row from place ``start`` on, in steps of ``step`` (1 or -1), that the pattern finds.

    ``hit``: the first sequence of that row; None: not found, or not yet. ``over``: whether that is the last word.
    ``done``: how much was looked at, 0 to 1.
    """

    def __init__(self, pattern: Pattern, start: int, step: int) -> None:
        self._pattern, self._start, self._step = pattern, start, step
        self._next = start
        #: The first sequence of the row that was looked at last.
        self._last: int | None = None
        self.hit: int | None = None
        self.over = False
        self.done = 0.0

    def go_on(self, arrangement: Arrangement, table: SegmentTable, total: int) -> None:
        """Look at rows for a while; ``total``: how many the arrangement shows."""
        until = time.monotonic() + SLICE_S
        while not self.over:
            at = self._place(arrangement, table)
            if not 0 <= at < total:
                self.over = True
                break
            low, high = (at, min(total, at + _CHUNK)) if self._step > 0 else (max(0, at + 1 - _CHUNK), at + 1)
            rows = arrangement.rows(table, low, high)
            for row in rows if self._step > 0 else reversed(rows):
                self._last = row.first
                if self._pattern.finds(row_text(row)):
                    self.hit, self.over = row.first, True
                    return
            self._next = high if self._step > 0 else low - 1
            if not rows:
                self._last = None
            whole = total - self._start if self._step > 0 else self._start + 1
            self.done = min(1.0, abs(self._next - self._start) / max(1, whole))
            if time.monotonic() >= until:
                break

    def _place(self, arrangement: Arrangement, table: SegmentTable) -> int:
        index = None if self._last is None else table.index_of(self._last)
        place = None if index is None else arrangement.place(index)
        return self._next if place is None else place + self._step
