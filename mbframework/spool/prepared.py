"""A segment's file before it is one: reserved, named by its salt, filled with zeros in the background.

Promises
--------
- What is reserved can be stored to without meeting a full disk; a device without room is :class:`NoSpace`, and nothing
  is left behind.
- The filler never writes where a frame may stand: it stops before the file is used, and the chunk that was in flight
  bounds the use.

Threads: :meth:`Prepared.fill` is the housekeeper's; everything else runs under the lane's lock.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from mbframework.files import Files, Map, is_full
from mbframework.spool import layout

MiB = 1 << 20
_CHUNK = 256 * 1024


class NoSpace(Exception):
    """The limit or the device is full; ``reason`` says which. Nothing was written."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class SharedFull(NoSpace):
    """All lanes together are at the limit; another one may hold more than its part."""


class Prepared:
    """A reserved file that has a name and a salt, and zeros where its header will be."""

    __slots__ = ("fd", "filling", "in_flight", "map", "name", "salt", "size", "stop", "store")

    def __init__(
        self, name: str, fd: int, size: int, salt: int, store: Callable[[slice, bytes], None], map_: Map | None
    ):
        self.name = name
        self.fd = fd
        self.size = size
        self.salt = salt
        self.store = store
        self.map = map_
        #: Offset of the chunk of zeros being written, or None; see :meth:`usable_until`.
        self.in_flight: int | None = None
        self.stop = False
        #: Held while the file is filled: its descriptor must stay what it is.
        self.filling = threading.Lock()

    @classmethod
    def reserve(cls, files: Files, directory: str, size: int, *, mapped: bool) -> Prepared:
        """A new file of ``size`` bytes, of which nothing is on the device yet.

        :raises NoSpace: the device is full.
        :raises OSError: the device failed.
        """
        salt = 0
        while salt == 0:
            salt = int.from_bytes(files.random(4), "little")
        name = layout.prepared_name(salt)
        path = os.path.join(directory, name)
        fd = -1
        try:
            fd = files.open(path, create=True, exclusive=True)
            files.reserve(fd, size)
            if mapped:
                map_ = files.map(fd, size)
                return cls(name, fd, size, salt, map_.store, map_)
        except OSError as error:
            if fd >= 0:
                files.close(fd)
                files.unlink(path)
            if is_full(error):
                raise _no_space(error) from error
            raise

        def store(where: slice, data: bytes) -> None:
            try:
                files.pwrite(fd, data, where.start)
            except OSError as error:
                # Some file systems need new blocks even for what was reserved.
                if is_full(error):
                    raise _no_space(error) from error
                raise

        return cls(name, fd, size, salt, store, None)

    def fill(self, files: Files) -> None:
        """Write zeros from the front to the end, until told to stop. The order of the two stores below and
        in :meth:`usable_until` is what keeps a chunk from landing on a frame."""
        with self.filling:
            try:
                for start in range(0, self.size, _CHUNK):
                    self.in_flight = start
                    if self.stop:
                        break
                    files.fill(self.fd, start, min(start + _CHUNK, self.size))
            finally:
                # Where the device refused, the file is as good as one that was not filled.
                self.in_flight = None

    def usable_until(self) -> int:
        """Stop the filling; bytes below the result may be stored to at once."""
        self.stop = True
        in_flight = self.in_flight
        return self.size if in_flight is None else in_flight

    def ready(self) -> bool:
        """Whether activating it now leaves enough room below the chunk in flight."""
        in_flight = self.in_flight
        return in_flight is None or in_flight >= MiB

    def release(self, files: Files) -> None:
        """Let go of the map and the descriptor."""
        if self.map is not None:
            self.map.close()
        # In this order: an interrupt must not leave the number of a closed descriptor, which soon is another file's.
        fd, self.fd = self.fd, -1
        if fd >= 0:
            files.close(fd)

    def stop_and_release(self, files: Files) -> None:
        """The same, once the filler has let go."""
        self.stop = True
        with self.filling:
            self.release(files)


def _no_space(error: OSError) -> NoSpace:
    return NoSpace(f"the device is full: {error.strerror}")
