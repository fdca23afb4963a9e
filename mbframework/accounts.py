"""The accounts of a lane, from what its directory says.

Promise: accepted = delivered + pruned + expired + dead + purged + lost + resident, where ``accepted`` comes from the
writer's side (head and live page), what left from the sender's side (seek), and ``resident`` from the ordinals of the
segments; nothing is the remainder of the rest, and nothing is negative.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from mbframework.spool import head
from mbframework.spool.seek import BITMAP_BITS, SeekSlot
from mbframework.spool.survey import Survey


@dataclass(frozen=True, slots=True)
class Accounts:
    """Messages, each in exactly one account. ``spooled`` + ``in_memory`` = ``resident``."""

    accepted: int = 0
    delivered: int = 0
    pruned: int = 0
    expired: int = 0
    dead: int = 0
    purged: int = 0
    lost_live: int = 0
    lost_linger: int = 0
    lost_disk: int = 0
    returned: int = 0
    spooled: int = 0
    in_memory: int = 0

    @property
    def lost(self) -> int:
        """Not known to be delivered, and not here any more."""
        return self.lost_live + self.lost_linger + self.lost_disk + self.returned

    @property
    def resident(self) -> int:
        """Waiting, on disk or in memory."""
        return self.spooled + self.in_memory


def floor_ahead(slot: SeekSlot, floor: int, ordinal: int, spooled: int, *, sending: bool) -> int:
    """Messages, of ``spooled`` ones that wait, that the writer has pruned by a floor (a sequence, and its ordinal)
    which the sender has not applied yet. While there is a sender, those that it has in hand are not among them."""
    if floor <= slot.floor_applied:
        return 0
    in_hand = max(0, slot.batch_end - slot.next) if sending else 0
    below = max(0, ordinal - slot.ordinal - in_hand)
    bits = int.from_bytes(slot.bitmap, "little") >> min(in_hand, BITMAP_BITS)
    return min(spooled, below - (bits & ((1 << min(below, BITMAP_BITS)) - 1)).bit_count())


def accounts_of(known: Survey, *, running: bool = True, sending: bool = True) -> Accounts:
    """The accounts that a survey shows.

    A floor that the writer has published and the sender not yet applied counts as pruned, but for the batch that the
    sender has in hand, as long as there is one (``sending``): what nobody holds any more is in no file. Of a writer
    that was killed, what it had accepted and not spooled counts as in memory while it may still be running, as lost
    once it is known not to be.
    """
    slot, top = known.seek, known.head
    if slot is None:
        ordinal = known.ordinal
        first = known.segments[0].header.ordinal if known.segments else ordinal
        return Accounts(accepted=ordinal - first, spooled=ordinal - first)
    ordinal = known.ordinal
    spooled = max(0, ordinal - slot.ordinal - slot.settled)
    pruned = slot.pruned
    if top is not None:
        pending = floor_ahead(slot, top.floor, top.floor_ordinal, spooled, sending=sending)
        pruned += pending
        spooled -= pending
    lost_live = top.lost_live if top else 0
    lost_linger = top.lost_linger if top else 0
    returned = slot.returned + (top.returned if top else 0)
    unspooled = known.lost_unspooled
    # Without a head the writer's own count is gone: what left and what is here is what is known.
    accepted = slot.exits + spooled
    if top is not None:
        accepted = top.accepted
        if known.live is not None and not known.clean:
            # A frame that was stored counts, also where a kill left no time to tell of it.
            accepted += max(0, max(known.live.next, known.spool_end) - top.next)
        elif not known.clean:
            # After another boot the segments tell what was accepted after the head was last stored.
            accepted += max(0, known.tail_ordinal - top.ordinal)
    live = top is not None and bool(top.flags & head.LIVE)
    return Accounts(
        accepted=accepted,
        delivered=slot.delivered,
        pruned=pruned,
        expired=slot.expired,
        dead=slot.dead,
        purged=slot.purged,
        lost_live=lost_live + (0 if running or not live else unspooled),
        lost_linger=lost_linger + (0 if running or live else unspooled),
        lost_disk=slot.lost,
        returned=returned,
        spooled=spooled,
        in_memory=unspooled if running else 0,
    )
