"""What no other test saw when the engine was changed (``python -m tests.model.mutants``): each of these sees one such
change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

from mbframework.spool.head import LIVE_PAGE, newest
from mbframework.spool.layout import FIRST_FRAME, HEAD_FILE, SLOT_COUNT, SLOT_STRIDE
from mbframework.spool.recovery import GRANT
from mbframework.spool.survey import read_head
from mbframework.status import read_lane
from tests.model.byhand import LANE
from tests.model.explore import Explorer
from tests.model.world import LARGE, World


@contextmanager
def world(**options: Any) -> Iterator[World]:
    made = World.begin(1, **{"mode": "buffer", "live_after": 0.0} | options)
    made.open()
    try:
        yield made
        made.judge()
        made.close()
    finally:
        made.end()


def test_what_the_provider_has_in_hand_counts_among_what_memory_may_hold() -> None:
    with world(channel_messages=10, batch_messages=8) as here:
        here.send(3)
        assert here.engine.lane.live
        here.write(*[20] * 8)
        lived = []

        def meanwhile() -> None:
            here.meanwhile = lambda: None
            for _ in range(4):
                here.write(20)
                lived.append(here.engine.lane.live)

        here.meanwhile = meanwhile
        here.send(1)
        assert lived == [True, True, False, False]


def test_back_in_live_the_last_segment_is_given_back() -> None:
    with world() as here:
        here.write(20, 20)
        here.keep_house()
        assert here.engine.lane.spool.segments
        here.send(4)
        assert here.engine.lane.live
        here.keep_house()
        here.keep_house()
        assert here.engine.lane.spool.segments == []


def test_a_segment_tells_where_the_one_in_front_ends() -> None:
    """Not where it begins itself: what went past the disk lies between."""
    with world() as here:
        here.write(20, 20)
        here.send(3)
        assert here.engine.lane.live
        here.write(20, 20)
        here.send(1)
        here.broker.fail_next()
        here.write(20)
        here.send(1)
        header = here.engine.lane.spool.segments[-1].header
        assert (header.first, header.previous_end, header.ordinal) == (5, 3, 2)


@pytest.mark.parametrize("waiting", [0, 3])
def test_an_interrupt_while_memory_goes_to_disk_doubles_nothing(waiting: int) -> None:
    """Ctrl-C comes at any line of the program's thread; what it asked for it asks for again."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with world() as here:
        for nth in range(1, 40):
            here.send(3)
            assert here.engine.lane.live
            here.write(20, 20, 20)

            def meanwhile(nth: int = nth) -> None:
                here.meanwhile = lambda: None
                here.write(*[20] * waiting)
                with suppress(KeyboardInterrupt), here.between("_append_some", interrupt, nth, within=True):
                    here.sync()
                here.sync()

            here.meanwhile = meanwhile
            here.broker.fail_next(after=1)
            here.send(1)
            here.keep_house()
            here.send(4)
            here.check_order()


def test_an_interrupt_within_an_append_leaves_the_frame_or_room_for_it() -> None:
    """What follows is not stored over it: after a kill it is there."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with world() as here:
        for nth in range(1, 16):
            here.send(3)
            assert here.engine.lane.live
            here.write(20, 20)
            with suppress(KeyboardInterrupt), here.between("append", interrupt, nth, within=True):
                here.sync()
            here.sync()
            here.write(20)
            here.sync()
            here.stop()
            here.send(4)
            here.check_order()


def test_what_lingers_and_finds_no_room_comes_back_as_it_was() -> None:
    with world(mode="always", linger=5.0, on_full="reject") as here:
        here.disk.room = here.disk.used()
        here.write(20, 20, 20)
        here.close()
        assert here.known.returned == {1, 2, 3}
        here.disk.room = 1 << 40
        here.open()


def test_what_a_kill_left_of_the_seek_is_on_the_device_before_a_segment_goes() -> None:
    """A position that was stored and never synced is read again, and believed; then the power goes."""
    here = World.begin(1, mode="always")
    here.open()
    here.write(*[LARGE] * 6)
    here.keep_house()
    here.sync()
    here.send(4)
    here.replaced(None)
    explorer = Explorer(mixtures=range(0), patterns=("nothing", "names"))

    def goes_on(world: World) -> None:
        world.open()
        world.keep_house(0.3)

    explorer.run(here, goes_on)


def test_messages_of_one_frame_are_counted_one_by_one() -> None:
    with world(mode="always") as here:
        here.write(20, 20, 20, many=True)
        assert here.engine.lane.spool.ordinal == 3
        here.stop()
        assert here.engine.lane.spool.ordinal == 3


def test_a_pause_while_the_provider_is_opened_keeps_what_is_written_on_disk() -> None:
    with world() as here:

        def opened() -> dict[str, str]:
            here.pause()
            return {}

        here.by_hand.provider.describe = opened  # type: ignore[method-assign, union-attr]
        here.send(1)
        here.write(20)
        assert not here.engine.lane.live


def test_after_a_kill_no_sequence_is_given_that_was_reserved() -> None:
    with world() as here:
        reserved = here.engine.lane.head.slot.reserved_until
        here.stop()
        assert here.engine.lane.head.slot.next >= reserved


def test_what_a_kill_took_from_memory_is_counted_once() -> None:
    with world() as here:
        here.send(3)
        assert here.engine.lane.live
        here.write(20, 20, 20)
        for _ in range(3):
            here.stop()
            assert here.by_hand is not None
            assert here.by_hand.buffer.status().lost == 3


def test_what_a_dead_lane_tells_is_what_its_next_opening_finds() -> None:
    """Wherever its writer was killed."""
    with world(mode="always") as here:
        here.write(20)
        told: list[tuple[int, int, bool]] = []

        def look(call: str) -> None:
            after = here.after(None)
            dead = read_lane(after.disk, LANE, "main")
            after.open()
            assert after.by_hand is not None
            told.append((dead.accepted, after.by_hand.buffer.status().accepted, dead.balanced))
            after.close()
            after.end()

        here.disk.watch = look
        here.write(20)
        here.write(20, 20, many=True)
        here.disk.watch = lambda call: None
        assert told
        assert all(accepted == found and balanced for accepted, found, balanced in told), told


def test_what_is_pruned_is_pruned_and_nothing_else() -> None:
    with world(mode="always") as here:
        here.broker.down()
        here.send(1)
        here.write(*[LARGE] * 10)
        here.keep_house()
        here.write(*[LARGE] * 10)
        # Who applies it after a loss of power knows as much.
        assert here.engine.lane.head.slot.floor == here.engine.lane.spool.segments[0].first
        here.keep_house()
        here.judge()
        assert here.by_hand is not None
        status = here.by_hand.buffer.status()
        assert (status.pruned > 0, status.lost) == (True, 0)


def test_the_last_message_of_a_recovered_segment_outlives_the_next_openings() -> None:
    with world(mode="always") as here:
        here.write(20, 20)
        here.stop()
        here.keep_house()
        here.stop()
        here.write(20)
        here.judge()
        assert len({sequence for sequence, _ in here.known.arrived}) == len(here.known.given)


def test_a_purge_outlives_a_loss_of_power() -> None:
    with world(mode="always") as here:
        here.write(20, 20, 20)
        here.sync()
        here.purge()
        here.stop("nothing")
        here.send(4)
        assert not here.known.arrived


@pytest.mark.parametrize("delivered", [False, True])
def test_messages_whose_segment_is_zeros_are_lost_and_the_next_ones_are_not(*, delivered: bool) -> None:
    """Head, or seek, knows that they were there."""
    with world(mode="always") as here:
        here.write(*[20] * 5)
        if delivered:
            here.send(3)
        else:
            here.keep_house()
        # After another boot nothing but these tells.
        here.replaced("everything")
        for name in here.disk.list(LANE):
            if name.endswith((".seg", ".prep")):
                fd = here.disk.open(f"{LANE}/{name}")
                here.disk.pwrite(fd, bytes(here.disk.fstat(fd).st_size - FIRST_FRAME), FIRST_FRAME)
                here.disk.close(fd)
        here.known.doubtful |= set(here.known.given)
        here.open()
        here.write(20)
        here.judge()
        assert here.by_hand is not None
        assert here.by_hand.buffer.status().lost == (0 if delivered else 5)


def test_what_a_floor_hides_goes_only_when_the_floor_is_on_the_device() -> None:
    """Killed while the floor was on its way there, opened, and the power goes."""
    here = World.begin(1, mode="always")
    here.open()
    here.broker.down()
    here.send(1)
    here.write(*[LARGE] * 14)
    here.sync()
    killed: list[World] = []

    def look(call: str) -> None:
        top, before = read_head(here.disk, LANE), read_head(here.disk.without_power("nothing"), LANE)
        if top is not None and before is not None and top.floor > before.floor:
            killed.append(here.after(None))

    here.disk.watch = look
    here.write(*[LARGE] * 3)
    here.disk.watch = lambda call: None
    here.end()
    assert killed
    explorer = Explorer(mixtures=range(0), patterns=("names",), kills=False)
    for each in killed:
        explorer.run(each, World.open)


def test_no_sequence_is_given_twice_where_the_newest_slot_of_the_head_is_damaged() -> None:
    """It had reserved more, and some of that may have been given out, and sent without a trace on disk."""
    with world(mode="always") as here:
        here.write(20, 20)
        here.keep_house()
        here.replaced("everything")
        fd = here.disk.open(f"{LANE}/{HEAD_FILE}")
        top, index, _ = newest(here.disk.pread(fd, LIVE_PAGE, 0))
        assert top is not None
        newer = replace(top, generation=top.generation + 1, reserved_until=top.reserved_until + GRANT)
        raw = newer.pack()
        here.disk.pwrite(fd, raw[:-1] + bytes([raw[-1] ^ 1]), (index + 1) % SLOT_COUNT * SLOT_STRIDE)
        here.disk.close(fd)
        here.open()
        here.write(20)
        assert max(here.known.given) >= newer.reserved_until
