"""Three Kafka brokers with passwords, TLS and rights, and what can happen to them while both Kafka providers deliver.

``python -m tests.torture.brokers --seconds 10 --rate 400 --seed 1``

For each scenario (tests/torture/scenarios.py) two writers, processes of their own, send numbered messages through
buffers in mode ``buffer``, one by ``kafka``, one by ``confluent``. The ledger that is kept outside, the accounts and
the topics, which are read back, must agree. One line a lane, the last line is the verdict; the exit status is 1 after
any breach. How to read it: docs/testing.md.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mbframework.testing.kafka import KafkaBroker
from mbframework.testing.kafka_jars import BrokerError
from tests.torture.guarded_cluster import GuardedCluster
from tests.torture.guarded_lane import GuardedLane, LaneReport, WriterEnded
from tests.torture.own_broker import placed
from tests.torture.scenarios import SCENARIOS, Scenario, Stage
from tests.torture.verdict import Fault

SCHEMES = ("kafka", "confluent")
#: Of the JSON.
SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``seconds``: how long an outage or a refusal lasts, and the quiet before and after; ``rate``: messages per second
    of each lane."""

    seconds: float = 10.0
    rate: float = 400.0
    seed: int = 1


@dataclass
class Report:
    """All lanes of all scenarios."""

    seed: int
    seconds: float = 0.0
    lanes: list[LaneReport] = field(default_factory=list)

    @property
    def breaches(self) -> int:
        """How many promises were not kept."""
        return sum(len(lane.breaches) for lane in self.lanes)

    def line(self) -> str:
        """The verdict."""
        lanes = self.lanes

        def total(count: Callable[[LaneReport], int]) -> str:
            return f"{sum(map(count, lanes)):,}"

        return (
            f"{'BREACH' if self.breaches or not lanes else 'PASS'} seed {self.seed}: three brokers, "
            f"{len(lanes)} lanes, {self.seconds:.0f} s; accepted {total(lambda lane: lane.accepted)}, "
            f"delivered {total(lambda lane: lane.delivered)}, lost {total(lambda lane: lane.lost)}, "
            f"missing {total(lambda lane: lane.finding.missing)}, repeated {total(lambda lane: lane.finding.repeated)} "
            f"({total(lambda lane: lane.ambiguous)} ambiguous answers), "
            f"out of order {total(lambda lane: lane.finding.out_of_order)}, dead {total(lambda lane: lane.dead)}, "
            f"accounts {'balance' if all(lane.balanced for lane in lanes) else 'do not balance'}; "
            f"{self.breaches} breaches"
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"schema": SCHEMA, "breaches": self.breaches, **asdict(self)}


class Run:
    """Scenarios on a running cluster, one after the other, in an empty ``folder``."""

    def __init__(
        self, options: Options, cluster: GuardedCluster, schemes: Sequence[str], folder: Path,
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._options = options
        self._cluster = cluster
        self._schemes = schemes
        self._folder = folder
        self._say = say
        self._begun = time.monotonic()

    def go(self, scenarios: Sequence[Scenario]) -> Report:
        """Play these."""
        report = Report(self._options.seed)
        for scenario in scenarios:
            self._tell(f"== {scenario.name}")
            report.lanes += self._play(scenario)
        report.seconds = time.monotonic() - self._begun
        return report

    def _play(self, scenario: Scenario) -> list[LaneReport]:
        options = self._options
        folder = self._folder / scenario.name.replace(" ", "-")
        folder.mkdir()
        faults: list[Fault] = []
        lanes = [GuardedLane(self._cluster, scheme, scheme, folder, faults, self._tell) for scheme in self._schemes]
        # Of its own, so that a scenario is the same whichever others are played.
        draw = random.Random(f"{options.seed} {scenario.name}")
        stage = Stage(self._cluster, lanes, faults, draw, options.seconds, options.rate, self._tell)
        try:
            stage.grant()
            if scenario.topics:
                stage.make_topics()
            for lane in lanes:
                lane.start(options.rate)
            if scenario.topics:
                stage.rest(options.seconds / 2)
            scenario.act(stage)
            for lane in lanes:
                lane.wait_caught_up()
            stage.rest(options.seconds / 2)
            reports = [lane.finish(scenario.name, scenario.partitions) for lane in lanes]
        except (WriterEnded, TimeoutError, RuntimeError) as error:
            # RuntimeError: what kafka-python and the brokers of the tests raise. The other scenarios are played.
            why = f"{type(error).__name__}: {error}"
            reports = [LaneReport(scenario.name, lane.scheme, breaches=[*lane.breaches, why]) for lane in lanes]
        finally:
            for lane in lanes:
                lane.kill()
            self._cluster.ensure_running()
        for each in reports:
            self._tell(each.line())
        return reports

    def _tell(self, text: str) -> None:
        self._say(f"{time.monotonic() - self._begun:7.1f} s  {text}")


def _print(line: str) -> None:
    # In one piece, since the watchers print as well.
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.brokers", description=(__doc__ or "").split("\n")[0])
    defaults = Options()
    parser.add_argument("--seconds", type=float, default=defaults.seconds, help="an outage, and the quiet around it")
    parser.add_argument("--rate", type=float, default=defaults.rate, help="messages per second of each lane")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--only", action="append", choices=SCENARIOS, metavar="SCENARIO", help="may be given again")
    parser.add_argument("--scheme", action="append", choices=SCHEMES, help="kafka or confluent; default: both")
    parser.add_argument("--json", action="store_true", help="print the outcome as one JSON object after the verdict")
    parser.add_argument("--folder", type=Path, help="empty or new; kept (default: a temporary one)")
    chosen = parser.parse_args(arguments)
    reason = KafkaBroker.available()
    if reason is None and shutil.which("openssl") is None:
        reason = "the certificates need openssl; run: apt-get install -y openssl"
    if reason:
        print(f"no Kafka cluster: {reason}", file=sys.stderr)
        return 2
    schemes = tuple(chosen.scheme or SCHEMES)
    scenarios = [SCENARIOS[name] for name in chosen.only or SCENARIOS]
    options = Options(seconds=chosen.seconds, rate=chosen.rate, seed=chosen.seed)
    users = {scheme: f"pass:w/rd of {scheme}" for scheme in schemes}
    try:
        with placed(chosen.folder) as place:
            (place / "certificates").mkdir(exist_ok=True)
            with GuardedCluster(place / "certificates", users) as cluster:
                report = Run(options, cluster, schemes, place, _print).go(scenarios)
    except BrokerError as error:
        print(error, file=sys.stderr)
        return 2
    print(report.line())
    if chosen.json:
        print(json.dumps(report.as_dict()))
    return 1 if report.breaches or not report.lanes else 0


if __name__ == "__main__":
    sys.exit(main())
