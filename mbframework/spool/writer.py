"""The writing end of a spool: the active segment, the prepared one, and those waiting for their seal.

Promises
--------
- :meth:`SpoolWriter.append` stores one frame with one slice assignment into a mapped, reserved file: no
  system call, unless a segment is full and none is prepared. The extension, where it is in use, does the same to
  the same numbers (:class:`~mbframework.speedups.Tip`).
- A frame never crosses segments, sequences within a segment have no gap, and nothing is ever appended to a
  segment that another opening wrote.
- Only a prepared segment is filled with zeros; nothing but :meth:`append` and the seal writes into one
  that is active or retired.
- A segment gets its name only when its header is on the device, and its sealed name only when all of it is.
- A sync that failed is never taken for done because the next one succeeds: what was not known to be on the device is
  stored again first, in a segment that takes no frames any more.

Threads: ``append``, ``retire`` and everything that reads ``segments`` run under the lane's lock. ``prepare``,
``seal_retired`` and ``sync_active`` are the housekeeper's, without the lock; they take it through ``lock``
for the moment in which they publish a result.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections import deque
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from mbframework.budget import Share
from mbframework.files import Files
from mbframework.speedups import Tip
from mbframework.spool import frame, layout
from mbframework.spool.prepared import MiB, NoSpace, Prepared, SharedFull
from mbframework.spool.segment import Active, Segment, seal_room
from mbframework.spool.segment_header import SEGMENT_HEADER_SIZE, SegmentHeader

#: Retired segments whose files stay open until they are sealed.
_HELD_OPEN = 2
#: The latest time that the extension can compare with, and the format can hold; nanoseconds.
_NEVER = (1 << 63) - 1


@dataclass(slots=True)
class Identity:
    """What goes into every segment header of this opening."""

    buffer_id: bytes
    run: bytes
    boot_id: bytes
    lane: str


@dataclass(slots=True)
class Counters:
    """Facts for the status."""

    inline_prepared: int = 0
    sealed: int = 0


@dataclass(slots=True)
class Limits:
    """The limits that concern the writing end; bytes, nanoseconds, segments."""

    segment_size: int
    segment_age_ns: int
    total_size: int
    max_segments: int
    min_free: int


@dataclass
class SpoolWriter(Tip):
    """See the module. ``end`` is one past the last spooled sequence, ``ordinal`` the messages ever spooled."""

    files: Files
    directory: str
    identity: Identity
    limits: Limits
    lock: AbstractContextManager[object]
    mapped: bool
    end: int
    ordinal: int
    segments: list[Segment]
    #: Of what several lanes may use together.
    share: Share | None = None
    counters: Counters = field(default_factory=Counters)

    active: Active | None = None
    prepared: Prepared | None = None
    retired: deque[Active] = field(default_factory=deque)
    #: Held while names change: a caller of sync() and the housekeeper may both want to.
    naming: threading.Lock = field(default_factory=threading.Lock)
    #: Held while a segment's file is synced, so that a failure is seen by whoever comes next.
    syncing: threading.Lock = field(default_factory=threading.Lock)
    #: The next prepared file has this size; a lane that never spilled reserves little.
    next_size: int = 0

    #: The size of a file that is being prepared.
    _preparing: int = 0

    def __post_init__(self) -> None:
        self.busy = False
        self.last = layout.FIRST_FRAME
        self._limit = self._roll_at = self.salt = self._tail = self.frames = self.last_accepted = 0
        if not self.next_size:
            self.next_size = self.limits.segment_size if self.segments else min(self.limits.segment_size, MiB)

    # The lane's lock is held

    def fits(self, size: int, first: int, accepted: int) -> bool:
        """Whether a frame of ``size`` bytes from sequence ``first`` may go into the active segment."""
        return self._tail + size <= self._limit and accepted <= self._roll_at and first == self.end

    def append(self, data: bytes, first: int, count: int, accepted: int) -> None:
        """Store one padded frame of ``count`` messages from sequence ``first``, which :meth:`fits`.

        :raises OSError: where the file system may not be mapped: the device failed, nothing was accepted.
        """
        tail = self._tail
        end = tail + len(data)
        active = self.active
        if active is None:
            raise AssertionError("append() without make_room()")
        self.busy = True
        active.file.store(slice(tail, end), data)
        self.last = tail
        self._tail = end
        self.end = first + count
        self.ordinal += count
        self.busy = False
        self.frames += 1
        self.last_accepted = accepted

    def settle(self) -> None:
        """After an interrupted :meth:`append`: step over the frame where it was stored whole."""
        active, tail = self.active, self._tail
        if active is not None:
            header = frame.read_header(self.files.pread(active.file.fd, frame.HEADER_SIZE, tail), 0, active.file.salt)
            if header is not None and header.first == self.end and tail + header.length <= self._limit:
                body = self.files.pread(active.file.fd, header.length, tail)
                if frame.decode(body, 0, active.file.salt, header) is not None:
                    behind, end = frame.next_offset(tail, header.length), header.first + header.count
                    # As in append(), nothing is called between these.
                    self.last, self._tail, self.end, self.ordinal = tail, behind, end, self.ordinal + header.count
                    self.frames += 1
                    self.last_accepted = header.accepted
        self.busy = False

    def retire(self) -> None:
        """End the active segment; the next frame opens a new one."""
        if self.busy:
            self.settle()
        active = self.active
        if active is None:
            return
        self.detach()
        active.tail = self._tail
        active.frames, active.last_accepted = self.frames, self.last_accepted
        active.segment.end = self.end
        self.active = None
        self._limit = self._tail = 0
        if active.frames == 0:
            # At once: the next segment may begin at the same sequence, and so have the same name.
            self._discard(active)
            return
        self.retired.append(active)
        if len(self.retired) > _HELD_OPEN and active.file.in_flight is None:
            # Sealing does not keep up: descriptors and maps must not pile up meanwhile.
            active.file.release(self.files)

    def _discard(self, active: Active) -> None:
        self.remove(active.segment)
        active.file.stop_and_release(self.files)
        # On a device that refuses this, recovery removes it.
        with contextlib.suppress(OSError):
            self.files.unlink(os.path.join(self.directory, active.segment.name))

    def tail(self) -> int:
        """Offset one past the last frame of the active segment; 0 without one."""
        return self._tail

    def used(self) -> int:
        """Bytes on disk of all segments, the prepared one included."""
        prepared = self.prepared
        return sum(segment.size for segment in self.segments) + (prepared.size if prepared else self._preparing)

    def most(self) -> int:
        """Bytes that may be on disk by the lane's own limit, and by what other lanes must be left."""
        most = self.limits.total_size
        return most if self.share is None else min(most, self.share.most())

    def size_from(self, sequence: int) -> int:
        """Bytes of the segments that hold something from ``sequence`` on. The lock is held."""
        return sum(each.size for each in self.segments if each.end is None or each.end > sequence)

    def remove(self, segment: Segment) -> None:
        """Forget a segment whose file is gone."""
        self.segments.remove(segment)

    def make_room(self, need: int, first: int, accepted: int) -> None:
        """Open a segment for a frame of ``need`` bytes from sequence ``first``.

        :raises NoSpace: there is no room for another segment; nothing changed.
        :raises OSError: the device failed.
        """
        active = self.active
        if active is not None and first == self.end and accepted <= self._roll_at:
            # The limit may only have been that of a chunk of zeros that has landed by now.
            if active.file.in_flight is None:
                self._limit = active.file.size - active.room
            if self._tail + need <= self._limit:
                return
        file = self._take_prepared(need)
        self.retire()
        now = self.files.boot_ns()
        end, segments = self.end, self.segments
        header = SegmentHeader(
            salt=file.salt,
            buffer_id=self.identity.buffer_id,
            run=self.identity.run,
            first=first,
            ordinal=self.ordinal,
            previous_end=end,
            wall_ns=self.files.wall_ns(),
            boot_ns=now,
            boot_id=self.identity.boot_id,
            reserved=file.size,
            lane=self.identity.lane,
        )
        segment = Segment(file.name, first, self.ordinal, end, file.size, None, header)
        active = Active(segment, file, now, seal_room(file.size))
        active.first_accepted = accepted
        where, raw, longer = slice(0, SEGMENT_HEADER_SIZE), header.pack(), [*segments, segment]
        limit = min(file.usable_until(), file.size - active.room)
        roll_at = min(now + self.limits.segment_age_ns, _NEVER)
        try:
            # Nothing is called between these, so that no KeyboardInterrupt finds half of it.
            self.frames = 0
            self.active, self.segments, self.salt = active, longer, file.salt
            self._tail = self.last = layout.FIRST_FRAME
            self._limit, self._roll_at, self.end = limit, roll_at, first
            file.store(where, raw)
        except (OSError, NoSpace):
            self.active, self.segments, self.end = None, segments, end
            self._limit = self._tail = 0
            file.release(self.files)
            self.files.unlink(os.path.join(self.directory, file.name))
            raise
        except BaseException:
            # An interrupt: whether it came before the store or after it, this is what must stand there.
            file.store(where, raw)
            raise

    def _take_prepared(self, need: int) -> Prepared:
        file = self.prepared
        wanted = need + layout.FIRST_FRAME
        if file is not None and wanted + seal_room(file.size) <= file.size and file.ready():
            in_flight = file.in_flight
            if in_flight is None or wanted <= in_flight:
                self.prepared = None
                return file
        size = max(self.limits.segment_size, wanted + seal_room(wanted) + layout.FIRST_FRAME)
        self.check_room(size)
        self.counters.inline_prepared += 1
        return Prepared.reserve(self.files, self.directory, size, mapped=self.mapped)

    def check_room(self, size: int) -> None:
        """:raises NoSpace: where ``size`` more bytes would pass a limit."""
        if self.used() + size > self.limits.total_size:
            raise NoSpace(f"total_size of {self.limits.total_size} bytes is reached")
        if len(self.segments) >= self.limits.max_segments:
            raise NoSpace(f"max_segments of {self.limits.max_segments} is reached")
        free, least = self.files.free_bytes(self.directory), self.limits.min_free
        if free < least:
            raise NoSpace(f"the device has less than min_free ({least} bytes) left: {free} are free")
        if free - size < least:
            besides = f" above min_free ({least} bytes)" if least else ""
            raise NoSpace(f"the device has no room for the next segment of {size} bytes{besides}: {free} are free")
        if self.share is not None and not self.share.claim(self.used(), size):
            raise SharedFull(self.share.why(size))

    # The housekeeper's, without the lock

    def prepare(self) -> None:
        """Make the next segment ready: reserved and named on the device, then filled with zeros.

        Reserving and syncing come before the zeros: what a power loss could take from an unwritten extent
        is only zeros.

        :raises NoSpace: there is no room; the present state goes on.
        """
        if self.prepared is not None:
            return
        size = self.next_size
        with self.lock:
            self.check_room(size)
            # It takes its place from here on: a writer that makes a segment inline meanwhile must find less room.
            self._preparing = size
        try:
            file = Prepared.reserve(self.files, self.directory, size, mapped=self.mapped)
            try:
                self.files.datasync(file.fd)
                self.files.sync_directory(self.directory)
            except BaseException:
                file.release(self.files)
                self.files.unlink(os.path.join(self.directory, file.name))
                raise
            with self.lock:
                # A chunk that has not begun counts as being in flight at 0: not ready.
                file.in_flight = 0
                self.prepared = file
                self._preparing = 0
                self.next_size = self.limits.segment_size
        finally:
            self._preparing = 0
        file.fill(self.files)

    def name_active(self) -> None:
        """Give the active segment its name, and retired ones theirs."""
        with self.naming:
            with self.lock:
                waiting = [each for each in (*self.retired, self.active) if each is not None and not each.named]
            for active in waiting:
                old = os.path.join(self.directory, active.segment.name)
                name = layout.unsealed_name(active.segment.first)
                if active.segment.name != name:
                    if not self._put_on_device(active):
                        continue
                    try:
                        self.files.rename(old, os.path.join(self.directory, name))
                    except FileNotFoundError:
                        # Discarded meanwhile, since it had no frames.
                        continue
                    active.segment.name = name
                self.files.sync_directory(self.directory)
                active.named = True

    def seal_retired(self, delivered_until: int = 0) -> list[Segment]:
        """Seal what was retired, oldest first; the segments sealed.

        One with nothing at or above ``delivered_until`` (a seek that is on the device) is deleted.
        """
        done: list[Segment] = []
        while self.retired:
            self.name_active()
            active = self.retired[0]
            if active.file.in_flight is not None:
                break
            segment = active.segment
            old = os.path.join(self.directory, segment.name)
            if (segment.end or segment.first) <= delivered_until:
                with contextlib.suppress(FileNotFoundError):
                    self.files.unlink(old)
                with self.lock:
                    self.retired.popleft()
                    self.remove(segment)
                    # Under the lock: whoever duplicates the descriptor to sync it must not find it closed.
                    active.file.release(self.files)
                continue
            seal_size = active.write_seal(self.files, self.directory)
            self._put_on_device(active, seal_size)
            name = layout.sealed_name(segment.first)
            if segment.name != name:
                self.files.rename(old, os.path.join(self.directory, name))
                segment.name = name
            self.files.sync_directory(self.directory)
            with self.lock:
                segment.size = active.tail + seal_size
                self.retired.popleft()
                self.counters.sealed += 1
                active.file.release(self.files)
            done.append(segment)
        return done

    def _put_on_device(self, active: Active, seal_size: int = 0) -> bool:
        """Everything stored in the segment so far is on the device. False where its file is gone. Raises OSError."""
        with self.lock:
            # A duplicate, because the housekeeper may seal and close the file meanwhile.
            fd = active.descriptor(self.files, self.directory)
        if fd is None:
            return False
        try:
            with self.syncing:
                try:
                    active.sync(self.files, fd, self._end_of(active) + seal_size)
                except OSError:
                    with self.lock:
                        active.suspect = True
                        if self.active is active:
                            self.retire()
                    active.sync(self.files, fd, self._end_of(active) + seal_size)
        finally:
            self.files.close(fd)
        return True

    def _end_of(self, active: Active) -> int:
        """Offset one past the last frame that was stored so far."""
        with self.lock:
            return self._tail if self.active is active else active.tail

    def sync_active(self) -> tuple[int, int, int] | None:
        """Put everything stored so far on the device; (segment, offset, sequence) of where that ends."""
        with self.lock:
            active = self.active
            offset, sequence = self._tail, self.end
            unsynced = [*self.retired, *([active] if active else [])]
        self.name_active()
        for each in unsynced:
            self._put_on_device(each)
        return None if active is None else (active.segment.first, offset, sequence)

    def close(self) -> None:
        """Let go of every descriptor and map; what was prepared and not used is deleted."""
        self.detach()
        for active in (*self.retired, *([self.active] if self.active else [])):
            active.file.stop_and_release(self.files)
        self.retired.clear()
        self.active = None
        self._limit = 0
        file = self.prepared
        self.prepared = None
        if file is not None:
            file.stop_and_release(self.files)
            try:
                self.files.unlink(os.path.join(self.directory, file.name))
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EROFS, errno.EIO):
                    raise

    def forget(self) -> None:
        """In a forked child: let go of the copies of descriptors and maps; the files are the parent's."""
        self.detach()
        files = [each.file for each in (*self.retired, self.active) if each is not None]
        if self.prepared is not None:
            files.append(self.prepared)
        self.active = self.prepared = None
        self.retired = deque()
        for file in files:
            file.release(self.files)
