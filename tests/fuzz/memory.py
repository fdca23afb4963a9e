"""A directory in memory behind the engine's file-system seam, which counts what is asked of it.

Promises: nothing touches a real disk. Each call and each byte read is paid for out of a budget that follows from the
sizes of the files; who has spent it is :class:`Hang`, so that an endless loop ends after the same step every time.
Clocks, ids and the boot are fixed. One thread.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field

from mbframework.files import Files

BOOT = b"B" * 16
NOW_NS = 10**15
WALL_NS = 1_700_000_000 * 10**9
LANE = "/buffer/main"
#: Not descriptors of this process, so that a call that goes past the seam fails.
_FIRST_FD = 1 << 24
#: A reader looks through windows of a MiB, a few times; calls do not grow with bytes, but for small frames.
_CALLS, _CALLS_PER_FILE, _CALLS_PER_BYTE = 400, 200, 1 / 8
_READS, _READS_PER_BYTE = 1 << 20, 400


class Hang(Exception):
    """More was asked of the disk than any look at files of these sizes needs."""


@dataclass(eq=False)
class Inode:
    """A file: its number, its bytes, and how many names lead to it."""

    number: int
    data: bytearray
    links: int = 1
    mode: int = stat.S_IFREG | 0o600
    names: set[str] = field(default_factory=set)


class MemoryFiles(Files):
    """``content``: path below LANE → bytes."""

    def __init__(self, content: dict[str, bytes], boot: bytes = BOOT) -> None:
        self._boot = boot
        self._count = 0
        self.inodes: dict[str, Inode] = {}
        self.directories = {"/", "/buffer", LANE}
        for name, data in content.items():
            self._make(f"{LANE}/{name}", data)
        self._open: dict[int, Inode] = {}
        self._next_fd = _FIRST_FD
        self._seed = 0
        size = sum(map(len, content.values()))
        self._calls_left = int(_CALLS + _CALLS_PER_FILE * len(content) + _CALLS_PER_BYTE * size)
        self._bytes_left = _READS + _READS_PER_BYTE * size

    @property
    def open_descriptors(self) -> int:
        return len(self._open)

    def content(self) -> dict[str, bytes]:
        """What the files hold now, by their paths below LANE."""
        return {os.path.relpath(path, LANE): bytes(inode.data) for path, inode in self.inodes.items()}

    def _make(self, path: str, data: bytes = b"") -> Inode:
        self._count += 1
        parent = os.path.dirname(path)
        while parent not in self.directories:
            self.directories.add(parent)
            parent = os.path.dirname(parent)
        inode = self.inodes[path] = Inode(self._count, bytearray(data))
        return inode

    def _pay(self, size: int = 0) -> None:
        self._calls_left -= 1
        self._bytes_left -= size
        if self._calls_left < 0:
            raise Hang("too many calls")
        if self._bytes_left < 0:
            raise Hang("too many bytes read")

    def _find(self, path: str) -> Inode:
        self._pay()
        inode = self.inodes.get(path)
        if inode is None:
            number = errno.EISDIR if path in self.directories else errno.ENOENT
            raise OSError(number, os.strerror(number), path)
        return inode

    # ---- names

    def open(self, path: str, *, create: bool = False, exclusive: bool = False, write: bool = True) -> int:
        if create and exclusive and path in self.inodes:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        if create and path not in self.inodes:
            self._make(path)
        inode = self._find(path)
        self._next_fd += 1
        self._open[self._next_fd] = inode
        return self._next_fd

    def close(self, fd: int) -> None:
        del self._open[fd]

    def duplicate(self, fd: int) -> int:
        self._next_fd += 1
        self._open[self._next_fd] = self._open[fd]
        return self._next_fd

    def rename(self, source: str, target: str) -> None:
        inode = self._find(source)
        if target in self.inodes:
            raise FileExistsError(errno.EEXIST, "the name is taken", target)
        del self.inodes[source]
        self.inodes[target] = inode

    def replace(self, path: str, data: bytes, mode: int = 0o600) -> None:
        self._pay()
        self._make(path, data)

    def unlink(self, path: str) -> None:
        self._find(path).links -= 1
        del self.inodes[path]

    def list(self, path: str) -> list[str]:
        self._pay()
        if path not in self.directories:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        start = path.rstrip("/") + "/"
        size = len(start)
        names = [each[size:] for each in (*self.inodes, *self.directories) if each.startswith(start)]
        return [name for name in names if name and "/" not in name]

    def make_directory(self, path: str, mode: int) -> None:
        self._pay()
        if path in self.directories:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        self.directories.add(path)

    def exists(self, path: str) -> bool:
        return path in self.inodes or path in self.directories

    def stat(self, path: str) -> os.stat_result:
        if path in self.directories:
            return _info(0, stat.S_IFDIR | 0o700, 2, 0)
        return self._info(self._find(path))

    # ---- open files

    def fstat(self, fd: int) -> os.stat_result:
        self._pay()
        return self._info(self._open[fd])

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        if size < 0 or not 0 <= offset < 1 << 63:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        data = bytes(memoryview(self._open[fd].data)[offset : offset + size])
        self._pay(len(data))
        return data

    def pwrite(self, fd: int, data: bytes, offset: int) -> None:
        self._pay()
        target = self._open[fd].data
        if offset > len(target):
            if offset > len(target) + (64 << 20):
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
            target.extend(bytes(offset - len(target)))
        target[offset : offset + len(data)] = data

    def truncate(self, fd: int, size: int) -> None:
        self._pay()
        target = self._open[fd].data
        del target[size:]
        target.extend(bytes(size - len(target)))

    def reserve(self, fd: int, size: int) -> None:
        self._pay()
        target = self._open[fd].data
        target.extend(bytes(max(0, size - len(target))))

    def datasync(self, fd: int) -> None:
        self._pay()

    def sync_directory(self, path: str) -> None:
        self._pay()

    def lock(self, fd: int) -> bool:
        return True

    def is_at(self, fd: int, path: str) -> bool:
        return self.inodes.get(path) is self._open[fd]

    # ---- the machine

    def free_bytes(self, path: str) -> int:
        return 1 << 40

    def boot_ns(self) -> int:
        return NOW_NS

    def wall_ns(self) -> int:
        return WALL_NS

    def boot_id(self) -> bytes:
        return self._boot

    def process_exists(self, pid: int) -> bool:
        return pid == 1

    def random(self, size: int) -> bytes:
        self._seed += 1
        return self._seed.to_bytes(size, "little")

    def _info(self, inode: Inode) -> os.stat_result:
        return _info(inode.number, inode.mode, inode.links, len(inode.data))


def _info(number: int, mode: int, links: int, size: int) -> os.stat_result:
    at = WALL_NS // 10**9
    return os.stat_result((mode, number, 1, links, 0, 0, size, at, at, at), {"st_mtime_ns": WALL_NS})
