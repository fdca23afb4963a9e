"""What is taken for a request, and what is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mbframework.request import LONGEST_NS, MOST_IDS, Refused, checked, chunks, ids_of, packed

ID, BOOT, NOW = "0" * 32, "ab" * 16, 10**12


def request(action: str = "retry", arguments: dict[str, Any] | None = None, timeout: float = 5.0) -> bytes:
    return packed(ID, action, arguments or {}, pid=7, boot_id=BOOT, now=NOW, timeout=timeout)


def test_it_is_read_as_it_was_asked_while_it_holds() -> None:
    for late in (0, 4 * 10**9, 5 * 10**9):
        found = checked(request("dead-drop", {"ids": [3, 1]}), ID, BOOT, NOW + late)
        assert (found.action, found.pid, list(ids_of(found.arguments))) == ("dead-drop", 7, [3, 1])
    everything = checked(request("dead-replay", {"all": True, "below": 9}), ID, BOOT, NOW)
    assert list(ids_of(everything.arguments)) == list(range(1, 9))
    assert ids_of({"all": True}) == range(1, 1 << 63)


@pytest.mark.parametrize(
    ("number", "boot", "now", "why"),
    [
        ("1" * 32, BOOT, NOW, "not a request"),
        (ID, "cd" * 16, NOW, "before the machine was started"),
        (ID, BOOT, NOW - 1, "too old"),
        (ID, BOOT, NOW + 5 * 10**9 + 1, "too old"),
    ],
)
def test_another_time_or_name_refuses_it(number: str, boot: str, now: int, why: str) -> None:
    with pytest.raises(Refused, match=why):
        checked(request(), number, boot, now)


def test_nobody_gets_a_request_that_holds_for_long() -> None:
    checked(request(timeout=1e6), ID, BOOT, NOW + LONGEST_NS)
    with pytest.raises(Refused, match="too old"):
        checked(request(timeout=1e6), ID, BOOT, NOW + LONGEST_NS + 1)


@pytest.mark.parametrize(
    ("action", "arguments"),
    [
        ("stop", {}),
        ("pause", {"now": True}),
        ("mode", {}),
        ("mode", {"mode": 3}),
        ("dead-drop", {}),
        ("dead-drop", {"ids": [0]}),
        ("dead-drop", {"ids": [True]}),
        ("dead-drop", {"ids": ["1"]}),
        ("dead-drop", {"ids": 1}),
        ("dead-drop", {"ids": [1 << 63]}),
        ("dead-drop", {"ids": [1] * (MOST_IDS + 1)}),
        ("dead-drop", {"ids": [1], "all": True}),
        ("dead-replay", {"all": False}),
        ("dead-replay", {"all": True, "below": "9"}),
        ("dead-replay", {"all": True, "below": True}),
        ("dead-replay", {"below": 9}),
    ],
)
def test_what_no_action_takes_is_refused(action: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        checked(request(action, arguments), ID, BOOT, NOW)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(json.loads(request()))), JSON))
def test_whatever_a_field_holds_it_is_a_request_or_refused(changed: dict[str, Any]) -> None:
    raw = json.dumps(json.loads(request()) | changed).encode()
    try:
        found = checked(raw, ID, BOOT, NOW)
    except Refused:
        return
    assert (found.id, found.action) == (ID, "retry")


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(Refused):
        checked(raw, ID, BOOT, NOW)


def test_nested_brackets_are_refused() -> None:
    with pytest.raises(Refused):
        checked(b"[" * 100_000, ID, BOOT, NOW)


def test_ids_come_in_lists_that_fit() -> None:
    assert list(chunks(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(chunks([], 2)) == []
