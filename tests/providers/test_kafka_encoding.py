"""Record batches made in columns: the bytes of kafka-python's own builder, whatever the messages are; no broker."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kafka import errors as kafka_errors
from kafka.partitioner.default import murmur2 as library_murmur2
from kafka.record.memory_records import MemoryRecordsBuilder
from kafka.record.util import encode_varint
from mbframework_kafka.bulk import cuts, grouped, taken
from mbframework_kafka.encoding import encode_batch, encode_headers, varint
from mbframework_kafka.outcome import Answers, NotWritten, broken_off, judge
from mbframework_kafka.placement import murmur2
from mbframework_kafka.records import FinishedRecords

from mbframework.message import Header, pack_headers

NOW = 1_700_000_000_000
GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4

BYTES = st.one_of(st.none(), st.binary(max_size=80), st.sampled_from([b"", b"x" * 63, b"y" * 64, b"z" * 9_000]))
HEADERS = st.lists(st.tuples(st.text(max_size=20), st.one_of(st.none(), st.binary(max_size=80))), max_size=4)
TIMES = st.one_of(
    st.just(NOW), st.integers(NOW, NOW + 100), st.integers(NOW - 10_000, NOW + 10_000), st.integers(0, 1 << 50)
)
MESSAGES = st.lists(st.tuples(BYTES, BYTES, HEADERS, TIMES), min_size=1, max_size=80)
#: Columns in which everything is alike take ways of their own.
ALIKE = st.tuples(BYTES, BYTES, HEADERS, TIMES).flatmap(lambda m: st.integers(1, 200).map(lambda n: [m] * n))
STATES = st.sampled_from([(-1, -1, -1, False), (0, 0, 0, False), (1 << 60, 32_767, (1 << 31) - 1, True)])


def ours(messages: list[Any], codec: int, state: Any) -> FinishedRecords:
    keys, values, headers, times = (list(column) for column in zip(*messages, strict=True))
    blocks = [pack_headers(given) if given else None for given in headers]
    encoded = None if not any(blocks) else [encode_headers(block) for block in blocks]
    records = FinishedRecords(encode_batch(keys, values, encoded, times, codec), len(messages))
    records.set_producer_state(*state)
    records.close()
    return records


def librarys(messages: list[Any], codec: int, state: Any) -> MemoryRecordsBuilder:
    records = MemoryRecordsBuilder(2, codec, 1 << 30)
    for key, value, headers, time in messages:
        assert records.append(time, key, value, headers) is not None
    records.set_producer_state(*state)
    records.close()
    return records


@given(st.one_of(MESSAGES, ALIKE), st.sampled_from([0, SNAPPY, LZ4, ZSTD]), STATES)
@example([(None, b"v" * 100, [], NOW)] * 9_000, 0, (5, 0, 0, False))
@example([(b"k", None, [("h", None)], NOW + i) for i in range(9_000)], ZSTD, (5, 0, 0, False))
@example([(None, b"v" * (i % 70), [], NOW - i) for i in range(9_000)], 0, (5, 0, 0, False))
@example([(None, None, [], NOW)] * 64, 0, (5, 0, 0, False))
@example([(None, None, [], NOW)] * 65, 0, (5, 0, 0, False))
def test_the_bytes_are_those_of_the_library(messages: list[Any], codec: int, state: Any) -> None:
    found, expected = ours(messages, codec, state), librarys(messages, codec, state)
    assert found.buffer() == expected.buffer()
    assert found.next_offset() == expected.next_offset() == len(messages)
    assert found.size_in_bytes() == expected.size_in_bytes()
    for name in ("producer_id", "producer_epoch", "base_sequence"):
        assert getattr(found, name) == getattr(expected, name)


def test_the_bytes_are_those_of_the_library_with_gzip_too() -> None:
    """Gzip writes the time in seconds: between two of ours that agree, the library's was made within the same."""
    messages: list[Any] = [(b"k%d" % i, b"compress me " * 20, [("h", b"v")], NOW + i) for i in range(100)]
    state = (7, 1, 42, False)
    for _ in range(5):
        before = ours(messages, GZIP, state).buffer()
        expected = librarys(messages, GZIP, state).buffer()
        if before == ours(messages, GZIP, state).buffer():
            break
    assert before == expected
    assert len(before) < 2_000


@given(MESSAGES)
def test_the_library_reads_it(messages: list[Any]) -> None:
    (batch,) = ours(messages, ZSTD, (7, 0, 0, False)).records()
    assert batch.validate_crc()
    read = [(r.key, r.value, r.headers, r.timestamp) for r in batch]
    assert read == [(k, v, h, t) for k, v, h, t in messages]


def test_what_was_sent_keeps_its_sequence() -> None:
    records = ours([(None, b"v", [], NOW)], 0, (7, 0, 3, False))
    sent = bytes(records.buffer())
    records.close()
    with pytest.raises(kafka_errors.IllegalStateError):
        records.set_producer_state(7, 0, 4, False)
    assert records.buffer() == sent
    assert records.is_full()
    records.append(NOW, None, b"more")
    assert (records.next_offset(), bytes(records.buffer())) == (1, sent)


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_varint(number: int) -> None:
    expected = bytearray()
    encode_varint(number, expected.append)
    assert varint(number) == expected


@given(st.lists(st.tuples(st.text(max_size=300), st.one_of(st.none(), st.binary(max_size=300))), max_size=5))
def test_headers(headers: list[Header]) -> None:
    (batch,) = ours([(None, None, headers, NOW)], 0, (-1, -1, -1, False)).records()
    assert [record.headers for record in batch] == [headers]


@given(st.binary(max_size=100))
def test_murmur2(key: bytes) -> None:
    assert murmur2(key) == library_murmur2(key)


@given(MESSAGES, st.integers(100, 40_000))
def test_no_part_of_several_messages_exceeds_the_limit(messages: list[Any], limit: int) -> None:
    keys, values, headers, _ = (list(column) for column in zip(*messages, strict=True))
    encoded = [encode_headers(pack_headers(given)) for given in headers]
    parts = list(cuts((keys, values, encoded), len(messages), limit))
    assert [i for start, stop in parts for i in range(start, stop)] == list(range(len(messages)))
    for start, stop in parts:
        size = ours(messages[start:stop], 0, (-1, -1, -1, False)).size_in_bytes()
        assert size <= limit or stop - start == 1
        if stop < len(messages):
            # A message more might have been too much: what may be wasted of each is bounded.
            more = ours(messages[start : stop + 1], 0, (-1, -1, -1, False)).size_in_bytes()
            assert more + 31 * (stop + 1 - start) > limit


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2)), max_size=30), st.data())
def test_grouping_keeps_every_message_and_the_order(places: list[tuple[str, int]], data: st.DataObject) -> None:
    topics, partitions = [topic for topic, _ in places], [partition for _, partition in places]
    chosen = sorted(data.draw(st.sets(st.sampled_from(range(len(places)))))) if places else []
    groups = list(grouped(topics, partitions, chosen))
    assert sorted(index for *_, members in groups for index in members) == chosen
    assert len({(topic, partition) for topic, partition, _ in groups}) == len(groups)
    for topic, partition, members in groups:
        assert list(members) == sorted(members)
        assert {places[index] for index in members} == {(topic, partition)}
        assert list(taken(partitions, members)) == [partition] * len(members)


REFUSED = kafka_errors.InvalidRecordError("no key")


def test_a_refused_batch_names_the_record_the_suspects_or_nobody() -> None:
    named = Answers()
    beside = kafka_errors.KafkaError("with another")
    named.add({3: beside, 4: REFUSED, 5: beside}, "t")
    assert list(named.refused) == [4]
    assert {index: type(error) for index, error in named.errors.items()} == {3: NotWritten, 5: NotWritten}
    assert not named.suspects
    unnamed = Answers()
    unnamed.add({3: REFUSED, 5: REFUSED}, "t")
    assert (unnamed.suspects, unnamed.refused) == ([3, 5], {})
    alone = Answers()
    alone.add({7: REFUSED}, "t")
    assert (list(alone.refused), alone.errors) == ([7], {})
    other = Answers()
    other.add({7: kafka_errors.NotEnoughReplicasError("one")}, "t")
    assert (other.refused, other.suspects, list(other.errors)) == ({}, [], [7])
    own = Answers()
    own.add(dict.fromkeys([1, 2], kafka_errors.InvalidTopicError()), "__theirs")
    assert (list(own.refused), own.errors, own.suspects) == ([1, 2], {}, [])
    assert "'__theirs'" in own.refused[2]


def test_what_was_given_up_may_have_arrived_only_if_it_went_out() -> None:
    for sent in (True, False):
        outcome = judge([0], ["domain"], {0: broken_off(REFUSED, sent=sent)})
        assert outcome.undelivered == [0]
        assert outcome.uncertain is sent
        assert not outcome.refused
    block = kafka_errors.ClusterAuthorizationFailedError("no")
    assert broken_off(block, sent=False) is block
