"""What may happen to a program, its provider, its disk and its machine, by name: the words of random histories."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from typing import Any, TypeAlias

from mbframework.errors import MessageBufferError
from tests.model.world import LARGE, World

#: A name, and what goes with it.
Act: TypeAlias = tuple[str, tuple[Any, ...]]

OPTIONS: dict[str, list[Any]] = {
    "mode": ["always", "buffer", "buffer", "block", "raise"],
    "fsync": ["interval", "interval", "always", "never"],
    "on_full": ["prune", "prune", "block", "reject"],
    "linger": [0.0, 0.0, 5.0],
    "batch_messages": [10_000, 3],
    "expire_after": [None, None, 100.0],
    "retain_delivered": [0.0, 0.0, 50.0],
    "live_wait": [1.0, 1e6],
}
SIZES = [0, 20, 20, 700, LARGE]
MODES = ["always", "buffer", "block", "raise"]
ERRORS = [errno.EIO, errno.ENOSPC, errno.EROFS, errno.EMFILE, errno.EDQUOT]
#: Calls that may fail.
CALLS = [
    "datasync", "sync_directory", "pwrite", "rename", "reserve", "create", "unlink", "truncate", "open", "pread",
    "list", "duplicate", "fill", "append", "replace", "stat",
]  # fmt: skip


def allowed(options: dict[str, Any]) -> dict[str, Any]:
    """The options, such that a buffer takes them together."""
    return options | {"linger": 0.0} if options["fsync"] == "always" else options


def play(world: World, act: Act) -> None:
    """An act, with what it may refuse; on a lane that is open."""
    name, arguments = act
    failures = world.disk.failures
    try:
        if not world.is_open:
            world.open()
        _doing(world, name)(*arguments)
    except MessageBufferError:
        return
    except OSError:
        assert world.disk.failures > failures
    if world.is_open and not world.sending:
        world.arrivals()
        world.check_order()


def _doing(world: World, name: str) -> Callable[..., object]:
    return {
        "write_many": lambda *sizes: world.write(*sizes, many=True),
        "fail": lambda times, after, uncertain: world.broker.fail_next(times, after=after, uncertain=uncertain),
        "down": world.broker.down,
        "up": world.broker.up,
        "room": lambda room: setattr(world.disk, "room", world.disk.used() + room),
    }.get(name) or getattr(world, name)


# ---- a history from a number


def wander(seed: int) -> tuple[Callable[[World], None], dict[str, Any]]:
    """A short history, and the options of its world, that follow from ``seed`` alone."""
    chance = random.Random(seed)
    options = allowed({name: chance.choice(values) for name, values in OPTIONS.items()})
    options |= {"kind": chance.choice(["ext4", "ext4", "ext4", "btrfs"]), "live_after": 0.0, "block_timeout": 1.0}
    acts = [_some(chance) for _ in range(chance.randrange(6, 14))]

    def history(world: World) -> None:
        world.open()
        for act in acts:
            how = chance.random()
            if how < 0.08:
                world.stop(chance.choice([None, chance.randrange(100, 1 << 32)]))
            elif how < 0.18:
                times = chance.choice([1, 1, 3])
                with world.disk.failing(chance.choice(ERRORS), *chance.sample(CALLS, 3), times=times):
                    play(world, act)
            elif how < 0.3:
                world.meanwhile = _once(world, _some(chance))
                play(world, ("send", (1,)))
                world.meanwhile = lambda: None
            else:
                play(world, act)
        if world.is_open:
            play(world, ("close", ()))

    history.__name__ = f"history {seed}"
    return history, options


def _once(world: World, act: Act) -> Callable[[], None]:
    def meanwhile() -> None:
        world.meanwhile = lambda: None
        if act[0] not in ("close", "send"):
            play(world, act)

    return meanwhile


def _some(chance: random.Random) -> Act:
    """Anything; more of what makes a history."""
    sizes = tuple(chance.choice(SIZES) for _ in range(chance.randrange(1, 6)))
    some: list[Act] = [
        ("write", sizes), ("write", sizes), ("write_many", sizes), ("send", (chance.randrange(1, 4),)),
        ("keep_house", (chance.choice([0.01, 2.0, 60.0]),)), ("keep_house", (2.0,)), ("send", (1,)),
        ("fail", (chance.randrange(1, 3), chance.choice([None, 0, 1, 2]), chance.random() < 0.5)),
        (chance.choice(["report", "sync", "purge", "pause", "resume", "down", "up", "roll", "close"]), ()),
        ("mode", (chance.choice(MODES),)), ("reject", (chance.choice([0, 3, 5]),)),
        ("room", (chance.choice([0, 10_000, 100_000, 1 << 40]),)),
    ]  # fmt: skip
    return chance.choice(some)
