"""The slots of ``seek``: up to where a lane is delivered, and the accounts of what left it.

Promises: pure functions on bytes, any thread. The slot with the highest generation among the intact ones is
the lane's position; a slot is one page of its own, so that writing one never harms another.

One slot, 512 bytes (little-endian)::

      0  4s  magic "MBSK"                         120  i64 wall ns
      4  u16 major, u16 minor                     128  u64 lane epoch
      8  u64 generation                           136  u32 incompatible features
     16  16s run of the last settled message      140  u16 bits used, u16 zero
     32  u64 next, ordinal, segment, offset,      144  u64 ordinal of the floor
         batch end, floor applied                 152  16s buffer id
     80  u64 delivered, pruned, expired,          168  u64 purged, returned
         dead, lost                               184  324s bitmap
                                                  508  u32 CRC of the 508 bytes before

Bit i of the bitmap (byte i // 8, value 1 << i % 8) is set where the message with ordinal ``ordinal`` + i, that
is the i-th spooled one from ``next`` on, is already settled and counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from mbframework.spool.layout import (
    FORMAT_MAJOR,
    FORMAT_MINOR,
    ID_SIZE,
    SEEK_MAGIC,
    SLOT_COUNT,
    SLOT_STRIDE,
    U64_LIMIT,
    check_version,
    close_record,
    newest_slot,
    open_slot,
)

SEEK_FILE_SIZE = SLOT_COUNT * SLOT_STRIDE
#: Bytes.
BITMAP_SIZE = 324
#: Messages of one batch that the bitmap can tell apart; those beyond it may be repeated.
BITMAP_BITS = 8 * BITMAP_SIZE

_FIELDS = Struct("<4sHHQ16s11QqQIHHQ16sQQ324s")


@dataclass(slots=True, kw_only=True)
class SeekSlot:
    """One slot. Positions are sequences (``next``, ``segment``: the first of the segment, ``batch_end``,
    ``floor_applied``), ordinals (``ordinal``, ``floor_ordinal``) and a byte offset; the accounts (``delivered``
    to ``lost``, ``purged``, ``returned``) are messages. ``segment`` and ``offset`` are hints.
    """

    generation: int
    run: bytes
    next: int
    ordinal: int
    buffer_id: bytes
    segment: int = 0
    offset: int = 0
    batch_end: int = 0
    floor_applied: int = 0
    delivered: int = 0
    pruned: int = 0
    expired: int = 0
    dead: int = 0
    lost: int = 0
    wall_ns: int = 0
    epoch: int = 0
    incompatible: int = 0
    bits_used: int = 0
    floor_ordinal: int = 0
    purged: int = 0
    returned: int = 0
    bitmap: bytes = bytes(BITMAP_SIZE)

    @property
    def settled(self) -> int:
        """How many messages from ``next`` on are already settled and counted."""
        return int.from_bytes(self.bitmap, "little").bit_count()

    def pack(self) -> bytes:
        """The slot's 512 bytes; a shorter bitmap is filled with zeros.

        :raises ValueError: a field is out of its range.
        """
        counts = (
            self.next,
            self.ordinal,
            self.segment,
            self.offset,
            self.batch_end,
            self.floor_applied,
            self.delivered,
            self.pruned,
            self.expired,
            self.dead,
            self.lost,
        )
        others = (self.generation, self.epoch, self.floor_ordinal, self.purged, self.returned)
        if min(counts + others) < 0 or max(counts + others) >= U64_LIMIT:
            raise ValueError(f"a number of {self} is not within 0 to 2^63 - 1")
        if {len(self.run), len(self.buffer_id)} != {ID_SIZE}:
            raise ValueError(f"run and buffer id; expected {ID_SIZE} bytes each")
        if len(self.bitmap) > BITMAP_SIZE or not _bits_fit(self.bitmap, self.bits_used):
            raise ValueError(f"a bitmap of {self.bits_used} bits; at most {BITMAP_BITS}, and none set beyond")
        return close_record(
            _FIELDS.pack(
                SEEK_MAGIC,
                FORMAT_MAJOR,
                FORMAT_MINOR,
                self.generation,
                self.run,
                *counts,
                self.wall_ns,
                self.epoch,
                self.incompatible,
                self.bits_used,
                0,
                self.floor_ordinal,
                self.buffer_id,
                self.purged,
                self.returned,
                self.bitmap,
            )
        )


def unpack_slot(buf512: bytes) -> SeekSlot | None:
    """The slot in these 512 bytes, or None where they are torn, damaged or empty.

    :raises UnsupportedFormat: intact, of another major version or with an unknown feature.
    """
    if not open_slot(buf512, SEEK_MAGIC, "the seek"):
        return None
    fields = _FIELDS.unpack_from(buf512)
    _, _, _, generation, run, *counts, wall_ns, epoch, incompatible, bits_used, _ = fields[:-5]
    floor_ordinal, buffer_id, purged, returned, bitmap = fields[-5:]
    check_version("the seek", FORMAT_MAJOR, incompatible)
    if max(generation, epoch, floor_ordinal, purged, returned, *counts) >= U64_LIMIT:
        return None
    if not _bits_fit(bitmap, bits_used):
        return None
    slot_next, ordinal, segment, offset, batch_end, floor_applied, delivered, pruned, expired, dead, lost = counts
    return SeekSlot(
        generation=generation,
        run=run,
        next=slot_next,
        ordinal=ordinal,
        buffer_id=buffer_id,
        segment=segment,
        offset=offset,
        batch_end=batch_end,
        floor_applied=floor_applied,
        delivered=delivered,
        pruned=pruned,
        expired=expired,
        dead=dead,
        lost=lost,
        wall_ns=wall_ns,
        epoch=epoch,
        incompatible=incompatible,
        bits_used=bits_used,
        floor_ordinal=floor_ordinal,
        purged=purged,
        returned=returned,
        bitmap=bitmap,
    )


def newest(buf: bytes) -> tuple[SeekSlot | None, int, bool]:
    """The newest slot of a seek file's bytes, its index, and whether any slot is invalid; see ``newest_slot``.

    :raises UnsupportedFormat: a slot is intact but of a newer format.
    """
    return newest_slot(buf, unpack_slot)


def _bits_fit(bitmap: bytes, bits_used: int) -> bool:
    return 0 <= bits_used <= BITMAP_BITS and not int.from_bytes(bitmap, "little") >> bits_used
