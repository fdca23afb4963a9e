"""Weeks of a program's life in minutes: what grows although it should not, and is every counter right at the end?

``python -m tests.torture.soak --weeks 4 --messages 2000000 --seed 1``

The clock of the engine goes on with each message (one seam: :class:`~mbframework.files.Files`), so that the weeks have
as many messages as are asked for, however fast the machine is. Meanwhile the provider fails and comes back, and rejects
some messages for good; every day the program is started anew, at times with a backlog; segments end by their size and
by their age. Whenever nothing waits, memory, descriptors, threads, files and bytes on disk are looked at. At the end
each account must be what this program counted itself, every message must have arrived or stand in an account, and
nothing may be larger in the last third of the time than it was in the one before. The exit status is 1 after a breach.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from mbframework import MessageBuffer, SendFailed
from mbframework.deadstore import DeadStore, drop, settled_now
from mbframework.events import ROTATE_BYTES
from mbframework.files import Files
from mbframework.message import Batch
from mbframework.provider import Context, Provider
from mbframework.status import LaneStatus
from mbframework.testing.descriptors import open_descriptors

DAY_S = 86_400
#: What may be more in the last third of the time than it was in the middle one: bytes, descriptors, threads, files.
SLACK = (8 << 20, 3, 0, 3)
#: Of two halves of the lane, each with an older one, its file and a line beyond it.
_EVENTS = 4 * (ROTATE_BYTES + (1 << 16))
_TOTAL = 64 << 20
_PORTION = 50
_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``outages`` of the provider and ``openings`` per day; one message in ``bad`` is rejected for good."""

    weeks: float = 4.0
    messages: int = 2_000_000
    outages: int = 6
    openings: int = 1
    bad: int = 100
    seed: int = 0


class Clock(Files):
    """Goes on by itself, and is set ahead by what the program writes."""

    def __init__(self) -> None:
        self.ahead_ns = 0
        #: Segments that got a name.
        self.segments = 0

    def rename(self, source: str, target: str) -> None:
        super().rename(source, target)
        self.segments += os.path.basename(target).startswith("A")

    def boot_ns(self) -> int:
        return super().boot_ns() + self.ahead_ns

    def wall_ns(self) -> int:
        return super().wall_ns() + self.ahead_ns


class Destination(Provider):
    """Takes messages, keeps none, and knows what must come next: the numbers in the values rise, within a batch too."""

    def __init__(self, bad: int) -> None:
        self._bad = bad
        self.up = threading.Event()
        self.up.set()
        #: Somebody has found it down.
        self.felt = threading.Event()
        self.arrived = self.rejected = self.last = 0
        self.faults: list[str] = []

    def open(self, context: Context) -> None:
        self._check()

    def _check(self) -> None:
        if not self.up.is_set():
            self.felt.set()
            raise SendFailed("the destination is away")

    def send(self, batch: Batch) -> None:
        self._check()
        rejected: dict[int, str] = {}
        for index, value in enumerate(batch.values):
            number = int((value or b"").split(b" ")[0])
            if number <= self.last and len(self.faults) < 5:
                self.faults.append(f"message {number} came after {self.last}")
            self.last = number
            if number % self._bad == 0:
                rejected[index] = "never"
            else:
                self.arrived += 1
        self.rejected += len(rejected)
        if rejected:
            raise SendFailed("rejected", undelivered=(), rejected=rejected)


class Look(NamedTuple):
    """How large it is: resident bytes, descriptors, threads, files in the directory; then bytes on disk."""

    rss: int
    descriptors: int
    threads: int
    files: int
    disk: int


def look(directory: Path) -> Look:
    """Now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    sizes = [entry.stat().st_size for entry in directory.rglob("*") if entry.is_file()]
    return Look(
        pages * os.sysconf("SC_PAGE_SIZE"), len(open_descriptors()), threading.active_count(), len(sizes), sum(sizes)
    )


@dataclass
class Report:
    """A run's outcome; ``breaches`` is empty where every promise was kept."""

    options: Options
    seconds: float = 0.0
    days: int = 0
    accepted: int = 0
    rolls: int = 0
    rotations: int = 0
    outages: int = 0
    openings: int = 0
    last: LaneStatus | None = None
    looks: list[Look] = field(default_factory=list)
    breaches: list[str] = field(default_factory=list)

    def line(self) -> str:
        """The verdict."""
        last, first, end = self.last, self.looks[len(self.looks) // 3], self.looks[-1]
        told = (
            f"delivered {last.delivered:,}, dead {last.dead:,}, pruned {last.pruned:,}, lost {last.lost:,}"
            if last is not None
            else "nothing is known"
        )
        return (
            f"{'BREACH' if self.breaches else 'PASS'} seed {self.options.seed}: {self.days} days in {self.seconds:.0f} "
            f"s; {self.openings} openings, {self.outages} outages, {self.rolls:,} segments, events rotated "
            f"{self.rotations}×; accepted {self.accepted:,}: {told}; from a third of the time to its end: memory "
            f"{first.rss / 1e6:.1f} → {end.rss / 1e6:.1f} MB, descriptors {first.descriptors} → {end.descriptors}, "
            f"threads {first.threads} → {end.threads}, files {first.files} → {end.files}, disk at most "
            f"{max(each.disk for each in self.looks) / 1e6:.1f} MB"
            + "".join(f"; BREACH: {breach}" for breach in self.breaches)
        )


class Run:
    """One run, in an empty ``folder``. ``go()`` once."""

    def __init__(self, options: Options, folder: Path) -> None:
        self.report = Report(options)
        self._options = options
        self._folder = folder
        self._directory = folder / "outbox"
        self._draw = random.Random(options.seed)
        self._clock = Clock()
        self._destination = Destination(options.bad)
        self._written = 0
        self._rotated = [0, 0]

    def go(self) -> Report:
        """Live through all of it, and judge."""
        report, options = self.report, self._options
        begun = time.monotonic()
        days = max(1, round(options.weeks * 7))
        for day in range(days):
            for messages in _shares(options.messages // days, options.openings):
                self._open_and_write(messages, last=day == days - 1)
            report.days += 1
        report.accepted, report.rolls = self._written, self._clock.segments
        report.seconds = time.monotonic() - begun
        self._judge()
        return report

    def _open_and_write(self, messages: int, *, last: bool) -> None:
        """One opening of the buffer."""
        options, clock = self._options, self._clock
        step = int(options.weeks * 7 * DAY_S * 1e9 / options.messages) * _PORTION

        class OnClock(MessageBuffer):
            @staticmethod
            def _make_files() -> Files:
                return clock

        # Waits that concern a person or a provider, in the time of this clock.
        longer: dict[str, Any] = {"live_wait": 6 * 3600, "live_after": 60, "status_interval": 0.5, "close_timeout": 0.5}
        with OnClock(
            self._directory, self._destination, mode=self._draw.choice(("buffer", "buffer", "always")),
            segment_size="64KiB", total_size=_TOTAL, min_free=0, max_rejections=10**6, retry_wait=0.01,
            retry_wait_max=0.05, catch_up="full", fsync_interval=600, dead_total_size="4MiB", **longer,
        ) as buffer:  # fmt: skip
            self.report.openings += 1
            starts = range(0, messages, _PORTION)
            down = set(self._draw.sample(starts, min(options.outages, len(starts))))
            back = 0
            for start in starts:
                if start in down:
                    self._destination.felt.clear()
                    self._destination.up.clear()
                    back = start + self._draw.randint(_PORTION, max(_PORTION, messages // options.outages))
                self._write(buffer, min(_PORTION, messages - start))
                clock.ahead_ns += step
                if start in down and self._destination.felt.wait(_PATIENCE_S):
                    self.report.outages += 1
                if start >= back or buffer.pressure > 0.5:
                    self._destination.up.set()
                if buffer.pressure > 0.5:
                    # Nothing is to be pruned in this program: it waits for the sender where half of the room is used.
                    buffer.flush(_PATIENCE_S)
            self._destination.up.set()
            rests = last or self._draw.random() < 0.7
            if rests:
                buffer.flush(_PATIENCE_S)
            self._tidy(buffer)
            if rests:
                self._await_housekeeping(buffer)
                self.report.looks.append(look(self._folder))
            self.report.last = buffer.status()

    def _write(self, buffer: MessageBuffer, count: int) -> None:
        numbers = range(self._written + 1, self._written + 1 + count)
        values = [b"%d %s" % (number, b"." * (number % 300)) for number in numbers]
        if self._draw.random() < 0.1:
            for value in values:
                buffer.write("topic", value, key=value[:3])
        else:
            buffer.write_many("topic", values)
        self._written += count

    def _await_housekeeping(self, buffer: MessageBuffer) -> None:
        """Until what is delivered is removed."""
        until, pause = time.monotonic() + _PATIENCE_S, threading.Event()
        while buffer.status().segments > 1 and not pause.wait(0.02):
            if time.monotonic() > until:
                self.report.breaches.append(f"delivered segments stay: {buffer.status().segments}")
                return

    def _tidy(self, buffer: MessageBuffer) -> None:
        """What a person does once a day: let go of the dead letters. And count how often the events were rotated."""
        engine = buffer.running_engine()
        ledger, outlet = engine.ledger, engine.outlet
        assert ledger is not None
        assert outlet is not None
        store = DeadStore(self._clock, outlet.dead.directory)
        if os.path.isdir(store.directory):
            ids = [number for first, end in store.ids() for number in range(first, end)]
            drop(store, ids, lambda: settled_now(ledger), outlet.dead.apart)
        for half, name in enumerate(("writer", "sender")):
            older = self._directory / buffer.lane / f"events.{name}.jsonl.1"
            inode = older.stat().st_ino if older.exists() else 0
            self.report.rotations += inode not in (0, self._rotated[half])
            self._rotated[half] = inode

    def _judge(self) -> None:
        report, there = self.report, self._destination
        report.breaches += there.faults
        last = report.last
        expected = {
            "accepted": self._written, "delivered": there.arrived, "dead": there.rejected, "pruned": 0, "expired": 0,
            "purged": 0, "lost": 0, "resident_messages": 0, "balanced": True,
        }  # fmt: skip
        for name, value in expected.items():
            if getattr(last, name) != value:
                report.breaches.append(f"the accounts say {name}={getattr(last, name)}; counted were {value}")
        if there.arrived + there.rejected != self._written:
            report.breaches.append(f"{there.arrived + there.rejected} arrived, of {self._written}")
        report.breaches += growth(report.looks)
        most = max(each.disk for each in report.looks)
        if most > _TOTAL + _EVENTS + (8 << 20):
            report.breaches.append(f"{most:,} bytes on disk")


def growth(looks: Sequence[Look]) -> list[str]:
    """What is larger in the last third of the time than it ever was in the middle one."""
    third = len(looks) // 3
    if not third:
        return []
    before, after = looks[third : 2 * third], looks[2 * third :]
    found = []
    for name, slack in zip(Look._fields, SLACK, strict=False):
        was, became = (max(getattr(each, name) for each in some) for some in (before, after))
        if became > was + slack:
            found.append(f"{name} grew from {was:,} to {became:,}")
    return found


def _shares(messages: int, parts: int) -> Iterator[int]:
    for part in range(parts):
        yield messages * (part + 1) // parts - messages * part // parts


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.soak", description=(__doc__ or "").split("\n")[0])
    for each in fields(Options):
        kind = type(each.default)
        parser.add_argument(f"--{each.name}", type=kind, default=each.default, metavar=kind.__name__)
    options = Options(**vars(parser.parse_args(arguments)))
    with tempfile.TemporaryDirectory(prefix="mbframework-torture-") as folder:
        report = Run(options, Path(folder)).go()
    print(report.line())
    return int(bool(report.breaches))


if __name__ == "__main__":
    sys.exit(main())
