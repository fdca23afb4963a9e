"""``kafka``: messages per second from a backlog on disk into a real Kafka broker, through the whole buffer, and how
fast the clients are that one would otherwise use, in the same run.

A backlog is written while the buffer is paused; the time is that from ``resume()`` to the last acknowledgement.
Clients are timed from the first call to the end of ``flush()``, with all values made beforehand. Broker and client
share the machine, so that the broker's CPU seconds are shown as well. After each measurement the broker is asked how
many messages it has.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mbframework import MessageBuffer
from mbframework.testing.kafka import KafkaBroker
from mbframework.testing.kafka_jars import jars, java
from mbframework.units import parse_size
from tests.bench.figures import median_and_spread
from tests.bench.report import Report

_MANY = 1000
_KEYS = 10_000
#: The class of kafka-producer-perf-test.sh, in a jar of its own.
_PERFORMANCE = "org.apache.kafka.tools.ProducerPerformance"
#: Of the messages, in the round that is not counted.
_WARMING = 20


@dataclass(frozen=True)
class Load:
    """What is sent: ``rich``: with keys and two headers, over four partitions."""

    values: list[bytes]
    rich: bool = False

    @property
    def partitions(self) -> int:
        """Of the topic."""
        return 4 if self.rich else 1

    def key(self, index: int) -> bytes | None:
        """One of ten thousand keys, or none."""
        return b"key-%05d" % (index % _KEYS) if self.rich else None

    @property
    def headers(self) -> list[tuple[str, bytes]]:
        """The same for all."""
        return [("content-type", b"application/json"), ("trace", b"0123456789abcdef")] if self.rich else []


@dataclass(frozen=True)
class Case:
    """``share``: the part of the messages that is enough for a slow client."""

    name: str
    send: Callable[[str, str, Load, str], float]
    rich: bool = False
    share: int = 1
    #: What is demanded of it: at least so many times send(), and so much of the best other client.
    demanded: tuple[float, float] | None = None
    #: Why it cannot be measured here; "" where it can.
    missing: str = ""
    #: A part of the names of the other clients that it is compared with; "" for all of them.
    rivals: str = ""


@dataclass
class Samples:
    """Of one case: messages per second, and CPU seconds per million messages of the client and of the broker."""

    pace: list[float] = field(default_factory=list)
    client: list[float] = field(default_factory=list)
    broker: list[float] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``kafka``."""
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--messages", type=int, default=500_000, help="messages of one measurement (default 500000)")
    parser.add_argument("--value", default="100", help="bytes of a value (default 100)")
    parser.add_argument("--only", help="only the cases whose names contain this, and KafkaProducer.send()")


def run(chosen: argparse.Namespace) -> Report:
    """Measure all cases."""
    if reason := KafkaBroker.available():
        sys.exit(f"kafka: no Kafka broker: {reason}")
    size = parse_size(chosen.value)
    values = [b"%08d" % number + bytes(max(0, size - 8)) for number in range(chosen.messages)]
    cases = _cases()
    baseline = cases[0].name
    wanted = [case for case in cases if not chosen.only or chosen.only in case.name or case is cases[0]]
    found = {case.name: Samples() for case in wanted}
    with KafkaBroker() as broker:
        # The first round warms the broker's compiler and page cache, and is not counted.
        for number in range(chosen.rounds + 1):
            for case in wanted:
                if not case.missing:
                    measured = Samples() if number == 0 else found[case.name]
                    count = max(1, chosen.messages // case.share // (_WARMING if number == 0 else 1))
                    _measure(case, Load(values[:count], case.rich), broker, chosen.directory, measured)
    return _report(chosen, wanted, found, baseline)


def _cases() -> list[Case]:
    confluent = "" if importlib.util.find_spec("confluent_kafka") else "no confluent-kafka; run: pip install it"
    perf = "" if list(jars().glob("kafka-tools-[0-9]*.jar")) else f"no jar with {_PERFORMANCE}; set KAFKA_HOME"
    return [
        Case("KafkaProducer.send(), its defaults", _send_defaults, share=10),
        Case("buffer, bulk path", _drain("bulk=yes"), demanded=(25, 0.8)),
        Case("buffer, bulk path, written one by one", _drain("bulk=yes", one_by_one=True), share=4),
        Case("buffer, send() path", _drain("bulk=no"), share=10),
        Case(
            "buffer, confluent", _drain("", scheme="confluent"),
            demanded=(25, 0.9), missing=confluent, rivals="confluent",
        ),
        Case("confluent produce_batch(), defaults", _produce_batch({}), missing=confluent),
        Case("confluent produce_batch(), tuned", _produce_batch(_TUNED_C), missing=confluent),
        Case("Java ProducerPerformance, defaults", _performance(()), missing=perf),
        Case("Java ProducerPerformance, tuned", _performance(_TUNED_JAVA), missing=perf),
        Case("keys, headers, 4 partitions: KafkaProducer.send()", _send_defaults, rich=True, share=10),
        Case("keys, headers, 4 partitions: buffer, bulk path", _drain("bulk=yes"), rich=True),
        Case(
            "keys, headers, 4 partitions: buffer, confluent", _drain("", scheme="confluent"),
            rich=True, missing=confluent, rivals="confluent",
        ),
        Case("keys, headers, 4 partitions: confluent produce()", _produce, rich=True, missing=confluent),
    ]  # fmt: skip


_TUNED_C: dict[str, object] = {"linger.ms": 20, "batch.size": 1_000_000, "enable.idempotence": True}
_TUNED_JAVA = ("batch.size=262144", "linger.ms=20")


# -- the clients: each sends everything, and says how many seconds it took ---------------------------------------------


def _send_defaults(bootstrap: str, topic: str, load: Load, _: str) -> float:
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=bootstrap)
    try:
        producer.partitions_for(topic)
        headers = load.headers or None
        begun = time.perf_counter()
        for index, value in enumerate(load.values):
            producer.send(topic, value, key=load.key(index), headers=headers)
        producer.flush()
        return time.perf_counter() - begun
    finally:
        producer.close()


def _drain(
    query: str, *, one_by_one: bool = False, scheme: str = "kafka"
) -> Callable[[str, str, Load, str], float]:  # fmt: skip
    def drain(bootstrap: str, topic: str, load: Load, folder: str) -> float:
        url = f"{scheme}://{bootstrap}?{query}"
        with MessageBuffer(os.path.join(folder, "buffer"), url, mode="always", catch_up="full") as buffer:
            # Connected, and past what is done once.
            buffer.write(topic, b"first")
            buffer.flush(60)
            buffer.pause()
            for value in load.values[1:] if one_by_one else ():
                buffer.write(topic, value)
            for first in () if one_by_one else range(1, len(load.values), _MANY):
                part = load.values[first : first + _MANY]
                keys = [load.key(first + index) for index in range(len(part))] if load.rich else None
                headers = [load.headers] * len(part) if load.rich else None
                buffer.write_many(topic, part, keys=keys, headers=headers)
            begun = time.perf_counter()
            buffer.resume()
            buffer.flush(600)
            return time.perf_counter() - begun

    return drain


def _produce_batch(settings: dict[str, object]) -> Callable[[str, str, Load, str], float]:
    def produce_batch(bootstrap: str, topic: str, load: Load, _: str) -> float:
        producer = _confluent(bootstrap, settings)
        messages = [{"value": value} for value in load.values]
        begun = time.perf_counter()
        at = 0
        while at < len(messages):
            taken = producer.produce_batch(topic, messages[at : at + 10 * _MANY])
            at += taken
            producer.poll(0 if taken else 0.01)
        _flush(producer)
        return time.perf_counter() - begun

    return produce_batch


def _produce(bootstrap: str, topic: str, load: Load, _: str) -> float:
    producer = _confluent(bootstrap, _TUNED_C)
    headers = load.headers
    begun = time.perf_counter()
    for index, value in enumerate(load.values):
        while True:
            try:
                producer.produce(topic, value, load.key(index), headers=headers)
                break
            except BufferError:
                producer.poll(0.01)
    _flush(producer)
    return time.perf_counter() - begun


def _confluent(bootstrap: str, settings: dict[str, object]) -> Any:
    from confluent_kafka import Producer  # type: ignore[import-not-found,unused-ignore]  # it is optional

    producer = Producer({"bootstrap.servers": bootstrap, "queue.buffering.max.messages": 1_000_000} | settings)
    producer.list_topics(timeout=10)
    return producer


def _flush(producer: Any) -> None:
    if left := producer.flush(120):
        raise SystemExit(f"kafka: {left} messages of confluent-kafka are not delivered after 120 s")


def _performance(settings: tuple[str, ...]) -> Callable[[str, str, Load, str], float]:
    def performance(bootstrap: str, topic: str, load: Load, _: str) -> float:
        command = [
            *(java(), "-Xmx512m", "-cp", f"{jars()}/*", _PERFORMANCE, "--topic", topic, "--throughput", "-1"),
            *("--num-records", str(len(load.values)), "--record-size", str(len(load.values[0]))),
            *("--producer-props", f"bootstrap.servers={bootstrap}", *settings),
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
        # Its own figure: without the start of the virtual machine.
        pace = re.findall(r"records sent, ([\d.]+) records/sec", done.stdout)
        return len(load.values) / float(pace[-1])

    return performance


# -- measuring ---------------------------------------------------------------------------------------------------------


def _measure(case: Case, load: Load, broker: KafkaBroker, directory: str, samples: Samples) -> None:
    topic = f"bench-{uuid.uuid4().hex}"
    broker.create_topic(topic, load.partitions)
    spent: list[float] = []
    with tempfile.TemporaryDirectory(prefix="mb-bench-", dir=directory) as folder, _cpu(broker, spent):
        seconds = case.send(broker.bootstrap, topic, load, folder)
    arrived = _arrived(broker, topic)
    if arrived != len(load.values):
        raise SystemExit(f"kafka: {case.name}: {arrived:,} of {len(load.values):,} messages arrived")
    samples.pace.append(len(load.values) / seconds)
    samples.client.append(spent[0] / len(load.values) * 1e6)
    samples.broker.append(spent[1] / len(load.values) * 1e6)


@contextmanager
def _cpu(broker: KafkaBroker, spent: list[float]) -> Iterator[None]:
    """CPU seconds of the client, writing a backlog and starting Java included, and of the broker."""
    before = _own(), _of_broker(broker)
    yield
    spent += [_own() - before[0], _of_broker(broker) - before[1]]


def _own() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _of_broker(broker: KafkaBroker) -> float:
    if not broker.controllable:
        return 0.0
    fields = Path(f"/proc/{broker.pid}/stat").read_text(encoding="ascii").rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _arrived(broker: KafkaBroker, topic: str) -> int:
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap, group_id=None, metrics_enabled=False)
    try:
        places = [TopicPartition(topic, partition) for partition in consumer.partitions_for_topic(topic) or ()]
        return sum(consumer.end_offsets(places).values())
    finally:
        consumer.close()


def _report(chosen: argparse.Namespace, cases: list[Case], found: dict[str, Samples], baseline: str) -> Report:
    report = Report("kafka")
    table = report.table(
        f"{chosen.value}-byte values into one broker on this machine; median (lowest … highest) of {chosen.rounds}"
        " interleaved rounds",
        "", "messages/s", "× send()", "× best other", "demanded", "client CPU s/million", "broker CPU s/million",
    )  # fmt: skip
    plain = statistics.median(found[baseline].pace)
    for case in cases:
        samples = found[case.name]
        if case.missing:
            report.remarks.append(f"not measured: {case.name}: {case.missing}")
            continue
        pace = statistics.median(samples.pace)
        rivals = [
            statistics.median(found[other.name].pace)
            for other in cases
            if other.rich == case.rich
            and not other.missing
            and "buffer" not in other.name
            and case.rivals in other.name
        ]
        best = max(rivals, default=pace)
        table.add(
            case.name, median_and_spread(samples.pace, 0), f"{pace / plain:,.1f}", f"{pace / best:,.2f}",
            "" if case.demanded is None else "≥ {:g}, ≥ {:g}".format(*case.demanded),
            f"{statistics.median(samples.client):,.2f}", f"{statistics.median(samples.broker):,.2f}",
            case=case.name, pace=samples.pace, ratio=pace / plain, best=pace / best,
            client_cpu=samples.client, broker_cpu=samples.broker,
        )  # fmt: skip
    report.remarks.append(
        "× send(): against KafkaProducer.send() with its defaults; × best other: against the fastest client here with"
        " the same kind of messages, of confluent-kafka for confluent. Slow clients send a tenth of the messages. A"
        " buffer's CPU seconds contain the"
        " writing of the backlog, Java's the start of its virtual machine."
    )
    return report
