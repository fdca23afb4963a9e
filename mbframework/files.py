"""The one module that calls the operating system on behalf of a buffer.

Promises
--------
- Every call that can fail, be cut short or be lost by a power failure goes through a :class:`Files`
  object, so that a test can stop, fail or forget any of them.
- Files are opened without following links and are closed on exec. What is no regular file is refused, and never
  waited for or touched; the error says what stands there. A file with two names is not written to. A write is whole
  or raises.
- A rename never replaces a file, except in :meth:`Files.replace`, which is for narration (status) only.
- Only ENOSPC and EDQUOT mean *full*; EROFS and EIO mean *broken*. Nothing else is guessed from an errno.
- Under a directory that is anchored (:meth:`Files.anchor`) nothing is made, moved, removed or opened for writing while
  another one stands in its place.

Thread-safe: the object keeps no state but the anchors.
"""

from __future__ import annotations

import errno
import functools
import mmap
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final, Self

try:
    import fcntl
except ImportError as error:
    raise ImportError(
        "mbframework needs flock(), which this platform lacks; it runs on Linux, on macOS, and on Windows inside WSL"
    ) from error

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
BROKEN: Final = frozenset({errno.EROFS, errno.EIO})
#: File systems on which a store into a shared map is known to reach every reader.
MAPPABLE: Final = frozenset({"ext4", "xfs", "tmpfs"})
#: File systems on which neither flock nor a rename can be trusted between hosts.
NETWORK: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "glusterfs"})

#: Not waiting: a pipe without another end would hold up whoever opens it. Regular files know no waiting.
_BASE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_FILL = bytes(256 * 1024)
#: How far above a file its anchored directory may be.
_LEVELS: Final = 3
#: What opening says of a link, of a directory, and of a pipe, socket or device.
_NO_FILE: Final = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EINVAL})
_KINDS: Final = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
#: How /proc writes blanks, tabs, newlines and backslashes in names.
_OCTAL: Final = re.compile(rb"\\([0-7]{3})")


def is_full(error: OSError) -> bool:
    """True where the error says that the device, or the quota, has no room left."""
    return error.errno in FULL


def is_broken(error: OSError) -> bool:
    """True where the error says that the device is failing or has gone read-only."""
    return error.errno in BROKEN


def place_of(found: os.stat_result) -> tuple[int, int]:
    """What tells a directory from another one of the same name."""
    return found.st_dev, found.st_ino


def hidden(directory: str) -> OSError:
    """What is raised where another directory stands in the place of this one."""
    return OSError(errno.ESTALE, "another directory stands where the buffer's was; put it back", directory)


def kind_of(mode: int) -> str:
    """In words, what stands where a regular file was expected; ``mode`` as in :class:`os.stat_result`."""
    return _KINDS.get(stat.S_IFMT(mode), "something else")


class Map:
    """A writable shared map of a whole file: bytes are stored with a slice assignment."""

    __slots__ = ("_map", "store")

    def __init__(self, fd: int, size: int) -> None:
        self._map = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        #: ``store(slice(start, end), data)``: bound once, because it runs for every message.
        self.store: Callable[[slice, bytes], None] = self._map.__setitem__

    def words(self, offset: int, count: int) -> memoryview:
        """``count`` aligned unsigned 64-bit words at ``offset``, in the host's byte order."""
        return memoryview(self._map)[offset : offset + 8 * count].cast("Q")

    def pages(self) -> memoryview | bytearray:
        """Its memory, for the extension to store into: what stands there is in the file."""
        return memoryview(self._map)

    def close(self) -> None:
        """Unmap. A map whose words are still in use stays until they are gone."""
        try:
            self._map.close()
        except BufferError:
            # A memoryview of the words is alive (another thread's status call): the collector unmaps later.
            return


class Files:
    """The calls themselves. All raise OSError."""

    #: Device and inode of anchored directories, by path, and for each by who has anchored it.
    _anchors: dict[str, dict[object, tuple[int, int]]]

    def __new__(cls, *_args: object, **_options: object) -> Self:
        """Here, since a subclass need not call ``__init__``."""
        made = super().__new__(cls)
        made._anchors = {}
        return made

    def anchor(self, path: str, owner: object) -> None:
        """From now on, until its owner calls :meth:`weigh`, whatever would change something below the directory
        ``path`` by a name raises OSError (ESTALE) while another directory stands there: a volume may be mounted over
        it, or anew."""
        self._anchors.setdefault(path, {})[owner] = place_of(self.stat(path))

    def weigh(self, path: str, owner: object) -> None:
        """Forget an anchor, if there is one."""
        self._anchors.get(path, {}).pop(owner, None)

    def _demand_place(self, path: str) -> None:
        directory = path
        for _ in range(_LEVELS if self._anchors else 0):
            directory = os.path.dirname(directory)
            places = list(self._anchors.get(directory, {}).values())
            if places and places.count(place_of(os.lstat(directory))) < len(places):
                raise hidden(directory)

    def open(self, path: str, *, create: bool = False, exclusive: bool = False, write: bool = True) -> int:
        """A descriptor of a regular file; ``create`` makes it with mode 0600."""
        if write:
            self._demand_place(path)
        flags = _BASE | (os.O_RDWR if write else os.O_RDONLY)
        if create:
            flags |= os.O_CREAT
        if exclusive:
            flags |= os.O_EXCL
        return _open_regular(path, flags, 0o600)

    def close(self, fd: int) -> None:
        """Give the descriptor back."""
        os.close(fd)

    def duplicate(self, fd: int) -> int:
        """A second descriptor of the same open file, so that its owner may close the first."""
        return os.dup(fd)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        """Up to ``size`` bytes; fewer only at the end of the file."""
        data = os.pread(fd, size, offset)
        if len(data) in (size, 0):
            return data
        parts = [data]
        got = len(data)
        while got < size:
            data = os.pread(fd, size - got, offset + got)
            if not data:
                break
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def pwrite(self, fd: int, data: bytes, offset: int) -> None:
        """Write all of ``data``; a short write is continued."""
        done = os.pwrite(fd, data, offset)
        while done < len(data):
            done += os.pwrite(fd, data[done:], offset + done)

    def append(self, fd: int, data: bytes) -> None:
        """Write all of ``data`` at the end of the file."""
        self.pwrite(fd, data, os.fstat(fd).st_size)

    def truncate(self, fd: int, size: int) -> None:
        """Cut or extend to ``size`` bytes."""
        os.ftruncate(fd, size)

    def reserve(self, fd: int, size: int) -> None:
        """Make sure that ``size`` bytes can be stored later without meeting a full disk."""
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(fd, 0, size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                    raise
            else:
                return
        for offset in range(0, size, len(_FILL)):
            self.pwrite(fd, _FILL[: size - offset], offset)

    def fill(self, fd: int, start: int, end: int) -> None:
        """Write zeros, so that the first store into each page does not pay for the page."""
        self.pwrite(fd, _FILL[: end - start], start)

    def datasync(self, fd: int) -> None:
        """Everything written to the file so far is on the device."""
        if sys.platform == "darwin":
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(fd)

    def sync_directory(self, path: str) -> None:
        """Every name made, moved or removed in the directory so far is on the device."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, source: str, target: str) -> None:
        """Move within one directory; FileExistsError where the name is taken."""
        self._demand_place(target)
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "the name is taken", target)
        os.rename(source, target)

    def link(self, source: str, target: str) -> None:
        """Give a file a second name; FileExistsError where that is taken."""
        self._demand_place(target)
        os.link(source, target)

    def replace(self, path: str, data: bytes, mode: int = 0o600) -> None:
        """Swap a small file's content: readers see the old or the new, whole. Not synced."""
        self._demand_place(path)
        temporary = f"{path}.tmp"
        fd = _open_regular(temporary, _BASE | os.O_WRONLY | os.O_CREAT, mode)
        try:
            os.ftruncate(fd, 0)
            self.pwrite(fd, data, 0)
        finally:
            os.close(fd)
        os.replace(temporary, path)

    def unlink(self, path: str) -> None:
        """Remove a name."""
        self._demand_place(path)
        os.unlink(path)

    def list(self, path: str) -> list[str]:
        """The names in a directory, in no order."""
        return os.listdir(path)

    def make_directory(self, path: str, mode: int) -> None:
        """Make one directory with exactly this mode; FileExistsError where it is."""
        self._demand_place(path)
        os.mkdir(path, mode)
        os.chmod(path, mode)

    def exists(self, path: str) -> bool:
        """Whether anything stands under the name, a dead link included; False where that cannot be told."""
        return os.path.lexists(path)

    def stat(self, path: str) -> os.stat_result:
        """About the name itself; a link is not followed."""
        return os.lstat(path)

    def fstat(self, fd: int) -> os.stat_result:
        """About an open file."""
        return os.fstat(fd)

    def is_at(self, fd: int, path: str) -> bool:
        """Whether the name leads to the open file, and not to one that has taken its place."""
        try:
            return os.path.samestat(self.stat(path), self.fstat(fd))
        except FileNotFoundError:
            return False

    def lock(self, fd: int) -> bool:
        """Take the exclusive lock of an open file description; False where another holds it."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def map(self, fd: int, size: int) -> Map:
        """A shared, writable map of the first ``size`` bytes."""
        return Map(fd, size)

    def free_bytes(self, path: str) -> int:
        """Bytes that an unprivileged user may still write on the device."""
        info = os.statvfs(path)
        return info.f_bavail * info.f_frsize

    def file_system(self, path: str) -> str:
        """The type of the file system under ``path``, such as "ext4"; "" where that cannot be told."""
        try:
            with open("/proc/self/mountinfo", "rb") as lines:
                mounts = [[os.fsdecode(field) for field in line.split()] for line in lines]
        except OSError:
            return ""
        real = os.path.realpath(path)
        best, kind = "", ""
        for fields in mounts:
            point = os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8)]), os.fsencode(fields[4])))
            inside = point == "/" or real == point or real.startswith(point + "/")
            if inside and len(point) >= len(best):
                best, kind = point, fields[fields.index("-") + 1]
        return kind

    # Clocks and identity

    def boot_ns(self) -> int:
        """Nanoseconds since the machine started, sleep included; never set back within a boot."""
        return time.clock_gettime_ns(_BOOT_CLOCK)

    def wall_ns(self) -> int:
        """Nanoseconds since 1970, UTC, as the machine believes."""
        return time.time_ns()

    def pause(self, seconds: float) -> None:
        """Let time pass, for who waits for a device."""
        time.sleep(seconds)

    def boot_id(self) -> bytes:
        """16 bytes that are the same until the machine restarts."""
        return _boot_id()

    def process_exists(self, pid: int) -> bool:
        """Whether a process of that number runs."""
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except PermissionError:
            return True
        return True

    def random(self, size: int) -> bytes:
        """Random bytes for ids and salts."""
        return os.urandom(size)


def _open_regular(path: str, flags: int, mode: int) -> int:
    try:
        fd = os.open(path, flags, mode)
    except OSError as error:
        if error.errno == errno.EACCES:
            why = f"user {os.geteuid()} may not open {os.path.basename(path)!r}; run as its owner, with mode 0600"
            raise PermissionError(error.errno, why, path) from None
        if error.errno in _NO_FILE and not stat.S_ISREG(found := os.lstat(path).st_mode):
            raise _no_file(error.errno or 0, path, found) from None
        raise
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode):
        os.close(fd)
        raise _no_file(errno.EINVAL, path, info.st_mode)
    if info.st_nlink > 1 and flags & (os.O_RDWR | os.O_WRONLY):
        os.close(fd)
        name = os.path.basename(path)
        why = f"{name!r} has another name (a hard link), where it would change too; put a copy in its place"
        raise OSError(errno.EMLINK, why, path)
    return fd


def _no_file(number: int, path: str, mode: int) -> OSError:
    kind, name = kind_of(mode), os.path.basename(path)
    return OSError(number, f"{kind}, not a regular file, stands there as {name!r}; put the file in its place", path)


@functools.cache
def _boot_id() -> bytes:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            text = file.read()
    except OSError:
        try:
            # What macOS has in its place.
            command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
            text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout  # noqa: S603
        except (OSError, subprocess.SubprocessError):
            text = ""
    digits = text.strip().replace("-", "")
    # Without a boot id, every process counts as one of another boot: slower, never wrong.
    return bytes.fromhex(digits) if re.fullmatch("[0-9a-fA-F]{32}", digits) else os.urandom(16)


_BOOT_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
