"""The fast way into kafka-python: whole record batches, encoded in columns, go to the producer's own accumulator.

``KafkaProducer.send`` costs some dozens of microseconds a message, nearly all of it in the interpreter. Here a record
batch is made at once (:mod:`~mbframework_kafka.batches`) and handed over as the library would have made it, so that
idempotence, retries, metadata and the network stay the library's.

Promises:

- Used only where :func:`obstacle` finds everything private that it rests on to be as it was when it was written.
- No record batch of several messages is above the limit that it is given, before compression; a message that is alone
  above it goes in a batch of its own, and the broker decides.
- What the broker says of a batch is told of exactly its messages, also where it says it after another was refused.
- A batch that the broker refuses is never split by the library, which would lose track of it, but told of as refused:
  whoever sent it splits it.
"""

# ruff: noqa: SLF001 - the reasons are in the docstring; obstacle() looks at each of these attributes
from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import kafka
from kafka import KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from kafka.producer import producer_batch
from kafka.producer.producer_batch import ProducerBatch
from kafka.record.memory_records import MemoryRecordsBuilder

from mbframework.message import NO_PARTITION, NO_TIMESTAMP, Batch, Position, pack_headers
from mbframework_kafka.batches import record_batches
from mbframework_kafka.delivery import BatchLimit, Receipt, in_transaction
from mbframework_kafka.encoding import COMPRESSORS, HEADER
from mbframework_kafka.outcome import TOO_LARGE, Answers, broken_off
from mbframework_kafka.records import FinishedRecords

#: The releases of kafka-python whose inside is known.
_SINCE, _BEFORE = (3, 0, 12), (3, 1)
#: What is used of a producer, besides what its accumulator's and its sender's own code needs.
_INSIDE = {
    "_accumulator": ("_appends_in_progress", "_batches", "_closed", "_incomplete", "_tp_lock", "config"),
    "_sender": ("_can_split", "wakeup"),
}
#: Seconds; as long as it takes to write a request.
_HEAD_START_S = 0.0003
_INSIDE_A_BATCH = ("abort", "drained", "final_state", "produce_future", "records", "retry", "topic_partition")


# -- whether it can be done --------------------------------------------------------------------------------------------


def obstacle(producer: KafkaProducer) -> str:
    """Why record batches cannot be handed to this producer; "" where they can."""
    found = _library_differs()
    if found:
        return found
    for part, names in _INSIDE.items():
        inside = getattr(producer, part, None)
        for name in names:
            if not hasattr(inside, name):
                return f"kafka-python {kafka.__version__} has no KafkaProducer.{part}.{name}"
    settings = producer._accumulator.config
    if settings.get("message_version") != 2:
        return "the broker is older than Kafka 0.11"
    if settings.get("compression_attrs") not in (0, *COMPRESSORS):
        return f"compression {settings.get('compression_attrs')} is not known"
    return ""


@cache
def _library_differs() -> str:
    """What is not as it was in the releases that this was written for; "" for nothing."""
    release = tuple(int(part) for part in kafka.__version__.split(".")[:3] if part.isdigit())
    if not _SINCE <= release < _BEFORE:
        return f"it is not known from the inside: kafka-python {kafka.__version__}"
    if list(inspect.signature(ProducerBatch).parameters) != ["tp", "records", "now"]:
        return f"kafka-python {kafka.__version__} makes its batches otherwise"
    made = ProducerBatch(TopicPartition("", 0), FinishedRecords(bytearray(HEADER.size), 0))
    if missing := [name for name in _INSIDE_A_BATCH if not hasattr(made, name)]:
        return f"kafka-python {kafka.__version__} has no ProducerBatch.{missing[0]}"
    if not hasattr(getattr(producer_batch, "FinalState", None), "ABORTED"):
        return f"kafka-python {kafka.__version__} has no FinalState.ABORTED"
    wanted = {name for name in dir(MemoryRecordsBuilder) if not name.startswith("_")}
    if missing := sorted(wanted - set(dir(FinishedRecords))):
        return f"kafka-python {kafka.__version__} expects {missing[0]}() of a record batch"
    return "" if _sample_agrees() else f"kafka-python {kafka.__version__} encodes a record batch otherwise"


def _sample_agrees() -> bool:
    keys, values, times = [b"key", None], [None, b"value" * 20], [1_700_000_000_000, 1_700_000_000_001]
    library = MemoryRecordsBuilder(2, 0, 1 << 20)
    library.append(times[0], keys[0], values[0], [("name", b"")])
    library.append(times[1], keys[1], values[1], [])
    batch = Batch(
        sequences=range(2), topics=["", ""], keys=keys, values=values,
        header_blocks=[pack_headers([("name", b"")]), None], timestamps=[times[0] * 1_000_000, NO_TIMESTAMP],
        partitions=[NO_PARTITION] * 2, accepted=[0, times[1] * 1_000_000], position=Position(0, b""),
    )  # fmt: skip
    (made,) = record_batches(batch, range(2), 1 << 20, 0)
    ours = FinishedRecords(made.content, 2)
    for records in (library, ours):
        records.set_producer_state(1 << 40, 3, 77, False)
        records.close()
    return bool(library.buffer() == ours.buffer() and library.next_offset() == ours.next_offset())


# -- doing it ----------------------------------------------------------------------------------------------------------


class BulkPath:
    """Hands over record batches; see the module. It becomes part of ``producer``, which must have no obstacle."""

    path = "bulk"

    def __init__(self, producer: KafkaProducer) -> None:
        self._codec = producer._accumulator.config["compression_attrs"]
        producer._sender._can_split = lambda _batch, _error: False

    def deliver(
        self, producer: KafkaProducer, batch: Batch, indices: Sequence[int], partitions: Sequence[int],
        limit: BatchLimit,
    ) -> list[Receipt]:  # fmt: skip
        """See :class:`~mbframework_kafka.delivery.Delivery`. Partitions take turns, so that all of them are at work."""
        join = in_transaction(producer)
        receipts: list[Receipt] = []
        turns: deque[Iterator[Receipt]] = deque(
            self._record_batches(producer, join(TopicPartition(topic, partition)), batch, chosen, limit(topic))
            for topic, partition, chosen in grouped(batch.topics, partitions, indices)
        )
        wake = producer._sender.wakeup
        while turns:
            receipt = next(turns[0], None)
            if receipt is None:
                turns.popleft()
                continue
            receipts.append(receipt)
            turns.rotate(-1)
            if len(receipts) == 1 and turns:
                # The network is to be at work while the others are encoded: kafka-python's thread needs a moment
                # without ours to begin. A wake-up for each of the others would only disturb both.
                wake()
                receipt.wait(_HEAD_START_S)
        wake()
        return receipts

    def _record_batches(
        self, producer: KafkaProducer, place: TopicPartition, batch: Batch, chosen: Sequence[int], limit: int
    ) -> Iterator[Receipt]:
        for content, indices in record_batches(batch, chosen, limit, self._codec):
            yield _hand_over(producer, place, FinishedRecords(content, len(indices)), indices)


def _hand_over(
    producer: KafkaProducer, place: TopicPartition, records: FinishedRecords, indices: Sequence[int]
) -> Receipt:
    """What RecordAccumulator.append() does once it has a batch."""
    accumulator = producer._accumulator
    batch = _OwnAnswer(place, records)
    accumulator._appends_in_progress.increment()
    try:
        with accumulator._tp_lock(place):
            if accumulator._closed:
                raise kafka_errors.IllegalStateError("the producer is closed")
            accumulator._batches[place].append(batch)
            accumulator._incomplete.add(batch)
    finally:
        accumulator._appends_in_progress.decrement()
    return _SentBatch(indices, batch)


class _OwnAnswer(ProducerBatch):  # type: ignore[misc] # kafka-python is not typed
    """A batch that waits for its own answer while it is under way.

    After one batch was refused the producer gives up all others, those of other partitions included that the broker is
    about to acknowledge: they would arrive twice.
    """

    given_up: Exception | None = None
    was_sent = False

    def abort(self, exception: Exception) -> None:
        """Now, where nothing is to come any more; else once that is so."""
        if self.drained is None:
            super().abort(exception)
        else:
            self.given_up = exception

    def retry(self, now: float | None = None) -> None:
        """It is under way no longer, and waits for its turn again."""
        super().retry(now)
        self.drained, self.was_sent = None, True
        if self.given_up is not None:
            super().abort(self.given_up)


class _SentBatch:
    """The receipt of one record batch."""

    def __init__(self, indices: Sequence[int], batch: Any) -> None:
        self.indices = indices
        self._batch = batch

    def wait(self, timeout: float) -> bool:
        """See :class:`~mbframework_kafka.delivery.Receipt`."""
        return bool(self._batch.produce_future.wait(timeout))

    def tell(self, answers: Answers) -> None:
        """The broker's own answer concerns these messages alone; it may name the records that it will not take."""
        _, _, error_of = self._batch.produce_future.value
        if error_of is None:
            return
        if self._batch.final_state is producer_batch.FinalState.ABORTED:
            error = broken_off(error_of(0), sent=self._batch.was_sent)
            answers.errors.update(dict.fromkeys(self.indices, error))
            return
        topic = self._batch.topic_partition.topic
        answers.add({index: error_of(number) for number, index in enumerate(self.indices)}, topic)
        if len(self.indices) > 1 and isinstance(error_of(0), TOO_LARGE):
            answers.too_large[topic] = self._batch.records.size_in_bytes()

    def sent(self) -> bool:
        """Now, or before it had to wait for its turn again."""
        return self._batch.drained is not None or bool(self._batch.was_sent)


# -- pure --------------------------------------------------------------------------------------------------------------


def grouped(
    topics: Sequence[str], partitions: Sequence[int], indices: Sequence[int]
) -> Iterator[tuple[str, int, Sequence[int]]]:
    """The ``indices`` by topic and partition, in order."""
    if not indices:
        return
    topic, partition = topics[indices[0]], partitions[indices[0]]
    one_topic = topics.count(topic) == len(topics)
    if one_topic and partitions.count(partition) == len(topics):
        yield topic, partition, indices
        return
    chosen: dict[Any, list[int]] = {}
    if one_topic:
        for index in indices:
            chosen.setdefault(partitions[index], []).append(index)
        for partition, members in chosen.items():
            yield topic, partition, members
        return
    for index in indices:
        chosen.setdefault((topics[index], partitions[index]), []).append(index)
    for (topic, partition), members in chosen.items():
        yield topic, partition, members
