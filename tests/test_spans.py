"""Spans against sets of numbers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from mbframework.spans import Span, common, count, joined, spans_of, without

NUMBERS = st.sets(st.integers(0, 40))


def numbers(spans: list[Span]) -> set[int]:
    """What the spans hold; they must be in order, apart, and none empty."""
    for (_, end), (first, _) in pairwise(spans):
        assert end < first
    assert all(first < end for first, end in spans)
    return {number for first, end in spans for number in range(first, end)}


@settings(deadline=None)
@given(NUMBERS, NUMBERS)
def test_they_are_sets(one: set[int], other: set[int]) -> None:
    a, b = spans_of(one), spans_of(other)
    assert numbers(a) == one
    assert numbers(common(a, b)) == one & other
    assert numbers(without(a, b)) == one - other
    assert numbers(joined(a + b)) == one | other
    assert count(a) == len(one)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30))))
def test_pairs_in_any_order_are_joined(pairs: list[Span]) -> None:
    assert numbers(joined(pairs)) == {number for first, end in pairs for number in range(first, end)}


def test_a_long_range_costs_nothing() -> None:
    assert spans_of(range(1, 1 << 63)) == [(1, 1 << 63)]
    assert spans_of(range(5, 5)) == []
