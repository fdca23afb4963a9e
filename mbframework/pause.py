"""A pause that was asked for from outside: it belongs to the lane, not to the process, and outlives it.

Promises: the file ``paused`` in the lane's directory is there, and on the device, from when a pause was answered until
somebody resumes. Its content is for people and never trusted. Owned by the holder of the lane's sender.lock.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from mbframework.files import Files

FILE: Final = "paused"
_MOST = 4096


@dataclass(frozen=True, slots=True)
class Pause:
    """Who asked for it and when, as far as the file tells: seconds since 1970, and -1 for an unknown user."""

    at: float = 0.0
    uid: int = -1

    @property
    def words(self) -> str:
        """For the reason of a state."""
        by = f" by user {self.uid}" if self.uid >= 0 else ""
        since = f" at {datetime.fromtimestamp(self.at, UTC):%Y-%m-%d %H:%M:%S} UTC" if self.at else ""
        return f"paused on request{by}{since}: mb resume ends it"


def read(files: Files, lane_path: str) -> Pause | None:
    """The lane's pause, or None; what cannot be read is one all the same."""
    path = os.path.join(lane_path, FILE)
    try:
        fd = files.open(path, write=False)
    except FileNotFoundError:
        return None
    except OSError:
        return Pause()
    try:
        facts = json.loads(files.pread(fd, _MOST, 0))
        at, uid = facts["at"], facts["uid"]
        sane = type(uid) is int and type(at) in (int, float) and 0 <= at < 1 << 35
        return Pause(float(at), uid) if sane else Pause()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Pause()
    finally:
        files.close(fd)


def store(files: Files, lane_path: str, uid: int) -> None:
    """Raises OSError."""
    path = os.path.join(lane_path, FILE)
    fd = files.open(path, create=True)
    try:
        data = json.dumps({"at": files.wall_ns() / 1e9, "uid": uid}).encode()
        files.truncate(fd, 0)
        files.pwrite(fd, data, 0)
        files.datasync(fd)
    finally:
        files.close(fd)
    files.sync_directory(lane_path)


def lift(files: Files, lane_path: str) -> bool:
    """Whether there was one. Raises OSError."""
    with suppress(FileNotFoundError):
        files.unlink(os.path.join(lane_path, FILE))
        files.sync_directory(lane_path)
        return True
    return False
