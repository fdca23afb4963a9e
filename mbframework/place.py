"""Where a lane's directory stood when it was opened, and whether its name still leads there.

Promises
--------
- While a :class:`Place` is held, nothing is changed by a name under the directory unless it is the one that was opened.
- A directory that is away, or hidden by another one, is nothing final: when it is back, everything goes on. One that is
  the same buffer, and yet another directory (mounted anew from another device, or a copy), never becomes the one that
  this process has locked: that is a broken device to it, and the error says what to do.

Any thread.
"""

from __future__ import annotations

import errno
import os

from mbframework.errors import UnsupportedFormat
from mbframework.files import Files, hidden, is_broken, place_of
from mbframework.spool.survey import read_head


class Place:
    """See the module. ``buffer_id`` tells the buffer."""

    def __init__(self, files: Files, directory: str, buffer_id: bytes) -> None:
        self._files = files
        self._directory = directory
        self._buffer_id = buffer_id
        self._found = place_of(files.stat(directory))
        for each in (os.path.dirname(directory), directory):
            # That of the buffer as well: dead letters stand beside the lanes.
            files.anchor(each, self)

    def leave(self) -> None:
        """The directory may be opened anew, wherever it is."""
        for each in (os.path.dirname(self._directory), self._directory):
            self._files.weigh(each, self)

    def check(self) -> None:
        """:raises OSError: the directory is away (ENOENT), hidden by another one (ESTALE), or was replaced (EIO)."""
        if place_of(self._files.stat(self._directory)) == self._found:
            return
        if self._is_ours():
            raise OSError(
                errno.EIO,
                "the buffer was mounted anew, or a copy stands in its place, and this program has the files of the "
                "former one: end it, and start it again",
                self._directory,
            )
        raise hidden(self._directory)

    def check_device(self) -> None:
        """:meth:`check`, but for what may pass by itself."""
        try:
            self.check()
        except OSError as error:
            if is_broken(error):
                raise

    def _is_ours(self) -> bool:
        try:
            head = read_head(self._files, self._directory)
        except UnsupportedFormat:
            return False
        return head is not None and head.buffer_id == self._buffer_id
