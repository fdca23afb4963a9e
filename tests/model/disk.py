"""A disk in memory that a machine can lose its power over, under the engine's own calls.

Promises
--------
- It does what POSIX promises and no more. A file keeps, when the power goes, what its last successful sync saw; of
  every later store, sector by sector, any state that the sector ever had; in some mixtures the front of one such state
  and the back of another, since not every device stores a sector at once. Names keep what the last sync of their
  directory saw; of the later changes any that do not rest on one that was lost. A rename is done or not done.
- A sync that failed takes what it was to write for clean, as Linux does: a later sync that succeeds says nothing of it.
- A process that is killed leaves everything that it had stored, and none of its locks and descriptors.
- Each call that changes something, and each store into a map, asks ``watch`` first: there a test looks at what a stop
  would leave, stops the process, or lets somebody else do something.
- The extension in C stores into memory, as on a real disk. What it has stored is found by comparing, and done again on
  the disk piece by piece, in the order that ``native/tip.h`` promises: see :meth:`SimulatedDisk.take_in`. Whatever else
  it stored anywhere is an AssertionError.
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
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from mbframework.files import Files, Map
from mbframework.spool import frame, layout
from mbframework.spool.headfile import NEXT, TAIL
from tests.faulty_files import Killed

PAGE = 4096
SECTOR = 512
ROOT = "/disk"
_ZEROS = bytes(PAGE)
#: A disk's descriptors are none of the system's, so that a call that goes past it fails.
_FIRST_FD = 1 << 24
#: Two disks never share a device number: locks are told apart by it.
_devices = itertools.count(1000)

#: One change of a page: which, from where in it, what. Or of the size: -1, the size, nothing.
Change = tuple[int, int, bytes]
#: One change of names, done in one step: what each leads to from now on, None for nothing.
Naming = dict[str, int | None]


@dataclass
class Inode:
    """A file or a directory: what is in memory, what is on the device, and the steps from there to here."""

    number: int
    mode: int
    size: int = 0
    pages: dict[int, bytes] = field(default_factory=dict)
    kept_size: int = 0
    kept_pages: dict[int, bytes] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    #: So many of the changes were to be written by a sync that failed.
    given_up: int = 0
    links: int = 0
    #: What the extension stores into, while it may.
    memory: bytearray | None = None
    names: dict[str, int] = field(default_factory=dict)
    kept_names: dict[str, int] = field(default_factory=dict)
    namings: list[Naming] = field(default_factory=list)
    #: The open file description that holds the lock, 0 for none.
    locked_by: int = 0

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    def copy(self) -> Inode:
        return Inode(
            self.number, self.mode, self.size, dict(self.pages), self.kept_size, dict(self.kept_pages),
            list(self.changes), self.given_up, self.links, None, dict(self.names), dict(self.kept_names),
            list(self.namings),
        )  # fmt: skip

    def read(self, offset: int, size: int) -> bytes:
        end = min(offset + size, self.size)
        if end <= offset:
            return b""
        pages = self.pages
        parts = [pages.get(page, _ZEROS) for page in range(offset // PAGE, (end - 1) // PAGE + 1)]
        start = offset % PAGE
        return b"".join(parts)[start : start + end - offset]

    def write(self, offset: int, data: bytes) -> None:
        done, memory = 0, self.memory
        if memory is not None and offset < len(memory):
            end = min(len(memory), offset + len(data))
            memory[offset:end] = data[: end - offset]
        while done < len(data):
            page, start = divmod(offset + done, PAGE)
            chunk = bytes(data[done : done + PAGE - start])
            old = self.pages.get(page, _ZEROS)
            self.pages[page] = chunk if len(chunk) == PAGE else old[:start] + chunk + old[start + len(chunk) :]
            self.changes.append((page, start, chunk))
            done += len(chunk)
        if offset + len(data) > self.size:
            self.resize(offset + len(data))

    def resize(self, size: int) -> None:
        if size < self.size:
            page, start = divmod(size, PAGE)
            last = (self.size - 1) // PAGE
            self.size = max(self.size, (last + 1) * PAGE)
            self.write(size, bytes((last + 1) * PAGE - size))
            for gone in range(page + bool(start), last + 1):
                self.pages.pop(gone, None)
        self.size = size
        self.changes.append((-1, size, b""))

    def sync(self) -> None:
        if not self.given_up:
            self.kept_pages = dict(self.pages)
            self.changes = []
        else:
            # Only what was stored again since is written, by whole pages.
            fresh = {page for page, _, _ in self.changes[self.given_up :]}
            for page in fresh - {-1}:
                self.kept_pages[page] = self.pages.get(page, _ZEROS)
            self.changes = [each for each in self.changes[: self.given_up] if each[0] not in {-1, *fresh}]
            self.given_up = len(self.changes)
        self.kept_size = self.size

    def give_up(self) -> None:
        """A sync failed: what it was to write counts as clean from now on."""
        self.given_up = len(self.changes)


class Survival:
    """What outlasts a loss of power, of all that was not synced. ``pattern``: "nothing", "everything", "names",
    "data", or a number, the seed of a mixture."""

    def __init__(self, pattern: str | int) -> None:
        self.pattern = pattern
        self._chance = random.Random(pattern) if isinstance(pattern, int) else None
        chance = self._chance
        self._share = chance.choice([0.1, 0.5, 0.9]) if chance is not None else 0.0
        self._torn = chance is not None and chance.random() < 0.5
        #: Also within sectors.
        self._shredded = self._torn and chance is not None and chance.random() < 0.5

    def file(self, inode: Inode) -> tuple[int, dict[int, bytes]]:
        """Size and pages of a file."""
        changes = inode.changes
        if not changes or self.pattern in ("nothing", "names"):
            return inode.kept_size, inode.kept_pages
        if self.pattern in ("everything", "data"):
            return inode.size, inode.pages
        chance = self._chance
        assert chance is not None
        sizes = [inode.kept_size, *(start for page, start, _ in changes if page == -1), inode.size]
        size = chance.choice(sizes)
        pages = dict(inode.kept_pages)
        for page in sorted({page for page, _, _ in changes if page >= 0}):
            versions = [inode.kept_pages.get(page, _ZEROS)]
            for where, start, chunk in changes:
                if where == page:
                    old = versions[-1]
                    versions.append(old[:start] + chunk + old[start + len(chunk) :])
            pages[page] = self._page(versions, chance)
        return size, pages

    def _page(self, versions: list[bytes], chance: random.Random) -> bytes:
        def version() -> bytes:
            if chance.random() < 0.3:
                return chance.choice(versions)
            return versions[-1] if chance.random() < self._share else versions[0]

        if not self._torn:
            return version()
        page = bytearray()
        for at in range(0, PAGE, SECTOR):
            cut = at + (chance.randrange(SECTOR) if self._shredded else 0)
            if cut > at:
                page += version()[at:cut]
            page += version()[cut : at + SECTOR]
        return bytes(page)

    def names(self, inode: Inode) -> dict[str, int]:
        """What stands in a directory."""
        if not inode.namings or self.pattern in ("nothing", "data"):
            return dict(inode.kept_names)
        if self.pattern in ("everything", "names"):
            return dict(inode.names)
        chance = self._chance
        assert chance is not None
        result = dict(inode.kept_names)
        # A journal keeps the first few; others keep any, but none that rests on one that is lost.
        first = chance.randint(0, len(inode.namings)) if chance.random() < 0.5 else -1
        lost: set[str | int] = set()
        for number, naming in enumerate(inode.namings):
            touched: set[str | int] = {*naming, *(target for target in naming.values() if target is not None)}
            keeps = number < first if first >= 0 else chance.random() < self._share
            if not keeps or touched & lost:
                lost |= touched
                continue
            _apply(result, naming)
        return result


def _apply(names: dict[str, int], naming: Naming) -> None:
    for name, target in naming.items():
        if target is None:
            names.pop(name, None)
        else:
            names[name] = target


class Words(array):  # type: ignore[type-arg]
    """The words of a map, and the memory into which the extension stores them."""

    disk: SimulatedDisk
    inode: int
    offset: int
    #: What is on the disk of them.
    stored: list[int]

    @classmethod
    def of(cls, disk: SimulatedDisk, inode: int, offset: int, count: int) -> Self:
        made = cls("Q", bytes(8 * count))
        made.disk, made.inode, made.offset, made.stored = disk, inode, offset, [0] * count
        return made

    def __setitem__(self, index: Any, value: Any) -> None:
        self.disk.store(self.inode, self.offset + 8 * index, value.to_bytes(8, "little"))
        self.stored[index] = value
        super().__setitem__(index, value)


class SimulatedMap(Map):
    """A map of a file of the disk."""

    __slots__ = ("_disk", "_inode", "_size")

    def __init__(self, disk: SimulatedDisk, inode: int, size: int) -> None:
        self._disk, self._inode, self._size = disk, inode, size
        self.store = self._store

    def _store(self, where: slice, data: bytes) -> None:
        if not self._size:
            raise ValueError("the map is closed")
        assert where.stop - where.start == len(data)
        self._disk.store(self._inode, where.start, data)

    def words(self, offset: int, count: int) -> memoryview:
        words: Any = Words.of(self._disk, self._inode, offset, count)
        self._disk.words.append(words)
        return words  # type: ignore[no-any-return]

    def pages(self) -> bytearray:
        return self._disk.lend(self._inode, self._size)

    def close(self) -> None:
        self._disk.take_back(self._inode)
        self._size = 0


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
        #: The segments that the extension may store into, and the words of all maps.
        self._lent: dict[int, bytearray] = {}
        self.words: list[Words] = []
        self._taking = False
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
                if inode.pages[page] != _ZEROS:
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
        for start, end in _halves(0, len(data)):
            self._store("store", number, offset + start, data[start:end])

    def _store(self, call: str, number: int, offset: int, data: bytes) -> None:
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

    # ---- what the extension stores

    def lend(self, number: int, size: int) -> Any:
        """The memory of a segment, for the extension."""
        if not self.lends:
            return None
        inode = self.inodes[number]
        self._lent[number] = inode.memory = bytearray(inode.read(0, size))
        return inode.memory

    def take_back(self, number: int) -> None:
        """It is unmapped."""
        if number in self._lent:
            self.take_in()
            memory = self._lent.pop(number)
            assert self.dead or _difference(self.inodes[number], memory) < 0, (
                "the extension says nothing of what it stored"
            )
            self.inodes[number].memory = None

    def take_in(self) -> None:
        """Do on the disk what the extension has done to memory since the last call: of each frame the body, then the
        header, then the live page's words TAIL and NEXT; a stop may come in front of each, and within the first two."""
        if self._taking or not self._lent or all(each.tolist() == each.stored for each in self.words):
            return
        self._taking = True
        try:
            for number, memory in list(self._lent.items()):
                while (at := _difference(self.inodes[number], memory)) >= 0:
                    self._take_frame(number, memory, at & ~7)
            for words in self.words:
                assert words.tolist() == words.stored, f"words are {words.tolist()}, with the frames {words.stored}"
        finally:
            self._taking = False

    def _take_frame(self, number: int, memory: bytearray, at: int) -> None:
        raw = bytes(memory[at : at + frame.HEADER_SIZE])
        length, first, count = (int.from_bytes(raw[i:j], "little") for i, j in ((4, 8), (8, 16), (24, 28)))
        assert raw.startswith(layout.FRAME_MARKER), f"the extension has stored something at {at}, and no frame"
        body = at + frame.HEADER_SIZE
        for start, end in (*_halves(body, layout.align8(at + length)), *_halves(at, body)):
            self._store("store by C", number, start, bytes(memory[start:end]))
        words = next((each for each in self.words if each.tolist() != each.stored), None)
        assert words is not None, f"the extension has stored the frame at {at}, and says nothing of it"
        for index, value in ((TAIL, at), (NEXT, first + count)):
            self._store("store by C", words.inode, words.offset + 8 * index, value.to_bytes(8, "little"))
            words.stored[index] = value

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
        _apply(parent.names, naming)
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


def _halves(start: int, end: int) -> list[tuple[int, int]]:
    """A copying may be stopped in the middle."""
    half = start + ((end - start) // 2 & ~7)
    return [(start, half), (half, end)] if start < half and end - start > 8 else [(start, end)]


def _difference(inode: Inode, memory: bytearray) -> int:
    """The first offset at which a file and memory differ; -1: nowhere."""
    for start in range(0, len(memory), PAGE):
        kept, here = inode.pages.get(start // PAGE, _ZEROS), memory[start : start + PAGE]
        if here != kept[: len(here)]:
            return start + next(i for i, byte in enumerate(here) if byte != kept[i])
    return -1


def _nobody(call: str) -> None:
    del call


def _well(call: str) -> int:
    del call
    return 0
