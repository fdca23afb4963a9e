"""Waits between attempts: within their bounds, spread, growing, and what the broker asks for."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbframework.backoff import LONGEST_ASKED, Backoff


@given(st.floats(0.001, 1.0), st.floats(1.0, 60.0), st.integers(0, 1 << 30), st.integers(1, 100))
def test_a_wait_lies_between_the_two_bounds(least: float, most: float, seed: int, failures: int) -> None:
    backoff = Backoff(least, most, random=random.Random(seed))
    waits = [backoff.failed() for _ in range(failures)]
    assert all(least <= wait <= most for wait in waits)
    assert waits[0] <= 2 * least


def test_waits_double_and_are_spread_and_begin_anew() -> None:
    means = []
    for count in (1, 3, 5, 20):
        waits = []
        for seed in range(400):
            backoff = Backoff(0.1, 30.0, random=random.Random(seed))
            waits.append([backoff.failed() for _ in range(count)][-1])
        means.append(statistics.mean(waits))
        assert statistics.stdev(waits) > means[-1] * 0.1
    assert means == sorted(means)
    assert means[1] == pytest.approx(0.45, rel=0.1)
    assert means[3] == pytest.approx(15, rel=0.1)
    backoff = Backoff(0.1, 30.0)
    for _ in range(10):
        backoff.failed()
    backoff.succeeded()
    assert backoff.failed() <= 0.2


def test_the_broker_may_ask_for_longer_but_not_for_ever() -> None:
    backoff = Backoff(0.1, 1.0)
    assert backoff.failed(7.5) == 7.5
    assert backoff.failed(0.0) >= 0.1
    assert backoff.failed(1e12) == LONGEST_ASKED
