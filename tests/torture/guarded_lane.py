"""One lane under test on a guarded cluster: a writer, its ledger, what its directory tells, and what arrived.

Promises:

- What was accepted is known from the writer's reports, what arrived from the topic; the accounts must say the same.
- *Blocked and shown* means: the status, the command ``mb status`` and the lane's events say so, with the words that a
  person needs, and nothing is among the dead letters.

One thread, beside those of ledger and watcher.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mbframework import status
from mbframework.spool import layout
from mbframework.status import LaneStatus
from tests.torture.guarded_cluster import GuardedCluster
from tests.torture.ledger import Life
from tests.torture.verdict import Arrived, Fault, Finding, Stay, judge
from tests.torture.watcher import Watcher
from tests.torture.writer import Assignment, identify

#: The most messages in one call of the provider.
BATCH = 500
PARTITIONS = 3
#: Seconds: for anything that must happen and depends on the machine's pace.
PATIENCE_S = 120.0
#: Seconds that a provider waits for an answer: longer than a cluster needs to choose another leader.
SEND_TIMEOUT_S = 15.0
SLOWEST_WRITE_S = 2.0
_BUFFER = {"batch_messages": BATCH, "segment_size": "4MiB", "retry_wait_max": 2.0}
#: So that an increase of partitions is noticed within a scenario; the default of both clients is five minutes.
_NOTICE_PARTITIONS = {
    "kafka": {"client.metadata_max_age_ms": 2000},
    "confluent": {"client.topic.metadata.refresh.interval.ms": 2000},
}
_LOOK_S = 0.1


@dataclass
class LaneReport:
    """What became of one lane in one scenario; ``breaches`` is empty where every promise was kept."""

    scenario: str
    scheme: str
    seconds: float = 0.0
    accepted: int = 0
    delivered: int = 0
    lost: int = 0
    dead: int = 0
    balanced: bool = False
    finding: Finding = field(default_factory=Finding)
    partitions: int = 0
    #: Failures after which the broker may have had the batch: each may repeat it.
    ambiguous: int = 0
    looks_in: dict[str, int] = field(default_factory=dict)
    slowest_write_ms: float = 0.0
    breaches: list[str] = field(default_factory=list)

    def line(self) -> str:
        """For people."""
        found = self.finding
        states = ", ".join(f"{state} {count}" for state, count in sorted(self.looks_in.items()))
        return (
            f"{'BREACH' if self.breaches else 'PASS'} {self.scenario}, {self.scheme}: {self.seconds:.0f} s; accepted "
            f"{self.accepted:,}, delivered {self.delivered:,}, arrived {found.unique:,} in {self.partitions} "
            f"partitions, lost {self.lost}, missing {found.missing}, repeated {found.repeated} ({self.ambiguous} "
            f"ambiguous answers), out of order {found.out_of_order}, dead {self.dead}, accounts "
            f"{'balance' if self.balanced else 'do not balance'}; slowest write() {self.slowest_write_ms:.0f} ms; "
            f"looks: {states}" + "".join(f"; BREACH: {breach}" for breach in self.breaches)
        )


class WriterEnded(Exception):
    """It did so without being told to; the scenario cannot go on."""


class GuardedLane:
    """See the module. ``faults`` is what was done so far, and grows while this lives."""

    def __init__(
        self, cluster: GuardedCluster, scheme: str, user: str, folder: Path, faults: Sequence[Fault],
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.scheme = scheme
        self.user = user
        self.topic = f"torture-{scheme}-{uuid.uuid4().hex[:12]}"
        self.breaches: list[str] = []
        #: How many messages had been accepted when the topic was deleted, at most; None where it was not.
        self.deleted_by: int | None = None
        self._cluster = cluster
        self._directory = folder / f"outbox-{scheme}"
        self._log = folder / f"writer-{scheme}.log"
        self._faults = faults
        self._begun = time.monotonic()
        self._print = say
        self._watcher = Watcher(str(self._directory), "main", self._clock, self._say)
        self._life: Life | None = None

    # -- traffic -------------------------------------------------------------------------------

    def start(self, rate: float) -> None:
        """Start writing ``rate`` messages a second; returns when the first one was accepted."""
        options = _NOTICE_PARTITIONS[self.scheme]
        url = self._cluster.url(self.scheme, self.user, send_timeout=f"{SEND_TIMEOUT_S:g}s", **options)
        assignment = Assignment(
            directory=str(self._directory), url=url, topic=self.topic, life=0, rate=rate, fd=-1,
            flush_timeout=PATIENCE_S, options=_BUFFER,
        )  # fmt: skip
        self._life = Life(assignment, self._log, 0)
        self._begun = time.monotonic()
        if not self._life.begun.wait(PATIENCE_S):
            raise WriterEnded(f"{self.scheme}: the writer did not begin")
        self.look()
        self._watcher.start()

    def look(self) -> LaneStatus:
        """What the directory tells.

        :raises WriterEnded: the writer did so by itself.
        """
        if self._life is None or not self._life.alive():
            raise WriterEnded(f"{self.scheme}: the writer ended; its log ends: {self._log.read_text()[-2000:]}")
        return status.read(str(self._directory)).lanes[0]

    @property
    def reported(self) -> int:
        """How many messages were accepted, by the writer's own reports."""
        return 0 if self._life is None else self._life.reported

    def wait_until(self, what: str, reached: Callable[[LaneStatus], bool]) -> None:
        """Wait for the directory to tell something; a breach where it does not come true."""
        deadline = time.monotonic() + PATIENCE_S
        while not reached(lane := self.look()):
            if time.monotonic() > deadline:
                self.breach(f"not {what} after {PATIENCE_S:g} s: {lane.state}, {lane.last_error}")
                return
            time.sleep(_LOOK_S)  # a directory can only be looked at

    def wait_caught_up(self) -> None:
        """Wait until what had been accepted when this was called is delivered."""
        due = self.reported
        self.wait_until("caught up", lambda lane: lane.delivered >= due)

    def _say(self, text: str) -> None:
        self._print(f"{self.scheme}: {text}")

    def breach(self, text: str) -> None:
        """A promise was not kept."""
        self.breaches.append(text)
        self._say(f"BREACH: {text}")

    # -- what is shown -------------------------------------------------------------------------

    def must_show_block(self, *words: str) -> None:
        """The lane must become blocked, say why in these ``words`` wherever it is looked at, and bury nothing."""

        def says(text: str) -> bool:
            return all(word in text for word in words)

        self.wait_until(
            f"blocked with {words}",
            lambda lane: lane.state == "blocked" and says(f"{lane.state_reason} {lane.last_error}"),
        )
        printed = subprocess.run(
            [sys.executable, "-m", "mbframework", "status", str(self._directory)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        ).stdout  # fmt: skip
        # It breaks lines where they would be too long.
        if "blocked" not in printed or not says(" ".join(printed.split())):
            self.breach(f"mb status does not tell of it: {printed!r}")
        if not any(says(str(event.get("reason"))) for event in self._events("blocked")):
            self.breach(f"no event 'blocked' with {words}")
        if dead := self.look().dead:
            self.breach(f"{dead} messages are among the dead letters of a blocked lane")

    def _events(self, kind: str) -> Iterator[dict[str, Any]]:
        path = self._directory / "main" / layout.SENDER_EVENTS_FILE
        for name in (path.with_name(f"{path.name}.1"), path):
            if name.exists():
                # The last line may be half there.
                for line in name.read_text().split("\n")[:-1]:
                    event = json.loads(line)
                    if event["kind"] == kind:
                        yield event

    # -- the end -------------------------------------------------------------------------------

    def kill(self) -> None:
        """End the writer, if it still runs, and look no more. May be called twice."""
        if self._life is not None and self._life.alive():
            self._life.kill()
        self._watcher.stop()

    def finish(self, scenario: str, partitions: int) -> LaneReport:
        """Let the writer deliver and close, then judge; the messages must be in so many ``partitions``."""
        assert self._life is not None
        if exit_status := self._life.end(PATIENCE_S + 30):
            self.breach(f"the writer ended with {exit_status}; its log ends: {self._log.read_text()[-2000:]}")
        self._watcher.stop()
        report = LaneReport(scenario, self.scheme, self._clock(), breaches=self.breaches)
        self._judge_accounts(report)
        report.ambiguous = sum(bool(event["uncertain"]) for event in self._events("failure"))
        self._judge_topic(report)
        if report.partitions != partitions:
            self.breach(f"messages are in {report.partitions} partitions; the topic has {partitions}")
        report.looks_in = dict(self._watcher.looks_in)
        report.slowest_write_ms = self._life.slowest_ns / 1e6
        if report.slowest_write_ms > SLOWEST_WRITE_S * 1000:
            self.breach(f"a write() took {report.slowest_write_ms:.0f} ms")
        self.breaches += self._life.faults[:3] + self._watcher.faults[:3]
        return report

    def _judge_accounts(self, report: LaneReport) -> None:
        lane = status.read(str(self._directory)).lanes[0]
        report.accepted, report.delivered, report.lost, report.dead = (
            lane.accepted, lane.delivered, lane.lost, lane.dead
        )  # fmt: skip
        report.balanced = lane.balanced
        expected = {
            "accepted": self.reported, "delivered": self.reported, "pruned": 0, "expired": 0, "dead": 0, "purged": 0,
            "lost": 0, "resident_messages": 0, "order_violations": 0, "balanced": True,
        }  # fmt: skip
        for name, value in expected.items():
            if (told := getattr(lane, name)) != value:
                self.breach(f"the accounts say {name}={told}; the ledger says {value}")

    def _judge_topic(self, report: LaneReport) -> None:
        arrived = [
            Arrived(record.partition, record.timestamp, *identify(record.key, record.value))
            for record in self._cluster.read_iter(self.topic, timeout=PATIENCE_S)
        ]
        report.partitions = len({each.partition for each in arrived})
        if self.deleted_by is not None:
            arrived = [*gone_with_the_topic(arrived, self.deleted_by), *arrived]
        report.finding = judge([Stay(self.reported, 0)], arrived, self._faults, BATCH, one=False)
        self.breaches += report.finding.breaches
        if report.finding.repeated and not report.ambiguous:
            self.breach(f"{report.finding.repeated} messages are repeated, and no answer was ambiguous")

    def _clock(self) -> float:
        return time.monotonic() - self._begun


def gone_with_the_topic(arrived: Sequence[Arrived], deleted_by: int) -> list[Arrived]:
    """The messages that a topic may have held when it was deleted, as if they had been read from it.

    ``arrived`` is what its successor holds: all messages from some number on, but for those of the batch under way at
    the deletion that other partitions had acknowledged already. ``deleted_by``: only messages below this number, and
    those of that batch, can have been in it.
    """
    there = {each.number for each in arrived}
    first = min(min(there, default=deleted_by), deleted_by)
    before = [*range(first), *(number for number in range(first, first + BATCH) if number not in there)]
    # A partition that nothing else is in.
    return [Arrived(-1, 0.0, 0, number) for number in before]
