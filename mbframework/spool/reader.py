"""The reading end of a spool: frames in order, from any position, across segments.

Promises
--------
- Reads with ``pread`` only, so that a file that is cut meanwhile is a short read and never a fault.
- What :meth:`SpoolReader.read` returns is a run without gaps in its sequences and ordinals. What is missing is
  returned on its own, as a :class:`Gap` that says how many messages were lost there.
- At the growing end of the last segment, which is not sealed, an invalid frame means *not yet*, unless an intact one
  stands behind it; anywhere else it is damage, and the next intact frame is searched for.
- A file that is being renamed may be missing from a listing: nothing is called lost before a second one agrees.
- What the device refuses to read raises, and is damage once it is given up: see :mod:`~mbframework.spool.sectors`.
  Who looks once, and gives what remains, is told of damage at once.
- Memory: one window of ``_WINDOW`` bytes, or one frame where that is larger.

One thread at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import chain, repeat
from typing import NamedTuple, overload

from mbframework.errors import UnsupportedFormat
from mbframework.files import Files
from mbframework.spool import frame, layout, segment_header
from mbframework.spool.frame import Columns, FrameHeader
from mbframework.spool.index import Entry, SegmentIndex
from mbframework.spool.remains import Remains
from mbframework.spool.sectors import Sectors
from mbframework.spool.segment_header import SegmentHeader, wall_of
from mbframework.spool.several import Several, decode_several
from mbframework.spool.singles import Singles, decode_singles
from mbframework.spool.walk import find_frame

_WINDOW = 1 << 20
_SMALL = 1 << 16


class _Signal(Enum):
    #: More is known of the present segment than before: walk on.
    AGAIN = auto()
    #: The present segment ends in front of the position.
    DONE = auto()


class Gap(NamedTuple):
    """Nothing can be read at the position asked for: go on at ``next``, where ``ordinal`` is the ordinal;
    ``lost`` messages that had been spooled between are gone, for this ``reason``. 0: there never were any."""

    next: int
    ordinal: int
    lost: int
    reason: str = "unreadable or missing on disk"


class Acceptance(NamedTuple):
    """``count`` messages were accepted at boot-time ``accepted`` of the boot that ``header`` names."""

    count: int  # type: ignore[assignment]  # hides tuple.count(), of which this has no need
    accepted: int
    header: SegmentHeader


class Acceptances(Sequence[Acceptance]):
    """Those of a run, front to back, each made when it is asked for: there may be one per message."""

    def __init__(self) -> None:
        self._parts: list[tuple[Sequence[int], Sequence[int], SegmentHeader]] = []

    def add(self, counts: Sequence[int], accepted: Sequence[int], header: SegmentHeader) -> None:
        """One for each of ``counts`` and ``accepted``, of messages in one segment."""
        self._parts.append((counts, accepted, header))

    def __len__(self) -> int:
        return sum(len(counts) for counts, _, _ in self._parts)

    @overload
    def __getitem__(self, index: int) -> Acceptance: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Acceptance]: ...
    def __getitem__(self, index: int | slice) -> Acceptance | Sequence[Acceptance]:
        if index == 0 and self._parts:
            return next(iter(self))
        return list(self)[index]

    def __iter__(self) -> Iterator[Acceptance]:
        for counts, accepted, header in self._parts:
            yield from map(Acceptance, counts, accepted, repeat(header))


@dataclass(slots=True)
class Run:
    """Messages in order without a gap, as columns; ``accepted`` is wall-clock nanoseconds."""

    first: int
    topics: list[str] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    header_blocks: list[bytes | None] = field(default_factory=list)
    timestamps: list[int] = field(default_factory=list)
    partitions: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    acceptances: Sequence[Acceptance] = ()
    #: The run id, segment (its first sequence) and offset of the frame where the next read begins.
    run: bytes = b""
    segment: int = 0
    offset: int = 0

    def __len__(self) -> int:
        return len(self.values)

    @property
    def end(self) -> int:
        """One past the last sequence."""
        return self.first + len(self.values)


class SpoolReader:
    """See the module. ``directory`` is the lane's; ``remains`` reads for who looks once."""

    def __init__(self, files: Files, directory: str, remains: Remains | None = None) -> None:
        self._files = files
        self._sectors = remains or Sectors(files, directory)
        self.index = SegmentIndex(files, directory, self._sectors.pread)
        self._fd = -1
        self._header: SegmentHeader | None = None
        self._end: int | None = None  # one past the segment's last sequence, where known
        self._stored = False  # whether nothing is stored in the segment any more
        self._offset = 0
        self._at = 0  # sequence at _offset
        self._ahead = 0, 0  # an intact frame behind it: its offset and first sequence
        self._suspect = -1  # offset of a frame with an intact one behind it, looked at again before it is damage
        self._window = b""
        self._base = 0
        self._span = _SMALL
        self._length = 0  # of that frame
        self._frame: Columns | None = None  # the frame at _offset, decoded

    def read(
        self, next_: int, ordinal: int, *, until: int | None, max_messages: int, max_bytes: int, hint: tuple[int, int]
    ) -> Run | Gap | None:
        """Messages from sequence ``next_``, whose ordinal is ``ordinal``; None where there is nothing yet.

        :param until: one past the last sequence that is known to be there; None: unknown.
        :param hint: (segment, offset) of a frame at or before ``next_``.
        :raises UnsupportedFormat: written by a newer release.
        :raises OSError: the device failed, or refuses to give what stands there: ask again in a second or later.
        """
        if until is not None and next_ >= until:
            return None
        acceptances = Acceptances()
        run = Run(next_, acceptances=acceptances)
        size = 0
        while len(run) < max_messages and size < max_bytes:
            try:
                found = self._seek(run.end, ordinal + len(run), until, hint)
            except (UnsupportedFormat, OSError):
                # What was read already goes out first.
                if len(run):
                    return run
                raise
            if isinstance(found, Gap):
                if len(run):
                    return run
                if found.lost and self._listing_has_changed():
                    self.close()
                    continue
                return found
            if found is None:
                break
            columns, header, length = found
            skip = run.end - columns.first
            room = max_messages - len(run)
            left = columns.count - skip
            if self._end is not None:
                left = min(left, self._end - run.end)
            fit = max(1, (max_bytes - size) * columns.count // max(length, 1))
            take = min(left, room, fit)
            self._add(run, columns, header, skip, take)
            acceptances.add((take,), (columns.accepted,), header)
            size += length * take // columns.count
            if take == left:
                self._advance(columns)
                size += self._add_following(run, acceptances, header, max_messages, max_bytes - size)
            run.segment, run.offset = header.first, self._offset
        return run if len(run) else None

    def close(self) -> None:
        """Let go of the segment; the next read opens it again."""
        # In this order: a fork in between must leave nothing that is closed twice.
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._files.close(fd)
        self._header = None
        self._frame = None
        self._window = b""

    def _add(self, run: Run, columns: Columns, header: SegmentHeader, skip: int, take: int) -> None:
        end = skip + take
        run.topics.extend(columns.topics[skip:end])
        run.keys.extend(columns.keys[skip:end])
        run.values.extend(columns.values[skip:end])
        run.header_blocks.extend(columns.header_blocks[skip:end])
        run.timestamps.extend(columns.timestamps[skip:end])
        run.partitions.extend(columns.partitions[skip:end])
        run.accepted.extend([wall_of(header, columns.accepted)] * take)
        run.run = header.run

    def _add_following(
        self, run: Run, acceptances: Acceptances, header: SegmentHeader, max_messages: int, max_size: int
    ) -> int:
        """From the frame behind one that was read with care: what follows in the window, up to the next one that needs
        care. Bytes of the frames."""
        done = 0
        wall = wall_of(header, 0).__add__
        while True:
            most = max_messages - len(run)
            if self._end is not None:
                most = min(most, self._end - self._at)
            if most <= 0 or done >= max_size:
                return done
            where = self._window, self._offset - self._base, header.salt, self._at, most, max_size - done
            singles = decode_singles(*where)
            found: Singles | Several = singles
            if singles.values:
                run.accepted += map(wall, singles.accepted)
                acceptances.add([1] * len(singles.values), singles.accepted, header)
            else:
                several = found = decode_several(*where)
                if not several.values:
                    return done
                run.accepted += chain.from_iterable(map(repeat, map(wall, several.moments), several.counts))
                acceptances.add(several.counts, several.moments, header)
            run.topics += found.topics
            run.keys += found.keys
            run.values += found.values
            run.header_blocks += found.header_blocks
            run.timestamps += found.timestamps
            run.partitions += found.partitions
            self._at += len(found.values)
            self._offset = self._base + found.offset
            done += found.size

    def _advance(self, columns: Columns) -> None:
        """Go to the frame after the present one."""
        self._frame = None
        self._offset = frame.next_offset(self._offset, self._length)
        self._at = columns.first + columns.count

    def _seek(
        self, next_: int, ordinal: int, until: int | None, hint: tuple[int, int]
    ) -> tuple[Columns, SegmentHeader, int] | Gap | None:
        """The frame that holds ``next_``, or why there is none."""
        done = 0
        while True:
            if not self._inside(next_):
                gap = self._enter(next_, ordinal, hint, done)
                if gap is not None:
                    return gap
            header = self._header
            if header is None:
                return None
            if self._at > next_:
                self._rewind(header)
                if hint[0] == header.first:
                    self._jump(hint[1], next_)
            found = self._walk(header, next_, ordinal, until)
            while found is _Signal.AGAIN:
                found = self._walk(header, next_, ordinal, until)
            if found is _Signal.DONE:
                done = header.first
                self.close()
                continue
            if found is None or isinstance(found, Gap):
                return found
            expected = header.ordinal + next_ - header.first
            return Gap(next_, expected, expected - ordinal) if expected > ordinal else found

    def _inside(self, next_: int) -> bool:
        header = self._header
        if header is None or next_ < header.first:
            return False
        if self._end is not None:
            return next_ < self._end
        # Without a known end only the next message is: farther on, another segment may have begun since.
        return next_ <= self._at or (self._frame is not None and next_ <= self._frame.first + self._frame.count)

    def _enter(self, next_: int, ordinal: int, hint: tuple[int, int], done: int) -> Gap | None:
        """Open the segment that holds ``next_``; a gap where the next readable one begins later. The segment ``done``
        and those before it are known to end below ``next_``."""
        self.close()
        self.index.refresh()
        entry = self.index.at_or_before(next_)
        while entry is not None and entry.first > done and not self._use(entry):
            # It may only have the name of a segment, and hide nothing of the one in front.
            entry = self.index.at_or_before(entry.first - 1)
        if entry is not None and entry.first > done:
            # The listing is fresh: a segment without a successor is the last one there is.
            if self._end is None or next_ < self._end:
                if hint[0] == entry.first:
                    self._jump(hint[1], next_)
                return None
            self.close()
        return self._leap(next_, ordinal)

    def _leap(self, next_: int, ordinal: int) -> Gap | None:
        """To the first readable segment after ``next_``; the ordinals tell what was lost on the way."""
        later = self.index.after(next_)
        while later is not None:
            if self._use(later) and self._header is not None:
                header = self._header
                return Gap(header.first, max(header.ordinal, ordinal), max(0, header.ordinal - ordinal))
            later = self.index.after(later.first)
        return None

    def _use(self, entry: Entry) -> bool:
        self.close()
        opened = self.index.open(entry)
        if opened is None:
            return False
        self._fd, self._header = opened
        self._end, self._stored, self._suspect, self._ahead = None, entry.sealed, -1, (0, 0)
        self._rewind(self._header)
        self._end = self._end_of(self._header)
        return True

    def _end_of(self, header: SegmentHeader) -> int | None:
        """What the next readable segment says of this one's end; None without one."""
        later = self.index.after(header.first)
        while later is not None:
            successor = self.index.header(later)
            if successor is not None:
                return segment_header.end_before(header, successor)
            later = self.index.after(later.first)
        return None

    def _rewind(self, header: SegmentHeader) -> None:
        self._offset = layout.FIRST_FRAME
        self._at = header.first
        self._frame = None

    def _jump(self, offset: int, next_: int) -> None:
        """Begin at ``offset`` where a frame at or before ``next_`` stands there."""
        header = self._header
        if header is None or offset & 7 or not layout.FIRST_FRAME <= offset < self._files.fstat(self._fd).st_size:
            return
        found = frame.read_header(self._need(offset, frame.HEADER_SIZE), offset - self._base, header.salt)
        if found is not None and header.first <= found.first <= next_:
            self._offset, self._at, self._frame = offset, found.first, None

    def _walk(
        self, header: SegmentHeader, next_: int, ordinal: int, until: int | None
    ) -> tuple[Columns, SegmentHeader, int] | Gap | _Signal | None:
        """From the present frame to the one that holds ``next_``."""
        fresh = False
        while True:
            kept = self._frame
            if kept is not None and kept.first <= next_ < kept.first + kept.count:
                return kept, header, self._length
            if self._end is not None and self._at >= self._end:
                return _Signal.DONE
            self._frame = None
            found = self._frame_header()
            if found is not None and frame.is_seal(found) and found.first >= self._at:
                return self._sealed(found.first, next_, ordinal)
            if found is not None and found.first == self._at:
                if self._at + found.count <= next_:
                    self._offset = frame.next_offset(self._offset, found.length)
                    self._at += found.count
                    continue
                window = self._need(self._offset, found.length)
                columns = frame.decode(window, self._offset - self._base, header.salt, found)
                if columns is not None:
                    self._frame, self._length = columns, found.length
                    continue
            if not fresh:
                # The window may be older than what has been stored since.
                self._window = b""
                fresh = True
                continue
            return self._invalid(found, header, next_, ordinal, until)

    def _sealed(self, end: int, next_: int, ordinal: int) -> Gap | _Signal | None:
        """At a seal that says that the segment ends at ``end``."""
        if self._end is None or end < self._end:
            self._end = end
        self._at = self._end
        if next_ < self._end:
            return Gap(self._end, ordinal + self._end - next_, self._end - next_)
        return _Signal.DONE if self._has_later() else None

    def _has_later(self) -> bool:
        """Whether a segment after the present one exists by now."""
        header = self._header
        if header is None:
            return False
        if self.index.after(header.first) is None:
            self.index.refresh()
        return self.index.after(header.first) is not None

    def _invalid(
        self, found: FrameHeader | None, header: SegmentHeader, next_: int, ordinal: int, until: int | None
    ) -> Gap | _Signal | None:
        """No intact frame follows: the end of the segment, the growing end, or damage."""
        later = self._has_later()
        if later and self._end is None:
            # The writer has gone on since this segment was opened: its end is known now, and a frame that was
            # being stored at the first look is whole at the next.
            self._end = self._end_of(header)
            if self._end is not None:
                self._window = b""
                return _Signal.AGAIN
        if not later and not self._stored:
            if self.index.is_sealed(header.first):
                # Sealed since it was opened: everything is stored by now.
                self._stored, self._window = True, b""
                return _Signal.AGAIN
            if until is None or next_ >= until:
                self._window = b""
                return None
            if self._suspect != self._offset:
                return self._suspected(found, header)
        if found is not None and found.first == self._at:
            # Nobody has written beyond these, whatever a frame that cannot be read whole says of itself.
            end = min(each for each in (found.first + found.count, self._end, until) if each is not None)
            return self._skip_to(next_, ordinal, max(end, next_), frame.next_offset(self._offset, found.length))
        return self._resynchronise(header, next_, ordinal)

    def _suspected(self, found: FrameHeader | None, header: SegmentHeader) -> _Signal | None:
        """In a growing segment: the present frame may only not be stored whole yet, unless one behind it is."""
        self._window = b""
        if not self._files.fstat(self._fd).st_nlink:
            # An empty segment that was discarded; another may begin at the same sequence.
            self.close()
            return None
        whole = found is not None and found.first == self._at
        behind = frame.next_offset(self._offset, found.length) if found is not None and whole else self._offset
        if self._ahead[0] < behind or self._ahead[1] < self._at:
            survivor = find_frame(self._sectors.pread, self._fd, header.salt, behind, self._at, None)
            if survivor is None:
                return None
            self._ahead = survivor[0], survivor[1].first
        # By the time that one was stored, this one had been: look again.
        self._suspect = self._offset
        return _Signal.AGAIN

    def _resynchronise(self, header: SegmentHeader, next_: int, ordinal: int) -> Gap | _Signal | None:
        """Search an intact frame beyond the damage; without one, the rest of the segment is lost."""
        survivor = find_frame(self._sectors.pread, self._fd, header.salt, self._offset, self._at, self._end)
        if survivor is not None:
            offset, intact = survivor
            return self._skip_to(next_, ordinal, intact.first, offset)
        if self._end is not None:
            self._at = self._end
            if next_ >= self._end:
                return _Signal.DONE
            return self._gap(next_, ordinal, self._end, None)
        return self._leap(next_, ordinal)

    def _listing_has_changed(self) -> bool:
        before = [entry.first for entry in self.index.entries]
        self.index.refresh()
        return before != [entry.first for entry in self.index.entries]

    def _skip_to(self, next_: int, ordinal: int, to: int, offset: int) -> Gap | _Signal:
        gap = self._gap(next_, ordinal, to, offset)
        self._offset, self._at, self._frame = offset, to, None
        # Damage that lies in front of the position was told of when the position went past it.
        return _Signal.AGAIN if to <= next_ else gap

    def _gap(self, next_: int, ordinal: int, to: int, offset: int | None) -> Gap:
        """What is lost up to sequence ``to``, which stands at ``offset`` (None: behind the end)."""
        gap = Gap(to, ordinal + to - next_, to - next_)
        if self._sectors.given_up(self._fd, self._offset, offset):
            return gap._replace(reason="the device cannot read what is on disk")
        return gap

    def _frame_header(self) -> FrameHeader | None:
        header = self._header
        if header is None:
            return None
        window = self._need(self._offset, frame.HEADER_SIZE)
        return frame.read_header(window, self._offset - self._base, header.salt)

    def end_of_frame(self, segment: int, offset: int) -> int | None:
        """One past the last sequence of the frame at ``offset`` of the segment that begins at ``segment``; None where
        no frame begins there. Raises UnsupportedFormat, OSError."""
        opened = self.index.open(Entry(segment, layout.unsealed_name(segment)))
        entry = next((each for each in self.index.entries if each.first == segment), None)
        if opened is None and entry is not None:
            opened = self.index.open(entry)
        if opened is None:
            return None
        fd, header = opened
        try:
            if not 0 <= offset < self._files.fstat(fd).st_size:
                return None
            found = frame.read_header(self._sectors.pread(fd, frame.HEADER_SIZE, offset), 0, header.salt)
        finally:
            self._files.close(fd)
        return None if found is None else found.first + found.count

    def _need(self, offset: int, size: int) -> bytes:
        """A window that holds ``size`` bytes at ``offset``, as far as the file goes."""
        start = offset - self._base
        if start < 0 or start + size > len(self._window):
            # Small at the growing end, larger while there is a backlog to go through.
            self._span = min(2 * self._span, _WINDOW) if self._window else _SMALL
            window = self._sectors.pread(self._fd, max(size, self._span), offset, size)
            self._base, self._window = offset, window
        return self._window
