"""Every stop of a history: at each call that changes something, and each store, a kill, and losses of power that take
different parts of what was not synced; each is opened again and judged.

Promises: what the process that goes on does is not disturbed. Two stops that leave the same bytes to an observer who
knows the same count once, wherever they are looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeAlias

from tests.faulty_files import Killed
from tests.model.world import World, no_defects

#: The two extremes, names without data, data without names.
PATTERNS: tuple[str, ...] = ("nothing", "everything", "names", "data")
Script: TypeAlias = Callable[[World], None]


class Explorer:
    """Counts the distinct stops of what it watches. ``mixtures``: the numbers of random losses of power at each call;
    ``kills``: whether a kill is looked at as well."""

    def __init__(self, *, mixtures: range = range(2), patterns: Sequence[str] = PATTERNS, kills: bool = True) -> None:
        self._patterns: list[str | int | None] = [*([None] if kills else []), *patterns]
        self._mixtures = mixtures
        #: What is known of each distinct stop, in short; in front of which call it came first, and whether by a kill.
        self.seen: dict[bytes, tuple[str, bool]] = {}
        self.calls = 0
        self.history = ""
        self.failure: Exception | None = None

    @property
    def points(self) -> int:
        """Distinct stops so far."""
        return len(self.seen)

    def run(self, world: World, script: Script, name: str = "") -> None:
        """Play the script, and look at each of its stops."""
        self.history = name or script.__name__
        self.watch(world)
        try:
            script(world)
        except Killed:
            assert self.failure is not None
        finally:
            world.end()
        if self.failure is not None:
            raise self.failure

    def watch(self, world: World) -> None:
        """Look at each stop from now on."""
        world.disk.watch = lambda call: self._at(world, call)

    def _at(self, world: World, call: str) -> None:
        self.calls += 1
        # Each call has mixtures of its own, whichever of them are looked at here.
        mixed = [self.calls * 1000 + each for each in self._mixtures]
        for pattern in (*self._patterns, *mixed):
            where = f"{self.history}: {'killed' if pattern is None else f'power lost ({pattern})'} at call {self.calls}"
            try:
                self._stop(world, pattern, call)
            except Exception as error:
                error.add_note(f"{where}, {call} of {dict(world.disk.calls)}")
                # What is raised here may be taken for a failure of the device; a dead process does nothing any more.
                self.failure = self.failure or error
                world.disk.dead = True
                raise Killed from error

    def _stop(self, world: World, pattern: str | int | None, call: str) -> None:
        after = world.after(pattern)
        known = after.known
        facts = (
            self.history, after.disk.digest(), pattern is None, len(known.given), len(known.arrived), known.kept,
            known.synced, len(known.perhaps), len(known.doubtful), len(known.gone), known.settled,
        )  # fmt: skip
        key = hashlib.blake2b(repr(facts).encode(), digest_size=12).digest()
        if key in self.seen:
            return
        self.seen[key] = call, pattern is None
        try:
            with no_defects():
                after.open()
                after.judge()
                after.close()
        finally:
            after.end()
