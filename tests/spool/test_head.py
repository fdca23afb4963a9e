"""Slots and live page of the head: round trips, the fixed bytes, and what damaged or hostile bytes get."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mbframework.errors import UnsupportedFormat
from mbframework.spool import head
from mbframework.spool.head import HeadSlot, LivePage
from mbframework.spool.record import close_record

BUFFER, RUN, BOOT = bytes(range(16)), bytes(range(16, 32)), bytes(range(32, 48))
FIXED = HeadSlot(
    generation=9,
    buffer_id=BUFFER,
    run=RUN,
    boot_id=BOOT,
    next=201,
    reserved_until=202,
    run_first=203,
    ordinal=204,
    synced_segment=205,
    synced_offset=206,
    synced_sequence=207,
    checkpoint_segment=208,
    checkpoint_offset=209,
    checkpoint_sequence=210,
    floor=211,
    floor_ordinal=212,
    lost_live=213,
    lost_linger=214,
    accepted=215,
    wall_ns=-2,
    boot_ns=301,
    epoch=302,
    flags=head.CLEAN | head.LIVE,
    destination=bytes(range(100, 132)),
    returned=303,
)
RAW = (
    bytes.fromhex(
        "4d424844010000000900000000000000000102030405060708090a0b0c0d0e0f"
        "101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f"
        "c900000000000000ca00000000000000cb00000000000000cc00000000000000"
        "cd00000000000000ce00000000000000cf00000000000000d000000000000000"
        "d100000000000000d200000000000000d300000000000000d400000000000000"
        "d500000000000000d600000000000000d700000000000000feffffffffffffff"
        "2d010000000000002e0100000000000003000000000000006465666768696a6b"
        "6c6d6e6f707172737475767778797a7b7c7d7e7f808182832f01000000000000"
    )
    + bytes(252)
    + bytes.fromhex("decadf62")
)
LIVE = LivePage(RUN, BOOT, 401, 402, 403, 404, 405, 406)
LIVE_RAW = bytes.fromhex(
    "4d424c4956450d0a101112131415161718191a1b1c1d1e1f2021222324252627"
    "28292a2b2c2d2e2f910100000000000092010000000000009301000000000000"
    "940100000000000095010000000000009601000000000000"
)

NUMBERS = [
    "generation",
    "next",
    "reserved_until",
    "run_first",
    "ordinal",
    "synced_segment",
    "synced_offset",
    "synced_sequence",
    "checkpoint_segment",
    "checkpoint_offset",
    "checkpoint_sequence",
    "floor",
    "floor_ordinal",
    "lost_live",
    "lost_linger",
    "accepted",
    "boot_ns",
    "epoch",
]

ids = st.binary(min_size=16, max_size=16)
counts = st.integers(0, (1 << 63) - 1)


@st.composite
def slots(draw: st.DrawFn) -> HeadSlot:
    numbers = {name: draw(counts) for name in NUMBERS}
    return HeadSlot(
        buffer_id=draw(ids),
        run=draw(ids),
        boot_id=draw(ids),
        wall_ns=draw(st.integers(-(1 << 63), (1 << 63) - 1)),
        flags=draw(st.integers(0, (1 << 32) - 1)),
        destination=draw(st.binary(min_size=32, max_size=32)),
        **numbers,
    )


def edited(at: int, new: bytes) -> bytes:
    """The fixed slot with other bytes at ``at`` and a CRC that is right."""
    return close_record((RAW[:at] + new + RAW[at + len(new) :])[:508])


def test_bytes_are_fixed() -> None:
    assert FIXED.pack() == RAW
    assert head.unpack_slot(RAW) == FIXED
    assert head.pack_live(LIVE) == LIVE_RAW
    assert head.unpack_live(LIVE_RAW) == LIVE


@given(slots())
@settings(deadline=None)
def test_round_trip(slot: HeadSlot) -> None:
    raw = slot.pack()
    assert len(raw) == 512
    assert head.unpack_slot(raw) == slot


def test_every_damaged_byte_is_noticed() -> None:
    for at in range(512):
        for flip in range(1, 256):
            bad = bytearray(RAW)
            bad[at] ^= flip
            assert head.unpack_slot(bytes(bad)) is None


@pytest.mark.parametrize("at, new", [(4, b"\x02\x00"), (4, b"\x00\x00"), (212, b"\x01"), (215, b"\x80")], ids=str)
def test_what_is_intact_but_unknown_is_unsupported(at: int, new: bytes) -> None:
    with pytest.raises(UnsupportedFormat, match="release that wrote it"):
        head.unpack_slot(edited(at, new))


@pytest.mark.parametrize("at", [8, *range(64, 184, 8), 192, 200])
def test_numbers_of_two_to_the_63rd_are_refused(at: int) -> None:
    assert head.unpack_slot(edited(at, b"\0" * 7 + b"\x80")) is None


@given(st.lists(st.tuples(st.integers(4, 507), st.integers(0, 255)), max_size=20), st.binary(max_size=508))
@settings(deadline=None)
def test_hostile_slots_are_read_or_refused(edits: list[tuple[int, int]], random: bytes) -> None:
    raw = bytearray(RAW)
    for at, byte in edits:
        raw[at] = byte
    for hostile in (close_record(bytes(raw[:508])), close_record(b"MBHD\x01\x00" + random.ljust(502, b"\0")[:502])):
        try:
            slot = head.unpack_slot(hostile)
        except UnsupportedFormat:
            continue
        assert slot is None or head.unpack_slot(slot.pack()) == slot


def test_the_highest_generation_counts_and_a_seek_is_no_head() -> None:
    pages = [replace(FIXED, generation=generation).pack().ljust(4096, b"\0") for generation in (7, 8, 6)]
    page = head.pack_live(LIVE).ljust(4096, b"\0")
    raw = b"".join([*pages, page])
    assert len(raw) == head.HEAD_FILE_SIZE
    assert head.newest(raw) == (replace(FIXED, generation=8), 1, False)
    raw = b"MBSK".join([raw[:4096], raw[4100:]])
    assert head.newest(raw) == (replace(FIXED, generation=7), 0, True)
    assert head.newest(bytes(head.HEAD_FILE_SIZE)) == (None, 0, False)


def test_live_fields_are_aligned_and_where_the_page_is_read() -> None:
    offsets = {
        head.LIVE_NEXT: "next",
        head.LIVE_ACKNOWLEDGED: "acknowledged",
        head.LIVE_SEGMENT: "segment",
        head.LIVE_TAIL: "tail",
        head.LIVE_HEARTBEAT: "heartbeat",
        head.LIVE_SLEEPING: "sleeping",
    }
    assert len(offsets) == 6
    for offset, name in offsets.items():
        raw = bytearray(bytes(head.LIVE_PAGE) + LIVE_RAW)
        assert offset % 8 == 0
        struct.pack_into("<Q", raw, offset, 7)
        expected = replace(LIVE)
        setattr(expected, name, 7)
        assert head.unpack_live(bytes(raw[head.LIVE_PAGE :])) == expected


def test_what_is_no_live_page_is_none() -> None:
    assert head.unpack_live(bytes(4096)) is None
    assert head.unpack_live(LIVE_RAW[:87]) is None
    assert head.unpack_live(b"?" + LIVE_RAW[1:]) is None
    assert head.unpack_live(LIVE_RAW[:-8] + b"\xff" * 8) is None
    assert head.unpack_live(LIVE_RAW.ljust(4096, b"\0")) == LIVE


@pytest.mark.parametrize(
    "change", [{"next": -1}, {"accepted": 1 << 63}, {"boot_id": b""}, {"destination": b"short"}], ids=str
)
def test_fields_out_of_range_are_not_packed(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected|not within"):
        replace(FIXED, **change).pack()


def test_a_live_page_out_of_range_is_not_packed() -> None:
    for page in (replace(LIVE, tail=-1), replace(LIVE, heartbeat=1 << 63), replace(LIVE, run=b"")):
        with pytest.raises(ValueError, match=r"expected|not within"):
            head.pack_live(page)
