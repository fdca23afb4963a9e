"""How fast to send: a fixed limit, and a ramp after an outage.

Promises: the pace is smooth: under a limit a batch carries at most what the limit allows in a twentieth of a second.
After an outage it begins at about twice the recent intake and doubles every few seconds, jittered, so that many
buffers do not crush a broker that has just come back.

Pure but for the random numbers; times are seconds on the caller's clock; one thread.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

#: The ramp never begins below this (messages per second).
LEAST = 5000.0
#: At this pace the ramp is over.
UNLIMITED = 20e6
_SLICE = 0.05


@dataclass
class Throttle:
    """``max_rate``: messages per second, None for no limit. ``ramp``: whether to catch up slowly."""

    max_rate: float | None
    ramp: bool
    random: random.Random = field(default_factory=random.Random)
    _free_at: float = 0.0
    _begun: float | None = None
    _first: float = 0.0
    _doubling: float = 2.0

    def catch_up(self, now: float, intake: float) -> None:
        """The provider is back and there is a backlog; ``intake`` is the recent pace of writing."""
        if self.ramp and self._begun is None:
            self._begun = now
            self._first = max(LEAST, 2.0 * intake) * self.random.uniform(0.8, 1.2)
            self._doubling = 2.0 * self.random.uniform(0.8, 1.2)

    def caught_up(self) -> None:
        """The backlog is gone, or the provider is."""
        self._begun = None

    def rate(self, now: float) -> float | None:
        """The pace in force, messages per second; None: no limit."""
        limits = [] if self.max_rate is None else [self.max_rate]
        if self._begun is not None:
            ramp = self._first * 2.0 ** min(60.0, (now - self._begun) / self._doubling)
            if ramp >= UNLIMITED:
                self._begun = None
            else:
                limits.append(ramp)
        return min(limits) if limits else None

    def allowance(self, now: float, most: int) -> int:
        """How many messages the next batch may carry, at most ``most``."""
        rate = self.rate(now)
        return most if rate is None else max(1, min(most, int(rate * _SLICE)))

    def wait(self, now: float) -> float:
        """Seconds until the next batch may go."""
        return max(0.0, self._free_at - now)

    def sent(self, now: float, count: int) -> None:
        """A batch of ``count`` messages went off."""
        rate = self.rate(now)
        if rate is not None:
            self._free_at = max(self._free_at, now - _SLICE) + count / rate
