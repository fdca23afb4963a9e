"""Numbers made of samples."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the ``ordered`` samples, at least one, that is not below ``share`` (0 to 1) of them."""
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


def median_and_spread(samples: Sequence[float], digits: int = 1) -> str:
    """``median (lowest … highest)``."""
    if not samples:
        return "-"
    return f"{statistics.median(samples):,.{digits}f} ({min(samples):,.{digits}f} … {max(samples):,.{digits}f})"
