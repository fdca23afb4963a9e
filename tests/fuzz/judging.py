"""One input, looked at by its target: within time, within memory, and without an error.

Promises: what is found has a name that two inputs share where they found the same. One thread, the main one, since the
deadline is a signal.
"""

from __future__ import annotations

import signal
import traceback
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from tests.fuzz.memory import Hang
from tests.fuzz.target import Input, Target

#: Seconds of this process's own time: what no input of a few KiB needs, on however slow a machine.
DEADLINE_S = 10.0


class TooMuchMemory(Exception):
    """More was allocated than the size of the input allows."""


@dataclass(frozen=True)
class Finding:
    """What went wrong with an input: ``place`` is where, ``text`` the whole story."""

    target: str
    place: str
    why: str
    text: str


def judge(target: Target, given: Input, *, memory: bool = False) -> Finding | None:
    """What is wrong with what the target makes of an input; ``memory``: measured too, which takes a second look."""
    try:
        with _deadline():
            target.check(given)
            if memory:
                check_memory(target, given)
    except Exception as error:  # noqa: BLE001 - whatever is raised is what we are here for
        frames = traceback.extract_tb(error.__traceback__)[-3:]
        place = " ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in frames)
        why = f"{type(error).__name__}: {error}"
        return Finding(target.name, f"{type(error).__name__} {place}", why[:300], traceback.format_exc())
    return None


def check_memory(target: Target, given: Input) -> None:
    """Raises TooMuchMemory."""
    fixed, each_byte = target.memory
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        target.check(given)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    if peak > fixed + each_byte * given.size:
        raise TooMuchMemory(f"{peak:,} bytes for an input of {given.size:,}")


@contextmanager
def _deadline() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang(f"not done after {DEADLINE_S:g} s of work")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, DEADLINE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
