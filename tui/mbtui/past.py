"""What a lane did lately, as columns of a sparkline.

A monitor remembers the last ten minutes, about a point a second; :class:`Past` keeps an hour of them, in steps of ten
seconds. Instants are seconds since 1970, as the wall clock counts now: within a boot the past moves along with a clock
that is set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from mbframework.monitor import Point

#: The windows to choose from, in seconds, and their names.
WINDOWS: tuple[tuple[float, str], ...] = ((60.0, "1m"), (300.0, "5m"), (3600.0, "1h"))
_STEP_S = 10.0
_KEPT_S = 3600.0
#: Two clocks that are read one after the other differ by less.
_JUMP_S = 0.5
#: A point stands for the time since the one before it, up to this long.
_REACH_S = 2.6


def columns(
    points: Sequence[Point],
    pick: Callable[[Point], float],
    *,
    now: float,
    window: float,
    width: int,
    reach: float = _REACH_S,
) -> list[float | None]:
    """The means of ``width`` equal parts of the last ``window`` seconds, oldest first; None where nothing is known.

    ``reach``: how many seconds in front of it a point still stands for.
    """
    if width <= 0:
        return []
    step = window / width
    sums, counts = [0.0] * width, [0] * width
    for point in points:
        back = now - point.at
        if not 0 <= back < window:
            # A point from a moment after the last look belongs to now.
            if not -step <= back < 0:
                continue
            back = 0.0
        at = width - 1 - int(back / step)
        sums[at] += pick(point)
        counts[at] += 1
    found: list[float | None] = [total / n if n else None for total, n in zip(sums, counts, strict=True)]
    hold = max(1, int(reach / step)) if reach > step else 0
    for at in range(width - 1, -1, -1):
        if found[at] is None:
            known = (found[later] for later in range(at + 1, min(width, at + hold + 1)) if counts[later])
            found[at] = next(known, None)
    if hold and width > 1 and found[-1] is None:
        # The second that has only begun.
        found[-1] = found[-2]
    return found


class Past:
    """One lane's last hour."""

    def __init__(self) -> None:
        #: The mean of each step, how many points it is of, and the one with the most accepted.
        self._steps: dict[int, tuple[Point, int, Point]] = {}
        self._last = float("-inf")
        #: What is taken from an instant, so that the steps are of a clock that nobody sets.
        self._ahead = 0.0

    def add(self, points: Iterable[Point], ahead: float = 0.0) -> None:
        """Take over what is new among these points. ``ahead``: of :class:`~mbframework.monitor.View`."""
        if abs(ahead - self._ahead) >= _JUMP_S:
            self._ahead = ahead
        newest = self._last
        for given in points:
            point = replace(given, at=given.at - self._ahead)
            if point.at <= self._last:
                continue
            newest = max(newest, point.at)
            step = int(point.at // _STEP_S)
            mean, n, most = self._steps.get(step, (point, 0, point))
            self._steps[step] = (
                Point(
                    at=(step + 0.5) * _STEP_S,
                    accepted=(mean.accepted * n + point.accepted) / (n + 1),
                    delivered=(mean.delivered * n + point.delivered) / (n + 1),
                    resident=point.resident,
                ),
                n + 1,
                max(most, point, key=lambda each: each.accepted),
            )
        self._last = newest
        for step in [step for step in self._steps if step < (newest - _KEPT_S) // _STEP_S]:
            del self._steps[step]

    def points(self) -> list[Point]:
        """A point every ten seconds, oldest first."""
        return [self._now(self._steps[step][0]) for step in sorted(self._steps)]

    def peaks(self) -> list[Point]:
        """Of every ten seconds the point at which the most was accepted, oldest first."""
        return [self._now(self._steps[step][2]) for step in sorted(self._steps)]

    def _now(self, point: Point) -> Point:
        return replace(point, at=point.at + self._ahead)
