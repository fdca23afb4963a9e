"""Which dead letters were dropped: the files ``dropped.<n>`` beside their segments (docs/format.md).

Promises
--------
- What :meth:`Dropped.add` was given is on the device when it returns, and kept as long as its segment.
- A record names the segment by its salt, so that it never hides a letter of another.
- A file that is cut short, torn, missing, or that the device cannot read in places costs the records that it held
  there, and nothing else.

One thread adds and compacts, under the lock of who owns the letters; any may read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from struct import Struct
from typing import Final, TypeAlias

from mbframework.files import Files
from mbframework.spans import Span, joined
from mbframework.spool.record import close_record, record_is_intact
from mbframework.spool.remains import Remains

#: First sequence, the one after the last, and the salt of the segment; a CRC follows.
_RECORD: Final = Struct("<QQI")
_SIZE: Final = _RECORD.size + 4
_NAME = re.compile(r"dropped\.([1-9][0-9]{0,8})")
_LISTINGS = 5
#: By salt.
BySegment: TypeAlias = "dict[int, list[Span]]"


class Dropped:
    """See the module. ``directory`` is that of the dead letters of one lane; it need not exist."""

    def __init__(self, files: Files, directory: str) -> None:
        self._files = files
        self._directory = directory

    def spans(self) -> BySegment:
        """What all files together name: one may be a newer, shorter form of another. Raises OSError."""
        for _ in range(_LISTINGS):
            found: BySegment = {}
            try:
                for _, name in self._names():
                    for span, salt in self._records(name)[0]:
                        found.setdefault(salt, []).append(span)
            except FileNotFoundError:
                # Another has taken its place since the listing.
                continue
            break
        return {salt: joined(spans) for salt, spans in found.items()}

    def add(self, records: Iterable[tuple[Span, int]]) -> None:
        """Spans, each with the salt of its segment. Raises OSError: the same again is right."""
        names = self._names()
        name = names[-1][1] if names else "dropped.1"
        fd = self._files.open(os.path.join(self._directory, name), create=True)
        try:
            _, whole = self._records(name)
            # What a power loss tore at the end goes: nobody was told that it was dropped.
            self._files.truncate(fd, whole)
            self._files.pwrite(fd, _packed(records), whole)
            self._files.datasync(fd)
        finally:
            self._files.close(fd)
        if not names:
            self._files.sync_directory(self._directory)

    def compact(self, needed: Mapping[int, int]) -> None:
        """Forget what is not needed, once that is half of what the files say. Raises OSError.

        :param needed: by the salt of each segment that is there, the lowest sequence that may have to be hidden.
        """
        names = self._names()
        records = [record for _, name in names for record in self._records(name)[0]]
        left: BySegment = {}
        for (first, end), salt in records:
            if salt in needed and end > needed[salt]:
                left.setdefault(salt, []).append((first, end))
        news = [(span, salt) for salt, spans in left.items() for span in joined(spans)]
        if not names or 2 * len(news) > len(records):
            return
        if news:
            # Beside the old one, which says the same, and goes when this is on the device.
            path = os.path.join(self._directory, f"dropped.{names[-1][0] + 1}")
            fd = self._files.open(path, create=True, exclusive=True)
            try:
                self._files.pwrite(fd, _packed(news), 0)
                self._files.datasync(fd)
            finally:
                self._files.close(fd)
            self._files.sync_directory(self._directory)
        for _, name in names:
            self._files.unlink(os.path.join(self._directory, name))

    def _names(self) -> list[tuple[int, str]]:
        try:
            names = self._files.list(self._directory)
        except FileNotFoundError:
            return []
        return sorted((int(match[1]), name) for name in names if (match := _NAME.fullmatch(name)))

    def _records(self, name: str) -> tuple[list[tuple[Span, int]], int]:
        """The intact records of a file, and the offset behind the last of them. Raises OSError."""
        fd = self._files.open(os.path.join(self._directory, name), write=False)
        try:
            size = self._files.fstat(fd).st_size
            raw = Remains(self._files, self._directory).pread(fd, size, 0)
        finally:
            self._files.close(fd)
        result: list[tuple[Span, int]] = []
        end = 0
        for at in range(0, len(raw) - _SIZE + 1, _SIZE):
            if record_is_intact(raw[at : at + _SIZE]):
                first, stop, salt = _RECORD.unpack_from(raw, at)
                result.append(((first, stop), salt))
                end = at + _SIZE
        return result, end


def is_dropped(name: str) -> bool:
    """Whether a file has that name."""
    return _NAME.fullmatch(name) is not None


def _packed(records: Iterable[tuple[Span, int]]) -> bytes:
    return b"".join(close_record(_RECORD.pack(*span, salt)) for span, salt in records)
