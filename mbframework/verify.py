"""Whether the bytes of a buffer are what was written.

Promises
--------
- Reads only, and needs no lock: on a running lane an end that is still being written, and files that are delivered and
  removed meanwhile, are no damage.
- Every byte of every segment counts: by the CRCs of its seal where those are right, else frame by frame.
- What is missing is told as ranges of sequences, and how many messages that is, also where whole files are gone: the
  ordinals tell.

Any thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mbframework import directory as directories
from mbframework.errors import DirectoryError, NotABuffer, UnsupportedFormat
from mbframework.files import Files
from mbframework.scan import Framed, Hole, Scan
from mbframework.speedups import crc32
from mbframework.spool import layout, seal
from mbframework.spool.head import CLEAN, LIVE
from mbframework.spool.index import Entry, SegmentIndex
from mbframework.spool.seek import SeekSlot
from mbframework.spool.segment_header import SegmentHeader, end_before
from mbframework.spool.survey import read_head, read_live, read_seek

_MIB = 1 << 20
Progress = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Damage:
    """``messages`` messages with sequences from ``first`` to ``last`` cannot be read; 0 where only other bytes are
    not what was written (then both are None)."""

    text: str
    first: int | None = None
    last: int | None = None
    messages: int = 0

    @property
    def sentence(self) -> str:
        """All of it in one line."""
        if not self.messages or self.first is None:
            return self.text
        until = f"to {self.last}" if self.last is not None else "on"
        noun = "message" if self.messages == 1 else "messages"
        return f"sequences {self.first} {until} ({self.messages:,} {noun}): {self.text}"


#: In the segment that is being filled.
_LAST_MISSING = Damage("what was stored last is missing")


@dataclass(slots=True)
class SegmentCheck:
    """One segment file. ``end`` is one past its last sequence, ``first`` 0 where its header is damaged."""

    name: str
    first: int
    size: int
    sealed: bool = False
    end: int = 0
    messages: int = 0
    frames: int = 0
    damages: list[Damage] = field(default_factory=list)


@dataclass(slots=True)
class LaneCheck:
    """One lane; dead letters are called ``dead/NAME``. ``damages`` concern no single segment. ``error``: why it could
    not be checked at all."""

    name: str
    path: str
    segments: list[SegmentCheck] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)
    error: str = ""

    @property
    def holds_letters(self) -> bool:
        """Whether these are the dead letters of a lane."""
        return os.path.dirname(self.name) == layout.DEAD_DIRECTORY

    @property
    def all_damages(self) -> list[Damage]:
        """Its own and those of its segments."""
        return [*self.damages, *(each for segment in self.segments for each in segment.damages)]


@dataclass(slots=True)
class BufferCheck:
    """A buffer's directory. ``damages`` concern the directory; ``error`` as for a lane."""

    directory: str
    lanes: list[LaneCheck] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        """Everything was read and is what was written."""
        return not self.damages and not any(lane.error or lane.all_damages for lane in self.lanes)

    @property
    def errors(self) -> list[str]:
        """Why lanes could not be checked."""
        return [f"lane {lane.name}: {lane.error}" for lane in self.lanes if lane.error]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"schema": 1, "intact": self.intact} | asdict(self)


def check_buffer(path: str, files: Files | None = None, progress: Progress = bool) -> BufferCheck:
    """Check a buffer's directory. ``progress`` is called with numbers of bytes that have been read since.

    :raises DirectoryError: it is not a directory, not a buffer, or was written by a newer release.
    :raises OSError: it cannot be read.
    """
    files = files or Files()
    path = os.path.abspath(path)
    if not _is_directory(files, path):
        raise DirectoryError(f"{path} is not a directory; give the directory of a buffer", path=path)
    result = BufferCheck(path)
    lanes = lanes_and_dead(files, path)
    try:
        directories.read(files, path)
    except NotABuffer as error:
        if not lanes:
            raise
        result.damages.append(Damage(str(error)))
    for name in lanes:
        result.lanes.append(check_lane(files, os.path.join(path, name), name, progress))
    return result


def _is_directory(files: Files, path: str) -> bool:
    try:
        # A link to one will do.
        return stat.S_ISDIR(files.stat(os.path.join(path, os.curdir)).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def lanes_and_dead(files: Files, path: str) -> list[str]:
    """The lanes of a buffer, and their dead letters as ``dead/NAME``. Raises OSError."""
    dead = os.path.join(path, layout.DEAD_DIRECTORY)
    try:
        with_letters = sorted(files.list(dead))
    except (FileNotFoundError, NotADirectoryError):
        with_letters = []
    letters = [
        os.path.join(layout.DEAD_DIRECTORY, name)
        for name in with_letters
        if not name.startswith(".") and stat.S_ISDIR(files.stat(os.path.join(dead, name)).st_mode)
    ]
    return [*directories.lanes_of(files, path), *letters]


def size_of(files: Files, path: str) -> int:
    """Bytes of all segments of a buffer, for a progress bar."""
    total = 0
    for name in lanes_and_dead(files, path):
        index = SegmentIndex(files, os.path.join(path, name))
        index.refresh()
        for entry in index.entries:
            try:
                total += files.stat(os.path.join(index.directory, entry.name)).st_size
            except FileNotFoundError:
                continue
    return total


def check_lane(files: Files, path: str, name: str, progress: Progress = bool) -> LaneCheck:
    """Check a lane's directory."""
    result = LaneCheck(name, path)
    try:
        _check_lane(files, result, progress)
    except UnsupportedFormat as error:
        result.error = str(error)
    except OSError as error:
        result.error = f"{error.filename or path}: {error.strerror or error}"
    return result


def _check_lane(files: Files, result: LaneCheck, progress: Progress) -> None:
    path = result.path
    # The head comes first: what it counts is in the segments by the time that they are looked at.
    head = read_head(files, path)
    live = read_live(files, path)
    index = SegmentIndex(files, path)
    index.refresh()
    reached: tuple[int, int] | None = None  # sequence and ordinal behind the segments in front
    broken: list[SegmentCheck] = []  # whose headers are damaged, and whose messages nobody has counted yet
    for place, entry in enumerate(index.entries):
        opened = index.open(entry)
        if opened is None:
            check = _unreadable(files, path, entry)
            if check is not None:
                broken.append(check)
                result.segments.append(check)
            continue
        fd, header = opened
        try:
            successors = (index.header(each) for each in index.entries[place + 1 :])
            successor = next((each for each in successors if each is not None), None)
            check = check_segment(
                files, fd, header, entry.name, end=None if successor is None else end_before(header, successor),
                last=place + 1 == len(index.entries),
                reached=live.tail if live is not None and live.segment == header.first else None, progress=progress,
            )  # fmt: skip
            if check.damages and _gone(files, path, fd, header):
                continue
        finally:
            files.close(fd)
        begin = reached if reached is not None else _begin(files, path)
        if reached is not None and (header.ordinal > reached[1] or header.previous_end > reached[0]):
            # What stood between them may have been delivered, or pruned, meanwhile.
            now = _begin(files, path) or reached
            begin = max(reached[0], now[0]), max(reached[1], now[1])
        # Of dead letters, segments are removed wherever nothing of them is left.
        if begin is not None and (broken or not result.holds_letters):
            _count_missing(result, header, begin, broken, in_front=reached is None)
        broken.clear()
        result.segments.append(check)
        reached = check.end, header.ordinal + check.end - header.first
    seek = read_seek(files, path)
    used = bool(result.segments) or (head is not None and head.accepted > 0)
    if head is None and (used or seek is not None):
        result.damages.append(Damage("head cannot be read: recovery takes what the segments and the seek tell"))
    if seek is None and (used or head is not None):
        result.damages.append(Damage("seek cannot be read: recovery begins at the oldest segment, with repeats"))
    filling = live.segment if live is not None and head is not None and not head.flags & CLEAN else 0
    torn = bool(filling) and any(_LAST_MISSING in each.damages for each in result.segments)
    if filling and all(each.first != filling for each in result.segments):
        begin = _begin(files, path)
        if begin is not None and begin[0] <= filling:
            torn = True
            if all(entry.first != filling for entry in index.entries):
                text = f"segment {filling}, which was being filled, is missing, or its header is damaged"
                result.damages.append(Damage(text))
    settled = 0 if seek is None else seek.ordinal + int.from_bytes(seek.bitmap, "little").bit_length()
    if head is not None and seek is not None:
        known = max(settled, reached[1] if reached else 0)
        spooled = head.ordinal
        if torn and live is not None and not head.flags & LIVE:
            # What was accepted since was spooled, or is lost with what lingered.
            spooled += max(0, live.next - head.next)
        missing = max(0, spooled - known)
        if missing:
            where = reached[0] if reached else seek.next
            _blame(result, broken, Damage("missing", where, None, missing))


def _begin(files: Files, path: str) -> tuple[int, int] | None:
    """Sequence and ordinal in front of which nothing is expected on disk any more."""
    seek, head = read_seek(files, path), read_head(files, path)
    if seek is None:
        return None
    begin = seek.next, seek.ordinal + _settled_in_front(seek)
    floor = (head.floor, head.floor_ordinal) if head is not None else (0, 0)
    return max(begin[0], floor[0]), max(begin[1], floor[1])


def _settled_in_front(seek: SeekSlot) -> int:
    """How many messages behind the seek are settled without one that is not among them."""
    bits = int.from_bytes(seek.bitmap, "little")
    return (~bits & (bits + 1)).bit_length() - 1


def _count_missing(
    result: LaneCheck, header: SegmentHeader, begin: tuple[int, int], broken: list[SegmentCheck], *, in_front: bool
) -> None:
    """What lies between ``begin`` and a segment, and is not there."""
    missing = max(0, header.ordinal - begin[1])
    # Where the segment follows directly upon the one in front, the jump of the ordinals is a loss told of before.
    if missing and (header.previous_end > begin[0] or broken):
        _blame(result, broken, Damage("missing", begin[0], header.first - 1, missing))
    elif not in_front and not missing and header.previous_end > begin[0]:
        result.damages.append(Damage(f"segment {header.first} tells of a segment in front of it that is not there"))


def _blame(result: LaneCheck, broken: Sequence[SegmentCheck], damage: Damage) -> None:
    (broken[-1] if broken else result).damages.append(damage)


def _unreadable(files: Files, path: str, entry: Entry) -> SegmentCheck | None:
    """A file without a valid header; None where it has just been removed."""
    try:
        size = files.stat(os.path.join(path, entry.name)).st_size
    except FileNotFoundError:
        return None
    if _left(files, path, entry.first, size):
        return None
    return SegmentCheck(entry.name, 0, size, damages=[Damage("its header is damaged")])


def _gone(files: Files, path: str, fd: int, header: SegmentHeader) -> bool:
    """Whether a segment has been delivered or pruned since it was opened, and perhaps cut for that."""
    info = files.fstat(fd)
    return not info.st_nlink or _left(files, path, header.first, info.st_size)


def _left(files: Files, path: str, first: int, size: int) -> bool:
    """Whether the segment is about to be removed: what is pruned, or delivered, is cut before."""
    head, seek = read_head(files, path), read_seek(files, path)
    pruned = head is not None and first < head.floor
    return pruned or (not size and seek is not None and first < seek.next)


def check_segment(
    files: Files, fd: int, header: SegmentHeader, name: str, *, end: int | None, last: bool, reached: int | None = None,
    progress: Progress = bool,
) -> SegmentCheck:  # fmt: skip
    """Read every byte of a segment.

    :param end: one past its last sequence, as its successor tells.
    :param last: no segment follows.
    :param reached: offset of the frame that was stored last, where the live page tells.
    """
    size = files.fstat(fd).st_size
    check = SegmentCheck(name, header.first, size)
    stored = _seal_at_end(files, fd, header, size)
    if stored is not None and stored.crcs:
        bad = _bad_blocks(files, fd, header, stored, progress)
        if not bad and stored.messages == stored.end - header.first:
            check.sealed = True
            check.end = stored.end if end is None else min(end, stored.end)
            check.messages, check.frames = check.end - header.first, stored.frames
            return check
    scan = Scan(files, fd, header, end=end, grows=last and stored is None and not name.startswith("P"), reached=reached)
    told = layout.FIRST_FRAME
    for step in scan:
        if isinstance(step, Hole):
            check.damages.append(_damage(step, name))
        elif isinstance(step, Framed):
            check.frames += 1
            stop = step.header.first + step.header.count
            check.messages += (stop if end is None else min(stop, end)) - step.header.first
        progress(max(0, scan.offset - told) if stored is None or not stored.crcs else 0)
        told = max(told, scan.offset)
    check.end = scan.at
    check.sealed = scan.seal is not None
    if scan.grows and reached is not None and scan.offset <= reached and not check.sealed:
        check.damages.append(_LAST_MISSING)
    if stored is not None and stored.end > check.end and end is None:
        missing = stored.end - check.end
        check.damages.append(Damage("missing", check.end, stored.end - 1, missing))
        check.end = stored.end
    if stored is not None and stored.crcs and not check.damages:
        check.damages.append(Damage("bytes differ from its seal; every message can be read"))
    if not check.sealed and stored is None and name.startswith("P") and not check.damages:
        check.damages.append(Damage("its seal is missing or damaged"))
    return check


def _damage(hole: Hole, name: str) -> Damage:
    messages = hole.next - hole.first
    if not messages:
        return Damage(f"at {hole.offset} of {name}: {hole.why}")
    return Damage(f"at {hole.offset} of {name}: {hole.why}", hole.first, hole.next - 1, messages)


def _seal_at_end(files: Files, fd: int, header: SegmentHeader, size: int) -> seal.Seal | None:
    """The seal that the last bytes of the file lead to."""
    trailer = files.pread(fd, seal.TRAILER_SIZE, max(0, size - seal.TRAILER_SIZE))
    offset = seal.read_trailer(trailer, header.salt)
    if offset is None or offset >= size:
        return None
    stored = seal.unpack(files.pread(fd, size - offset, offset), 0, header.salt)
    return stored if stored is not None and stored.offset == offset else None


def _bad_blocks(files: Files, fd: int, header: SegmentHeader, stored: seal.Seal, progress: Progress) -> list[int]:
    """The MiB of the file whose bytes differ from the seal's CRCs."""
    bad = []
    for number, expected in enumerate(stored.crcs):
        start = number * _MIB
        block = files.pread(fd, min(_MIB, stored.offset - start), start)
        if crc32(block, header.salt) != expected:
            bad.append(number)
        progress(len(block))
    return bad
