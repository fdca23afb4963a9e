"""How messages are handed to kafka-python: what both ways have in common, and the plain one.

A delivery gives messages to the producer in order and returns receipts at once; whoever called it waits for them.
Private parts of kafka-python are used here for the few messages that Kafka takes and ``KafkaProducer.send`` refuses.
The other way is in :mod:`~mbframework_kafka.bulk`.
"""

# ruff: noqa: SLF001 - the reasons are in the docstring; the requirement is pinned to the 3.0 series
from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from kafka import KafkaProducer, TopicPartition
from kafka import errors as kafka_errors

from mbframework.message import Batch
from mbframework_kafka.outcome import Answers

#: The largest record batch of a topic, in bytes.
BatchLimit = Callable[[str], int]


class Receipt(Protocol):
    """Messages of one partition that share a fate."""

    @property
    def indices(self) -> Sequence[int]:
        """Which messages of the batch, ascending."""

    def wait(self, timeout: float) -> bool:
        """Wait for the answer, at most ``timeout`` seconds; whether it is there. May return early."""

    def tell(self, answers: Answers) -> None:
        """Enter what the answer, which is there, says of the messages."""

    def sent(self) -> bool:
        """Whether they may have gone out, where there is no answer."""


class Delivery(Protocol):
    """A path into the producer; ``path`` is its name in the status."""

    @property
    def path(self) -> str:
        """For people."""

    def deliver(
        self, producer: KafkaProducer, batch: Batch, indices: Sequence[int], partitions: Sequence[int],
        limit: BatchLimit,
    ) -> list[Receipt]:  # fmt: skip
        """Hand over the messages at ``indices``, ascending; ``partitions`` is that of every message of the batch.

        Each message is in exactly one receipt, in order within its partition. Must not wait for the broker.

        :raises kafka.errors.KafkaError: the producer takes no more; what it took may arrive all the same.
        """


def in_transaction(producer: KafkaProducer) -> Callable[[TopicPartition], TopicPartition]:
    """What must be done with each partition before messages for it are appended: it joins the transaction, if any."""
    manager = producer._transaction_manager
    if manager is None or not manager.is_transactional():
        return lambda place: place

    def join(place: TopicPartition) -> TopicPartition:
        manager.maybe_add_partition_to_transaction(place)
        return place

    return join


class _SentOne(NamedTuple):
    """The receipt of one ``KafkaProducer.send``."""

    indices: tuple[int]
    future: Any

    def wait(self, timeout: float) -> bool:
        """See :class:`Receipt`."""
        try:
            self.future.get(timeout=timeout)
        except Exception:  # noqa: BLE001 - get() raises what the future keeps, which is read when the wait is over
            return bool(self.future.is_done)
        return True

    def tell(self, answers: Answers) -> None:
        """A refusal may be that of another message: kafka-python fails all that it holds with the same error."""
        if self.future.exception is not None:
            answers.errors[self.indices[0]] = self.future.exception

    def sent(self) -> bool:
        """kafka-python does not tell."""
        return True


class SendPath:
    """One ``KafkaProducer.send`` a message, with the partition given, which saves half of its cost.

    :param reason: why not in bulk; "" for none.
    """

    def __init__(self, reason: str = "") -> None:
        self.path = f"send() ({reason})" if reason else "send()"

    def deliver(
        self, producer: KafkaProducer, batch: Batch, indices: Sequence[int], partitions: Sequence[int],
        limit: BatchLimit,
    ) -> list[Receipt]:  # fmt: skip
        """See :class:`Delivery`; record batches are the library's own business."""
        send = producer.send
        topics, keys, values, times = batch.topics, batch.keys, batch.values, batch.times()
        headers = batch.headers if any(batch.header_blocks) else None
        receipts: list[Receipt] = []
        own = _of_kafka(producer, {topics[i] for i in indices})
        for i in indices:
            given = list(headers[i]) if headers else None
            key, value = keys[i], values[i]
            nothing = value is None and key is None
            if nothing or topics[i] in own or (given and any(item[1] is None for item in given)):
                future = _append(producer, TopicPartition(topics[i], partitions[i]), times[i], key, value, given)
            else:
                future = send(topics[i], value, key, given, partitions[i], times[i] // 1_000_000)
            receipts.append(_SentOne((i,), future))
        return receipts


def _of_kafka(producer: KafkaProducer, topics: Iterable[str]) -> set[str]:
    """Those that are Kafka's own: ``send`` does not find them, and the broker has the word on who may write there."""
    for topic in topics:
        # A producer that was made anew has not heard of it; an error shows when the message is sent.
        with contextlib.suppress(kafka_errors.KafkaError):
            producer.partitions_for(topic)
    return set(topics).intersection(producer._metadata.internal_topics)


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
    """What Kafka takes, or is to judge, and ``send`` refuses: headers of None, no key and value, its own topics."""
    in_transaction(producer)(place)
    future, *_ = producer._accumulator.append(place, time_ns // 1_000_000, key, value, _Headers(headers or ()))
    producer._sender.wakeup()
    return future
