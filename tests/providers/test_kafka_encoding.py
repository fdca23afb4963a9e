"""Record batches made in columns, in C and in plain Python: the bytes of kafka-python's own builder, whatever the
messages are; no broker."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kafka import errors as kafka_errors
from kafka.partitioner.default import murmur2 as library_murmur2
from kafka.record.memory_records import MemoryRecordsBuilder
from kafka.record.util import encode_varint
from mbframework_kafka import placement, speedups
from mbframework_kafka.batches import RecordBatch, plain_record_batches, record_batches, taken
from mbframework_kafka.bulk import grouped
from mbframework_kafka.encoding import varint
from mbframework_kafka.outcome import Answers, NotWritten, broken_off, judge
from mbframework_kafka.placement import murmur2
from mbframework_kafka.records import FinishedRecords

from mbframework.message import NO_TIMESTAMP, Batch, Header, pack_headers
from tests.providers.kafka_batches import make_batch

compiled: Any = speedups.compiled
has_extension = pytest.mark.skipif(
    compiled is None,
    reason=f"no extension: {speedups.why_plain}; pip install --editable . makes it where there is a C compiler",
)
Path = Callable[..., Iterator[RecordBatch]]
both_paths = pytest.mark.parametrize(
    "path", [pytest.param(record_batches, id="C", marks=has_extension), pytest.param(plain_record_batches, id="plain")]
)

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


def batch_of(messages: list[Any]) -> Batch:
    keys, values, headers, times = (list(column) for column in zip(*messages, strict=True))
    blocks = [pack_headers(given) if given else None for given in headers]
    # The rest of a millisecond is left out.
    stamps = [1_000_000 * time + index % 1_000_000 for index, time in enumerate(times)]
    return make_batch("t", values, keys=keys, header_blocks=blocks, timestamps=stamps)


def finished(made: RecordBatch, state: Any = (-1, -1, -1, False)) -> FinishedRecords:
    records = FinishedRecords(made.content, len(made.indices))
    records.set_producer_state(*state)
    records.close()
    return records


def ours(path: Path, messages: list[Any], codec: int, state: Any) -> FinishedRecords:
    (made,) = path(batch_of(messages), range(len(messages)), 1 << 30, codec)
    return finished(made, state)


def librarys(messages: list[Any], codec: int, state: Any) -> MemoryRecordsBuilder:
    records = MemoryRecordsBuilder(2, codec, 1 << 30)
    for key, value, headers, time in messages:
        assert records.append(time, key, value, headers) is not None
    records.set_producer_state(*state)
    records.close()
    return records


@both_paths
@given(st.one_of(MESSAGES, ALIKE), st.sampled_from([0, SNAPPY, LZ4, ZSTD]), STATES)
@example([(None, b"v" * 100, [], NOW)] * 9_000, 0, (5, 0, 0, False))
@example([(b"k", None, [("h", None)], NOW + i) for i in range(9_000)], ZSTD, (5, 0, 0, False))
@example([(None, b"v" * (i % 70), [], NOW - i) for i in range(9_000)], 0, (5, 0, 0, False))
@example([(None, None, [], NOW)] * 64, 0, (5, 0, 0, False))
@example([(None, None, [], NOW)] * 65, 0, (5, 0, 0, False))
@example([(None, b"more than a MiB" * 500, [("h", b"v")], NOW)] * 160, 0, (5, 0, 0, False))
def test_the_bytes_are_those_of_the_library(path: Path, messages: list[Any], codec: int, state: Any) -> None:
    found, expected = ours(path, messages, codec, state), librarys(messages, codec, state)
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
        before = ours(record_batches, messages, GZIP, state).buffer()
        expected = librarys(messages, GZIP, state).buffer()
        if before == ours(record_batches, messages, GZIP, state).buffer():
            break
    assert before == expected
    assert len(before) < 2_000


@given(MESSAGES)
def test_the_library_reads_it(messages: list[Any]) -> None:
    (batch,) = ours(record_batches, messages, ZSTD, (7, 0, 0, False)).records()
    assert batch.validate_crc()
    read = [(r.key, r.value, r.headers, r.timestamp) for r in batch]
    assert read == [(k, v, h, t) for k, v, h, t in messages]


def test_what_was_sent_keeps_its_sequence() -> None:
    records = ours(record_batches, [(None, b"v", [], NOW)], 0, (7, 0, 3, False))
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


@both_paths
@given(st.lists(st.tuples(st.text(max_size=300), st.one_of(st.none(), st.binary(max_size=300))), max_size=5))
def test_headers(path: Path, headers: list[Header]) -> None:
    (batch,) = ours(path, [(None, None, headers, NOW)], 0, (-1, -1, -1, False)).records()
    assert [record.headers for record in batch] == [headers]


@given(st.binary(max_size=100))
def test_murmur2(key: bytes) -> None:
    assert murmur2(key) == library_murmur2(key)


@pytest.mark.parametrize("in_c", [pytest.param(True, id="C", marks=has_extension), pytest.param(False, id="plain")])
@given(st.lists(st.none() | st.binary(max_size=70), min_size=1), st.integers(1, 300))
def test_keys_are_placed_as_the_library_does(in_c: bool, keys: list[bytes | None], count: int) -> None:
    known = list(range(5, 5 + count))
    place = compiled.place_keys if in_c else placement.plain_place_keys
    assert place(keys, known, 3) == [
        3 if key is None else known[(library_murmur2(key) & 0x7FFFFFFF) % count] for key in keys
    ]


@both_paths
@given(MESSAGES, st.integers(100, 40_000))
def test_no_part_of_several_messages_exceeds_the_limit(path: Path, messages: list[Any], limit: int) -> None:
    made = list(path(batch_of(messages), range(len(messages)), limit, 0))
    assert [i for each in made for i in each.indices] == list(range(len(messages)))
    for each in made:
        assert len(each.content) <= limit or len(each.indices) == 1
        start, stop = each.indices[0], each.indices[-1] + 1
        if stop < len(messages):
            # A message more might have been too much: what may be wasted of each is bounded.
            more = ours(path, messages[start : stop + 1], 0, (-1, -1, -1, False)).size_in_bytes()
            assert more + 31 * (stop + 1 - start) > limit


STAMPS = st.one_of(st.just(NO_TIMESTAMP), st.integers(-(10**7), 10**7), st.integers(-(1 << 63), (1 << 63) - 1))


@has_extension
@given(MESSAGES, st.lists(STAMPS, min_size=80, max_size=80), st.integers(0, 20_000), st.data())
def test_both_make_the_same_of_any_messages(
    messages: list[Any], stamps: list[int], limit: int, data: st.DataObject
) -> None:
    """Whatever the clock says, and whichever messages of a batch belong to the partition."""
    batch = batch_of(messages)
    batch.timestamps = stamps[: len(messages)]
    chosen = sorted(data.draw(st.sets(st.sampled_from(range(len(messages))), min_size=1)))
    expected = list(plain_record_batches(batch, chosen, limit, 0))
    assert list(record_batches(batch, chosen, limit, 0)) == expected
    assert in_c(batch, chosen, limit)[1] == len(expected[0].indices)


def in_c(batch: Batch, chosen: list[int], limit: int) -> Any:
    columns = batch.keys, batch.values, batch.header_blocks, batch.timestamps, batch.accepted
    return compiled.record_batch(*columns, chosen, 0, limit)


def lengths_fit(block: bytes) -> bool:
    if len(block) < 2:
        return not block
    at = 2
    for _ in range(int.from_bytes(block[:2], "little")):
        if at + 6 > len(block):
            return False
        name, value = struct.unpack_from("<HI", block, at)
        at += 6 + name + (0 if value == 0xFFFFFFFF else value)
    return at <= len(block)


SIZES = st.sampled_from([0, 1, 5, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF])
ONE_HEADER = st.builds(
    lambda name, value, rest: struct.pack("<HI", name & 0xFFFF, value) + rest, SIZES, SIZES, st.binary(max_size=40)
)
BLOCKS = st.one_of(
    st.binary(max_size=40),
    st.builds(lambda given, cut: pack_headers(given)[:cut], HEADERS, st.integers(0, 90)),
    st.builds(lambda count, rest: struct.pack("<H", count & 0xFFFF) + rest, SIZES, st.binary(max_size=40)),
    st.builds(lambda given, rest: b"\1\0" + given + rest, ONE_HEADER, st.binary(max_size=20)),
)


@has_extension
@given(BLOCKS)
def test_a_header_block_whose_lengths_do_not_fit_is_left_to_plain_python(block: bytes) -> None:
    batch = make_batch("t", [b"", b"v"], header_blocks=[None, block])
    made = in_c(batch, [0, 1], 1 << 20)
    assert (made is not None) == lengths_fit(block)
    if made is not None:
        assert list(record_batches(batch, [0, 1], 1 << 20, 0)) == list(plain_record_batches(batch, [0, 1], 1 << 20, 0))


@has_extension
def test_what_is_not_plain_is_left_to_plain_python() -> None:
    good = [b"k"], [b"v"], [None], [NO_TIMESTAMP], [NOW], None, 0, 100
    assert compiled.record_batch(*good)[1:] == (1, NOW // 1_000_000, NOW // 1_000_000)
    strange: list[tuple[int, Any]] = [
        *((column, [other]) for column in range(3) for other in ("text", bytearray(b"b"), 1)),
        *((column, other) for column in range(5) for other in ([], [b"", b""], b"v", {0: b"v"}, None)),
        *((column, [other]) for column in (3, 4) for other in (1 << 63, 1.5, None, True)),
        *((5, chosen) for chosen in ([], [1], [-1], [1 << 70], ["0"], range(1))),
        *((6, start) for start in (-1, 1, 1 << 70, "0")),
        *((7, limit) for limit in (-1, 1 << 31, None)),
    ]
    for place, other in strange:
        assert compiled.record_batch(*good[:place], other, *good[place + 1 :]) is None, (place, other)
    for count in (0, 7, 9):
        assert compiled.record_batch(*(*good, 0)[:count]) is None
    for keys in (["text"], [bytearray(b"b")], (key for key in [b"k"])):
        assert compiled.place_keys(keys, [0, 1], 0) is None
    assert compiled.place_keys([b"k"], [], 0) is None
    # In the middle of a batch: from there on.
    batch = make_batch("t", [b"value"] * 9, keys=[*[b"k"] * 5, bytearray(b"other"), *[b"k"] * 3])
    assert list(record_batches(batch, range(9), 150, 0)) == list(plain_record_batches(batch, range(9), 150, 0))


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
