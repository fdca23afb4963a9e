r"""Messages appended to a file of JSON lines: whole lines only, at least once.

- A batch is one write. If it fails or stops half way, the file is cut back to
  where it was; if that fails too, nothing more is written before it succeeds.
- What a kill left behind the last ``\n`` is cut off when the file is opened, with
  a warning: it was not acknowledged and comes again.
- One writer: the file is locked (flock) while it is open. Readers need no lock.
- A file that was moved away (log rotation) is let go, and made anew, before the
  next batch.

Threads: the sender's alone, ``close()`` excepted, which leaves the file to a
write that is still under way.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Mapping

from mbframework.errors import ProviderUnusable, SendFailed
from mbframework.message import Batch
from mbframework.plugins.occupancy import Occupancy
from mbframework.provider import Context, Health, Provider
from mbframework_file.line import BEGINNING, encode

_STEP = 1 << 16
#: Errors of open() that pass by themselves; all others need a person.
_PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EINTR})


class FileProvider(Provider):
    """One lane's file.

    :param path: the file; a relative one counts from the working directory of this moment. ``{lane}`` in it
        stands for the lane's name, since each lane needs a file of its own.
    :param fsync: sync each batch to the device before it counts as delivered. Without it a power loss may take
        delivered messages, a kill does not.
    """

    # The copy of the descriptor would keep the lock of the file after its owner has closed it.
    fork_safe = False

    def __init__(self, path: str | os.PathLike[str], *, fsync: bool = True) -> None:
        self.path = os.path.abspath(path)
        self.fsync = fsync
        self._descriptor: int | None = None
        self._context = Context(buffer_id="", lane="", run=b"")
        #: The length in bytes to cut back to, where a failed batch could not be taken back at once.
        self._cut_to: int | None = None
        self._occupancy = Occupancy(self._let_go, "file", "the file")

    def __repr__(self) -> str:
        return f"<FileProvider {self._name()}>"

    def open(self, context: Context) -> None:
        if "/" in context.lane and "{lane}" in self.path:
            raise ProviderUnusable(
                f"lane {context.lane!r} cannot be part of the file name {self.path!r}; rename the lane, or leave"
                " '{lane}' out",
                provider="file",
            )
        self._occupancy.open()
        with self._occupancy.held():
            self._context = context
            self._let_go()
            self._open()

    def send(self, batch: Batch) -> None:
        if not batch:
            return
        lines = encode(batch)
        with self._occupancy.held():
            self._reopen_if_moved()
            self._append(lines)

    def destination(self) -> str:
        # A file is where it is: another path is another destination. Its folder tells hosts nothing.
        return f"file:{self._name()}"

    def describe(self) -> Mapping[str, str]:
        return {"file": self._name(), "fsync": "each batch" if self.fsync else "off"}

    def check(self) -> Health:
        # Opening would make the file, and the lock would get in the way of a buffer that is running.
        name = self._name()
        try:
            found = os.lstat(name)
        except FileNotFoundError:
            folder = os.path.dirname(name)
            if os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK):
                return Health(True, f"{name} does not exist yet; it can be made")
            return Health(False, f"{name} does not exist; create {folder}, and let this user write there")
        except OSError as error:
            return Health(False, f"{name}: {error.strerror}")
        if not stat.S_ISREG(found.st_mode):
            return Health(False, f"{name} is not a regular file; give another path")
        if not os.access(name, os.R_OK | os.W_OK):
            return Health(False, f"{name} may not be read and written by this user")
        return Health(True, f"{name} can be appended to", {"bytes": str(found.st_size)})

    def close(self, timeout: float) -> None:
        # A write that hangs in the kernel keeps the descriptor; its thread lets go as it leaves.
        self._occupancy.close(timeout)

    def _name(self) -> str:
        return self.path.replace("{lane}", self._context.lane) if self._context.lane else self.path

    def _open(self) -> None:
        """Open, lock, and cut off a torn end. The caller holds it."""
        name = self._name()
        # Not through a symbolic link, which somebody else may have put there; and a pipe must not block.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            descriptor = os.open(name, flags, 0o666)
        except OSError as error:
            raise self._cannot_open(error) from error
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ProviderUnusable(f"{name} is not a regular file; give another path", provider="file")
            self._lock(descriptor)
            self._mend(descriptor)
            if self.fsync:
                os.fsync(descriptor)
                _sync_folder(name)
        except OSError as error:
            os.close(descriptor)
            raise SendFailed(f"{name}: {error.strerror} while it was opened", provider="file") from error
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self._cut_to = None

    def _cannot_open(self, error: OSError) -> SendFailed | ProviderUnusable:
        name = self._name()
        if error.errno in _PASSING:
            return SendFailed(f"{name} cannot be opened: {error.strerror}", provider="file")
        if error.errno == errno.ELOOP:
            return ProviderUnusable(f"{name} is a symbolic link; give the path that it stands for", provider="file")
        return ProviderUnusable(
            f"{name} cannot be opened: {error.strerror}; create its folder, and let this user read and write there",
            provider="file",
        )

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SendFailed(
                f"{self._name()} is being written by another process or lane; give each lane a file of its own,"
                " with '{lane}' in the path",
                provider="file",
            ) from error

    def _mend(self, descriptor: int) -> None:
        """Cut off a last line that has no end. What does not look like ours is never cut."""
        size = os.fstat(descriptor).st_size
        start = _start_of_torn_line(descriptor, size)
        if start == size:
            return
        beginning = os.pread(descriptor, len(BEGINNING), start)
        # After a power loss the file may have grown without its bytes.
        if not BEGINNING.startswith(beginning) and beginning.strip(b"\0"):
            raise ProviderUnusable(
                f"{self._name()} ends in a line that this provider did not write; end that line, or give another path",
                provider="file",
            )
        os.ftruncate(descriptor, start)
        self._context.logger.warning(
            "%s: cut off %d bytes of a line that was not finished; the message is sent again",
            self._name(),
            size - start,
        )

    def _reopen_if_moved(self) -> None:
        if self._descriptor is not None and not _stands_at(self._descriptor, self._name()):
            self._context.logger.info("%s was moved away: it is made anew", self._name())
            self._let_go()
        if self._descriptor is None:
            self._open()

    def _append(self, lines: bytes) -> None:
        descriptor = self._descriptor
        assert descriptor is not None
        name = self._name()
        try:
            if self._cut_to is not None:
                os.ftruncate(descriptor, self._cut_to)
                self._cut_to = None
            self._cut_to = os.fstat(descriptor).st_size
            _write(descriptor, lines)
            if self.fsync:
                os.fdatasync(descriptor)
        except OSError as error:
            outcome = self._take_back(descriptor)
            raise SendFailed(
                f"{name}: {error.strerror}; {outcome}", uncertain=self._cut_to is not None, provider="file"
            ) from error
        self._cut_to = None

    def _take_back(self, descriptor: int) -> str:
        """Undo a failed batch, so that only whole lines, and each once, are there."""
        try:
            if self._cut_to is not None:
                os.ftruncate(descriptor, self._cut_to)
        except OSError as error:
            return f"its end, from byte {self._cut_to} on, could not be cut off ({error.strerror}): that comes first"
        self._cut_to = None
        return "it is as it was before this batch; make room or mend its device"

    def _let_go(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _write(descriptor: int, content: bytes) -> None:
    """All of it: the kernel may take less at a time, and says why only when asked again."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _start_of_torn_line(descriptor: int, size: int) -> int:
    """Where the bytes after the last newline begin; ``size`` where there are none."""
    end = size
    while end > 0:
        start = max(0, end - _STEP)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _stands_at(descriptor: int, name: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(name))
    except FileNotFoundError:
        return False


def _sync_folder(name: str) -> None:
    """Make the entry of a new file as durable as its lines."""
    folder = os.open(os.path.dirname(name), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
