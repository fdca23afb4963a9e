"""One pass over a segment file: its frames in order, and the holes between them.

Promises
--------
- Reads only. What is yielded as a frame is intact under the segment's salt and continues the chain of sequences; what
  is missing or damaged between two of them is a :class:`Hole`. At the growing end an invalid frame is *not yet*.
- A pass may begin near a sequence, found by halving the file; a hole is believed only by a pass from the front.
- Frames that end at or below ``skip`` are taken by their headers alone, their bodies are not read.
- Memory: one window (1 MiB), or one frame where that is larger.

One thread at a time. Sequences, offsets in bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from mbframework.files import Files
from mbframework.spool import frame, layout, seal
from mbframework.spool.frame import Columns, FrameHeader
from mbframework.spool.seal import Seal
from mbframework.spool.segment_header import SegmentHeader
from mbframework.spool.walk import find_frame

_SMALL = 1 << 16
_WINDOW = 1 << 20
#: Halving ends where walking so many bytes costs less than another look.
_NEAR = 1 << 18


class Framed(NamedTuple):
    """An intact frame. ``columns`` is None where its body was not asked for."""

    offset: int
    header: FrameHeader
    columns: Columns | None


class Hole(NamedTuple):
    """The messages from ``first`` up to, not including, ``next`` cannot be read; none where only other bytes are
    damaged. ``offset`` is where that begins."""

    first: int
    next: int
    offset: int
    why: str


class Scan:
    """See the module. After the pass ``at`` is one past the last sequence, ``offset`` is behind the last frame, and
    ``seal`` is what stands there.

    :param end: one past the last sequence that is to be read, where the successor tells.
    :param grows: an invalid frame with no intact one behind it is the growing end.
    :param reached: offset of the last frame that is known to be stored; beyond it nothing is searched for.
    """

    def __init__(
        self, files: Files, fd: int, header: SegmentHeader, *, end: int | None = None, grows: bool = False,
        skip: int = 0, reached: int | None = None,
    ) -> None:  # fmt: skip
        self._files = files
        self._fd = fd
        self.header = header
        self.end = end
        self.grows = grows
        self.skip = skip
        self.reached = reached
        self.at = header.first
        self.offset = layout.FIRST_FRAME
        self.seal: Seal | None = None
        #: Whether a seal stands at the end, and is damaged.
        self.broken_seal = False
        self._from_front = True
        self._fresh = False
        self._suspect = -1
        self._ahead: tuple[int, FrameHeader] | None = None
        self._window = b""
        self._base = 0
        self._span = _SMALL

    def go_near(self, sequence: int) -> None:
        """Begin at some frame at or before ``sequence``."""
        low, high = layout.FIRST_FRAME, self._files.fstat(self._fd).st_size
        while high - low > _NEAR:
            middle = layout.align8((low + high) // 2)
            found = self._probe(middle, min(high, middle + _NEAR))
            if found is None or found[1].first > sequence or found[1].first < self.at:
                high = middle
            else:
                low, self.at = found[0], found[1].first
        self.offset = low
        self._from_front = low == layout.FIRST_FRAME

    def __iter__(self) -> Iterator[Framed | Hole]:
        while self.end is None or self.at < self.end:
            found = self._header()
            if found is not None and frame.is_seal(found) and found.first >= self.at:
                hole = self._end_at(found)
                if hole is not None:
                    yield hole
                return
            if found is not None and found.first == self.at:
                step = self._take(found)
                if step is not None:
                    yield step
                    continue
            if not self._fresh:
                # The window may be older than what has been stored since.
                self._window, self._fresh = b"", True
                continue
            if self.grows and self.reached is not None and self.offset > self.reached:
                return
            if not self._from_front:
                self.at, self.offset, self._from_front = self.header.first, layout.FIRST_FRAME, True
                continue
            again, hole = self._resume(found)
            if hole is not None:
                yield hole
            if not again:
                return

    def _take(self, found: FrameHeader) -> Framed | None:
        """The present frame, and go on to the next; None where its body is damaged."""
        columns = None
        if found.first + found.count > self.skip:
            window = self._need(self.offset, found.length)
            columns = frame.decode(window, self.offset - self._base, self.header.salt, found)
            if columns is None:
                return None
        step = Framed(self.offset, found, columns)
        self.offset = frame.next_offset(self.offset, found.length)
        self.at = found.first + found.count
        self._fresh = False
        return step

    def _end_at(self, found: FrameHeader) -> Hole | None:
        """At a seal."""
        stored = seal.unpack(self._need(self.offset, found.length), self.offset - self._base, self.header.salt)
        self.broken_seal = stored is None or stored.offset != self.offset
        self.seal = None if self.broken_seal else stored
        first, end = self.at, found.first if self.end is None else min(self.end, found.first)
        self.at = end
        return Hole(first, end, self.offset, "missing in front of the seal") if first < end else None

    def _resume(self, found: FrameHeader | None) -> tuple[bool, Hole | None]:
        """No intact frame stands at the present offset: (whether to go on, what is missing)."""
        first, offset = self.at, self.offset
        whole = found is not None and found.first == first
        behind = frame.next_offset(offset, found.length) if found is not None and whole else offset
        # Where the frame tells how long it is, the way on is known; at the growing end it may only not be whole yet.
        survivor = self._find_ahead(behind) if self.grows or not whole else None
        if self.grows and survivor is None:
            return False, None
        if self.grows and self._suspect != offset:
            # By the time that the one behind was stored, this one had been: look again.
            self._suspect, self._window = offset, b""
            return True, None
        if found is not None and whole:
            self.offset, self.at = behind, first + found.count
            return True, self._hole(first, self.at, offset, "damaged")
        if survivor is not None:
            self.offset, self.at = survivor[0], survivor[1].first
            return True, self._hole(first, self.at, offset, "damaged")
        if self.end is not None:
            self.at = self.end
            return False, Hole(first, self.end, offset, "cut off or damaged up to the end of the segment")
        return False, None

    def _find_ahead(self, start: int) -> tuple[int, FrameHeader] | None:
        """The next intact frame from ``start`` on; one that was found is not searched for again."""
        if self._ahead is None or self._ahead[0] < start or self._ahead[1].first < self.at:
            self._ahead = find_frame(self._files.pread, self._fd, self.header.salt, start, self.at, self.end)
        return self._ahead

    def _hole(self, first: int, next_: int, offset: int, why: str) -> Hole:
        if self.end is not None:
            next_ = min(next_, self.end)
        return Hole(first, next_, offset, why if first < next_ else "bytes between two messages are damaged")

    def _probe(self, start: int, stop: int) -> tuple[int, FrameHeader] | None:
        """The first frame header between two offsets."""
        window = self._files.pread(self._fd, stop - start, start)
        place = frame.find_marker(window, 0)
        while place >= 0:
            found = frame.read_header(window, place, self.header.salt)
            if found is not None:
                return start + place, found
            place = frame.find_marker(window, place + 8)
        return None

    def _header(self) -> FrameHeader | None:
        window = self._need(self.offset, frame.HEADER_SIZE)
        return frame.read_header(window, self.offset - self._base, self.header.salt)

    def _need(self, offset: int, size: int) -> bytes:
        """A window that holds ``size`` bytes at ``offset``, as far as the file goes."""
        start = offset - self._base
        if start < 0 or start + size > len(self._window):
            self._span = min(2 * self._span, _WINDOW) if self._window else _SMALL
            self._base = offset
            self._window = self._files.pread(self._fd, max(size, self._span), offset)
        return self._window
