"""A short run of the proof, and the proof of its judge: it finds what it is there to find."""

from __future__ import annotations

from pathlib import Path

import pytest

from mbframework.testing.kafka import KafkaBroker
from tests.torture.outage import Run
from tests.torture.plan import Options, plan
from tests.torture.verdict import Arrived, Fault, Finding, Stay, judge
from tests.torture.writer import identify, key_of, value_of


def test_the_main_job_survives_kills_and_a_freeze(kafka_control: KafkaBroker, tmp_path: Path) -> None:
    """A twentieth of the long run, which has the times as well."""
    options = Options(
        seconds=16, rate=3000, broker_kills=1, freeze=4, send_timeout=2, writer_kills=1, seed=8, timed=False
    )
    report = Run(options, kafka_control, tmp_path, print).go()
    assert not report.breaches, report.line()
    assert report.finding.unique > 10_000


def test_every_seed_hits_live_state_and_an_outage() -> None:
    for seed in range(50):
        steps = plan(Options(seed=seed))
        assert steps == plan(Options(seed=seed))
        kills = [step for step in steps if step.what == "kill writer"]
        assert len(kills) == 2
        assert sum(step.state in ("live", "") for step in kills) == 1
        assert [step.what for step in steps if step.what != "kill writer"].count("kill broker") == 3
        assert all(0 < step.at < 300 for step in steps)


BATCH = 10
#: The first life accepted 100 messages, of which the last 5 are counted as lost; it was killed at 1,000 ms.
STAYS = [Stay(100, 5), Stay(50, 0)]
FAULTS = [Fault(1000, "kill writer"), Fault(2000, "kill broker")]
#: As the broker has them: 97 arrived of the first life, all of the second.
NUMBERS = [(0, number) for number in range(97)] + [(1, number) for number in range(50)]


def judged(numbers: list[tuple[int, int]], *, at: int = 1500, one: bool = True, partitions: int = 1) -> Finding:
    arrived = [Arrived(number % partitions, at, life, number) for life, number in numbers]
    return judge(STAYS, arrived, FAULTS, BATCH, one)


def test_the_judge_accepts_what_is_promised() -> None:
    found = judged([*NUMBERS[:105], *NUMBERS[100:]])
    assert not found.breaches
    assert (found.topic, found.unique, found.missing, found.lost) == (152, 147, 3, 5)
    assert (found.repeated, found.repeats) == (5, {"kill writer (#1)": 5})


@pytest.mark.parametrize(
    "numbers,breach",
    [
        pytest.param(NUMBERS[:40] + NUMBERS[41:], "1 messages of life 0 are missing, the first 40", id="missing"),
        pytest.param(NUMBERS[:-1], "1 messages of life 1 are missing, the first 49 of 50", id="missing-last"),
        pytest.param([*NUMBERS[:8], NUMBERS[9], NUMBERS[8], *NUMBERS[10:]], "1 messages arrived after", id="order"),
        pytest.param([*NUMBERS[97:], *NUMBERS[:97]], "97 messages arrived after", id="order-of-lives"),
        pytest.param([*NUMBERS, (1, 50)], "1 messages arrived that were never", id="unknown-number"),
        pytest.param([*NUMBERS, (2, 0)], "1 messages arrived that were never", id="unknown-life"),
        pytest.param([*NUMBERS, *NUMBERS[-11:]], "repeats span 11 messages", id="batch"),
        pytest.param([*NUMBERS, *NUMBERS[-6:-4], NUMBERS[-1]], "in more than one range", id="ranges"),
    ],
)
def test_the_judge_finds(numbers: list[tuple[int, int]], breach: str) -> None:
    assert breach in " ".join(judged(numbers).breaches)


def test_repeats_before_any_fault_are_a_breach() -> None:
    assert "1 messages are repeated before any fault" in " ".join(judged([*NUMBERS, NUMBERS[3]], at=900).breaches)


def test_order_counts_within_a_partition() -> None:
    even = [name for name in NUMBERS if name[1] % 2 == 0]
    odd = [name for name in NUMBERS if name[1] % 2]
    assert not judged([*odd, *even], partitions=2, one=False).breaches


def test_a_message_is_known_by_every_byte() -> None:
    value = value_of(3, 1234)
    assert identify(key_of(1234), value) == (3, 1234)
    for wrong in (value[:-1], value[:50] + b"x" + value[51:], value_of(3, 1235), b"", None):
        with pytest.raises(ValueError, match="not what was written"):
            identify(key_of(1234), wrong)
