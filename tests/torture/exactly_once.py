"""Exactly once on a real Kafka while the sending process and the broker are killed, most of them while a commit is
under way.

``python -m tests.torture.exactly_once --kills 50 --commit-kills 25 --broker-kills 10 --seed 1 kafka confluent``

A process writes and sends (tests/torture/exactly_once_writer.py); it reaches the broker by way of a proxy, which tells
how far each commit has come, so that the kill hits exactly there. A killed process is followed by another one on the
same directory. At the end a consumer with ``read_committed`` must find every message that was accepted, once, and in
order within its partition. One line an event, the last line is the verdict; the exit status is 1 after any breach.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mbframework.testing.kafka_jars import BrokerError
from tests.providers.kafka_proxied import ProxiedBroker
from tests.providers.kafka_proxy import END_TXN, INIT_PRODUCER_ID, Moment, ProduceProxy
from tests.torture.exactly_once_writer import PORTION

#: Seconds: for anything that must happen and depends on the machine's pace.
PATIENCE_S = 60.0
PARTITIONS = 3
#: What can happen to a commit. ``late``: it reaches the broker when the next process is there already.
AMBUSHES = ("asked", "sent", "answered", "late")
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``kills`` of the process, ``commit_kills`` of them while a commit is under way; ``broker_kills`` besides."""

    scheme: str = "kafka"
    kills: int = 50
    commit_kills: int = 25
    broker_kills: int = 10
    seed: int = 1


def plan(options: Options) -> list[tuple[str, str]]:
    """Who is killed, and when: ``any`` moment, or one of :data:`AMBUSHES`. The same for the same seed."""
    draw = random.Random(options.seed)
    steps = [("process", AMBUSHES[number % len(AMBUSHES)]) for number in range(options.commit_kills)]
    steps += [("process", "any")] * (options.kills - options.commit_kills)
    steps += [("broker", ("asked", "sent", "any")[number % 3]) for number in range(options.broker_kills)]
    draw.shuffle(steps)
    return steps


# -- the judge ---------------------------------------------------------------------------------------------------------


@dataclass
class Finding:
    """What a consumer finds. ``breaches`` is empty where it is every message once, and in order."""

    read: int = 0
    unique: int = 0
    repeated: int = 0
    missing: int = 0
    out_of_order: int = 0
    breaches: list[str] = field(default_factory=list)


def judge(said: Sequence[int], arrived: Iterable[tuple[int, int, int]]) -> Finding:
    """Judge what arrived, as (partition, life, number) in the order of each partition.

    :param said: how many messages each life had said that were accepted when it was killed. A portion may have been
        accepted and not been said.
    """
    finding = Finding()
    seen: list[set[int]] = [set() for _ in said]
    last: dict[int, tuple[int, int]] = {}
    for partition, life, number in arrived:
        finding.read += 1
        if number in seen[life]:
            finding.repeated += 1
            continue
        seen[life].add(number)
        finding.unique += 1
        if (life, number) < last.get(partition, (-1, -1)):
            finding.out_of_order += 1
        last[partition] = max(last.get(partition, (-1, -1)), (life, number))
    for life, (count, numbers) in enumerate(zip(said, seen, strict=True)):
        accepted = max(count, 1 + max(numbers, default=-1))
        finding.missing += accepted - len(numbers)
        if accepted > count + PORTION:
            finding.breaches.append(f"life {life}: number {accepted - 1} arrived, and {count} were accepted")
    for name in ("repeated", "missing", "out_of_order"):
        if count := getattr(finding, name):
            finding.breaches.append(f"{count} messages {name.replace('_', ' ')}")
    return finding


# -- the harm ----------------------------------------------------------------------------------------------------------


class Ambush:
    """Waits for a commit at the proxy, and strikes. Threads: the proxy's, and that of the run."""

    def __init__(self, proxy: ProduceProxy) -> None:
        proxy.meet = self._meet
        self._changed = threading.Condition()
        self._kind = ""
        self._strike: Callable[[], None] = lambda: None
        self._begun = 0
        self._commits = 0

    def commits(self) -> int:
        """How many commits were answered."""
        with self._changed:
            return self._commits

    def lay(self, kind: str, strike: Callable[[], None]) -> None:
        """Do it at the next commit."""
        with self._changed:
            self._kind, self._strike = kind, strike

    def sprung(self, timeout: float) -> bool:
        """Wait until it was done."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._kind, timeout)

    def another_commit(self, timeout: float) -> bool:
        """Wait for one that is answered."""
        with self._changed:
            before = self._commits
            return self._changed.wait_for(lambda: self._commits > before, timeout)

    def _meet(self, key: int, moment: Moment) -> None:
        if key == INIT_PRODUCER_ID and moment is Moment.ASKED:
            with self._changed:
                self._begun += 1
                self._changed.notify_all()
        if key != END_TXN:
            return
        with self._changed:
            kind, strike = self._kind, self._strike
            at = Moment.ASKED if kind == "late" else Moment[kind.upper()] if kind in AMBUSHES else None
            if moment is at:
                strike()
                begun = self._begun
                self._kind = ""
                self._changed.notify_all()
                if kind == "late":
                    self._changed.wait_for(lambda: self._begun > begun, PATIENCE_S)
                    return
                raise ConnectionAbortedError
            if moment is Moment.ANSWERED:
                self._commits += 1
                self._changed.notify_all()


class Life:
    """A process that writes and sends; ``accepted`` is what it has said so far."""

    def __init__(self, directory: Path, url: str, topic: str, number: int, log: Path) -> None:
        command = [sys.executable, "-m", "tests.torture.exactly_once_writer", str(directory), url, topic, str(number)]
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )
        self.accepted = 0
        self._reader = threading.Thread(target=self._read, name="torture-life")
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.accepted = int(line)

    def over(self, timeout: float) -> int:
        """Wait for its end; the exit status."""
        status = self.process.wait(timeout)
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        return status


@dataclass
class Report:
    """A run's outcome; ``breaches`` is empty where the promise was kept."""

    options: Options
    seconds: float = 0.0
    killed: dict[str, int] = field(default_factory=dict)
    finding: Finding = field(default_factory=Finding)
    #: Messages of transactions that were aborted: in the log, and invisible.
    aborted: int = 0
    breaches: list[str] = field(default_factory=list)

    def line(self) -> str:
        """The verdict."""
        found = self.finding
        during = sum(count for what, count in self.killed.items() if what.startswith("process") and "any" not in what)
        total = {
            who: sum(n for what, n in self.killed.items() if what.startswith(who)) for who in ("process", "broker")
        }
        return (
            f"{'BREACH' if self.breaches else 'PASS'} {self.options.scheme}, seed {self.options.seed}:"
            f" {self.seconds:.0f} s; process killed {total['process']}×, {during} of them while a commit was under way;"
            f" broker killed {total['broker']}×; a read_committed consumer read {found.read:,} messages, unique"
            f" {found.unique:,}, repeated {found.repeated:,}, missing {found.missing:,}, out of order"
            f" {found.out_of_order:,}; aborted and invisible {self.aborted:,}"
            + "".join(f"; BREACH: {breach}" for breach in self.breaches)
        )


class Run:
    """One run, in an empty ``folder``."""

    def __init__(
        self, options: Options, broker: ProxiedBroker, proxy: ProduceProxy, folder: Path, say: Callable[[str], None]
    ) -> None:
        self._options = options
        self._broker = broker
        self._ambush = Ambush(proxy)
        self._folder = folder
        self._topic = f"exactly-once-{uuid.uuid4().hex}"
        # A broker that comes back needs a moment: time-outs are for what never comes.
        self._url = f"{options.scheme}://{broker.proxied}?delivery=exactly-once&send_timeout=20s&request_timeout=5s"
        self._draw = random.Random(options.seed)
        self._say = say
        self._lives: list[Life] = []
        self._report = Report(options)

    def go(self) -> Report:
        """Do it all, and judge."""
        report, begun = self._report, time.monotonic()
        self._broker.create_topic(self._topic, PARTITIONS)
        try:
            self._begin_life()
            for number, (who, when) in enumerate(plan(self._options)):
                self._await_commits(self._draw.randint(1, 6))
                (self._kill_process if who == "process" else self._kill_broker)(when)
                what = f"{who} ({when})"
                report.killed[what] = report.killed.get(what, 0) + 1
                self._say(
                    f"{time.monotonic() - begun:6.1f} s  #{number + 1} {what} killed; {self._ambush.commits()} commits"
                )
            self._await_commits(1)
            self._end_life()
        except (AssertionError, subprocess.TimeoutExpired) as error:
            report.breaches.append(f"{error}; the log ends: {self._last_words()}")
            return report
        finally:
            for life in self._lives:
                if life.process.poll() is None:
                    life.process.kill()
                    life.over(PATIENCE_S)
        report.finding = judge([life.accepted for life in self._lives], self._arrived())
        report.aborted = sum(1 for _ in self._broker.read_iter(self._topic, timeout=300)) - report.finding.read
        report.breaches += report.finding.breaches
        report.seconds = time.monotonic() - begun
        return report

    @property
    def _log(self) -> Path:
        return self._folder / "writer.log"

    def _last_words(self) -> str:
        """Of a process that does not go on."""
        life = self._lives[-1].process
        if life.poll() is None:
            life.send_signal(signal.SIGUSR1)
            # Nothing tells when it has said where it is.
            time.sleep(1.0)
        return self._log.read_text()[-5000:]

    def _begin_life(self) -> None:
        self._lives.append(Life(self._folder / "outbox", self._url, self._topic, len(self._lives), self._log))

    def _end_life(self) -> None:
        life = self._lives[-1]
        assert life.process.stdin is not None
        life.process.stdin.close()
        status = life.over(10 * PATIENCE_S)
        assert status == 0, f"life {len(self._lives) - 1} ended with {status}"

    def _await_commits(self, count: int) -> None:
        for _ in range(count):
            assert self._ambush.another_commit(PATIENCE_S), f"no commit within {PATIENCE_S:g} s"

    def _kill_process(self, when: str) -> None:
        life = self._lives[-1]
        self._strike(when, life.process.kill)
        life.over(PATIENCE_S)
        self._begin_life()

    def _kill_broker(self, when: str) -> None:
        self._strike(when, self._broker.kill)
        self._broker.restart()

    def _strike(self, when: str, strike: Callable[[], None]) -> None:
        if when == "any":
            threading.Event().wait(self._draw.uniform(0, 0.05))
            strike()
            return
        self._ambush.lay(when, strike)
        assert self._ambush.sprung(PATIENCE_S), f"no commit within {PATIENCE_S:g} s"

    def _arrived(self) -> Iterator[tuple[int, int, int]]:
        for record in self._broker.read_iter(self._topic, "read_committed", timeout=300):
            life, _, number = (record.value or b"").partition(b":")
            yield record.partition, int(life), int(number)


@contextmanager
def proxied() -> Iterator[tuple[ProxiedBroker, ProduceProxy]]:
    """A running broker and the proxy in front of it."""
    with ProduceProxy() as proxy, ProxiedBroker(proxy) as broker:
        yield broker, proxy


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.exactly_once", description=__doc__)
    parser.add_argument("schemes", nargs="*", default=["kafka", "confluent"], help="providers (kafka confluent)")
    default = Options()
    parser.add_argument("--kills", type=int, default=default.kills, help="of the process")
    parser.add_argument("--commit-kills", type=int, default=default.commit_kills, help="those of them in a commit")
    parser.add_argument("--broker-kills", type=int, default=default.broker_kills, help="of the broker, besides")
    parser.add_argument("--seed", type=int, default=default.seed, help="another course")
    chosen = vars(parser.parse_args())
    schemes = chosen.pop("schemes")
    failed = False
    try:
        for scheme in schemes:
            with tempfile.TemporaryDirectory(prefix="mbframework-torture-") as folder, proxied() as (broker, proxy):
                report = Run(Options(scheme=scheme, **chosen), broker, proxy, Path(folder), print).go()
            print(report.line(), flush=True)
            failed |= bool(report.breaches)
    except BrokerError as error:
        print(error, file=sys.stderr)
        return 2
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
