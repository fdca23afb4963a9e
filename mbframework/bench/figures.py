"""Numbers made of samples."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def number(value: float) -> str:
    """Three digits, as many as are worth reading: ``1,234``, ``12.3``, ``0.12``."""
    if value and abs(value) < 0.995:
        return f"{value:.2f}"
    return f"{value:,.{0 if abs(value) >= 99.5 else 1 if abs(value) >= 9.95 else 2}f}".removesuffix(".00")


def ratios(baseline: Sequence[float], ours: Sequence[float]) -> list[float]:
    """How many times as fast, round by round, from seconds (or whatever is spent) of each."""
    return [theirs / spent for theirs, spent in zip(baseline, ours, strict=True)]


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the ``ordered`` samples, at least one, that is not below ``share`` (0 to 1) of them."""
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


def median_and_spread(samples: Sequence[float], digits: int = 1) -> str:
    """``median (lowest … highest)``."""
    if not samples:
        return "-"
    return f"{statistics.median(samples):,.{digits}f} ({min(samples):,.{digits}f} … {max(samples):,.{digits}f})"


def median_and_doubt(samples: Sequence[float], digits: int = 1) -> str:
    """``median (from … to)``, between which the true median lies in 95 of 100 runs, whatever the distribution."""
    ordered, count = sorted(samples), len(samples)
    if not ordered:
        return "-"
    # The ranks of the binomial distribution's middle 95 %, in its normal approximation.
    low = max(0, math.floor(count / 2 - 0.98 * math.sqrt(count)))
    high = min(count - 1, math.ceil(count / 2 + 0.98 * math.sqrt(count)))
    return f"{statistics.median(ordered):+.{digits}f} ({ordered[low]:+.{digits}f} … {ordered[high]:+.{digits}f})"
