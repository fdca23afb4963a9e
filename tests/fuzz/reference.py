"""What a frame holds, decoded a second time: slowly, by docs/format.md alone, and sharing no code with the engine.

Promises: pure. A message that the engine reads must be one that stands here, at the same sequence.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

#: Bytes of the columns of fixed width: (flag, format), in their order; a flag of 0 is always there.
_LENGTHS = ((2, "I"), (0, "I"), (4, "I"))
_MOST = 16 << 20
_LIMIT = 1 << 63
_NONE = 0xFFFFFFFF


class Said(NamedTuple):
    """A message as its frame tells it."""

    topic: str
    key: bytes | None
    value: bytes | None
    header_block: bytes | None
    timestamp: int
    partition: int
    accepted: int


class Framed(NamedTuple):
    """An intact frame; a seal has no messages. ``flags`` tells its columns."""

    first: int
    length: int
    flags: int
    messages: list[Said]

    @property
    def is_single(self) -> bool:
        """One message whose topic stands in the header's way: what most programs write."""
        return len(self.messages) == 1 and not self.flags & 1


class Unknown(Exception):
    """Intact, with a flag or a codec that format 1.0 does not have."""


def frame_at(buf: bytes, offset: int, salt: int) -> Framed | None:
    """The frame at ``offset``, or None where no whole, intact one stands. Raises Unknown."""
    if offset < 0 or offset % 8 or offset + 40 > len(buf):
        return None
    header = buf[offset : offset + 40]
    if header[:4] != b"MBF1" or zlib.crc32(header[:36], salt) != int.from_bytes(header[36:], "little"):
        return None
    length, first, accepted, count, flags, topic_length, body_crc = struct.unpack("<IQqIHHI", header[4:36])
    if flags & ~63:
        raise Unknown
    body = buf[offset + 40 : offset + length]
    if not 40 <= length <= _MOST or len(body) != length - 40 or zlib.crc32(body, salt) != body_crc:
        return None
    if first < 1 or first + count > _LIMIT:
        return None
    if flags & 16:
        return Framed(first, length, flags, []) if flags == 16 and count == 0 == topic_length else None
    if not 1 <= count <= 65_536 or 4 * count > len(body) or (flags & 1 and topic_length):
        return None
    messages = _messages(body, count, flags, topic_length, accepted)
    return None if messages is None else Framed(first, length, flags, messages)


def _messages(body: bytes, count: int, flags: int, topic_length: int, accepted: int) -> list[Said] | None:
    at = 0

    def take(size: int) -> bytes:
        nonlocal at
        if at + size > len(body):
            raise EOFError
        at += size
        return body[at - size : at]

    def numbers(code: str) -> list[int]:
        return list(struct.unpack(f"<{count}{code}", take(count * struct.calcsize(f"<{code}"))))

    try:
        if flags & 1:
            topics = [take(size).decode() for size in numbers("H")]
        else:
            topics = [take(topic_length).decode()] * count
        lengths = [numbers(code) if not flag or flags & flag else [_NONE] * count for flag, code in _LENGTHS]
        timestamps = numbers("q") if flags & 8 else [-_LIMIT] * count
        partitions = numbers("i") if flags & 32 else [-1] * count
        keys, values, blocks = ([None if size == _NONE else take(size) for size in column] for column in lengths)
    except (EOFError, UnicodeDecodeError):
        return None
    if at != len(body):
        return None
    columns = zip(topics, keys, values, blocks, timestamps, partitions, [accepted] * count, strict=True)
    return [Said(*each) for each in columns]


def salt_of(segment: bytes) -> int | None:
    """The salt of a segment file, or None where it has no valid header."""
    header = segment[:256]
    if len(header) < 256 or header[:8] != b"MBSEG\r\n\x1a":
        return None
    if zlib.crc32(header[:252]) != int.from_bytes(header[252:], "little"):
        return None
    return int.from_bytes(header[32:36], "little") or None


def frames_of(segment: bytes) -> dict[int, Framed | None]:
    """Every intact frame anywhere in a segment file, by its offset; None for one that is intact and unknown."""
    salt = salt_of(segment)
    found: dict[int, Framed | None] = {}
    at = segment.find(b"MBF1", 4096) if salt is not None else -1
    while at >= 0 and salt is not None:
        try:
            framed = frame_at(segment, at, salt)
        except Unknown:
            found[at] = None
        else:
            if framed is not None:
                found[at] = framed
        at = segment.find(b"MBF1", at + 1)
    return found


def wall_of(segment: bytes, accepted: int) -> int:
    """The wall clock at which a frame of the segment was accepted."""
    wall, boot = struct.unpack("<qQ", segment[96:112])
    return int(wall) + accepted - int(boot)
