"""The file ``runs`` of a lane: it is bounded, and whatever stops it, nothing is forgotten that can be asked for."""

from __future__ import annotations

import errno

import pytest

from mbframework.spool import runs
from mbframework.spool.layout import RUN_RECORD, RUNS_FILE
from mbframework.spool.runs import Runs
from tests.model.byhand import LANE
from tests.model.disk import SimulatedDisk
from tests.model.explore import PATTERNS
from tests.model.world import World

_KEPT = 4


def _size(disk: SimulatedDisk) -> int:
    return disk.stat(f"{LANE}/{RUNS_FILE}").st_size // RUN_RECORD.size


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A lane in which a message waits, written by the opening that the test begins with."""
    monkeypatch.setattr(runs, "KEPT", _KEPT)
    world = World.begin(1, mode="always")
    world.open()
    world.write(20)
    world.close()
    return world


def test_openings_without_end_and_a_stop_at_any_call(world: World) -> None:
    disk = world.disk
    told = Runs(disk, LANE).openings()
    recorded: list[bytes] = []

    def stopped(call: str) -> None:
        least = {opening.run for opening in told} | set(recorded[-_KEPT:])
        # The opening that was stopped, and the next one, may count among the last.
        still = least - set(recorded[: -(_KEPT - 2)])
        for pattern in (None, *PATTERNS, *range(3)):
            other = disk.copy() if pattern is None else disk.without_power(pattern)
            file = Runs(other, LANE)
            assert least <= {opening.run for opening in file.openings()}, (call, pattern)
            file.add(b"z" * 16, 1000)
            assert still | {b"z" * 16} <= {opening.run for opening in file.openings()}, (call, pattern)

    disk.watch = stopped
    file = Runs(disk, LANE)
    for number in range(3 * _KEPT):
        run = bytes([number + 1]) * 16
        file.add(run, 100 + number)
        recorded.append(run)
        assert _size(disk) <= 2 * _KEPT
    assert told[0] in file.openings(), "a message of it waits"
    assert not file.knows(recorded[0])
    world.end()


def test_a_lane_that_is_opened_again_and_again(world: World) -> None:
    """Its accounts stay right, and a device without room for a new file costs nothing but the bound."""
    disk = world.disk
    for _ in range(3 * _KEPT):
        world.open()
        world.write(20)
        world.send(2)
        world.close()
    assert _size(disk) <= 2 * _KEPT
    while _size(disk) < 2 * _KEPT:
        world.open()
        world.close()
    with disk.failing(errno.ENOSPC, "create"):
        Runs(disk, LANE).add(b"a" * 16, 1000)
    assert _size(disk) == 2 * _KEPT + 1
    Runs(disk, LANE).add(b"b" * 16, 1000)
    assert _size(disk) <= 2 * _KEPT
    world.open()
    world.judge()
    world.close()
    world.end()
