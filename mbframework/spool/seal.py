"""The seal: the frame that ends a segment, with its totals and the CRC of each of its MiB.

Promises: pure functions on bytes, any thread. In a sealed and cut file the seal's trailer is the last 16
bytes, and tells where the seal begins. A seal without CRCs was written by recovery: its totals are unknown.

Body, behind a frame header with the flag SEAL, count 0 and first = end (little-endian)::

     0  u64 end (the sequence after the last), messages, frames
    24  i64 lowest, highest accepted (boot-time ns)
    40  u64 frame bytes, u64 own offset in the file
    56  u32 shift = 20, u32 n
    64  u32 × n salted CRCs of each MiB, from offset 0 of the file up to the seal (the last one is shorter)
        zeros up to a multiple of 8; then the trailer:
        u64 own offset, u32 0x5345414C, u32 salted CRC of those 12 bytes
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from struct import Struct
from zlib import crc32

from mbframework.errors import UnsupportedFormat
from mbframework.spool import frame
from mbframework.spool.layout import FIRST_FRAME, SEAL_MAGIC, U64_LIMIT, align8

#: One CRC covers 1 << CRC_SHIFT bytes of the file.
CRC_SHIFT = 20
TRAILER_SIZE = 16

_FIELDS = Struct("<QQQqqQQII")
_TRAILER = Struct("<QII")
_TRAILER_START = Struct("<QI")
_U32 = Struct("<I")


@dataclass(slots=True)
class Seal:
    """What a seal says of its segment.

    ``end`` is the sequence after the last message, ``offset`` where the seal stands in its file, ``lowest`` and
    ``highest`` the boot-time ns of acceptance, ``frame_bytes`` the bytes of the frames in front of the
    seal. ``crcs`` is empty (then all totals are unknown) or has :func:`crc_count` entries.
    """

    end: int
    messages: int
    frames: int
    lowest: int
    highest: int
    frame_bytes: int
    offset: int
    crcs: Sequence[int] = field(default_factory=list)


def crc_count(offset: int) -> int:
    """How many CRCs cover a file up to ``offset``, the last one perhaps a part of a MiB."""
    return -(-offset >> CRC_SHIFT)


def size(n_crcs: int) -> int:
    """Bytes of a seal with so many CRCs: a multiple of 8."""
    return frame.HEADER_SIZE + _FIELDS.size + align8(4 * n_crcs) + TRAILER_SIZE


def pack(seal: Seal, salt: int) -> bytes:
    """The frame to store at ``seal.offset``; nothing follows it in the file.

    :raises ValueError: a field is out of its range, or the CRCs do not cover the file up to the seal.
    """
    counts = (seal.end, seal.messages, seal.frames, seal.frame_bytes, seal.offset)
    if min(counts) < 0 or max(counts) >= U64_LIMIT or not seal.end:
        raise ValueError(f"end, messages, frames, frame bytes, offset {counts}; expected below 2^63")
    if seal.offset < FIRST_FRAME or seal.offset & 7:
        raise ValueError(f"a seal at {seal.offset}; expected a multiple of 8 from {FIRST_FRAME} on")
    if len(seal.crcs) not in (0, crc_count(seal.offset)):
        raise ValueError(f"{len(seal.crcs)} CRCs for a seal at {seal.offset}; expected {crc_count(seal.offset)}")
    body = b"".join(
        (
            _FIELDS.pack(
                seal.end,
                seal.messages,
                seal.frames,
                seal.lowest,
                seal.highest,
                seal.frame_bytes,
                seal.offset,
                CRC_SHIFT,
                len(seal.crcs),
            ),
            _little_endian(array("I", seal.crcs)).tobytes(),
            bytes(4 * (len(seal.crcs) & 1)),
            _trailer(seal.offset, salt),
        )
    )
    return frame.assemble(salt, seal.end, seal.highest, 0, frame.SEAL, 0, body)


def unpack(buf: bytes, offset: int, salt: int) -> Seal | None:
    """The seal at ``offset`` of ``buf``, or None where no whole, undamaged one stands.

    The caller compares ``seal.offset`` with where in the file it was read: another place means another file.

    :raises UnsupportedFormat: intact, with a flag or a size of blocks that this release does not know.
    """
    header = frame.read_header(buf, offset, salt)
    if header is None or not frame.is_seal(header):
        return None
    body = frame.read_body(buf, offset, salt, header)
    if body is None or len(body) < _FIELDS.size + TRAILER_SIZE:
        return None
    end, messages, frames, lowest, highest, frame_bytes, own, shift, n = _FIELDS.unpack_from(body)
    if shift != CRC_SHIFT:
        raise UnsupportedFormat(
            f"the seal at {offset} has CRCs of 2^{shift} bytes; this release reads 2^{CRC_SHIFT}: "
            "read it with the release that wrote it",
            offset=offset,
        )
    if header.length != size(n) or n not in (0, crc_count(own)):
        return None
    if end != header.first or max(messages, frames, frame_bytes, own) >= U64_LIMIT:
        return None
    if body[-TRAILER_SIZE:] != _trailer(own, salt):
        return None
    crcs = _little_endian(array("I", body[_FIELDS.size : _FIELDS.size + 4 * n]))
    return Seal(end, messages, frames, lowest, highest, frame_bytes, own, crcs.tolist())


def read_trailer(last16: bytes, salt: int) -> int | None:
    """Where in its file the seal begins, from the last 16 bytes of a sealed file; None where they are none."""
    if len(last16) != TRAILER_SIZE:
        return None
    offset, magic, crc = _TRAILER.unpack(last16)
    if magic != SEAL_MAGIC or crc != crc32(last16[:-4], salt):
        return None
    return offset if FIRST_FRAME <= offset < U64_LIMIT and not offset & 7 else None


def _trailer(offset: int, salt: int) -> bytes:
    start = _TRAILER_START.pack(offset, SEAL_MAGIC)
    return start + _U32.pack(crc32(start, salt))


def _little_endian(numbers: array[int]) -> array[int]:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
