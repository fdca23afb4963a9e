"""Columns of write_many() become the frames that the same messages become one by one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbframework.bundle import Bundle
from mbframework.errors import MessageError, MessageTooLarge
from mbframework.frame_draft import FRAME_COUNT, FrameDraft, fitting
from mbframework.intake import Item
from tests.examples import examples

_data = st.none() | st.binary(max_size=60) | st.text(max_size=20) | st.binary(max_size=60).map(bytearray)
_headers = st.none() | st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=9)), max_size=2)
_messages = st.lists(
    st.tuples(_data, _data, _headers, st.none() | st.integers(0, 9), st.none() | st.integers(-5, 5)), max_size=12
)


def _bundle(topic: str, values: Any, *columns: Any, most: int = 100, limit: int = 1 << 20) -> Bundle:
    keys, headers, partitions, timestamps = columns or (None,) * 4
    return Bundle(topic, topic.encode(), values, keys, headers, partitions, timestamps, most=most, limit=limit)


@examples(300)
@given(
    st.sampled_from(["t", "orders", "é" * 40]), _messages, st.lists(st.booleans(), min_size=4, max_size=4),
    st.integers(0, 11), st.sampled_from([0, 60, 300, 1 << 20]),
)  # fmt: skip
def test_cut_and_encoded_as_items_are(
    topic: str, messages: list[Any], there: list[bool], start: int, most: int
) -> None:
    values, *columns = [list(column) for column in zip(*messages, strict=True)] or [[]] * 5
    bundle = _bundle(topic, values, *(column if kept else None for column, kept in zip(columns, there, strict=True)))
    items = [*bundle]
    assert len(items) == len(bundle) == len(messages)
    assert bundle[1:] == items[1:]
    assert all(bundle[i] == item for i, item in enumerate(items))
    assert bundle.size == sum(len(part or b"") for item in items for part in (item[0].encode(), *item[1:4]))
    if items:
        start = min(start, len(items) - 1)
        draft, reference = (FrameDraft(each, start, most, 7, 9) for each in (bundle, items))
        assert draft.count == reference.count == fitting(items, start, most)
        assert draft.encode(0xA1B2C3D4) == reference.encode(0xA1B2C3D4)


def test_cut_where_the_count_ends_a_frame() -> None:
    values: list[bytes | None] = [b""] * (FRAME_COUNT + 3)
    bundle = _bundle("t", values, most=len(values))
    assert FrameDraft(bundle, 0, 1 << 30, 1, 0).count == FRAME_COUNT
    assert FrameDraft(bundle, FRAME_COUNT, 1 << 30, 1, 0).count == 3


def test_nothing_of_the_callers_is_kept() -> None:
    value, values = bytearray(b"before"), [b"first"]
    bundle = _bundle("t", [value, *values])
    value[:] = b"behind"
    columns: list[Any] = [b"a", b"b"]
    other = _bundle("t", columns, columns, None, None, None)
    columns[:] = [None, None]
    assert [item[1] for item in bundle] == [b"before", b"first"]
    assert [item[1:3] for item in other] == [(b"a", b"a"), (b"b", b"b")]


@pytest.mark.parametrize("place", [0, 2])
def test_one_that_is_too_large_is_found(place: int) -> None:
    values: list[Any] = [b"1234"] * 3
    keys: list[Any] = [b"1", None, b"1"]
    # The longest value and the longest key are not in one message.
    assert len(_bundle("t", [b"12345", b"1234567", None], keys, None, None, None, limit=8)) == 3
    values[place] = b"1234567"
    item: Item = [*_bundle("t", values, keys, None, None, None)][place]
    assert item[1:3] == (b"1234567", b"1")
    with pytest.raises(MessageTooLarge, match="9 bytes"):
        _bundle("t", values, keys, None, None, None, limit=8)


def test_more_than_are_taken_at_once() -> None:
    with pytest.raises(MessageError, match="4 messages in one call; at most 3"):
        _bundle("t", iter([b""] * 4), most=3)
