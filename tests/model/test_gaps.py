"""What no other test saw when the engine was changed (``python -m tests.model.mutants``): each of these sees one such
change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

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


@pytest.mark.parametrize(
    ("function", "lines", "waiting"), [("_append_some", 40, 0), ("_append_some", 40, 3), ("append", 20, 0)]
)
def test_an_interrupt_while_memory_goes_to_disk_doubles_nothing(function: str, lines: int, waiting: int) -> None:
    """Ctrl-C comes at any line of the program's thread; what it asked for it asks for again."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with world() as here:
        for nth in range(1, lines):
            here.send(3)
            assert here.engine.lane.live
            here.write(20, 20, 20)

            def meanwhile(nth: int = nth) -> None:
                here.meanwhile = lambda: None
                here.write(*[20] * waiting)
                with suppress(KeyboardInterrupt), here.between(function, interrupt, nth, within=True):
                    here.sync()
                here.sync()
                here.write(20)

            here.meanwhile = meanwhile
            here.broker.fail_next(after=1)
            here.send(1)
            here.keep_house()
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
