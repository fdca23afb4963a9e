"""What a lane's directory says after any stop, and how it is made ready for the next opening.

Promises
--------
- :func:`survey` only reads: monitors use it on running and on dead lanes. :func:`recover` changes files and
  needs the writer's lock.
- Sequences are never given twice: after an unclean stop the next one is the greatest of what was reserved,
  spooled and settled.
- Nothing is ever appended to a segment that an earlier opening wrote: each is sealed behind its last intact
  frame. Frames beyond a hole that a power loss left are kept where they are intact.
- Recovery counts no loss of the spool: the sender finds it by the jump of the ordinals. It counts what was
  accepted live and is not known to be delivered.
- The time does not grow with the backlog: sealed segments are listed, and of an unsealed one only what
  follows the newest known position is walked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from mbframework.errors import UnsupportedFormat
from mbframework.files import Files
from mbframework.spool import frame, head, layout, seal, seek, segment_header
from mbframework.spool.head import HeadSlot, LivePage
from mbframework.spool.index import Entry, SegmentIndex
from mbframework.spool.reader import find_frame
from mbframework.spool.seek import SeekSlot
from mbframework.spool.segment_header import SegmentHeader

#: Sequences reserved ahead of use; a new grant is made at half of it.
GRANT = 1 << 24
#: The jump where the head is unreadable: more than any grant that it may have held.
LEAP = 1 << 32


@dataclass(frozen=True, slots=True)
class Walked:
    """The end of an unsealed segment: one past its last intact sequence, and the offset behind it."""

    end: int
    offset: int
    frames: int
    sealed: bool
    highest: int


@dataclass(slots=True)
class Found:
    """A segment in the directory. ``end`` is None where it could not be told (a damaged header follows)."""

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
class Survey:
    """Everything a lane's directory says. ``live`` is None unless it belongs to the head's run and this boot."""

    head: HeadSlot | None
    head_slot: int
    live: LivePage | None
    same_boot: bool
    seek: SeekSlot | None
    seek_slot: int
    segments: list[Found] = field(default_factory=list)
    #: Files that look like segments but whose headers are damaged, or of a newer format.
    unreadable: list[str] = field(default_factory=list)
    unsupported: str = ""

    @property
    def clean(self) -> bool:
        """The writer stopped in order."""
        return self.head is not None and bool(self.head.flags & head.CLEAN)

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
            self.head.ordinal if self.head else 0,
            # What is settled ahead of the seek had an ordinal too, even where a power loss took it from the spool.
            self.seek.ordinal + int.from_bytes(self.seek.bitmap, "little").bit_length() if self.seek else 0,
        )

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
        settled = self.seek.next if self.seek else 0
        return max(0, accepted - max(settled, self.spool_end, self.head.run_first, self.head.floor))


def survey(files: Files, directory: str) -> Survey:
    """Read a lane's directory. Missing, torn or damaged files are reported as what they are: absent.

    :raises UnsupportedFormat: head or seek were written by a newer release.
    :raises OSError: the device failed, or the directory may not be read.
    """
    seek_slot, seek_index = _slot(files, os.path.join(directory, layout.SEEK_FILE), seek.SEEK_FILE_SIZE, seek.newest)
    raw = _content(files, os.path.join(directory, layout.HEAD_FILE), head.HEAD_FILE_SIZE)
    head_slot, head_index, _ = head.newest(raw[: head.LIVE_PAGE])
    same_boot = head_slot is not None and head_slot.boot_id == files.boot_id()
    live = head.unpack_live(raw[head.LIVE_PAGE :]) if same_boot and len(raw) >= head.HEAD_FILE_SIZE else None
    if live is not None and head_slot is not None and not _belongs(live, head_slot):
        live = None
    result = Survey(head_slot, head_index, live, same_boot, seek_slot, seek_index)
    _survey_segments(files, directory, result)
    return result


def _belongs(live: LivePage, slot: HeadSlot) -> bool:
    """Whether the page, which has no CRC, is of the slot's run and within what that could give out."""
    same = (live.run, live.boot_id) == (slot.run, slot.boot_id)
    return same and slot.run_first <= live.next <= slot.reserved_until


def _survey_segments(files: Files, directory: str, result: Survey) -> None:
    index = SegmentIndex(files, directory)
    index.refresh()
    for entry in index.entries:
        try:
            opened = index.open(entry)
        except UnsupportedFormat as error:
            result.unreadable.append(entry.name)
            result.unsupported = str(error)
            continue
        if opened is None:
            result.unreadable.append(entry.name)
            continue
        fd, header = opened
        try:
            result.segments.append(Found(entry, header, files.fstat(fd).st_size))
        finally:
            files.close(fd)
    segments = result.segments
    result.segments = []
    for found, successor in zip_longest(segments, segments[1:]):
        limit = None if successor is None else segment_header.end_before(found.header, successor.header)
        if limit is not None and (found.entry.sealed or _is_whole(result, found.header)):
            found.end = limit
        elif not _look_for_end(files, index, result, found, limit):
            # The sender has removed it meanwhile; as in a listing made a moment later.
            continue
        result.segments.append(found)


def _look_for_end(files: Files, index: SegmentIndex, known: Survey, found: Found, limit: int | None) -> bool:
    opened = index.open(found.entry)
    if opened is None:
        return False
    fd, header = opened
    try:
        if found.entry.sealed:
            found.end = sealed_end(files, fd, header, found.size)
        elif known.live is not None and known.live.segment == header.first and known.live.tail < found.size:
            # Stored in this boot, one frame after the other: behind the first that is not whole there is none.
            found.walked = walk(files, fd, header, known.live.tail, 0, search=False, limit=limit)
        else:
            found.walked = walk(files, fd, header, *_start(known, found), limit=limit)
        found.end = found.walked.end if found.walked is not None else found.end
    finally:
        files.close(fd)
    return True


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


def sealed_end(files: Files, fd: int, header: SegmentHeader, size: int) -> int:
    """One past the last sequence of a sealed segment: by its seal, else by walking."""
    trailer = files.pread(fd, seal.TRAILER_SIZE, max(0, size - seal.TRAILER_SIZE))
    offset = seal.read_trailer(trailer, header.salt)
    if offset is not None:
        stored = seal.unpack(files.pread(fd, max(0, size - offset), offset), 0, header.salt)
        if stored is not None and stored.offset == offset:
            return stored.end
    return walk(files, fd, header, layout.FIRST_FRAME, header.first).end


def walk(
    files: Files, fd: int, header: SegmentHeader, offset: int, sequence: int, *, search: bool = True,
    limit: int | None = None,
) -> Walked:  # fmt: skip
    """The end of a segment, from a frame at ``offset`` on.

    :param sequence: that of the frame at ``offset``; 0: whatever stands there. Where no intact frame stands, the
        walk begins at the front.
    :param search: look for intact frames behind one that is not.
    :param limit: the end that the successor tells: frames beyond it are hidden.
    """
    chunk = 1 << 20
    base, window = offset, files.pread(fd, chunk, offset)
    begin = frame.read_header(window, 0, header.salt) if offset >= layout.FIRST_FRAME else None
    if begin is None or (sequence and begin.first != sequence) or begin.first < header.first:
        if (offset, sequence) != (layout.FIRST_FRAME, header.first):
            return walk(files, fd, header, layout.FIRST_FRAME, header.first, limit=limit)
        at = header.first
    else:
        at = begin.first
    frames = highest = 0
    end_offset = offset
    while True:
        place = offset - base
        if place + frame.HEADER_SIZE > len(window):
            base, window, place = offset, files.pread(fd, chunk, offset), 0
        found = frame.read_header(window, place, header.salt)
        if found is not None and place + found.length > len(window):
            base, window, place = offset, files.pread(fd, max(chunk, found.length), offset), 0
        if found is not None and found.first >= at and (limit is None or found.first + found.count <= limit):
            if frame.is_seal(found):
                if frame.read_body(window, place, header.salt, found) is not None:
                    return Walked(found.first, offset, frames, True, highest)
            elif frame.read_body(window, place, header.salt, found) is not None:
                at = found.first + found.count
                frames += 1
                highest = found.accepted
                offset = end_offset = frame.next_offset(offset, found.length)
                continue
        survivor = find_frame(files, fd, header.salt, offset + 8, at, limit) if search else None
        if survivor is None:
            return Walked(at, end_offset, frames, False, highest)
        offset = survivor[0]


@dataclass(slots=True)
class Recovered:
    """What an opening begins with. The slots are those to write next; generations are already raised."""

    head: HeadSlot
    head_slot: int
    seek: SeekSlot
    seek_slot: int
    segments: list[Found]
    end: int
    notes: list[str]
    #: Segments whose seal is not yet on the device, or not yet made: see :func:`finish_seal`.
    unsynced: list[Found]
    lost: int
    #: Whether a valid head and seek were found.
    head_exists: bool
    seek_exists: bool


def recover(files: Files, directory: str, *, buffer_id: bytes, run: bytes, boot_id: bytes) -> Recovered:
    """Seal what an earlier opening left and compute where this one begins. The writer's lock is held.

    Within the boot in which a segment was written its pages are whole, so its seal may reach the device later, and
    where a successor tells its end, be made later; after another boot it is synced before anything else is accepted.

    :raises UnsupportedFormat: a newer release wrote the lane; nothing was changed.
    :raises OSError: the device failed.
    """
    known = survey(files, directory)
    if known.unsupported:
        raise UnsupportedFormat(known.unsupported, path=directory)
    notes: list[str] = []
    _finish_pruning(files, directory, known)
    unsynced: list[Found] = []
    for found in list(known.segments):
        if found.entry.sealed:
            continue
        if found.end == found.header.first:
            _remove(files, directory, found.entry.name)
            known.segments.remove(found)
            continue
        if found.walked is None:
            unsynced.append(found)
            continue
        _seal(files, os.path.join(directory, found.entry.name), found)
        if known.same_boot:
            unsynced.append(found)
        else:
            finish_seal(files, directory, found)
        notes.append(f"sealed segment {found.header.first} behind sequence {(found.end or 1) - 1}")
    _discard_prepared(files, directory, known)
    notes.extend(f"segment file {name} is unreadable and was left alone" for name in known.unreadable)

    ordinal = known.ordinal
    old = known.head
    lost = known.lost_unspooled
    lost_live = (old.lost_live if old else 0) + (lost if old and old.flags & head.LIVE else 0)
    lost_linger = (old.lost_linger if old else 0) + (0 if old and old.flags & head.LIVE else lost)
    if lost:
        notes.append(f"{lost} accepted messages were not yet on disk: they may have arrived")
    settled = known.seek.next if known.seek else 0
    if known.clean and old is not None:
        next_ = max(old.next, known.spool_end, settled, 1)
    elif old is not None:
        next_ = max(old.reserved_until, known.spool_end, settled, 1)
    elif known.seek is not None or known.segments:
        next_ = max(known.spool_end, settled) + LEAP
        notes.append("the head was unreadable: sequences leap ahead")
    else:
        next_ = 1
    position = known.seek
    if position is None:
        position = _lost_seek(known, buffer_id, run, next_, ordinal)
        if known.segments or (old is not None and old.accepted):
            notes.append("the seek was unreadable: delivery begins at the oldest segment, repeats are possible")
    accepted = exits_of(position) + lost_live + lost_linger + max(0, ordinal - position.ordinal - position.settled)
    slot = HeadSlot(
        generation=(old.generation if old else 0) + 1,
        buffer_id=buffer_id,
        run=run,
        boot_id=boot_id,
        next=next_,
        reserved_until=next_ + GRANT,
        run_first=next_,
        ordinal=ordinal,
        floor=old.floor if old else 0,
        floor_ordinal=old.floor_ordinal if old else 0,
        lost_live=lost_live,
        lost_linger=lost_linger,
        accepted=accepted,
        wall_ns=files.wall_ns(),
        boot_ns=files.boot_ns(),
        epoch=(old.epoch if old else 0) + 1,
        destination=old.destination if old else bytes(head.FINGERPRINT_SIZE),
    )
    end = known.spool_end or min(settled or next_, next_)
    return Recovered(
        slot, known.head_slot, position, known.seek_slot, known.segments, end, notes, unsynced, lost,
        head_exists=old is not None, seek_exists=known.seek is not None,
    )  # fmt: skip


def exits_of(slot: SeekSlot) -> int:
    """Messages that have left the lane, by all the seek's accounts together."""
    return slot.delivered + slot.pruned + slot.expired + slot.dead + slot.lost + slot.purged + slot.returned


def finish_seal(files: Files, directory: str, found: Found) -> None:
    """Put a segment on the device, with its seal, and give it its sealed name. Raises OSError."""
    name = layout.sealed_name(found.header.first)
    path = os.path.join(directory, found.entry.name)
    fd = files.open(path)
    try:
        if found.walked is None:
            found.walked = walk(files, fd, found.header, layout.FIRST_FRAME, found.header.first, limit=found.end)
            _seal(files, path, found)
        files.datasync(fd)
    finally:
        files.close(fd)
    if not found.entry.sealed:
        if found.entry.name.startswith("N"):
            # Made in a hurry, its name may not be on the device yet, and the next one must not get there first.
            files.sync_directory(directory)
        files.rename(path, os.path.join(directory, name))
        found.entry = Entry(found.header.first, name)
    files.sync_directory(directory)


def sync_recovered(files: Files, directory: str, unsynced: Sequence[Found]) -> None:
    """Put on the device what :func:`recover` left unsynced, while :func:`finish_seal` may be at work on it in another
    thread. Raises OSError."""
    for found in tuple(unsynced):
        try:
            fd = files.open(os.path.join(directory, found.entry.name))
        except FileNotFoundError:
            # It has got its sealed name, which it gets only after a sync, or is delivered and gone.
            continue
        try:
            files.datasync(fd)
        finally:
            files.close(fd)
    files.sync_directory(directory)


def _seal(files: Files, path: str, found: Found) -> None:
    walked = found.walked
    if walked is None:
        raise AssertionError("only a walked segment is sealed")
    fd = files.open(path)
    try:
        if walked.sealed:
            stored = frame.read_header(files.pread(fd, frame.HEADER_SIZE, walked.offset), 0, found.header.salt)
            size = walked.offset + layout.align8(stored.length if stored else 0)
        else:
            raw = seal.pack(seal.Seal(walked.end, 0, 0, 0, walked.highest, 0, walked.offset), found.header.salt)
            files.pwrite(fd, raw, walked.offset)
            size = walked.offset + len(raw)
        files.truncate(fd, size)
        found.size = size
    finally:
        files.close(fd)


def _discard_prepared(files: Files, directory: str, known: Survey) -> None:
    kept = {found.entry.name for found in known.segments}
    for name in files.list(directory):
        parsed = layout.parse_name(name)
        if parsed is not None and parsed[0] == "N" and name not in kept and name not in known.unreadable:
            _remove(files, directory, name)


def _finish_pruning(files: Files, directory: str, known: Survey) -> None:
    """Delete what lies below the floor, of which the sender keeps account."""
    floor = known.head.floor if known.head is not None else 0
    gone = [found.entry.name for found in known.segments if (found.end or found.header.first) <= floor]
    gone += [name for name in known.unreadable if _below(name, floor)]
    if not gone:
        return
    # The floor may have been stored and not yet synced; without it, older messages would follow newer ones.
    fd = files.open(os.path.join(directory, layout.HEAD_FILE))
    try:
        files.datasync(fd)
    finally:
        files.close(fd)
    for name in gone:
        _remove(files, directory, name)
    known.segments = [found for found in known.segments if found.entry.name not in gone]
    known.unreadable = [name for name in known.unreadable if name not in gone]


def _below(name: str, floor: int) -> bool:
    kind, first = layout.parse_name(name) or ("", 0)
    return kind in ("P", "A") and first < floor


def _remove(files: Files, directory: str, name: str) -> None:
    try:
        files.unlink(os.path.join(directory, name))
    except FileNotFoundError:
        return


def _lost_seek(known: Survey, buffer_id: bytes, run: bytes, next_: int, ordinal: int) -> SeekSlot:
    """A seek to begin with where there is none: at the oldest segment, or at the end of an empty spool."""
    old = known.head
    if known.segments:
        first = known.segments[0].header
        begin, begin_ordinal = first.first, first.ordinal
    else:
        begin, begin_ordinal = next_, ordinal
    resident = ordinal - begin_ordinal
    known_lost = (old.lost_live + old.lost_linger + known.lost_unspooled) if old else 0
    accepted = old.accepted + (max(0, known.live.next - old.next) if known.live else 0) if old else ordinal
    # Which account each earlier message left by is not known any more; that it left is.
    delivered = max(0, accepted - resident - known_lost)
    return SeekSlot(
        generation=0,
        run=run,
        next=begin,
        ordinal=begin_ordinal,
        buffer_id=buffer_id,
        delivered=delivered,
        floor_applied=old.floor if old else 0,
        floor_ordinal=old.floor_ordinal if old else 0,
    )


def _slot(
    files: Files, path: str, size: int, newest: Callable[[bytes], tuple[SeekSlot | None, int, bool]]
) -> tuple[SeekSlot | None, int]:
    slot, index, _ = newest(_content(files, path, size))
    return slot, index


def read_seek(files: Files, directory: str) -> SeekSlot | None:
    """The seek alone, read again where a writer was in the middle of a store. Raises UnsupportedFormat, OSError."""
    path = os.path.join(directory, layout.SEEK_FILE)
    for _ in range(5):
        slot, _index, torn = seek.newest(_content(files, path, seek.SEEK_FILE_SIZE))
        if not torn:
            break
    return slot


def read_head(files: Files, directory: str) -> HeadSlot | None:
    """The head's newest slot alone, as :func:`read_seek`."""
    path = os.path.join(directory, layout.HEAD_FILE)
    for _ in range(5):
        slot, _index, torn = head.newest(_content(files, path, head.LIVE_PAGE))
        if not torn:
            break
    return slot


def read_live(files: Files, directory: str) -> LivePage | None:
    """The live page, where it belongs to the head's run and to this boot. Raises UnsupportedFormat, OSError."""
    raw = _content(files, os.path.join(directory, layout.HEAD_FILE), head.HEAD_FILE_SIZE)
    slot, _index, _torn = head.newest(raw[: head.LIVE_PAGE])
    page = head.unpack_live(raw[head.LIVE_PAGE :]) if len(raw) >= head.HEAD_FILE_SIZE else None
    if slot is None or page is None or (page.run, page.boot_id) != (slot.run, slot.boot_id):
        return None
    return page if page.boot_id == files.boot_id() else None


def _content(files: Files, path: str, size: int) -> bytes:
    try:
        fd = files.open(path, write=False)
    except FileNotFoundError:
        return b""
    try:
        return files.pread(fd, size, 0)
    finally:
        files.close(fd)
