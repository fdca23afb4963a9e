"""A lane without threads, a provider or a policy: the disk half alone, in the order of calls of the engine."""

from __future__ import annotations

import os
import random
import threading
from contextlib import suppress
from dataclasses import dataclass, field

from mbframework.channel import run_of
from mbframework.files import Files
from mbframework.flight import Flight
from mbframework.ledger import Ledger
from mbframework.spool import frame, head, recovery, retention
from mbframework.spool.headfile import NEXT, SEGMENT, TAIL, HeadFile
from mbframework.spool.prepared import NoSpace
from mbframework.spool.reader import Gap, SpoolReader
from mbframework.spool.runs import Runs
from mbframework.spool.segment import Segment
from mbframework.spool.writer import Identity, Limits, SpoolWriter
from tests.spool.segments import BUFFER


@dataclass
class Memory:
    """What the caller of the lane knows."""

    given: int = 0
    accepted: int = 0
    #: Sequence → value, of what was appended.
    appended: dict[int, bytes] = field(default_factory=dict)
    #: Everything below it was on the device at some time, as sync() promised.
    durable: int = 1
    #: The seek that was promised to be on the device.
    settled: int = 1
    floor: int = 0
    live_lost: int = 0


class MiniLane:
    """Opens the lane in ``directory``, as a writer and a sender. ``memory`` outlives it."""

    def __init__(
        self, files: Files, directory: str, memory: Memory, *, mapped: bool = True, segment_size: int = 1 << 16
    ) -> None:
        self.files, self.directory, self.memory = files, directory, memory
        self.lock = threading.RLock()
        run = files.random(16)
        self.begun = begun = recovery.recover(files, directory, buffer_id=BUFFER, run=run, boot_id=files.boot_id())
        Runs(files, directory).add(run, begun.head.next)
        self.spool = SpoolWriter(
            files=files, directory=directory, identity=Identity(BUFFER, run, files.boot_id(), "main"),
            limits=Limits(segment_size, 1 << 62, 1 << 30, 1 << 20, 0), lock=self.lock, mapped=mapped, end=begun.end,
            ordinal=begun.head.ordinal, segments=[Segment.of(found) for found in begun.segments],
        )  # fmt: skip
        self.ledger = Ledger.open(files, directory, begun.seek, begun.seek_slot, exists=begun.seek_exists)
        self.head = HeadFile.begin(
            files, directory, begun.head, begun.head_slot, exists=begun.head_exists, mapped=mapped
        )
        self.ledger.apply_floor(self.head.slot.floor, self.head.slot.floor_ordinal)
        self.reader = SpoolReader(files, directory)
        self.next = self.head.slot.next
        self.live = False
        self.waiting: list[int] = []

    # ---- what a program and its engine do

    def write(self, count: int, size: int) -> None:
        """Append one frame of ``count`` messages."""
        first = self.next
        values = [b"%d:" % (first + i) + bytes([(first + i) & 255]) * size for i in range(count)]

        def encode() -> bytes:
            return frame.encode_many(self.spool.salt, first, 7, b"topic", values)

        if self.live:
            self.spill()
        with self.lock:
            data = encode()
            if not self.spool.fits(len(data), first, 7):
                with suppress(NoSpace):
                    self.spool.make_room(len(data), first, 7)
                if not self.spool.fits(len(data), first, 7):
                    return
                data = encode()
            self.spool.append(data, first, count, 7)
            # From here on a kill finds the frame, whatever became of the words.
            self.memory.appended.update((first + i, value) for i, value in enumerate(values))
            self._note(count)
            active = self.spool.active
            assert active is not None
            self.head.words[TAIL] = self.spool.last
            self.head.words[SEGMENT] = active.segment.first
            self.head.words[NEXT] = self.next

    def go_live(self) -> None:
        """Once the spool is delivered, messages stay in memory."""
        if not self.live and self.ledger.next >= self.spool.end and self.ledger.ordinal >= self.spool.ordinal:
            self.spool.retire()
            self.live = True

    def accept_live(self, count: int) -> None:
        if self.live:
            self.waiting += range(self.next, self.next + count)
            self.memory.live_lost += count
            self._note(count)
            self.head.words[NEXT] = self.next

    def deliver_live(self, count: int) -> None:
        """A batch from memory is acknowledged."""
        taken = self.waiting[:count]
        if not taken:
            return
        items = [("t", b"v", None, None, None, None, 7)] * len(taken)
        with self.ledger.lock:
            flight = Flight(run_of(taken[0], items, self._header(), 0, self.head.slot.run), in_memory=True)
            assert self.ledger.begin(flight)
            flight.mark(range(len(taken)), "delivered")
            del self.waiting[:count]
            self.ledger.land(flight, self.ledger.ordinal)
            self.memory.live_lost -= len(taken)

    def spill(self) -> None:
        """From live to buffering: what waits goes to disk."""
        self.live = False
        waiting, self.waiting = self.waiting, []
        while waiting:
            some, waiting = waiting[:5], waiting[5:]
            values = [b"%d:live" % sequence for sequence in some]
            with self.lock:
                data = frame.encode_many(self.spool.salt, some[0], 7, b"topic", values)
                if not self.spool.fits(len(data), some[0], 7):
                    self.spool.make_room(len(data), some[0], 7)
                    data = frame.encode_many(self.spool.salt, some[0], 7, b"topic", values)
                self.spool.append(data, some[0], len(some), 7)
                self.memory.live_lost -= len(some)
                self.memory.appended.update(zip(some, values, strict=True))
                active = self.spool.active
                assert active is not None
                self.head.words[TAIL] = self.spool.last
                self.head.words[SEGMENT] = active.segment.first

    def publish(self, *, sync: bool = False, flags: int = 0) -> None:
        with self.lock:
            slot = self.head.slot
            slot.generation += 1
            slot.next, slot.ordinal = self.next, self.spool.ordinal
            slot.accepted = self.memory.accepted
            slot.flags = flags | (head.LIVE if self.live else 0)
            if self.spool.active is not None:
                slot.checkpoint_segment = self.spool.active.segment.first
                slot.checkpoint_offset, slot.checkpoint_sequence = self.spool.last, 0
            raw = slot.pack()
        self.head.publish(raw)
        if sync:
            self.head.sync()

    def sync(self) -> None:
        recovery.sync_recovered(self.files, self.directory, self.begun.unsynced)
        reached = self.spool.sync_active()
        end = self.spool.end
        if reached is not None:
            slot = self.head.slot
            slot.synced_segment, slot.synced_offset, slot.synced_sequence = reached
        self.publish(sync=True)
        if not self.waiting:
            self.memory.durable = end

    def send(self, count: int, partly: bool = False) -> int:
        """Deliver ``count`` messages from the spool, or every second one of them; how many there were to send."""
        with self.ledger.lock:
            if self.ledger.flight is not None:
                self.ledger.abandon(self.ledger.flight)
            slot = self.ledger.slot
            found = self.reader.read(
                slot.next, slot.ordinal, until=self.spool.end, max_messages=count, max_bytes=1 << 20,
                hint=(slot.segment, slot.offset),
            )  # fmt: skip
            if isinstance(found, Gap):
                self.ledger.lose(slot.next, found.next, found.ordinal)
                return 1
            if found is None:
                return 0
            flight = Flight(found, in_memory=False)
            assert self.ledger.begin(flight)
            for i, value in enumerate(found.values):
                assert self.memory.appended[found.first + i] == value
            if partly:
                flight.mark(range(0, len(found), 2), "delivered")
            else:
                flight.mark(range(len(found)), "delivered")
            if flight.open:
                self.ledger.progress(flight)
            else:
                self.ledger.land(flight, self.ledger.ordinal + len(found))
            return len(found)

    def sync_seek(self) -> None:
        self.ledger.sync()
        self.memory.settled = self.ledger.synced_next

    def prepare(self) -> None:
        with suppress(NoSpace):
            self.spool.prepare()

    def finish(self) -> None:
        while self.begun.unsynced:
            found = self.begun.unsynced[0]
            segment = next((each for each in self.spool.segments if each.first == found.header.first), None)
            if segment is not None:
                recovery.finish_seal(self.files, self.directory, found)
                segment.name, segment.size = found.entry.name, found.size
            self.begun.unsynced.pop(0)

    def tidy(self) -> None:
        """Seal what was retired, remove what is delivered."""
        self.finish()
        self.spool.seal_retired(self.ledger.synced_next)
        done = retention.delivered(self.spool.segments, self.ledger.synced_next)
        for segment in done:
            with suppress(FileNotFoundError):
                self.files.unlink(os.path.join(self.directory, segment.name))
            self.spool.remove(segment)

    def prune(self) -> None:
        victims = retention.prunable(self.spool.segments, 1)
        if not victims:
            return
        keep = self.spool.segments[len(victims)]
        self.head.slot.floor, self.head.slot.floor_ordinal = keep.first, keep.ordinal
        self.memory.floor = keep.first
        self.publish(sync=True)
        self.ledger.apply_floor(keep.first, keep.ordinal)
        for segment in victims:
            path = os.path.join(self.directory, segment.name)
            with suppress(FileNotFoundError):
                fd = self.files.open(path)
                try:
                    self.files.truncate(fd, 0)
                finally:
                    self.files.close(fd)
                self.files.unlink(path)
            self.spool.remove(segment)
        self.files.sync_directory(self.directory)

    def close(self, *, clean: bool = True) -> None:
        if clean:
            self.spool.retire()
            self.tidy()
            self.sync_seek()
            self.sync()
            self.publish(flags=head.CLEAN, sync=True)
        self.reader.close()
        self.spool.close()
        self.head.close()
        self.ledger.close()

    def _note(self, count: int) -> None:
        self.next += count
        self.memory.given = self.next - 1
        self.memory.accepted += count

    def _header(self):  # type: ignore[no-untyped-def]
        return next(iter(self.spool.segments)).header if self.spool.segments else None

    # ---- histories

    def play(self, chance: random.Random, steps: int) -> None:
        """Anything that may happen, in any order."""
        for _ in range(steps):
            what = chance.choice(
                ["write"] * 8 + ["send"] * 2 + ["live"] * 2
                + ["sync", "publish", "roll", "tidy", "tidy", "prepare", "prune", "seek", "part", "golive", "spill"]
            )  # fmt: skip
            if what == "write":
                self.write(chance.choice([1, 1, 3, 40]), chance.choice([0, 10, 700, 9000]))
            elif what == "send":
                self.send(chance.choice([1, 5, 200]))
            elif what == "part":
                self.send(chance.choice([2, 5, 40]), partly=True)
            elif what == "live":
                self.accept_live(chance.choice([1, 7]))
                if chance.random() < 0.5:
                    self.deliver_live(chance.choice([1, 7]))
            elif what == "golive":
                while self.send(1000):
                    pass
                self.go_live()
            elif what == "spill" and self.live:
                self.spill()
            elif what == "sync":
                self.sync()
            elif what == "publish":
                self.publish(sync=chance.random() < 0.5)
            elif what == "roll":
                self.spool.retire()
            elif what == "tidy":
                self.tidy()
            elif what == "prepare":
                self.prepare()
            elif what == "prune":
                self.prune()
            elif what == "seek":
                self.sync_seek()
