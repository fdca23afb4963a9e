"""Every stop of a short history: at each call that changes something a kill, and losses of power that take different
parts of what was not synced; each is opened again and judged.

Promises: what the process that goes on does is not disturbed. Two stops that leave the same bytes to an observer who
knows the same count once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.faulty_files import Killed
from tests.model.world import World, no_defects

#: The two extremes, names without data, data without names.
PATTERNS: tuple[str, ...] = ("nothing", "everything", "names", "data")
Script = Callable[[World], None]


class Explorer:
    """Counts the distinct stops of what it watches. ``mixtures``: random losses of power at each call."""

    def __init__(self, *, mixtures: int = 2, patterns: Sequence[str] = PATTERNS) -> None:
        self._patterns: list[str | int] = [*patterns]
        self._mixtures = mixtures
        self._seen: set[object] = set()
        self.calls = 0
        self.history = ""
        self.failure: Exception | None = None

    @property
    def points(self) -> int:
        """Distinct stops so far."""
        return len(self._seen)

    def run(self, world: World, script: Script) -> None:
        """Play the script, and look at each of its stops."""
        self.history = script.__name__
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
        mixed = [self.calls * self._mixtures + each for each in range(self._mixtures)]
        for pattern in (None, *self._patterns, *mixed):
            where = f"{self.history}: {'killed' if pattern is None else f'power lost ({pattern})'} at call {self.calls}"
            try:
                self._stop(world, pattern)
            except Exception as error:
                error.add_note(f"{where}, {call} of {dict(world.disk.calls)}")
                # What is raised here may be taken for a failure of the device; a dead process does nothing any more.
                self.failure = self.failure or error
                world.disk.dead = True
                raise Killed from error

    def _stop(self, world: World, pattern: str | int | None) -> None:
        after = world.after(pattern)
        known = after.known
        key = (
            self.history, after.disk.digest(), pattern is None, len(known.given), len(known.arrived), known.kept,
            known.synced, len(known.perhaps), len(known.doubtful), len(known.gone), known.settled,
        )  # fmt: skip
        if key in self._seen:
            return
        self._seen.add(key)
        try:
            with no_defects():
                after.open()
                after.judge()
                after.close()
        finally:
            after.end()
