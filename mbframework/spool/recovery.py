"""Making a lane ready for the next opening, after any stop.

Promises
--------
- It needs the writer's lock: it changes files. What it decides by, :func:`~mbframework.spool.survey.survey` tells.
- Sequences are never given twice: after an unclean stop the next one is the greatest of what was reserved,
  spooled and settled.
- Nothing is ever appended to a segment that an earlier opening wrote: each is sealed behind its last intact
  frame. Frames beyond a hole that a power loss left are kept where they are intact.
- What the device refuses to give costs itself alone. It is not cut off or deleted: it may be given another time.
- Recovery counts no loss of the spool: the sender finds it by the jump of the ordinals. It counts what was
  accepted live and is not known to be delivered.
- The time does not grow with the backlog: sealed segments are listed, and of an unsealed one only what
  follows the newest known position is walked.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from mbframework.errors import UnsupportedFormat
from mbframework.files import Files
from mbframework.spool import frame, head, layout, seal
from mbframework.spool.head import HeadSlot
from mbframework.spool.index import Entry
from mbframework.spool.remains import Remains
from mbframework.spool.seek import BITMAP_BITS, BITMAP_SIZE, SeekSlot
from mbframework.spool.segment import put_at_end
from mbframework.spool.slots import finish
from mbframework.spool.survey import Found, Survey, survey
from mbframework.spool.walk import Walked, walk

#: Sequences reserved ahead of use; a new grant is made at half of it.
GRANT = 1 << 24
#: The jump where the head is unreadable: more than any grant that it may have held.
LEAP = 1 << 32
#: Sequences and counts that no lane reaches; below it, what is added to them stays within the format.
FARTHEST = 1 << 59


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
    remains = Remains(files, directory, patient=True)
    known = survey(files, directory, remains)
    if known.unsupported:
        raise UnsupportedFormat(known.unsupported, path=directory)
    check_counts(known, directory)
    finish(files, os.path.join(directory, layout.HEAD_FILE))
    notes: list[str] = []
    _finish_pruning(files, directory, known)
    unsynced: list[Found] = []
    for found in list(known.segments):
        if found.entry.sealed:
            continue
        if found.end == found.header.first and not _refuses(files, directory, found.entry.name, remains):
            _remove(files, directory, found.entry.name)
            known.segments.remove(found)
            continue
        if found.walked is None:
            unsynced.append(found)
            continue
        _seal(files, os.path.join(directory, found.entry.name), found, remains, found.walked, told=None)
        if known.same_boot:
            unsynced.append(found)
        else:
            finish_seal(files, directory, found)
        notes.append(f"sealed segment {found.header.first} behind sequence {(found.end or 1) - 1}")
    notes += _discard_prepared(files, directory, known, remains)
    notes.extend(f"segment file {name} is unreadable and was left alone" for name in known.unreadable)

    ordinal = known.ordinal
    old = known.head
    lost = known.lost_unspooled
    lost_live = (old.lost_live if old else 0) + (lost if old and old.flags & head.LIVE else 0)
    lost_linger = (old.lost_linger if old else 0) + (0 if old and old.flags & head.LIVE else lost)
    returned = old.returned if old else 0
    if lost:
        notes.append(f"{lost} accepted messages were not yet on disk: they may have arrived")
    if known.headless and known.live is not None:
        notes.append(
            f"segment {known.live.segment}, which was being filled, is missing, or its header is damaged: "
            f"{known.headless} messages of it are lost"
        )
    settled = known.seek.next if known.seek else 0
    if known.clean and old is not None:
        next_ = max(old.next, known.spool_end, settled, 1)
    elif old is not None:
        # What a newer slot had reserved lies within the leap.
        leap = LEAP if known.head_damaged else 0
        next_ = max(old.reserved_until, known.spool_end, settled, 1) + leap
        if leap:
            notes.append("a slot of the head was unreadable: an older one counts, and sequences leap ahead")
    elif known.seek is not None or known.segments:
        next_ = max(known.spool_end, settled) + LEAP
        notes.append("the head was unreadable: sequences leap ahead")
    else:
        next_ = 1
    # No file, readable or not, may stand where the next segment gets its name.
    taken = [*map(_number, known.unreadable), *(found.header.first for found in known.segments)]
    next_ = max([next_, *(number + 1 for number in taken if next_ <= number < FARTHEST)])
    position = known.seek
    if position is not None and known.seek_damaged:
        notes.append("a slot of the seek was unreadable: what an older one does not know of is sent again")
        _pass_removed(known, position)
    if position is None:
        position = _lost_seek(known, buffer_id, run, next_, ordinal)
        if known.segments or (old is not None and old.accepted):
            notes.append("the seek was unreadable: delivery begins at the oldest segment, repeats are possible")
    left = position.exits + lost_live + lost_linger + returned
    accepted = left + max(0, ordinal - position.ordinal - position.settled)
    slot = HeadSlot(
        generation=(old.generation if old else 0) + 1,
        buffer_id=buffer_id,
        run=run,
        boot_id=boot_id,
        next=next_,
        reserved_until=next_ + GRANT,
        run_first=next_,
        ordinal=ordinal,
        # What is given out from here on lies above any floor.
        floor=min(old.floor, next_) if old else 0,
        floor_ordinal=min(old.floor_ordinal, ordinal) if old else 0,
        lost_live=lost_live,
        lost_linger=lost_linger,
        accepted=accepted,
        wall_ns=files.wall_ns(),
        boot_ns=files.boot_ns(),
        epoch=(old.epoch if old else 0) + 1,
        destination=old.destination if old else bytes(head.FINGERPRINT_SIZE),
        returned=returned,
    )
    end = known.spool_end or min(settled or next_, next_)
    return Recovered(
        slot, known.head_slot, position, known.seek_slot, known.segments, end, notes, unsynced, lost,
        head_exists=old is not None, seek_exists=known.seek is not None,
    )  # fmt: skip


def finish_seal(files: Files, directory: str, found: Found) -> None:
    """Put a segment on the device, with its seal, and give it its sealed name. Raises OSError."""
    name = layout.sealed_name(found.header.first)
    path = os.path.join(directory, found.entry.name)
    fd = files.open(path)
    try:
        if found.walked is None:
            remains = Remains(files, directory)
            walked = walk(remains, fd, found.header, layout.FIRST_FRAME, found.header.first, limit=found.end)
            _seal(files, path, found, remains, walked, told=found.end)
            # Only now: what failed on the way is done again from the front.
            found.walked = walked
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


def _seal(files: Files, path: str, found: Found, remains: Remains, walked: Walked, *, told: int | None) -> None:
    """``told`` is the end that the successor tells."""
    fd = files.open(path)
    try:
        if walked.sealed:
            stored = frame.read_header(files.pread(fd, frame.HEADER_SIZE, walked.offset), 0, found.header.salt)
            size = walked.offset + layout.align8(stored.length if stored else 0)
            files.truncate(fd, size)
        else:
            end, offset = walked.end, walked.offset
            refused = remains.refused(fd, offset)
            if refused is not None and end != told:
                # Messages may stand there.
                end, offset = told or end, refused
            raw = seal.pack(seal.Seal(end, 0, 0, 0, walked.highest, 0, offset), found.header.salt)
            size = offset + len(raw)
            put_at_end(files, fd, raw, offset)
        found.size = size
    finally:
        files.close(fd)


def _refuses(files: Files, directory: str, name: str, remains: Remains) -> bool:
    """Whether the device refused some of a file."""
    fd = files.open(os.path.join(directory, name), write=False)
    try:
        return remains.refused(fd) is not None
    finally:
        files.close(fd)


def _discard_prepared(files: Files, directory: str, known: Survey, remains: Remains) -> list[str]:
    """Delete the prepared files that were never used; notes about those of which that is not known."""
    kept, notes = {found.entry.name for found in known.segments}, []
    for name in files.list(directory):
        parsed = layout.parse_name(name)
        if parsed is not None and parsed[0] == "N" and name not in kept and name not in known.unreadable:
            if _refuses(files, directory, name, remains):
                notes.append(f"the header of {name} is unreadable: it was left alone, since messages may stand there")
            else:
                _remove(files, directory, name)
    return notes


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
    return 0 < _number(name) < floor


def _number(name: str) -> int:
    """The first sequence that a segment file's name tells; 0 where it tells none."""
    kind, first = layout.parse_name(name) or ("", 0)
    return first if kind in ("P", "A") else 0


def check_counts(known: Survey, directory: str) -> None:
    """Refuse numbers that only an attacker, or a defect, can have put there under right checksums.

    :raises UnsupportedFormat: there are some; nothing may be added to them.
    """
    slot, top = known.seek, known.head
    counts = [number for found in known.segments for number in (found.end or 0, found.header.first, found.end_ordinal)]
    counts += [known.ordinal, known.spool_end]
    if slot is not None:
        counts += [slot.next, slot.ordinal, slot.exits, slot.floor_applied, slot.floor_ordinal]
        counts += [slot.generation, slot.epoch]
    if top is not None:
        counts += [top.next, top.reserved_until, top.ordinal, top.accepted, top.lost_live, top.lost_linger]
        counts += [top.returned, top.floor, top.floor_ordinal, top.generation, top.epoch]
    if max(counts, default=0) >= FARTHEST:
        raise UnsupportedFormat(
            f"{directory} counts up to {max(counts)}, which no lane can have reached: somebody has written its files; "
            "nothing was touched, use another lane or directory",
            path=directory,
        )


def _remove(files: Files, directory: str, name: str) -> None:
    try:
        files.unlink(os.path.join(directory, name))
    except FileNotFoundError:
        return


def _pass_removed(known: Survey, position: SeekSlot) -> None:
    """Move a seek whose newest slot may be lost to the oldest segment: those in front of it have been removed since,
    which is done only once they are delivered, or below the floor."""
    front = known.segments[0].header if known.segments else None
    if front is None or front.first <= position.next or any(_below(name, front.first) for name in known.unreadable):
        return
    bits = int.from_bytes(position.bitmap, "little")

    def unsettled(ordinal: int) -> int:
        """Messages from the position up to an ordinal that no account has."""
        distance = max(0, ordinal - position.ordinal)
        return distance - (bits & ((1 << min(distance, BITMAP_BITS)) - 1)).bit_count()

    gone, floor = unsettled(front.ordinal), known.head
    if floor is not None and floor.floor > position.floor_applied:
        pruned = min(gone, unsettled(floor.floor_ordinal))
        position.pruned += pruned
        gone -= pruned
        position.floor_applied, position.floor_ordinal = floor.floor, floor.floor_ordinal
    position.delivered += gone
    bits >>= min(max(0, front.ordinal - position.ordinal), BITMAP_BITS)
    position.bitmap, position.bits_used = bits.to_bytes(BITMAP_SIZE, "little"), bits.bit_length()
    position.next, position.ordinal = front.first, max(front.ordinal, position.ordinal)
    position.segment = position.offset = 0


def _lost_seek(known: Survey, buffer_id: bytes, run: bytes, next_: int, ordinal: int) -> SeekSlot:
    """A seek to begin with where there is none: at the oldest segment, or at the end of an empty spool."""
    old = known.head
    if known.segments:
        first = known.segments[0].header
        begin, begin_ordinal = first.first, first.ordinal
    else:
        begin, begin_ordinal = next_, ordinal
    resident = ordinal - begin_ordinal
    known_lost = (old.lost_live + old.lost_linger + old.returned + known.lost_unspooled) if old else 0
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
        floor_applied=min(old.floor, next_) if old else 0,
        floor_ordinal=min(old.floor_ordinal, ordinal) if old else 0,
    )
