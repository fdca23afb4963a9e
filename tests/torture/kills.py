"""Hundreds of short lives: writers with threads and forks, sidecars and a real Kafka are killed and stopped at random.

``python -m tests.torture.kills --kills 300 --broker-kills 30 --seed 1``

Several programs (tests/torture/kills_writer.py) write to five directories: in mode ``buffer`` to one, two of them in
mode ``always`` to another, to one that only ``mb drain`` sends, to one where messages linger, and to one that is too
small for the backlog of an outage. This process kills and stops them and the broker, keeps the books of what was
accepted (tests/torture/books.py), lets the last ones deliver what waits, and compares books, accounts and topics. The
last line is the verdict; the exit status is 1 after any breach. What is done to whom, in which order and after which
pauses, follows from the seed; what each kill meets does not.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path

from mbframework.testing.kafka import KafkaBroker
from mbframework.testing.kafka_jars import BrokerError
from tests.torture.kills_plan import SEND_TIMEOUT_S, Blow, Options, Report, Step, plan
from tests.torture.kills_site import DIRECTORIES, PATIENCE_S, Directory, Over, Site
from tests.torture.kills_writer import OWNERS, STREAMS
from tests.torture.own_broker import own_broker
from tests.torture.verdict import Fault


class Run:
    """One run against a running broker, in an empty ``folder``. ``go()`` once."""

    def __init__(
        self, options: Options, broker: KafkaBroker, folder: Path, say: Callable[[str], None],
        directories: Sequence[Directory] = DIRECTORIES,
    ) -> None:  # fmt: skip
        self.options = options
        self.report = Report(options)
        self.url = f"kafka://{broker.bootstrap}?send_timeout={SEND_TIMEOUT_S:g}s&request_timeout=2s"
        self._broker = broker
        self._say = say
        self._begun = time.monotonic()
        self._streams = 0
        self._broker_faults: list[Fault] = []
        self._enough = threading.Event()
        self._sites = [Site(kind, self, folder) for kind in directories]

    def next_stream(self) -> int:
        """The first stream of another process."""
        self._streams += OWNERS * STREAMS
        return self._streams

    def breach(self, text: str) -> None:
        """Something is not as promised."""
        self.report.breaches.append(text)
        self._say(f"{time.monotonic() - self._begun:7.1f} s  BREACH: {text}")

    def go(self) -> Report:
        """Do it all, and judge."""
        report = self.report
        steps, blows = plan(self.options)
        harm = threading.Thread(target=self._harm_broker, args=(blows,), name="kills-broker")
        with ExitStack() as undo:
            undo.callback(self._bury)
            for site in self._sites:
                self._broker.create_topic(site.topic, site.kind.partitions, {"message.timestamp.type": "LogAppendTime"})
                site.start()
            harm.start()
            undo.callback(harm.join)
            undo.callback(self._enough.set)
            try:
                self._harm_programs(steps)
                harm.join()
                for act in (Site.tell, Site.end, Site.ended):
                    for site in self._sites:
                        act(site)
            except Over as error:
                self.breach(str(error))
                return report
        for site in self._sites:
            found = site.judge(self._broker, self._broker_faults)
            for count in ("topic", "unique", "missing", "lost", "repeated", "out_of_order"):
                setattr(report.finding, count, getattr(report.finding, count) + getattr(found, count))
            report.breaches += found.breaches
        report.seconds = time.monotonic() - self._begun
        return report

    def _harm_programs(self, steps: Sequence[Step]) -> None:
        pause = threading.Event()
        everybody = [(site, member) for site in self._sites for member in site.members]
        for number, step in enumerate(steps):
            pause.wait(step.pause)
            now = time.monotonic()
            for _, member in everybody:
                if member.thaw_at and now >= member.thaw_at:
                    member.process.send_signal(signal.SIGCONT)
                    member.thaw_at = 0.0
            site, member = everybody[int(step.who * len(everybody))]
            if step.what == "stop":
                site.faults.append(Fault(time.time() * 1000, f"stop {member.what}"))
                member.process.send_signal(signal.SIGSTOP)
                member.thaw_at = now + step.length
            else:
                # One that was stopped before it began would never begin.
                member.process.send_signal(signal.SIGCONT)
                member.thaw_at = 0.0
                site.kill(member)
            self.report.done[f"{step.what} {member.what}"] += 1
            if number % 20 == 19:
                self._say(f"{now - self._begun:7.1f} s  {dict(self.report.done)}")

    def _harm_broker(self, blows: Sequence[Blow]) -> None:
        try:
            for blow in blows:
                if self._enough.wait(blow.up):
                    return
                self._broker_faults.append(Fault(time.time() * 1000, f"{blow.what} broker"))
                if blow.what == "freeze":
                    self._broker.freeze()
                else:
                    self._broker.kill()
                self._enough.wait(blow.down)
                if blow.what == "freeze":
                    self._broker.thaw()
                else:
                    self._broker.restart(PATIENCE_S)
                self.report.done[f"{blow.what} broker"] += 1
        except BrokerError as error:
            self.breach(f"the broker does not come back: {error}")

    def _bury(self) -> None:
        """Nothing outlives the run."""
        for site in self._sites:
            for member in site.members:
                if member.process.poll() is None:
                    member.process.kill()
                member.bury()
            site.hang_up()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.kills", description=(__doc__ or "").split("\n")[0])
    for each in fields(Options):
        kind = type(each.default)
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=kind, default=each.default, metavar=kind.__name__)
    parser.add_argument("--folder", type=Path, help="empty or new; kept (default: a temporary one)")
    given = vars(parser.parse_args(arguments))
    folder = given.pop("folder")
    try:
        with own_broker(folder) as (broker, place):
            report = Run(Options(**given), broker, place, lambda line: print(line, flush=True)).go()
    except BrokerError as error:
        print(error, file=sys.stderr)
        return 2
    print(report.line())
    return 1 if report.breaches else 0


if __name__ == "__main__":
    sys.exit(main())
