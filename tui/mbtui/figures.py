"""Numbers for narrow columns: counts, sizes, ages and times of day.

Counts are messages or files, sizes bytes, times seconds; what is not known is "–" (or "-" in ASCII).
"""

from __future__ import annotations

import math
import time

from mbframework.units import format_size, format_time

_DAY_S = 86_400


def count(number: float) -> str:
    """Five digits at most: "1,812", "120k", "6.11M"."""
    if not math.isfinite(number):
        return "?"
    rounded = round(number)
    if abs(rounded) < 100_000:
        return f"{rounded:,}"
    for unit, factor in (("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12)):
        value = number / factor
        if abs(value) < 999.5 or unit == "T":
            break
    digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{digits}f}{unit}"


def rate(number: float) -> str:
    """Messages per second: one decimal below ten."""
    if math.isfinite(number) and 0 < abs(number) < 9.95:
        return f"{number:.1f}"
    return count(number)


def size(number: float) -> str:
    """Bytes: "64MiB"."""
    return format_size(round(number)) if math.isfinite(number) else "?"


def share(part: float, whole: float | None) -> str:
    """Percent; "" where the whole is not known."""
    return f"{100 * part / whole:.0f}%" if whole else ""


def age(seconds: float | None) -> str:
    """How long: "0.4s", "6m44s", "2d4h"; a clock that was set back gives "0s"."""
    if seconds is None or not math.isfinite(seconds):
        return "?"
    if seconds < 0.05:
        return "0s"
    return f"{seconds:.1f}s" if seconds < 9.95 else format_time(round(seconds))


def moment(at: float | None, now: float) -> str:
    """When, in local time: "20:16:51", with the date in front where that is not today's."""
    if at is None:
        return "?"
    try:
        then, today = time.localtime(at), time.localtime(now)
    except (OverflowError, ValueError, OSError):
        return "?"
    text = time.strftime("%H:%M:%S", then)
    if then[:3] == today[:3]:
        return text
    return time.strftime("%m-%d ", then) + text if abs(now - at) < 300 * _DAY_S else time.strftime("%Y-%m-%d", then)
