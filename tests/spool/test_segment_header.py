"""Segment headers: round trips, the fixed bytes, and what damaged or hostile bytes get."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mbframework.errors import UnsupportedFormat
from mbframework.spool import segment_header
from mbframework.spool.record import close_record
from mbframework.spool.segment_header import SegmentHeader

FIXED = SegmentHeader(
    salt=0xA1B2C3D4,
    buffer_id=bytes(range(16)),
    run=bytes(range(16, 32)),
    first=1001,
    ordinal=900,
    previous_end=1000,
    wall_ns=-1,
    boot_ns=5,
    boot_id=bytes(range(32, 48)),
    reserved=1 << 26,
    lane="main",
    readonly_compatible=2,
    compatible=3,
)
RAW = bytes.fromhex(
    "4d425345470d0a1a010000000001000000100000000000000200000003000000"
    "d4c3b2a100000000000102030405060708090a0b0c0d0e0f1011121314151617"
    "18191a1b1c1d1e1fe9030000000000008403000000000000e803000000000000"
    "ffffffffffffffff0500000000000000202122232425262728292a2b2c2d2e2f"
    "000000040000000004006d61696e000000000000000000000000000000000000"
    "0000000000000000000000000000000000000000000000000000000000000000"
    "0000000000000000000000000000000000000000000000000000000000000000"
    "000000000000000000000000000000000000000000000000000000002bbdbe82"
)

ids = st.binary(min_size=16, max_size=16)
counts = st.integers(0, (1 << 63) - 1)
u32 = st.integers(0, (1 << 32) - 1)
headers = st.builds(
    SegmentHeader,
    salt=st.integers(1, (1 << 32) - 1),
    buffer_id=ids,
    run=ids,
    first=st.integers(1, (1 << 63) - 1),
    ordinal=counts,
    previous_end=counts,
    wall_ns=st.integers(-(1 << 63), (1 << 63) - 1),
    boot_ns=counts,
    boot_id=ids,
    reserved=counts,
    lane=st.text(st.characters(codec="utf-8"), max_size=28),
    readonly_compatible=u32,
    compatible=u32,
    minor=st.integers(0, 65_535),
).map(lambda header: replace(header, previous_end=min(header.previous_end, header.first)))


def edited(at: int, new: bytes) -> bytes:
    """The fixed header with other bytes at ``at`` and a CRC that is right."""
    return close_record((RAW[:at] + new + RAW[at + len(new) :])[:252])


def test_bytes_are_fixed() -> None:
    assert FIXED.pack() == RAW
    assert segment_header.unpack(RAW) == FIXED


def test_a_lane_does_not_go_back() -> None:
    """The segment in front ends where this one begins, or before."""
    same = replace(FIXED, previous_end=1001)
    assert segment_header.unpack(same.pack()) == same
    assert segment_header.unpack(edited(88, (1002).to_bytes(8, "little"))) is None
    with pytest.raises(ValueError, match="segment before"):
        replace(FIXED, previous_end=1002).pack()


@given(headers)
@settings(deadline=None)
def test_round_trip(header: SegmentHeader) -> None:
    raw = header.pack()
    assert len(raw) == 256
    assert segment_header.unpack(raw + b"what follows in the page") == header


def test_every_damaged_byte_is_noticed() -> None:
    for at in range(256):
        for flip in range(1, 256):
            bad = bytearray(RAW)
            bad[at] ^= flip
            assert segment_header.unpack(bytes(bad)) is None


def test_what_is_not_yet_a_header_is_none() -> None:
    assert segment_header.unpack(bytes(4096)) is None
    for end in range(256):
        assert segment_header.unpack(RAW[:end]) is None
        # Torn: the rest of the store has not arrived.
        assert segment_header.unpack(RAW[:end] + bytes(256 - end)) is None


@pytest.mark.parametrize(
    "at, new",
    [(8, b"\x02\x00"), (8, b"\x00\x00"), (12, b"\x00\x02"), (16, b"\x00\x20"), (20, b"\x01"), (23, b"\x80")],
    ids=["major 2", "major 0", "header length", "first frame", "feature 1", "feature 31"],
)
def test_what_is_intact_but_unknown_is_unsupported(at: int, new: bytes) -> None:
    with pytest.raises(UnsupportedFormat, match="release that wrote it"):
        segment_header.unpack(edited(at, new))
    assert segment_header.unpack(edited(at, new)[:255] + b"!") is None


@pytest.mark.parametrize(
    "at, new",
    [
        (32, bytes(4)),
        (72, bytes(8)),
        (72, b"\xff" * 8),
        (80, b"\xff" * 8),
        (88, b"\xff" * 8),
        (104, b"\xff" * 8),
        (128, b"\xff" * 8),
        (136, b"\x73\x00"),
        (138, b"\xff"),
    ],
    ids=["no salt", "first 0", "first", "ordinal", "previous end", "boot ns", "reserved", "name length", "name"],
)
def test_what_no_writer_stores_is_refused(at: int, new: bytes) -> None:
    assert segment_header.unpack(edited(at, new)) is None


@given(st.lists(st.tuples(st.integers(8, 251), st.integers(0, 255)), max_size=20))
@settings(deadline=None)
def test_hostile_headers_are_read_or_refused(edits: list[tuple[int, int]]) -> None:
    raw = bytearray(RAW)
    for at, byte in edits:
        raw[at] = byte
    try:
        header = segment_header.unpack(close_record(bytes(raw[:252])))
    except UnsupportedFormat:
        return
    assert header is None or segment_header.unpack(header.pack()) == header


@pytest.mark.parametrize(
    "change",
    [{"salt": 0}, {"first": 0}, {"ordinal": -1}, {"reserved": 1 << 63}, {"run": b"short"}, {"lane": "é" * 58}],
    ids=str,
)
def test_fields_out_of_range_are_not_packed(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected|at most"):
        replace(FIXED, **change).pack()


def test_a_segment_that_is_gone_hides_no_more_than_it_held() -> None:
    """Of the one in front; nor does a successor end it in front of its own first message."""
    front, successor = replace(FIXED, first=1, ordinal=0, previous_end=1), replace(FIXED, first=21, previous_end=20)
    assert segment_header.end_before(front, replace(successor, ordinal=19)) == 20
    assert segment_header.end_before(front, replace(successor, ordinal=5)) == 6
    assert segment_header.end_before(front, replace(successor, ordinal=0, previous_end=0)) == 1


def test_wall_clock_of_a_frame() -> None:
    header = replace(FIXED, wall_ns=1_700_000_000_000_000_000, boot_ns=50)
    assert segment_header.wall_of(header, 60) == 1_700_000_000_000_000_010
    # A frame that was accepted in memory, before the segment was made.
    assert segment_header.wall_of(header, 40) == 1_699_999_999_999_999_990
