"""``latency``: how long single calls of write() take while a real Kafka broker is killed, restarted and frozen.

Three processes make the same calls at the same times, on the same machine, through the same outages: MessageBuffer's
write(), kafka-python's own KafkaProducer.send(), and an os.write() to a file, which shows what the machine itself does
to a call.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from mbframework.bench.figures import number, percentile
from mbframework.bench.kafka_clients import missing_kafka_python
from mbframework.bench.paced import SAMPLE
from mbframework.bench.report import Report
from mbframework.bench.setting import setting
from mbframework.bench.worker import MeasurementFailed, Worker
from mbframework.testing.kafka import KafkaBroker
from mbframework.units import parse_size

_LONG_US = 200.0
CALLS = {
    "write": "MessageBuffer.write()",
    "producer": "KafkaProducer.send(), kafka-python",
    "file": "os.write() to a file",
}


@dataclass(frozen=True)
class Moment:
    """From ``at`` (share of the whole time, 0 to 1) on the broker is in ``phase``."""

    at: float
    phase: str
    action: str = ""


PLAN = (
    Moment(0.00, "up"),
    Moment(0.15, "killed", "kill"),
    Moment(0.30, "back", "restart"),
    Moment(0.45, "killed", "kill"),
    Moment(0.60, "back", "restart"),
    Moment(0.70, "frozen", "freeze"),
    Moment(0.85, "back", "thaw"),
)


@dataclass(frozen=True)
class Settings:
    """The options of ``latency``."""

    seconds: int = setting(90, "How long.")
    rate: int = setting(1000, "Calls per second.")
    value: str = setting("100", "Bytes of a value.")
    outages: bool = setting(True, "Kill and freeze the broker; without, a running one serves too.")
    calls: str = setting(",".join(CALLS), "Which calls to measure.")


def run(settings: Settings, directory: str) -> Report:
    """Measure all calls through one series of outages."""
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
    with tempfile.TemporaryDirectory(prefix="mb-bench-", dir=directory) as folder, broker, ExitStack() as stack:
        workers = [stack.enter_context(Worker("paced")) for _ in calls]
        for call, worker in zip(calls, workers, strict=True):
            _order(worker, call, broker, folder, settings)
        for worker in workers:
            worker.answer()
        for worker in workers:
            worker.tell()
        phases = _suffer(broker, settings.seconds, PLAN if settings.outages else PLAN[:1])
        facts = [worker.answer() for worker in workers]
        samples = [_load(os.path.join(folder, call)) for call in calls]
    _report(report, settings, dict(zip(calls, zip(samples, facts, strict=True), strict=True)), phases)
    return report


def _order(worker: Worker, call: str, broker: KafkaBroker, folder: str, settings: Settings) -> None:
    broker.create_topic(call)
    worker.tell(
        what=call, target=os.path.join(folder, f"{call}.target"), url=f"kafka://{broker.bootstrap}", topic=call,
        rate=settings.rate, seconds=settings.seconds, value=parse_size(settings.value),
        samples=os.path.join(folder, call),
    )  # fmt: skip


def _suffer(broker: KafkaBroker, seconds: int, plan: Sequence[Moment]) -> list[tuple[float, str]]:
    """Follow the plan; (seconds since the start, phase) as it really was."""
    begun = time.monotonic()
    waiter = threading.Event()
    phases: list[tuple[float, str]] = []
    for moment in plan:
        waiter.wait(max(0.0, begun + moment.at * seconds - time.monotonic()))
        phases.append((time.monotonic() - begun, moment.phase))
        if moment.action:
            getattr(broker, moment.action)()
    waiter.wait(max(0.0, begun + seconds - time.monotonic()))
    return phases


def _load(path: str) -> array[int]:
    samples: array[int] = array("q")
    with open(path, "rb") as file:
        samples.frombytes(file.read())
    return samples


def _report(
    report: Report,
    settings: Settings,
    results: dict[str, tuple[array[int], dict[str, Any]]],
    phases: list[tuple[float, str]],
) -> None:
    columns = ["p50", "p99", "p99.9", "max", "over 200"]
    table = report.table(
        f"One call, in µs; {settings.rate:,} calls a second for {settings.seconds} s"
        + (" while the broker is killed (-9) twice and frozen once" if settings.outages else ""),
        "", *columns, "p99.9, ratio to write()",
    )  # fmt: skip
    every = {call: _figures([each / 1e3 for each in samples[1::SAMPLE]]) for call, (samples, _) in results.items()}
    for budget, name, unit_us in (("outage-p999", "p99.9", 1.0), ("outage-max", "max", 1e3)):
        bare = f"`KafkaProducer.send()`: {number(every['producer'][name] / 1e3)} ms" if "producer" in every else ""
        if "write" in every:
            report.found(budget, [every["write"][name] / unit_us], bare)
    reference = next(iter(every.values()))["p99.9"]
    for call, figures in every.items():
        table.add(CALLS[call], *_cells(figures), f"{figures['p99.9'] / reference:.2f}", call=call, **figures)
    starts = [at for at, _ in phases]
    table = report.table("The same by what the broker was doing", "", *columns)
    for call, (samples, _) in results.items():
        by_phase: dict[str, list[float]] = {}
        for tick, duration in enumerate(samples[1::SAMPLE]):
            phase = phases[max(0, bisect_right(starts, tick / settings.rate) - 1)][1]
            by_phase.setdefault(phase, []).append(duration / 1e3)
        for phase, durations in by_phase.items():
            figures = _figures(durations)
            table.add(f"{CALLS[call]}, {phase}", *_cells(figures), call=call, phase=phase, **figures)
    table = report.table(
        "The same by what became of the thread in a call: it waited (for a lock, or for the interpreter); the system"
        " gave its processor to another thread or program; or neither",
        "", *columns,
    )  # fmt: skip
    for call, (samples, _) in results.items():
        by_fate: dict[str, list[float]] = {"waited": [], "lost the processor": [], "neither": []}
        for duration, waits, losses in zip(samples[1::SAMPLE], samples[2::SAMPLE], samples[3::SAMPLE], strict=True):
            by_fate["waited" if waits else "lost the processor" if losses else "neither"].append(duration / 1e3)
        for fate, durations in by_fate.items():
            if not durations:
                continue
            figures = _figures(durations)
            table.add(f"{CALLS[call]}, {fate}", *_cells(figures), call=call, fate=fate, **figures)
    table = report.table(
        "How late calls began, in µs: the sleeping thread has to be woken, and to get hold of the interpreter",
        "", *columns,
    )  # fmt: skip
    for call, (samples, _) in results.items():
        figures = _figures([late / 1e3 for late in samples[0::SAMPLE]])
        table.add(CALLS[call], *_cells(figures), call=call, **figures)
    for call, (_, facts) in results.items():
        report.remarks.append(f"{CALLS[call]}: " + ", ".join(f"{name} {value}" for name, value in facts.items()))
    report.remarks.append("phases: " + ", ".join(f"{at:.1f} s {phase}" for at, phase in phases))


def _figures(durations: list[float]) -> dict[str, float]:
    ordered = sorted(durations)
    shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
    figures = {name: percentile(ordered, share) for name, share in shares.items()}
    return figures | {"over 200": float(len(ordered) - bisect_right(ordered, _LONG_US)), "calls": len(ordered)}


def _cells(figures: dict[str, float]) -> list[str]:
    cells = [f"{figures[name]:,.1f}" for name in ("p50", "p99", "p99.9", "max")]
    return [*cells, f"{figures['over 200']:.0f} of {figures['calls']:,.0f}"]
