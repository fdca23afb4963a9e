"""How many messages are due, so that a writer keeps a steady pace.

Pure but for what a :class:`Pace` remembers; one thread uses it. Times are seconds of a clock that only rises,
rates messages per second.
"""

from __future__ import annotations

#: The writer wakes up at least that often while it writes at all, and not more often than MIN_WAIT_S.
MAX_WAIT_S, MIN_WAIT_S = 0.25, 0.01
#: After a stall (a write that blocked, a busy machine) at most that much is made up for, so that no burst follows.
MOST_BEHIND_S = 0.25


class Pace:
    """Counts what is due at a rate that may change at any time."""

    def __init__(self, now: float) -> None:
        self._last = now
        self._credit = 0.0

    def due(self, now: float, rate: float) -> int:
        """The messages to write now; they count as written. Rate 0 is off."""
        passed = min(now - self._last, MOST_BEHIND_S)
        self._last = now
        if rate <= 0:
            self._credit = 0.0
            return 0
        # One message at least may wait for its time, however slow the pace.
        self._credit = min(self._credit + passed * rate, max(1.0, rate * MOST_BEHIND_S))
        count = int(self._credit)
        self._credit -= count
        return count

    def wait(self, rate: float) -> float | None:
        """How long to sleep until something is due again; None: until the rate changes."""
        if rate <= 0:
            return None
        return min(MAX_WAIT_S, max(MIN_WAIT_S, (1.0 - self._credit) / rate))
