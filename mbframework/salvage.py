"""The header of a segment whose first page is lost, from what is left: all its frames are.

Promises: reads only. The salt, without which no frame can be told from noise, is computed back from a CRC: CRC-32 can
be run backwards, so that the frame (or the seal) that it belongs to tells what it was started from. It counts only
where a second CRC of the same place agrees. Pure but for the reading.
"""

from __future__ import annotations

from dataclasses import replace
from struct import Struct
from typing import Final
from zlib import crc32

from mbframework.files import Files
from mbframework.spool import frame, layout, seal
from mbframework.spool.head import HeadSlot
from mbframework.spool.segment_header import SegmentHeader
from mbframework.spool.walk import find_frame

_ONES: Final = 0xFFFFFFFF
_TABLE: Final = [crc32(bytes([i]), _ONES) ^ _ONES for i in range(256)]
#: By its highest byte, which of them it is.
_WHICH: Final = {entry >> 24: index for index, entry in enumerate(_TABLE)}
_U32: Final = Struct("<I")
#: Where a segment's header keeps its salt.
_SALT_AT: Final = 32


def start_of(data: bytes, crc: int) -> int:
    """The value from which ``crc32(data, value)`` is ``crc``; there is exactly one."""
    state = crc ^ _ONES
    for byte in reversed(data):
        index = _WHICH[state >> 24]
        state = ((state ^ _TABLE[index]) << 8 & _ONES) | (index ^ byte)
    return state ^ _ONES


def find_salt(files: Files, fd: int) -> int | None:
    """The salt of a segment file without a valid header; None where too little of it is left. Raises OSError."""
    size = files.fstat(fd).st_size
    raw = files.pread(fd, 4, _SALT_AT)
    if len(raw) == 4 and (salt := _U32.unpack(raw)[0]):
        if find_frame(files.pread, fd, salt, layout.FIRST_FRAME, 1, None) is not None:
            return int(salt)
    trailer = files.pread(fd, seal.TRAILER_SIZE, max(0, size - seal.TRAILER_SIZE))
    if len(trailer) == seal.TRAILER_SIZE:
        salt = start_of(trailer[:-4], _U32.unpack(trailer[-4:])[0])
        offset = seal.read_trailer(trailer, salt)
        if salt and offset is not None and offset < size:
            if seal.unpack(files.pread(fd, size - offset, offset), 0, salt) is not None:
                return salt
    raw = files.pread(fd, frame.HEADER_SIZE, layout.FIRST_FRAME)
    if len(raw) == frame.HEADER_SIZE and raw.startswith(layout.FRAME_MARKER):
        salt = start_of(raw[:36], _U32.unpack(raw[36:])[0])
        header = frame.read_header(raw, 0, salt)
        if salt and header is not None:
            if frame.decode(files.pread(fd, header.length, layout.FIRST_FRAME), 0, salt, header) is not None:
                return salt
    return None


def first_of(files: Files, fd: int) -> int | None:
    """The first sequence of a segment file without a valid header; None where its first frame is lost too."""
    salt = find_salt(files, fd)
    raw = files.pread(fd, frame.HEADER_SIZE, layout.FIRST_FRAME)
    header = None if salt is None else frame.read_header(raw, 0, salt)
    return None if header is None else header.first


def header_of(
    files: Files, fd: int, first: int, *, lane: str, begin: tuple[int, int], neighbour: SegmentHeader | None,
    successor: SegmentHeader | None, head: HeadSlot | None,
) -> SegmentHeader | None:  # fmt: skip
    """What the header of the segment that its name calls ``first`` was, as far as it matters; None: nothing is left.

    :param begin: sequence and ordinal behind the segment in front of it.
    :param neighbour: the header of a segment beside it, for the clocks; else those of ``head`` are taken.
    """
    salt = find_salt(files, fd)
    if salt is None:
        return None
    ordinal = begin[1]
    if successor is not None:
        ordinal = max(ordinal, successor.ordinal - max(0, successor.previous_end - first))
    if neighbour is not None:
        return replace(neighbour, salt=salt, first=first, ordinal=ordinal, previous_end=min(begin[0], first))
    if head is None:
        return None
    return SegmentHeader(
        salt=salt, buffer_id=head.buffer_id, run=head.run, first=first, ordinal=ordinal,
        previous_end=min(begin[0], first), wall_ns=head.wall_ns, boot_ns=head.boot_ns, boot_id=head.boot_id, reserved=0,
        lane=lane,
    )  # fmt: skip
