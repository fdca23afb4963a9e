"""The real engine without its threads: what each of them does in one round is done when the test says so.

Promises: nothing of the engine is written anew. Where a thread of it, or the program, would wait, the clock of the
disk goes on instead; where the program waits for the others, these take a step each. So one seed is one history.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mbframework_fake.broker import FakeBroker
from mbframework_fake.provider import FakeProvider

from mbframework import MessageBuffer, lockfile
from mbframework import buffer as buffers
from mbframework.engine import Engine
from mbframework.files import Files
from mbframework.message import Batch
from mbframework.wakeup import Broadcast, Wakeup
from tests.model.disk import ROOT, SimulatedDisk

#: So often a call waits at most, since each wait takes time, and no call has more than seconds.
_PATIENCE = 5_000
DIRECTORY = f"{ROOT}/outbox"
LANE = f"{DIRECTORY}/main"


class Elapsing(Wakeup):
    """Who waits here finds the time gone by."""

    def __init__(self, disk: SimulatedDisk) -> None:
        super().__init__()
        self._disk = disk

    def wait(self, timeout: float) -> bool:
        if super().wait(0.0):
            return True
        self._disk.let_pass(timeout)
        return False


class Turn(Elapsing):
    """Who waits here lets the others take a step."""

    def __init__(self, disk: SimulatedDisk, others: Callable[[], None]) -> None:
        super().__init__(disk)
        self._others = others

    def wait(self, timeout: float) -> bool:
        self._others()
        self._disk.let_pass(0.001)
        return super().wait(timeout)


class Turns(Broadcast):
    """What the program waits for."""

    def __init__(self, disk: SimulatedDisk, others: Callable[[], None]) -> None:
        super().__init__()
        self._disk, self._others = disk, others
        #: Times that the present call has waited.
        self.waited = 0

    def gate(self) -> Wakeup:
        self.waited += 1
        assert self.waited < _PATIENCE, "it waits for ever, and for nothing"
        gate = Turn(self._disk, self._others)
        self._gates.append(gate)
        return gate


class InHand(FakeProvider):
    """A provider that remembers the batch that it was given last, and lets ``meanwhile`` happen before it looks."""

    def __init__(self, broker: FakeBroker) -> None:
        super().__init__(broker)
        #: Called in front of each send: a process may end there as well.
        self.stops: Callable[[str], None] = lambda call: None
        self.meanwhile: Callable[[], None] = lambda: None
        self.batch: list[int] = []
        #: Whether the answer to it told nothing.
        self.uncertain = False

    def send(self, batch: Batch) -> None:
        self.batch = list(batch.sequences)
        self.stops("send")
        self.meanwhile()
        failures = self.broker._failures
        self.uncertain = bool(failures) and failures[0].uncertain
        super().send(batch)


class ByHand:
    """A buffer on a disk, opened; ``engine`` is the real one.

    :raises Killed: the process ended.
    :raises MessageBufferError, OSError: as :class:`MessageBuffer`.
    """

    def __init__(self, disk: SimulatedDisk, provider: InHand | None, **options: Any) -> None:
        self.disk, self.provider = disk, provider
        #: The sender's round, as the others take it; a test may look at it.
        self.sends: Callable[[], None] = self.send

        class Stepped(MessageBuffer):
            @staticmethod
            def _make_files() -> Files:
                return disk

            @staticmethod
            def _start(engine: Engine) -> None:
                self._take_over(engine)

        # Nobody is there to drain it while it is closed.
        self.buffer = Stepped(DIRECTORY, provider, **{"close_timeout": 0.0, "min_free": 0} | options)

    def _take_over(self, engine: Engine) -> None:
        self.engine = engine
        engine.lane.changed = Turns(self.disk, self.others)
        if engine.sender is not None:
            engine.sender._interrupt = Elapsing(self.disk)
            engine.sender._wake = engine.lane.wake = Elapsing(self.disk)
        if engine.ledger is not None:
            engine.ledger.lock.wait = self._turn  # type: ignore[method-assign]
        engine.control.open()
        engine.reporter.report()

    def _turn(self, timeout: float | None = None) -> bool:
        self.others()
        self.disk.let_pass(timeout or 0.05)
        return True

    def others(self) -> None:
        """A round of each thread."""
        self.keep_house()
        self.sends()

    def keep_house(self) -> None:
        """The housekeeper's."""
        self.engine.housekeeper.round()

    def send(self) -> None:
        """The sender's; what it makes of errors of the device is its own."""
        sender = self.engine.sender
        if sender is not None and not sender.stopping:
            sender.step(self.engine.outlet.epoch)

    def report(self) -> None:
        """The reporter's."""
        self.engine.reporter.round()

    def busy(self, *, only_writes: bool) -> bool:
        """Whether what another thread does now would wait for a lock that somebody holds: then it does not happen
        now. ``only_writes``: it needs no lock of those that are held around a sync."""
        engine = self.engine
        head, ledger, spool = engine.lane.head, engine.ledger, engine.lane.spool
        assert ledger is not None
        held = engine.lane.lock._is_owned() or ledger.lock._is_owned()
        locks = [head._publishing, head._slots._lock, ledger.slots._lock]
        if not only_writes:
            locks += [head._slots._sync_lock, ledger.slots._sync_lock, spool.naming, spool.syncing]
        return held or any(lock.locked() for lock in locks)


def forget(disk: SimulatedDisk) -> None:
    """The process that had the disk is gone: what it held in this one goes as well."""
    lockfile._held.difference_update([key for key in lockfile._held if key[0] == disk.device])
    for buffer in [each for each in buffers._open_buffers if each._files is disk]:
        buffers._open_buffers.pop(buffer)
