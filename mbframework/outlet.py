"""The sending half of a lane: which messages go next, and what an answer of the provider means for each.

Promises
--------
- One flight at a time, in order; what failed is sent again before anything behind it.
- Spool first, then memory: the spool always lies in front.
- A message leaves by exactly one account: delivered, dead (after it is on the device among the dead letters),
  expired, pruned, purged or lost.
- Nothing takes effect once the lane's epoch was raised (``close()`` gave up on a stuck sender).

The sender's thread calls everything, except where a method says otherwise.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mbframework.deadletters import DeadLetters
from mbframework.errors import SendFailed, UnsupportedFormat
from mbframework.events import EventLog
from mbframework.files import Files
from mbframework.flight import Flight
from mbframework.lane import Lane
from mbframework.ledger import Ledger
from mbframework.place import Place
from mbframework.spool.reader import Acceptance, Gap, SpoolReader
from mbframework.spool.segment_header import SegmentHeader

if TYPE_CHECKING:
    from mbframework.config import Config

_log = logging.getLogger("mbframework.sender")
#: Reads that find nothing where the tail says that there is something, before it counts as lost.
_MISSES = 5
#: No expiry for so long after a jump of the wall clock by more than _STEP_NS.
_STEP_PAUSE_NS = 60 * 10**9
_STEP_NS = 10 * 10**9
#: Seconds until a device that took no dead letter is asked again.
_STORE_AGAIN = 1.0


class Retired(Exception):
    """The lane's epoch was raised: this sender must not touch anything any more."""


class Hindrance(NamedTuple):
    """Why a lane cannot go on, and the longest wait in seconds before it is tried again; where only a person can help,
    as long as any."""

    why: str
    longest: float = math.inf


class Outlet:
    """See the module. ``lane`` is None in a process that only sends; ``tail`` then tells one past the last
    spooled sequence, or None where that is not known."""

    def __init__(
        self,
        *,
        files: Files,
        config: Config,
        ledger: Ledger,
        lane: Lane | None,
        reader: SpoolReader,
        dead: DeadLetters,
        events: EventLog,
        tail: Callable[[], int | None],
        refresh_floor: Callable[[], bool],
        place: Place,
    ) -> None:
        self._files = files
        self._config = config
        self.ledger = ledger
        self._lane = lane
        self._reader = reader
        self.dead = dead
        self._events = events
        self._tail = tail
        self._refresh_floor = refresh_floor
        self._misses = 0
        #: Whether an attempt at the present flight may have arrived although it failed.
        self._uncertain = False
        #: A gap that was seen once.
        self._gap: Gap | None = None
        self._place = place
        #: Why a person is needed; "" where nobody is. Messages are kept, attempts go on at long intervals.
        self.blocked = ""
        self.epoch = 0
        self.rejected_in_row = 0
        self.order_violations = 0
        #: Boot time at which the backlog was last seen empty.
        self.empty_at = 0
        self._boot_id = files.boot_id()
        self._clock_offset = files.wall_ns() - files.boot_ns()
        self._no_expiry_until = 0

    def take(self, count: int, *, may_go_live: Callable[[], bool]) -> Flight | None:
        """The flight to send: the one that failed, else the next ``count`` messages at most; None: nothing waits.

        :raises UnsupportedFormat: the spool goes on in a format of a newer release.
        :raises OSError: the device failed.
        """
        while True:
            if self.ledger.flight is None:
                self._uncertain = False
            flight = self.ledger.flight or self._read(count) or self._from_memory(count, may_go_live)
            if flight is None:
                return None
            if not self._asks_for_doubt:
                self._expire(flight)
            if flight.open:
                self.ledger.in_doubt = True
                return flight
            self._land(flight)

    @property
    def _asks_for_doubt(self) -> bool:
        """Whether the flight may have arrived, and the provider will tell."""
        return self._uncertain and self.ledger.asks

    def in_question(self) -> bool:
        """Whether age or a floor wants messages of the flight that may have arrived: the provider has to be asked."""
        if not self._asks_for_doubt:
            return False
        with self.ledger.lock:
            flight = self.ledger.flight
            if flight is None:
                return False
            if self.ledger.overtaken(flight):
                return True
        return any(not flight.marks[index] for index in self._expired(flight))

    def told(self, sequence: int) -> None:
        """The provider was asked, and holds everything below ``sequence`` and nothing else of the flight."""
        with self.ledger.lock:
            flight = self.ledger.flight
            if flight is None or not self._uncertain:
                return
            self._uncertain = self.ledger.in_doubt = False
            flight.mark(range(min(len(flight.marks), max(0, sequence - flight.first))), "delivered")
            self.ledger.below_floor(flight)
            self._settle(flight)

    def delivered(self, flight: Flight, indices: Sequence[int], epoch: int) -> None:
        """The provider has acknowledged these. Raises Retired."""
        with self.ledger.lock:
            self._check(epoch)
            flight.mark(indices, "delivered")
            self.rejected_in_row = 0
            self._settle(flight)
        self._tell_overtaken(flight, indices)

    def failed(self, flight: Flight, indices: Sequence[int], error: SendFailed, epoch: int) -> Hindrance | None:
        """The provider has refused a batch of the messages at ``indices``, or part of it.

        Returns what keeps the lane from going on, if anything does.

        :raises Retired: see the class.
        """
        with self.ledger.lock:
            self._check(epoch)
        rejected = {indices[i]: reason for i, reason in error.rejected.items() if 0 <= i < len(indices)}
        if error.undelivered is None:
            undelivered = [index for index in indices if index not in rejected]
        else:
            undelivered = [indices[i] for i in error.undelivered if 0 <= i < len(indices)]
        left = set(undelivered)
        arrived = [index for index in indices if index not in left and index not in rejected]
        hindrance = self._bury(flight, indices, rejected, set(arrived), epoch)
        self._check_order(flight, indices, left, rejected)
        with self.ledger.lock:
            self._check(epoch)
            self._uncertain |= error.uncertain
            self.ledger.in_doubt = self._uncertain
            flight.mark(arrived, "delivered")
            if hindrance is not None:
                flight.note_overtaken(rejected, arrived)
            if not self._asks_for_doubt:
                self.ledger.below_floor(flight)
            self._settle(flight)
        self._tell_overtaken(flight, arrived)
        return hindrance

    def set_aside(self, flight: Flight, reasons: Mapping[int, str], epoch: int) -> Hindrance | None:
        """These messages of a flight, by index, can be sent by no provider: to the dead letters with them.

        Returns what keeps them from there, if anything does.

        :raises Retired: see the class.
        """
        hindrance = self._keep_letters(flight, reasons, epoch)
        with self.ledger.lock:
            self._check(epoch)
            self._settle(flight)
        return hindrance

    def note_progress(self) -> None:
        """Put down what is settled of the flight, where it is on disk."""
        with self.ledger.lock:
            flight = self.ledger.flight
            if flight is not None and flight.open < len(flight.marks):
                self.ledger.progress(flight)

    def expire(self) -> None:
        """Let go of what is too old, or below a floor, while nothing can be sent, unless the provider may have it."""
        flight = self.ledger.flight
        if flight is not None:
            # The provider was closed in the middle of a batch, as before a fork.
            if self._asks_for_doubt:
                return
            self._expire(flight)
            with self.ledger.lock:
                self.ledger.below_floor(flight)
                self._settle(flight)
        if self._config.expire_after is None:
            return
        while True:
            with self.ledger.lock:
                waiting = self.ledger.flight is not None or self.ledger.held
            flight = None if waiting else self._read(self._config.batch_messages)
            if flight is None:
                return
            self._expire(flight)
            if flight.open:
                # It was only looked at.
                self.ledger.in_doubt = False
                self.abandon()
                return
            self._land(flight)

    def abandon(self) -> None:
        """Give the flight back: it is read again. Only of what is on disk."""
        with self.ledger.lock:
            flight = self.ledger.flight
            if flight is not None and not flight.in_memory:
                self.ledger.abandon(flight)

    def skip_to(self, sequence: int) -> int:
        """The provider holds everything below ``sequence`` already; how many messages that settles."""
        total = 0
        # After a fork the provider is opened anew in the middle of a batch: what is settled of it is remembered.
        self.abandon()
        while True:
            with self.ledger.lock:
                position = self.ledger.next
            if position >= sequence:
                return total
            flight = self._read(min(self._config.batch_messages, sequence - position))
            if flight is None:
                with self.ledger.lock:
                    ordinal = self._lane.spool.ordinal if self._lane is not None else self.ledger.ordinal
                    self.ledger.advance(sequence, max(ordinal, self.ledger.ordinal), "delivered")
                return total
            inside = range(min(len(flight.marks), max(0, sequence - flight.first)))
            if not inside:
                self.abandon()
                return total
            with self.ledger.lock:
                total += flight.mark(inside, "delivered")
                self._settle(flight)
                if flight.open:
                    # What the provider holds ends within this flight; the rest is sent as it is.
                    return total

    def close(self) -> None:
        """Let go of the spool's files."""
        self._reader.close()

    # ---- where the next messages are

    def _read(self, count: int) -> Flight | None:
        while True:
            with self.ledger.lock:
                slot = self.ledger.slot
                position, ordinal, hint = slot.next, slot.ordinal, (slot.segment, slot.offset)
            until = self._tail()
            if until is not None and position >= until:
                return None
            # What another directory holds is another process's to send.
            self._place.check()
            found = self._reader.read(
                position,
                ordinal,
                until=until,
                max_messages=count,
                max_bytes=self._config.batch_bytes,
                hint=hint,
            )
            if isinstance(found, Gap):
                self._cross(position, ordinal, found)
                continue
            if found is None:
                self._missed(position, until)
                return None
            self._misses = 0
            flight = Flight(found, in_memory=False)
            with self.ledger.lock:
                if self.ledger.begin(flight):
                    return flight

    def _cross(self, position: int, ordinal: int, gap: Gap) -> None:
        if gap.next == position and not gap.lost:
            return
        if gap.lost and self._refresh_floor():
            return
        if gap.lost and not self._agreed(gap):
            return
        with self.ledger.lock:
            if self.ledger.next != position:
                return
            self.ledger.lose(position, gap.next, gap.ordinal)
        if gap.lost:
            self._lost(position, gap.next, gap.lost, gap.reason)

    def _missed(self, position: int, until: int | None) -> None:
        """Nothing is to be read although the writer, in this process, says that there is."""
        lane = self._lane
        if lane is None or until is None:
            return
        self._misses += 1
        # Whatever is open may not be what the directory holds by now.
        self._reader.close()
        if self._misses < _MISSES or self._refresh_floor():
            return
        with self.ledger.lock, lane.lock:
            end, ordinal = lane.spool.end, lane.spool.ordinal
            if self.ledger.next != position or position >= end:
                return
            # Whatever happened to that file, new messages must not follow into it.
            lane.spool.retire()
            lost = ordinal - self.ledger.ordinal - self.ledger.slot.settled
            self.ledger.lose(position, end, ordinal)
        self._misses = 0
        self._lost(position, end, lost, "unreadable or missing on disk")

    def _agreed(self, gap: Gap) -> bool:
        """Whether a second look finds the same: a directory that is away for a moment is no loss."""
        self._place.check()
        agreed, self._gap = gap == self._gap, gap
        self._reader.close()
        return agreed

    def lose_rest(self, missing: int, end: int = 0) -> None:
        """``missing`` messages that the spool once held are in no segment any more, and no writer is at work: what was
        found is settled, so they stood at its end, below ``end`` where that is known. Any thread."""
        with self.ledger.lock:
            slot = self.ledger.slot
            position = slot.next
            if self.ledger.flight is not None:
                return
            self.ledger.lose(position, max(position, end), slot.ordinal + slot.settled + missing)
        self._lost(position, position + missing, missing, "unreadable or missing on disk, at the end of the spool")

    def _lost(self, first: int, end: int, count: int, reason: str) -> None:
        _log.error("%d messages (sequences %d to %d) are lost: %s", count, first, end - 1, reason)
        self._events.tell("lost", first=first, last=end - 1, messages=count, reason=reason)
        self._events.observe("lost", first_sequence=first, last_sequence=end - 1, messages=count, reason=reason)

    def _from_memory(self, count: int, may_go_live: Callable[[], bool]) -> Flight | None:
        lane = self._lane
        if lane is None:
            self.empty_at = self._files.boot_ns()
            return None
        with self.ledger.lock, lane.lock:
            ledger, spool = self.ledger, lane.spool
            if ledger.flight is not None or ledger.next < spool.end:
                return None
            missing = spool.ordinal - ledger.ordinal
            if missing > 0:
                # The spool once reached farther than what is left of it (a power loss took its end).
                self.ledger.lose(ledger.next, ledger.next, spool.ordinal)
                self._lost(ledger.next, ledger.next, missing, "not on the device when the machine stopped")
            self.empty_at = self._files.boot_ns()
            flight = lane.take_memory(count, self._config.batch_bytes)
            if flight is None:
                if not lane.live and not lane.closed and not lane.lingering() and may_go_live():
                    lane.enter_live("the backlog is delivered and the provider keeps up")
                return None
            if not ledger.begin(flight):
                raise AssertionError("a flight from memory lies in front of the seek")
            return flight

    # ---- what became of them

    def _settle(self, flight: Flight) -> None:
        if flight.open:
            self.ledger.progress(flight)
        else:
            self._land(flight)

    def _land(self, flight: Flight) -> None:
        with self.ledger.lock:
            if self._lane is not None:
                with self._lane.lock:
                    ordinal = self._lane.end_flight(flight, self.ledger.ordinal)
            else:
                ordinal = self.ledger.ordinal + len(flight.marks)
            self.ledger.land(flight, ordinal)

    def _check(self, epoch: int) -> None:
        if epoch != self.epoch:
            raise Retired

    def _check_order(self, flight: Flight, indices: Sequence[int], left: set[int], rejected: Mapping[int, str]) -> None:
        """What was not delivered must be the end of its ordering domain."""
        failed: set[tuple[str, int, bytes | None]] = set()
        violations = 0
        for index in indices:
            if index in left:
                failed.add(flight.domain(index))
            elif failed and index not in rejected and flight.domain(index) in failed:
                violations += 1
        self._tell_violations(flight, indices, violations)

    def _tell_overtaken(self, flight: Flight, indices: Sequence[int]) -> None:
        """Of messages that were delivered: those that the provider had rejected, and took after all, behind others."""
        if flight.overtaken:
            self._tell_violations(flight, indices, len(flight.overtaken.intersection(indices)))

    def _tell_violations(self, flight: Flight, indices: Sequence[int], violations: int) -> None:
        if violations:
            self.order_violations += violations
            first = flight.first + indices[0]
            _log.error("the provider broke the order of %d messages in the batch from %d on", violations, first)
            self._events.tell("order-violation", first=first, last=flight.first + indices[-1], messages=violations)

    def _bury(
        self, flight: Flight, indices: Sequence[int], rejected: Mapping[int, str], arrived: set[int], epoch: int
    ) -> Hindrance | None:
        """Rejected messages go to the dead letters, unless there are suspiciously many in a row."""
        if not rejected:
            if arrived:
                self.rejected_in_row = 0
            return None
        reason = self._events.scrub(next(iter(rejected.values())))
        row, worst = self._rejected_in_row(flight, indices, rejected, arrived)
        if worst >= self._config.max_rejections:
            return Hindrance(
                f"{worst} messages in a row were rejected, which looks like trouble of the provider: {reason}"
            )
        stopped = self._keep_letters(flight, rejected, epoch)
        if stopped is None:
            self.rejected_in_row = row
        return stopped

    def _keep_letters(self, flight: Flight, rejected: Mapping[int, str], epoch: int) -> Hindrance | None:
        """Put messages among the dead letters, each with its reason; on the device when this returns."""
        chosen = sorted(rejected)
        batch = flight.batch(chosen)
        reasons = {i: self._events.scrub(rejected[index]) for i, index in enumerate(chosen)}
        try:
            stored, full = self.dead.add(batch, reasons)
        except UnsupportedFormat as error:
            return Hindrance(f"the dead letters cannot be stored: {error}")
        except OSError as error:
            # A full device may have room again at any moment.
            return Hindrance(f"the dead letters cannot be stored: {error}", _STORE_AGAIN)
        with self.ledger.lock:
            self._check(epoch)
            flight.mark(chosen[:stored], "dead")
            if self.ledger.watchers:
                self.ledger.reasons.update((batch.sequences[i], reasons[i]) for i in range(stored))
        for i in range(stored):
            sequence, topic, why = batch.sequences[i], batch.topics[i], reasons[i]
            self._events.tell("dead", sequence=sequence, topic=topic, reason=why)
            self._events.observe("dead", sequence=sequence, topic=topic, reason=why)
        if not full:
            return None
        return Hindrance(
            f"the dead letters are full ({full}): raise dead_total_size, or use mb dead replay or mb dead drop"
        )

    def _rejected_in_row(
        self, flight: Flight, indices: Sequence[int], rejected: Mapping[int, str], arrived: set[int]
    ) -> tuple[int, int]:
        """How many messages at the end of the batch were rejected in a row, and at the worst place in it."""
        row = worst = self.rejected_in_row
        last = max(rejected)
        asked = set(indices)
        for index in range(indices[0], last + 1):
            if index in rejected:
                row += 1
                worst = max(worst, row)
            elif index in asked or flight.marks[index] == "delivered":
                # The provider took it, or looked at it and went on.
                row = 0
        if any(index > last for index in arrived):
            row = 0
        return row, worst

    def _expired(self, flight: Flight) -> list[int]:
        """The indices of what is too old."""
        limit = self._config.expire_after
        if limit is None or not self._clock_is_steady():
            return []
        start = 0
        expired: list[int] = []
        header, horizon = None, 0
        for each in flight.acceptances():
            if each.header is not header:
                header = each.header
                horizon = self._now_in(header) - int(limit * 1e9)
            if each.accepted < horizon:
                expired.extend(range(start, start + each.count))
            start += each.count
        return expired

    def _expire(self, flight: Flight) -> None:
        limit, expired = self._config.expire_after, self._expired(flight)
        if limit is None or not expired:
            return
        with self.ledger.lock:
            number = flight.mark(expired, "expired")
            if number and flight.open:
                self.ledger.progress(flight)
        if number:
            first, last = flight.first + expired[0], flight.first + expired[-1]
            self._events.tell("expired", first=first, last=last, messages=number, limit_s=limit)
            self._events.observe(
                "expired", first_sequence=first, last_sequence=last, messages=number, size=0,
                reason=f"older than expire_after ({limit:g} s)",
            )  # fmt: skip

    def age_ns(self, acceptance: Acceptance) -> int:
        """Nanoseconds since acceptance: by the boot clock within a boot, else by the wall clock, which may have been
        set back since (then 0). Any thread."""
        age = self._now_in(acceptance.header) - acceptance.accepted
        return age if acceptance.header.boot_id == self._boot_id else max(0, age)

    def _now_in(self, header: SegmentHeader) -> int:
        """The present moment on the clock by which messages of a segment were accepted."""
        if header.boot_id == self._boot_id:
            return self._files.boot_ns()
        return self._files.wall_ns() - header.wall_ns + header.boot_ns

    def _clock_is_steady(self) -> bool:
        now = self._files.boot_ns()
        offset = self._files.wall_ns() - now
        if abs(offset - self._clock_offset) > _STEP_NS:
            self._no_expiry_until = now + _STEP_PAUSE_NS
        self._clock_offset = offset
        return now >= self._no_expiry_until
