"""The openings of a lane: one record each, on the device before the opening gives out a sequence.

A provider that keeps a position keeps the run with it; one that is not recorded here comes from another directory.
"""

from __future__ import annotations

import os

from mbframework.files import Files
from mbframework.spool.layout import RUN_RECORD, RUNS_FILE


class Runs:
    """The file ``runs`` of a lane. :meth:`add` needs the writer's lock; :meth:`knows` any thread."""

    def __init__(self, files: Files, directory: str) -> None:
        self._files = files
        self._path = os.path.join(directory, RUNS_FILE)

    def add(self, run: bytes, first: int) -> None:
        """Record an opening. Raises OSError."""
        fd = self._files.open(self._path, create=True)
        try:
            size = self._files.fstat(fd).st_size
            # A record that a power loss tore is overwritten.
            whole = size - size % RUN_RECORD.size
            self._files.pwrite(fd, RUN_RECORD.pack(run, first, self._files.wall_ns()), whole)
            self._files.datasync(fd)
        finally:
            self._files.close(fd)
        self._files.sync_directory(os.path.dirname(self._path))

    def knows(self, run: bytes) -> bool:
        """Whether ``run`` is an opening of this lane."""
        try:
            fd = self._files.open(self._path, write=False)
        except FileNotFoundError:
            return False
        try:
            size = self._files.fstat(fd).st_size
            raw = self._files.pread(fd, size - size % RUN_RECORD.size, 0)
        finally:
            self._files.close(fd)
        return any(RUN_RECORD.unpack_from(raw, at)[0] == run for at in range(0, len(raw), RUN_RECORD.size))
