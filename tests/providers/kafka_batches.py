"""Batches for the tests of the Kafka provider, and a sender that retries as the engine does."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from mbframework.errors import SendFailed
from mbframework.message import NO_PARTITION, NO_TIMESTAMP, Batch, Position
from mbframework.provider import Provider
from mbframework.testing.kafka import KafkaBroker
from mbframework.testing.kafka_admin import KafkaAdmin

#: The type of the fixture ``kafka_topic``.
NewTopic = Callable[..., str]


def make_batch(topic: str | Sequence[str], values: Sequence[bytes | None], **columns: Any) -> Batch:
    """A batch; columns that are not given are empty."""
    count = len(values)
    return Batch(
        sequences=range(count),
        topics=[topic] * count if isinstance(topic, str) else topic,
        values=values,
        keys=columns.get("keys", [None] * count),
        header_blocks=columns.get("header_blocks", [None] * count),
        timestamps=columns.get("timestamps", [NO_TIMESTAMP] * count),
        partitions=columns.get("partitions", [NO_PARTITION] * count),
        accepted=[time.time_ns()] * count,
        position=Position(count, b"\0" * 16),
    )


def alter(broker: KafkaBroker, topic: str, name: str, value: str) -> None:
    """Change one setting of a topic."""
    with KafkaAdmin(broker.bootstrap) as admin:
        admin.set_topic(topic, {name: value})


def deliver(provider: Provider, topic: str, values: Sequence[bytes], size: int, timeout: float = 60.0) -> int:
    """Send ``values``, each its own key, in batches of ``size``; what was not delivered comes first in the next one.

    Returns how many messages were undelivered with an uncertain answer: these may arrive twice.
    """
    deadline = time.monotonic() + timeout
    retried: list[bytes] = []
    doubtful = at = 0
    while retried or at < len(values):
        taken = max(0, size - len(retried))
        messages = [*retried, *values[at : at + taken]]
        at += taken
        try:
            provider.send(make_batch(topic, messages, keys=[value[-2:] for value in messages]))
            retried = []
        except SendFailed as error:
            if error.rejected or time.monotonic() > deadline:
                raise
            undelivered = range(len(messages)) if error.undelivered is None else error.undelivered
            retried = [messages[i] for i in undelivered]
            doubtful += len(retried) if error.uncertain else 0
            time.sleep(0.05)  # the engine's retry wait
    return doubtful
