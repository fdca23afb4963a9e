"""The position at the destination: what is there already, and whose it is."""

from __future__ import annotations

import logging

import pytest

from mbframework.errors import ProviderUnusable
from mbframework.fence import Fence
from mbframework.message import Position

RUN, OTHER = b"r" * 16, b"o" * 16
LOGGER = logging.getLogger("mbframework.provider")


def at(sequence: int, run: bytes = RUN) -> Position:
    return Position(sequence, run)


@pytest.mark.parametrize(
    ("expected", "start"),
    [(None, 0), (at(3), 0), (at(5), 0), (at(6), 1), (at(8), 1), (at(9), 2), (at(10), 3), (at(99), 3)],
)
def test_what_is_there_already_is_passed_over(expected: Position | None, start: int) -> None:
    fence = Fence()
    fence.read(expected)
    assert fence.start([5, 8, 9]) == start


def test_an_attempt_that_was_stored_without_an_answer_is_recognised() -> None:
    fence = Fence()
    fence.read(at(1))
    fence.attempt(at(11))
    fence.attempt(at(6))
    fence.meet(at(11), 1, LOGGER, "there")
    assert fence.expected == at(11)
    assert fence.start(range(1, 21)) == 10


def test_an_attempt_counts_until_another_is_known_to_be_stored() -> None:
    fence = Fence()
    fence.attempt(at(11))
    assert fence.attempted(at(11))
    fence.stored(at(6))
    assert not fence.attempted(at(11))
    # Whoever stores it from now on is somebody else.
    with pytest.raises(ProviderUnusable, match="up to sequence 10, this one is at 6"):
        fence.meet(at(11), 6, LOGGER, "there")
    assert fence.expected == at(6)


def test_an_attempt_may_arrive_after_the_destination_was_asked() -> None:
    fence = Fence()
    fence.attempt(at(11))
    fence.read(at(1))
    fence.meet(at(11), 1, LOGGER, "there")
    assert fence.expected == at(11)


def test_a_position_of_another_run_is_not_ours() -> None:
    fence = Fence()
    fence.attempt(at(11))
    with pytest.raises(ProviderUnusable, match="a copy of the buffer's directory"):
        fence.meet(at(11, OTHER), 1, LOGGER, "there")


@pytest.mark.parametrize("found", [None, at(4)])
def test_a_position_that_went_back_is_told_and_taken(found: Position | None, caplog: pytest.LogCaptureFixture) -> None:
    fence = Fence()
    fence.read(at(11))
    fence.meet(found, 11, LOGGER, "there")
    assert fence.expected == found
    assert "there has lost what it had acknowledged" in caplog.text
