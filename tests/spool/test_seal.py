"""Seals: round trips, the fixed bytes, the trailer, and what damaged or hostile bytes get."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mbframework.errors import UnsupportedFormat
from mbframework.spool import frame, seal
from mbframework.spool.seal import Seal

SALT = 0xA1B2C3D4
FIXED = Seal(
    end=1001,
    messages=1000,
    frames=10,
    lowest=-3,
    highest=77,
    frame_bytes=123456,
    offset=(2 << 20) + 4096,
    crcs=[0x11223344, 0x55667788, 0x99AABBCC],
)
RAW = bytes.fromhex(
    "4d42463188000000e9030000000000004d000000000000000000000010000000"
    "440927c2cc20ae95e903000000000000e8030000000000000a00000000000000"
    "fdffffffffffffff4d0000000000000040e20100000000000010200000000000"
    "14000000030000004433221188776655ccbbaa99000000000010200000000000"
    "4c4145534133a55b"
)

counts = st.integers(0, (1 << 63) - 1)
i64 = st.integers(-(1 << 63), (1 << 63) - 1)


@st.composite
def seals(draw: st.DrawFn) -> Seal:
    offset = 8 * draw(st.integers(512, 6 << 17))
    n = draw(st.sampled_from([0, seal.crc_count(offset)]))
    crcs = draw(st.lists(st.integers(0, (1 << 32) - 1), min_size=n, max_size=n))
    end = draw(st.integers(1, (1 << 63) - 1))
    return Seal(end, draw(counts), draw(counts), draw(i64), draw(i64), draw(counts), offset, crcs)


def sealed(body: bytes, end: int = 1001) -> bytes:
    """A frame that says it is a seal, its CRCs right, whatever its body says."""
    return frame.assemble(SALT, end, 77, 0, frame.SEAL, 0, body)


def test_bytes_are_fixed() -> None:
    assert seal.pack(FIXED, SALT) == RAW
    assert seal.unpack(RAW, 0, SALT) == FIXED


@given(seals(), st.integers(1, (1 << 32) - 1), st.integers(0, 3))
@settings(deadline=None)
def test_round_trip_and_the_trailer_leads_to_it(value: Seal, salt: int, words: int) -> None:
    raw = seal.pack(value, salt)
    assert len(raw) == seal.size(len(value.crcs))
    assert len(raw) % 8 == 0
    assert seal.unpack(bytes(8 * words) + raw, 8 * words, salt) == value
    assert seal.read_trailer(raw[-16:], salt) == value.offset
    assert seal.read_trailer(raw[-16:], salt ^ 1) is None
    header = frame.read_header(raw, 0, salt)
    assert header is not None
    assert frame.is_seal(header)
    assert (header.count, header.first, frame.next_offset(0, header.length)) == (0, value.end, len(raw))
    columns = frame.decode(raw, 0, salt)
    assert columns is not None
    assert columns.count == 0


def test_every_damaged_byte_is_noticed() -> None:
    for at in range(len(RAW)):
        for flip in range(1, 256):
            bad = bytearray(RAW)
            bad[at] ^= flip
            assert seal.unpack(bytes(bad), 0, SALT) is None
            if at >= len(RAW) - 16:
                assert seal.read_trailer(bytes(bad[-16:]), SALT) is None


def test_a_cut_seal_or_trailer_is_none() -> None:
    for end in range(len(RAW)):
        assert seal.unpack(RAW[:end], 0, SALT) is None
    for end in range(16):
        assert seal.read_trailer(RAW[-16:][:end], SALT) is None
    assert seal.read_trailer(bytes(16), SALT) is None


@pytest.mark.parametrize("offset", [0, 4088, 4097, 1 << 63])
def test_a_trailer_that_leads_nowhere_is_none(offset: int) -> None:
    start = struct.pack("<QI", offset, 0x5345414C)
    assert seal.read_trailer(start + struct.pack("<I", crc32(start, SALT)), SALT) is None


def test_messages_are_no_seal() -> None:
    raw = frame.encode_one(SALT, 1, 0, b"t", None, RAW[40:], None, None, None)
    assert seal.unpack(raw, 0, SALT) is None


@pytest.mark.parametrize(
    "at, new",
    [
        (0, b"\x01"),
        (8, b"\xff" * 8),
        (16, b"\xff" * 8),
        (40, b"\xff" * 8),
        (48, b"\xff" * 8),
        (48, b"\x08"),
        (60, b"\x02"),
        (60, b"\xff\xff\xff\xff"),
        (-16, b"\x08"),
        (-1, b"\xff"),
    ],
    ids=["end", "messages", "frames", "payload", "offset", "another offset", "n", "huge n", "trailer", "trailer CRC"],
)
def test_what_no_writer_stores_is_refused(at: int, new: bytes) -> None:
    body = bytearray(RAW[40:])
    at %= len(body)
    body[at : at + len(new)] = new
    assert seal.unpack(sealed(bytes(body)), 0, SALT) is None


def test_the_crcs_cover_the_file_and_fill_the_seal() -> None:
    body, trailer = RAW[40:], RAW[-16:]
    two_crcs = body[:60] + b"\x02\0\0\0" + body[64:72] + trailer
    assert len(two_crcs) + 40 == seal.size(2)
    assert seal.unpack(sealed(two_crcs), 0, SALT) is None
    none = body[:60] + bytes(4) + trailer
    assert seal.unpack(sealed(none), 0, SALT) == replace(FIXED, crcs=[])
    for longer in (body[:80] + bytes(8) + trailer, body[:80] + bytes(3) + trailer):
        assert seal.unpack(sealed(longer), 0, SALT) is None


def test_another_size_of_blocks_is_unsupported() -> None:
    body = bytearray(RAW[40:])
    body[56] = 22
    with pytest.raises(UnsupportedFormat, match="2\\^22"):
        seal.unpack(sealed(bytes(body)), 0, SALT)


@given(st.binary(max_size=200), st.lists(st.tuples(st.integers(0, 95), st.integers(0, 255)), max_size=6))
@settings(deadline=None)
def test_hostile_seals_are_read_or_refused(random: bytes, edits: list[tuple[int, int]]) -> None:
    body = bytearray(RAW[40:])
    for at, byte in edits:
        body[at] = byte
    for hostile in (random, bytes(body)):
        try:
            value = seal.unpack(sealed(hostile), 0, SALT)
        except UnsupportedFormat:
            continue
        assert value is None or seal.unpack(seal.pack(value, SALT), 0, SALT) == value


@pytest.mark.parametrize(
    "change",
    [
        {"crcs": [1, 2]},
        {"offset": 4000},
        {"offset": (2 << 20) + 4100},
        {"end": 0},
        {"frames": -1},
        {"messages": 1 << 63},
    ],
    ids=str,
)
def test_fields_out_of_range_are_not_packed(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        seal.pack(replace(FIXED, **change), SALT)
