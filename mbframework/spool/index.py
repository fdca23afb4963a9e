"""Which segment files a lane's directory holds, in the order of their sequences.

Promises: reads only; a file that is not a segment of this format is skipped, never touched; a prepared file
counts from the moment its header is valid. One thread at a time.
"""

from __future__ import annotations

import bisect
import errno
import os
from collections.abc import Callable
from typing import NamedTuple

from mbframework.files import Files
from mbframework.spool import layout, segment_header
from mbframework.spool.remains import Remains
from mbframework.spool.segment_header import SegmentHeader

#: What opening a link, a directory or a device says that has the name of a segment.
_NO_FILE = frozenset({errno.ELOOP, errno.EINVAL, errno.EISDIR, errno.ENXIO})
_LISTINGS = 5


class Entry(NamedTuple):
    """A segment file: its first sequence, and its name when last listed."""

    first: int
    name: str

    @property
    def sealed(self) -> bool:
        """Whether the name says that the segment is sealed, synced and cut."""
        return self.name.startswith("P")


class SegmentIndex:
    """A listing that is made again only when asked. ``pread`` reads the headers; without it, one that the device
    refuses counts as damaged."""

    def __init__(self, files: Files, directory: str, pread: Callable[[int, int, int], bytes] | None = None) -> None:
        self._files = files
        self._pread = pread or Remains(files, directory).pread
        self.directory = directory
        self.entries: list[Entry] = []
        self._prepared: dict[str, int] = {}

    def refresh(self) -> None:
        """List the directory anew. A missing directory has no segments."""
        # A prepared file that has got its name since the listing is in the next one.
        for _ in range(_LISTINGS):
            if self._list():
                return

    def _list(self) -> bool:
        """One listing; False where a file of it was gone when it was looked at."""
        complete = True
        found: dict[int, Entry] = {}
        prepared: dict[str, int] = {}
        try:
            names = self._files.list(self.directory)
        except FileNotFoundError:
            names = []
        for name in names:
            parsed = layout.parse_name(name)
            if parsed is None:
                continue
            kind, number = parsed
            if kind == "N":
                first = self._prepared.get(name)
                if first is None:
                    try:
                        first = self._first_of(name)
                    except FileNotFoundError:
                        complete = False
                if first is None:
                    continue
                prepared[name] = number = first
            known = found.get(number)
            # While a file is renamed both names may be listed; the later state wins.
            if known is None or kind == "P" or known.name.startswith("N"):
                found[number] = Entry(number, name)
        self._prepared = prepared
        self.entries = sorted(found.values())
        return complete

    def place_after(self, sequence: int) -> int:
        """The place in ``entries`` of the first segment that begins after ``sequence``; their number: there is none."""
        return bisect.bisect_right(self.entries, sequence, key=lambda entry: entry.first)

    def at_or_before(self, sequence: int) -> Entry | None:
        """The last segment that begins at or before ``sequence``."""
        place = self.place_after(sequence)
        return self.entries[place - 1] if place else None

    def after(self, sequence: int) -> Entry | None:
        """The first segment that begins after ``sequence``."""
        place = self.place_after(sequence)
        return self.entries[place] if place < len(self.entries) else None

    def is_sealed(self, first: int) -> bool:
        """Whether the segment that begins at ``first`` was sealed when it was listed."""
        entry = self.at_or_before(first)
        return entry is not None and entry.first == first and entry.sealed

    def open(self, entry: Entry) -> tuple[int, SegmentHeader] | None:
        """A descriptor for reading and the header; None where the file is gone or its header is damaged.

        :raises UnsupportedFormat: it was written by a newer release.
        """
        for name in (entry.name, layout.unsealed_name(entry.first), layout.sealed_name(entry.first)):
            try:
                opened = self._open(name)
            except FileNotFoundError:
                continue
            if opened is None:
                return None
            fd, header = opened
            if header is not None and header.first == entry.first:
                return fd, header
            self._files.close(fd)
            return None
        return None

    def header(self, entry: Entry) -> SegmentHeader | None:
        """The header alone; None as for :meth:`open`."""
        opened = self.open(entry)
        if opened is None:
            return None
        self._files.close(opened[0])
        return opened[1]

    def _first_of(self, name: str) -> int | None:
        """The first sequence of a prepared file that has been activated. Raises OSError."""
        opened = self._open(name)
        if opened is None:
            return None
        fd, header = opened
        self._files.close(fd)
        return None if header is None else header.first

    def _open(self, name: str) -> tuple[int, SegmentHeader | None] | None:
        """A descriptor for reading, and the header, None where it is damaged; None where the name is not that of a
        file. Raises UnsupportedFormat, OSError."""
        try:
            fd = self._files.open(os.path.join(self.directory, name), write=False)
        except OSError as error:
            if error.errno in _NO_FILE:
                return None
            raise
        try:
            return fd, segment_header.unpack(self._pread(fd, segment_header.SEGMENT_HEADER_SIZE, 0))
        except BaseException:
            self._files.close(fd)
            raise
