"""A lane that no process sends, in the hands of a person: purged, paused, resumed.

Promises
--------
- What belongs to a lock is done with that lock held, so that no engine comes in between; nobody is waited for.
- What the last writer left unfinished is made good first, as an engine would.
- What was purged does not come back, whatever stops the machine afterwards.

One thread.
"""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import pairwise
from types import TracebackType
from typing import Self

from mbframework import lockfile
from mbframework import pause as pausing
from mbframework.errors import BufferLocked, UnsupportedFormat
from mbframework.events import EventLog
from mbframework.files import Files
from mbframework.ledger import Ledger
from mbframework.lockfile import LockFile
from mbframework.mending import mend
from mbframework.spool import layout
from mbframework.spool.survey import Survey, survey


class Orphan:
    """A lane whose two locks this object holds; a context manager. ``buffer_id`` as in ``buffer.json``.

    :raises BufferLocked: a process holds one of the locks; ``holder`` names it.
    :raises OSError: a lock cannot be opened.
    """

    def __init__(self, files: Files, lane_path: str, buffer_id: bytes) -> None:
        self._files = files
        self.path = lane_path
        self.name = os.path.basename(lane_path)
        self._buffer_id = buffer_id
        self._locks: list[LockFile] = []
        try:
            for name in (layout.WRITER_LOCK_FILE, layout.SENDER_LOCK_FILE):
                self._locks.append(take(files, lane_path, name))
        except BaseException:
            self.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Give the locks back."""
        for lock in self._locks:
            lock.release()
        self._locks.clear()

    def purge(self) -> int:
        """Remove everything that waits; how many messages, which are counted as purged.

        :raises UnsupportedFormat: a newer release wrote the lane; nothing was changed.
        :raises OSError: the device failed.
        """
        files = self._files
        mend(files, self.path, self._buffer_id)
        known = survey(files, self.path)
        if known.seek is None:
            return 0
        number = _count_purged(files, self.path, known)
        for found in known.segments:
            files.unlink(os.path.join(self.path, found.entry.name))
        files.sync_directory(self.path)
        note(files, self.path, layout.WRITER_EVENTS_FILE, "purge", f"purged {number}")
        return number


def purge_beside_writer(files: Files, lane_path: str) -> int:
    """Remove what is on disk of a lane that a process writes and none sends; how many messages, which are counted as
    purged. What that process has still in memory, and the last segment, stay.

    :raises BufferLocked: a process sends it.
    :raises UnsupportedFormat: a newer release wrote the lane; nothing was changed.
    :raises OSError: the device failed.
    """
    lock = take(files, lane_path, layout.SENDER_LOCK_FILE)
    try:
        known = survey(files, lane_path)
        if known.unsupported:
            raise UnsupportedFormat(known.unsupported, path=lane_path)
        if known.seek is None:
            # Its writer is only opening it: nothing waits there yet.
            return 0
        number = _count_purged(files, lane_path, known)
        for found, successor in pairwise(known.segments):
            if not found.entry.sealed or successor.header.first > known.spool_end:
                break
            # The writer may have made room meanwhile.
            with suppress(FileNotFoundError):
                files.unlink(os.path.join(lane_path, found.entry.name))
        files.sync_directory(lane_path)
        note(files, lane_path, layout.SENDER_EVENTS_FILE, "purge", f"purged {number}")
        return number
    finally:
        lock.release()


def _count_purged(files: Files, lane_path: str, known: Survey) -> int:
    """Move the seek behind all that a survey found, on the device too; how many messages that were."""
    if known.seek is None:
        raise AssertionError("only a lane with a seek is purged")
    ledger = Ledger.open(files, lane_path, known.seek, known.seek_slot, exists=True)
    try:
        if known.head is not None and known.head.floor > ledger.slot.floor_applied:
            # Whoever applies a floor makes sure that it is on the device first.
            fd = files.open(os.path.join(lane_path, layout.HEAD_FILE))
            try:
                files.datasync(fd)
            finally:
                files.close(fd)
            ledger.apply_floor(known.head.floor, known.head.floor_ordinal)
        before = ledger.slot.purged
        # What the spool once held beyond its end is for the next sender to find, and to count as lost.
        ledger.advance(max(known.spool_end, ledger.next), max(known.tail_ordinal, ledger.ordinal), "purged")
        ledger.sync()
        return ledger.slot.purged - before
    finally:
        ledger.close()


def pause(files: Files, lane_path: str) -> None:
    """Whoever sends the lane next is paused until somebody resumes.

    :raises BufferLocked: a process sends it.
    :raises OSError: the device failed.
    """
    lock = take(files, lane_path, layout.SENDER_LOCK_FILE)
    try:
        pausing.store(files, lane_path, os.geteuid())
        note(files, lane_path, layout.SENDER_EVENTS_FILE, "pause", "done")
    finally:
        lock.release()


def resume(files: Files, lane_path: str) -> bool:
    """Whether there was a pause to end. Raises as :func:`pause`."""
    lock = take(files, lane_path, layout.SENDER_LOCK_FILE)
    try:
        was = pausing.lift(files, lane_path)
        if was:
            note(files, lane_path, layout.SENDER_EVENTS_FILE, "resume", "done")
        return was
    finally:
        lock.release()


def take(files: Files, lane_path: str, name: str) -> LockFile:
    """One lock of a lane. Raises BufferLocked, OSError."""
    path = os.path.join(lane_path, name)
    lock = LockFile.take(files, path, 0.0, brief=True)
    if lock is None:
        who = lockfile.describe(lockfile.holder(files, path))
        lane = os.path.basename(lane_path)
        raise BufferLocked(f"lane {lane} is held by {who}: stop it first", path=lane_path, holder=who)
    return lock


def note(files: Files, lane_path: str, file: str, action: str, result: str) -> None:
    """A line ``control`` in an event file, whose lock is held."""
    log = EventLog(
        files, os.path.join(lane_path, file), directory=os.path.dirname(lane_path), lane=os.path.basename(lane_path)
    )
    with suppress(OSError):
        log.tell("control", action=action, uid=os.geteuid(), pid=os.getpid(), result=result)
        log.flush()
