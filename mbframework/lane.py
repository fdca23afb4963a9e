"""The writing half of a lane, and the hand-over between memory and disk.

Promises
--------
- One lock guards acceptance. Under it a message gets its sequence and its place, in memory (live) or in the
  spool, and the spool always lies in front of what is in memory.
- Live → buffering happens under that lock in one step: the batch in flight is appended first, then what waits in
  memory, then new messages. Back again only when the spool is read to its end, checked under the same lock.
- In the steady state ``write()`` makes no system call but a clock's: no network, no sync, no directory. The next
  segment is prepared by the housekeeper. Only where another thread is in the middle of a write, it waits for that one.
- A write that interrupts a write of the same thread, or anything else that holds the lane's lock (a signal handler, a
  finaliser), is put aside, and accepted by the housekeeper's thread, which no handler interrupts.
- Where the extension is in use (:mod:`mbframework.speedups`), it appends in the place of ``write`` and ``write_many``
  whenever nobody has the lock and nothing is unusual; whatever else there is comes here.
- An interrupt (KeyboardInterrupt) between any two statements loses nothing that was accepted and doubles nothing: what
  the spool already holds is dropped from memory before the next message is placed.

Threads: ``write`` and ``write_many`` any; methods that say so need ``lock`` held. Whoever needs the ledger's lock as
well takes that first.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any

from mbframework.admission import MEMORY_ONLY, Admission
from mbframework.aside import PutAside
from mbframework.channel import NEVER, OVERHEAD, Channel, run_of, waiting_of
from mbframework.durability import GroupSync
from mbframework.errors import (
    DiskFailed,
    ModeError,
    NotAccepted,
)
from mbframework.files import Files, is_broken
from mbframework.flight import Flight
from mbframework.frame_draft import FRAME_BYTES, FRAME_COUNT, FRAME_OVERHEAD, FrameDraft
from mbframework.intake import Item, Limits
from mbframework.patience import Obstacle, Patience, Wait, WouldWait
from mbframework.speedups import Gate, Lock
from mbframework.spool import frame, head, layout
from mbframework.spool.headfile import ACKNOWLEDGED, HEARTBEAT, NEXT, SEGMENT, TAIL, HeadFile
from mbframework.spool.prepared import NoSpace
from mbframework.spool.segment_header import SegmentHeader
from mbframework.spool.writer import SpoolWriter
from mbframework.wakeup import Broadcast, Wakeup

if TYPE_CHECKING:
    from mbframework.config import Config

_log = logging.getLogger("mbframework")
_GATHER_BYTES = 256 * 1024
#: Seconds for which a write makes way for another thread's: long enough for that one to get hold of the interpreter.
_MOMENT = 20e-6
#: What the extension asks for the time itself, in the place of this method; not where a test has put another one.
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_BOOT_NS = Files.boot_ns


class Lane(Gate):
    """See the module. Made by :mod:`mbframework.engine`, which owns the threads around it."""

    def __init__(
        self,
        *,
        files: Files,
        config: Config,
        spool: SpoolWriter,
        head_file: HeadFile,
        lock: Lock,
        sends: bool,
    ) -> None:
        slot = head_file.slot
        self.files = files
        real = getattr(files.boot_ns, "__func__", None) is _BOOT_NS
        #: Boot-time nanoseconds, with a call less.
        self._now: Callable[[], int] = partial(time.clock_gettime_ns, _BOOT_CLOCK) if real else files.boot_ns
        self.config = config
        self.limits = Limits.of(config)
        self.max_message = self.limits.max_message
        self._frame_bytes = min(FRAME_BYTES, self.limits.max_message)
        self.spool = spool
        self.head = head_file
        self.lock = lock
        #: Notified when room, the provider, the mode or the state may have changed.
        self.changed = Broadcast()
        self.sends = sends
        self.mode: str = config.mode if sends else "always"
        self.live = self.mode in MEMORY_ONLY
        self.channel = Channel(slot.next)
        #: The batch that the sender took from memory and no segment holds.
        self.flight: Flight | None = None
        self.flight_bytes = 0
        self.flight_oldest = 0
        self._flight_spilled = 0

        #: Messages that the spool had ever held when the lane was opened.
        self.begun_ordinal = spool.ordinal
        self._next = slot.next
        self._before = slot.accepted - slot.next
        self._granted = slot.reserved_until
        self._header = SegmentHeader(
            salt=1, buffer_id=slot.buffer_id, run=slot.run, first=1, ordinal=0, previous_end=0, wall_ns=slot.wall_ns,
            boot_ns=slot.boot_ns, boot_id=slot.boot_id, reserved=0, lane="",
        )  # fmt: skip
        #: What lingers, between the spool and what is accepted next.
        self._gathered = Channel(slot.next)

        #: The threads that are within a write.
        self._inside: set[int] = set()
        self._holds_lock: Callable[[], bool] = lock._is_owned  # type: ignore[attr-defined]  # noqa: SLF001
        self._special = False
        #: The thread whose write_many() is accepted in part: nobody else gets a sequence.
        self.owner = 0
        self._admission = Admission(self)
        self.closed = ""
        self.disk_error = ""
        self.full = ""
        #: How often the housekeeper looked for space, and how often it found none.
        self.space_searches = 0
        self.vain_searches = 0
        self.provider_error: BaseException | None = None
        #: The sender waits for ``wake``, the housekeeper for ``chores``.
        self.sleeping = False
        self.wake = Wakeup()
        self.chores = Wakeup()
        #: Writes that interrupted another one.
        self.aside = PutAside(self.chores)
        #: Set when messages begin to linger.
        self.gathering = Wakeup()
        #: Called with (before, after, reason) under the lock when the lane leaves or enters live.
        self.on_hand_over: Callable[[str, str, str], None] = _nobody_listens
        self.live_accepted = 0
        self.accepted_bytes = 0
        #: Boot time at which the lane last left live.
        self.left_live_at = 0
        self._durability = GroupSync(slot.next, lambda: self.spool.end, self.sync_spool)
        #: Returns when a sequence is on the device, if it is on disk at all. Raises DurabilityError.
        self.make_durable = self._durability.reach
        self.reconsider()
        #: Whether the extension may append: not where each write has more to do than that.
        self._may_be_appended_to = spool.mapped and not (self.limits.linger_ns or self.limits.always_sync)
        if self._may_be_appended_to:
            clock = _BOOT_CLOCK if real else files.boot_ns
            self.arm(spool, lock, clock, self._frame_bytes, FRAME_COUNT, FRAME_OVERHEAD)

    # ---- acceptance: any thread, without the lock

    def write(self, item: Item, raw_topic: bytes, size: int, wait: Wait = True) -> int:
        """Accept one message, already checked; its sequence.

        0 where the call interrupted another write of the same thread, or something that holds the lock: the message is
        accepted, and gets its sequence, soon after.

        :raises NotAccepted: nothing was accepted; see the branches of that error.
        :raises WouldWait: it may not wait, and would.
        :raises DurabilityError: ``fsync="always"`` and the device failed; the message is accepted.
        """
        ident = get_ident()
        if (self._inside and self._interrupts(ident)) or self._holds_lock():
            self.aside.add(self.write, item, raw_topic, size)
            return 0
        patience: Patience | None = None
        try:
            self._inside.add(ident)
            while True:
                try:
                    with self.lock:
                        if self._special or self._next >= self._granted:
                            self._admission.check(1)
                        sequence = self._accept(item, raw_topic, size)
                    break
                except (Obstacle, NoSpace) as hindrance:
                    patience = patience or Patience(wait, self.config.block_timeout, self.files.boot_ns)
                    self._admission.wait(hindrance, patience)
        except OSError as error:
            raise self._disk_failed(error) from error
        finally:
            self._inside.discard(ident)
            if self.sleeping:
                self.sleeping = False
                self.wake.set()
        if self.limits.always_sync and wait:
            self.make_durable(sequence)
        return sequence

    def write_many(self, items: Sequence[Item], size: int, wait: Wait = True) -> range:
        """Accept messages, already checked, with successive sequences; ``size`` is theirs together in bytes.

        :raises NotAccepted: with ``on_full="reject"``, when a wait ran out, or the device failed: ``accepted`` on the
            error is the range of those that were accepted before.
        :raises WouldWait: it may not wait, and would; nothing was accepted where all :meth:`fit_together`.
        """
        ident = get_ident()
        if ident in self._inside or self._holds_lock():
            self.aside.add(self.write_many, items, size)
            return range(0)
        if not items:
            return range(self._next, self._next)
        first = done = 0
        patience: Patience | None = None
        try:
            self._inside.add(ident)
            while done < len(items):
                try:
                    with self.lock:
                        if self._special or self._next + len(items) >= self._granted:
                            self._admission.check(len(items))
                        if not first:
                            if self._admission.too_much_for_memory(len(items), size):
                                self.leave_live("more was written at once than memory may hold")
                            self._mend()
                            first = self._sequence()
                            self.accepted_bytes += size
                        try:
                            self._accept_many(items, first, size)
                        finally:
                            done = self._sequence() - first
                            if not done:
                                # While this call waits the sequences are anybody's.
                                first = 0
                                self.accepted_bytes -= size
                            if 0 < done < len(items):
                                # Until the last of them is in, nobody else gets a sequence: the range has no gap.
                                self.owner = ident
                                self.reconsider()
                except (Obstacle, NoSpace) as hindrance:
                    patience = patience or Patience(wait, self.config.block_timeout, self.files.boot_ns)
                    self._admission.wait(hindrance, patience)
        except (NotAccepted, WouldWait) as refusal:
            refusal.accepted = range(first, first + done)
            raise
        except OSError as error:
            failure = self._disk_failed(error)
            failure.accepted = range(first, first + done)
            raise failure from error
        finally:
            self._inside.discard(ident)
            if self.owner == ident:
                self._disown(ident)
            if self.sleeping:
                self.sleeping = False
                self.wake.set()
        if self.limits.always_sync and wait:
            self.make_durable(first + done - 1)
        return range(first, first + done)

    def _interrupts(self, ident: int) -> bool:
        """Whether this call interrupts another one of its thread. Where it is another thread that is within a write, it
        makes way for that one, once.

        Who is inside and does not run has lost the interpreter in the middle of a write. Where others queue for the
        lock that it holds, each hands it to the next, and every message costs a change of threads. Where they find it
        free, each goes on until the interpreter changes threads of its own accord.
        """
        if ident in self._inside:
            return True
        # Whoever waits for room, or for the provider, is inside all the while.
        if not (self._special or self.full):
            time.sleep(_MOMENT)
        return False

    def fit_together(self, count: int, size: int) -> bool:
        """Whether so many messages of ``size`` bytes together are accepted in one step: all of them or none."""
        return count == 1 or (
            count <= FRAME_COUNT and size + count * FRAME_OVERHEAD <= min(FRAME_BYTES, self.limits.max_message)
        )

    def _disown(self, ident: int) -> None:
        with self.lock:
            if self.owner == ident:
                self.owner = 0
                self.reconsider()
                self.changed.notify_all()

    def sync_spool(self) -> None:
        """What is in the spool is on the device, and the head says so. Raises OSError."""
        reached = self.spool.sync_active()
        if reached is not None:
            with self.lock:
                slot = self.head.slot
                slot.synced_segment, slot.synced_offset, slot.synced_sequence = reached
        self.publish_head(sync=True)

    # ---- with the lock held

    def _accept(self, item: Item, raw_topic: bytes, size: int) -> int:
        now = self._now()
        words = self.head.words
        self.accepted_bytes += size
        if self.live:
            channel = self.channel
            items = channel.items
            sequence = channel.first + len(items)
            if not items:
                channel.oldest = now
            items.append((*item, now))
            channel.bytes += size + OVERHEAD
            self._next = sequence + 1
            words[NEXT] = sequence + 1
            self.live_accepted += 1
            self._watch_channel(now)
            return sequence
        spool = self.spool
        if spool.busy or self._next < spool.end:
            self._mend()
        if self.limits.linger_ns:
            return self._gather(item, size, now)
        sequence = self._next
        _, value, key, block, timestamp, partition = item
        data = frame.encode_one(spool.salt, sequence, now, raw_topic, key, value, block, timestamp, partition)
        if not spool.fits(len(data), sequence, now):
            self._open_segment(len(data), sequence, now)
            data = frame.encode_one(spool.salt, sequence, now, raw_topic, key, value, block, timestamp, partition)
        spool.append(data, sequence, 1, now)
        self._next = sequence + 1
        words[TAIL] = spool.last
        words[NEXT] = sequence + 1
        return sequence

    def _gather(self, item: Item, size: int, now: int) -> int:
        if self._gathered.items and self._gathered.bytes + size > _GATHER_BYTES:
            # Before the message is taken: where there is no room, it is not.
            self.flush_gathered()
        gathered = self._gathered
        if not gathered.items:
            gathered = self._gathered = Channel(self._next)
            gathered.oldest = now
            self.gathering.set()
        sequence = gathered.first + len(gathered.items)
        gathered.items.append((*item, now))
        gathered.bytes += size + OVERHEAD
        self._next = sequence + 1
        self.head.words[NEXT] = sequence + 1
        return sequence

    def _accept_many(self, items: Sequence[Item], first: int, size: int) -> None:
        """Accept those of the items, of which ``first`` is the sequence of the first, that are not yet."""
        now = self.files.boot_ns()
        if self.live:
            done = self.channel.next - first
            rest = items[done:] if done else items
            self.channel.extend(rest, size, now)
            self._next = self.channel.next
            self.head.words[NEXT] = self._next
            self.live_accepted += len(rest)
            self._watch_channel(now)
            return
        self._mend()
        self.flush_gathered()
        while self._next < first + len(items):
            self._append_some(items, self._next - first, self._next, now)

    def _append_some(self, items: Sequence[Sequence[Any]], start: int, sequence: int, now: int) -> int:
        """Append one frame of items from index ``start``; how many."""
        spool = self.spool
        draft = FrameDraft(items, start, self._frame_bytes, sequence, now)
        data = draft.encode(spool.salt)
        if not spool.fits(len(data), sequence, now):
            self._open_segment(len(data), sequence, now)
            data = draft.encode(spool.salt)
        spool.append(data, sequence, draft.count, now)
        self._next = max(self._next, sequence + draft.count)
        self.head.words[TAIL] = spool.last
        self.head.words[NEXT] = self._next
        return draft.count

    def _open_segment(self, size: int, sequence: int, now: int) -> None:
        self.spool.make_room(size, sequence, now)
        active = self.spool.active
        if active is not None:
            # In this order: a tail that is too small only makes recovery walk longer.
            words = self.head.words
            words[TAIL] = layout.FIRST_FRAME
            words[SEGMENT] = active.segment.first
            map_ = active.file.map
            if self._may_be_appended_to and map_ is not None:
                # A simulated disk may have no memory, but functions that store.
                self.spool.attach(map_.pages(), words, active.file.store)
        self.chores.set()

    def _sequence(self) -> int:
        """The sequence that comes next."""
        return self.channel.next if self.live else max(self._next, self._gathered.next)

    def _mend(self) -> None:
        """After an interrupt in the middle of an append: a frame counts if it was stored whole, and what the spool
        holds is not in memory as well. Costs nothing where there was none. The lock is held."""
        spool, channel = self.spool, self.channel
        if spool.busy:
            spool.settle()
        end = spool.end
        if self.live:
            flight = self.flight
            if flight is not None and flight.first + self._flight_spilled < end:
                self._flight_spilled = min(end, flight.end) - flight.first
            if channel.first < end:
                channel.take(end - channel.first, NEVER)
        elif self._gathered.items:
            if self._gathered.first < end:
                self._gathered.take(end - self._gathered.first, NEVER)
            self._next = max(self._next, self._gathered.next)
        self._next = max(self._next, end)

    def _watch_channel(self, now: int) -> None:
        limits, channel = self.limits, self.channel
        waiting = len(channel.items) + (self.flight.open if self.flight is not None else 0)
        oldest = min(channel.oldest, self.flight_oldest) if self.flight is not None else channel.oldest
        if (
            waiting > limits.channel_messages
            or channel.bytes + self.flight_bytes > limits.channel_bytes
            or now - oldest > limits.live_wait_ns
        ):
            self._overflow()

    def _overflow(self) -> None:
        """Memory has its fill: to disk where the mode says so."""
        if self.mode in MEMORY_ONLY:
            self.reconsider()
            return
        # Where there is no room, this message is accepted and in memory; the next one follows the policy.
        self.leave_live_if_possible("the provider does not keep up")

    def watch(self) -> None:
        """Now and then: leave live where the oldest message waits too long, append what lingers.

        :raises NoSpace: there is no room for what lingers; it stays in memory.
        :raises OSError: the device failed; likewise.
        """
        with self.lock:
            if self.owner and self.owner not in self._inside:
                # Its thread was interrupted before it could say that it is done.
                self._disown(self.owner)
            now = self.files.boot_ns()
            if self.live and not self.closed and (self.channel.items or self.flight is not None):
                self._watch_channel(now)
            if self._gathered.items and now - self._gathered.oldest >= self.limits.linger_ns:
                self.flush_gathered()

    def waiting(self, settled: int) -> bool:
        """Whether the sender, which has settled everything below ``settled``, has something to do. Any thread."""
        return self.spool.end > settled or bool(self.channel.items)

    def lingering(self) -> bool:
        """Whether messages wait to be appended together."""
        return bool(self._gathered.items)

    def linger_left(self) -> float | None:
        """Seconds until what lingers is due; None where nothing does. Any thread, without the lock."""
        gathered = self._gathered
        if not gathered.items:
            return None
        return (gathered.oldest + self.limits.linger_ns - self.files.boot_ns()) / 1e9

    def flush_gathered(self) -> None:
        """Append what lingers. The lock is held. Raises NoSpace or OSError; what is not appended stays."""
        self._mend()
        gathered = self._gathered
        while gathered.items:
            done = self._append_some(gathered.items, 0, gathered.first, gathered.oldest)
            gathered.take(done, NEVER)
            if self.sleeping:
                self.sleeping = False
                self.wake.set()

    # ---- hand-over, with the lock held

    def leave_live(self, reason: str) -> None:
        """Live → buffering: the batch in flight, then what waits, go to the spool. Nothing to do elsewhere.

        :raises NoSpace: there is no room; what was not appended stays in memory, in front of new messages.
        :raises OSError: the device failed; likewise.
        """
        if not self.live:
            return
        self._mend()
        flight = self.flight
        if flight is not None:
            # From the very start of the flight, what was delivered of it included: its place in the spool is [a, b).
            items = waiting_of(flight.run)
            while self._flight_spilled < len(items):
                self._flight_spilled += self._append_some(
                    items, self._flight_spilled, flight.first + self._flight_spilled, items[self._flight_spilled][6]
                )
            flight.in_memory = False
            self._release_flight()
        channel = self.channel
        while channel.items:
            done = self._append_some(channel.items, 0, channel.first, channel.items[0][6])
            channel.take(done, NEVER)
        self._next = max(self._next, channel.first)
        self.live = False
        self.left_live_at = self.files.boot_ns()
        self.full = ""
        self.on_hand_over("live", "buffering", reason)
        self.reconsider()
        self.changed.notify_all()
        self.chores.set()

    def leave_live_if_possible(self, reason: str) -> None:
        """:meth:`leave_live`; where there is no room, messages stay in memory and new writes find the lane full."""
        try:
            self.leave_live(reason)
        except (NoSpace, OSError) as error:
            self.full = str(error)
            self.reconsider()

    def enter_live(self, reason: str) -> None:
        """Draining → live. The spool is read to its end, and the caller has checked it under this lock."""
        self.flush_gathered()
        self.spool.retire()
        self.channel = Channel(self._next)
        self.live = True
        self.on_hand_over("draining", "live", reason)
        self.reconsider()
        self.changed.notify_all()
        self.chores.set()

    def take_memory(self, count: int, max_bytes: int) -> Flight | None:
        """The next batch from memory, which becomes the flight. The spool is read to its end."""
        self._mend()
        if not self.channel.items or self.flight is not None:
            return None
        first = self.channel.first
        oldest = self.channel.oldest
        before = self.channel.bytes
        taken = self.channel.take(count, max_bytes)
        offset = self._header.wall_ns - self._header.boot_ns
        flight = Flight(run_of(first, taken, self._header, offset, self.head.slot.run), in_memory=True)
        self.flight = flight
        self.flight_bytes = max(0, before - self.channel.bytes)
        self.flight_oldest = oldest
        self._flight_spilled = 0
        return flight

    def take_gathered(self) -> Flight | None:
        """What lingers, as a flight of messages that no segment holds. The lock is held."""
        self._mend()
        first, gathered = self._gathered.first, self._gathered.take(1 << 62, NEVER)
        if not gathered:
            return None
        offset = self._header.wall_ns - self._header.boot_ns
        return Flight(run_of(first, gathered, self._header, offset, self.head.slot.run), in_memory=True)

    def end_flight(self, flight: Flight, ordinal: int) -> int:
        """The flight is settled: the ordinal behind it, where it was ``ordinal`` in front of it."""
        ordinal += self._flight_spilled if flight.in_memory else len(flight.marks)
        if flight is self.flight:
            self._release_flight()
        self.head.words[ACKNOWLEDGED] = flight.end
        if self._special:
            self.reconsider()
            self.changed.notify_all()
        return ordinal

    def _release_flight(self) -> None:
        self.flight = None
        self.flight_bytes = 0
        self._flight_spilled = 0

    def drop_memory(self) -> int:
        """Forget what waits in memory, the flight excepted; how many messages. The lock is held."""
        self._mend()
        return self.channel.clear() if self.live else self._gathered.clear()

    @property
    def flight_spilled(self) -> int:
        """Messages of the flight in memory that a segment holds already. The lock is held."""
        return self._flight_spilled

    def memory_messages(self) -> int:
        """Accepted messages that no segment holds."""
        waiting = len(self.channel.items) if self.live else 0
        flight = self.flight
        if flight is not None and flight.in_memory:
            waiting += len(flight.marks) - self._flight_spilled
        return waiting + len(self._gathered.items)

    def settled_in_memory(self) -> int:
        """Messages of the flight in memory that are settled and not yet counted by the ledger."""
        flight = self.flight
        return 0 if flight is None or not flight.in_memory else len(flight.marks) - flight.open

    @property
    def accepted(self) -> int:
        """Messages accepted since the buffer was made."""
        return self._before + self._sequence()

    @property
    def next(self) -> int:
        """The sequence that comes next."""
        return self._sequence()

    # ---- unusual conditions

    def reconsider(self) -> None:
        """Work out whether writes must look closer. The lock is held."""
        self._special = bool(
            self.closed or self.disk_error or self.owner or self.mode in MEMORY_ONLY or (self.full and self.live)
        )

    def _disk_failed(self, error: OSError) -> DiskFailed:
        if is_broken(error):
            with self.lock:
                self.disk_error = str(error)
                self.reconsider()
        return DiskFailed(f"the device under the buffer failed: {error}; the message was not accepted")

    # ---- head

    def publish_head(self, *, sync: bool = False, flags: int = 0) -> None:
        """Store what the writer knows in the head. Without the lock. Raises OSError."""
        with self.lock:
            slot = self.head.slot
            slot.generation += 1
            slot.next = self._sequence()
            slot.ordinal = self.spool.ordinal
            slot.accepted = self.accepted
            slot.wall_ns = self.files.wall_ns()
            slot.boot_ns = self.files.boot_ns()
            slot.flags = flags | (head.LIVE if self.live else 0)
            active = self.spool.active
            if active is not None:
                slot.checkpoint_segment = active.segment.first
                slot.checkpoint_offset = self.spool.last
                slot.checkpoint_sequence = 0
            self.head.words[HEARTBEAT] = slot.boot_ns
            raw = slot.pack()
        self.head.publish(raw)
        if sync:
            self.head.sync()

    def grant(self, size: int) -> None:
        """Reserve sequences ahead of use, on the device. Without the lock. Raises OSError."""
        with self.lock:
            if self._granted - self._sequence() > size // 2:
                return
            until = self.head.slot.reserved_until = self._sequence() + size
        self.publish_head(sync=True)
        with self.lock:
            self._granted = until
            self.reconsider()
            self.changed.notify_all()

    def granted(self, count: int) -> bool:
        """Whether so many sequences are reserved. The lock is held."""
        return self._next + count <= self._granted

    def check_mode(self, mode: str, backlog: int) -> None:
        """:raises ModeError: the lane cannot change to ``mode`` now."""
        if mode in MEMORY_ONLY and not self.sends:
            raise ModeError(f"mode {mode!r} needs a provider in this process; this buffer only writes")
        if mode in MEMORY_ONLY and backlog:
            raise ModeError(
                f"mode {mode!r} keeps nothing on disk, and {backlog:,} messages are there: flush() or purge() first"
            )


def _nobody_listens(before: str, after: str, reason: str) -> None:
    """Until the engine says who does."""
    del before, after, reason
