"""Three slots in one small file: how head and seek survive a kill and a power loss.

Promises
--------
- A reader finds the newest slot that was written whole. After a power loss it finds one at least as new
  as the last successful sync, because the slot of that sync (D) and the one being synced (S) are never
  written: each write goes to the third (W).
- When a sync begins, W becomes S and the third slot becomes W; on success S becomes D.
- After a store or a sync that failed, the next sync stores the newest slot again before it trusts the device:
  Linux reports a page that it could not write once, and then takes it for clean.
- The file is made at its full size under a temporary name, synced and renamed, so that a full disk
  cannot stop a later write.
- A file of which the device refuses a page cannot be relied upon to take stores: :meth:`SlotFile.resume` makes it anew,
  from the newest slot, which no stop in between takes away.

Any thread may write and sync; a sync does not hold up a write.
"""

from __future__ import annotations

import os
import threading
from typing import Final

from mbframework.files import Files
from mbframework.spool.layout import SLOT_COUNT, SLOT_STRIDE
from mbframework.spool.remains import Remains

#: What follows the name of a file that is being made, or made anew.
NEW: Final = ".new"


class SlotFile:
    """The file behind a head or a seek. ``durable`` is the index of the slot that was read at opening."""

    def __init__(self, files: Files, fd: int, durable: int) -> None:
        self._files = files
        self.fd = fd
        self._lock = threading.Lock()
        self._sync_lock = threading.Lock()
        self._durable = durable
        self._written = (durable + 1) % SLOT_COUNT
        self._newest = b""
        self._dirty = False
        self._suspect = False

    @classmethod
    def create(cls, files: Files, path: str, size: int, first: bytes) -> SlotFile:
        """Make the file with its first slot, on the device before it has its name. What stands under the
        name already is put aside as ``NAME.damaged-N``: it was looked at and holds no valid slot."""
        names = set(files.list(os.path.dirname(path)))
        name = os.path.basename(path)
        temporary = f"{path}{NEW}"
        if f"{name}{NEW}" in names:
            files.unlink(temporary)
        fd = draft(files, path, first + bytes(size - len(first)))
        try:
            if name in names:
                number = next(n for n in range(len(names) + 1) if f"{name}.damaged-{n}" not in names)
                files.rename(path, f"{path}.damaged-{number}")
            files.rename(temporary, path)
            files.sync_directory(os.path.dirname(path))
        except BaseException:
            files.close(fd)
            raise
        return cls(files, fd, 0)

    @classmethod
    def open(cls, files: Files, path: str, durable: int) -> SlotFile:
        """The existing file, whose slot ``durable`` is the newest valid one; syncs it, so that it is."""
        fd = files.open(path)
        try:
            files.datasync(fd)
        except BaseException:
            files.close(fd)
            raise
        return cls(files, fd, durable)

    @classmethod
    def resume(cls, files: Files, path: str, durable: int, size: int, newest: bytes) -> SlotFile:
        """The same, whether or not the device gives all of the file's ``size`` bytes. ``newest`` is that slot, or one
        that follows it."""
        finish(files, path)
        slots = cls.open(files, path, durable)
        try:
            remains = Remains(files, os.path.dirname(path))
            remains.pread(slots.fd, size, 0)
            if remains.refused(slots.fd) is None:
                return slots
        except BaseException:
            slots.close()
            raise
        slots.close()
        return cls.create(files, path, size, newest)

    def write(self, raw: bytes) -> None:
        """Store a slot's bytes: visible to every reader, durable after the next sync."""
        with self._lock:
            self._newest, self._dirty = raw, True
            self._store()

    def _store(self) -> None:
        suspect, self._suspect = self._suspect, True
        self._files.pwrite(self.fd, self._newest, self._written * SLOT_STRIDE)
        self._suspect = suspect

    def sync(self) -> None:
        """Everything written before the call is on the device when it returns.

        :raises OSError: it is not known to be.
        """
        with self._sync_lock:
            with self._lock:
                if not self._dirty:
                    return
                if self._suspect:
                    self._store()
                frozen = self._written
                self._written = SLOT_COUNT - self._durable - frozen
                self._dirty = self._suspect = False
            try:
                self._files.datasync(self.fd)
            except BaseException:
                with self._lock:
                    # The frozen slot may or may not be on the device: it is the one to write next.
                    self._written = frozen
                    self._dirty = self._suspect = True
                raise
            with self._lock:
                self._durable = frozen

    def forget(self) -> None:
        """In a forked child: give the copy of the descriptor back, whatever the parent's threads were about."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            self._files.close(fd)

    def close(self) -> None:
        """Give the descriptor back."""
        with self._sync_lock, self._lock:
            # In this order: a fork in between must leave nothing that is closed twice.
            fd, self.fd = self.fd, -1
            if fd >= 0:
                self._files.close(fd)


def draft(files: Files, path: str, content: bytes) -> int:
    """A descriptor of a file that is whole on the device before it gets its name. Raises OSError."""
    fd = files.open(f"{path}{NEW}", create=True, exclusive=True)
    try:
        files.pwrite(fd, content, 0)
        files.datasync(fd)
    except BaseException:
        files.close(fd)
        raise
    return fd


def finish(files: Files, path: str) -> None:
    """Give a file that was made anew its name, where a kill came in between. Raises OSError."""
    if files.exists(f"{path}{NEW}") and not files.exists(path):
        files.rename(f"{path}{NEW}", path)
        files.sync_directory(os.path.dirname(path))
