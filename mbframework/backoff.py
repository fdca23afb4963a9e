"""How long to wait before the next attempt: exponential, with full jitter. Pure, but for the random number."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

#: Seconds; a broker that asks for more is asked again after that.
LONGEST_ASKED = 3600.0


@dataclass
class Backoff:
    """Waits between ``least`` and ``most`` seconds; one thread."""

    least: float
    most: float
    failures: int = 0
    random: random.Random = field(default_factory=random.Random)

    def failed(self, asked: float | None = None) -> float:
        """Count a failure; the wait in seconds. ``asked`` is what the broker wants, where it said so."""
        self.failures += 1
        ceiling = min(self.most, self.least * 2.0 ** min(self.failures, 60))
        wait = self.random.uniform(self.least, max(self.least, ceiling))
        return wait if asked is None else max(wait, min(asked, LONGEST_ASKED))

    def succeeded(self) -> None:
        """Begin anew."""
        self.failures = 0
