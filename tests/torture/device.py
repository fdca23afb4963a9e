"""Small devices that really fill up, and one that really breaks.

Promises
--------
- :func:`tmpfs` and :func:`ext4` are file systems of their own, mounted below a folder and gone at the end. Full is full
  to the last byte; a file that fills it takes part in nothing else.
- :func:`obstacle` says why there is none here, and the command that helps. :class:`Pretended` stands in for a full one.
"""

from __future__ import annotations

import errno
import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mbframework.files import Files

_FILLER = "filler"
_PIECES = (1 << 16, 4096, 512, 1)


class DeviceError(Exception):
    """A device cannot be made; the text says why, and what helps."""


class Device:
    """A mounted file system at ``path``; ``kind`` and ``size`` for people."""

    def __init__(self, path: Path, kind: str, size: int) -> None:
        self.path, self.kind, self.size = path, kind, size
        #: How a buffer reaches it.
        self.files = Files()

    def __str__(self) -> str:
        return f"{self.kind} of {self.size >> 20} MiB"

    def fill(self, spare: int = 0) -> None:
        """Leave at most ``spare`` bytes free; what is freed later may be filled again."""
        fd = os.open(self.path / _FILLER, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            for piece in _PIECES:
                with suppress(OSError):
                    while not spare or self.free_bytes() - piece >= spare:
                        os.write(fd, bytes(piece))
        finally:
            os.close(fd)

    def free(self) -> None:
        """Give back what fills it."""
        (self.path / _FILLER).unlink(missing_ok=True)

    def free_bytes(self) -> int:
        """As an unprivileged user has them."""
        info = os.statvfs(self.path)
        return info.f_bavail * info.f_frsize


class BlockDevice(Device):
    """One with an image of its own, whose file system can find itself damaged."""

    def __init__(self, path: Path, size: int, image: Path) -> None:
        super().__init__(path, "ext4", size)
        self._image = image

    def turn_read_only(self) -> None:
        """As a file system does that finds an error: from now on nothing can be written, to open files neither."""
        source = _run("findmnt", "-no", "SOURCE", str(self.path)).strip()
        Path("/sys/fs/ext4", os.path.basename(source), "trigger_fs_error").write_text("torture")

    def mend(self) -> None:
        """Unmount, check, and mount again. Nobody may have a file open there."""
        _run("umount", str(self.path))
        # Exit status 1: errors were corrected, which is what it is there for.
        _run("e2fsck", "-fy", str(self._image), well=(0, 1))
        _run("mount", "-o", "loop,errors=remount-ro", str(self._image), str(self.path))


@functools.cache
def obstacle() -> str:
    """Why nothing can be mounted here; "" where it can."""
    if not sys.platform.startswith("linux"):
        return "small devices need Linux"
    try:
        with tempfile.TemporaryDirectory() as folder, tmpfs(Path(folder), 1 << 20):
            return ""
    except DeviceError as error:
        return f"{error}; run as root, or under: unshare --user --map-root-user --mount"


@contextmanager
def tmpfs(folder: Path, size: int) -> Iterator[Device]:
    """A device in memory, mounted at ``folder``. Raises DeviceError."""
    _run("mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(folder))
    try:
        yield Device(folder, "tmpfs", size)
    finally:
        _unmount(folder)


@contextmanager
def ext4(folder: Path, image: Path, size: int) -> Iterator[BlockDevice]:
    """A device in the file ``image``, mounted at ``folder``. Raises DeviceError."""
    with image.open("wb") as file:
        file.truncate(size)
    _run("mkfs.ext4", "-q", "-m", "0", str(image))
    _run("mount", "-o", "loop,errors=remount-ro", str(image), str(folder))
    try:
        yield BlockDevice(folder, size, image)
    finally:
        _unmount(folder)


def _unmount(folder: Path) -> None:
    # Lazily: a test that failed may have left files open.
    _run("umount", "--lazy", str(folder))


def _run(*command: str, well: tuple[int, ...] = (0,)) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise DeviceError(f"no command {error.filename!r}") from None
    if done.returncode not in well:
        raise DeviceError(f"{' '.join(command[:3])}: {done.stderr.strip() or done.returncode}")
    return done.stdout


class _Bounded(Files):
    """Has ``room`` bytes left for new files and for what is reserved; None: as many as there are."""

    def __init__(self) -> None:
        self.room: int | None = None

    def _take(self, size: int, path: str = "") -> None:
        if self.room is None:
            return
        if size > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        self.room -= size

    def open(self, path: str, *, create: bool = False, exclusive: bool = False, write: bool = True) -> int:
        if create and not os.path.lexists(path):
            self._take(1, path)
        return super().open(path, create=create, exclusive=exclusive, write=write)

    def reserve(self, fd: int, size: int) -> None:
        self._take(size)
        super().reserve(fd, size)

    def append(self, fd: int, data: bytes) -> None:
        self._take(len(data))
        super().append(fd, data)

    def replace(self, path: str, data: bytes, mode: int = 0o600) -> None:
        self._take(len(data), path)
        super().replace(path, data, mode)

    def unlink(self, path: str) -> None:
        if self.room is not None:
            self.room += os.lstat(path).st_size
        super().unlink(path)

    def free_bytes(self, path: str) -> int:
        return super().free_bytes(path) if self.room is None else self.room


class Pretended(Device):
    """A device only for who goes through its ``files``, where nothing can be mounted: ``why``."""

    def __init__(self, path: Path, size: int, why: str) -> None:
        super().__init__(path, f"the file-system seam ({why})", size)
        self.bounded = self.files = _Bounded()

    def fill(self, spare: int = 0) -> None:
        self.bounded.room = spare

    def free(self) -> None:
        self.bounded.room = None
