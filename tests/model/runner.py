"""Very many crash points, by several processes: ``python -m tests.model``.

Promises: what is looked at follows from the seed and the number of points alone. A point is a history, by the extension
or by plain Python, an observer's knowledge, and the bytes that are left; each counts once. The first that breaks a
promise ends the run, and is told with the command that repeats it.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import chain, count, product

from mbframework import speedups
from tests.model.acts import wander
from tests.model.explore import PATTERNS, Explorer
from tests.model.scripts import SCRIPTS
from tests.model.world import World

#: What ``MBFRAMEWORK_EXTENSION`` is for each of the two.
PATHS = {"C": "require", "Python": "off"}
#: Random losses of power at each call: of a script by this many orders, each of so many; of a history.
ORDERS, _MIXTURES, _OF_HISTORY = 4, 6, 2


@dataclass(frozen=True)
class Order:
    """A history, by its name, and which stops of it are looked at."""

    path: str
    history: str
    seed: int
    part: int = 0

    @property
    def command(self) -> str:
        """What repeats it."""
        return f"python -m tests.model --path {self.path} --history '{self.history}' --seed {self.seed}"


@dataclass
class Result:
    """What came of it."""

    seen: dict[bytes, tuple[str, bool]] = field(default_factory=dict)
    calls: int = 0
    histories: int = 0
    failure: str = ""

    def add(self, other: Result) -> None:
        """Take in another."""
        self.seen |= other.seen
        self.calls += other.calls
        self.histories += other.histories
        self.failure = self.failure or other.failure

    @property
    def points(self) -> int:
        return len(self.seen)

    def line(self, seed: int, seconds: float) -> str:
        """The verdict."""
        calls = Counter(call for call, _ in self.seen.values())
        kills = sum(killed for _, killed in self.seen.values())
        word = "FAIL" if self.failure else "PASS"
        return (
            f"{word} seed {seed}: {self.points:,} distinct crash points in {seconds:,.0f} s, "
            f"{kills:,} by a kill and {self.points - kills:,} by a loss of power, {calls['store']:,} within stores by "
            f"Python and {calls['store by C']:,} within stores by C; {self.histories:,} histories with "
            f"{self.calls:,} calls"
        )


def carry_out(order: Order) -> Result:
    """Look at the stops of one history."""
    logging.getLogger("mbframework").setLevel(logging.CRITICAL)
    named = {script.__name__: (script, options) for script, options in SCRIPTS}
    if order.history in named:
        script, options = named[order.history]
        mixtures = range(order.part * _MIXTURES, (order.part + 1) * _MIXTURES)
    else:
        script, options = wander(int(order.history.split()[-1]))
        mixtures = range(_OF_HISTORY)
    explorer = Explorer(mixtures=mixtures, patterns=PATTERNS if order.part == 0 else (), kills=order.part == 0)
    failure = ""
    try:
        explorer.run(World.begin(order.seed, **options), script, f"{order.path}: {order.history}")
    except Exception as error:  # noqa: BLE001 - whatever is raised is what we are here for
        failure = "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", []), order.command])
    return Result(explorer.seen, explorer.calls, int(order.part == 0), failure)


def orders(seed: int, paths: list[str]) -> Iterator[Order]:
    """The scripts, then random histories without end."""
    scripts = product(range(ORDERS), [script.__name__ for script, _ in SCRIPTS], paths)
    histories = (Order(path, f"history {seed * 1_000_000 + number}", seed) for number in count(1) for path in paths)
    return chain((Order(path, name, seed, part) for part, name, path in scripts), histories)


def run(points: int, seed: int, processes: int, given: Iterator[Order] | None = None) -> Iterator[Result]:
    """Until so many distinct points are looked at, or one has failed, or ``given`` is done; the sum so far."""
    paths = list(PATHS) if speedups.compiled is not None else ["Python"]
    total = Result()
    context = multiprocessing.get_context("spawn")
    before = os.environ.get(speedups.VARIABLE)
    pools: dict[str, ProcessPoolExecutor] = {}
    waiting: set[Future[Result]] = set()
    todo = given or orders(seed, paths)
    try:
        for path in paths:
            # A process is told when it starts, which is when it gets its first order.
            pools[path] = ProcessPoolExecutor(
                max(1, processes // len(paths)), context, initializer=_choose, initargs=(PATHS[path],)
            )
        while total.points < points and not total.failure:
            while len(waiting) < 2 * processes and (order := next(todo, None)) is not None:
                os.environ[speedups.VARIABLE] = PATHS[order.path]
                waiting.add(pools[order.path].submit(carry_out, order))
            if not waiting:
                return
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for each in done:
                total.add(each.result())
            yield total
    finally:
        if before is None:
            os.environ.pop(speedups.VARIABLE, None)
        else:
            os.environ[speedups.VARIABLE] = before
        for pool in pools.values():
            pool.shutdown(cancel_futures=True)


def _choose(wanted: str) -> None:
    """In a new process, whose package was imported as its environment said."""
    assert (speedups.compiled is not None) == (wanted == "require"), "the other path is in use"


def clock() -> float:
    """Seconds."""
    return time.monotonic()
