"""Many frames of several messages at once: the same messages as one after the other with every check, on either path,
and where one of these checks would stop, so does this."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbframework import speedups
from mbframework.errors import UnsupportedFormat
from mbframework.files import Files
from mbframework.message import NO_PARTITION, NO_TIMESTAMP
from mbframework.spool import frame, layout
from mbframework.spool.layout import MAX_FRAME, U64_LIMIT
from mbframework.spool.reader import Run, SpoolReader
from mbframework.spool.segment_header import SegmentHeader
from mbframework.spool.several import Several, decode_several, plain_decode_several
from tests.examples import examples
from tests.spool.test_singles import SALT, piece, window_of

_blobs = st.none() | st.binary(max_size=40)
_messages = st.lists(
    st.tuples(
        st.sampled_from([b"orders", b"clicks", "é".encode(), b""]), _blobs, _blobs, _blobs,
        st.just(NO_TIMESTAMP) | st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-1, 9),
    ),
    min_size=1, max_size=5,
)  # fmt: skip
_frames = st.lists(_messages, max_size=5)


def encoded(frames: list[list[Any]], first: int) -> bytes:
    raw = b""
    for number, messages in enumerate(frames):
        topics, keys, values, blocks, times, places = (list(column) for column in zip(*messages, strict=True))
        raw += frame.encode_many(SALT, first, 7 * number, topics, values, keys, blocks, times, places)
        first += len(messages)
    return raw


def one_by_one(window: bytes, offset: int, salt: int, first: int, most: int, max_size: int) -> Several:
    """What must come out."""
    found = Several(offset)
    while True:
        try:
            header = frame.read_header(window, found.offset, salt)
            columns = frame.decode(window, found.offset, salt)
        except UnsupportedFormat:
            return found
        count = len(found.values)
        if header is None or columns is None or columns.first != first + count or columns.count < 2:
            return found
        if count + columns.count > most or found.size + header.length > max_size:
            return found
        found.topics += columns.topics
        found.keys += columns.keys
        found.values += columns.values
        found.header_blocks += columns.header_blocks
        found.timestamps += columns.timestamps
        found.partitions += columns.partitions
        found.moments.append(columns.accepted)
        found.counts.append(columns.count)
        found.size += header.length
        found.offset = frame.next_offset(found.offset, header.length)


@examples(500)
@given(
    _frames, st.lists(piece, max_size=3), _frames, st.sampled_from(["", "", "flip", "cut", "zeros"]),
    st.sampled_from([1, 9, U64_LIMIT - 4, U64_LIMIT - 40]),
    st.just((1000, 1 << 30)) | st.tuples(st.sampled_from([0, 1, 3, 1000]), st.sampled_from([0, 1, 200, 1 << 30])),
    st.integers(0, 1 << 32),
)  # fmt: skip
def test_it_gives_what_frame_by_frame_gives(
    before: list[Any], pieces: list[Any], after: list[Any], damage: str, first: int, limits: tuple[int, int], seed: int
) -> None:
    chance = random.Random(seed)
    if sum(map(len, before)) > U64_LIMIT - first:
        before = []
    raw = bytearray(encoded(before, first) + window_of(pieces, first + sum(map(len, before))) + encoded(after, 90))
    if damage == "flip" and raw:
        raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
    elif damage == "cut":
        del raw[chance.randrange(len(raw) + 1) :]
    elif damage == "zeros" and raw:
        start = chance.randrange(len(raw))
        raw[start : start + chance.choice([1, 40, 500])] = bytes(len(raw[start : start + 40]))
    lead = 8 * chance.randrange(3)
    where = bytes(lead) + bytes(raw), lead, SALT, first, *limits
    assert plain_decode_several(*where) == one_by_one(*where)
    if speedups.compiled is not None:
        assert Several(*speedups.compiled.decode_several(*where) or ()) == one_by_one(*where)


@examples(200)
@given(st.binary(max_size=300), st.integers(0, 40).map(lambda n: 8 * n))
def test_any_bytes_at_all(window: bytes, offset: int) -> None:
    assert decode_several(window, offset, SALT, 1, 100, 1 << 20) == Several(offset)


def test_all_of_a_window_comes_at_once() -> None:
    """The way past the checks must be taken, not only be right."""
    window = encoded([[(b"t", b"k", b"v", None, 3, NO_PARTITION)] * 10] * 500, 1)
    found = decode_several(window, 0, SALT, 1, 5000, MAX_FRAME)
    assert (found.values, found.counts, found.offset) == ([b"v"] * 5000, [10] * 500, len(window))
    assert decode_several(window, 0, SALT, 1, 4999, MAX_FRAME).counts == [10] * 499
    assert decode_several(window, 0, SALT, 1, 5000, found.size - 1).counts == [10] * 499


@pytest.mark.parametrize("most", [1, 7, 10, 64, 10_000])
def test_the_reader_gives_frames_of_all_kinds_in_order(tmp_path: Any, most: int) -> None:
    chance, first, raw, told = random.Random(most), 5, b"", []
    for number in range(300):
        count = chance.choice([1, 1, 2, 10, 33])
        values = [b"%d" % (first + i) for i in range(count)]
        raw += frame.encode_many(SALT, first, 1000 + number, b"t", values)
        told += [(value, 1000 + number) for value in values]
        first += count
    header = SegmentHeader(
        salt=SALT, buffer_id=bytes(16), run=b"r" * 16, first=5, ordinal=4, previous_end=5, wall_ns=0, boot_ns=0,
        boot_id=bytes(16), reserved=0, lane="main",
    )  # fmt: skip
    path = tmp_path / layout.unsealed_name(5)
    path.write_bytes(header.pack() + bytes(layout.FIRST_FRAME - len(header.pack())) + raw)
    reader = SpoolReader(Files(), str(tmp_path))
    try:
        got: list[tuple[bytes | None, int]] = []
        while len(got) < len(told):
            run = reader.read(
                5 + len(got), 4 + len(got), until=first, max_messages=most, max_bytes=1 << 20, hint=(0, 0)
            )
            assert isinstance(run, Run)
            assert len(run) == min(most, len(told) - len(got))
            got += zip(run.values, run.accepted, strict=True)
            by_acceptance = [each.accepted for each in run.acceptances for _ in range(each.count)]
            assert by_acceptance == run.accepted
            assert {len(column) for column in (run.topics, run.keys, run.partitions, run.timestamps)} == {len(run)}
    finally:
        reader.close()
    assert got == told
