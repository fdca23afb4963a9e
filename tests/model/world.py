"""A program, its buffer and its broker, and what must hold of them: the model is :class:`Known`, a few sets of numbers.

Each message has a number, rising with its acceptance, as its value. What a stop may cost, and what may come twice, is
put down by the rules of docs/guarantees.md when it happens; :meth:`World.judge` compares at the end.
"""

from __future__ import annotations

import copy
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from mbframework_fake.broker import FakeBroker

from mbframework import BufferClosed, BufferFull, DurabilityError, Message, ModeError, NotAccepted, Undelivered
from mbframework.browse import Entry, Gap, LaneBrowser
from mbframework.deadstore import DeadStore
from mbframework.errors import MessageBufferError
from mbframework.status import read_lane
from mbframework.transfer import walk
from tests.model.byhand import DIRECTORY, LANE, ByHand, InHand, forget
from tests.model.disk import SimulatedDisk

#: Small enough that a dozen large messages fill it.
SMALL: dict[str, Any] = {"segment_size": "64KiB", "total_size": "256KiB", "dead_total_size": "256KiB"}
#: A message of which four fill a segment.
LARGE = 15_000
_DEFECTS = logging.getLogger("mbframework")
_OF_THE_LANE = ("/lane.py", "/spool/writer.py")


@dataclass
class Known:
    """What an observer knows who sees each call return, and what arrives."""

    number: int = 0
    #: Sequence → number, of what is accepted for certain.
    given: dict[int, int] = field(default_factory=dict)
    #: Sequence → the disk's boot clock in front of that write.
    began: dict[int, int] = field(default_factory=dict)
    #: Numbers of writes in whose middle the process ended.
    perhaps: set[int] = field(default_factory=set)
    #: Numbers of the write that is under way.
    writing: list[int] = field(default_factory=list)
    #: Sequences below it survive a kill, and a loss of power.
    kept: int = 1
    synced: int = 1
    #: What a stop may have taken.
    doubtful: set[int] = field(default_factory=set)
    #: What arrived, in order: sequence and number.
    arrived: list[tuple[int, int]] = field(default_factory=list)
    #: So many of these were settled when the seek was last known to be on the device.
    settled: int = 0
    #: How often each may come once more.
    again: Counter[int] = field(default_factory=Counter)
    #: Sequences that must not arrive any more, and numbers that were refused.
    gone: set[int] = field(default_factory=set)
    maybe_gone: set[int] = field(default_factory=set)
    #: So many messages at most may be counted as pruned where nothing is pruned: a purge that a stop cut short.
    purged: int = 0
    refused: set[int] = field(default_factory=set)
    #: Numbers that were rejected: one that cannot be kept among the dead letters may be taken after all, later.
    rejected: set[int] = field(default_factory=set)
    #: Sequences that close() gave back.
    returned: set[int] = field(default_factory=set)
    #: So many of them at least are in the account of that name.
    handed_back: int = 0
    #: What the accounts say was accepted, but for what is accepted from now on; and the messages since.
    accepted: int = 0
    #: A loss of power took some of them, and no opening has told yet how many.
    recount: bool = False
    #: Whether delivered must equal what arrived.
    exact: bool = True

    def copy(self) -> Known:
        return Known(**{
            name: value.copy() if isinstance(value, (dict, set, list)) else copy.copy(value)
            for name, value in vars(self).items()
        })  # fmt: skip

    @property
    def next(self) -> int:
        """One past the greatest sequence that was given out."""
        return max(self.given, default=0) + 1


class World:
    """See the module. What it is asked to do it does with the real engine, one thread's step at a time."""

    def __init__(self, disk: SimulatedDisk, known: Known, **options: Any) -> None:
        self.disk, self.known = disk, known
        self.options = SMALL | options
        self.broker = FakeBroker()
        self.rejecting = 0
        self.by_hand: ByHand | None = None
        self.sending = False
        #: Called in the middle of a send.
        self.meanwhile: Callable[[], None] = _nothing

    @classmethod
    def begin(cls, seed: int = 0, *, kind: str = "ext4", room: int = 1 << 40, **options: Any) -> World:
        return cls(SimulatedDisk(seed, kind=kind, room=room), Known(), **options)

    @property
    def is_open(self) -> bool:
        return self.by_hand is not None

    @property
    def engine(self) -> Any:
        assert self.by_hand is not None
        return self.by_hand.engine

    # ---- what a program does

    def open(self) -> None:
        """Open, after whatever stop; the accounts know everything that an observer knows.

        :raises OSError, MessageBufferError: the device failed."""
        provider = InHand(self.broker)
        provider.meanwhile = lambda: self.meanwhile()
        provider.stops = lambda call: self.disk.watch(call)
        try:
            self.by_hand = ByHand(self.disk, provider, **self.options)
        except (OSError, MessageBufferError):
            assert not self.disk.open_files, "an opening that failed leaves files open"
            raise
        self.by_hand.sends = self._send
        self._compare_accounts()

    def write(self, *sizes: int, many: bool = False) -> None:
        """Messages of these sizes; ``many``: in one call."""
        assert self.by_hand is not None
        groups = [list(sizes)] if many else [[size] for size in sizes]
        for group in groups:
            self._write_group(group, many=many)

    def _write_group(self, sizes: list[int], *, many: bool) -> None:
        known, buffer = self.known, self.by_hand.buffer  # type: ignore[union-attr]
        numbers = list(range(known.number + 1, known.number + 1 + len(sizes)))
        known.number += len(sizes)
        values = [f"{number} ".encode().ljust(size, b".") for number, size in zip(numbers, sizes, strict=True)]
        known.writing += numbers
        self.engine.lane.changed.waited = 0
        began = self.disk.now
        sequences: range = range(0)
        durable = self.options.get("fsync") == "always"
        try:
            if many:
                sequences = buffer.write_many("t", values)
            else:
                sequence = buffer.write("t", values[0])
                sequences = range(sequence, sequence + 1)
        except DurabilityError as error:
            durable = False
            sequences = range(error.sequence - len(sizes) + 1, error.sequence + 1)
        except NotAccepted as error:
            sequences = error.accepted
            durable = False
            self._refusal(error)
        # What the extension has stored; a stop may come in the middle of it.
        self.disk.take_in()
        assert not sequences or sequences[0] >= known.next, f"sequence {sequences[0]} is given twice"
        known.given.update(zip(sequences, numbers, strict=False))
        known.began.update(dict.fromkeys(sequences, began))
        known.refused.update(numbers[len(sequences) :])
        del known.writing[len(known.writing) - len(numbers) :]
        self._note(durable=durable)

    def _refusal(self, error: NotAccepted) -> None:
        """A refusal has its reason."""
        if isinstance(error, BufferClosed):
            assert self.engine.lane.closed
            return
        device = self.disk.failures or self.disk.room < 1 << 30
        full = isinstance(error, BufferFull)
        memory = self.engine.lane.mode in ("block", "raise")
        if not memory:
            assert device or (full and self.options.get("on_full", "prune") != "prune"), error

    def _note(self, *, durable: bool = False) -> None:
        """What is safe from now on."""
        known, lane = self.known, self.engine.lane
        if not lane.live and not lane.lingering() and not lane.memory_messages():
            known.kept = max(known.kept, known.next)
            if durable:
                known.synced = max(known.synced, known.next)

    def sync(self) -> None:
        """:raises OSError: the device failed."""
        try:
            self.by_hand.buffer.sync()  # type: ignore[union-attr]
        except ModeError:
            return
        except BufferFull:
            assert self.disk.failures or self.disk.room < 1 << 30 or self.options.get("on_full"), "no room"
            return
        self._all_synced()

    def _all_synced(self) -> None:
        known = self.known
        known.kept = known.synced = known.next
        known.settled = len(known.arrived)

    def keep_house(self, seconds: float = 2.0) -> None:
        """A round of the housekeeper, so many seconds later: it syncs once a second."""
        known = self.known
        self.disk.let_pass(seconds)
        failures, reached = self.disk.failures, known.kept
        settled, whole = len(known.arrived), known.kept >= known.next
        self.by_hand.keep_house()  # type: ignore[union-attr]
        synced = seconds > 1.0 and self.options.get("fsync") != "never" and self.disk.failures == failures
        if synced and not self.sending:
            if whole:
                known.synced = max(known.synced, reached)
            if not self.engine.lane.disk_error:
                known.settled = max(known.settled, settled)
        self._note()

    def report(self) -> None:
        self.by_hand.report()  # type: ignore[union-attr]

    def send(self, times: int = 1) -> None:
        """The sender's rounds."""
        for _ in range(times):
            self._send()

    def _send(self) -> None:
        by_hand, known = self.by_hand, self.known
        assert by_hand is not None
        assert by_hand.provider is not None
        if self.sending:
            # The sender has a batch in hand, and is one thread.
            return
        sender, before = self.engine.sender, self.broker.count
        held, by_hand.provider.uncertain = sender.paused, False
        self.sending = True
        try:
            by_hand.send()
        except OSError as error:
            raise AssertionError("the sender's thread would have ended") from error
        finally:
            self.sending = self.disk.dead
        self.arrivals()
        if by_hand.provider.uncertain:
            known.again.update(by_hand.provider.batch)
            known.exact = False
        assert not held or self.broker.count == before, "a paused lane sends"
        self._note()

    def arrivals(self) -> None:
        """Take what arrived from the broker."""
        messages = self.broker.messages
        if messages:
            self.known.arrived += [_pair(message) for message in messages]
            with self.broker._changed:
                self.broker._messages.clear()

    def mode(self, mode: str) -> None:
        """:raises ModeError: not now."""
        self.by_hand.buffer.set_mode(mode)  # type: ignore[union-attr,arg-type]
        self._note()

    def pause(self) -> None:
        self.by_hand.buffer.pause()  # type: ignore[union-attr]
        self._note()

    def resume(self) -> None:
        self.by_hand.buffer.resume()  # type: ignore[union-attr]

    def purge(self) -> None:
        """:raises OSError: the device failed."""
        known = self.known
        self.arrivals()
        waits = self._waiting()
        in_hand = set(self.by_hand.provider.batch) if self.engine.ledger.flight is not None else set()  # type: ignore[union-attr]
        known.maybe_gone |= waits
        # After a loss of power some wait that had arrived.
        most = len(waits) + known.again.total() + len(known.perhaps)
        known.purged += most
        number = self.by_hand.buffer.purge()  # type: ignore[union-attr]
        # What is in hand, or was, may come once more.
        known.gone |= waits - in_hand
        assert number <= most
        self._note()

    def _waiting(self) -> set[int]:
        seen = {sequence for sequence, _ in self.known.arrived}
        return set(self.known.given) - seen

    def roll(self) -> None:
        """The segment's age is over."""
        self.disk.let_pass(700)
        self.keep_house()

    def reject(self, every: int) -> None:
        """Reject each message whose number is a multiple."""
        self.rejecting = every
        rejected = self.known.rejected

        def rejects(message: Message) -> bool:
            number = _number(message)
            if number % every == 0:
                rejected.add(number)
            return number % every == 0

        self.broker.reject_when(rejects if every else None)

    def close(self) -> None:
        """See :meth:`MessageBuffer.close`."""
        known, by_hand = self.known, self.by_hand
        assert by_hand is not None
        failures = self.disk.failures
        try:
            by_hand.buffer.close()
        except Undelivered as error:
            self._check_undelivered(error, failures)
            known.returned |= {message.sequence for message in error.messages}
            if self.disk.failures == failures:
                known.handed_back += len(error.messages)
            known.kept = known.next
            if self.options.get("fsync") != "never" and self.disk.failures == failures:
                self._all_synced()
        except OSError as error:
            raise AssertionError("close() fails with what it should deal with") from error
        else:
            known.kept = known.next
            if self.options.get("fsync") != "never" and self.disk.failures == failures:
                self._all_synced()
        sender = self.engine.sender
        if sender is not None:
            sender._close_provider(0.0)
        assert not self.disk.open_files, "close() leaves files open"
        self.by_hand = None

    def _check_undelivered(self, error: Undelivered, failures: int) -> None:
        """It has its reason."""
        memory = self.engine.lane.mode in ("block", "raise")
        for message in error.messages:
            number = _number(message)
            assert self.known.given.get(message.sequence, number) == number, f"{message} comes back as another"
        assert memory or self.disk.failures > failures or self.disk.room < 1 << 30 or self.engine.lane.full, error

    # ---- what happens to it

    def after(self, pattern: str | int | None) -> World:
        """The world after a kill at this moment, or a loss of power in such a pattern; this one goes on."""
        if pattern is None:
            return self._after(self.disk.copy(), power=False)
        return self._after(self.disk.without_power(pattern), power=True)

    def _after(self, disk: SimulatedDisk, *, power: bool) -> World:
        known = self.known.copy()
        other = World(disk, known, **self.options)
        other.reject(self.rejecting)
        known.arrived += [_pair(message) for message in self.broker.messages]
        seen = {sequence for sequence, _ in known.arrived}
        # What has arrived may have been settled, or not.
        known.doubtful |= {each for each in known.given if each >= (known.synced if power else known.kept)}
        known.perhaps |= set(known.writing)
        known.writing = []
        if power:
            known.recount = True
            # Another boot has another clock; what lay there is as old as it was.
            since = disk.now - self.disk.now
            known.began = {sequence: at + since for sequence, at in known.began.items()}
            known.again.update({sequence for sequence, _ in known.arrived[known.settled :]})
            known.exact = False
        if self.by_hand is not None and self.by_hand.provider is not None:
            ledger = getattr(self.by_hand, "engine", None) and self.engine.ledger
            # Of one on disk, what was settled before this attempt stands beside the seek.
            in_hand = ledger and ledger.flight is not None and (ledger.flight.in_memory or self.disk.failures)
            if self.sending or in_hand:
                known.again.update(set(self.by_hand.provider.batch) & seen)
                known.exact = False
        if known.doubtful - seen:
            known.exact = False
        if not power:
            other.check_dead()
        return other

    def stop(self, pattern: str | int | None = None) -> None:
        """Be killed, or lose power in such a way, and open again."""
        self.replaced(pattern)
        self.open()

    def replaced(self, pattern: str | int | None = None) -> None:
        """Be killed, or lose power in such a way; nothing runs then."""
        other = self.after(pattern)
        other.disk.watch = self.disk.watch
        self.end()
        self.disk, self.known, self.broker, self.rejecting = other.disk, other.known, other.broker, other.rejecting
        self.sending, self.meanwhile = False, _nothing

    @contextmanager
    def during(self, call: str, act: Callable[[], None], nth: int = 1, *, only_writes: bool = True) -> Iterator[None]:
        """Inside, ``act`` happens in another thread right in front of the n-th such call, where no lock forbids it;
        what it may need, see :meth:`ByHand.busy`."""
        before, seen = self.disk.watch, 0

        def watch(which: str) -> None:
            nonlocal seen
            before(which)
            seen += which == call
            if which == call and seen == nth and self.by_hand is not None:
                if not self.by_hand.busy(only_writes=only_writes):
                    act()

        self.disk.watch = watch
        try:
            yield
        finally:
            self.disk.watch = before

    @contextmanager
    def between(self, function: str, act: Callable[[], None], nth: int, *, within: bool = False) -> Iterator[None]:
        """Inside, ``act`` happens in another thread right in front of the n-th line that this function of the lane, or
        of its spool's writer, comes to, where no lock forbids it; ``within``: in the same thread, which no lock
        stops."""
        left = nth

        def line(frame: FrameType, event: str, _: object) -> Any:
            nonlocal left
            left -= event == "line"
            if event == "line" and left == 0 and self.by_hand is not None:
                sys.settrace(None)
                if within or not self.by_hand.busy(only_writes=True):
                    act()
                sys.settrace(called)
            return line

        def called(frame: FrameType, event: str, _: object) -> Any:
            code = frame.f_code
            return line if code.co_name == function and code.co_filename.endswith(_OF_THE_LANE) else None

        before = sys.gettrace()
        sys.settrace(called)
        try:
            yield
        finally:
            sys.settrace(before)

    def end(self) -> None:
        """Let go of this world, as after a kill."""
        forget(self.disk)
        self.disk.dead = True
        self.by_hand = None

    # ---- what must hold

    def _compare_accounts(self) -> None:
        known = self.known
        status = self.by_hand.buffer.status()  # type: ignore[union-attr]
        assert status.balanced, status
        least = known.accepted + len(known.given)
        if not known.recount:
            assert least <= status.accepted <= least + len(known.perhaps), (least, status.accepted, known.perhaps)
            assert status.returned >= known.handed_back, status
        else:
            assert status.accepted <= least + len(known.perhaps), (least, status.accepted)
            known.handed_back = min(known.handed_back, status.returned)
        known.accepted = status.accepted - len(known.given)
        known.recount = False
        assert status.lost <= len(known.doubtful) + len(known.perhaps) + len(known.returned)

    def check_dead(self) -> None:
        """What is said to wait where nobody sends stands there, and nothing else."""
        try:
            told = read_lane(self.disk, LANE, "main")
            browser = LaneBrowser(LANE, self.disk)
            settled = browser.settled()
            found = list(walk(browser, settled.next, None))
        except OSError:
            return
        if told.accepted and not any(isinstance(item, Gap) for item in found):
            waits = sum(not settled.has(item) for item in found if isinstance(item, Entry))
            assert told.resident == waits, (told, waits)

    def judge(self) -> None:
        """Deliver what is left, on a disk and to a broker that are well, and compare."""
        by_hand = self.by_hand
        assert by_hand is not None
        self.broker.up()
        self.broker._failures.clear()
        if self.engine.sender.paused:
            self.resume()
        self.disk.error = _well
        self.disk.room = 1 << 40
        self.keep_house()
        self.send(2)
        self.write(20)
        for _ in range(400):
            status = by_hand.buffer.status()
            if not status.resident_messages and self.engine.ledger.flight is None:
                break
            self.keep_house(0.3)
            self.send(4)
        assert not status.resident_messages, f"it does not empty: {status}"
        # Twice in the same instant: what it says in between is no account of its own.
        self.check_order()
        self.check_accounts(status)

    def check_order(self) -> None:
        """Order, repeats, and nothing that was never written or must not be there."""
        known = self.known
        again, seen, last, last_number = known.again.copy(), set(), 0, 0
        for sequence, number in known.arrived:
            if sequence in known.given:
                assert known.given[sequence] == number, f"{sequence} holds {number}, not {known.given[sequence]}"
            else:
                assert number in known.perhaps or number in known.writing, f"{number} was never accepted"
            assert number not in known.refused, f"{number} was refused, and arrives"
            if sequence in seen:
                assert again[sequence] > 0, f"{sequence} is repeated"
                again[sequence] -= 1
                continue
            if number in known.rejected:
                seen.add(sequence)
                continue
            assert sequence > last, f"{sequence} behind {last}: out of order"
            assert number > last_number
            seen.add(sequence)
            last, last_number = sequence, number

    def check_accounts(self, status: Any) -> None:
        """Nothing is lost beyond the promise, and the accounts say what happened."""
        known = self.known
        seen = {sequence for sequence, _ in known.arrived}
        letters = [int((letter.value or b"0").split(b" ")[0]) for letter in self._letters()]
        assert len(letters) == len(set(letters)), "a dead letter has a twin"
        dead = {sequence for sequence, number in known.given.items() if number in set(letters)}
        missing = set(known.given) - seen - dead - known.returned
        must = missing - known.doubtful - known.gone - known.maybe_gone
        prunes = self.options.get("on_full", "prune") == "prune"
        assert prunes or status.pruned <= known.purged, f"pruned, which nobody allowed: {status}"
        pruned = status.pruned if prunes else 0
        limit = self.options.get("expire_after")
        old = {each for each in known.given if limit and self.disk.now - known.began[each] >= limit * 1e9}
        assert status.expired <= len(old) + (len(known.perhaps) if limit else 0), f"expired before its time: {status}"
        assert len(must - old) <= pruned, f"lost: {sorted(must)}; {status}"
        assert len(must) <= pruned + status.expired, f"lost: {sorted(must)}; {status}"
        assert status.lost <= len(known.doubtful) + len(known.perhaps) + len(known.returned), status
        assert status.balanced, status
        assert status.accepted == known.accepted + len(known.given), (status.accepted, known.accepted, len(known.given))
        assert status.delivered <= len(seen), (status, len(seen))
        assert status.dead <= len(letters), (status.dead, letters)
        if known.exact:
            assert status.delivered == len(seen), (status.delivered, len(seen))
        # None of it had arrived when it was purged.
        assert not known.gone & seen, f"what was purged comes back: {sorted(known.gone & seen)}"
        told = read_lane(self.disk, LANE, "main")
        assert told.balanced, told

    def _letters(self) -> list[Any]:
        found = DeadStore(self.disk, f"{DIRECTORY}/dead/main").letters()
        try:
            return list(found)
        except FileNotFoundError:
            return []


def _nothing() -> None:
    return


def _well(call: str) -> int:
    del call
    return 0


def _pair(message: Message) -> tuple[int, int]:
    return message.sequence, _number(message)


def _number(message: Message) -> int:
    return int((message.value or b"0").split(b" ")[0])


class Defects(logging.Handler):
    """What the engine's threads survive by design, and must not meet."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not isinstance(error, OSError):
            self.found.append(self.format(record))


@contextmanager
def no_defects() -> Iterator[None]:
    """Inside, nothing is logged with the traceback of a defect."""
    handler = Defects()
    _DEFECTS.addHandler(handler)
    try:
        yield
    finally:
        _DEFECTS.removeHandler(handler)
    assert not handler.found, handler.found[0]
