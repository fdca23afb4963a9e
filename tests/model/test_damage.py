"""Verify and repair on what the power-loss disk leaves, and on what a device makes of files: every intact message is
delivered, before a damage and behind it, and the rest is told as ranges of sequences, no more and no less.

What is intact is found by :mod:`tests.fuzz.reference`, which shares no code with the engine.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from typing import Any

import pytest

from mbframework.repair import repair
from mbframework.verify import Damage, check_buffer
from tests.fuzz import reference
from tests.model import scripts
from tests.model.byhand import DIRECTORY, LANE
from tests.model.disk import SimulatedDisk
from tests.model.explore import Explorer
from tests.model.inode import PAGE
from tests.model.world import LARGE, World

LONG = os.environ.get("MBFRAMEWORK_TEST_MODEL") == "long"
SALT = slice(32, 36)


class Repaired(World):
    """A world in which a person has the buffer repaired before it is opened after a stop."""

    def open(self) -> None:
        if self.known.given or self.known.perhaps:
            repair(DIRECTORY, self.disk)
            # What recovery counts, it counts there.
            self.disk.let_pass(1)
        super().open()

    def _after(self, disk: SimulatedDisk, *, power: bool) -> World:
        after = super()._after(disk, power=power)
        repaired = Repaired(after.disk, after.known, **self.options)
        repaired.reject(self.rejecting)
        return repaired


@pytest.mark.timeout(1800 if LONG else 120)
@pytest.mark.parametrize("script", [scripts.power_lost_again_and_again, scripts.hand_over, scripts.prune])
def test_a_repair_after_any_stop_breaks_no_promise(script: scripts.Script) -> None:
    if not LONG and script is not scripts.power_lost_again_and_again:
        pytest.skip("MBFRAMEWORK_TEST_MODEL=long")
    options: dict[str, Any] = next(options for each, options in scripts.SCRIPTS if each is script)
    explorer = Explorer(mixtures=range(20 if LONG else 1), patterns=("nothing", "names", "data") if LONG else ())
    explorer.run(Repaired.begin(1, **options), script)
    print(f"{explorer.points:,} repaired")


# ---- damage


def lane_of(chance: random.Random) -> World:
    """Some segments full of messages, closed or killed; nothing is sent."""
    world = World.begin(chance.randrange(1000), mode="always")
    world.open()
    world.broker.down()
    for _ in range(chance.randrange(2, 6)):
        sizes = [chance.choice([0, 20, 700, 5000, LARGE]) for _ in range(chance.randrange(1, 7))]
        world.write(*sizes, many=chance.random() < 0.4)
        if chance.random() < 0.5:
            world.keep_house()
    if chance.random() < 0.5:
        world.close()
    else:
        world.replaced(None)
    return world


def segments_of(disk: SimulatedDisk) -> dict[str, bytearray]:
    found = {}
    for name in disk.list(LANE):
        if name.endswith((".seg", ".prep")):
            fd = disk.open(f"{LANE}/{name}", write=False)
            found[name] = bytearray(disk.pread(fd, 1 << 30, 0))
            disk.close(fd)
    return {name: data for name, data in found.items() if data[:5] == b"MBSEG"}


def store(disk: SimulatedDisk, name: str, data: bytes) -> None:
    fd = disk.open(f"{LANE}/{name}")
    disk.truncate(fd, len(data))
    disk.pwrite(fd, data, 0)
    disk.close(fd)


def harm(data: bytearray, chance: random.Random) -> None:
    """What devices do: a bit, a few bytes, sectors of zeros or of something else, a lost end."""
    how, at = chance.randrange(6), chance.randrange(len(data))
    if how == 0:
        data[at] ^= 1 << chance.randrange(8)
    elif how == 1:
        size = min(chance.randrange(1, 200), len(data) - at)
        data[at : at + size] = chance.randbytes(size)
    elif how in (2, 3):
        at -= at % 512
        size = min(512 * chance.randrange(1, 20), len(data) - at)
        data[at : at + size] = bytes(size) if how == 2 else chance.randbytes(size)
    elif how == 4:
        del data[max(at, 300) :]
    else:
        data[: min(len(data), PAGE)] = bytes(min(len(data), PAGE))


def intact_in(data: bytes, salt: bytes) -> set[int]:
    """The sequences of the messages in a segment whose salt is known, whatever has become of its header."""
    number, found, at = int.from_bytes(salt, "little"), set[int](), data.find(b"MBF1", PAGE)
    while at >= 0:
        framed = reference.frame_at(data, at, number)
        if framed is not None:
            found |= set(range(framed.first, framed.first + len(framed.messages)))
        at = data.find(b"MBF1", at + 1)
    return found


def tells_its_salt(data: bytes, salt: bytes) -> bool:
    """Whether enough is left to find the salt: the header, or its salt and a frame, or the first frame, or the seal."""
    number = int.from_bytes(salt, "little")
    if reference.salt_of(data) == number:
        return True
    if data[SALT] == salt and intact_in(data, salt):
        return True
    if reference.frame_at(data, PAGE, number) is not None:
        return True
    at = int.from_bytes(data[-16:-8], "little") if len(data) >= 16 else 0
    return PAGE <= at < len(data) and reference.frame_at(data, at, number) is not None


def covered(sequence: int, damages: Iterable[Damage]) -> bool:
    return any(
        each.messages
        and each.first is not None
        and each.first <= sequence
        and (each.last is None or sequence <= each.last)
        for each in damages
    )


@pytest.mark.timeout(1800 if LONG else 120)
@pytest.mark.parametrize("first", range(0, 20_000 if LONG else 80, 40))
def test_every_intact_message_is_recovered_and_the_loss_is_told(first: int) -> None:
    for seed in range(first, first + 40):
        try:
            damaged(seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


def damaged(seed: int) -> None:
    chance = random.Random(seed)
    world = lane_of(chance)
    disk, given = world.disk, dict(world.known.given)
    try:
        before = segments_of(disk)
        intact: set[int] = set()
        for name, data in before.items():
            salt = bytes(data[SALT])
            if chance.random() < 0.6:
                for _ in range(chance.choice([1, 1, 2, 4])):
                    harm(data, chance)
                store(disk, name, bytes(data))
            if tells_its_salt(bytes(data), salt):
                intact |= intact_in(bytes(data), salt)
        told = [each for lane in check_buffer(DIRECTORY, disk).lanes for each in lane.all_damages]
        lost = repair(DIRECTORY, disk).lost.get("main", [])
        assert check_buffer(DIRECTORY, disk).intact
        world.by_hand = None
        world.options |= {"close_timeout": 0.0}
        after = World(disk, world.known, **world.options)
        after.known.doubtful |= set(given)
        after.known.recount = True
        after.open()
        for _ in range(60):
            after.keep_house(0.3)
            after.send(4)
        status = after.by_hand.buffer.status()  # type: ignore[union-attr]
        after.check_order()
        arrived = [sequence for sequence, _ in after.known.arrived]
        missing = set(given) - set(arrived)
        assert intact <= set(arrived), f"intact, and not delivered: {sorted(intact - set(arrived))}"
        for damages, who in ((told, "verify"), (lost, "repair")):
            assert all(covered(each, damages) for each in missing), (
                f"{who} does not tell of {sorted(missing)}: {damages}"
            )
        assert sum(each.messages for each in lost) == len(missing), f"{lost} for {sorted(missing)}"
        assert (status.lost, status.delivered, status.resident_messages) == (len(missing), len(arrived), 0), status
        assert status.accepted == len(given)
        assert status.balanced
        after.close()
        after.end()
    finally:
        world.end()
