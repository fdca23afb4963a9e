r"""The slots and the live page of ``head``: what a lane's writer knows.

Promises: pure functions on bytes, any thread. The slot with the highest generation among the intact ones is
the authority. The live page has no CRC: it is stored field by field through a memory map while messages go
past the disk, and counts only where its run and boot agree with the slot.

One slot, 512 bytes (little-endian)::

      0  4s  magic "MBHD"                         144  u64 floor sequence, floor ordinal
      4  u16 major, u16 minor                     160  u64 lost_live, lost_linger, accepted
      8  u64 generation                           184  i64 wall ns
     16  16s buffer id, 16s run id, 16s boot id   192  u64 boot-time ns, lane epoch
     64  u64 next, reserved_until,                208  u32 flags, u32 incompatible features
         first of this run, ordinal               216  32s fingerprint of the destination
     96  u64 synced segment, offset, sequence     248  u64 returned, zeros
    120  u64 checkpoint segment, offset, sequence 508  u32 CRC of the 508 bytes before

Live page, at LIVE_PAGE of the file::

      0  8s magic "MBLIVE\r\n", 16s run id, 16s boot id
     40  u64 next (stored after acceptance), acknowledged, segment, tail, heartbeat, sleeping
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from mbframework.spool.layout import HEAD_MAGIC, ID_SIZE, LIVE_MAGIC, SLOT_COUNT, SLOT_STRIDE, U64_LIMIT
from mbframework.spool.record import SlotFormat, newest_slot

#: The writer stopped in order: nothing after this slot was accepted.
CLEAN = 1
#: Messages may have been accepted without being spooled.
LIVE = 2

FINGERPRINT_SIZE = 32

LIVE_PAGE = SLOT_COUNT * SLOT_STRIDE
LIVE_SIZE = 88
HEAD_FILE_SIZE = LIVE_PAGE + SLOT_STRIDE

# Offsets in the file of aligned u64s.
LIVE_NEXT = LIVE_PAGE + 40
LIVE_ACKNOWLEDGED = LIVE_PAGE + 48
LIVE_SEGMENT = LIVE_PAGE + 56
LIVE_TAIL = LIVE_PAGE + 64
LIVE_HEARTBEAT = LIVE_PAGE + 72
LIVE_SLEEPING = LIVE_PAGE + 80

_LIVE = Struct("<8s16s16s6Q")


@dataclass(slots=True, kw_only=True)
class HeadSlot:
    """One slot, its fields in the order of the bytes.

    ``next``, ``reserved_until`` (synced before any sequence from it on is given out), ``run_first``,
    ``synced_sequence``, ``checkpoint_sequence`` and ``floor`` are sequences; ``synced_segment`` and
    ``checkpoint_segment`` are the first sequences of segments, and the offsets beside them bytes; ``ordinal``
    and ``floor_ordinal`` count spooled messages; ``lost_live``, ``lost_linger``, ``accepted`` and ``returned`` (what
    the seek, with a backlog in front, could not pass) are accounts.
    ``flags`` is CLEAN, LIVE or both; ``destination`` the fingerprint of the provider's destination, zeros: unknown.
    """

    generation: int
    buffer_id: bytes
    run: bytes
    boot_id: bytes
    next: int = 1
    reserved_until: int = 1
    run_first: int = 1
    ordinal: int = 0
    synced_segment: int = 0
    synced_offset: int = 0
    synced_sequence: int = 0
    checkpoint_segment: int = 0
    checkpoint_offset: int = 0
    checkpoint_sequence: int = 0
    floor: int = 0
    floor_ordinal: int = 0
    lost_live: int = 0
    lost_linger: int = 0
    accepted: int = 0
    wall_ns: int = 0
    boot_ns: int = 0
    epoch: int = 0
    flags: int = 0
    incompatible: int = 0
    destination: bytes = bytes(FINGERPRINT_SIZE)
    returned: int = 0

    def pack(self) -> bytes:
        """The slot's 512 bytes.

        :raises ValueError: a field is out of its range.
        """
        return _SLOT.pack(self)


_SLOT = SlotFormat(HeadSlot, HEAD_MAGIC, "the head", "Q 16s16s16s 15Q q2Q2I 32s Q 252x")


@dataclass(slots=True)
class LivePage:
    """The live page. ``next``, ``acknowledged`` and ``segment`` are sequences, ``tail`` is a byte offset,
    ``heartbeat`` boot-time ns, ``sleeping`` 1 while the sender waits to be woken."""

    run: bytes
    boot_id: bytes
    next: int
    acknowledged: int
    segment: int
    tail: int
    heartbeat: int
    sleeping: int


def unpack_slot(buf512: bytes) -> HeadSlot | None:
    """The slot in these 512 bytes, or None where they are torn, damaged or empty.

    :raises UnsupportedFormat: intact, of another major version or with an unknown feature.
    """
    return _SLOT.unpack(buf512)


def newest(buf: bytes) -> tuple[HeadSlot | None, int, bool]:
    """The newest slot of a head file's bytes, its index, and whether any slot is invalid; see ``newest_slot``.

    :raises UnsupportedFormat: a slot is intact but of a newer format.
    """
    return newest_slot(buf, unpack_slot)


def pack_live(page: LivePage) -> bytes:
    """The page's LIVE_SIZE bytes, to be stored at LIVE_PAGE.

    :raises ValueError: a field is out of its range.
    """
    if {len(page.run), len(page.boot_id)} != {ID_SIZE}:
        raise ValueError(f"run and boot id; expected {ID_SIZE} bytes each")
    counts = (page.next, page.acknowledged, page.segment, page.tail, page.heartbeat, page.sleeping)
    if min(counts) < 0 or max(counts) >= U64_LIMIT:
        raise ValueError(f"a number of {page} is not within 0 to 2^63 - 1")
    return _LIVE.pack(LIVE_MAGIC, page.run, page.boot_id, *counts)


def unpack_live(buf: bytes) -> LivePage | None:
    """The page in the bytes from LIVE_PAGE on, or None where none was stored.

    The caller trusts it only where ``run`` and ``boot_id`` agree with the slot.
    """
    if len(buf) < LIVE_SIZE or buf[: len(LIVE_MAGIC)] != LIVE_MAGIC:
        return None
    _, run, boot_id, *counts = _LIVE.unpack_from(buf)
    return LivePage(run, boot_id, *counts) if max(counts) < U64_LIMIT else None
