"""The judge of the runs with three brokers finds what it is there to find; the runs themselves are `make torture`."""

from __future__ import annotations

import pytest

from tests.torture.brokers import Report
from tests.torture.guarded_lane import BATCH, LaneReport, gone_with_the_topic
from tests.torture.verdict import Arrived, Finding, Stay, judge

ACCEPTED, DELETED_BY = 5_000, 2_000


def judged(numbers: list[int]) -> Finding:
    """What is said of a topic that was deleted when 2,000 of 5,000 messages had been written at most."""
    arrived = [Arrived(number % 3, 1.0, 0, number) for number in numbers]
    return judge([Stay(ACCEPTED, 0)], [*gone_with_the_topic(arrived, DELETED_BY), *arrived], [], BATCH, one=False)


def test_what_a_deleted_topic_held_is_not_missed() -> None:
    # Of the batch under way one partition was acknowledged by the old topic, the others by the new one.
    under_way = [number for number in range(1_000, 1_000 + BATCH) if number % 3]
    found = judged([*under_way, *range(1_000 + BATCH, ACCEPTED)])
    assert not found.breaches
    assert (found.missing, found.repeated, found.out_of_order) == (0, 0, 0)


@pytest.mark.parametrize(
    "numbers,breach",
    [
        pytest.param([*range(1_000, 3_000), *range(3_001, ACCEPTED)], "1 messages of life 0 are missing", id="later"),
        pytest.param(list(range(DELETED_BY + BATCH + 7, ACCEPTED)), "7 messages of life 0 are missing", id="too-late"),
        pytest.param([], f"{ACCEPTED - DELETED_BY - BATCH} messages of life 0", id="nothing-at-all"),
        pytest.param([*range(1_003, ACCEPTED), 1_000], "1 messages arrived after", id="order"),
    ],
)
def test_what_came_after_a_deletion_must_be_there(numbers: list[int], breach: str) -> None:
    assert breach in " ".join(judged(numbers).breaches)


def test_the_verdict() -> None:
    good = LaneReport("quota", "kafka", accepted=10, delivered=10, balanced=True, finding=Finding(unique=10))
    assert good.line().startswith("PASS quota, kafka: ")
    assert Report(7, lanes=[good]).line().startswith("PASS seed 7: ")
    bad = LaneReport("quota", "confluent", accepted=10, delivered=9, breaches=["a message is missing"])
    assert "BREACH: a message is missing" in bad.line()
    both = Report(7, lanes=[good, bad])
    assert both.line().startswith("BREACH seed 7: three brokers, 2 lanes, ")
    assert "accepted 20, delivered 19, " in both.line()
    assert "accounts do not balance; 1 breaches" in both.line()
    told = both.as_dict()
    assert (told["schema"], told["breaches"], told["lanes"][1]["scheme"]) == (1, 1, "confluent")


def test_a_run_that_played_nothing_has_not_passed() -> None:
    assert Report(7).line().startswith("BREACH")
