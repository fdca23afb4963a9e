"""``latency``: how long single calls of write() take while a real Kafka broker is killed, out of reach and frozen.

Each call has the machine to itself, but for the broker: turns of MessageBuffer's write(), kafka-python's own
KafkaProducer.send() and an os.write() to a file alternate, at the same pace and through the same faults. The last one
shows what the machine, and a broker that starts on it, do to any call.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mbframework.bench.figures import median_and_spread, number, percentile
from mbframework.bench.kafka_clients import missing_kafka_python
from mbframework.bench.outage import PLAN, Course, suffer
from mbframework.bench.paced import SAMPLE
from mbframework.bench.report import Report
from mbframework.bench.setting import setting
from mbframework.bench.worker import MeasurementFailed, Worker
from mbframework.testing.kafka import KafkaBroker
from mbframework.units import parse_size

_LONG_US = 200.0
_SHARES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
OURS, BARE, FLOOR = "write", "producer", "file"
CALLS = {
    OURS: "MessageBuffer.write()",
    BARE: "KafkaProducer.send(), kafka-python",
    FLOOR: "os.write() to a file",
}


@dataclass(frozen=True)
class Settings:
    """The options of ``latency``."""

    rounds: int = setting(3, "Turns of each call.")
    seconds: int = setting(30, "Length of a turn.")
    rate: int = setting(1000, "Calls per second.")
    value: str = setting("100", "Bytes of a value.")
    outages: bool = setting(True, "Kill, hide and freeze the broker; without, a running one serves too.")
    calls: str = setting(",".join(CALLS), "Which calls to measure.")


@dataclass(frozen=True)
class Turn:
    """``samples``: see :mod:`mbframework.bench.paced`; ``facts``: what the process said of itself."""

    samples: array[int]
    facts: dict[str, Any]
    course: Course

    def durations(self) -> list[float]:
        """µs of each call."""
        return [each / 1e3 for each in self.samples[1::SAMPLE]]

    def phases(self, rate: int) -> Iterator[str]:
        """What the broker was doing at each call."""
        return (self.course.phase(tick / rate) for tick in range(len(self.samples) // SAMPLE))

    def fates(self) -> Iterator[str]:
        """What became of the thread in each call."""
        for waits, losses in zip(self.samples[2::SAMPLE], self.samples[3::SAMPLE], strict=True):
            yield "waited" if waits else "lost the processor" if losses else "neither"


def run(settings: Settings, directory: str) -> Report:
    """Measure all calls, in turns."""
    calls = settings.calls.split(",")
    if wrong := set(calls) - CALLS.keys():
        raise MeasurementFailed(f"calls: expected some of {', '.join(CALLS)}, not {', '.join(sorted(wrong))}")
    report = Report("latency")
    reason = KafkaBroker.available() or missing_kafka_python()
    broker = KafkaBroker()
    if not reason and settings.outages and not broker.controllable:
        reason = "this kills the broker, which is not ours; unset MBFRAMEWORK_TEST_KAFKA"
    if reason:
        for budget in ("outage-p999", "outage-max"):
            report.missing(budget, reason)
        return report
    turns: dict[str, list[Turn]] = {call: [] for call in calls}
    with broker:
        for call in calls:
            broker.create_topic(call)
        for _ in range(settings.rounds):
            for call in calls:
                with tempfile.TemporaryDirectory(prefix="mb-bench-", dir=directory) as folder:
                    turns[call].append(_turn(call, broker, folder, settings))
    _report(report, settings, turns)
    return report


def _turn(call: str, broker: KafkaBroker, folder: str, settings: Settings) -> Turn:
    path = os.path.join(folder, "samples")
    with Worker("paced") as worker:
        worker.ask(
            what=call, target=os.path.join(folder, "target"), url=f"kafka://{broker.bootstrap}", topic=call,
            rate=settings.rate, seconds=settings.seconds, value=parse_size(settings.value), samples=path,
        )  # fmt: skip
        worker.tell()
        course = suffer(broker, settings.seconds, PLAN if settings.outages else PLAN[:1])
        facts = worker.answer()
    samples: array[int] = array("q")
    with open(path, "rb") as file:
        samples.frombytes(file.read())
    return Turn(samples, facts, course)


def _report(report: Report, settings: Settings, turns: dict[str, list[Turn]]) -> None:
    columns = [*_SHARES, "over 200"]
    figures = {call: [_figures(turn.durations()) for turn in of_call] for call, of_call in turns.items()}
    table = report.table(
        f"One call, in µs; {settings.rate:,} calls a second: median (lowest … highest) of {settings.rounds} turns of"
        f" {settings.seconds} s"
        + (", in each of which the broker is killed (-9), out of reach and frozen" if settings.outages else ""),
        "", *columns, "p99.9, ratio to write()",
    )  # fmt: skip
    reference = figures.get(OURS) or next(iter(figures.values()))
    for call, rounds in figures.items():
        by_name = {name: [each[name] for each in rounds] for name in _SHARES}
        ratio = [each["p99.9"] / base["p99.9"] for each, base in zip(rounds, reference, strict=True)]
        long, count = (sum(each[name] for each in rounds) for name in ("over 200", "calls"))
        table.add(
            CALLS[call], *(median_and_spread(values) for values in by_name.values()), f"{long:,.0f} of {count:,.0f}",
            f"{statistics.median(ratio):.2f}", call=call, long=long, calls=count, ratio=ratio, **by_name,
        )  # fmt: skip
    _budgets(report, figures)
    _by(
        report, turns, columns, "phase", lambda turn: turn.phases(settings.rate),
        "All turns together, by what the broker was doing",
    )  # fmt: skip
    _by(
        report, turns, columns, "fate", lambda turn: turn.fates(),
        "The same by what became of the thread in a call: it waited (for a lock, or for the interpreter); the system"
        " gave its processor to another thread or program; or neither",
    )  # fmt: skip
    table = report.table(
        "How late calls began, in µs: the sleeping thread has to be woken, and to get hold of the interpreter",
        "", *columns,
    )  # fmt: skip
    for call, of_call in turns.items():
        late = _figures([each / 1e3 for turn in of_call for each in turn.samples[0::SAMPLE]])
        table.add(CALLS[call], *_cells(late), call=call, **late)
    for call, of_call in turns.items():
        for turn in of_call:
            facts = ", ".join(f"{name} {value}" for name, value in turn.facts.items())
            report.remarks.append(f"{CALLS[call]}: {facts}; {turn.course}")


def _budgets(report: Report, figures: dict[str, list[dict[str, float]]]) -> None:
    """The median of the turns, but the longest call is the longest of all."""
    if OURS not in figures:
        return
    for budget, name, unit_us, together in (
        ("outage-p999", "p99.9", 1.0, list[float]), ("outage-max", "max", 1e3, lambda samples: [max(samples)])
    ):  # fmt: skip
        found = {call: together([each[name] for each in rounds]) for call, rounds in figures.items()}
        others = [
            f"{text} {number(statistics.median(found[call]) / 1e3)} ms"
            for call, text in ((BARE, "`KafkaProducer.send()`:"), (FLOOR, "`os.write()`:"))
            if call in found
        ]
        report.found(budget, [sample / unit_us for sample in found[OURS]], "; ".join(others))


def _by(
    report: Report, turns: dict[str, list[Turn]], columns: Sequence[str], what: str,
    kinds: Callable[[Turn], Iterable[str]], title: str,
) -> None:  # fmt: skip
    """A table of the calls of all turns, by their kind."""
    table = report.table(title, "", *columns)
    for call, of_call in turns.items():
        found: dict[str, list[float]] = {}
        for turn in of_call:
            for kind, duration in zip(kinds(turn), turn.durations(), strict=True):
                found.setdefault(kind, []).append(duration)
        for kind, durations in found.items():
            figures = _figures(durations)
            table.add(f"{CALLS[call]}, {kind}", *_cells(figures), call=call, **{what: kind}, **figures)


def _figures(durations: list[float]) -> dict[str, float]:
    ordered = sorted(durations)
    figures = {name: percentile(ordered, share) for name, share in _SHARES.items()}
    return figures | {"over 200": float(len(ordered) - bisect_right(ordered, _LONG_US)), "calls": len(ordered)}


def _cells(figures: dict[str, float]) -> list[str]:
    cells = [f"{figures[name]:,.1f}" for name in _SHARES]
    return [*cells, f"{figures['over 200']:.0f} of {figures['calls']:,.0f}"]
