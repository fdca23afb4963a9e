"""What the segment screen reads from the disk: facts, pages of messages, the check, the search.

Promises
--------
- Everything is read on threads of its own, never on the event loop; the coroutines only wait.
- The check, which reads every byte, has a thread beside the one for pages: turning pages does not wait for it.
- Reads only. What is gone meanwhile is said as such (``facts()`` gives None), what cannot be read is raised:
  OSError, and UnsupportedFormat where a newer release wrote it.
- Memory: the page asked for; of values and keys no more than :data:`mbtui.preview.LIMIT` bytes each.

Create and close it on the event loop. Sequences count in the lane; times are wall-clock nanoseconds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from mbframework.browse import Entry, Gap, LaneBrowser, SegmentInfo
from mbframework.errors import DamagedError
from mbframework.files import Files
from mbframework.spool import layout, segment_header
from mbframework.spool.index import SegmentIndex
from mbframework.spool.segment_header import SegmentHeader
from mbframework.spool.survey import read_head, read_seek
from mbframework.state import SENDING_STATES, state_of
from mbtui.pattern import Pattern
from mbtui.preview import LIMIT
from mbtui.reading_thread import ReadingThread

Row = Entry | Gap

#: Messages looked at between two looks at whether the search goes on.
_STRIDE = 1_000
#: And seconds, for a pattern that takes long.
_STRIDE_S = 0.2
#: Bytes of each value that a search looks at.
_SEARCHED = 1 << 20
#: Of a header's value, and headers of a message, that are kept for the screen.
_HEADER_LIMIT = 4096
_HEADERS = 64


@dataclass(frozen=True, slots=True)
class Facts:
    """What names, headers, head and seek say of a segment, without reading a message.

    ``ordinal`` counts the messages in front of the segment. Those with ordinals below ``settled`` are settled; the one
    with ordinal ``settled`` + i is as well where bit i of ``scattered`` is set. ``settled`` is -1 where no seek can be
    read. ``otherwise``: messages of the lane that were settled, and not by delivery. ``sending``: whether its state is
    one in which messages go out.
    """

    first: int
    end: int
    name: str
    size: int
    ordinal: int
    wall_ns: int
    settled: int = -1
    scattered: int = 0
    otherwise: int = 0
    sending: bool = True

    @property
    def messages(self) -> int:
        """How many were stored in it."""
        return self.end - self.first

    @property
    def known(self) -> bool:
        """Whether it can be told what is delivered."""
        return self.settled >= 0

    @property
    def state(self) -> str:
        """As the segment table of the main screen calls it."""
        filling = not self.name.startswith("P")
        if self.undelivered is None and not filling:
            return "drained"
        if self.settled > self.ordinal or (self.settled == self.ordinal and not filling):
            return "draining" if self.sending else "next"
        return "filling" if filling else "sealed"

    @property
    def undelivered(self) -> int | None:
        """The first message that is not settled; None: every one is."""
        first = self.first + max(0, self.settled - self.ordinal)
        return first if first < self.end else None

    @property
    def is_sent_now(self) -> bool:
        """Whether the next message to be delivered is in it."""
        return self.known and self.ordinal <= self.settled < self.ordinal + self.messages

    @property
    def delivered(self) -> int:
        """How many are settled."""
        done = min(max(self.settled - self.ordinal, 0), self.messages)
        # The bits of what is left of the segment, from the lowest one on.
        behind = self.ordinal + done - self.settled
        return done + (self.scattered >> behind & (1 << self.messages - done) - 1).bit_count()

    def mark(self, sequence: int) -> str:
        """``"delivered"``, ``"next"`` or ``"pending"``."""
        place = self.ordinal + sequence - self.first - self.settled
        if self.known and (place < 0 or self.scattered >> place & 1):
            return "delivered"
        return "next" if place == 0 and self.known else "pending"


class SegmentSource:
    """The segment that begins at ``first`` in the lane's directory ``lane_path``."""

    def __init__(self, lane_path: str, first: int, files: Files | None = None) -> None:
        self.lane_path = lane_path
        self.first = first
        self._files = files or Files()
        self._browser = LaneBrowser(lane_path, self._files)
        self._index = SegmentIndex(self._files, lane_path)
        self._header: SegmentHeader | None = None
        self._end: int | None = None
        self._pages = ReadingThread()
        self._check = ReadingThread()

    def close(self) -> None:
        """Let go of the threads."""
        self._pages.close()
        self._check.close()

    async def facts(self) -> Facts | None:
        """The segment as it is now; None: it is gone. Raises DamagedError where its header cannot be read."""
        return await self._pages.run(self._read_facts)

    async def rows(self, start: int, stop: int) -> dict[int, Row]:
        """What stands at the sequences from ``start`` on and below ``stop``; a gap where nothing can be read."""
        return await self._pages.run(partial(self._read_rows, start, stop))

    async def check(self) -> SegmentInfo | None:
        """The result of reading every byte; takes seconds. None: it is gone."""
        return await self._check.run(self._read_info)

    async def find(self, pattern: Pattern, start: int, stop: int, progress: Callable[[float], None]) -> int | None:
        """The first message from ``start`` on and below ``stop`` that the pattern finds in its topic, key or value;
        where ``stop`` is the smaller one, the last one in front of ``start`` and from ``stop`` on.

        :param progress: called on the event loop with what is done, 0 to 1.
        """
        at = start
        while at < stop if start < stop else at > stop:
            hit, at = await self._pages.run(partial(self._scan, pattern, at, stop))
            if hit is not None:
                return hit
            progress(min(1.0, abs(at - start) / abs(stop - start)))
        return None

    def _read_facts(self) -> Facts | None:
        name, size = self._stat()
        if not name:
            return None
        header = self._header
        if header is None or self._end is None:
            self._index.refresh()
            entry = self._index.at_or_before(self.first)
            if entry is None or entry.first != self.first:
                return None
            header = self._header = self._index.header(entry)
        if header is None:
            if not self._stat()[0]:
                return None
            raise self._headless(name)
        if self._end is None:
            self._end = self._known_end(header)
        end = self._browser.end if self._end is None else self._end
        facts = Facts(self.first, max(end, self.first), name, size, header.ordinal, header.wall_ns)
        slot = read_seek(self._files, self.lane_path)
        if slot is None:
            return facts
        settled, scattered = slot.ordinal, int.from_bytes(slot.bitmap, "little")
        while scattered & 1:
            settled, scattered = settled + 1, scattered >> 1
        head = read_head(self._files, self.lane_path)
        if head is not None and head.floor_ordinal > settled:
            # Pruned, and not yet counted by the sender.
            settled, scattered = head.floor_ordinal, scattered >> head.floor_ordinal - settled
        otherwise = slot.expired + slot.dead + slot.purged
        sending = state_of(self._files, self.lane_path).name in SENDING_STATES
        return replace(facts, settled=settled, scattered=scattered, otherwise=otherwise, sending=sending)

    def _headless(self, name: str) -> DamagedError:
        return DamagedError(
            f"the header of {name} cannot be read: `mb verify` tells what is left, `mb repair` brings it back",
            path=os.path.join(self.lane_path, name),
        )

    def _stat(self) -> tuple[str, int]:
        """Name and bytes of its file; "" where it is gone."""
        # A file is renamed from the first of these to the second: looked at in this order it is not missed.
        for name in (layout.unsealed_name(self.first), layout.sealed_name(self.first)):
            with suppress(FileNotFoundError):
                return name, self._files.stat(os.path.join(self.lane_path, name)).st_size
        # In use, and still under the name of a prepared file.
        self._index.refresh()
        entry = self._index.at_or_before(self.first)
        if entry is not None and entry.first == self.first:
            with suppress(FileNotFoundError):
                return entry.name, self._files.stat(os.path.join(self.lane_path, entry.name)).st_size
        return "", 0

    def _known_end(self, header: SegmentHeader) -> int | None:
        """One past the last sequence, as a successor tells; None without one."""
        later = self._index.after(self.first)
        while later is not None:
            successor = self._index.header(later)
            if successor is not None:
                return segment_header.end_before(header, successor)
            later = self._index.after(later.first)
        return None

    def _read_rows(self, start: int, stop: int) -> dict[int, Row]:
        rows: dict[int, Row] = {}
        at = start
        while at < stop:
            page = self._browser.page(at, stop - at, value_limit=LIMIT)
            for row in page:
                for sequence in _sequences(row, start, stop):
                    rows[sequence] = _trimmed(row)
            at = _last(page[-1]) + 1 if page else stop
        if not rows and (name := self._stat()[0]):
            entry = self._index.at_or_before(self.first)
            if entry is not None and entry.first == self.first and self._index.header(entry) is None:
                # It may be a device that fails for a while: what nobody could read is not taken for gone.
                raise self._headless(name)
        for sequence in range(start, stop):
            rows.setdefault(sequence, Gap(sequence, sequence, 1, "it is not there any more"))
        return rows

    def _read_info(self) -> SegmentInfo | None:
        browser = LaneBrowser(self.lane_path, self._files)
        try:
            return browser.segment(self.first)
        finally:
            browser.close()

    def _scan(self, pattern: Pattern, at: int, stop: int) -> tuple[int | None, int]:
        """A hit, or None and where to go on."""
        if at > stop:
            rows = self._browser.before(at, min(_STRIDE, at - stop), value_limit=_SEARCHED)
            rows.reverse()
            after = min((_first(row) for row in rows), default=stop)
        else:
            rows = self._browser.page(at, min(_STRIDE, stop - at), value_limit=_SEARCHED)
            after = _last(rows[-1]) + 1 if rows else stop
        low, high = min(at, stop), max(at, stop)
        until = time.monotonic() + _STRIDE_S
        for row in rows:
            if isinstance(row, Entry) and low <= row.sequence < high and finds(pattern, row.topic, row.key, row.value):
                return row.sequence, after
            if time.monotonic() > until:
                return None, max(stop, _first(row)) if at > stop else min(stop, _last(row) + 1)
        return None, after


def finds(pattern: Pattern, topic: str, key: bytes | None, value: bytes | None) -> bool:
    """Whether the pattern finds a message with these."""
    parts = (topic, (key or b"").decode(errors="replace"), (value or b"").decode(errors="replace"))
    return pattern.finds("\n".join(parts))


def _sequences(row: Row, start: int, stop: int) -> range:
    """Those it stands for, of the ones asked for."""
    return range(max(start, _first(row)), min(stop, _last(row) + 1))


def _first(row: Row) -> int:
    return row.first if isinstance(row, Gap) else row.sequence


def _last(row: Row) -> int:
    return row.last if isinstance(row, Gap) else row.sequence


def _trimmed(row: Row) -> Row:
    """Without what no screen could show."""
    if isinstance(row, Gap) or row.size - row.value_size <= _HEADER_LIMIT:
        return row
    headers = [(name[:_HEADER_LIMIT], value and value[:_HEADER_LIMIT]) for name, value in row.headers[:_HEADERS]]
    return row._replace(key=row.key and row.key[:_HEADER_LIMIT], headers=headers)
