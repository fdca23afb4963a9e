"""A disk in memory that a machine can lose its power over, under the engine's own calls.

Promises
--------
- It does what POSIX promises and no more, when the power goes (``survival.py``) as well as when a sync fails
  (``inode.py``).
- A process that is killed leaves everything that it had stored, and none of its locks and descriptors.
- Each call that changes something, and each store into a map, asks ``watch`` first: there a test looks at what a stop
  would leave, stops the process, or lets somebody else do something.
- Stores of the extension in C count like those of Python (``mapped.py``).
- It is deterministic: time passes with the calls, ids come from the seed.

A store into a map beyond the end of its file is what it is on a real one, the end of the process: an AssertionError.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import random
import stat
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mbframework.files import Files, Map
from tests.faulty_files import Killed
from tests.model.inode import PAGE, ZEROS, Inode, Naming, apply
from tests.model.mapped import Lent, SimulatedMap, halves
from tests.model.survival import Survival

ROOT = "/disk"
#: A disk's descriptors are none of the system's, so that a call that goes past it fails.
_FIRST_FD = 1 << 24
#: Two disks never share a device number: locks are told apart by it.
_devices = itertools.count(1000)


class SimulatedDisk(Files):
    """See the module. Lives in ``ROOT``, which is there."""

    #: Whether the extension stores into memory; if not, it calls the functions that store, frame by frame.
    lends = True

    def __init__(self, seed: int = 0, *, kind: str = "ext4", room: int = 1 << 40) -> None:
        self.kind = kind
        self.room = room
        self.device = next(_devices)
        self.seed = seed
        self.boots = 1
        #: Processes that have had it open, one after the other.
        self.processes = 1
        self.now = 10**15
        self.wall = 1_700_000_000 * 10**9
        self.inodes: dict[int, Inode] = {}
        self._numbers = itertools.count(1)
        root = self._new(stat.S_IFDIR | 0o755)
        root.links = 1
        self._root = root.number
        self._begin_process()

    def _begin_process(self) -> None:
        self._lock = threading.RLock()
        self._descriptors: dict[int, tuple[int, int]] = {}
        self._next_fd = itertools.count(_FIRST_FD)
        self._random = random.Random(self.seed * 1_000_003 + self.processes)
        self.dead = False
        self.calls: Counter[str] = Counter()
        self.lent = Lent(self)
        #: Asked in front of every call that changes something, with its name.
        self.watch: Callable[[str], None] = _nobody
        #: Says of a call with which errno it fails; 0: it does not. Reading calls are asked as well.
        self.error: Callable[[str], int] = _well
        #: Calls that failed.
        self.failures = 0

    def copy(self) -> SimulatedDisk:
        """The disk as it is now, which no process has open: what a kill would leave."""
        other = SimulatedDisk.__new__(SimulatedDisk)
        other.kind, other.room, other.seed, other.boots = self.kind, self.room, self.seed, self.boots
        other.now, other.wall = self.now, self.wall
        other.processes = self.processes + 1
        other.device = next(_devices)
        other.inodes = {number: inode.copy() for number, inode in self.inodes.items()}
        other._numbers = itertools.count(max(self.inodes) + 1)
        other._root = self._root
        other._begin_process()
        return other

    def without_power(self, pattern: str | int) -> SimulatedDisk:
        """The disk after a loss of power at this moment, when the machine runs again."""
        other, survival = self.copy(), Survival(pattern)
        for inode in other.inodes.values():
            if inode.is_directory:
                inode.names = survival.names(inode)
                inode.kept_names, inode.namings = dict(inode.names), []
            else:
                size, pages = survival.file(inode)
                last, rest = divmod(size, PAGE)
                inode.size = inode.kept_size = size
                inode.pages = {page: raw for page, raw in pages.items() if page < last or (page == last and rest)}
                if rest and last in inode.pages:
                    inode.pages[last] = inode.pages[last][:rest].ljust(PAGE, b"\0")
                inode.kept_pages, inode.changes, inode.given_up = dict(inode.pages), [], 0
        for inode in other.inodes.values():
            inode.links = 0
        for inode in other.inodes.values():
            for number in inode.names.values():
                other.inodes[number].links += 1
        other.boots += 1
        other.now = 10**12
        other.wall += 60 * 10**9
        other._begin_process()
        return other

    def digest(self) -> bytes:
        """The same for two disks that hold the same."""
        found = hashlib.blake2b(digest_size=16)
        found.update(b"%d" % self.boots)

        def add(number: int, path: str) -> None:
            inode = self.inodes[number]
            found.update(f"{path} {inode.size} {inode.locked_by}".encode())
            for page in sorted(inode.pages):
                if inode.pages[page] != ZEROS:
                    found.update(b"%d" % page)
                    found.update(inode.pages[page])
            for name in sorted(inode.names):
                add(inode.names[name], f"{path}/{name}")

        add(self._root, "")
        return found.digest()

    # ---- what every call goes through

    def _reads(self, call: str) -> None:
        self.take_in()
        if self.dead:
            raise Killed
        self._refuse(call)

    def _changes(self, call: str) -> None:
        self.take_in()
        if self.dead:
            raise Killed
        self.calls[call] += 1
        self.watch(call)
        if self.dead:
            raise Killed
        self._refuse(call)

    def _refuse(self, call: str) -> None:
        number = self.error(call)
        if number:
            self.failures += 1
            raise OSError(number, os.strerror(number), call)

    def store(self, number: int, offset: int, data: bytes) -> None:
        """Into a map: in two steps, since a kill may come in the middle of the copying."""
        self.take_in()
        for start, end in halves(0, len(data)):
            self.copy_in("store", number, offset + start, data[start:end])

    def take_in(self) -> None:
        """See :meth:`Lent.take_in`."""
        self.lent.take_in()

    def copy_in(self, call: str, number: int, offset: int, data: bytes) -> None:
        """A part of a store."""
        if self.dead:
            raise Killed
        self.calls[call] += 1
        self.watch(call)
        if self.dead:
            raise Killed
        with self._lock:
            inode = self.inodes[number]
            assert offset + len(data) <= inode.size, "SIGBUS: a store into a map beyond the end of its file"
            inode.write(offset, data)

    # ---- names

    def _new(self, mode: int) -> Inode:
        inode = Inode(next(self._numbers), mode)
        self.inodes[inode.number] = inode
        return inode

    def _walk(self, path: str) -> Inode:
        assert path == ROOT or path.startswith(ROOT + "/"), f"{path} is not on the disk"
        inode = self.inodes[self._root]
        for part in path[len(ROOT) :].split("/"):
            if part not in ("", "."):
                number = inode.names.get(part)
                if number is None:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
                inode = self.inodes[number]
        return inode

    def _parent(self, path: str) -> tuple[Inode, str]:
        return self._walk(os.path.dirname(path)), os.path.basename(path)

    def _name(self, parent: Inode, naming: Naming) -> None:
        for name, target in naming.items():
            before = parent.names.get(name)
            if before is not None:
                self.inodes[before].links -= 1
            if target is not None:
                self.inodes[target].links += 1
        apply(parent.names, naming)
        parent.namings.append(naming)

    def open(self, path: str, *, create: bool = False, exclusive: bool = False, write: bool = True) -> int:
        self._reads("open")
        with self._lock:
            parent, name = self._parent(path)
            if name not in parent.names:
                if not create:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
                self._changes("create")
                inode = self._new(stat.S_IFREG | 0o600)
                self._name(parent, {name: inode.number})
            elif exclusive:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            fd = next(self._next_fd)
            self._descriptors[fd] = (parent.names[name], fd)
            return fd

    def _inode(self, fd: int) -> Inode:
        if self.dead:
            raise Killed
        if fd not in self._descriptors:
            raise OSError(errno.EBADF, "closed, or never opened here", str(fd))
        return self.inodes[self._descriptors[fd][0]]

    def close(self, fd: int) -> None:
        with self._lock:
            if self.dead:
                return
            inode = self._inode(fd)
            _, description = self._descriptors.pop(fd)
            if inode.locked_by == description and all(of != description for _, of in self._descriptors.values()):
                inode.locked_by = 0

    def duplicate(self, fd: int) -> int:
        self._reads("duplicate")
        with self._lock:
            self._inode(fd)
            copy = next(self._next_fd)
            self._descriptors[copy] = self._descriptors[fd]
            return copy

    @property
    def open_files(self) -> int:
        """Descriptors that are open."""
        return len(self._descriptors)

    def rename(self, source: str, target: str) -> None:
        self._changes("rename")
        with self._lock:
            parent, old = self._parent(source)
            place, new = self._parent(target)
            if new in place.names:
                raise FileExistsError(errno.EEXIST, "the name is taken", target)
            if place is parent:
                self._move(parent, old, new, source)
            else:
                self._name(place, {new: parent.names[old]})
                self._name(parent, {old: None})

    def _move(self, parent: Inode, old: str, new: str, path: str) -> None:
        if old not in parent.names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        self._name(parent, {new: parent.names[old], old: None})

    def link(self, source: str, target: str) -> None:
        self._changes("link")
        with self._lock:
            inode = self._walk(source)
            parent, name = self._parent(target)
            if name in parent.names:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
            self._name(parent, {name: inode.number})

    def replace(self, path: str, data: bytes, mode: int = 0o600) -> None:
        fd = self.open(f"{path}.tmp", create=True)
        try:
            self.truncate(fd, 0)
            self.pwrite(fd, data, 0)
        finally:
            self.close(fd)
        self._changes("replace")
        with self._lock:
            parent, name = self._parent(path)
            self._move(parent, f"{name}.tmp", name, path)

    def unlink(self, path: str) -> None:
        self._changes("unlink")
        with self._lock:
            parent, name = self._parent(path)
            if name not in parent.names:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            self._name(parent, {name: None})

    def list(self, path: str) -> list[str]:
        self._reads("list")
        with self._lock:
            return list(self._walk(path).names)

    def make_directory(self, path: str, mode: int) -> None:
        with self._lock:
            parent, name = self._parent(path)
            if name in parent.names:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            self._changes("make_directory")
            self._name(parent, {name: self._new(stat.S_IFDIR | mode).number})

    def sync_directory(self, path: str) -> None:
        self._changes("sync_directory")
        with self._lock:
            inode = self._walk(path)
            inode.kept_names, inode.namings = dict(inode.names), []

    def exists(self, path: str) -> bool:
        self._reads("stat")
        with self._lock:
            try:
                self._walk(path)
            except FileNotFoundError:
                return False
            return True

    def stat(self, path: str) -> os.stat_result:
        self._reads("stat")
        with self._lock:
            return self._stat(self._walk(path))

    def fstat(self, fd: int) -> os.stat_result:
        with self._lock:
            return self._stat(self._inode(fd))

    def _stat(self, inode: Inode) -> os.stat_result:
        own = (inode.mode, inode.number, self.device, inode.links, os.geteuid(), os.getegid(), inode.size, 0, 0, 0)
        return os.stat_result(own)

    def lock(self, fd: int) -> bool:
        with self._lock:
            inode, description = self._inode(fd), self._descriptors[fd][1]
            if inode.locked_by not in (0, description):
                return False
            inode.locked_by = description
            return True

    # ---- content

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        self._reads("pread")
        with self._lock:
            return self._inode(fd).read(offset, size)

    def pwrite(self, fd: int, data: bytes, offset: int) -> None:
        self._write("pwrite", fd, data, offset)

    def _write(self, call: str, fd: int, data: bytes, offset: int) -> None:
        """Short where it fails: some of it is there."""
        try:
            self._changes(call)
        except OSError:
            with self._lock:
                self._inode(fd).write(offset, data[: self._random.choice([0, 0, len(data) // 2])])
            raise
        with self._lock:
            inode = self._inode(fd)
            if offset + len(data) > inode.size:
                self._take_room(offset + len(data) - inode.size)
            inode.write(offset, data)

    def append(self, fd: int, data: bytes) -> None:
        self._write("append", fd, data, self.fstat(fd).st_size)

    def truncate(self, fd: int, size: int) -> None:
        self._changes("truncate")
        with self._lock:
            self._inode(fd).resize(size)

    def reserve(self, fd: int, size: int) -> None:
        self._changes("reserve")
        with self._lock:
            inode = self._inode(fd)
            self._take_room(size - inode.size)
            inode.resize(max(inode.size, size))

    def fill(self, fd: int, start: int, end: int) -> None:
        self._write("fill", fd, bytes(end - start), start)

    def datasync(self, fd: int) -> None:
        try:
            self._changes("datasync")
        except OSError:
            with self._lock:
                self._inode(fd).give_up()
            raise
        with self._lock:
            self._inode(fd).sync()

    def map(self, fd: int, size: int) -> Map:
        self._reads("map")
        with self._lock:
            inode = self._inode(fd)
            assert size <= inode.size
            return SimulatedMap(self, inode.number, size)

    def _take_room(self, size: int) -> None:
        if self.used() + size > self.room:
            self.failures += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def used(self) -> int:
        """Bytes of the files that have a name."""
        return sum(inode.size for inode in self.inodes.values() if inode.links and not inode.is_directory)

    def free_bytes(self, path: str) -> int:
        return max(0, self.room - self.used())

    def file_system(self, path: str) -> str:
        return self.kind

    # ---- clocks and identity

    def boot_ns(self) -> int:
        self.now += 1000
        return self.now

    def wall_ns(self) -> int:
        return self.wall + self.now

    def let_pass(self, seconds: float) -> None:
        """Set the clocks ahead."""
        self.now += int(seconds * 1e9)

    def boot_id(self) -> bytes:
        return self.boots.to_bytes(16, "big")

    def process_exists(self, pid: int) -> bool:
        return False

    def random(self, size: int) -> bytes:
        return self._random.randbytes(size)

    # ---- trouble

    @contextmanager
    def failing(self, number: int, *calls: str, first: int = 1, times: int = 1 << 30) -> Iterator[None]:
        """Inside, these calls (all, where none is named) fail: from the ``first`` of them on, so many times."""
        seen = 0

        def error(call: str) -> int:
            nonlocal seen
            if calls and call not in calls:
                return 0
            seen += 1
            return number if first <= seen < first + times else 0

        before, self.error = self.error, error
        try:
            yield
        finally:
            self.error = before


def _nobody(call: str) -> None:
    del call


def _well(call: str) -> int:
    del call
    return 0
