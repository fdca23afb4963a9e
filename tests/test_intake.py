"""Checks before acceptance, in all their corners."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbframework.config import Config
from mbframework.errors import MessageError, MessageTooLarge
from mbframework.intake import Limits, check_column, check_data, check_headers, check_size, check_topic
from mbframework.message import unpack_headers

DATA = st.one_of(st.none(), st.binary(max_size=50), st.text(st.characters(codec="utf-8"), max_size=50))


def plain(data: bytes | str | None) -> bytes | None:
    return data.encode() if isinstance(data, str) else data


@given(DATA)
def test_data_becomes_bytes_of_its_own(data: bytes | str | None) -> None:
    assert check_data(data, "value") == plain(data)
    if isinstance(data, bytes):
        mutable = bytearray(data)
        checked = check_data(mutable, "value")
        mutable += b"later"
        assert checked == data
        assert check_data(memoryview(data), "value") == data


@given(st.lists(st.tuples(st.text(st.characters(codec="utf-8"), max_size=20), DATA), max_size=8))
def test_headers_keep_order_duplicates_and_none(pairs: list[tuple[str, bytes | str | None]]) -> None:
    block = check_headers(iter(pairs))
    assert unpack_headers(block) == tuple((name, plain(value)) for name, value in pairs)
    assert (block is None) == (not pairs)


@given(st.text(max_size=40))
def test_a_topic_is_utf8_of_one_byte_or_more(topic: str) -> None:
    try:
        expected = topic.encode()
    except UnicodeEncodeError:
        expected = b""
    if expected:
        assert check_topic(topic) == expected
    else:
        with pytest.raises(MessageError):
            check_topic(topic)


def test_a_column_has_one_entry_a_message() -> None:
    assert check_column(None, "keys", 3) is None
    assert check_column({1: "a", 2: "b"}.values(), "keys", 2) == ["a", "b"]
    for wrong in (b"ab", "ab", 5, [1], range(3)):
        with pytest.raises(MessageError, match="keys"):
            check_column(wrong, "keys", 2)


def test_a_size_beyond_the_limit_says_both() -> None:
    check_size(5, 5)
    with pytest.raises(MessageTooLarge, match="6 bytes .* at most 5 are taken"):
        check_size(6, 5)


def test_limits_follow_the_configuration() -> None:
    limits = Limits.of(
        Config.from_mapping({"segment_size": "1MiB", "total_size": "8MiB", "live_wait": "2s", "linger": "1ms"})
    )
    assert (limits.max_message, limits.live_wait_ns, limits.linger_ns) == (256 << 10, 2 * 10**9, 10**6)
    assert Limits.of(Config.from_mapping({"segment_size": "256MiB"})).max_message == (16 << 20) - (128 << 10)
