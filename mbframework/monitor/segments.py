"""The segment files of a lane as rows, read only as far as they are looked at.

Promises
--------
- A listing costs one read of the directory; names seen before are not taken apart again. A row costs the header of its
  file and of the next one, the first frame's, and of a segment that is being filled its last MiB; what cannot change is
  remembered.
- ``left`` of all rows together is what waits on disk: the seek and its bitmap are counted message by message.
- A file that vanishes, or is damaged, is a row that says so.

:class:`SegmentFiles` is for the thread that looks; the tables it makes are for any.
"""

from __future__ import annotations

import bisect
import os
import threading
from dataclasses import dataclass

from mbframework.errors import UnsupportedFormat
from mbframework.files import Files
from mbframework.monitor.view import SegmentRow, SegmentState
from mbframework.spool import frame, layout, seek, segment_header, walk
from mbframework.spool.segment_header import SegmentHeader, end_before, wall_of
from mbframework.spool.survey import read_live

_KEPT = 8192
#: The change of a directory so shortly before a listing may be followed by one that looks the same.
_SETTLED_NS = 10**9
_LISTINGS = 5


@dataclass(frozen=True, slots=True)
class _Front:
    """What the front of a segment file says, which never changes: the header, and when its first message came."""

    header: SegmentHeader
    first_accepted: int | None


class _Headers:
    """Headers that were read, by first sequence. Any thread."""

    def __init__(self, files: Files, directory: str) -> None:
        self.files = files
        self.directory = directory
        self._lock = threading.Lock()
        self._fronts: dict[int, _Front] = {}
        self._ends: dict[tuple[int, int], tuple[int, int]] = {}

    def open(self, first: int, name: str) -> int:
        """A descriptor, under whichever name the file has by now. Raises OSError."""
        for each in dict.fromkeys((name, layout.unsealed_name(first), layout.sealed_name(first))):
            try:
                return self.files.open(os.path.join(self.directory, each), write=False)
            except FileNotFoundError:
                continue
        raise FileNotFoundError(name)

    def front(self, first: int, name: str, fd: int = -1) -> _Front | None:
        """None where no valid header stands. Raises UnsupportedFormat, OSError."""
        with self._lock:
            known = self._fronts.get(first)
        if known is not None and known.first_accepted is not None:
            return known
        opened = fd if fd >= 0 else self.open(first, name)
        try:
            header = segment_header.unpack(self.files.pread(opened, segment_header.SEGMENT_HEADER_SIZE, 0))
            raw = self.files.pread(opened, frame.HEADER_SIZE, layout.FIRST_FRAME)
        finally:
            if fd < 0:
                self.files.close(opened)
        if header is None or header.first != first:
            return None
        begun = frame.read_header(raw, 0, header.salt)
        found = _Front(header, begun.accepted if begun is not None and begun.count else None)
        with self._lock:
            if len(self._fronts) >= _KEPT:
                self._fronts.clear()
            self._fronts[first] = found
        return found

    def end(self, fd: int, header: SegmentHeader, size: int, *, sealed: bool) -> tuple[int, int]:
        """One past the last sequence of a segment without a readable successor, and the offset behind it."""
        key = header.first, size
        with self._lock:
            known = self._ends.get(key)
        if known is not None:
            return known
        live = None if sealed else read_live(self.files, self.directory)
        if sealed:
            found = walk.sealed_end(self.files, fd, header, size), size
        elif live is not None and live.segment == header.first and layout.FIRST_FRAME <= live.tail < size:
            walked = walk.walk(self.files, fd, header, live.tail, 0, search=False)
            return walked.end, walked.offset
        else:
            walked = walk.walk(self.files, fd, header, layout.FIRST_FRAME, header.first)
            found = walked.end, walked.offset
        if live is None:
            # Nobody appends to it.
            with self._lock:
                if len(self._ends) >= _KEPT:
                    self._ends.clear()
                self._ends[key] = found
        return found


class Table:
    """The rows as of one look; see :class:`~mbframework.monitor.view.SegmentTable`."""

    def __init__(
        self,
        headers: _Headers,
        firsts: list[int],
        names: dict[int, str],
        position: seek.SeekSlot | None,
        sending: bool,
    ) -> None:
        self._headers = headers
        self._firsts = firsts
        self._names = names
        self._position = position
        self._sending = sending

    def __len__(self) -> int:
        return len(self._firsts)

    def index_of(self, sequence: int) -> int | None:
        place = bisect.bisect_right(self._firsts, sequence)
        return place - 1 if place else None

    def rows(self, start: int, stop: int) -> list[SegmentRow]:
        return [self._row(place) for place in range(*slice(start, stop).indices(len(self._firsts)))]

    def _row(self, place: int) -> SegmentRow:
        first = self._firsts[place]
        name = self._names[first]
        try:
            fd = self._headers.open(first, name)
        except FileNotFoundError:
            return self._gone(first, name)
        except OSError:
            return _unknown(first, name, "damaged", 0)
        try:
            size = self._headers.files.fstat(fd).st_size
            if not size:
                # Cut before it is removed.
                return self._gone(first, name)
            front = self._headers.front(first, name, fd)
            if front is None:
                return _unknown(first, name, "damaged", size)
            end, tail = self._end(place, fd, front.header, size)
        except (UnsupportedFormat, OSError):
            return _unknown(first, name, "damaged", 0)
        finally:
            self._headers.files.close(fd)
        return self._told(place, front, end, tail)

    def _end(self, place: int, fd: int, header: SegmentHeader, size: int) -> tuple[int, int]:
        """One past the last sequence, and the offset behind it."""
        sealed = self._names[header.first].startswith("P")
        successor = self._successor(place)
        if successor is not None:
            return end_before(header, successor), size
        return self._headers.end(fd, header, size, sealed=sealed)

    def _successor(self, place: int) -> SegmentHeader | None:
        if place + 1 >= len(self._firsts):
            return None
        first = self._firsts[place + 1]
        try:
            front = self._headers.front(first, self._names[first])
        except (UnsupportedFormat, OSError):
            return None
        return front.header if front is not None else None

    def _told(self, place: int, front: _Front, end: int, size: int) -> SegmentRow:
        header = front.header
        messages = end - header.first
        next_ = self._position.next if self._position is not None else 0
        left = self._left(header, end)
        last = place == len(self._firsts) - 1
        filling = last and not self._names[header.first].startswith("P")
        state: SegmentState
        if end <= next_ and not filling:
            state = "drained"
        elif next_ > header.first or (not filling and (place == 0 or header.previous_end <= next_)):
            state = "draining" if self._sending else "next"
        else:
            state = "filling" if filling else "sealed"
        files = self._headers.files
        oldest = age = None
        if front.first_accepted is not None:
            oldest = wall_of(header, front.first_accepted) / 1e9
            since = files.wall_ns() / 1e9 - oldest
            if header.boot_id == files.boot_id():
                since = (files.boot_ns() - front.first_accepted) / 1e9
            age = max(0.0, since)
        return SegmentRow(
            first=header.first,
            name=self._names[header.first],
            state=state,
            size=size,
            messages=messages,
            seek=self._offset(header, end, size),
            done=1.0 - left / messages if messages else 0.0,
            left=left,
            oldest=oldest,
            age_s=age,
        )

    def _left(self, header: SegmentHeader, end: int) -> int:
        """Messages of this segment that have not left yet, those settled ahead of the seek taken off."""
        slot = self._position
        begin, stop = header.ordinal, header.ordinal + end - header.first
        if slot is None:
            return stop - begin
        bits = int.from_bytes(slot.bitmap, "little")
        low, high = max(begin, slot.ordinal), max(stop, slot.ordinal)
        ahead = bits >> (low - slot.ordinal) & ((1 << min(high - low, seek.BITMAP_BITS)) - 1)
        return max(0, high - low - ahead.bit_count())

    def _offset(self, header: SegmentHeader, end: int, size: int) -> int:
        slot = self._position
        if slot is None or slot.next <= header.first:
            return 0
        if slot.next >= end:
            return size
        return min(slot.offset, size) if slot.segment == header.first else 0

    def _gone(self, first: int, name: str) -> SegmentRow:
        """It was removed after the listing."""
        return SegmentRow(first, name, "drained", 0, None, 0, 1.0, 0, None, None)


def _unknown(first: int, name: str, state: SegmentState, size: int) -> SegmentRow:
    return SegmentRow(first, name, state, size, None, 0, 0.0, None, None, None)


class SegmentFiles:
    """The listing of one lane's segment files, kept from look to look."""

    def __init__(self, files: Files, lane_path: str) -> None:
        self._files = files
        self._path = lane_path
        self._headers = _Headers(files, lane_path)
        self._seen: set[str] = set()
        self._named: dict[int, str] = {}
        #: With the prepared files that are in use.
        self._names: dict[int, str] = self._named
        self._firsts: list[int] = []
        self._changed_ns: int | None = None

    def table(self, position: seek.SeekSlot | None, *, sending: bool = True) -> Table:
        """The rows now; ``position`` is the lane's seek, ``sending`` whether it moves. Raises OSError."""
        self._refresh()
        return Table(self._headers, self._firsts, self._names, position, sending)

    def _refresh(self) -> None:
        changed_ns = self._files.stat(self._path).st_mtime_ns
        if changed_ns == self._changed_ns:
            return
        settled = self._files.wall_ns() - changed_ns > _SETTLED_NS
        for _ in range(_LISTINGS):
            listed = {name for name in self._files.list(self._path) if name.endswith((".seg", ".prep"))}
            prepared = {name for name in listed if name.endswith(".prep")}
            inside = {name: self._first_inside(name) for name in prepared}
            # One that has got another name since the listing is in the next one.
            if None not in inside.values():
                break
        self._changed_ns = changed_ns if settled else None
        seen = listed - prepared
        if seen != self._seen:
            named = dict(self._named)
            for name in self._seen - seen:
                first = _first_of(name)
                if named.get(first) == name:
                    del named[first]
            # While a file is renamed both names may be listed: P, sealed, comes last.
            for name in sorted(seen - self._seen):
                if first := _first_of(name):
                    named[first] = name
            self._seen, self._named = seen, named
        in_use = {first: name for name, first in inside.items() if first and first not in self._named}
        names = self._named | in_use if in_use else self._named
        if names is not self._names:
            self._names, self._firsts = names, sorted(names)

    def _first_inside(self, name: str) -> int | None:
        """The first sequence of a prepared file, which is a segment from the moment its header is valid, else 0; None
        where there is no such file any more."""
        try:
            fd = self._files.open(os.path.join(self._path, name), write=False)
        except FileNotFoundError:
            return None
        except OSError:
            return 0
        try:
            header = segment_header.unpack(self._files.pread(fd, segment_header.SEGMENT_HEADER_SIZE, 0))
        except (UnsupportedFormat, OSError):
            return 0
        finally:
            self._files.close(fd)
        return header.first if header is not None else 0


def _first_of(name: str) -> int:
    """The first sequence of a segment, by its name; 0 where that is none of ours."""
    kind, number = layout.parse_name(name) or ("", 0)
    return number if kind in ("P", "A") else 0
