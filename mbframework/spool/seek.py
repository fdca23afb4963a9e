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

from mbframework.spool.layout import SEEK_MAGIC, SLOT_COUNT, SLOT_STRIDE
from mbframework.spool.record import SlotFormat, newest_slot

SEEK_FILE_SIZE = SLOT_COUNT * SLOT_STRIDE
#: Bytes.
BITMAP_SIZE = 324
#: Messages of one batch that the bitmap can tell apart; those beyond it may be repeated.
BITMAP_BITS = 8 * BITMAP_SIZE


@dataclass(slots=True, kw_only=True)
class SeekSlot:
    """One slot, its fields in the order of the bytes.

    Positions are sequences (``next``, ``segment``: the first of the segment, ``batch_end``,
    ``floor_applied``), ordinals (``ordinal``, ``floor_ordinal``) and a byte offset; the accounts (``delivered``
    to ``lost``, ``purged``, ``returned``) are messages. ``segment`` and ``offset`` are hints.
    """

    generation: int
    run: bytes
    next: int
    ordinal: int
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
    buffer_id: bytes
    purged: int = 0
    returned: int = 0
    bitmap: bytes = bytes(BITMAP_SIZE)

    @property
    def settled(self) -> int:
        """How many messages from ``next`` on are already settled and counted."""
        return int.from_bytes(self.bitmap, "little").bit_count()

    @property
    def exits(self) -> int:
        """Messages that have left the lane, by all accounts together."""
        return self.delivered + self.pruned + self.expired + self.dead + self.lost + self.purged + self.returned

    def pack(self) -> bytes:
        """The slot's 512 bytes.

        :raises ValueError: a field is out of its range.
        """
        if not _bits_fit(self):
            raise ValueError(f"a bitmap of {self.bits_used} bits; at most {BITMAP_BITS}, and none set beyond")
        return _SLOT.pack(self)


_SLOT = SlotFormat(SeekSlot, SEEK_MAGIC, "the seek", "Q 16s 11Q qQIH2x Q 16s QQ 324s")


def unpack_slot(buf512: bytes) -> SeekSlot | None:
    """The slot in these 512 bytes, or None where they are torn, damaged or empty.

    :raises UnsupportedFormat: intact, of another major version or with an unknown feature.
    """
    slot = _SLOT.unpack(buf512)
    return slot if slot is not None and _bits_fit(slot) else None


def newest(buf: bytes) -> tuple[SeekSlot | None, int, bool]:
    """The newest slot of a seek file's bytes, its index, and whether any slot is invalid; see ``newest_slot``.

    :raises UnsupportedFormat: a slot is intact but of a newer format.
    """
    return newest_slot(buf, unpack_slot)


def _bits_fit(slot: SeekSlot) -> bool:
    """Whether no bit is set beyond those used."""
    return 0 <= slot.bits_used <= BITMAP_BITS and not int.from_bytes(slot.bitmap, "little") >> slot.bits_used
