"""What has left a lane: the seek and the exit accounts, and the batch that is on its way.

Promises
--------
- Only the holder of the sender's lock has a ledger; nobody else counts exits.
- Every message that leaves is counted in exactly one account, in the same store that moves the seek past it:
  a kill between the two cannot happen.
- A message of a batch that was settled out of order is remembered by a bit beside the seek, so that neither a
  restart nor a retry sends it or counts it again (the first ``BITMAP_BITS`` of a batch; beyond them, after a kill,
  a documented repeat).
- Messages below a floor (pruned or purged) leave at once, those in flight when their batch is answered. What a sender
  before this one had in hand when it was killed may have arrived: where that is told, floors wait for the provider's
  word (:meth:`Ledger.hold`, :meth:`Ledger.release`), and so does who lets messages expire (``held``).
- A device without room for the seek holds up nothing: what it did not take, the next store or sync puts down.
- Each watcher is told of every message that leaves while it watches, by sequence and account, before the seek has
  moved past it.

``lock`` guards everything; the order of locks is ledger, then lane. ``lock`` is a condition that is notified
whenever the seek moves.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mbframework.files import Files, is_full
from mbframework.flight import Flight
from mbframework.spool import layout, seek
from mbframework.spool.seek import BITMAP_BITS, SeekSlot
from mbframework.spool.slots import SlotFile

_log = logging.getLogger("mbframework")
#: The accounts of what lies below a floor that the head knows as well.
_FLOORS = ("pruned", "purged")
#: The accounts that a seek keeps; each is the name of a field of its slot.
ACCOUNTS = ("delivered", "pruned", "expired", "dead", "lost", "purged", "returned")


class Watcher(Protocol):
    """Somebody who wants to know what becomes of single messages. Called with the ledger's lock held, perhaps also the
    lane's: it must neither wait nor call back."""

    def settled(self, first: int, end: int, account: str, reason: str) -> None:
        """The sequences from ``first`` up to, without, ``end`` left by ``account``. Some of them may never have been
        given to a message, and of some it may have been told before: the first word counts."""

    def closed(self) -> None:
        """Nothing more is told."""


@dataclass(slots=True)
class _Floor:
    sequence: int = 0
    ordinal: int = 0
    account: str = "pruned"
    #: Messages below the floor that never had an ordinal (they were in memory only).
    extra: int = 0


@dataclass
class Ledger:
    """See the module. ``slot`` is the seek as it stands; write to it only through the methods."""

    files: Files
    slots: SlotFile
    slot: SeekSlot
    lock: threading.Condition = field(default_factory=lambda: threading.Condition(threading.RLock()))
    flight: Flight | None = None
    _floors: list[_Floor] = field(default_factory=list)
    _synced_next: int = 0
    #: One past what the sender before had in hand; no floor takes anything below it. 0: that is settled.
    _held: int = 0
    #: Whether what is open of the flight may have arrived: while it is sent, and after an answer that cannot tell.
    in_doubt: bool = True
    #: Whether the provider keeps its position: what is in doubt is not counted out before it has been asked.
    asks: bool = False
    #: Whether the seek names the end of the flight.
    _named: bool = True
    #: The device had no room for what the seek says now.
    _unstored: bool = False
    #: Messages settled since opening; for rates.
    settled: int = 0
    watchers: list[Watcher] = field(default_factory=list)
    #: Why messages of the flight are dead, by sequence, for the watchers.
    reasons: dict[int, str] = field(default_factory=dict)

    @classmethod
    def open(cls, files: Files, directory: str, slot: SeekSlot, durable: int, *, exists: bool) -> Ledger:
        """The seek file of a lane, made where it is missing or the device refuses some of it."""
        path = os.path.join(directory, layout.SEEK_FILE)
        if exists:
            slots = SlotFile.resume(files, path, durable, seek.SEEK_FILE_SIZE, slot.pack())
            ledger = cls(files, slots, slot)
        else:
            slot.generation += 1
            ledger = cls(files, SlotFile.create(files, path, seek.SEEK_FILE_SIZE, slot.pack()), slot)
        ledger._synced_next = slot.next
        return ledger

    @property
    def next(self) -> int:
        """The first sequence that is not settled."""
        return self.slot.next

    @property
    def ordinal(self) -> int:
        """Spooled messages that have left, those settled ahead of the seek left out."""
        return self.slot.ordinal

    @property
    def synced_next(self) -> int:
        """The seek as it is on the device: what a delivered segment must lie below before it is removed."""
        return self._synced_next

    def outlook(self, flight_spilled: int = 0) -> dict[str, int]:
        """What floors that wait for the flight to land have taken already, by account; under "spooled", how many of
        these messages had been spooled. Of a flight in memory, ``flight_spilled`` are. ``lock`` is held."""
        result: dict[str, int] = {}
        if not self._floors:
            return result
        flight = self.flight
        if flight is None:
            distance = self._held - self.slot.next
        else:
            distance = flight_spilled if flight.in_memory else len(flight.marks)
        at, bits = self.slot.ordinal + distance, self._bits() >> distance
        for floor in self._floors:
            distance = max(0, floor.ordinal - at)
            gone = distance - _lowest(bits, distance).bit_count()
            at, bits = at + distance, bits >> distance
            result[floor.account] = result.get(floor.account, 0) + gone + floor.extra
            result["spooled"] = result.get("spooled", 0) + gone
        return result

    def begin(self, flight: Flight) -> bool:
        """Take off; False where the seek has moved since the flight was read. ``lock`` is held."""
        if self.flight is not None or flight.first < self.slot.next:
            return False
        if not flight.in_memory and flight.first != self.slot.next:
            return False
        settled = self._bits()
        if settled and not flight.in_memory:
            known = [i for i in range(min(len(flight.marks), BITMAP_BITS)) if settled >> i & 1]
            flight.mark(known, "counted")
        self.slot.batch_end = flight.end
        self.flight = flight
        self._named = False
        self.name_flight()
        return True

    def name_flight(self) -> None:
        """A floor takes nothing of what the provider has in hand: who reads the seek must know what that is, once it is
        on disk. Any thread."""
        with self.lock:
            if self.flight is not None and not self.flight.in_memory and not self._named:
                self._publish()

    def progress(self, flight: Flight) -> None:
        """Count what is settled of a flight that goes on; only one that is on disk. ``lock`` is held."""
        if flight is not self.flight or flight.in_memory:
            return
        bits = self._bits()
        fresh: list[int] = []
        for index, mark in enumerate(flight.marks[:BITMAP_BITS]):
            if mark and not bits >> index & 1:
                bits |= 1 << index
                self._count(mark, 1)
                fresh.append(index)
        self._keep(bits)
        self._tell_of(flight, fresh)
        self._publish()

    def land(self, flight: Flight, ordinal: int) -> None:
        """Everything in the flight is settled: move past it, to ``ordinal``. ``lock`` is held."""
        if flight is not self.flight or flight.open:
            raise AssertionError("only a settled flight lands")
        bits = self._bits()
        tally: dict[str, int] = {}
        if (
            not bits
            and flight.marks[0] == flight.marks[-1]
            and flight.marks.count(flight.marks[0]) == len(flight.marks)
        ):
            tally[flight.marks[0]] = len(flight.marks)
            fresh: Sequence[int] = range(len(flight.marks))
        else:
            fresh = [index for index in range(len(flight.marks)) if not bits >> index & 1]
            for index in fresh:
                tally[flight.marks[index]] = tally.get(flight.marks[index], 0) + 1
        for mark, number in tally.items():
            self._count(mark, number)
        self._tell_of(flight, fresh)
        slot = self.slot
        # A batch that was larger, before a restart, may have left bits behind the end of this one.
        self._keep(bits >> max(0, ordinal - slot.ordinal))
        slot.next, slot.ordinal = flight.end, ordinal
        slot.run = flight.run.run or slot.run
        slot.segment, slot.offset = flight.run.segment, flight.run.offset
        self.flight = None
        self.reasons.clear()
        self._apply_floors()
        self._publish()

    def abandon(self, flight: Flight) -> None:
        """Forget the flight; what is not settled of it will be read again. ``lock`` is held."""
        if flight is self.flight:
            if not flight.in_memory:
                # A floor beyond it may be from the time when it was in memory and had no ordinals.
                behind = self.slot.ordinal + len(flight.marks)
                for floor in self._floors:
                    if floor.sequence >= flight.end:
                        floor.ordinal = max(floor.ordinal, behind)
            if not self.in_doubt:
                # The next sender need not ask.
                self.slot.batch_end = self.slot.next
            self.flight = None
            self.reasons.clear()
            self._apply_floors()
            self._publish()

    def overtaken(self, flight: Flight) -> bool:
        """Whether a floor wants messages of a flight. ``lock`` is held."""
        return any(floor.sequence > flight.first for floor in self._floors)

    def below_floor(self, flight: Flight) -> None:
        """Settle those messages of a failed flight that a floor has overtaken. ``lock`` is held."""
        for floor in self._floors:
            if floor.sequence > flight.first:
                flight.mark(range(min(floor.sequence, flight.end) - flight.first), floor.account)

    def advance(self, sequence: int, ordinal: int, account: str, extra: int = 0) -> None:
        """Everything below ``sequence`` (``ordinal``) leaves by ``account``; with a flight under way, what lies
        below its end follows when it lands. ``extra``: messages that never had an ordinal."""
        with self.lock:
            if account not in _FLOORS:
                self._held = 0
            last = self._floors[-1] if self._floors else None
            if last is not None and last.account == account and not extra and sequence >= last.sequence:
                # As many as there are, the highest tells all of them.
                last.sequence, last.ordinal = sequence, max(ordinal, last.ordinal)
            else:
                self._floors.append(_Floor(sequence, ordinal, account, extra))
            if self.flight is None:
                self._apply_floors()
                self._publish()

    def apply_floor(self, sequence: int, ordinal: int) -> bool:
        """Prune below the writer's floor, which is on the device; True where it was news."""
        with self.lock:
            if sequence <= self.slot.floor_applied or any(floor.sequence >= sequence for floor in self._floors):
                return False
            self.advance(sequence, ordinal, "pruned")
            return True

    def hold(self) -> None:
        """For who will ask the provider what it has: until :meth:`release`, floors wait behind what the sender before
        had in hand."""
        with self.lock:
            self._held = self.slot.batch_end

    @property
    def held(self) -> bool:
        """Whether nobody knows yet what became of what the sender before had in hand. ``lock`` is held."""
        return self._held > self.slot.next

    @property
    def waiting(self) -> bool:
        """Whether floors wait for :meth:`release`: what lies below them is not to be read. ``lock`` is held."""
        return bool(self._floors) and self.held

    def release(self, sequence: int = 0) -> None:
        """The provider holds everything below ``sequence``; 0: it cannot tell."""
        with self.lock:
            if self.waiting:
                # What lies above the floor is still there to be read. A batch has no gaps; it may have been in memory:
                # then less of it, or nothing, ever had an ordinal.
                floor = self._floors[-1]
                reached = min(sequence, self._held, floor.sequence)
                if reached > self.slot.next:
                    ordinal = self.slot.ordinal + reached - self.slot.next
                    self._move(reached, min(ordinal, floor.ordinal), "delivered")
                self._held = 0
                self._apply_floors()
                self._publish()
            self._held = 0

    def lose(self, at: int, sequence: int, ordinal: int) -> None:
        """What lay between the seek, which stood at ``at``, and ``sequence`` cannot be read."""
        with self.lock:
            if self.slot.next == at and self.flight is None:
                self._move(sequence, ordinal, "lost")
                self._publish()

    def sync(self) -> None:
        """Put the seek on the device. Raises OSError."""
        with self.lock:
            reached = self.slot.next
        self.slots.sync()
        self._synced_next = max(self._synced_next, reached)

    def close(self) -> None:
        """Publish and let go of the file. Floors that waited for a flight on disk wait no longer."""
        try:
            with self.lock:
                if self.slots.fd >= 0:
                    self._end_flight()
                    self._end_hold()
                    self._publish()
        finally:
            self.slots.close()
            with self.lock:
                watchers, self.watchers = self.watchers, []
                for watcher in watchers:
                    watcher.closed()

    def _end_flight(self) -> None:
        flight = self.flight
        if flight is None or flight.in_memory:
            return
        if self.in_doubt and self.asks:
            self._held = self.slot.batch_end
        else:
            self.below_floor(flight)
        if flight.open:
            self.progress(flight)
            self.abandon(flight)
        else:
            self.land(flight, self.slot.ordinal + len(flight.marks))

    def _end_hold(self) -> None:
        """The provider was not asked: the next sender does it, and finds the writer's floor in the head. But what was
        purged must not come back: then everything goes, and what the sender before had in hand may have arrived."""
        if not self.waiting:
            return
        if any(floor.account == "purged" for floor in self._floors):
            self._held = 0
            self._apply_floors()

    def _apply_floors(self) -> None:
        if self.waiting:
            return
        floors, self._floors = self._floors, []
        for floor in floors:
            if floor.sequence > self.slot.next or floor.extra:
                self._move(max(floor.sequence, self.slot.next), max(floor.ordinal, self.slot.ordinal), floor.account)
                self._count(floor.account, floor.extra)
            if floor.account in _FLOORS:
                self.slot.floor_applied = max(self.slot.floor_applied, floor.sequence)
                self.slot.floor_ordinal = max(self.slot.floor_ordinal, floor.ordinal)

    def _move(self, sequence: int, ordinal: int, account: str) -> None:
        """Past everything below; bits that are passed were counted already."""
        slot = self.slot
        if sequence > slot.next:
            for watcher in self.watchers:
                watcher.settled(slot.next, sequence, account, "")
        bits = self._bits()
        # A bit stands for a spooled message, so that sequences which were never spooled do not count.
        distance = ordinal - slot.ordinal
        self._count(account, max(0, distance - _lowest(bits, distance).bit_count()))
        self._keep(bits >> distance)
        slot.next, slot.ordinal = sequence, ordinal
        slot.segment = slot.offset = 0

    def _bits(self) -> int:
        return int.from_bytes(self.slot.bitmap, "little")

    def _keep(self, bits: int) -> None:
        self.slot.bitmap, self.slot.bits_used = bits.to_bytes(seek.BITMAP_SIZE, "little"), bits.bit_length()

    def _count(self, account: str, number: int) -> None:
        if account != "counted" and number:
            setattr(self.slot, account, getattr(self.slot, account) + number)
            self.settled += number

    def _tell_of(self, flight: Flight, indices: Sequence[int]) -> None:
        """What became of these messages of a flight, to who wants to know."""
        if not self.watchers:
            return
        for start, stop, account in runs_of(flight.marks, indices):
            reason = self.reasons.get(flight.first + start, "") if account == "dead" else ""
            for watcher in self.watchers:
                watcher.settled(flight.first + start, flight.first + stop, account, reason)

    def _publish(self) -> None:
        slot = self.slot
        slot.generation += 1
        slot.wall_ns = self.files.wall_ns()
        try:
            self.slots.write(slot.pack())
        except OSError as error:
            if not is_full(error):
                raise
            # A file system that copies on write. Neither the provider nor the application has to wait for room: the
            # position is known, and the next store or sync puts it down.
            if not self._unstored:
                _log.warning("the seek cannot be stored (%s): a kill repeats what is delivered from now on", error)
            self._unstored = True
        else:
            self._unstored = False
        self._named = True
        self.lock.notify_all()


def _lowest(bits: int, count: int) -> int:
    """The bits of the first ``count`` messages; no more than there can be, since a backlog has no such limit."""
    return bits & ((1 << min(count, BITMAP_BITS)) - 1)


def runs_of(marks: Sequence[str], indices: Sequence[int]) -> Iterator[tuple[int, int, str]]:
    """The marks at ``indices``, which rise, as runs (first, end, mark); each of the dead for itself, since each has its
    own reason, and those that an earlier answer has counted left out."""
    if isinstance(indices, range) and indices and marks[0] != "dead" and marks.count(marks[0]) == len(indices):
        # As nearly every batch ends: all of it, at once.
        runs = [(0, len(indices), marks[0])]
    else:
        runs = []
        for index in indices:
            mark = marks[index]
            if runs and runs[-1][1] == index and runs[-1][2] == mark != "dead":
                runs[-1] = runs[-1][0], index + 1, mark
            else:
                runs.append((index, index + 1, mark))
    return (run for run in runs if run[2] != "counted")
