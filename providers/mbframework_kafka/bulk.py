"""The fast way into kafka-python: whole record batches, encoded in columns, go to the producer's own accumulator.

``KafkaProducer.send`` costs some dozens of microseconds a message, nearly all of it in the interpreter. Here a record
batch is made at once (:mod:`~mbframework_kafka.encoding`) and handed over as the library would have made it, so that
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
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate, repeat
from operator import floordiv
from typing import Any, TypeVar

import kafka
from kafka import KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from kafka.producer import producer_batch
from kafka.producer.producer_batch import ProducerBatch
from kafka.record.memory_records import MemoryRecordsBuilder

from mbframework.message import NO_TIMESTAMP, Batch
from mbframework_kafka.delivery import BatchLimit, Receipt, in_transaction
from mbframework_kafka.encoding import COMPRESSORS, HEADER, RECORD_OVERHEAD, encode_batch, encode_headers
from mbframework_kafka.outcome import TOO_LARGE, Answers, broken_off
from mbframework_kafka.records import FinishedRecords

_Item = TypeVar("_Item")

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
    headers = [b"\x02\x08name\0", b"\0"]
    ours = FinishedRecords(encode_batch(keys, values, headers, times, 0), 2)
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
        times = milliseconds(batch)
        join = in_transaction(producer)
        receipts: list[Receipt] = []
        turns: deque[Iterator[Receipt]] = deque(
            self._record_batches(producer, join(TopicPartition(topic, partition)), batch, times, chosen, limit(topic))
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
        self, producer: KafkaProducer, place: TopicPartition, batch: Batch, times: Sequence[int],
        chosen: Sequence[int], limit: int,
    ) -> Iterator[Receipt]:  # fmt: skip
        keys, values = taken(batch.keys, chosen), taken(batch.values, chosen)
        blocks, stamps = taken(batch.header_blocks, chosen), taken(times, chosen)
        headers = None if blocks.count(None) == len(blocks) else list(map(encode_headers, blocks))
        for start, stop in cuts((keys, values, headers), len(values), limit):
            part = slice(start, stop)
            encoded = encode_batch(
                keys[part], values[part], None if headers is None else headers[part], stamps[part], self._codec
            )
            yield _hand_over(producer, place, FinishedRecords(encoded, stop - start), chosen[part])


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


# -- pure parts --------------------------------------------------------------------------------------------------------


def milliseconds(batch: Batch) -> list[int]:
    """The timestamp of each message, as Kafka wants it."""
    times = batch.accepted if batch.timestamps.count(NO_TIMESTAMP) == len(batch) else batch.times()
    return list(map(floordiv, times, repeat(1_000_000)))


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


def taken(column: Sequence[_Item], chosen: Sequence[int]) -> Sequence[_Item]:
    """Those of a column's items that are ``chosen``, ascending."""
    return column if len(chosen) == len(column) else list(map(column.__getitem__, chosen))


def cuts(columns: Sequence[Sequence[bytes | None] | None], count: int, limit: int) -> Iterator[tuple[int, int]]:
    """Where to cut, so that no part of several records takes more than ``limit`` bytes as a record batch.

    :param columns: what the records consist of; None for a column of which nothing is there.
    """
    sums = [list(accumulate(_lengths(column), initial=0)) for column in columns if column]

    def weight(records: int) -> int:
        return RECORD_OVERHEAD * records + sum(column[records] for column in sums)

    start = 0
    while start < count:
        room = weight(start) + limit - HEADER.size
        stop = max(bisect_right(range(count + 1), room, lo=start + 1, key=weight) - 1, start + 1)
        yield start, stop
        start = stop


def _lengths(column: Sequence[bytes | None]) -> list[int]:
    if column[0] is None and column.count(None) == len(column):
        return [0] * len(column)
    try:
        return list(map(len, column))  # type: ignore[arg-type]  # None is what the except is for
    except TypeError:
        return [len(item) if item else 0 for item in column]
