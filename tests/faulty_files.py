"""Operating systems that let a test down: one that stops or fails at the n-th call, one that loses its power.

Promises: everything that is not made to fail is done for real, in the directory of the test, but for syncs, which
here cost nothing. ``bury()`` closes what the code under test left open, since a process that dies does the same.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterable
from typing import Any

from mbframework.files import Files, Map

_PAGE = 4096


class Killed(BaseException):
    """The process ended here, as far as the code under test can tell."""


class FaultyFiles(Files):
    """Counts the calls that change something; at the n-th one it can stop the process or raise an error.

    After a stop every call raises Killed, so that no cleaning up takes place that a dead process could not do.
    """

    def __init__(self, boot: bytes = b"B" * 16) -> None:
        self.boot = boot
        self.calls = 0
        self.journal: list[str] = []
        self.dead = False
        self._stop_at = 0
        self._fail_at = 0
        self._fail_until = 0
        self._error: Callable[[str], OSError] = lambda name: OSError(0, name)
        self._only: tuple[str, ...] = ()
        self._open: set[int] = set()
        self._maps: list[Map] = []

    def stop_at(self, n: int) -> None:
        """Die in front of the ``n``-th changing call from now on."""
        self._stop_at = self.calls + n

    def fail_at(self, n: int, errno: int, *, times: int = 1, only: tuple[str, ...] = ()) -> None:
        """The ``n``-th changing call from now on (of these names only) fails, and ``times`` - 1 after it."""
        self._fail_at, self._fail_until, self._only = self.calls + n, self.calls + n + times, only
        if only:
            self._fail_at, self._fail_until = n, n + times
        self._error = lambda name: OSError(errno, os.strerror(errno), name)

    def heal(self) -> None:
        """Fail no more."""
        self._fail_at = self._fail_until = 0
        self._only = ()

    def bury(self) -> None:
        """Close everything that is still open."""
        for map_ in self._maps:
            map_.close()
        for fd in list(self._open):
            self._open.discard(fd)
            os.close(fd)

    def _alive(self) -> None:
        if self.dead:
            raise Killed

    def _before(self, name: str) -> None:
        self._alive()
        self.calls += 1
        self.journal.append(name)
        if self._stop_at and self.calls >= self._stop_at:
            self.dead = True
            raise Killed
        if self._only:
            if name not in self._only:
                return
            self._fail_at -= 1
            self._fail_until -= 1
            if self._fail_at <= 0 < self._fail_until:
                raise self._error(name)
        elif self._fail_at and self._fail_at <= self.calls < self._fail_until:
            raise self._error(name)

    # What changes something

    def open(self, path: str, *, create: bool = False, exclusive: bool = False, write: bool = True) -> int:
        if create and not os.path.lexists(path):
            self._before("create")
        self._alive()
        fd = super().open(path, create=create, exclusive=exclusive, write=write)
        self._open.add(fd)
        return fd

    def duplicate(self, fd: int) -> int:
        self._alive()
        copy = super().duplicate(fd)
        self._open.add(copy)
        return copy

    def close(self, fd: int) -> None:
        if fd in self._open:
            self._open.discard(fd)
            super().close(fd)
        elif not self.dead:
            raise OSError(9, "closed twice, or never opened here", str(fd))

    def map(self, fd: int, size: int) -> Map:
        self._alive()
        map_ = super().map(fd, size)
        self._maps.append(map_)
        return map_

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        self._alive()
        return super().pread(fd, size, offset)

    def list(self, path: str) -> list[str]:
        self._alive()
        return super().list(path)

    def pwrite(self, fd: int, data: bytes, offset: int) -> None:
        self._before("pwrite")
        super().pwrite(fd, data, offset)

    def truncate(self, fd: int, size: int) -> None:
        self._before("truncate")
        super().truncate(fd, size)

    def reserve(self, fd: int, size: int) -> None:
        self._before("reserve")
        super().reserve(fd, size)

    def datasync(self, fd: int) -> None:
        self._before("datasync")
        os.fstat(fd)

    def sync_directory(self, path: str) -> None:
        self._before("sync_directory")

    def rename(self, source: str, target: str) -> None:
        self._before("rename")
        super().rename(source, target)

    def link(self, source: str, target: str) -> None:
        self._before("link")
        super().link(source, target)

    def unlink(self, path: str) -> None:
        self._before("unlink")
        super().unlink(path)

    def make_directory(self, path: str, mode: int) -> None:
        self._before("make_directory")
        super().make_directory(path, mode)

    def boot_id(self) -> bytes:
        return self.boot


class BadSectors(Files):
    """A device that does not give some pages of some files: always, or so many times. A store into a part of such a
    page fails as well, since the rest of it has to be read first; one of the whole page makes it good."""

    def __init__(self) -> None:
        self._refused: dict[tuple[int, int], int] = {}
        self._paths: dict[int, str] = {}
        #: Whether it fails as a whole: no sync either.
        self.gone = False
        self.refusals = 0
        self._passed = 0

    def refuse(self, path: str, pages: Iterable[int], times: int = 1 << 30) -> None:
        """Refuse to read these pages of a file the next ``times`` times."""
        inode = os.lstat(path).st_ino
        for page in pages:
            self._refused[inode, page] = times
            self._paths[inode] = path

    def overwrite(self) -> None:
        """Put zeros where it refuses, and refuse no more."""
        for inode, page in self._refused:
            with open(self._paths[inode], "r+b") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(page * _PAGE)
                file.write(bytes(max(0, min(_PAGE, size - page * _PAGE))))
        self._refused.clear()

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        inode = os.fstat(fd).st_ino
        for (of, page), times in self._refused.items():
            if of == inode and times and page * _PAGE < offset + size and offset < (page + 1) * _PAGE:
                self._refused[of, page] = times - 1
                self.refusals += 1
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().pread(fd, size, offset)

    def _change(self, fd: int, start: int, end: int) -> None:
        """What the pages that hold ``start`` to ``end`` go through, where they are on the device."""
        info = os.fstat(fd)
        for page in range(start // _PAGE, -(-end // _PAGE)):
            if not self._refused.get((info.st_ino, page)):
                continue
            if (start > page * _PAGE or end < min((page + 1) * _PAGE, info.st_size)) and page * _PAGE < info.st_size:
                self.refusals += 1
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            del self._refused[info.st_ino, page]

    def pwrite(self, fd: int, data: bytes, offset: int) -> None:
        self._change(fd, offset, offset + len(data))
        super().pwrite(fd, data, offset)

    def truncate(self, fd: int, size: int) -> None:
        if size % _PAGE:
            # The rest of the page is filled with zeros.
            self._change(fd, size, (size // _PAGE + 1) * _PAGE)
        inode = os.fstat(fd).st_ino
        super().truncate(fd, size)
        for of, page in list(self._refused):
            if of == inode and page * _PAGE >= size:
                del self._refused[of, page]

    def sync_directory(self, path: str) -> None:
        if self.gone:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        super().sync_directory(path)

    def pause(self, seconds: float) -> None:
        self.let_pass(seconds)

    def boot_ns(self) -> int:
        return super().boot_ns() + self._passed

    def let_pass(self, seconds: float) -> None:
        """Set the clock ahead."""
        self._passed += int(seconds * 1e9)


class FadingFiles(FaultyFiles):
    """One directory whose device forgets, when the power goes, what was not synced.

    A file keeps what its last sync saw; of the rest, any pages. The directory keeps what its last sync saw; of the
    later changes of names, the first few.
    """

    def __init__(self, boot: bytes = b"B" * 16) -> None:
        super().__init__(boot)
        self._held: dict[int, int] = {}
        self._content: dict[int, bytes] = {}
        self._names: dict[str, int] = {}
        self._pending: list[tuple[str, str, int]] = []

    def open(self, path: str, *, create: bool = False, exclusive: bool = False, write: bool = True) -> int:
        new = create and not os.path.lexists(path)
        fd = super().open(path, create=create, exclusive=exclusive, write=write)
        if new:
            inode = os.fstat(fd).st_ino
            # Kept open, so that its number is not given to another file.
            self._held[inode] = os.open(path, os.O_RDONLY)
            self._content[inode] = b""
            self._pending.append(("link", path, inode))
        return fd

    def datasync(self, fd: int) -> None:
        super().datasync(fd)
        inode = os.fstat(fd).st_ino
        self._content[inode] = self._now(inode)

    def rename(self, source: str, target: str) -> None:
        inode = os.lstat(source).st_ino
        super().rename(source, target)
        self._pending += [("unlink", source, inode), ("link", target, inode)]

    def link(self, source: str, target: str) -> None:
        super().link(source, target)
        self._pending.append(("link", target, os.lstat(target).st_ino))

    def unlink(self, path: str) -> None:
        super().unlink(path)
        self._pending.append(("unlink", path, 0))

    def sync_directory(self, path: str) -> None:
        super().sync_directory(path)
        self._apply(self._names, len(self._pending))
        self._pending.clear()

    def bury(self) -> None:
        super().bury()
        for fd in self._held.values():
            os.close(fd)
        self._held.clear()

    def lose_power(self, source: str, target: str, chance: random.Random) -> None:
        """Make in ``target`` what a machine that lost its power could find of ``source``."""
        names = dict(self._names)
        self._apply(names, chance.choice([0, len(self._pending), chance.randint(0, len(self._pending))]))
        os.mkdir(target)
        for path, inode in names.items():
            kept, now = self._content[inode], self._now(inode)
            with open(os.path.join(target, os.path.relpath(path, source)), "wb") as file:
                file.write(_mixed(kept, now, chance))

    def _apply(self, names: dict[str, int], steps: int) -> None:
        # Both halves of a rename, or neither.
        if steps < len(self._pending) and steps and self._pending[steps - 1][0] == "unlink" and self._pending[steps][2]:
            if self._pending[steps][0] == "link" and self._pending[steps - 1][2] == self._pending[steps][2]:
                steps += 1
        for kind, path, inode in self._pending[:steps]:
            if kind == "link":
                names[path] = inode
            else:
                names.pop(path, None)

    def _now(self, inode: int) -> bytes:
        fd = self._held[inode]
        return os.pread(fd, os.fstat(fd).st_size, 0)


def _mixed(kept: bytes, now: bytes, chance: random.Random) -> bytes:
    """A file of which ``kept`` is on the device and ``now`` was in memory."""
    size = chance.choice([len(kept), len(now)])
    survival = chance.choice([0.0, 0.5, 0.95, 1.0])
    pages = []
    for start in range(0, size, _PAGE):
        source = now if chance.random() < survival else kept
        pages.append(source[start : start + _PAGE].ljust(min(_PAGE, size - start), b"\0"))
    return b"".join(pages)


def calls_of(run: Callable[[FaultyFiles], Any]) -> int:
    """How many changing calls ``run`` makes when nothing fails."""
    files = FaultyFiles()
    try:
        run(files)
    finally:
        files.bury()
    return files.calls
