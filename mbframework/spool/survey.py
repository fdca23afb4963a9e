"""What a lane's directory says: head, seek and segments, as any stop or a writer at work leaves them.

Promises
--------
- Reads only: monitors use it on running and on dead lanes, and recovery on what it is about to mend.
- What is missing, torn, damaged or refused by the device is reported as what it is: absent. Head and seek are read
  again where a writer may have been in the middle of a store.
- :func:`survey` reads the header of every segment. :func:`glance` reads those that the counts depend on: its time is
  that of listing the directory. Both count the same messages.
- Of an unsealed segment only what follows the newest known position is walked.

Any thread; no call keeps anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Generic, TypeVar

from mbframework.errors import UnsupportedFormat
from mbframework.files import Files
from mbframework.spool import frame, head, layout, seek, segment_header, walk
from mbframework.spool.head import HeadSlot, LivePage
from mbframework.spool.index import Entry, SegmentIndex
from mbframework.spool.remains import Remains
from mbframework.spool.seek import SeekSlot
from mbframework.spool.segment_header import SegmentHeader
from mbframework.spool.slots import NEW
from mbframework.spool.walk import Walked

_S = TypeVar("_S")
#: How often a file with a torn slot is read before the slot counts as damaged.
_LOOKS = 5


@dataclass(slots=True)
class Found:
    """A segment in the directory. ``end`` is None where it was not looked for; ``size`` is in bytes."""

    entry: Entry
    header: SegmentHeader
    size: int
    end: int | None = None
    walked: Walked | None = None

    @property
    def end_ordinal(self) -> int:
        """One past the last ordinal, as far as the end is known."""
        return self.header.ordinal + (self.end or self.header.first) - self.header.first


@dataclass(slots=True)
class Unopened:
    """The sealed segments whose headers were not read: how many, their bytes on disk, and those that wait."""

    count: int = 0
    size: int = 0
    waiting_size: int = 0


@dataclass(slots=True)
class Survey:
    """What a lane's directory says. ``live`` is None unless it belongs to the head's run and this boot."""

    head: HeadSlot | None
    head_slot: int
    live: LivePage | None
    same_boot: bool
    seek: SeekSlot | None
    seek_slot: int
    #: The segments whose headers were read, in order.
    segments: list[Found] = field(default_factory=list)
    unopened: Unopened = field(default_factory=Unopened)
    #: Files that look like segments but whose headers are damaged, or of a newer format.
    unreadable: list[str] = field(default_factory=list)
    unsupported: str = ""
    #: Whether head and seek have a slot that is neither valid nor empty, or was refused: a newer one may be lost.
    head_damaged: bool = False
    seek_damaged: bool = False
    #: One past the last sequence that was stored in the segment that was being filled, where that segment's header
    #: cannot be read and the frame that the live page names tells so; else 0.
    stored_end: int = 0

    @property
    def clean(self) -> bool:
        """The writer stopped in order, as far as the newest slot that can be read is known to be the newest."""
        return self.head is not None and bool(self.head.flags & head.CLEAN) and not self.head_damaged

    @property
    def spool_end(self) -> int:
        """One past the last spooled sequence; 0 without a segment."""
        return max((found.end or found.header.first for found in self.segments), default=0)

    @property
    def tail_ordinal(self) -> int:
        """Messages ever spooled, as the segments tell."""
        return max((found.end_ordinal for found in self.segments), default=0)

    @property
    def ordinal(self) -> int:
        """Messages ever spooled, by the farthest of segments, head and seek."""
        return max(
            self.tail_ordinal,
            self._known_ordinal + self.headless,
            self.head.ordinal if self.head else 0,
            # What is settled ahead of the seek had an ordinal too, even where a power loss took it from the spool.
            self.seek.ordinal + int.from_bytes(self.seek.bitmap, "little").bit_length() if self.seek else 0,
        )

    @property
    def headless(self) -> int:
        """Messages that were spooled to the segment that was being filled, behind what is settled, where that segment's
        header cannot be read."""
        return max(0, self.stored_end - self._known_end) if self.stored_end else 0

    @property
    def _known_end(self) -> int:
        """One past the last sequence of which seek, head and segments know what became of it."""
        settled, top = self.seek.next if self.seek else 0, self.head
        return max(settled, self.spool_end, top.run_first if top else 0, top.floor if top else 0)

    @property
    def _known_ordinal(self) -> int:
        """The ordinal there, as segments and seek tell it."""
        return max(self.tail_ordinal, self.seek.ordinal if self.seek else 0)

    @property
    def lost_unspooled(self) -> int:
        """Messages of the stopped run that were accepted, never spooled, and are not known to be settled."""
        if self.head is None or self.clean:
            return 0
        if self.live is not None:
            accepted = self.live.next
        elif self.head.flags & head.LIVE:
            accepted = self.head.next
        else:
            return 0
        unknown = accepted - self._known_end
        # Some of these are known to have been spooled, where a power loss took the end of spool and seek, or damage.
        spooled = self.ordinal - self._known_ordinal
        return max(0, unknown - spooled)

    @property
    def count(self) -> int:
        """Segments on disk."""
        return len(self.segments) + self.unopened.count

    @property
    def size(self) -> int:
        """Their bytes on disk."""
        return sum(found.size for found in self.segments) + self.unopened.size

    @property
    def waiting_size(self) -> int:
        """Bytes of the frames from the seek on; without a seek, all that is on disk."""
        slot = self.seek
        if slot is None:
            return self.size
        total = self.unopened.waiting_size
        for found in self.segments:
            first, end = found.header.first, found.header.first if found.end is None else found.end
            if end > slot.next:
                size = found.size if found.walked is None else found.walked.offset
                inside = first == slot.segment and first <= slot.next
                total += max(0, size - (slot.offset if inside else layout.FIRST_FRAME))
        return total


def survey(files: Files, directory: str, remains: Remains | None = None) -> Survey:
    """Everything that a lane's directory says.

    :param remains: reads; without it, what the device refuses is asked for once.
    :raises UnsupportedFormat: head or seek were written by a newer release.
    :raises OSError: the device failed as a whole, or the directory may not be read.
    """
    result, segments = _begin(files, directory, remains or Remains(files, directory))
    for place in range(segments.count):
        segments.at(place)
    segments.finish()
    return result


def glance(files: Files, directory: str) -> Survey:
    """The same counts, without opening the sealed segments in the middle: whether these are damaged is not known.

    Raises as :func:`survey`.
    """
    result, segments = _begin(files, directory, Remains(files, directory))
    segments.forward(0)
    if result.seek is not None:
        segments.forward(segments.backward(segments.holding(result.seek.next)) + 1)
    for place in segments.unsealed():
        segments.at(place)
        segments.forward(place + 1)
    segments.backward(segments.count - 1)
    segments.finish()
    return result


def read_seek(files: Files, directory: str) -> SeekSlot | None:
    """The seek alone. Raises UnsupportedFormat, OSError."""
    return _seek(files, directory, Remains(files, directory)).slot


def read_head(files: Files, directory: str) -> HeadSlot | None:
    """The head's newest slot alone, as :func:`read_seek`."""
    return _head(files, directory, Remains(files, directory))[0].slot


def read_live(files: Files, directory: str) -> LivePage | None:
    """The live page, where it belongs to the head's run and to this boot. Raises UnsupportedFormat, OSError."""
    return _head(files, directory, Remains(files, directory))[1]


@dataclass(frozen=True, slots=True)
class _Newest(Generic[_S]):
    """The newest slot of a file, and its index; whether another may have been newer; the file's content."""

    slot: _S | None
    index: int
    damaged: bool
    raw: bytes


def _seek(files: Files, directory: str, remains: Remains) -> _Newest[SeekSlot]:
    return _newest(files, os.path.join(directory, layout.SEEK_FILE), seek.SEEK_FILE_SIZE, seek.newest, remains)


def _head(files: Files, directory: str, remains: Remains) -> tuple[_Newest[HeadSlot], LivePage | None]:
    path = os.path.join(directory, layout.HEAD_FILE)
    found = _newest(files, path, head.HEAD_FILE_SIZE, lambda raw: head.newest(raw[: head.LIVE_PAGE]), remains)
    page = head.unpack_live(found.raw[head.LIVE_PAGE :])
    if found.slot is None or page is None or page.boot_id != files.boot_id() or not _belongs(page, found.slot):
        page = None
    return found, page


def _belongs(live: LivePage, slot: HeadSlot) -> bool:
    """Whether the page, which has no CRC, is of the slot's run and within what that could give out."""
    same = (live.run, live.boot_id) == (slot.run, slot.boot_id)
    return same and slot.run_first <= live.next <= slot.reserved_until


def _newest(
    files: Files, path: str, size: int, newest: Callable[[bytes], tuple[_S | None, int, bool]], remains: Remains
) -> _Newest[_S]:
    for _ in range(_LOOKS):
        raw, refused = _content(files, path, size, remains)
        slot, index, torn = newest(raw)
        if not torn:
            break
    return _Newest(slot, index, torn or refused, raw)


def _content(files: Files, path: str, size: int, remains: Remains) -> tuple[bytes, bool]:
    """What stands in a file, and whether the device refused some of it."""
    # A file that is made anew has the other name for a moment, and after a kill in that moment.
    for name in (path, f"{path}{NEW}", path):
        try:
            fd = files.open(name, write=False)
        except FileNotFoundError:
            continue
        try:
            return remains.pread(fd, size, 0), remains.refused(fd) is not None
        finally:
            files.close(fd)
    return b"", False


def _begin(files: Files, directory: str, remains: Remains) -> tuple[Survey, _Segments]:
    """Head and seek, and the listing."""
    # The seek comes first: segments that it has passed since may be gone, those that it has not are there.
    passed = _seek(files, directory, remains)
    top, live = _head(files, directory, remains)
    same_boot = top.slot is not None and top.slot.boot_id == files.boot_id()
    result = Survey(
        top.slot, top.index, live, same_boot, passed.slot, passed.index,
        head_damaged=top.damaged, seek_damaged=passed.damaged,
    )  # fmt: skip
    return result, _Segments(files, directory, result, remains)


class _Segments:
    """The segments of a listing, by their places in it; each is opened at most once, and goes into ``result``."""

    def __init__(self, files: Files, directory: str, result: Survey, remains: Remains) -> None:
        self._files = files
        self._remains = remains
        self._index = SegmentIndex(files, directory, remains.pread)
        self._index.refresh()
        self._result = result
        self._looked: dict[int, Found | None] = {}
        self.count = len(self._index.entries)

    def at(self, place: int) -> Found | None:
        """The segment, with its header; None where that cannot be read."""
        if place not in self._looked:
            self._looked[place] = self._look(self._index.entries[place])
        return self._looked[place]

    def forward(self, place: int) -> None:
        """Look for the first readable one from ``place`` on."""
        while place < self.count and self.at(place) is None:
            place += 1

    def backward(self, place: int) -> int:
        """Look for the first readable one from ``place`` back; its place, or -1."""
        while place >= 0 and self.at(place) is None:
            place -= 1
        return place

    def holding(self, sequence: int) -> int:
        """The place of the last one that begins at or before ``sequence``; -1 where none does."""
        return self._index.place_after(sequence) - 1

    def unsealed(self) -> list[int]:
        """The places of those that are not sealed."""
        return [place for place, (_, name) in enumerate(self._index.entries) if name[0] != "P"]

    def finish(self) -> None:
        """Look for the ends of those that were opened, and count the others."""
        readable = [place for place, found in sorted(self._looked.items()) if found is not None]
        for place, following in pairwise([*readable, self.count]):
            found = self.at(place)
            successor = self.at(following) if following < self.count else None
            known = all(between in self._looked for between in range(place + 1, following))
            # One whose end is not known and that is gone by now has been removed by the sender.
            if found is not None and (not known or self._find_end(found, successor)):
                self._result.segments.append(found)
        if len(self._looked) < self.count:
            self._count_unopened()
        live = self._result.live
        if (
            live is not None
            and live.segment
            and all(found.header.first != live.segment for found in self._result.segments)
        ):
            self._result.stored_end = self._stored_end(live)

    def _stored_end(self, live: LivePage) -> int:
        """See :attr:`Survey.stored_end`. Its file has one of these names; the salt of its frames is lost."""
        directory = self._index.directory
        prepared = [name for name in self._files.list(directory) if (layout.parse_name(name) or ("",))[0] == "N"]
        for name in (layout.unsealed_name(live.segment), layout.sealed_name(live.segment), *prepared):
            try:
                fd = self._files.open(os.path.join(directory, name), write=False)
            except OSError:
                continue
            try:
                if live.tail >= self._files.fstat(fd).st_size:
                    continue
                told = frame.end_told(self._remains.pread(fd, frame.HEADER_SIZE, live.tail))
            finally:
                self._files.close(fd)
            if told is not None and live.segment <= told[0] < told[1] <= live.next:
                return told[1]
        return 0

    def _count_unopened(self) -> None:
        # One look at each of very many files: what can be asked beforehand is.
        prefix, stat, looked = os.path.join(self._index.directory, ""), self._files.stat, self._looked
        unopened = self._result.unopened
        behind = self._index.place_after(self._result.seek.next if self._result.seek else 0)
        for place, (_, name) in enumerate(self._index.entries):
            if place in looked:
                continue
            try:
                size = stat(prefix + name).st_size
            except FileNotFoundError:
                # Delivered and removed since the listing.
                continue
            if size < layout.FIRST_FRAME:
                self._result.unreadable.append(name)
                continue
            unopened.count += 1
            unopened.size += size
            if place >= behind:
                unopened.waiting_size += size - layout.FIRST_FRAME

    def _look(self, entry: Entry) -> Found | None:
        try:
            opened = self._index.open(entry)
        except UnsupportedFormat as error:
            self._result.unreadable.append(entry.name)
            self._result.unsupported = str(error)
            return None
        if opened is None:
            if self._is_there(entry):
                self._result.unreadable.append(entry.name)
            return None
        fd, header = opened
        try:
            return Found(entry, header, self._files.fstat(fd).st_size)
        finally:
            self._files.close(fd)

    def _is_there(self, entry: Entry) -> bool:
        try:
            self._files.stat(os.path.join(self._index.directory, entry.name))
        except FileNotFoundError:
            # Delivered and removed since the listing.
            return False
        return True

    def _find_end(self, found: Found, successor: Found | None) -> bool:
        """Set the end of a segment, whose next readable one is ``successor``; False where its file is gone."""
        limit = None if successor is None else segment_header.end_before(found.header, successor.header)
        if limit is not None and (found.entry.sealed or _is_whole(self._result, found.header)):
            found.end = limit
            return True
        opened = self._index.open(found.entry)
        if opened is None:
            return False
        fd, header = opened
        known, reads = self._result, self._remains
        try:
            if found.entry.sealed:
                found.end = walk.sealed_end(reads, fd, header, found.size)
                return True
            if known.live is not None and known.live.segment == header.first and known.live.tail < found.size:
                # Stored in this boot, one frame after the other: behind the first that is not whole there is none.
                found.walked = walk.walk(reads, fd, header, known.live.tail, 0, search=False, limit=limit)
            else:
                found.walked = walk.walk(reads, fd, header, *_start(known, found), limit=limit)
            found.end = found.walked.end
            return True
        finally:
            self._files.close(fd)


def _is_whole(known: Survey, header: SegmentHeader) -> bool:
    """Whether every page that was stored of a segment is there, so that what its successor says of its end is true."""
    return known.same_boot or (known.head is not None and header.first < known.head.synced_segment)


def _start(known: Survey, found: Found) -> tuple[int, int]:
    """(offset, sequence) of a frame from which the walk through an unsealed segment may begin."""
    slot, header = known.head, found.header
    if slot is not None and max(slot.checkpoint_offset, slot.synced_offset) < found.size:
        if known.same_boot and slot.checkpoint_segment == header.first:
            return slot.checkpoint_offset, slot.checkpoint_sequence
        if not known.same_boot and slot.synced_segment == header.first:
            return slot.synced_offset, slot.synced_sequence
    return layout.FIRST_FRAME, header.first
