"""A segment as its writer knows it: the facts of one file, and of one that takes frames or waits for its seal.

Promises
--------
- What is not known to be on the device after a failed sync is stored again before the next sync counts.
- A seal has the CRC of each MiB as it stands in the file; none at all where the device refuses to give it back.

Threads: facts are read and set under the lane's lock. What takes a descriptor is the housekeeper's, without it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbframework.files import Files
from mbframework.speedups import crc32
from mbframework.spool import layout, seal
from mbframework.spool.prepared import MiB, Prepared
from mbframework.spool.remains import Remains, is_refusal
from mbframework.spool.segment_header import SegmentHeader

if TYPE_CHECKING:
    from mbframework.spool.survey import Found


@dataclass(slots=True)
class Segment:
    """What the writer and its monitors know of one segment file."""

    name: str
    first: int
    ordinal: int
    previous_end: int
    size: int
    #: One past the last sequence; None while active.
    end: int | None
    header: SegmentHeader

    @classmethod
    def of(cls, found: Found) -> Segment:
        """A segment that an earlier opening left."""
        header = found.header
        return cls(found.entry.name, header.first, header.ordinal, header.previous_end, found.size, found.end, header)


class Active:
    """An activated segment: one that takes frames, or has just ceased to."""

    __slots__ = (
        "created", "file", "first_accepted", "frames", "last_accepted", "named", "room", "segment", "suspect", "synced",
        "tail",
    )  # fmt: skip

    def __init__(self, segment: Segment, file: Prepared, created: int, room: int) -> None:
        self.segment = segment
        self.file = file
        self.created = created
        self.tail = layout.FIRST_FRAME
        self.frames = 0
        self.first_accepted = 0
        self.last_accepted = 0
        #: Bytes at the end that are kept for the seal.
        self.room = room
        #: Whether the file has left its prepared name, durably.
        self.named = False
        #: Bytes below it are on the device; ``suspect``: a sync failed, and those above may not be stored by another.
        self.synced = 0
        self.suspect = False

    def descriptor(self, files: Files, directory: str) -> int | None:
        """A descriptor of the caller's own; None where the file is gone: pruned, or delivered. The lock is held."""
        if self.file.fd >= 0:
            return files.duplicate(self.file.fd)
        segment = self.segment
        # It may be renamed at this moment; the names come in this order.
        for name in (segment.name, layout.unsealed_name(segment.first), layout.sealed_name(segment.first)):
            try:
                return files.open(os.path.join(directory, name))
            except FileNotFoundError:
                continue
        return None

    def sync(self, files: Files, fd: int, tail: int) -> None:
        """Everything below ``tail`` is on the device. Raises OSError."""
        if self.suspect:
            # Linux reports a page that it could not write once, and then takes it for clean: make it dirty again.
            for start in range(self.synced, tail, MiB):
                files.pwrite(fd, files.pread(fd, min(MiB, tail - start), start), start)
        files.datasync(fd)
        self.synced = max(self.synced, tail)
        self.suspect = False

    def write_seal(self, files: Files, directory: str) -> int:
        """Store the seal behind the last frame and cut the file there; the seal's bytes."""
        if self.file.fd < 0:
            self.file.fd = files.open(os.path.join(directory, self.segment.name))
        fd, tail, segment = self.file.fd, self.tail, self.segment
        remains = Remains(files, directory)
        crcs = [
            crc32(remains.pread(fd, min(MiB, tail - offset), offset), self.file.salt) for offset in range(0, tail, MiB)
        ]
        end = segment.end or segment.first
        raw = seal.pack(
            seal.Seal(
                end=end,
                messages=end - segment.first,
                frames=self.frames,
                lowest=self.first_accepted,
                highest=self.last_accepted,
                frame_bytes=tail - layout.FIRST_FRAME,
                offset=tail,
                crcs=crcs if remains.refused(fd) is None else (),
            ),
            self.file.salt,
        )
        put_at_end(files, fd, raw, tail)
        return len(raw)


def put_at_end(files: Files, fd: int, raw: bytes, offset: int) -> None:
    """Store ``raw`` at ``offset`` and cut the file behind it. Raises OSError."""
    try:
        files.pwrite(fd, raw, offset)
        files.truncate(fd, offset + len(raw))
    except OSError as error:
        if not is_refusal(error):
            raise
        # A store into a part of a page has to read the page. Cut off, it is given back, and a new one taken.
        files.truncate(fd, offset)
        files.pwrite(fd, raw, offset)


def seal_room(size: int) -> int:
    """Bytes to keep for the seal of a segment of ``size`` bytes."""
    return seal.size(size // MiB + 1)
