"""Where a repair keeps what it changes: ``DIR/.repair-<time>/``, under the same names.

Promises: what is kept is on the device before the call returns, but for the names, which are the caller's to sync. Its
name begins with a dot, so that no program takes it for a lane. One thread; all raise OSError.
"""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime

from mbframework.files import Files

_MIB = 1 << 20


class Shelf:
    """See the module; :meth:`make` makes it."""

    def __init__(self, files: Files, path: str, root: str) -> None:
        self.files = files
        self.path = path
        self._root = root

    @classmethod
    def make(cls, files: Files, root: str) -> Shelf:
        """An empty one for the buffer in ``root``."""
        stamp = datetime.fromtimestamp(files.wall_ns() / 1e9, UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        path = os.path.join(root, f".repair-{stamp}")
        files.make_directory(path, 0o700)
        files.sync_directory(root)
        return cls(files, path, root)

    def place(self, lane: str) -> str:
        """The directory for a lane's files, made where it is missing."""
        path = self.path
        for part in os.path.relpath(lane, self._root).split(os.sep):
            path = os.path.join(path, part)
            with suppress(FileExistsError):
                self.files.make_directory(path, 0o700)
        return path

    def link(self, lane: str, name: str) -> None:
        """Keep a file that will be replaced: by another name of it."""
        with suppress(FileExistsError):
            self.files.link(os.path.join(lane, name), os.path.join(self.place(lane), name))

    def copy(self, lane: str, name: str) -> None:
        """Keep a file that will be changed in place."""
        files = self.files
        try:
            source = files.open(os.path.join(lane, name), write=False)
        except FileNotFoundError:
            return
        try:
            target = files.open(os.path.join(self.place(lane), name), create=True, exclusive=True)
            try:
                size = files.fstat(source).st_size
                for start in range(0, size, _MIB):
                    block = files.pread(source, _MIB, start)
                    # Room that was only reserved takes none in the copy.
                    if any(block):
                        files.pwrite(target, block, start)
                files.truncate(target, size)
                files.datasync(target)
            finally:
                files.close(target)
        finally:
            files.close(source)
