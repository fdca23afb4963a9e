"""The locks of a lane: one for its writer, one for its sender.

Promises: a lock is held by an open file, so that the end of its process frees it, however it ended. The text inside
(host, boot, pid, since when) is for people and never trusted. A lock file is never removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from typing import Any

from mbframework.files import Files
from mbframework.spool import layout

_POLL = 0.02
#: Device and inode of the locks that this process holds.
_held: set[tuple[int, int]] = set()


class LockFile:
    """A held lock; made by :meth:`take`."""

    def __init__(self, files: Files, path: str, fd: int) -> None:
        self._files = files
        self.path = path
        self._fd = fd
        self._key = _key(files.fstat(fd))
        _held.add(self._key)

    @classmethod
    def take(cls, files: Files, path: str, timeout: float, *, brief: bool = False) -> LockFile | None:
        """The lock, or None where another holds it for ``timeout`` seconds.

        A holder that is plainly alive is not waited for, unless it said that it would be ``brief``.

        :raises OSError: the file cannot be opened; that is never reported as a held lock.
        """
        deadline = files.boot_ns() + int(timeout * 1e9)
        waiting = threading.Event()
        while True:
            fd = files.open(path, create=True)
            try:
                if files.lock(fd) and files.is_at(fd, path):
                    lock = cls(files, path, fd)
                    fd = -1
                    lock._describe(brief=brief)
                    return lock
            finally:
                if fd >= 0:
                    files.close(fd)
            if files.boot_ns() >= deadline or _will_keep(files, path):
                return None
            waiting.wait(_POLL)

    def release(self) -> None:
        """Give the lock back."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            _held.discard(self._key)
            with contextlib.suppress(OSError):
                self._files.truncate(fd, 0)
            self._files.close(fd)

    def forget(self) -> None:
        """In a forked child: close the copy, which leaves the parent's lock alone."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            _held.discard(self._key)
            with contextlib.suppress(OSError):
                self._files.close(fd)

    def _describe(self, *, brief: bool) -> None:
        facts = {
            "host": socket.gethostname(),
            "boot": self._files.boot_id().hex(),
            "pid": os.getpid(),
            "since": self._files.wall_ns() / 1e9,
        }
        if brief:
            facts["brief"] = True
        # A full disk must not keep a lane from opening: the text is a courtesy.
        with contextlib.suppress(OSError):
            self._files.truncate(self._fd, 0)
            self._files.pwrite(self._fd, json.dumps(facts).encode(), 0)


def holder(files: Files, path: str) -> dict[str, Any]:
    """What a lock file says of its holder; empty where it says nothing."""
    try:
        fd = files.open(path, write=False)
    except OSError:
        return {}
    try:
        facts = json.loads(files.pread(fd, 4096, 0) or b"{}")
    except (OSError, ValueError, RecursionError):
        return {}
    finally:
        files.close(fd)
    return facts if isinstance(facts, dict) else {}


def describe(facts: dict[str, Any]) -> str:
    """One phrase for a person."""
    if "pid" not in facts:
        return "another process"
    return f"process {facts['pid']!s:.20} on {facts.get('host', 'an unknown host')!s:.80}"


def holder_lives(files: Files, facts: dict[str, Any]) -> bool:
    """Whether the process that a lock file names runs on this machine, in this boot, and means to keep the lock."""
    pid = facts.get("pid")
    if facts.get("brief") or not isinstance(pid, int) or pid <= 0 or facts.get("boot") != files.boot_id().hex():
        return False
    return files.process_exists(pid)


def is_held(files: Files, path: str) -> bool:
    """Whether anybody holds the lock, by asking for it for a moment; monitors call this rarely."""
    try:
        # For reading: a monitor need not be allowed to write.
        fd = files.open(path, write=False)
    except OSError:
        return False
    try:
        return not files.lock(fd)
    finally:
        files.close(fd)


def has_writer(files: Files, lane_path: str) -> bool:
    """Whether a process has the lane open to write."""
    return is_held(files, os.path.join(lane_path, layout.WRITER_LOCK_FILE))


def _will_keep(files: Files, path: str) -> bool:
    """Whether whom the lock file names is alive and means to keep the lock."""
    facts = holder(files, path)
    if facts.get("pid") == os.getpid():
        # In a container a process is given the number of its killed predecessor: only what it holds itself counts.
        try:
            return _key(files.stat(path)) in _held and holder_lives(files, facts)
        except FileNotFoundError:
            return False
    return holder_lives(files, facts)


def _key(info: os.stat_result) -> tuple[int, int]:
    return info.st_dev, info.st_ino
