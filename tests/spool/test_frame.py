"""Frames: round trips, the fixed bytes, and what damaged or hostile bytes get."""

from __future__ import annotations

import struct
import tracemalloc
from typing import NamedTuple
from zlib import crc32

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mbframework.errors import UnsupportedFormat
from mbframework.message import NO_PARTITION, NO_TIMESTAMP
from mbframework.spool import frame
from mbframework.spool.layout import MAX_COUNT, MAX_FRAME, MAX_MESSAGE
from tests.examples import examples

SALT = 0xA1B2C3D4

ONE = bytes.fromhex(
    "4d4246313d0000000700000000000000d2029649000000000100000002000600"
    "09ed2e12f328d9306f72646572730200000005000000343276616c7565000000"
)
MANY = bytes.fromhex(
    "4d4246318b0000000800000000000000fbffffffffffffff030000002f000000"
    "0ee46574425c29df01000200010061c3a96101000000ffffffff000000000200"
    "0000ffffffff00000000ffffffff0e000000ffffffff00002a36fe9c97170000"
    "000000000080ffffffffffffffffffffffff00000000030000006b7631010005"
    "00010000007472616365310000000000"
)
HEADER_BLOCK = b"\x01\x00\x05\x00\x01\x00\x00\x00trace1"


class Row(NamedTuple):
    topic: str
    key: bytes | None
    value: bytes | None
    header_block: bytes | None
    timestamp: int
    partition: int


blobs = st.none() | st.binary(max_size=40)
salts = st.integers(1, (1 << 32) - 1)
i64 = st.integers(-(1 << 63), (1 << 63) - 1)
firsts = st.integers(1, (1 << 63) - 100)
topics = st.sampled_from(["orders", "é", "x"]) | st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
row = st.builds(
    Row,
    topics,
    blobs,
    blobs,
    blobs,
    st.just(NO_TIMESTAMP) | i64,
    st.just(NO_PARTITION) | st.integers(-(1 << 31), (1 << 31) - 1),
)
plain_row = st.builds(Row, st.just("orders"), st.none(), blobs, st.none(), st.just(NO_TIMESTAMP), st.just(NO_PARTITION))
rows = st.lists(row, min_size=1, max_size=12) | st.lists(plain_row, min_size=1, max_size=12)


def encode_rows(salt: int, first: int, accepted: int, messages: list[Row]) -> bytes:
    return frame.encode_many(
        salt,
        first,
        accepted,
        [m.topic.encode() for m in messages],
        [m.value for m in messages],
        [m.key for m in messages],
        [m.header_block for m in messages],
        [m.timestamp for m in messages],
        [m.partition for m in messages],
    )


def rows_of(columns: frame.Columns) -> list[Row]:
    fields = (
        columns.topics,
        columns.keys,
        columns.values,
        columns.header_blocks,
        columns.timestamps,
        columns.partitions,
    )
    assert [len(column) for column in fields] == [columns.count] * 6
    return [Row(*fields_of_one) for fields_of_one in zip(*fields, strict=True)]


def with_crcs(raw: bytes, salt: int) -> bytes:
    """The frame at the start of ``raw`` with both CRCs right, whatever else it says."""
    (length,) = struct.unpack_from("<I", raw, 4)
    prefix = raw[:32] + struct.pack("<I", crc32(raw[40:length], salt))
    return prefix + struct.pack("<I", crc32(prefix, salt)) + raw[40:]


@given(salts, firsts, i64, rows)
@settings(deadline=None)
def test_many_round_trip(salt: int, first: int, accepted: int, messages: list[Row]) -> None:
    raw = encode_rows(salt, first, accepted, messages)
    columns = frame.decode(raw, 0, salt)
    assert columns is not None
    assert (columns.first, columns.count, columns.accepted) == (first, len(messages), accepted)
    assert rows_of(columns) == messages
    payload = sum(len(m.topic.encode()) + sum(map(len, filter(None, m[1:4]))) for m in messages)
    assert len(raw) % 8 == 0
    assert len(raw) <= frame.size_of_many(len(messages), payload)


@given(salts, firsts, i64, row | plain_row)
@settings(deadline=None)
def test_one_is_the_same_bytes_as_many_of_one(salt: int, first: int, accepted: int, message: Row) -> None:
    topic, key, value, header_block, timestamp, partition = message
    raw = frame.encode_one(salt, first, accepted, topic.encode(), key, value, header_block, timestamp, partition)
    assert raw == encode_rows(salt, first, accepted, [message])
    assert raw == frame.encode_one(
        salt,
        first,
        accepted,
        topic.encode(),
        key,
        value,
        header_block,
        None if timestamp == NO_TIMESTAMP else timestamp,
        None if partition == NO_PARTITION else partition,
    )
    lengths = [len(blob or b"") for blob in (key, value, header_block)]
    assert len(raw) <= frame.size_of_one(len(topic.encode()), *lengths)


@given(salts, firsts, rows)
@settings(deadline=None)
def test_one_topic_and_absent_columns_are_left_out(salt: int, first: int, messages: list[Row]) -> None:
    plain = [m._replace(topic="é", key=None, header_block=None) for m in messages]
    values = [m.value for m in plain]
    times = [m.timestamp for m in plain]
    partitions = [m.partition for m in plain]
    short = frame.encode_many(salt, first, 0, "é".encode(), values, timestamps=times, partitions=partitions)
    assert short == encode_rows(salt, first, 0, plain)
    header = frame.read_header(short, 0, salt)
    assert header is not None
    assert not header.flags & (frame.TOPICS | frame.KEYS | frame.HEADERS)


def test_bytes_are_fixed() -> None:
    assert frame.encode_one(SALT, 7, 1234567890, b"orders", b"42", b"value", None, None, None) == ONE
    topics = [b"a", "é".encode(), b"a"]
    values, keys = [b"v1", None, b""], [b"k", None, b""]
    times = [1_700_000_000_000_000_000, NO_TIMESTAMP, -1]
    blocks = [None, HEADER_BLOCK, None]
    assert frame.encode_many(SALT, 8, -5, topics, values, keys, blocks, times, [-1, 0, 3]) == MANY
    assert frame.decode(ONE, 0, SALT) == frame.Columns(
        7, 1, ["orders"], [b"42"], [b"value"], [None], [NO_TIMESTAMP], [NO_PARTITION], 1234567890
    )
    assert frame.decode(MANY, 0, SALT) == frame.Columns(
        8, 3, ["a", "é", "a"], keys, values, blocks, times, [-1, 0, 3], -5
    )


def test_topics_column_with_one_message_is_read_too() -> None:
    body = b"\x02\x00" + b"ab" + b"\x01\x00\x00\x00" + b"v"
    columns = frame.decode(frame.assemble(SALT, 3, 0, 1, frame.TOPICS, 0, body), 0, SALT)
    assert columns is not None
    assert (columns.topics, columns.values) == (["ab"], [b"v"])


@given(st.lists(rows, min_size=1, max_size=5), st.integers(0, 4))
@settings(deadline=None)
def test_frames_follow_one_another_at_multiples_of_8(batches: list[list[Row]], start: int) -> None:
    raw = bytes(8 * start)
    first = 1
    for messages in batches:
        raw += encode_rows(SALT, first, 0, messages)
        first += len(messages)
    raw += bytes(64)
    offset, first = 8 * start, 1
    for messages in batches:
        header = frame.read_header(raw, offset, SALT)
        assert header is not None
        assert header.first == first
        columns = frame.decode(memoryview(bytearray(raw)), offset, SALT, header)
        assert columns is not None
        assert rows_of(columns) == messages
        assert not frame.is_seal(header)
        offset = frame.next_offset(offset, header.length)
        first += header.count
    assert frame.read_header(raw, offset, SALT) is None


@pytest.mark.parametrize("raw", [ONE, MANY], ids=["one", "many"])
def test_every_damaged_byte_is_noticed(raw: bytes) -> None:
    whole = frame.decode(raw, 0, SALT)
    good = frame.read_header(raw, 0, SALT)
    assert good is not None
    for at in range(len(raw)):
        for flip in range(1, 256):
            bad = bytearray(raw)
            bad[at] ^= flip
            header = frame.read_header(bad, 0, SALT)
            if at < frame.HEADER_SIZE:
                assert header is None
                assert frame.decode(bad, 0, SALT) is None
            else:
                # The header still leads to the next frame.
                assert header == good
                # Padding is no content.
                assert frame.decode(bad, 0, SALT) == (whole if at >= good.length else None)


@pytest.mark.parametrize("raw", [ONE, MANY], ids=["one", "many"])
def test_a_cut_frame_is_none(raw: bytes) -> None:
    header = frame.read_header(raw, 0, SALT)
    assert header is not None
    for end in range(header.length):
        assert frame.decode(raw[:end], 0, SALT) is None
        assert frame.decode(raw[:end], 0, SALT, header) is None
    assert frame.decode(raw[: header.length], 0, SALT) is not None


def test_frames_stand_at_multiples_of_8_only() -> None:
    for offset in (-64, -8, *range(1, 8), 64):
        assert frame.read_header(bytes(offset % 8) + ONE, offset, SALT) is None


@given(st.binary(max_size=200), st.integers(-8, 208), salts)
@settings(deadline=None)
def test_random_bytes_are_no_frame(raw: bytes, offset: int, salt: int) -> None:
    assert frame.read_header(raw, offset, salt) is None
    assert frame.decode(raw, offset, salt) is None


@given(
    rows,
    st.lists(st.tuples(st.integers(0, 31) | st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6),
    st.none() | st.integers(0, 1 << 32),
)
@examples(300)
def test_hostile_frames_with_right_crcs_are_read_or_refused(
    messages: list[Row], edits: list[tuple[int, int]], length: int | None
) -> None:
    raw = bytearray(encode_rows(SALT, 1, 0, messages))
    for at, byte in edits:
        raw[4 + at % (len(raw) - 4)] = byte
    if length is not None:
        struct.pack_into("<I", raw, 4, length % (1 << 32) if length & 1 else length % (len(raw) + 8))
    hostile = with_crcs(bytes(raw), SALT)
    try:
        columns = frame.decode(hostile, 0, SALT)
    except UnsupportedFormat:
        return
    if columns is not None and columns.count:
        # Whatever is believed is whole: it can be written again and says the same.
        again = encode_rows(SALT, columns.first, columns.accepted, rows_of(columns))
        assert frame.decode(again, 0, SALT) == columns


@given(st.binary(max_size=300), st.integers(0, 64), st.integers(0, 1 << 17), st.integers(0, 400))
@example(b"", 16, 0, 0)
@example(b"\xff\xff\xff\xff" * 2, 2, 1, 0)
@examples(300)
def test_random_bodies_with_right_crcs_are_read_or_refused(
    body: bytes, flags: int, count: int, topic_length: int
) -> None:
    raw = frame.assemble(SALT, 1, 0, count, flags, topic_length, body)
    try:
        columns = frame.decode(raw, 0, SALT)
    except UnsupportedFormat:
        assert flags == 64
    else:
        assert columns is None or [len(column) for column in (columns.topics, columns.values)] == [columns.count] * 2


@pytest.mark.parametrize("count", [0, 2, 1000, MAX_COUNT, MAX_COUNT + 1, 1 << 31, (1 << 32) - 1])
@pytest.mark.parametrize("flags", [0, 1, 2, 8, 32, 47])
@pytest.mark.parametrize("lengths", [b"\xff\xff\xff\xff", b"\xfe\xff\xff\xff", b"\x00\x00\x00\x80"])
def test_a_hostile_count_or_length_allocates_nothing(count: int, flags: int, lengths: bytes) -> None:
    raw = frame.assemble(SALT, 1, 0, count, flags, 0, lengths * 8 + b"x")
    tracemalloc.start()
    try:
        assert frame.decode(raw, 0, SALT) is None
        assert tracemalloc.get_traced_memory()[1] < 64 << 10
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("flags", [64, 128, 1 << 8, 1 << 11, 1 << 15, (1 << 12) | frame.SEAL])
def test_an_unknown_flag_is_unsupported_and_not_damage(flags: int) -> None:
    raw = bytearray(ONE)
    struct.pack_into("<H", raw, 28, flags)
    sound = with_crcs(bytes(raw), SALT)
    with pytest.raises(UnsupportedFormat, match="release"):
        frame.read_header(sound, 0, SALT)
    with pytest.raises(UnsupportedFormat):
        frame.decode(sound, 0, SALT)
    # A damaged body does not make it known.
    with pytest.raises(UnsupportedFormat):
        frame.decode(sound[:50] + b"!" + sound[51:], 0, SALT)
    # Without a valid CRC it is damage like any other.
    assert frame.read_header(raw, 0, SALT) is None


@pytest.mark.parametrize("first", [0, (1 << 63) - 2, 1 << 63, (1 << 64) - 1])
def test_sequences_out_of_range_are_refused(first: int) -> None:
    raw = bytearray(MANY)
    struct.pack_into("<Q", raw, 8, first)
    assert frame.decode(with_crcs(bytes(raw), SALT), 0, SALT) is None


def test_a_topic_that_is_not_utf8_is_damage() -> None:
    assert frame.decode(frame.encode_one(SALT, 1, 0, b"\xff", None, b"", None, None, None), 0, SALT) is None
    assert frame.decode(frame.encode_many(SALT, 1, 0, [b"\xff", b"a"], [b"", b""]), 0, SALT) is None
    assert frame.decode(frame.encode_many(SALT, 1, 0, b"\xff", [b"", b""]), 0, SALT) is None


def test_columns_fit_the_body_exactly() -> None:
    one = b"t" + struct.pack("<I", 3) + b"abc"
    two = b"t" + struct.pack("<II", 1, 2) + b"abc"
    named = b"\x01\0\x01\0tu" + struct.pack("<II", 1, 2) + b"abc"
    for count, flags, topic_length, body in ((1, 0, 1, one), (2, 0, 1, two)):
        assert frame.decode(frame.assemble(SALT, 1, 0, count, flags, topic_length, body), 0, SALT) is not None
        for wrong in (body[:-1], body + b"d"):
            assert frame.decode(frame.assemble(SALT, 1, 0, count, flags, topic_length, wrong), 0, SALT) is None
    # Topics of their own, and one in front: not both.
    assert frame.decode(frame.assemble(SALT, 1, 0, 2, frame.TOPICS, 0, named), 0, SALT) is not None
    assert frame.decode(frame.assemble(SALT, 1, 0, 2, frame.TOPICS, 1, named), 0, SALT) is None


def test_limits_hold_for_whole_and_undamaged_frames() -> None:
    for count in (MAX_COUNT, MAX_COUNT + 1):
        raw = frame.assemble(SALT, 1, 0, count, 0, 1, b"t" + bytes(4 * count))
        assert (frame.decode(raw, 0, SALT) is None) == (count > MAX_COUNT)
    larger = with_crcs(ONE[:4] + struct.pack("<I", MAX_FRAME + 1) + ONE[8:64] + bytes(MAX_FRAME), SALT)
    assert frame.read_header(larger, 0, SALT) is None


@given(rows, salts, salts, st.integers(1, 9))
@settings(deadline=None)
def test_a_frame_inside_a_message_is_no_frame(messages: list[Row], inner: int, outer: int, topic_length: int) -> None:
    embedded = encode_rows(inner, 5, 0, messages)
    raw = frame.encode_one(outer, 9, 0, b"t" * topic_length, None, embedded * 2, None, None, None)
    found = []
    at = frame.find_marker(raw, 0)
    while at >= 0:
        if frame.read_header(raw, at, outer) is not None:
            found.append(at)
        at = frame.find_marker(raw, at + 8)
    inner_starts = [at for at in range(8, len(raw), 8) if raw.startswith(embedded, at)]
    assert found == ([0, *inner_starts] if inner == outer else [0])


@given(st.lists(st.sampled_from([b"MBF1", b"MBF", b"1", b"\0", b"MBF1MBF1"]), max_size=30), st.integers(-3, 60))
@settings(deadline=None)
def test_find_marker_finds_the_next_aligned_one(pieces: list[bytes], start: int) -> None:
    raw = b"".join(pieces)
    aligned = [at for at in range(0, len(raw), 8) if raw[at : at + 4] == b"MBF1" and at >= start]
    assert frame.find_marker(raw, start) == (aligned[0] if aligned else -1)


def test_the_largest_message_fits_and_more_is_refused() -> None:
    topic = b"t" * 65_535
    value = bytes(MAX_MESSAGE - len(topic))
    raw = frame.encode_one(SALT, 1, 0, topic, None, value, None, 0, 0)
    columns = frame.decode(raw, 0, SALT)
    assert columns is not None
    assert columns.values == [value]
    exact = bytes(MAX_FRAME - frame.HEADER_SIZE - 4 - 1)
    header = frame.read_header(frame.encode_one(SALT, 1, 0, b"t", None, exact, None, None, None), 0, SALT)
    assert header is not None
    assert header.length == MAX_FRAME
    with pytest.raises(ValueError, match="at most"):
        frame.encode_one(SALT, 1, 0, b"t", None, exact + b"x", None, None, None)
    with pytest.raises(ValueError, match="at most"):
        frame.encode_many(SALT, 1, 0, b"t", [exact, b"x"])


def test_what_no_frame_can_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="0 messages"):
        frame.encode_many(SALT, 1, 0, b"t", [])
    with pytest.raises(ValueError, match="messages in a frame"):
        frame.encode_many(SALT, 1, 0, b"t", [b""] * (MAX_COUNT + 1))
    with pytest.raises(ValueError, match="topics"):
        frame.encode_many(SALT, 1, 0, [b"t"], [b"", b""])
    with pytest.raises(ValueError, match="column"):
        frame.encode_many(SALT, 1, 0, b"t", [b"", b""], keys=[b""])
    for first in (0, (1 << 63) - 1):
        with pytest.raises(ValueError, match="first sequence"):
            frame.encode_many(SALT, first, 0, b"t", [b"", b""])
