"""``latency``: how long single calls of write() take while a real Kafka broker is killed, restarted and frozen.

Three processes make the same calls at the same times, on the same machine, through the same outages: MessageBuffer's
write(), kafka-python's own KafkaProducer.send(), and an os.write() to a file, which shows what the machine itself does
to a call.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

from mbframework.testing.kafka import KafkaBroker
from mbframework.units import parse_size
from tests.bench.figures import percentile
from tests.bench.paced import SAMPLE
from tests.bench.report import Report

DEMANDED_US = 200.0
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``latency``."""
    parser.add_argument("--seconds", type=int, default=90, help="how long (default 90)")
    parser.add_argument("--rate", type=int, default=1000, help="calls per second (default 1000)")
    parser.add_argument("--value", default="100", help="bytes of a value (default 100)")
    parser.add_argument("--calls", default=",".join(CALLS), help="which calls to measure (default %(default)s)")


def run(chosen: argparse.Namespace) -> Report:
    """Measure all calls through one series of outages."""
    reason = KafkaBroker.available()
    if reason is not None:
        sys.exit(f"latency: no Kafka broker: {reason}")
    calls = chosen.calls.split(",")
    with tempfile.TemporaryDirectory(prefix="mb-bench-", dir=chosen.directory) as folder, KafkaBroker() as broker:
        if not broker.controllable:
            sys.exit("latency: this benchmark kills the broker, which is not ours; unset MBFRAMEWORK_TEST_KAFKA")
        processes = [_start(call, broker, folder, chosen) for call in calls]
        try:
            for process in processes:
                _line(process)
            for process in processes:
                _write(process, b"go\n")
            phases = _suffer(broker, chosen.seconds)
            facts = [json.loads(_line(process)) for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()
        samples = [_load(os.path.join(folder, call)) for call in calls]
    return _report(chosen, dict(zip(calls, zip(samples, facts, strict=True), strict=True)), phases)


def _start(call: str, broker: KafkaBroker, folder: str, chosen: argparse.Namespace) -> subprocess.Popen[bytes]:
    broker.create_topic(call)
    order = {
        "what": call,
        "target": os.path.join(folder, f"{call}.target"),
        "url": f"kafka://{broker.bootstrap}",
        "topic": call,
        "rate": chosen.rate,
        "seconds": chosen.seconds,
        "value": parse_size(chosen.value),
        "samples": os.path.join(folder, call),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tests.bench.paced", json.dumps(order)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip


def _suffer(broker: KafkaBroker, seconds: int) -> list[tuple[float, str]]:
    """Follow the plan; (seconds since the start, phase) as it really was."""
    begun = time.monotonic()
    waiter = threading.Event()
    phases: list[tuple[float, str]] = []
    for moment in PLAN:
        waiter.wait(max(0.0, begun + moment.at * seconds - time.monotonic()))
        phases.append((time.monotonic() - begun, moment.phase))
        if moment.action:
            getattr(broker, moment.action)()
    waiter.wait(max(0.0, begun + seconds - time.monotonic()))
    return phases


def _line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        sys.exit("latency: a measured process has ended; what it said stands above")
    return line


def _write(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(data)
    process.stdin.flush()


def _load(path: str) -> array[int]:
    samples: array[int] = array("q")
    with open(path, "rb") as file:
        samples.frombytes(file.read())
    return samples


def _report(
    chosen: argparse.Namespace, results: dict[str, tuple[array[int], dict[str, Any]]], phases: list[tuple[float, str]]
) -> Report:
    report = Report("latency")
    columns = ["p50", "p99", "p99.9", "max", "over 200"]
    table = report.table(
        f"One call, in µs; {chosen.rate:,} calls a second for {chosen.seconds} s while the broker is killed (-9) twice"
        f" and frozen once; demanded of write(): p99.9 at most {DEMANDED_US:g}",
        "", *columns, "p99.9, ratio to write()",
    )  # fmt: skip
    reference = None
    for call, (samples, _) in results.items():
        figures = _figures([duration / 1e3 for duration in samples[1::SAMPLE]])
        reference = reference or figures["p99.9"]
        table.add(CALLS[call], *_cells(figures), f"{figures['p99.9'] / reference:.2f}", call=call, **figures)
    starts = [at for at, _ in phases]
    table = report.table("The same by what the broker was doing", "", *columns)
    for call, (samples, _) in results.items():
        by_phase: dict[str, list[float]] = {}
        for tick, duration in enumerate(samples[1::SAMPLE]):
            phase = phases[max(0, bisect_right(starts, tick / chosen.rate) - 1)][1]
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
    return report


def _figures(durations: list[float]) -> dict[str, float]:
    ordered = sorted(durations)
    shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
    figures = {name: percentile(ordered, share) for name, share in shares.items()}
    return figures | {"over 200": float(len(ordered) - bisect_right(ordered, DEMANDED_US)), "calls": len(ordered)}


def _cells(figures: dict[str, float]) -> list[str]:
    cells = [f"{figures[name]:,.1f}" for name in ("p50", "p99", "p99.9", "max")]
    return [*cells, f"{figures['over 200']:.0f} of {figures['calls']:,.0f}"]
