"""Segment files made byte by byte, without the writer, and what is known of them."""

from __future__ import annotations

import os
import random
import zlib
from dataclasses import dataclass, field

from mbframework.spool import frame, layout, seal
from mbframework.spool.segment_header import SegmentHeader

BUFFER = b"I" * 16
BOOT = b"B" * 16


@dataclass
class Stored:
    """A frame as it was stored."""

    offset: int
    raw: bytes
    first: int
    ordinal: int
    values: list[bytes]

    @property
    def end(self) -> int:
        return self.first + len(self.values)


@dataclass
class Made:
    """A segment as it was made."""

    path: str
    first: int
    ordinal: int
    end: int
    header: bytes
    frames: list[Stored]

    def intact(self) -> list[Stored]:
        """The frames that are still readable."""
        try:
            with open(self.path, "rb") as file:
                raw = file.read()
        except FileNotFoundError:
            return []
        if raw[:256] != self.header:
            return []
        return [each for each in self.frames if raw[each.offset : each.offset + len(each.raw)] == each.raw]


@dataclass
class History:
    """A lane's segments, oldest first."""

    directory: str
    segments: list[Made] = field(default_factory=list)
    next: int = 1
    ordinal: int = 0
    end: int = 1

    def add(
        self, batches: list[list[bytes]], *, state: str = "P", gap: int = 0, run: bytes = b"R" * 16, crcs: bool = True,
        reserve: int = 0,
    ) -> Made:  # fmt: skip
        """One more segment: ``state`` P sealed, A not, N not even named; ``gap`` sequences lie in front of it."""
        first = self.end + gap
        salt = zlib.crc32(b"%d" % first) | 1
        header = SegmentHeader(
            salt=salt, buffer_id=BUFFER, run=run, first=first, ordinal=self.ordinal, previous_end=self.end,
            wall_ns=10**18, boot_ns=10**9, boot_id=BOOT, reserved=1 << 20, lane="main",
        ).pack()  # fmt: skip
        raw = bytearray(header.ljust(layout.FIRST_FRAME, b"\0"))
        sequence, ordinal = first, self.ordinal
        frames = []
        for values in batches:
            encoded = frame.encode_many(salt, sequence, 10**9 + sequence, b"topic", values)
            length = frame.read_header(encoded, 0, salt).length  # type: ignore[union-attr]
            frames.append(Stored(len(raw), encoded[:length], sequence, ordinal, values))
            raw += encoded
            sequence += len(values)
            ordinal += len(values)
        if state == "P":
            pieces = [zlib.crc32(raw[at : at + (1 << 20)], salt) for at in range(0, len(raw), 1 << 20)] if crcs else []
            raw += seal.pack(seal.Seal(sequence, ordinal - self.ordinal, len(frames), 0, 0, 0, len(raw), pieces), salt)
            name = layout.sealed_name(first)
        else:
            raw = raw.ljust(reserve or len(raw) + 8192, b"\0")
            name = layout.unsealed_name(first) if state == "A" else layout.prepared_name(salt)
        path = os.path.join(self.directory, name)
        with open(path, "wb") as file:
            file.write(raw)
        made = Made(path, first, self.ordinal, sequence, header, frames)
        self.segments.append(made)
        self.end, self.ordinal = sequence, ordinal
        return made

    def intact(self) -> list[tuple[int, int, bytes]]:
        """(sequence, ordinal, value) of everything that is still readable."""
        return [
            (each.first + i, each.ordinal + i, value)
            for segment in self.segments
            for each in segment.intact()
            for i, value in enumerate(each.values)
        ]

    def everything(self) -> list[tuple[int, int, bytes]]:
        """(sequence, ordinal, value) of everything that ever was stored."""
        return [
            (each.first + i, each.ordinal + i, value)
            for segment in self.segments
            for each in segment.frames
            for i, value in enumerate(each.values)
        ]


def harm(path: str, chance: random.Random) -> None:
    """One of the ways in which a file comes to harm."""
    how = chance.choice(["flip", "flip", "zero", "cut", "delete", "head", "tail"])
    if how == "delete":
        os.unlink(path)
        return
    with open(path, "r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return
        if how == "cut":
            file.truncate(chance.randrange(size))
            return
        if how == "zero":
            start = chance.randrange(size)
            file.seek(start)
            file.write(bytes(min(size - start, chance.choice([1, 40, 300, 4096]))))
            return
        places = {"flip": (min(4096, size - 1), size), "head": (0, min(256, size)), "tail": (max(0, size - 200), size)}
        low, high = places[how]
        at = chance.randrange(low, high)
        file.seek(at)
        old = file.read(1)
        file.seek(at)
        file.write(bytes([old[0] ^ chance.randrange(1, 256)]))
