"""The ledger against a model that knows each message: flights that settle piecemeal, floors, losses, kills."""

from __future__ import annotations

import errno
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mbframework.flight import Flight
from mbframework.ledger import ACCOUNTS, Ledger, runs_of
from mbframework.spool import layout, seek
from mbframework.spool.reader import Run
from mbframework.spool.seek import BITMAP_BITS, SeekSlot
from tests.examples import examples
from tests.faulty_files import FaultyFiles, Killed

SIZES = st.sampled_from([1, 2, 3, 5, 8, BITMAP_BITS - 1, BITMAP_BITS + 3])


def fresh() -> SeekSlot:
    return SeekSlot(generation=0, run=b"R" * 16, next=1, ordinal=0, buffer_id=b"I" * 16)


def run_of(first: int, count: int) -> Run:
    return Run(first, values=[b""] * count, run=b"R" * 16, segment=first, offset=layout.FIRST_FRAME)


def reopened(files: FaultyFiles, directory: str) -> Ledger:
    """The ledger that the file alone gives."""
    with open(os.path.join(directory, layout.SEEK_FILE), "rb") as file:
        slot, index, _ = seek.newest(file.read())
    assert slot is not None
    return Ledger.open(files, directory, slot, index, exists=True)


class Listener:
    """A watcher: the account of each sequence, as the first word said."""

    def __init__(self) -> None:
        self.told: dict[int, str] = {}
        self.reasons: dict[int, str] = {}
        self.ended = 0

    def settled(self, first: int, end: int, account: str, reason: str) -> None:
        assert first < end
        for sequence in range(first, end):
            self.told.setdefault(sequence, account)
            if reason:
                self.reasons[sequence] = reason

    def closed(self) -> None:
        self.ended += 1


class LedgerMachine(RuleBasedStateMachine):
    """``gone`` is what the store says of each message, ``held`` what only the flight knows yet."""

    @initialize()
    def begin(self) -> None:
        self.home = tempfile.TemporaryDirectory()
        self.files = FaultyFiles()
        self.ledger = Ledger.open(self.files, self.home.name, fresh(), 0, exists=False)
        self.end = 1
        #: Sequences with an ordinal, in order: the place in the list is the ordinal.
        self.spooled: list[int] = []
        self.gone: dict[int, str] = {}
        self.extra: Counter[str] = Counter()
        self.flight: Flight | None = None
        self.held: dict[int, str] = {}
        self.floors: list[tuple[int, str, int]] = []
        #: One past what was in hand when it was killed, while the provider is not asked; 0: nothing.
        self.doubtful = 0
        self.seen = 0
        self.doomed = False
        self.listen()

    def listen(self) -> None:
        """A watcher from here on, which knows nothing of what left before."""
        self.listener = Listener()
        self.ledger.watchers.append(self.listener)
        self.before = set(self.gone)

    def teardown(self) -> None:
        self.ledger.close()
        self.files.bury()
        self.home.cleanup()

    # What an operation does to the model, if its one store was reached

    def do(self, operation: Callable[[], object], effect: Callable[[], None]) -> None:
        """An operation of the ledger: it stores once at most, so that a kill leaves all of it or nothing."""
        stores = self.files.calls
        if self.doomed:
            self.files.stop_at(1)
        try:
            with self.ledger.lock:
                operation()
        except Killed:
            self.restart()
            return
        assert self.files.calls - stores <= 1
        effect()
        if self.doomed:
            self.restart()

    def leave(self, sequences: list[int], account: str) -> None:
        for sequence in sequences:
            self.gone.setdefault(sequence, account)

    @property
    def waits(self) -> bool:
        return bool(self.floors) and self.doubtful > self.ledger.next

    def settle_floors(self) -> None:
        if self.waits:
            return
        floors, self.floors = self.floors, []
        for sequence, account, extra in floors:
            self.leave([each for each in self.spooled if each < sequence], account)
            self.extra[account] += extra

    def landed(self) -> None:
        for sequence, account in self.held.items():
            if sequence in self.spooled:
                self.gone.setdefault(sequence, account)
            elif sequence not in self.gone:
                # Never spooled: it has an account and no ordinal.
                self.extra[account] += 1
        self.flight, self.held = None, {}
        self.settle_floors()

    # Rules

    @rule(count=SIZES, gap=st.sampled_from([0, 0, 4]))
    def spool(self, count: int, gap: int) -> None:
        if self.flight is None or not self.flight.in_memory:
            first = self.end + gap
            self.spooled += range(first, first + count)
            self.end = first + count

    @precondition(lambda self: self.flight is None and not self.waits)
    @rule(count=SIZES, account=st.sampled_from(["delivered", "expired"]))
    def take(self, count: int, account: str) -> None:
        ahead = self.spooled[self.ledger.ordinal :]
        if not ahead:
            return
        if ahead[0] != self.ledger.next:
            self.do(lambda: self.ledger.lose(self.ledger.next, ahead[0], self.ledger.ordinal), lambda: None)
            return
        size = next((i for i, each in enumerate(ahead[:count]) if each != ahead[0] + i), min(count, len(ahead)))
        flight = Flight(run_of(ahead[0], size), in_memory=False)
        with self.ledger.lock:
            assert self.ledger.begin(flight)
        known = {i for i, each in enumerate(ahead[:size]) if each in self.gone}
        assert set(range(size)) - set(flight.remaining()) == known, "what was counted is not sent again"
        self.flight = flight
        if not flight.open:
            self.land()

    @precondition(lambda self: self.flight is None and not self.waits and self.ledger.ordinal == len(self.spooled))
    @rule(count=SIZES, gap=st.sampled_from([0, 4]))
    def take_from_memory(self, count: int, gap: int) -> None:
        first = max(self.end, self.ledger.next) + gap
        flight = Flight(run_of(first, count), in_memory=True)
        with self.ledger.lock:
            assert self.ledger.begin(flight)
        self.flight, self.end = flight, flight.end

    @precondition(lambda self: self.flight is not None and self.flight.in_memory)
    @rule()
    def spill(self) -> None:
        assert self.flight is not None
        self.flight.in_memory = False
        self.spooled += range(self.flight.first, self.flight.end)

    @precondition(lambda self: self.flight is not None)
    @rule(data=st.data(), account=st.sampled_from(["delivered", "dead", "expired"]), failed=st.booleans())
    def settle(self, data: st.DataObject, account: str, failed: bool) -> None:
        """An answer for some of the messages; after a failure those below a floor leave as well."""
        flight = self.flight
        assert flight is not None
        open_ = flight.remaining()
        chosen = data.draw(
            st.one_of(
                st.just(open_), st.just(open_[: len(open_) // 2]), st.just(open_[1::2]),
                st.lists(st.sampled_from(open_), unique=True, max_size=6),
            )
        )  # fmt: skip
        with self.ledger.lock:
            assert flight.mark(chosen, account) == len(chosen)
            self.held.update({flight.first + i: account for i in chosen})
            if failed:
                self.ledger.below_floor(flight)
                for sequence, why, _ in self.floors:
                    for each in range(flight.first, min(sequence, flight.end)):
                        if each not in self.gone:
                            self.held.setdefault(each, why)
            if not flight.open:
                self.land()
            elif not flight.in_memory:
                self.do(lambda: self.ledger.progress(flight), self.noted)

    def noted(self) -> None:
        """Progress is remembered as far as the bits reach."""
        assert self.flight is not None
        within = self.flight.first + BITMAP_BITS
        self.leave_held({each for each in self.held if each < within})

    def leave_held(self, sequences: set[int]) -> None:
        for each in sequences:
            self.gone.setdefault(each, self.held.pop(each))

    def land(self) -> None:
        flight = self.flight
        assert flight is not None
        passed = 0 if flight.in_memory else len(flight.marks)
        self.do(lambda: self.ledger.land(flight, self.ledger.ordinal + passed), self.landed)

    @precondition(lambda self: self.flight is not None and not self.flight.in_memory)
    @rule()
    def abandon(self) -> None:
        flight = self.flight
        assert flight is not None

        def effect() -> None:
            self.flight, self.held = None, {}
            self.settle_floors()

        self.do(lambda: self.ledger.abandon(flight), effect)

    @precondition(lambda self: self.spooled)
    @rule(data=st.data())
    def prune(self, data: st.DataObject) -> None:
        ordinal = data.draw(st.sampled_from([1, len(self.spooled) // 2, len(self.spooled)]))
        self.apply_floor(self.spooled[ordinal - 1] + 1 if ordinal else 1, ordinal)

    def apply_floor(self, sequence: int, ordinal: int) -> None:
        def effect() -> None:
            self.floors.append((sequence, "pruned", 0))
            if self.flight is None:
                self.settle_floors()

        self.do(lambda: self.ledger.apply_floor(sequence, ordinal), effect)

    @rule(extra=st.sampled_from([0, 3]))
    def purge(self, extra: int) -> None:
        end = self.end = self.end + extra

        def effect() -> None:
            self.floors.append((end, "purged", extra))
            if self.flight is None:
                self.settle_floors()

        self.do(lambda: self.ledger.advance(end, len(self.spooled), "purged", extra), effect)

    @precondition(lambda self: not self.waits)
    @rule(count=st.sampled_from([1, 4, BITMAP_BITS]))
    def lose(self, count: int) -> None:
        ordinal = min(len(self.spooled), self.ledger.ordinal + count)
        if ordinal == self.ledger.ordinal:
            return
        at, sequence = self.ledger.next, self.spooled[ordinal - 1] + 1
        flying = self.flight is not None

        def effect() -> None:
            if not flying:
                self.leave(self.spooled[:ordinal], "lost")

        self.do(lambda: self.ledger.lose(at, sequence, ordinal), effect)

    @rule()
    def doom(self) -> None:
        """The next operation is killed in front of its store."""
        self.doomed = True

    @precondition(lambda self: self.flight is None and not self.waits)
    @rule(count=SIZES, data=st.data())
    def killed_with_a_batch_in_hand(self, count: int, data: st.DataObject) -> None:
        """And opened again by a sender that asks the provider first, and hears of floors in between."""
        self.spool(count, 0)
        self.take(count, "delivered")
        self.restart()
        with self.ledger.lock:
            self.ledger.hold()
        self.doubtful = self.ledger.slot.batch_end
        self.prune(data)

    @precondition(lambda self: self.waits)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """The provider says what it has; 0: it cannot."""
        position = data.draw(st.sampled_from([0, self.ledger.next]) | st.integers(self.ledger.next, self.doubtful + 3))
        reached = min(position, self.doubtful, self.floors[-1][0])

        def effect() -> None:
            self.leave([each for each in self.spooled if each < reached], "delivered")
            self.doubtful = 0
            self.settle_floors()

        self.do(lambda: self.ledger.release(position), effect)

    @precondition(lambda self: self.waits)
    @rule()
    def close_unasked(self) -> None:
        """Closed before the provider was reached: what was purged is gone, the writer's floor is in the head."""
        purged = any(account == "purged" for _, account, _ in self.floors)

        def effect() -> None:
            self.doubtful = 0
            if not purged:
                self.floors = []
            self.settle_floors()

        self.doomed = False
        self.ledger.close()
        effect()
        self.restart()

    @rule()
    def restart(self) -> None:
        """Killed: the file and the spool are all there is. What only memory knew leaves no trace here."""
        self.doomed, self.doubtful = False, 0
        self.files.bury()
        self.files = FaultyFiles()
        self.ledger = reopened(self.files, self.home.name)
        self.flight, self.held, self.floors = None, {}, []
        self.end = max(self.end, self.ledger.next)
        self.listen()

    # What always holds

    @invariant()
    def balanced(self) -> None:
        slot = self.ledger.slot
        expected = Counter(self.gone.values()) + self.extra
        assert {name: getattr(slot, name) for name in ACCOUNTS} == {name: expected[name] for name in ACCOUNTS}
        resident = [each for each in self.spooled if each not in self.gone]
        assert len(self.spooled) - slot.ordinal - slot.settled == len(resident)
        assert slot.next >= self.seen, "the seek went back"
        self.seen = slot.next
        assert all(each >= slot.next for each in resident)

    @invariant()
    def told(self) -> None:
        """Of every message that left, a watcher knows by which account; of none that waits, that it left."""
        told = self.listener.told
        assert {each: told.get(each) for each in self.gone if each not in self.before} == {
            each: account for each, account in self.gone.items() if each not in self.before
        }
        assert not [each for each in self.spooled if each in told and each not in self.gone]

    @invariant()
    def foretold(self) -> None:
        """What waits for the flight to land is told beforehand, and no gauge goes below zero."""
        pending = self.ledger.outlook()
        slot = self.ledger.slot
        if self.flight is None and not self.waits:
            assert not pending
            return
        below = max((sequence for sequence, _, _ in self.floors), default=0)
        end = self.flight.end if self.flight is not None else self.doubtful
        behind = [each for each in self.spooled if end <= each < below and each not in self.gone]
        assert pending.get("spooled", 0) == len(behind)
        assert len(self.spooled) - slot.ordinal - slot.settled - pending.get("spooled", 0) >= 0


LedgerMachine.TestCase.settings = settings(examples(75), stateful_step_count=25)
TestLedger = LedgerMachine.TestCase


def test_a_smaller_batch_after_a_restart_counts_nothing_twice(tmp_path: Path) -> None:
    """The bits of a large batch outlive the landing of a smaller one in front of them."""
    files = FaultyFiles()
    ledger = Ledger.open(files, str(tmp_path), fresh(), 0, exists=False)
    large = Flight(run_of(1, 100), in_memory=False)
    with ledger.lock:
        assert ledger.begin(large)
        large.mark(range(50, 100), "delivered")
        ledger.progress(large)
    ledger.close()

    ledger = reopened(files, str(tmp_path))
    small = Flight(run_of(1, 60), in_memory=False)
    with ledger.lock:
        assert ledger.begin(small)
        assert small.remaining() == list(range(50))
        small.mark(range(10), "delivered")
        ledger.progress(small)
        small.mark(range(10, 50), "dead")
        ledger.land(small, 60)
        rest = Flight(run_of(61, 40), in_memory=False)
        assert ledger.begin(rest)
        assert not rest.open, "all of these had been delivered before the restart"
        ledger.land(rest, 100)
    assert (ledger.slot.delivered, ledger.slot.dead, ledger.next, ledger.slot.settled) == (60, 40, 101, 0)
    ledger.close()


def test_a_failed_store_is_made_up_for_by_the_next(tmp_path: Path) -> None:
    """The device refuses one store: memory is right, and the next store or sync brings the file up to it."""
    files = FaultyFiles()
    ledger = Ledger.open(files, str(tmp_path), fresh(), 0, exists=False)
    flight = Flight(run_of(1, 3), in_memory=False)
    with ledger.lock:
        assert ledger.begin(flight)
        flight.mark(range(3), "delivered")
        files.fail_at(1, errno.EIO)
        with pytest.raises(OSError, match="pwrite"):
            ledger.land(flight, 3)
    assert (ledger.next, ledger.slot.delivered, ledger.synced_next) == (4, 3, 1)
    ledger.sync()
    assert ledger.synced_next == 4
    files.bury()
    again = reopened(files, str(tmp_path))
    assert (again.next, again.ordinal, again.slot.delivered) == (4, 3, 3)
    again.close()


def test_a_failed_sync_does_not_count_as_one(tmp_path: Path) -> None:
    """Segments are removed below ``synced_next``: it must not run ahead of the device."""
    files = FaultyFiles()
    ledger = Ledger.open(files, str(tmp_path), fresh(), 0, exists=False)
    ledger.advance(9, 8, "delivered")
    files.fail_at(1, errno.EIO, only=("datasync",))
    with pytest.raises(OSError, match="datasync"):
        ledger.sync()
    assert ledger.synced_next == 1
    ledger.sync()
    assert ledger.synced_next == 9
    ledger.close()


@pytest.mark.parametrize("open_again", [10, 4])
def test_what_was_purged_in_an_outage_does_not_come_back(tmp_path: Path, open_again: int) -> None:
    """Closed before the batch that waits for its next attempt was answered: the floor beyond it counts all the same."""
    files = FaultyFiles()
    ledger = Ledger.open(files, str(tmp_path), fresh(), 0, exists=False)
    flight = Flight(run_of(1, 10), in_memory=False)
    with ledger.lock:
        assert ledger.begin(flight)
        flight.mark(range(10 - open_again), "delivered")
    ledger.advance(31, 25, "purged", extra=5)
    ledger.close()

    ledger = reopened(files, str(tmp_path))
    assert (ledger.next, ledger.ordinal, ledger.slot.settled) == (31, 25, 0)
    assert (ledger.slot.delivered, ledger.slot.purged) == (10 - open_again, 15 + open_again + 5)
    ledger.close()


@given(st.lists(st.sampled_from(["delivered", "dead", "expired", "counted"]), max_size=12), st.data())
def test_runs_say_each_mark_once(marks: list[str], data: st.DataObject) -> None:
    chosen = data.draw(
        st.one_of(st.just(range(len(marks))), st.lists(st.sampled_from(range(len(marks))), unique=True).map(sorted))
        if marks
        else st.just([])
    )
    runs = list(runs_of(marks, chosen))
    assert [(index, mark) for first, end, mark in runs for index in range(first, end)] == [
        (index, marks[index]) for index in chosen if marks[index] != "counted"
    ]
    assert all(end - first == 1 for first, end, mark in runs if mark == "dead")


def test_a_watcher_hears_why_and_when_it_is_over(tmp_path: Path) -> None:
    ledger = Ledger.open(FaultyFiles(), str(tmp_path), fresh(), 0, exists=False)
    listener = Listener()
    ledger.watchers.append(listener)
    flight = Flight(run_of(1, 3), in_memory=False)
    with ledger.lock:
        assert ledger.begin(flight)
        flight.mark([1], "dead")
        ledger.reasons[2] = "too large"
        ledger.progress(flight)
        flight.mark([0, 2], "delivered")
        ledger.land(flight, 3)
    assert listener.told == {1: "delivered", 2: "dead", 3: "delivered"}
    assert listener.reasons == {2: "too large"}
    assert not ledger.reasons
    ledger.close()
    ledger.close()
    assert listener.ended == 1


def test_floors_that_wait_are_one(tmp_path: Path) -> None:
    """A provider that is away for a week must not cost memory for each segment that is pruned meanwhile."""
    files = FaultyFiles()
    ledger = Ledger.open(files, str(tmp_path), fresh(), 0, exists=False)
    with ledger.lock:
        assert ledger.begin(Flight(run_of(1, 10), in_memory=False))
        for ordinal in range(20, 2000, 10):
            assert ledger.apply_floor(ordinal + 1, ordinal)
        assert ledger.outlook() == {"pruned": 1980, "spooled": 1980}
        assert len(ledger._floors) == 1
    ledger.close()
    files.bury()
