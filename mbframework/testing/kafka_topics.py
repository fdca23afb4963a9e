"""Topics of a test's Kafka: made, and read back.

Needs the ``kafka`` extra, which is imported only when something is asked for.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from mbframework.testing.kafka_admin import KafkaAdmin


class Record(NamedTuple):
    """A record as read back; ``timestamp`` is milliseconds since 1970, UTC."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp: int


class Topics(ABC):
    """The topics of a broker or a cluster that is reached without a password."""

    #: Of each partition that is made here.
    replicas = 1

    @property
    @abstractmethod
    def bootstrap(self) -> str:
        """``host:port`` of the plain listeners, with commas."""

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
        """Create a topic and wait until its partitions have leaders, and all their replicas.

        :raises kafka.errors.KafkaError: it exists, or the broker refuses it.
        """
        with KafkaAdmin(self.bootstrap) as admin:
            admin.create_topic(name, partitions, self.replicas, config)

    def read_all(self, topic: str, isolation: str = "read_uncommitted", timeout: float = 30.0) -> list[Record]:
        """Everything in ``topic`` from the beginning to the end offsets of now, by partition, then offset.

        :param isolation: ``read_uncommitted`` or ``read_committed``.
        :raises TimeoutError: the end was not reached within ``timeout`` seconds.
        """
        return sorted(self.read_iter(topic, isolation, timeout), key=lambda record: record[:2])

    def read_iter(self, topic: str, isolation: str = "read_uncommitted", timeout: float = 30.0) -> Iterator[Record]:
        """As :meth:`read_all`, but in the order of arrival here and without keeping what was read."""
        from kafka import KafkaConsumer, TopicPartition

        deadline = time.monotonic() + timeout
        consumer = KafkaConsumer(
            bootstrap_servers=self.bootstrap.split(","), group_id=None, isolation_level=isolation,
            enable_auto_commit=False, auto_offset_reset="earliest", metrics_enabled=False,
            fetch_max_bytes=16 << 20, max_partition_fetch_bytes=8 << 20, max_poll_records=10_000,
        )  # fmt: skip
        try:
            places = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic) or ())]
            ends = consumer.end_offsets(places)
            consumer.assign(places)
            consumer.seek_to_beginning(*places)
            behind = {place for place in places if consumer.position(place) < ends[place]}
            while behind:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"topic {topic!r} was not read to its end within {timeout:g} s: {behind}")
                for records in consumer.poll(timeout_ms=500).values():
                    for r in records:
                        if r.offset < ends[TopicPartition(topic, r.partition)]:
                            yield Record(r.partition, r.offset, r.key, r.value, tuple(r.headers), r.timestamp)
                behind = {place for place in behind if consumer.position(place) < ends[place]}
        finally:
            consumer.close()
