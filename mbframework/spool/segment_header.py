r"""The 256 bytes at the start of a segment: whose it is and where in the lane it stands.

Promises: pure functions on bytes, any thread. The CRC is unsalted, since the salt is read from here. The
header is stored once, at activation, and never again: the first frame begins at the next page.

::

      0  8s  magic "MBSEG\r\n\x1a"              72  u64 first sequence
      8  u16 major, u16 minor                 80  u64 ordinal: messages spooled before this segment
     12  u32 header length = 256              88  u64 end of the previous segment (sequence)
     16  u32 first frame = 4096               96  i64 wall ns, u64 boot-time ns: the pair of clocks
     20  u32 incompatible features           112  16s boot id
     24  u32 read-only-compatible            128  u64 reserved size
     28  u32 compatible                      136  u16 length of the lane's name
     32  u32 salt, u32 zero                  138  114s the lane's name, UTF-8
     40  16s buffer id, 16s run id           252  u32 CRC of the 252 bytes before
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from mbframework.errors import UnsupportedFormat
from mbframework.spool.layout import (
    FIRST_FRAME,
    FORMAT_MAJOR,
    FORMAT_MINOR,
    ID_SIZE,
    SEGMENT_MAGIC,
    U64_LIMIT,
)
from mbframework.spool.record import check_version, close_record, record_is_intact

SEGMENT_HEADER_SIZE = 256
#: Bytes of UTF-8.
MAX_LANE_NAME = 114

_FIELDS = Struct("<8sHHIIIIIII16s16sQQQqQ16sQH114s")


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """The header of a segment.

    ``wall_ns`` and ``boot_ns`` were read together; ``boot_id`` says of which boot. A reader may ignore unknown
    bits of ``compatible``, must not write to a segment with unknown bits of ``readonly_compatible``, and refuses
    unknown bits of ``incompatible``.
    """

    salt: int
    buffer_id: bytes
    run: bytes
    first: int
    ordinal: int
    previous_end: int
    wall_ns: int
    boot_ns: int
    boot_id: bytes
    reserved: int
    lane: str
    incompatible: int = 0
    readonly_compatible: int = 0
    compatible: int = 0
    major: int = FORMAT_MAJOR
    minor: int = FORMAT_MINOR

    def pack(self) -> bytes:
        """The header's 256 bytes.

        :raises ValueError: a field is out of its range.
        """
        lane = self.lane.encode()
        if len(lane) > MAX_LANE_NAME:
            raise ValueError(f"lane name of {len(lane)} bytes; at most {MAX_LANE_NAME} fit")
        if not 0 < self.salt < 1 << 32:
            raise ValueError(f"salt {self.salt}; expected 1 to 2^32 - 1")
        if {len(self.buffer_id), len(self.run), len(self.boot_id)} != {ID_SIZE}:
            raise ValueError(f"buffer id, run and boot id; expected {ID_SIZE} bytes each")
        counts = (self.first, self.ordinal, self.previous_end, self.boot_ns, self.reserved)
        if min(counts) < 0 or max(counts) >= U64_LIMIT or not self.first:
            raise ValueError(f"first, ordinal, previous end, boot ns, reserved {counts}; expected below 2^63")
        if self.previous_end > self.first:
            raise ValueError(
                f"first sequence {self.first} in front of {self.previous_end}, where the segment before ends"
            )
        return close_record(
            _FIELDS.pack(
                SEGMENT_MAGIC,
                self.major,
                self.minor,
                SEGMENT_HEADER_SIZE,
                FIRST_FRAME,
                self.incompatible,
                self.readonly_compatible,
                self.compatible,
                self.salt,
                0,
                self.buffer_id,
                self.run,
                self.first,
                self.ordinal,
                self.previous_end,
                self.wall_ns,
                self.boot_ns,
                self.boot_id,
                self.reserved,
                len(lane),
                lane,
            )
        )


def unpack(buf: bytes) -> SegmentHeader | None:
    """The header at the start of ``buf``, or None where no valid one stands: not yet activated, torn, damaged.

    :raises UnsupportedFormat: intact, of another major version, with other sizes, or with a feature that
        this release does not know.
    """
    record = bytes(buf[:SEGMENT_HEADER_SIZE])
    if len(record) < SEGMENT_HEADER_SIZE or not record.startswith(SEGMENT_MAGIC) or not record_is_intact(record):
        return None
    (
        _magic,
        major,
        minor,
        header_size,
        first_frame,
        incompatible,
        readonly_compatible,
        compatible,
        salt,
        _zero,
        buffer_id,
        run,
        first,
        ordinal,
        previous_end,
        wall_ns,
        boot_ns,
        boot_id,
        reserved,
        lane_length,
        lane,
    ) = _FIELDS.unpack_from(record)
    check_version("the segment", major, incompatible)
    if (header_size, first_frame) != (SEGMENT_HEADER_SIZE, FIRST_FRAME):
        raise UnsupportedFormat(
            f"the segment has a header of {header_size} bytes and frames from {first_frame}; this release reads "
            f"{SEGMENT_HEADER_SIZE} and {FIRST_FRAME}: open it with the release that wrote it"
        )
    if not salt or not first or max(first, ordinal, previous_end, boot_ns, reserved) >= U64_LIMIT:
        return None
    if previous_end > first:
        # The lane would go back, over messages that the segment in front holds.
        return None
    if lane_length > MAX_LANE_NAME:
        return None
    try:
        name = lane[:lane_length].decode()
    except UnicodeDecodeError:
        return None
    return SegmentHeader(
        salt=salt,
        buffer_id=buffer_id,
        run=run,
        first=first,
        ordinal=ordinal,
        previous_end=previous_end,
        wall_ns=wall_ns,
        boot_ns=boot_ns,
        boot_id=boot_id,
        reserved=reserved,
        lane=name,
        incompatible=incompatible,
        readonly_compatible=readonly_compatible,
        compatible=compatible,
        major=major,
        minor=minor,
    )


def end_before(header: SegmentHeader, successor: SegmentHeader) -> int:
    """One past the last sequence of a segment, as the next readable one tells. Where a segment between them is
    missing, the ordinals keep the result from reaching far into what that one held."""
    spooled = max(0, successor.ordinal - header.ordinal)
    return max(header.first, min(successor.previous_end, header.first + spooled))


def wall_of(header: SegmentHeader, accepted: int) -> int:
    """The wall clock (ns since 1970, UTC) at which a frame of this segment was ``accepted`` (boot-time ns)."""
    return header.wall_ns + accepted - header.boot_ns
