"""A short run of the proof for each of the two providers, and the proof of its judge."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kafka_fixture import require_kafka
from tests.providers.kafka_proxied import ProxiedBroker
from tests.providers.kafka_proxy import ProduceProxy
from tests.torture.exactly_once import AMBUSHES, Options, Run, judge, plan, proxied
from tests.torture.exactly_once_writer import PORTION


@pytest.fixture(scope="module")
def kafka_behind_proxy() -> Iterator[tuple[ProxiedBroker, ProduceProxy]]:
    """One for both runs."""
    require_kafka()
    with proxied() as both:
        yield both


@pytest.mark.timeout(180)
@pytest.mark.parametrize("scheme", ["kafka", "confluent"])
def test_kills_in_the_middle_of_commits(
    scheme: str, kafka_behind_proxy: tuple[ProxiedBroker, ProduceProxy], tmp_path: Path
) -> None:
    """One process for each thing that can happen to a commit, and the broker once."""
    options = Options(scheme=scheme, kills=4, commit_kills=4, broker_kills=1)
    report = Run(options, *kafka_behind_proxy, tmp_path, print).go()
    assert not report.breaches, report.line()
    assert report.finding.unique > 500
    assert report.aborted > 0, "no transaction was in the middle of anything when it was killed"


def test_every_seed_hits_every_moment() -> None:
    for seed in range(50):
        options = Options(seed=seed)
        steps = plan(options)
        assert steps == plan(options)
        assert len([who for who, _ in steps if who == "process"]) == 50
        assert len([when for who, when in steps if who == "process" and when in AMBUSHES]) == 25
        assert {when for who, when in steps if who == "broker"} == {"asked", "sent", "any"}


#: Two lives; the first had said that 100 were accepted. Partition, life, number.
SAID = [100, 50]
ARRIVED = [(number % 3, 0, number) for number in range(100 + PORTION)] + [(n % 3, 1, n) for n in range(50)]


def test_the_judge_accepts_what_is_promised() -> None:
    found = judge(SAID, ARRIVED)
    assert not found.breaches
    assert (found.read, found.unique) == (150 + PORTION, 150 + PORTION)
    # Nothing of the portion that was not said need be accepted.
    assert not judge(SAID, [each for each in ARRIVED if each[1] or each[2] < 100]).breaches


@pytest.mark.parametrize(
    ("arrived", "breach"),
    [
        pytest.param(ARRIVED[:40] + ARRIVED[41:], "1 messages missing", id="missing"),
        pytest.param(ARRIVED[:-1], "1 messages missing", id="missing-last"),
        pytest.param([*ARRIVED, ARRIVED[7]], "1 messages repeated", id="repeated"),
        pytest.param([*ARRIVED[:6], ARRIVED[9], *ARRIVED[6:9], *ARRIVED[10:]], "1 messages out of order", id="order"),
        pytest.param([*ARRIVED, (2, 1, 50 + PORTION)], "life 1: number", id="unknown"),
    ],
)
def test_the_judge_finds(arrived: list[tuple[int, int, int]], breach: str) -> None:
    assert breach in " ".join(judge(SAID, arrived).breaches)
