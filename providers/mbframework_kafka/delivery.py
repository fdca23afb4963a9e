"""How messages are handed to kafka-python. This is the seam for a faster way: one small interface, now one path.

A delivery gives messages to the producer in order and returns receipts at once; whoever called it waits for them.
Private parts of kafka-python are used for the few messages that Kafka takes and ``KafkaProducer.send`` refuses.
"""

# ruff: noqa: SLF001 - the reasons are in the docstring; the requirement is pinned to the 3.0 series
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from kafka import KafkaProducer, TopicPartition

from mbframework.message import Batch


class Receipt(NamedTuple):
    """Messages of one partition that share a fate. ``future`` has ``is_done``, ``exception`` and ``get(timeout)``."""

    indices: Sequence[int]
    future: Any


class Delivery(Protocol):
    """A path into the producer; ``path`` is its name in the status."""

    path: str

    def deliver(
        self, producer: KafkaProducer, batch: Batch, indices: Sequence[int], partitions: Sequence[int]
    ) -> list[Receipt]:
        """Hand over the messages at ``indices``, ascending; ``partitions`` is that of every message of the batch.

        Each message is in exactly one receipt, in order within its partition. Must not wait for the broker.

        :raises kafka.errors.KafkaError: the producer takes no more; what it took may arrive all the same.
        """


class SendPath:
    """One ``KafkaProducer.send`` a message, with the partition given, which saves half of its cost."""

    path = "send"

    def deliver(
        self, producer: KafkaProducer, batch: Batch, indices: Sequence[int], partitions: Sequence[int]
    ) -> list[Receipt]:
        """See :class:`Delivery`."""
        send = producer.send
        topics, keys, values, times = batch.topics, batch.keys, batch.values, batch.times()
        headers = batch.headers if any(batch.header_blocks) else None
        receipts = []
        for i in indices:
            given = list(headers[i]) if headers else None
            key, value = keys[i], values[i]
            if (value is None and key is None) or (given and any(item[1] is None for item in given)):
                future = _append(producer, TopicPartition(topics[i], partitions[i]), times[i], key, value, given)
            else:
                future = send(topics[i], value, key, given, partitions[i], times[i] // 1_000_000)
            receipts.append(Receipt((i,), future))
        return receipts


class _Headers(list[tuple[str, bytes | None]]):
    """Headers that the library encodes, but does not measure: its measuring fails at None, after the encoding."""

    def __bool__(self) -> bool:
        return False


def _append(
    producer: KafkaProducer,
    place: TopicPartition,
    time_ns: int,
    key: bytes | None,
    value: bytes | None,
    headers: list[tuple[str, bytes | None]] | None,
) -> Any:
    """What Kafka takes and ``send`` refuses: headers of None, and messages without key and value."""
    future, *_ = producer._accumulator.append(place, time_ns // 1_000_000, key, value, _Headers(headers or ()))
    producer._sender.wakeup()
    return future
