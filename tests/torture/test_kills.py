"""A short run of many short lives, and the proof of its books."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from mbframework import MessageBuffer
from mbframework.status import LaneStatus
from mbframework.testing.kafka import KafkaBroker
from tests.torture.books import Books
from tests.torture.kills import Run
from tests.torture.kills_plan import Options, plan
from tests.torture.kills_site import DIRECTORIES
from tests.torture.kills_writer import PORTION
from tests.torture.verdict import Finding, judge


@pytest.mark.timeout(240)
def test_nothing_is_lost_by_kills_of_everybody(kafka_control: KafkaBroker, tmp_path: Path) -> None:
    """Of a program that sends live, of one that only writes, of its sidecar, of their children, and of the broker."""
    options = Options(kills=4, broker_kills=1, freezes=0, stops=0, pause=0.3, up=0.5, seed=4)
    directories = [each for each in DIRECTORIES if each.name in ("live", "drained")]
    report = Run(options, kafka_control, tmp_path, print, directories).go()
    assert not report.breaches, report.line()
    assert report.finding.unique > 500
    assert {what for what, count in report.done.items() if count} >= {"kill writer", "kill sidecar", "kill broker"}


def test_a_seed_is_a_plan() -> None:
    steps, blows = plan(Options(seed=5))
    assert (steps, blows) == plan(Options(seed=5))
    assert [step.what for step in steps].count("kill") == 300
    assert [blow.what for blow in blows].count("kill") == 30
    assert plan(Options(seed=6)) != (steps, blows)


#: Two openings of a lane: threads 10 and 11 (one at a time), then thread 21; 2 of the first opening were lost.
REPORTS = [
    "o 10 main 0 0 1",
    "w 11 0 1 1",
    "w 12 0 2 1",
    "w 11 1 3 1",
    "w 12 1 5 1",
    "o 20 main 6 2 100",
    "w 21 0 100 1",
]


@pytest.fixture(scope="module")
def at_the_end(tmp_path_factory: pytest.TempPathFactory) -> LaneStatus:
    """The accounts that go with the reports, but for those that a test changes."""
    with MessageBuffer(tmp_path_factory.mktemp("lane") / "b", mode="always") as buffer:
        return replace(buffer.status(), accepted=7, delivered=5, lost_live=2, lost=2)


def judged(reports: list[str], arrived: list[tuple[int, int]], last: LaneStatus) -> tuple[Books, Finding]:
    reader, writer = os.pipe()
    os.write(writer, "".join(f"{line}\n" for line in reports).encode())
    os.close(writer)
    books = Books()
    books.read(reader)
    books.close({"main": last})
    for at, (stream, number) in enumerate(arrived):
        books.place(0, at, stream, number)
    lane = books.lanes["main"]
    return books, judge(lane.stays, lane.arrived(), [], 10, True)


#: Thread 11's third message, accepted and never reported, stands where nobody else's does: fourth.
IN_ORDER = [(11, 0), (12, 0), (11, 1), (11, 2), (12, 1), (21, 0)]


def test_threads_are_judged_as_one_lane(at_the_end: LaneStatus) -> None:
    books, found = judged(REPORTS, IN_ORDER, at_the_end)
    assert not books.faults
    assert not found.breaches
    assert (found.unique, found.missing, found.lost, books.unreported) == (6, 1, 2, 2)


@pytest.mark.parametrize(
    ("arrived", "breach"),
    [
        pytest.param([(12, 0), (11, 0), *IN_ORDER[2:]], "1 messages arrived after later ones", id="between-threads"),
        pytest.param([IN_ORDER[-1], *IN_ORDER[:-1]], "arrived after later ones", id="between-lives"),
        pytest.param(IN_ORDER[1:], "1 messages of life 0 are missing, the first 0", id="missing"),
        pytest.param([*IN_ORDER, (12, 2), (11, 3)], "1 messages arrived that were never accepted", id="never-accepted"),
        pytest.param([*IN_ORDER, (11, 0)], "1 messages are repeated before any fault", id="repeated"),
    ],
)
def test_the_judge_finds(arrived: list[tuple[int, int]], breach: str, at_the_end: LaneStatus) -> None:
    assert breach in " ".join(judged(REPORTS, arrived, at_the_end)[1].breaches)


@pytest.mark.parametrize(
    ("reports", "fault"),
    [
        pytest.param([*REPORTS, "w 21 1 100 1"], "stream 21 was given sequence 100 after 100", id="given-twice"),
        pytest.param([*REPORTS, "w 21 2 101 1"], "message 2 was reported after 0", id="a-report-is-missing"),
        pytest.param([*REPORTS, "f child 7: KeyError()"], "child 7: KeyError()", id="a-child-failed"),
        pytest.param([*REPORTS, "w 21 one 101 1"], "cannot be understood", id="torn"),
        pytest.param([REPORTS[0], f"w 11 0 {PORTION + 40} 1"], "at most", id="too-many-unreported"),
    ],
)
def test_the_books_find(reports: list[str], fault: str, at_the_end: LaneStatus) -> None:
    last = replace(at_the_end, accepted=80) if "at most" in fault else at_the_end
    assert fault in " ".join(judged(reports, [], last)[0].faults)
