"""The main job on a real Kafka while broker and writer are killed: nothing is lost that was not counted as lost.

``python -m tests.torture.outage --seconds 300 --rate 3000 --broker-kills 3 --freeze 20 --writer-kills 2 --seed 1``

A writer, a process of its own, sends numbered messages through a buffer in mode ``buffer``; this process keeps the
ledger of what was accepted, does the harm, watches the directory, and reads the whole topic back at the end. One line
an event, the last line is the verdict; the exit status is 1 after any breach. How to read it: docs/testing.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from mbframework import status
from mbframework.config import Config
from mbframework.files import Files
from mbframework.spool import layout
from mbframework.spool.survey import survey
from mbframework.status import LaneStatus
from mbframework.testing.kafka import KafkaBroker
from mbframework.testing.kafka_jars import BrokerError
from tests.torture.ledger import Life
from tests.torture.own_broker import own_broker
from tests.torture.plan import Options, Step, plan
from tests.torture.verdict import Arrived, Fault, Finding, Stay, judge
from tests.torture.watcher import Watcher
from tests.torture.writer import Assignment, identify

#: The most messages in one call of the provider: few, so that "at most one batch again" says something.
BATCH = 500
#: What the writer's buffer is given beside its directory and URL: small segments, so that they change under way, and
#: no long waits, so that a run of minutes sees many hand-overs.
BUFFER = {"batch_messages": BATCH, "segment_size": "4MiB", "retry_wait_max": 2.0}
LANE = "main"
#: Seconds: for anything that must happen and depends on the machine's pace.
PATIENCE_S = 90.0
#: Seconds that send() may take beyond its own time-out, and the slowest write() at all.
SEND_GRACE_S = 5.0
SLOWEST_WRITE_S = 2.0


@dataclass
class Report:
    """A run's outcome; ``breaches`` is empty where every promise was kept."""

    options: Options
    seconds: float = 0.0
    accepted: int = 0
    in_doubt: int = 0
    delivered: int = 0
    never_on_disk: int = 0
    live_shown: int = 0
    slowest_write_ms: float = 0.0
    send_returned_s: float | None = None
    finding: Finding = field(default_factory=Finding)
    #: Looks at the status, by state, and how many of them, taken while everything moves, did not balance.
    looks_in: dict[str, int] = field(default_factory=dict)
    unbalanced: int = 0
    breaches: list[str] = field(default_factory=list)

    def line(self) -> str:
        """The verdict."""
        found, options = self.finding, self.options
        share = 100 * self.never_on_disk / max(1, self.accepted)
        repeats = ", ".join(f"{count:,} after {what}" for what, count in found.repeats.items()) or "none"
        frozen = "" if self.send_returned_s is None else f" (send() returned after {self.send_returned_s:.1f} s)"
        return (
            f"{'BREACH' if self.breaches else 'PASS'} seed {options.seed}: {self.seconds:.0f} s, broker killed "
            f"{options.broker_kills}×, frozen {options.freeze:g} s{frozen}, writer killed {options.writer_kills}×; "
            f"accepted {self.accepted:,} ({self.in_doubt} unreported), {share:.0f} % live and never on disk; by the "
            f"accounts delivered {self.delivered:,}, lost {found.lost:,}; in the topic {found.unique:,}, "
            f"missing {found.missing:,}, repeated {found.repeated:,} ({repeats}), out of order {found.out_of_order:,}; "
            f"slowest write() {self.slowest_write_ms:.1f} ms"
            + "".join(f"; BREACH: {breach}" for breach in self.breaches)
        )


class _WriterEnded(Exception):
    """It did so without being told to; the run cannot go on."""


class Run:
    """One run against a running broker, in an empty ``folder``. ``say`` takes each line, from several threads.

    ``go()`` once, from one thread.
    """

    def __init__(self, options: Options, broker: KafkaBroker, folder: Path, say: Callable[[str], None]) -> None:
        self._options = options
        self._broker = broker
        self._directory = str(folder / "outbox")
        self._log = folder / "writer.log"
        self._topic = f"torture-{uuid.uuid4().hex}"
        self._begun = time.monotonic()
        self._print = say
        self._watcher = Watcher(self._directory, LANE, self._clock, self._say)
        self._lives: list[Life] = []
        self._stays: list[Stay] = []
        self._faults: list[Fault] = []
        #: Wall-clock seconds of the freeze, and what the ledger had then.
        self._frozen_at = 0.0
        self._frozen_with = 0
        self._due = 0.0
        self._life_at = 0.0
        self._report = Report(options)

    def go(self) -> Report:
        """Do it all, and judge. The broker runs afterwards unless it could not be restarted."""
        options, report = self._options, self._report
        self._broker.create_topic(self._topic, options.partitions, {"message.timestamp.type": "LogAppendTime"})
        try:
            self._start_writer()
            self._begun = time.monotonic()
            self._watcher.start()
            for step in plan(options):
                self._wait_until(step.at)
                self._take(step)
            self._wait_until(options.seconds)
            report.seconds = self._clock()
            self._finish()
        except _WriterEnded as error:
            self._breach(f"{error}; its log ends: {self._log.read_text()[-2000:]}")
            return report
        finally:
            if self._lives and self._lives[-1].alive():
                self._lives[-1].kill()
            self._watcher.stop()
        report.finding = self._judge_topic()
        report.breaches += report.finding.breaches
        report.breaches += [fault for life in self._lives for fault in life.faults[:3]]
        report.breaches += self._watcher.faults[:3]
        report.looks_in, report.unbalanced = dict(self._watcher.looks_in), self._watcher.unbalanced
        report.live_shown = self._watcher.live_shown
        return report

    # ---- what is done

    def _take(self, step: Step) -> None:
        if step.state and not self._watcher.wait_for(step.state, PATIENCE_S / 3, since=self._clock()):
            self._say(f"(the lane was not seen in state {step.state})")
        actions: dict[str, Callable[[], None]] = {
            "kill broker": self._broker.kill,
            "restart broker": lambda: self._broker.restart(PATIENCE_S),
            "freeze broker": self._freeze,
            "thaw broker": self._thaw,
            "kill writer": self._kill_writer,
        }
        self._say(step.what)
        if step.what in ("kill broker", "freeze broker", "kill writer"):
            self._faults.append(Fault(time.time() * 1000, step.what))
        actions[step.what]()
        if step.what == "restart broker":
            self._say("the broker is up")

    def _start_writer(self) -> None:
        life = len(self._lives)
        url = f"kafka://{self._broker.bootstrap}?send_timeout={self._options.send_timeout:g}"
        assignment = Assignment(
            directory=self._directory, url=url, topic=self._topic, life=life, rate=self._options.rate, fd=-1,
            flush_timeout=PATIENCE_S, options=BUFFER,
        )  # fmt: skip
        floor = self._lives[-1].last_sequence if self._lives else 0
        self._lives.append(Life(assignment, self._log, floor))
        if not self._lives[-1].begun.wait(PATIENCE_S) or not self._lives[-1].alive():
            raise _WriterEnded("the writer did not begin")
        self._life_at = time.monotonic()

    def _kill_writer(self) -> None:
        """Kill -9, compare the dead directory with the ledger, start the next life, see what it counts as lost."""
        life = self._lives[-1]
        life.kill()
        self._due += (time.monotonic() - self._life_at) * self._options.rate
        dead = self._lane()
        booked = sum(stay.accepted for stay in self._stays)
        in_doubt = dead.accepted - booked - life.reported
        if in_doubt not in (0, 1):
            self._breach(f"life {life.number} reported {life.reported}, and the directory says {in_doubt} more")
        if not dead.balanced:
            self._breach(f"after the kill of life {life.number} the accounts do not balance: {dead}")
        self._report.in_doubt += in_doubt
        self._start_writer()
        lost = self._lane().lost_live - sum(stay.lost for stay in self._stays)
        self._stays.append(Stay(booked_in := life.reported + in_doubt, lost))
        limit = Config().channel_messages
        if not 0 <= lost <= min(booked_in, limit):
            self._breach(f"{lost} messages of life {life.number} are counted as lost; memory holds at most {limit}")
        self._say(f"the writer is back: {booked_in:,} were accepted by the dead one, {lost} of them counted as lost")

    def _freeze(self) -> None:
        self._frozen_at = time.time()
        self._frozen_with = self._lives[-1].reported
        self._broker.freeze()

    def _thaw(self) -> None:
        written = self._lives[-1].reported - self._frozen_with
        self._broker.thaw()
        lasted = time.time() - self._frozen_at
        self._say(f"during the freeze of {lasted:.1f} s {written:,} messages were accepted")
        if written < self._options.rate * lasted / 2:
            (self._slow if written else self._breach)(
                f"only {written} messages were accepted while the broker was frozen for {lasted:.1f} s"
            )

    def _finish(self) -> None:
        self._say("the writer is told to deliver what waits and to close")
        life = self._lives[-1]
        self._due += (time.monotonic() - self._life_at) * self._options.rate
        if exit_status := life.end(PATIENCE_S + 30):
            self._breach(f"the writer ended with {exit_status}; its log ends: {self._log.read_text()[-2000:]}")
        self._stays.append(Stay(life.reported, 0))
        self._judge_accounts()
        self._judge_freeze()
        report = self._report
        report.slowest_write_ms = max(life.slowest_ns for life in self._lives) / 1e6
        if report.slowest_write_ms > SLOWEST_WRITE_S * 1000:
            self._slow(f"a write() took {report.slowest_write_ms:.0f} ms")
        if report.accepted < 0.95 * self._due:
            self._slow(f"{report.accepted} messages were written; the pace asks for {self._due:.0f}")

    # ---- what became of it

    def _judge_accounts(self) -> None:
        report, lane = self._report, self._lane()
        ledger, lost = sum(stay.accepted for stay in self._stays), sum(stay.lost for stay in self._stays)
        report.accepted, report.delivered = ledger, lane.delivered
        expected = {
            "accepted": ledger, "delivered": ledger - lost, "lost": lost, "lost_live": lost, "lost_linger": 0,
            "lost_disk": 0, "returned": 0, "pruned": 0, "expired": 0, "dead": 0, "purged": 0, "resident_messages": 0,
            "balanced": True,
        }  # fmt: skip
        for name, value in expected.items():
            if (told := getattr(lane, name)) != value:
                self._breach(f"the accounts say {name}={told}; the ledger says {value}")
        spooled = survey(Files(), f"{self._directory}/{LANE}").ordinal
        report.never_on_disk = lane.accepted - spooled
        if report.never_on_disk < self._options.live_share * ledger:
            self._slow(f"only {report.never_on_disk} of {ledger} messages were live and never on disk")

    def _judge_freeze(self) -> None:
        """A send() that meets the frozen broker fails by its own time-out."""
        if not self._options.freeze:
            return
        failed = [event["at"] - self._frozen_at for event in self._events("failure")]
        later = [seconds for seconds in failed if seconds > 0]
        bound = self._options.send_timeout + SEND_GRACE_S
        if not later or min(later) > bound:
            self._slow(f"send() did not return within {bound:g} s of the freeze: {later[:1]}")
        else:
            self._report.send_returned_s = min(later)

    def _judge_topic(self) -> Finding:
        self._say("reading the topic back")
        return judge(self._stays, self._arrived(), self._faults, BATCH, self._options.partitions == 1)

    def _arrived(self) -> Iterator[Arrived]:
        for record in self._broker.read_iter(self._topic, timeout=PATIENCE_S * 4):
            life, number = identify(record.key, record.value)
            yield Arrived(record.partition, record.timestamp, life, number)

    def _events(self, kind: str) -> Iterator[dict[str, Any]]:
        path = Path(self._directory, LANE, layout.SENDER_EVENTS_FILE)
        for name in (path.with_name(f"{path.name}.1"), path):
            if name.exists():
                for line in name.read_text().splitlines():
                    event = json.loads(line)
                    if event["kind"] == kind:
                        yield event

    # ---- around it

    def _lane(self) -> LaneStatus:
        lanes = status.read(self._directory).lanes
        if len(lanes) != 1:
            raise RuntimeError(f"expected one lane, found {[lane.name for lane in lanes]}")
        return lanes[0]

    def _wait_until(self, at: float) -> None:
        pause = threading.Event()
        while (left := at - self._clock()) > 0:
            if not self._lives[-1].alive():
                raise _WriterEnded("the writer ended by itself")
            pause.wait(min(left, 0.5))

    def _clock(self) -> float:
        return time.monotonic() - self._begun

    def _say(self, text: str) -> None:
        self._print(f"{self._clock():7.1f} s  {text}")

    def _slow(self, text: str) -> None:
        (self._breach if self._options.timed else self._say)(text)

    def _breach(self, text: str) -> None:
        self._report.breaches.append(text)
        self._say(f"BREACH: {text}")


def _print(line: str) -> None:
    # In one piece, since the watcher prints as well.
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.outage", description=(__doc__ or "").split("\n")[0])
    for each in fields(Options):
        kind = type(each.default)
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=kind, default=each.default, metavar=kind.__name__)
    parser.add_argument("--json", action="store_true", help="print the outcome as one JSON object after the verdict")
    parser.add_argument("--folder", type=Path, help="empty or new; kept (default: a temporary one)")
    given = vars(parser.parse_args(arguments))
    as_json, folder = given.pop("json"), given.pop("folder")
    try:
        options = Options(**given)
    except ValueError as error:
        parser.error(str(error))
    try:
        with own_broker(folder) as (broker, place):
            report = Run(options, broker, place, _print).go()
    except BrokerError as error:
        print(error, file=sys.stderr)
        return 2
    print(report.line())
    if as_json:
        print(json.dumps(asdict(report)))
    return 1 if report.breaches else 0


if __name__ == "__main__":
    sys.exit(main())
