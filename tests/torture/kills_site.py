"""A directory of a run of many short lives: its programs, their lives and ends, its books, and the judgement over it.

Promises
--------
- Who is killed is followed by another life at once, after a look at what the directory tells of the dead one.
- Whoever ends without being told to ends the run, which is a breach.

One thread, beside the one that reads the books.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mbframework import status
from mbframework.config import Config
from mbframework.errors import DirectoryError
from mbframework.status import LaneStatus
from mbframework.testing.kafka import KafkaBroker
from tests.torture.books import Books
from tests.torture.kills_writer import BATCH, OWNERS, STREAMS, Assignment
from tests.torture.verdict import Fault, Finding, judge
from tests.torture.writer import identify

if TYPE_CHECKING:
    from tests.torture.kills import Run

_ROOT = Path(__file__).parents[2]
#: Seconds: for anything that must happen and depends on the machine's pace.
PATIENCE_S = 120.0
_LOOKS = 20
#: A sidecar's, like a writer's.
_ENVIRONMENT = {
    "MBFRAMEWORK_BATCH_MESSAGES": str(BATCH),
    "MBFRAMEWORK_RETRY_WAIT": "20ms",
    "MBFRAMEWORK_RETRY_WAIT_MAX": "1s",
    "MBFRAMEWORK_CATCH_UP": "full",
    "MBFRAMEWORK_CLOSE_TIMEOUT": "45s",
}


class Over(Exception):
    """The run cannot go on."""


class Directory(NamedTuple):
    """Who works on a directory. ``sidecar``: its writers have no provider, and ``mb drain`` sends; ``window``: the most
    messages that one kill may cost; ``options`` of the buffer."""

    name: str
    mode: str
    programs: int
    threads: int
    partitions: int = 1
    sidecar: bool = False
    window: int = 0
    options: Mapping[str, Any] = {}


DIRECTORIES = (
    Directory("live", "buffer", 1, 3, window=Config().channel_messages),
    Directory("shared", "always", 2, 2, partitions=3),
    Directory("drained", "always", 1, 3, sidecar=True),
    # What a fiftieth of a second holds, and what a program that is stopped or slow makes of it.
    Directory("lingering", "always", 1, 2, window=2_000, options={"linger": 0.02}),
    # Outages of the broker are longer than what fits.
    Directory("pruned", "always", 1, 2, options={"segment_size": "64KiB", "total_size": "256KiB"}),
)
#: Children that each program forks, per second.
FORKS = 0.4


class Member:
    """A process that is killed, and started anew. ``first`` is its first stream; a sidecar has none."""

    def __init__(self, start: Callable[[int], subprocess.Popen[bytes]], what: str, first: Callable[[], int]) -> None:
        self._start, self._first = start, first
        self.what = what
        self.first = first()
        self.process = start(self.first)
        self.thaw_at = 0.0

    def again(self) -> None:
        """The next life."""
        self.first = self._first()
        self.process = self._start(self.first)

    def bury(self) -> None:
        """Wait for the end, and let go of it."""
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()


class Site:
    """A directory, its programs, its topic and its books."""

    def __init__(self, kind: Directory, run: Run, folder: Path) -> None:
        self.kind = kind
        self.path = folder / kind.name
        self.topic = f"kills-{kind.name}-{uuid.uuid4().hex}"
        self.books = Books()
        self.log = folder / f"{kind.name}.log"
        #: Everything that may make a lane of it repeat a batch.
        self.faults: list[Fault] = []
        self._run = run
        reader, self._writer = os.pipe()
        self._reading = threading.Thread(target=self.books.read, args=(reader,), name=f"books-{kind.name}", daemon=True)
        self._reading.start()
        self.members: list[Member] = []
        self._last: subprocess.Popen[bytes]

    def start(self) -> None:
        """Start its programs."""
        for _ in range(self.kind.programs):
            self.members.append(Member(self._start_writer, "writer", self._run.next_stream))
        if self.kind.sidecar:
            self._await(self.members[0])
            self.members.append(Member(self._start_sidecar, "sidecar", lambda: 0))

    def _start_writer(self, first: int) -> subprocess.Popen[bytes]:
        kind = self.kind
        told = Assignment(
            directory=str(self.path), url="" if kind.sidecar else self._run.url, mode=kind.mode, topic=self.topic,
            first=first, threads=kind.threads, rate=self._run.options.rate, forks=FORKS,
            seed=self._run.options.seed * 1_000_003 + first, fd=self._writer, options=kind.options,
        )  # fmt: skip
        command = [sys.executable, "-m", "tests.torture.kills_writer", json.dumps(asdict(told))]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=(self._writer,)
            )

    def _start_sidecar(self, _: int) -> subprocess.Popen[bytes]:
        return self._drain()

    def _drain(self, *more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "mbframework", "drain", str(self.path), "--provider", self._run.url, *more]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, env=os.environ | _ENVIRONMENT, stdout=log, stderr=log)

    def _await(self, member: Member) -> None:
        """Until it has written."""
        deadline = time.monotonic() + PATIENCE_S
        while member.what == "writer" and not self.books.begun(member.first).wait(0.5):
            if member.process.poll() is not None or time.monotonic() > deadline:
                raise Over(f"a writer of {self.kind.name} did not begin; its log ends: {self.last_words()}")

    def kill(self, member: Member) -> None:
        """Kill -9, look at what it left, and start it anew."""
        self._await(member)
        if member.process.poll() is not None:
            raise Over(f"a {member.what} of {self.kind.name} ended by itself; its log ends: {self.last_words()}")
        self.faults.append(Fault(time.time() * 1000, f"kill {member.what}"))
        member.process.kill()
        member.bury()
        self._look()
        member.again()

    def _look(self) -> None:
        """What the directory tells of lanes that nobody has open."""
        wrong: list[LaneStatus] = []
        for _ in range(_LOOKS):
            # Another process may be opening it at this moment: a moment later it tells the truth.
            with suppress(DirectoryError):
                wrong = [lane for lane in status.read(self.path).lanes if lane.state == "dead" and not lane.balanced]
                if not wrong:
                    return
            time.sleep(0.05)
        self._run.breach(f"{self.kind.name}: not balanced: {wrong[:1]}")
        self._run.report.unbalanced += len(wrong)

    def tell(self) -> None:
        """Tell everybody to deliver and close."""
        for member in self.members:
            member.process.send_signal(signal.SIGCONT)
            if member.process.stdin is not None:
                member.process.stdin.close()
            else:
                member.process.terminate()

    def end(self) -> None:
        """Wait until they have, then have the rest sent: :meth:`ended` waits for that."""
        for member in self.members:
            # A sidecar that has only just been started may not have come so far that it ends in order.
            well = (0, -signal.SIGTERM) if member.what == "sidecar" else (0,)
            self._await_end(member.process, f"a {member.what}", well)
        self.hang_up()
        self._last = self._drain("--until-empty")

    def ended(self) -> None:
        """Nothing waits any more."""
        self._await_end(self._last, "mb drain")

    def _await_end(self, process: subprocess.Popen[bytes], what: str, well: tuple[int, ...] = (0,)) -> None:
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
        if (exit_status := process.wait()) not in well:
            self._run.breach(f"{what} of {self.kind.name} ended with {exit_status}; the log ends: {self.last_words()}")

    def hang_up(self) -> None:
        """The books are complete when the last process has ended, children included."""
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1
            self._reading.join(PATIENCE_S)
            if self._reading.is_alive():
                self._run.breach(f"a child of {self.kind.name} has not ended; the log ends: {self.last_words()}")

    def last_words(self) -> str:
        """The end of the log."""
        return self.log.read_text(errors="replace")[-1000:]

    def judge(self, broker: KafkaBroker, broker_faults: Sequence[Fault]) -> Finding:
        """Compare books, accounts and topic."""
        report, books, name = self._run.report, self.books, self.kind.name
        last = {lane.name: lane for lane in status.read(self.path).lanes}
        books.close(last)
        for record in broker.read_iter(self.topic, timeout=PATIENCE_S * 4):
            books.place(record.partition, record.timestamp, *identify(record.key, record.value))
        total = Finding()
        for lane_name, lane in books.lanes.items():
            own = [fault for lane_of, fault in books.ends if lane_of == lane_name]
            faults = sorted([*self.faults, *broker_faults, *own])
            found = judge(lane.stays, lane.arrived(), faults, BATCH, self.kind.partitions == 1)
            if (pruned := last[lane_name].pruned) and found.missing <= pruned + found.lost:
                # Whatever it was, it is in an account; which one of them arrived all the same nobody can know.
                found.breaches = [breach for breach in found.breaches if "are missing" not in breach]
            for count in ("topic", "unique", "missing", "lost", "repeated", "out_of_order"):
                setattr(total, count, getattr(total, count) + getattr(found, count))
            total.breaches += [f"{name}/{lane_name}: {breach}" for breach in found.breaches[:3]]
            self._judge_accounts(lane_name, last[lane_name], found)
            self._judge_window(lane_name, [stay.lost for stay in lane.stays])
            report.openings += len(lane.openings)
        report.lanes += len(last)
        report.children += sum(owner % (OWNERS * STREAMS) != 0 for owner in books.openings)
        report.done["child"] += len(books.ends)
        report.unreported += books.unreported
        total.breaches += [f"{name}: {fault}" for fault in books.faults[:3]]
        return total

    def _judge_accounts(self, lane: str, told: LaneStatus, found: Finding) -> None:
        ledger = sum(stay.accepted for stay in self.books.lanes[lane].stays)
        pruned = told.pruned if "total_size" in self.kind.options else 0
        expected = {
            "accepted": ledger, "delivered": ledger - found.lost - pruned, "lost": found.lost, "lost_disk": 0,
            "returned": 0, "pruned": pruned, "expired": 0, "dead": 0, "purged": 0, "resident_messages": 0,
            "balanced": True,
        }  # fmt: skip
        if told.delivered > found.unique:
            self._run.breach(f"{self.kind.name}/{lane}: delivered={told.delivered}, and {found.unique} arrived")
        for name, value in expected.items():
            if getattr(told, name) != value:
                self._run.breach(f"{self.kind.name}/{lane}: {name}={getattr(told, name)}; the books say {value}")
        report = self._run.report
        report.accepted += ledger
        report.delivered += told.delivered
        report.lost += told.lost
        report.pruned += told.pruned

    def _judge_window(self, lane: str, lost: list[int]) -> None:
        if max(lost, default=0) > self.kind.window:
            self._run.breach(
                f"{self.kind.name}/{lane}: {max(lost)} counted as lost by one kill; at most {self.kind.window}"
            )
