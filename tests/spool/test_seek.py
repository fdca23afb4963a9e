"""Slots of the seek: round trips, the fixed bytes, which slot counts, and what damaged or hostile bytes get."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mbframework.errors import UnsupportedFormat
from mbframework.spool import seek
from mbframework.spool.record import close_record
from mbframework.spool.seek import SeekSlot

FIXED = SeekSlot(
    generation=9,
    run=bytes(range(16, 32)),
    next=101,
    ordinal=102,
    segment=103,
    offset=104,
    batch_end=105,
    floor_applied=106,
    delivered=107,
    pruned=108,
    expired=109,
    dead=110,
    lost=111,
    wall_ns=-2,
    epoch=112,
    bits_used=11,
    floor_ordinal=113,
    buffer_id=bytes(range(16)),
    purged=114,
    returned=115,
    bitmap=b"\x05\x04" + bytes(322),
)
RAW = (
    bytes.fromhex(
        "4d42534b010000000900000000000000101112131415161718191a1b1c1d1e1f"
        "6500000000000000660000000000000067000000000000006800000000000000"
        "69000000000000006a000000000000006b000000000000006c00000000000000"
        "6d000000000000006e000000000000006f00000000000000feffffffffffffff"
        "7000000000000000000000000b00000071000000000000000001020304050607"
        "08090a0b0c0d0e0f720000000000000073000000000000000504000000000000"
    )
    + bytes(316)
    + bytes.fromhex("271b1d9a")
)

NUMBERS = [
    "generation",
    "next",
    "ordinal",
    "segment",
    "offset",
    "batch_end",
    "floor_applied",
    "delivered",
    "pruned",
    "expired",
    "dead",
    "lost",
    "epoch",
    "floor_ordinal",
    "purged",
    "returned",
]

ids = st.binary(min_size=16, max_size=16)
counts = st.integers(0, (1 << 63) - 1)


@st.composite
def slots(draw: st.DrawFn) -> SeekSlot:
    bits = draw(st.integers(0, seek.BITMAP_BITS))
    settled = draw(st.integers(0, (1 << bits) - 1))
    numbers = {name: draw(counts) for name in NUMBERS}
    return SeekSlot(
        run=draw(ids),
        buffer_id=draw(ids),
        wall_ns=draw(st.integers(-(1 << 63), (1 << 63) - 1)),
        bits_used=bits,
        bitmap=settled.to_bytes(seek.BITMAP_SIZE, "little"),
        **numbers,
    )


def edited(at: int, new: bytes) -> bytes:
    """The fixed slot with other bytes at ``at`` and a CRC that is right."""
    return close_record((RAW[:at] + new + RAW[at + len(new) :])[:508])


def file_of(*pages: bytes) -> bytes:
    return b"".join(page.ljust(4096, b"\0") for page in pages)


def test_bytes_are_fixed() -> None:
    assert FIXED.pack() == RAW
    assert seek.unpack_slot(RAW) == FIXED
    assert FIXED.settled == 3


@given(slots())
@settings(deadline=None)
def test_round_trip(slot: SeekSlot) -> None:
    raw = slot.pack()
    assert len(raw) == 512
    assert seek.unpack_slot(raw) == slot
    assert slot.settled == sum(slot.bitmap[i // 8] >> i % 8 & 1 for i in range(slot.bits_used))


def test_every_damaged_byte_is_noticed() -> None:
    for at in range(512):
        for flip in range(1, 256):
            bad = bytearray(RAW)
            bad[at] ^= flip
            assert seek.unpack_slot(bytes(bad)) is None


def test_a_torn_or_empty_slot_is_none() -> None:
    assert seek.unpack_slot(bytes(512)) is None
    assert seek.unpack_slot(RAW + b"\0") is None
    # Whole by its CRC, and yet no slot.
    assert seek.unpack_slot(close_record(RAW[:100])) is None
    for end in range(512):
        assert seek.unpack_slot(RAW[:end]) is None
        assert seek.unpack_slot(RAW[:end] + bytes(512 - end)) is None


@pytest.mark.parametrize("at, new", [(4, b"\x02\x00"), (4, b"\x00\x00"), (136, b"\x01"), (139, b"\x80")], ids=str)
def test_what_is_intact_but_unknown_is_unsupported(at: int, new: bytes) -> None:
    unknown = edited(at, new)
    with pytest.raises(UnsupportedFormat, match="release that wrote it"):
        seek.unpack_slot(unknown)
    # Which slot is the newest cannot be said, whatever the others hold.
    with pytest.raises(UnsupportedFormat):
        seek.newest(file_of(replace(FIXED, generation=99).pack(), unknown, b""))


def test_an_unknown_minor_version_is_read() -> None:
    assert seek.unpack_slot(edited(6, b"\x07\x00")) == FIXED


@pytest.mark.parametrize("at", [8, *range(32, 120, 8), 128, 144, 168, 176])
def test_numbers_of_two_to_the_63rd_are_refused(at: int) -> None:
    assert seek.unpack_slot(edited(at, b"\0" * 7 + b"\x80")) is None


@pytest.mark.parametrize("at, new", [(140, b"\x0a\x00"), (140, b"\x21\x0a"), (190, b"\x01")], ids=str)
def test_bits_beyond_those_used_are_refused(at: int, new: bytes) -> None:
    assert seek.unpack_slot(edited(at, new)) is None


@given(st.lists(st.tuples(st.integers(4, 507), st.integers(0, 255)), max_size=20), st.binary(max_size=508))
@settings(deadline=None)
def test_hostile_slots_are_read_or_refused(edits: list[tuple[int, int]], random: bytes) -> None:
    raw = bytearray(RAW)
    for at, byte in edits:
        raw[at] = byte
    for hostile in (close_record(bytes(raw[:508])), close_record(b"MBSK\x01\x00" + random.ljust(502, b"\0")[:502])):
        try:
            slot = seek.unpack_slot(hostile)
        except UnsupportedFormat:
            continue
        assert slot is None or seek.unpack_slot(slot.pack()) == slot


@given(st.permutations([3, 4, 5]))
@settings(deadline=None)
def test_the_highest_generation_counts(generations: list[int]) -> None:
    pages = [replace(FIXED, generation=generation).pack() for generation in generations]
    slot, index, any_invalid = seek.newest(file_of(*pages))
    assert slot == replace(FIXED, generation=5)
    assert (index, any_invalid) == (generations.index(5), False)
    # A torn slot is skipped, and said so.
    pages[index] = pages[index][:300]
    slot, index, any_invalid = seek.newest(file_of(*pages))
    assert slot == replace(FIXED, generation=4)
    assert (index, any_invalid) == (generations.index(4), True)


def test_empty_and_missing_slots_are_not_invalid() -> None:
    assert seek.newest(b"") == (None, 0, False)
    assert seek.newest(bytes(seek.SEEK_FILE_SIZE)) == (None, 0, False)
    assert seek.newest(file_of(b"", RAW, b"")) == (FIXED, 1, False)
    assert seek.newest(RAW) == (FIXED, 0, False)
    assert seek.newest(file_of(RAW) + RAW[:100]) == (FIXED, 0, True)
    assert seek.newest(file_of(b"\x01", b"\x02", b"\x03")) == (None, 0, True)


@pytest.mark.parametrize(
    "change",
    [
        {"next": -1},
        {"purged": 1 << 63},
        {"run": b""},
        {"bitmap": bytes(325)},
        {"bitmap": bytes(323)},
        {"bits_used": 2593},
        {"bits_used": 10},
    ],
    ids=str,
)
def test_fields_out_of_range_are_not_packed(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected|not within|at most"):
        replace(FIXED, **change).pack()
