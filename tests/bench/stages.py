"""From ``write()`` to the broker's acknowledgement: how long a message spends on which stretch of the way."""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
import uuid

from mbframework import MessageBuffer
from mbframework.bench.acknowledged import Clock, Witness
from mbframework.bench.figures import percentile
from mbframework.bench.kafka_clients import missing_kafka_python
from mbframework.bench.report import Report
from mbframework.bench.tally import number_of, values
from mbframework.config import Mode
from mbframework.message import Batch
from mbframework.plugins.source import ProviderSource, resolve_url
from mbframework.testing.kafka import KafkaBroker

_RATE = 1000
_WARM = 1000
_PATIENCE_S = 30.0


class Stamping(Witness):
    """Also when ``send()`` began with each message."""

    def __init__(self, source: ProviderSource, clock: Clock, begun: list[int]) -> None:
        super().__init__(source, clock)
        self._begun = begun

    def send(self, batch: Batch) -> None:
        now = time.perf_counter_ns()
        for value in batch.values:
            number = number_of(value)
            if number < len(self._begun):
                self._begun[number] = now
        super().send(batch)


def add_to(report: Report, chosen: argparse.Namespace) -> None:
    """One table, a row for each stretch in each mode."""
    table = report.table(
        f"From write() to the acknowledgement by Kafka, kafka-python, {_RATE:,} messages a second: ms, and the"
        " share of the time of nine tenths of them",
        "", "p50", "p99", "%",
    )  # fmt: skip
    if reason := KafkaBroker.available() or missing_kafka_python():
        report.remarks.append(f"not measured, from write() to the acknowledgement: {reason}")
        return
    with KafkaBroker() as broker:
        modes: tuple[tuple[str, Mode], ...] = ("live", "buffer"), ("always", "always")
        for name, mode in modes:
            for part, taken, share in _measure(broker, mode, chosen):
                p50, p99 = percentile(taken, 0.5), percentile(taken, 0.99)
                cells = f"{p50:.3f}", f"{p99:.3f}", f"{share:.0f}"
                table.add(f"{name}: {part}", *cells, mode=name, part=part, p50=p50, p99=p99, share=share)


def _measure(broker: KafkaBroker, mode: Mode, chosen: argparse.Namespace) -> list[tuple[str, list[float], float]]:
    """The stretches, each with its milliseconds in order, and its share of the whole."""
    count = _WARM + int(_RATE * chosen.seconds)
    clock, begun, returned = Clock(count), [0] * count, [0] * count
    topic = f"profile-{uuid.uuid4().hex}"
    broker.create_topic(topic)
    provider = Stamping(resolve_url(f"kafka://{broker.bootstrap}"), clock, begun)
    with tempfile.TemporaryDirectory(prefix="mb-bench-", dir=chosen.directory) as folder:
        with MessageBuffer(os.path.join(folder, "buffer"), provider, mode=mode) as buffer:
            buffer.write(topic, b"\xff" * 8)
            buffer.flush(_PATIENCE_S)
            waiter = threading.Event()
            while mode == "buffer" and buffer.status().state != "live":
                waiter.wait(0.01)
            due = time.perf_counter_ns()
            for number, value in enumerate(values(0, count, 100)):
                while (left := due - time.perf_counter_ns()) > 0:
                    time.sleep(left / 1e9)
                clock.given[number] = time.perf_counter_ns()
                buffer.write(topic, value)
                returned[number] = time.perf_counter_ns()
                due += 10**9 // _RATE
            assert clock.all.wait(60)
    given, acknowledged = clock.given[_WARM:], clock.acknowledged[_WARM:]
    free = [max(pair) for pair in zip(given, _ends(begun, list(clock.acknowledged))[_WARM:], strict=True)]
    parts = (
        ("within write()", given, returned[_WARM:]),
        # It includes write(): the sender may begin before that has returned.
        ("the batch before it is under way", given, free),
        ("until send() begins", free, begun[_WARM:]),
        ("within send()", begun[_WARM:], acknowledged),
        ("together", given, acknowledged),
    )
    spans = {
        name: [(stop - start) / 1e6 for start, stop in zip(starts, stops, strict=True)] for name, starts, stops in parts
    }
    # The slowest tenth is other programs'.
    limit = percentile(sorted(spans["together"]), 0.9)
    usual = [number for number, whole in enumerate(spans["together"]) if whole <= limit]
    whole = sum(spans["together"][number] for number in usual)
    return [(name, sorted(each), 100 * sum(each[number] for number in usual) / whole) for name, each in spans.items()]


def _ends(begun: list[int], acknowledged: list[int]) -> list[int]:
    """For each message, when the batch before its own had been sent."""
    found, before = [], 0
    for number, at in enumerate(begun):
        if number and begun[number - 1] != at:
            before = acknowledged[number - 1]
        found.append(before)
    return found
