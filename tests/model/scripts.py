"""Short histories, each of a kind of trouble; every stop of each is looked at."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from mbframework.errors import MessageBufferError
from tests.model.world import LARGE, World

Script = Callable[[World], None]
#: Each script, and the options of its buffer.
SCRIPTS: list[tuple[Script, dict[str, Any]]] = []
#: Those that are trouble enough: they are played, and none of their stops is looked at.
PLAYED: list[tuple[Script, dict[str, Any]]] = []


def script(*, stops: bool = True, **options: Any) -> Callable[[Script], Script]:
    """Put it on the list."""

    def add(function: Script) -> Script:
        (SCRIPTS if stops else PLAYED).append((function, options))
        return function

    return add


@script(mode="always")
def always(world: World) -> None:
    """Messages on disk, delivered bit by bit, rolled, synced, closed."""
    world.open()
    world.write(20, 20)
    world.sync()
    world.write(LARGE, 20)
    world.send(2)
    world.keep_house()
    world.write(LARGE, LARGE, LARGE, many=True)
    world.write(LARGE)
    world.keep_house()
    world.send(3)
    world.keep_house()
    world.close()


@script(mode="always", kind="btrfs")
def not_mapped(world: World) -> None:
    """Where the file system may not be mapped."""
    world.open()
    world.write(20, 20)
    world.sync()
    world.write(LARGE, LARGE, LARGE, LARGE)
    world.send(2)
    world.keep_house()
    world.write(20)
    world.stop()
    world.write(20)
    world.keep_house()


@script(mode="buffer", live_after=0.0)
def hand_over(world: World) -> None:
    """To live, a failure with a batch in hand, to disk, and back."""
    world.open()
    world.send(3)
    world.write(20, 20, 20)
    world.send(2)
    world.write(20, 20, 20)
    world.broker.fail_next(after=1)
    world.send(1)
    world.write(20)
    world.report()
    world.send(4)
    world.write(20, 20)
    world.keep_house()
    world.broker.fail_next(uncertain=True)
    world.send(1)
    world.send(3)
    world.write(20)
    world.close()


@script(mode="buffer", live_after=0.0)
def sync_while_in_hand(world: World) -> None:
    """What is in the provider's hand is spilled by a sync, a change of mode, a pause."""
    world.open()
    world.send(3)
    world.write(20, 20, 20)

    def meanwhile() -> None:
        world.meanwhile = lambda: None
        world.write(20)
        world.sync()
        world.write(20)

    world.meanwhile = meanwhile
    world.broker.fail_next(after=2)
    world.send(1)
    world.mode("always")
    world.write(20)
    world.send(1)
    world.mode("buffer")
    world.send(3)
    world.write(20, 20)
    world.meanwhile = world.pause
    world.send(1)
    world.meanwhile = lambda: None
    world.write(20)
    world.keep_house()
    world.resume()
    world.send(3)
    world.close()


@script(mode="always")
def prune(world: World) -> None:
    """Full, with the provider away: the oldest go; also those in hand."""
    world.open()
    world.write(*[LARGE] * 5)
    world.keep_house()
    world.sync()
    world.write(*[LARGE] * 5)
    world.keep_house()

    def meanwhile() -> None:
        world.meanwhile = lambda: None
        world.write(*[LARGE] * 4)
        world.keep_house()

    world.meanwhile = meanwhile
    world.broker.fail_next(after=1)
    world.send(1)
    world.write(*[LARGE] * 5)
    world.keep_house()
    world.send(2)
    world.keep_house()
    world.close()


@script(mode="always")
def purge(world: World) -> None:
    """Everything is removed, but for what is in hand."""
    world.open()
    world.write(20, 20, LARGE)
    world.keep_house()
    world.write(20)
    world.purge()
    world.write(20, 20)

    def meanwhile() -> None:
        world.meanwhile = lambda: None
        world.write(20, 20)
        world.purge()
        world.write(20)

    world.meanwhile = meanwhile
    world.broker.fail_next(after=1)
    world.send(2)
    world.keep_house()
    world.send(2)


@script(mode="always")
def half_a_batch(world: World) -> None:
    """Batches of which a part arrives, several times; what is settled of them is not sent again."""
    world.open()
    world.write(20, 20, 20, 20, 20)
    world.broker.fail_next(after=2)
    world.send(1)
    world.keep_house()
    world.broker.fail_next(after=1)
    world.send(1)
    world.write(20)
    world.keep_house()
    world.send(2)
    world.close()


@script(mode="always")
def rejected(world: World) -> None:
    """Some go to the dead letters, in batches that fail as well."""
    world.open()
    world.reject(3)
    world.write(20, 20, 20, 20)
    world.send(2)
    world.broker.fail_next(after=1)
    world.write(20, 20, 20)
    world.send(3)
    world.keep_house()
    world.stop()
    world.write(20)
    world.send(3)
    world.close()


@script(stops=False, mode="always")
def letters_find_no_room(world: World) -> None:
    """What is rejected and cannot be set aside waits, and costs neither order nor accounts; where it is taken after
    all, behind others, that is told."""
    world.open()
    world.reject(3)
    world.write(20, 20, 20, 20, 20, 20, 20)
    world.disk.room = world.disk.used()
    world.send(2)
    assert "dead letters" in world.engine.outlet.blocked
    assert world.engine.outlet.order_violations == 0
    world.keep_house()
    world.disk.room = 1 << 40
    world.send(2)
    assert (world.engine.ledger.slot.delivered, world.engine.ledger.slot.dead) == (5, 2)
    world.write(20, 20, 20)
    with world.disk.failing(errno.EDQUOT, "datasync"):
        world.send(1)
    assert world.engine.outlet.order_violations == 0
    world.reject(0)
    world.send(2)
    assert world.engine.outlet.order_violations == 1
    world.close()


@script(mode="always")
def killed_again_and_again(world: World) -> None:
    """Recovery is stopped as well, and what follows one."""
    world.open()
    world.write(20, LARGE, LARGE, LARGE, LARGE)
    world.send(1)
    world.stop()
    world.write(20)
    world.keep_house()
    world.stop()
    world.write(LARGE)
    world.send(1)
    world.keep_house()


@script(mode="always")
def power_lost_again_and_again(world: World) -> None:
    """The same, with less left each time."""
    world.open()
    world.write(20, LARGE, LARGE)
    world.sync()
    world.write(LARGE, LARGE, LARGE)
    world.send(1)
    world.stop(3)
    world.write(20, LARGE)
    world.keep_house()
    world.write(20)
    world.stop(7)
    world.write(20)
    world.send(2)


@script(mode="always", linger=5.0)
def linger(world: World) -> None:
    """Messages wait in memory to be appended together."""
    world.open()
    world.write(20, 20, 20)
    world.keep_house()
    world.write(20, 20)
    world.disk.let_pass(6)
    world.keep_house()
    world.send(1)
    world.write(20, 20)
    world.sync()
    world.write(20)
    world.close()


@script(mode="always", fsync="always")
def synced_at_once(world: World) -> None:
    """Each write is on the device when it returns, also where the first attempt fails."""
    world.open()
    world.write(20, 20)
    with world.disk.failing(errno.EIO, "datasync", times=2):
        world.write(20)
    world.write(20, LARGE, LARGE, LARGE)
    with world.disk.failing(errno.EIO, "datasync", times=1):
        world.write(20)
    world.write(20)
    world.send(1)
    world.keep_house()


@script(mode="always")
def a_sync_fails(world: World) -> None:
    """What a sync that failed was to write is not believed to be there."""
    world.open()
    world.write(20, 20)
    with world.disk.failing(errno.EIO, "datasync", times=3), suppress(OSError):
        world.sync()
    world.write(20)
    world.sync()
    world.send(1)
    with world.disk.failing(errno.EIO, "datasync", times=2):
        world.keep_house()
    world.write(LARGE, LARGE, LARGE, LARGE)
    world.keep_house()
    with world.disk.failing(errno.EIO, "datasync", times=1):
        world.keep_house()
    world.send(1)
    world.keep_house()
    world.write(20)
    world.close()


@script(mode="always", on_full="reject")
def the_device_is_full(world: World) -> None:
    """No room for another segment, which nothing is pruned for; then there is."""
    world.open()
    world.write(20, *[LARGE] * 4)
    world.keep_house()
    world.disk.room = world.disk.used() + 10_000
    world.write(*[LARGE] * 5)
    world.keep_house()
    world.send(1)
    world.keep_house()
    world.disk.room = 1 << 40
    world.keep_house()
    world.write(20)
    world.keep_house()
    world.close()


@script(mode="always")
def read_only(world: World) -> None:
    """The device refuses every change for a while."""
    world.open()
    world.write(20, 20)
    with world.disk.failing(errno.EROFS):
        world.keep_house()
        world.write(20)
        world.send(1)
        world.keep_house()
    world.keep_house()
    world.write(20)
    world.send(2)
    world.sync()
    world.close()


@script(mode="always")
def meanwhile_in_the_house(world: World) -> None:
    """A program writes while its segments are prepared, named, sealed and removed."""
    world.open()
    for call in ("fill", "reserve", "rename", "datasync", "sync_directory", "truncate"):
        world.write(LARGE, LARGE)
        with world.during(call, lambda: world.write(LARGE, LARGE, LARGE)):
            world.keep_house()
        world.send(2)
    with world.during("unlink", lambda: world.write(20)):
        world.keep_house()


@script(mode="block", block_timeout=5.0)
def nothing_on_disk(world: World) -> None:
    """Mode block: the program waits; what is left at the end comes back."""
    world.open()
    world.send(2)
    world.write(20, 20)
    world.send(1)
    world.broker.fail_next(after=1)
    world.write(20, 20)
    world.send(1)
    world.write(20)
    world.send(1)
    world.mode("buffer")
    world.write(20)
    world.broker.down()
    world.send(1)
    world.write(20)
    world.close()


@script(mode="always")
def memory_behind_a_backlog(world: World) -> None:
    """A program that keeps nothing on disk opens a lane where another mode left messages."""
    world.open()
    world.write(20, 20)
    world.close()
    world.options |= {"mode": "block", "block_timeout": 5.0}
    world.open()
    world.write(20, 20, 20)
    world.close()


@script(mode="always", expire_after=100.0)
def expired(world: World) -> None:
    """What is too old leaves, on disk as well as while the provider is away."""
    world.open()
    world.write(20, 20)
    world.broker.down()
    world.send(1)
    world.disk.let_pass(90)
    world.write(20)
    world.disk.let_pass(20)
    world.send(1)
    world.keep_house()
    world.broker.up()
    world.send(2)
    world.keep_house()


@script(stops=False, mode="buffer", live_after=0.0)
def another_thread_writes_while_it_is_handed_over(world: World) -> None:
    """Between any two lines of it, where no lock forbids it, to disk and back."""
    world.open()
    for nth in range(1, 40):
        with world.between("enter_live", lambda: world.write(20), nth):
            world.send(3)
        world.write(20, 20, 20)
        world.broker.fail_next(after=1)
        with world.between("leave_live", lambda: world.write(20), nth):
            world.send(1)
        world.write(20)
        world.send(3)
    world.judge()
    world.close()


@script(stops=False, mode="always")
def handed_back_behind_a_backlog(world: World) -> None:
    """What close() gives back is told as given back, whatever stands in front of it."""
    world.open()
    world.write(20, 20)
    world.close()
    world.options |= {"mode": "block", "block_timeout": 5.0}
    world.open()
    world.write(20, 20, 20)
    world.close()
    world.options |= {"mode": "always"}
    world.open()
    world.judge()
    world.close()


@script(stops=False, mode="always")
def an_opening_fails(world: World) -> None:
    """At any call; the next one is as if nothing had been."""
    world.open()
    world.write(20, 20)
    world.close()
    for first in range(1, 60):
        with world.disk.failing(errno.EIO, first=first, times=1), suppress(OSError, MessageBufferError):
            world.open()
        if not world.is_open:
            world.open()
        world.close()
    world.open()
    world.judge()
    world.close()


@script(stops=False, mode="block", block_timeout=5.0)
def closing_fails(world: World) -> None:
    """The device refuses what close() has to store; what was in memory comes back all the same."""
    for times in (1, 2, 1000):
        world.open()
        world.send(2)
        world.write(20, 20)
        world.broker.fail_next(after=1)
        world.send(1)
        world.write(20)
        with world.disk.failing(errno.EIO, "pwrite", times=times):
            world.close()
    world.open()
    world.judge()
    world.close()


@script(stops=False, mode="buffer", live_after=0.0)
def the_seek_cannot_be_stored(world: World) -> None:
    """While a batch of which a part arrived goes to disk."""
    world.open()
    for first in range(1, 12):
        world.send(3)
        world.write(20, 20, 20)
        world.broker.fail_next(after=1)
        with world.disk.failing(errno.EIO, "pwrite", first=first, times=1):
            world.send(1)
        world.keep_house()
        world.send(3)
    world.judge()
    world.close()


@script(mode="always", segment_age=60.0)
def slots_are_torn(world: World) -> None:
    """The seek goes on while it is synced; the power goes with any part of that."""
    world.open()
    world.write(20, 20)
    world.send(2)
    world.sync()
    for nth in (4, 3):
        world.write(20, 20)
        world.send(1)
        world.write(20, 20)
        with world.during("datasync", world.send, nth):
            world.keep_house()
