"""One measurement of a way into Kafka: how long it took, what client and broker worked, and that all has arrived."""

from __future__ import annotations

import os
import resource
import tempfile
import time
import uuid
from pathlib import Path
from typing import NamedTuple

from mbframework.bench.kafka_clients import Load, Send
from mbframework.bench.worker import MeasurementFailed
from mbframework.testing.kafka import KafkaBroker


class Spent(NamedTuple):
    """Of one measurement, in µs a message: time, processor time of the client (writing a backlog and starting a virtual
    machine included), and of the broker."""

    time: float
    client: float
    broker: float


def measure(
    name: str, send: Send, load: Load, broker: KafkaBroker, directory: str, *, transactions: bool = False
) -> Spent:  # fmt: skip
    """Send the load to a new topic.

    :param transactions: the topic has their ends as well, which count as messages.
    :raises MeasurementFailed: not everything has arrived, or more than that.
    """
    topic = f"bench-{uuid.uuid4().hex}"
    broker.create_topic(topic, load.partitions)
    with tempfile.TemporaryDirectory(prefix="mb-bench-", dir=directory) as folder:
        before = _own(), _of_broker(broker)
        seconds = send(broker.bootstrap, topic, load, folder)
        spent = seconds, _own() - before[0], _of_broker(broker) - before[1]
    count = len(load.values)
    came = arrived(broker, topic)
    if came < count or (came > count and not transactions):
        raise MeasurementFailed(f"{name}: {came:,} of {count:,} messages arrived")
    return Spent(*(each / count * 1e6 for each in spent))


def _own() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _of_broker(broker: KafkaBroker) -> float:
    if not broker.controllable:
        return 0.0
    fields = Path(f"/proc/{broker.pid}/stat").read_text(encoding="ascii").rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def arrived(broker: KafkaBroker, topic: str) -> int:
    """How many messages the topic has."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap, group_id=None, metrics_enabled=False)
    try:
        places = [TopicPartition(topic, partition) for partition in consumer.partitions_for_topic(topic) or ()]
        return sum(consumer.end_offsets(places).values())
    finally:
        consumer.close()
