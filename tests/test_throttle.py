"""The pace of sending, on a clock of the test's own."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbframework.throttle import LEAST, Throttle


def simulate(throttle: Throttle, seconds: float, *, cost: float = 0.001) -> list[tuple[float, int]]:
    """(time, messages) of each batch of a sender that always has something to send."""
    now, sent = 1000.0, []
    while now < 1000.0 + seconds:
        wait = throttle.wait(now)
        if wait:
            now += wait
            continue
        count = throttle.allowance(now, 10_000)
        now += cost
        throttle.sent(now, count)
        sent.append((now - 1000.0, count))
    return sent


@given(st.floats(1.0, 1e6), st.floats(0.0, 0.04))
def test_the_limit_is_kept_over_any_second_and_used(rate: float, cost: float) -> None:
    sent = simulate(Throttle(rate, ramp=False), 3.0, cost=cost)
    slice_ = max(1, int(rate * 0.05))
    for begin, _ in sent:
        within = sum(count for at, count in sent if begin <= at < begin + 1.0)
        assert within <= rate * 1.11 + 2 * slice_
    if 100 <= rate <= 100_000 and cost < 0.02:
        assert sum(count for _, count in sent) >= rate * 3.0 * 0.9


@given(st.integers(0, 1 << 30), st.floats(0, 1e5))
def test_a_ramp_begins_near_twice_the_intake_and_doubles(seed: int, intake: float) -> None:
    throttle = Throttle(None, ramp=True, random=random.Random(seed))
    throttle.catch_up(50.0, intake)
    rates = [throttle.rate(50.0 + second) for second in range(6)]
    first, last = rates[0], rates[-1]
    assert first is not None
    assert last is not None
    assert 0.8 * max(LEAST, 2 * intake) <= first <= 1.2 * max(LEAST, 2 * intake)
    assert rates == sorted(rates, key=float)  # type: ignore[arg-type]
    assert 2 * first < last < 10 * first
    assert throttle.rate(50.0 + 200.0) is None


def test_a_ramp_stays_below_the_limit_and_is_not_begun_twice() -> None:
    throttle = Throttle(500.0, ramp=True)
    throttle.catch_up(0.0, 0.0)
    assert throttle.rate(100.0) == 500.0
    throttle = Throttle(None, ramp=True)
    throttle.catch_up(0.0, 0.0)
    before = throttle.rate(10.0)
    throttle.catch_up(10.0, 0.0)
    assert throttle.rate(10.0) == before


@pytest.mark.parametrize("most", [1, 10, 10_000])
def test_without_a_limit_a_batch_is_as_large_as_may_be(most: int) -> None:
    throttle = Throttle(None, ramp=False)
    throttle.catch_up(0.0, 5.0)
    throttle.sent(1.0, most)
    assert (throttle.allowance(1.0, most), throttle.wait(1.0)) == (most, 0.0)
