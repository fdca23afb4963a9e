"""The writing end of a spool: the active segment, the prepared one, and those waiting for their seal.

Promises
--------
- :meth:`SpoolWriter.append` stores one frame with one slice assignment into a mapped, reserved file: no
  system call, unless a segment is full and none is prepared.
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
import zlib
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mbframework.files import Files, Map, is_full
from mbframework.spool import frame, layout, seal
from mbframework.spool.segment_header import SEGMENT_HEADER_SIZE, SegmentHeader

if TYPE_CHECKING:
    from mbframework.spool.recovery import Found

MiB = 1 << 20
_CHUNK = 256 * 1024
#: Retired segments whose files stay open until they are sealed.
_HELD_OPEN = 8


class NoSpace(Exception):
    """The limit or the device is full; ``reason`` says which. Nothing was written."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True)
class Segment:
    """What the writer and its monitors know of one segment file."""

    name: str
    first: int
    ordinal: int
    previous_end: int
    size: int
    #: One past the last sequence; None while active.
    end: int | None
    header: SegmentHeader

    @classmethod
    def of(cls, found: Found) -> Segment:
        """A segment that an earlier opening left."""
        header = found.header
        return cls(found.entry.name, header.first, header.ordinal, header.previous_end, found.size, found.end, header)


class Prepared:
    """A reserved file that has a name and a salt, and zeros where its header will be."""

    __slots__ = ("fd", "filling", "in_flight", "map", "name", "salt", "size", "stop", "store")

    def __init__(
        self, name: str, fd: int, size: int, salt: int, store: Callable[[slice, bytes], None], map_: Map | None
    ):
        self.name = name
        self.fd = fd
        self.size = size
        self.salt = salt
        self.store = store
        self.map = map_
        #: Offset of the chunk of zeros being written, or None; see :meth:`usable_until`.
        self.in_flight: int | None = None
        self.stop = False
        #: Held while the file is filled: its descriptor must stay what it is.
        self.filling = threading.Lock()

    def fill(self, files: Files) -> None:
        """Write zeros from the front to the end, until told to stop. The order of the two stores below and
        in :meth:`usable_until` is what keeps a chunk from landing on a frame."""
        with self.filling:
            try:
                for start in range(0, self.size, _CHUNK):
                    self.in_flight = start
                    if self.stop:
                        break
                    files.fill(self.fd, start, min(start + _CHUNK, self.size))
            finally:
                # Where the device refused, the file is as good as one that was not filled.
                self.in_flight = None

    def usable_until(self) -> int:
        """Stop the filling; bytes below the result may be stored to at once."""
        self.stop = True
        in_flight = self.in_flight
        return self.size if in_flight is None else in_flight

    def ready(self) -> bool:
        """Whether activating it now leaves enough room below the chunk in flight."""
        in_flight = self.in_flight
        return in_flight is None or in_flight >= MiB


class Active:
    """An activated segment: one that takes frames, or has just ceased to."""

    __slots__ = (
        "created", "file", "first_accepted", "frames", "last_accepted", "named", "room", "segment", "suspect", "synced",
        "tail",
    )  # fmt: skip

    def __init__(self, segment: Segment, file: Prepared, created: int, room: int) -> None:
        self.segment = segment
        self.file = file
        self.created = created
        self.tail = layout.FIRST_FRAME
        self.frames = 0
        self.first_accepted = 0
        self.last_accepted = 0
        #: Bytes at the end that are kept for the seal.
        self.room = room
        #: Whether the file has left its prepared name, durably.
        self.named = False
        #: Bytes below it are on the device; ``suspect``: a sync failed, and those above may not be stored by another.
        self.synced = 0
        self.suspect = False


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
class SpoolWriter:
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
    counters: Counters = field(default_factory=Counters)

    active: Active | None = None
    prepared: Prepared | None = None
    retired: deque[Active] = field(default_factory=deque)
    #: Held while names change: a caller of sync() and the housekeeper may both want to.
    naming: threading.Lock = field(default_factory=threading.Lock)
    #: Held while a segment's file is synced, so that a failure is seen by whoever comes next.
    syncing: threading.Lock = field(default_factory=threading.Lock)
    #: True from before a frame is stored until the tail is past it.
    busy: bool = False
    #: Offset of the last frame stored, for the live page.
    last: int = layout.FIRST_FRAME
    #: The next prepared file has this size; a lane that never spilled reserves little.
    next_size: int = 0

    #: The size of a file that is being prepared.
    _preparing: int = 0
    _limit: int = 0
    _roll_at: int = 0
    _salt: int = 0
    _tail: int = 0

    def __post_init__(self) -> None:
        if not self.next_size:
            self.next_size = self.limits.segment_size if self.segments else min(self.limits.segment_size, MiB)

    # The lane's lock is held

    @property
    def salt(self) -> int:
        """The salt to encode the next frame with; it changes with :meth:`make_room`."""
        return self._salt

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
        active.frames += 1
        active.last_accepted = accepted

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
                    active.frames += 1
                    active.last_accepted = header.accepted
        self.busy = False

    def retire(self) -> None:
        """End the active segment; the next frame opens a new one."""
        if self.busy:
            self.settle()
        active = self.active
        if active is None:
            return
        active.tail = self._tail
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
            self._release(active.file)

    def _discard(self, active: Active) -> None:
        self.remove(active.segment)
        active.file.stop = True
        with active.file.filling:
            self._release(active.file)
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
        active = Active(segment, file, now, _seal_room(file.size))
        active.first_accepted = accepted
        where, raw, longer = slice(0, SEGMENT_HEADER_SIZE), header.pack(), [*segments, segment]
        limit, roll_at = min(file.usable_until(), file.size - active.room), now + self.limits.segment_age_ns
        try:
            # Nothing is called between these, so that no KeyboardInterrupt finds half of it.
            self.active, self.segments, self._salt = active, longer, file.salt
            self._tail = self.last = layout.FIRST_FRAME
            self._limit, self._roll_at, self.end = limit, roll_at, first
            file.store(where, raw)
        except (OSError, NoSpace):
            self.active, self.segments, self.end = None, segments, end
            self._limit = self._tail = 0
            self._release(file)
            self.files.unlink(os.path.join(self.directory, file.name))
            raise
        except BaseException:
            # An interrupt: whether it came before the store or after it, this is what must stand there.
            file.store(where, raw)
            raise

    def _take_prepared(self, need: int) -> Prepared:
        file = self.prepared
        wanted = need + layout.FIRST_FRAME
        if file is not None and wanted + _seal_room(file.size) <= file.size and file.ready():
            in_flight = file.in_flight
            if in_flight is None or wanted <= in_flight:
                self.prepared = None
                return file
        size = max(self.limits.segment_size, wanted + _seal_room(wanted) + layout.FIRST_FRAME)
        self.check_room(size)
        self.counters.inline_prepared += 1
        return self._reserve(size)

    def check_room(self, size: int) -> None:
        """:raises NoSpace: where ``size`` more bytes would pass a limit."""
        if self.used() + size > self.limits.total_size:
            raise NoSpace(f"total_size of {self.limits.total_size} bytes is reached")
        if len(self.segments) >= self.limits.max_segments:
            raise NoSpace(f"max_segments of {self.limits.max_segments} is reached")
        if self.files.free_bytes(self.directory) - size < self.limits.min_free:
            raise NoSpace(f"the device has less than min_free ({self.limits.min_free} bytes) left")

    def _reserve(self, size: int) -> Prepared:
        salt = 0
        while salt == 0:
            salt = int.from_bytes(self.files.random(4), "little")
        name = layout.prepared_name(salt)
        path = os.path.join(self.directory, name)
        fd = -1
        try:
            fd = self.files.open(path, create=True, exclusive=True)
            self.files.reserve(fd, size)
            if self.mapped:
                map_ = self.files.map(fd, size)
                return Prepared(name, fd, size, salt, map_.store, map_)
        except OSError as error:
            if fd >= 0:
                self.files.close(fd)
                self.files.unlink(path)
            if is_full(error):
                raise NoSpace(f"the device is full: {error.strerror}") from error
            raise
        files = self.files

        def store(where: slice, data: bytes) -> None:
            try:
                files.pwrite(fd, data, where.start)
            except OSError as error:
                # Some file systems need new blocks even for what was reserved.
                if is_full(error):
                    raise NoSpace(f"the device is full: {error.strerror}") from error
                raise

        return Prepared(name, fd, size, salt, store, None)

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
            file = self._reserve(size)
            try:
                self.files.datasync(file.fd)
                self.files.sync_directory(self.directory)
            except BaseException:
                self._release(file)
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
                    self._release(active.file)
                continue
            size = self._write_seal(active)
            name = layout.sealed_name(segment.first)
            if segment.name != name:
                self.files.rename(old, os.path.join(self.directory, name))
                segment.name = name
            self.files.sync_directory(self.directory)
            with self.lock:
                segment.size = size
                self.retired.popleft()
                self.counters.sealed += 1
                self._release(active.file)
            done.append(segment)
        return done

    def _descriptor(self, active: Active) -> int | None:
        """A descriptor of the caller's own; None where the file is gone: pruned, or delivered."""
        if active.file.fd >= 0:
            return self.files.duplicate(active.file.fd)
        segment = active.segment
        # It may be renamed at this moment; the names come in this order.
        for name in (segment.name, layout.unsealed_name(segment.first), layout.sealed_name(segment.first)):
            try:
                return self.files.open(os.path.join(self.directory, name))
            except FileNotFoundError:
                continue
        return None

    def _write_seal(self, active: Active) -> int:
        if active.file.fd < 0:
            active.file.fd = self.files.open(os.path.join(self.directory, active.segment.name))
        fd, tail, segment = active.file.fd, active.tail, active.segment
        crcs = [
            zlib.crc32(self.files.pread(fd, min(MiB, tail - offset), offset), active.file.salt)
            for offset in range(0, tail, MiB)
        ]
        raw = seal.pack(
            seal.Seal(
                end=segment.end or segment.first,
                messages=(segment.end or segment.first) - segment.first,
                frames=active.frames,
                lowest=active.first_accepted,
                highest=active.last_accepted,
                frame_bytes=tail - layout.FIRST_FRAME,
                offset=tail,
                crcs=crcs,
            ),
            active.file.salt,
        )
        self.files.pwrite(fd, raw, tail)
        self.files.truncate(fd, tail + len(raw))
        self._put_on_device(active, len(raw))
        return tail + len(raw)

    def _put_on_device(self, active: Active, seal_size: int = 0) -> bool:
        """Everything stored in the segment so far is on the device. False where its file is gone. Raises OSError."""
        with self.lock:
            # A duplicate, because the housekeeper may seal and close the file meanwhile.
            fd = self._descriptor(active)
        if fd is None:
            return False
        try:
            with self.syncing:
                try:
                    self._sync_once(active, fd, seal_size)
                except OSError:
                    with self.lock:
                        active.suspect = True
                        if self.active is active:
                            self.retire()
                    self._sync_once(active, fd, seal_size)
        finally:
            self.files.close(fd)
        return True

    def _sync_once(self, active: Active, fd: int, seal_size: int) -> None:
        with self.lock:
            tail = (self._tail if self.active is active else active.tail) + seal_size
        if active.suspect:
            # Linux reports a page that it could not write once, and then takes it for clean: make it dirty again.
            for start in range(active.synced, tail, MiB):
                self.files.pwrite(fd, self.files.pread(fd, min(MiB, tail - start), start), start)
        self.files.datasync(fd)
        active.synced = max(active.synced, tail)
        active.suspect = False

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
        file = self.prepared
        self.prepared = None
        if file is not None:
            file.stop = True
            with file.filling:
                self._release(file)
            try:
                self.files.unlink(os.path.join(self.directory, file.name))
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EROFS, errno.EIO):
                    raise
        for active in (*self.retired, *([self.active] if self.active else [])):
            active.file.stop = True
            with active.file.filling:
                self._release(active.file)
        self.retired.clear()
        self.active = None
        self._limit = 0

    def forget(self) -> None:
        """In a forked child: let go of the copies of descriptors and maps; the files are the parent's."""
        files = [each.file for each in (*self.retired, self.active) if each is not None]
        if self.prepared is not None:
            files.append(self.prepared)
        self.active = self.prepared = None
        self.retired = deque()
        for file in files:
            self._release(file)

    def _release(self, file: Prepared) -> None:
        if file.map is not None:
            file.map.close()
        # In this order: an interrupt must not leave the number of a closed descriptor, which soon is another file's.
        fd, file.fd = file.fd, -1
        if fd >= 0:
            self.files.close(fd)


def _seal_room(size: int) -> int:
    """Bytes to keep for the seal of a segment of ``size`` bytes."""
    return seal.size(size // MiB + 1)
