"""When a simulated provider is away: outages at given times, which may come again in every period.

All times are seconds since it was first opened. A pure value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mbframework.errors import ConfigurationError
from mbframework.units import parse_time


@dataclass(frozen=True, slots=True)
class Outages:
    """``spans`` are (start, end); with ``every`` > 0 they come again in each period of that length."""

    spans: tuple[tuple[float, float], ...] = ()
    every: float = 0.0

    @classmethod
    def parse(cls, texts: Sequence[str], every: float = 0.0) -> Outages:
        """Outages from texts such as ``"5s+10s"``: from 5 s on, for 10 s.

        :raises ConfigurationError: a text that is not so, or an outage that does not end within its period.
        """
        spans = []
        for text in texts:
            start, plus, length = text.partition("+")
            if not plus:
                raise ConfigurationError(
                    f"outage {text!r}: expected start+length, as '5s+10s' for ten seconds from the fifth on",
                    option="outage",
                )
            begins = parse_time(start, name="outage")
            spans.append((begins, begins + parse_time(length, name="outage")))
        if every and any(end > every for _, end in spans):
            raise ConfigurationError(
                f"outage_every={every:g}s is too short; expected a period in which each outage ends",
                option="outage_every",
            )
        return cls(tuple(spans), every)

    def away(self, now: float) -> bool:
        """Whether it is away at ``now``."""
        if self.every:
            now %= self.every
        return any(start <= now < end for start, end in self.spans)
