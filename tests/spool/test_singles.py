"""Many frames of one message at once: the same messages as one after the other with every check, and where one of
these checks would stop, so does this."""

from __future__ import annotations

import random
import struct
from typing import Any
from zlib import crc32

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mbframework.errors import UnsupportedFormat
from mbframework.message import NO_PARTITION, NO_TIMESTAMP
from mbframework.spool import frame
from mbframework.spool.layout import FRAME_MARKER, MAX_FRAME, NONE_LENGTH, U64_LIMIT
from mbframework.spool.singles import Singles, decode_singles
from tests.examples import examples

SALT = 0xA1B2C3D4


def one_by_one(window: bytes, offset: int, salt: int, first: int, most: int, max_size: int) -> Singles:
    """What must come out."""
    found = Singles(offset)
    while len(found.values) < most and found.size < max_size:
        try:
            header = frame.read_header(window, found.offset, salt)
        except UnsupportedFormat:
            break
        if header is None or (header.first, header.count) != (first + len(found.values), 1):
            break
        columns = None if header.flags & frame.TOPICS else frame.decode(window, found.offset, salt, header)
        if columns is None:
            break
        found.topics += columns.topics
        found.keys += columns.keys
        found.values += columns.values
        found.header_blocks += columns.header_blocks
        found.timestamps += columns.timestamps
        found.partitions += columns.partitions
        found.accepted.append(columns.accepted)
        found.size += header.length
        found.offset = frame.next_offset(found.offset, header.length)
    return found


def signed(raw: bytes, salt: int = SALT) -> bytes:
    """A frame with both CRCs right, whatever it says of itself, and padded."""
    (length,) = struct.unpack_from("<I", raw, 4)
    prefix = raw[:32] + struct.pack("<I", crc32(raw[40 : max(40, length)], salt))
    whole = prefix + struct.pack("<I", crc32(prefix, salt)) + raw[40:]
    return whole + bytes(-len(whole) & 7)


blobs = st.none() | st.binary(max_size=40)
topics = st.sampled_from([b"", b"orders", b"clicks", "é".encode(), b"t" * 300])
plain = st.tuples(st.sampled_from([b"orders", b"clicks"]), st.none(), blobs, st.none(), st.none(), st.none())
rich = st.tuples(
    topics, blobs, blobs, blobs, st.none() | st.integers(-(1 << 63), (1 << 63) - 1), st.none() | st.integers(-1, 9)
)
#: Lengths and numbers of which a frame might be made up.
numbers = st.sampled_from([0, 1, 2, 39, 40, 44, 0xFFFFFFFF, 0xFFFFFFFE, 1 << 31]) | st.integers(0, 200)
hostile = st.tuples(
    st.sampled_from([0, 8, 39, 40, 44, 60, 96, 1 << 20, 0xFFFFFFFF]),  # length
    st.sampled_from([0, 1, 1, 1, 1, 2, 0xFFFFFFFF]),  # count
    st.integers(0, 63) | st.sampled_from([64, 256, 0xFFFF]),  # flags
    st.sampled_from([0, 3, 20, 0xFFFF]),  # topic length
    st.lists(numbers, max_size=6),
    st.binary(max_size=60),
)
bad_text = st.just(b"\xff\xfe")
piece = (
    st.tuples(st.just("one"), plain | rich)
    | st.tuples(st.just("bad text"), bad_text)
    | st.tuples(st.just("many"), st.lists(st.binary(max_size=9), min_size=1, max_size=3))
    | st.tuples(st.just("hostile"), hostile)
    | st.tuples(st.sampled_from(["seal", "again", "skip", "other salt"]), st.none())
    | st.tuples(st.just("junk"), st.binary(max_size=30))
)
mostly_good = st.lists(st.tuples(st.just("one"), plain), max_size=4) | st.lists(
    st.tuples(st.just("one"), plain | rich), max_size=8
)


def window_of(pieces: list[tuple[str, Any]], first: int) -> bytes:
    """A stretch of a segment."""
    raw, at = b"", first
    for what, content in pieces:
        if what in ("again", "skip"):
            at = max(1, at + (1 if what == "skip" else -1))
        elif what == "one":
            raw += frame.encode_one(SALT, at, at % 1000, *content)
            at += 1
        elif what == "many" and at + len(content) <= U64_LIMIT:
            raw += frame.encode_many(SALT, at, 5, b"orders", content)
            at += len(content)
        elif what == "bad text":
            raw += frame.encode_one(SALT, at, 5, content, None, b"v", None, None, None)
        elif what == "seal":
            raw += frame.assemble(SALT, at, 5, 0, frame.SEAL, 0, bytes(64))
        elif what == "other salt":
            raw += frame.encode_one(SALT + 1, at, 5, b"orders", None, b"v", None, None, None)
        elif what == "hostile":
            length, count, flags, topic_length, lengths, rest = content
            header = struct.pack("<4sIQqIHHII", FRAME_MARKER, length, at, 5, count, flags, topic_length, 0, 0)
            body = b"t" * min(topic_length, 60) + struct.pack(f"<{len(lengths)}I", *lengths) + rest
            raw += signed(header + body)
        elif what == "junk":
            raw += content + bytes(-len(content) & 7)
    return raw


@examples(800)
@given(
    mostly_good,
    st.lists(piece, max_size=4),
    mostly_good,
    st.sampled_from(["", "", "flip", "flip", "cut", "zeros", "padded"]),
    st.sampled_from([1, 9, U64_LIMIT - 4]),
    st.just((1000, 1 << 30)) | st.tuples(st.sampled_from([0, 1, 3, 1000]), st.sampled_from([0, 1, 200, 1 << 30])),
    st.integers(0, 1 << 32),
)
@example([("one", (b"orders", None, b"v", None, None, None))], [], [], "", 1, (1000, 1 << 30), 0)
def test_it_gives_what_frame_by_frame_gives(
    before: list[tuple[str, Any]], pieces: list[tuple[str, Any]], after: list[tuple[str, Any]], damage: str,
    first: int, limits: tuple[int, int], seed: int,
) -> None:  # fmt: skip
    chance = random.Random(seed)
    raw = bytearray(window_of(before + pieces + after, first))
    if damage == "flip" and raw:
        raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
    elif damage == "cut":
        del raw[chance.randrange(len(raw) + 1) :]
    elif damage == "zeros" and raw:
        start = chance.randrange(len(raw))
        stop = min(len(raw), start + chance.choice([1, 40, 500]))
        raw[start:stop] = bytes(stop - start)
    elif damage == "padded":
        raw += bytes(chance.choice([8, 48, 4096]))
    lead = 8 * chance.randrange(3)
    window = bytes(lead) + bytes(raw)
    expected = one_by_one(window, lead, SALT, first, *limits)
    assert decode_singles(window, lead, SALT, first, *limits) == expected


@examples(300)
@given(st.binary(max_size=300), st.integers(0, 40).map(lambda n: 8 * n))
def test_any_bytes_at_all(window: bytes, offset: int) -> None:
    assert decode_singles(window, offset, SALT, 1, 100, 1 << 20) == Singles(offset)


def test_all_of_a_window_comes_at_once() -> None:
    """The way past the checks must be taken, not only be right."""
    window = window_of([("one", (b"orders", b"k", b"v", None, 3, None)) for _ in range(5000)], 1)
    found = decode_singles(window, 0, SALT, 1, 5000, MAX_FRAME)
    assert found.values == [b"v"] * 5000
    assert (found.timestamps[-1], found.partitions[-1], found.header_blocks[-1]) == (3, NO_PARTITION, None)
    assert found.offset == len(window)
    bare = decode_singles(window_of([("one", (b"t", None, None, None, None, None))], 1), 0, SALT, 1, 9, 9)
    assert (bare.values, bare.keys, bare.timestamps) == ([None], [None], [NO_TIMESTAMP])


def test_a_frame_longer_than_any_may_be_is_none_even_where_it_is_whole() -> None:
    body = bytes(4 + MAX_FRAME)
    length = frame.HEADER_SIZE + len(body)
    sizes = struct.pack("<I", len(body) - 4) + body[4:]
    raw = signed(struct.pack("<4sIQqIHHII", FRAME_MARKER, length, 1, 5, 1, 0, 0, 0, 0) + sizes)
    assert decode_singles(raw, 0, SALT, 1, 9, 1 << 30) == one_by_one(raw, 0, SALT, 1, 9, 1 << 30) == Singles(0)


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("flags", [0, frame.TOPICS, frame.SEAL, 64, 256, 1 << 15])
def test_what_is_no_frame_of_one_message_is_left_to_the_caller(count: int, flags: int) -> None:
    """Its bytes would make a message all the same."""
    raw = frame.assemble(SALT, 1, 5, count, flags, 1, b"t" + struct.pack("<I", 1) + b"v")
    whole = decode_singles(raw, 0, SALT, 1, 9, 1 << 20)
    assert whole == one_by_one(raw, 0, SALT, 1, 9, 1 << 20)
    assert whole.values == ([b"v"] if (count, flags) == (1, 0) else [])


@pytest.mark.parametrize("length", [0, 4, 6, 44, NONE_LENGTH, NONE_LENGTH - 1])
def test_a_length_that_does_not_fit_its_frame_gives_nothing(length: int) -> None:
    raw = frame.assemble(SALT, 1, 5, 1, 0, 1, b"t" + struct.pack("<I", length) + b"value") + bytes(64)
    assert decode_singles(raw, 0, SALT, 1, 9, 1 << 20) == one_by_one(raw, 0, SALT, 1, 9, 1 << 20) == Singles(0)


def test_a_key_and_headers_may_be_none_though_their_columns_are_there() -> None:
    body = b"t" + struct.pack("<III", NONE_LENGTH, 1, NONE_LENGTH) + b"v"
    raw = frame.assemble(SALT, 1, 5, 1, frame.KEYS | frame.HEADERS, 1, body)
    found = decode_singles(raw, 0, SALT, 1, 9, 1 << 20)
    assert found == one_by_one(raw, 0, SALT, 1, 9, 1 << 20)
    assert (found.keys, found.values, found.header_blocks) == ([None], [b"v"], [None])
