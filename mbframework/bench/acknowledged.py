"""``acknowledged``: how long it takes from the call to the broker's acknowledgement, at a steady pace, through the
buffer (live, and always through the files) and with the bare client, for kafka-python and for confluent-kafka.

The calls follow a schedule that was made before. An acknowledgement through the buffer is the return of its provider's
``send()``; of a bare client, which has ``acks=all``, it is the callback. Each client is used by itself with what lets a
message wait least, in more than one way where that is not certain: compared is with the one whose p99 is lowest.
Turns of all are interleaved; each begins with messages that do not count.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
import uuid
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from mbframework import MessageBuffer
from mbframework.bench.figures import median_and_spread, number, percentile
from mbframework.bench.kafka_clients import missing_confluent, missing_kafka_python
from mbframework.bench.report import Report
from mbframework.bench.setting import setting
from mbframework.bench.tally import number_of, values
from mbframework.bench.worker import MeasurementFailed
from mbframework.config import Mode
from mbframework.message import Batch
from mbframework.plugins.source import ProviderSource, resolve_url
from mbframework.provider import Context, Provider
from mbframework.testing.kafka import KafkaBroker
from mbframework.units import parse_size

_BUDGETS = ("ack-kafka-live", "ack-kafka-always", "ack-confluent-live", "ack-confluent-always")


_PATIENCE_S = 30.0
#: With a number that no message has.
_WARMING = b"\xff" * 8


@dataclass(frozen=True)
class Settings:
    """The options of ``acknowledged``."""

    rounds: int = setting(5, "Turns of each.")
    seconds: float = setting(4.0, "Length of a turn.")
    rate: int = setting(1000, "Messages a second.")
    value: str = setting("100", "Bytes of a value, at least 8.")
    only: str = setting("", "Only the cases whose names contain this.")


class Clock:
    """When each message was given and when it was acknowledged, by its number; ``told`` may be called by any thread."""

    def __init__(self, count: int) -> None:
        self.given = array("q", bytes(8 * count))
        self.acknowledged = array("q", bytes(8 * count))
        self._left = count
        self.all = threading.Event()

    def told(self, number: int) -> None:
        """The message of this number has been acknowledged; those beyond the last one are for warming up."""
        if number < len(self.given) and not self.acknowledged[number]:
            self.acknowledged[number] = time.perf_counter_ns()
            self._left -= 1
            if not self._left:
                self.all.set()


class Witness(Provider):
    """Another provider, and when its ``send()`` returned. One thread, that of the sender."""

    def __init__(self, source: ProviderSource, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._inner: Provider | None = None

    def open(self, context: Context) -> None:
        self._inner = self._source.create(context)
        self._inner.open(context)
        self.max_message_bytes = self._inner.max_message_bytes

    def send(self, batch: Batch) -> None:
        assert self._inner is not None
        self._inner.send(batch)
        for value in batch.values:
            self._clock.told(number_of(value))

    def idle(self) -> None:
        if self._inner is not None:
            self._inner.idle()

    def destination(self) -> str:
        return "" if self._inner is None else self._inner.destination()

    def close(self, timeout: float) -> None:
        if self._inner is not None:
            self._inner.close(timeout)


#: Gives a message to a client that is connected; the number says which one it is.
Give = Callable[[bytes, int], object]


@contextmanager
def _buffer(url: str, mode: Mode, directory: str, bootstrap: str, topic: str, clock: Clock) -> Iterator[Give]:
    source = resolve_url(url.format(bootstrap))
    with tempfile.TemporaryDirectory(prefix="mb-bench-", dir=directory) as folder:
        provider = Witness(source, clock)
        with MessageBuffer(os.path.join(folder, "buffer"), provider, mode=mode) as buffer:
            # Connected, and where that is what is measured, live.
            buffer.write(topic, _WARMING)
            buffer.flush(_PATIENCE_S)
            end = time.monotonic() + _PATIENCE_S
            while mode == "buffer" and buffer.status().state != "live":
                if time.monotonic() > end:
                    raise MeasurementFailed(f"the buffer is not live after {_PATIENCE_S:g} s")
                time.sleep(0.01)
            yield lambda value, _: buffer.write(topic, value)


@contextmanager
def _kafka(bootstrap: str, topic: str, clock: Clock) -> Iterator[Give]:
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=bootstrap)
    producer.partitions_for(topic)

    def give(value: bytes, number: int) -> None:
        producer.send(topic, value).add_callback(lambda _: clock.told(number))

    try:
        yield give
    finally:
        producer.close()


@contextmanager
def _confluent(linger_ms: float, bootstrap: str, topic: str, clock: Clock) -> Iterator[Give]:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": linger_ms})
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            producer.poll(0.1)

    # Its callbacks come to who polls: a thread that does nothing else hears of them at once.
    thread = threading.Thread(target=serve, name="bench-poll")
    thread.start()

    def give(value: bytes, number: int) -> None:
        producer.produce(topic, value, on_delivery=lambda *_: clock.told(number))

    try:
        yield give
    finally:
        stop.set()
        thread.join()
        producer.flush(10)


@dataclass(frozen=True)
class Case:
    """``start`` gives what writes; ``whole``: through the buffer, and compared with the best of the same client's by
    itself, of which there may be a ``budget``."""

    name: str
    client: str
    start: Callable[[str, str, Clock], Any]
    missing: str = ""
    budget: str = ""
    whole: bool = False


def cases(directory: str) -> list[Case]:
    """All of them, each client by itself first; buffers are made in ``directory``."""
    found = []
    modes: tuple[tuple[str, Mode, str], ...] = (
        ("live", "buffer", ""), ("always", "always", ""), ("live, exactly once", "buffer", "?delivery=exactly-once")
    )  # fmt: skip
    lingers = {f"bare, linger.ms={linger}": partial(_confluent, linger) for linger in (0, 1)}
    for client, scheme, bare, missing in (
        # Its own linger_ms is 0.
        ("kafka-python", "kafka", {"bare": _kafka}, missing_kafka_python()),
        ("confluent", "confluent", lingers, missing_confluent()),
    ):
        found += [Case(f"{client}, {how}", client, start, missing) for how, start in bare.items()]
        for called, mode, query in modes:
            start = partial(_buffer, f"{scheme}://{{}}{query}", mode, directory)
            # Nothing is demanded of a transaction.
            budget = "" if query else f"ack-{scheme}-{called}"
            found.append(Case(f"{client}, buffer, {called}", client, start, missing, budget, whole=True))
    return found


def run(settings: Settings, directory: str) -> Report:
    """Measure all cases."""
    report = Report("acknowledged")
    if reason := KafkaBroker.available() or missing_kafka_python():
        for budget in _BUDGETS:
            report.missing(budget, reason)
        return report
    chosen = [case for case in cases(directory) if settings.only in case.name]
    found: dict[str, list[list[float]]] = {case.name: [] for case in chosen if not case.missing}
    with KafkaBroker() as broker:
        for turn in range(settings.rounds + 1):
            for case in chosen:
                if case.missing:
                    continue
                # The first round warms the broker and is not counted.
                waits = _measure(case, settings, broker, settings.seconds if turn else min(1.0, settings.seconds))
                if turn:
                    found[case.name].append(waits)
    _report(report, settings, chosen, found)
    return report


def _measure(case: Case, settings: Settings, broker: KafkaBroker, seconds: float) -> list[float]:
    """Milliseconds from call to acknowledgement of each message, in order of their length."""
    topic = f"bench-{uuid.uuid4().hex}"
    broker.create_topic(topic)
    warming, count = max(1, settings.rate // 4), max(1, int(settings.rate * seconds))
    clock = Clock(warming + count)
    period = 10**9 // settings.rate
    with case.start(broker.bootstrap, topic, clock) as give:
        due = time.perf_counter_ns()
        for number, value in enumerate(values(0, warming + count, parse_size(settings.value))):
            while (left := due - time.perf_counter_ns()) > 0:
                time.sleep(left / 1e9)
            clock.given[number] = time.perf_counter_ns()
            give(value, number)
            due += period
        if not clock.all.wait(60):
            raise MeasurementFailed(f"{case.name}: not all messages were acknowledged after 60 s")
    pairs = zip(clock.given[warming:], clock.acknowledged[warming:], strict=True)
    return sorted((acknowledged - given) / 1e6 for given, acknowledged in pairs)


def _report(report: Report, settings: Settings, chosen: list[Case], found: dict[str, list[list[float]]]) -> None:
    table = report.table(
        f"From the call to the acknowledgement, ms, at {settings.rate:,} messages a second of {settings.value} bytes:"
        f" median (lowest … highest) of {settings.rounds} turns of {settings.seconds:g} s, interleaved",
        "", "p50", "p99", "p99.9", "p99 over the bare client's",
    )  # fmt: skip
    for case in chosen:
        if case.missing:
            report.remarks.append(f"not measured: {case.name}: {case.missing}")
            if case.budget:
                report.missing(case.budget, case.missing)
            continue
        shares = {share: [percentile(turn, share) for turn in found[case.name]] for share in (0.5, 0.99, 0.999)}
        more: list[float] = []
        if case.whole and (best := _best(case.client, chosen, found)):
            name, bare = best
            more = [ours - theirs for ours, theirs in zip(shares[0.99], bare, strict=True)]
            if case.budget:
                report.found(case.budget, more, f"{name}, p99")
        table.add(
            case.name, *(median_and_spread(each, 2) for each in shares.values()),
            f"{'+' if statistics.median(more) > 0 else ''}{number(statistics.median(more))}" if more else "",
            case=case.name, p50=shares[0.5], p99=shares[0.99], p999=shares[0.999], more=more,
        )  # fmt: skip


def _best(client: str, chosen: list[Case], found: dict[str, list[list[float]]]) -> tuple[str, list[float]] | None:
    """The p99 of each turn of a client by itself, where that is lowest, and the name of that case."""
    bare = {
        case.name: [percentile(turn, 0.99) for turn in found[case.name]]
        for case in chosen
        if case.client == client and not case.whole and case.name in found
    }
    return min(bare.items(), key=lambda each: statistics.median(each[1]), default=None)
