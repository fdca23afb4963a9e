"""How fast, now and in the last minutes: rates from counters that were looked at now and then.

Promises
--------
- Counters that go back, and those of another opening, make neither a negative rate nor a leap: what lies between two
  such samples counts for nothing, and neither does its time.
- Intervals are measured by the boot-time clock; the wall clock only dates a point, and its jumps move the past along.

:class:`Series` and :class:`Course` are for one thread; :func:`course_of` is pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from mbframework.history import RECORDS, Past, Record
from mbframework.monitor.view import Point

SECOND = 10**9
#: Seconds of the past that are shown.
SPAN_S = 600.0
#: A little less than the second between two points.
_STEP_NS = 9 * SECOND // 10
#: A rate over less than this tells more of the moment of looking than of the lane.
_LEAST_NS = SECOND // 5
#: A wall clock that has moved so far against the other one has been set.
_JUMP_S = 0.5
_KEPT = 256


class Series:
    """A counter as it was at some instants of the boot-time clock; ``mark`` tells openings apart."""

    def __init__(self) -> None:
        self._samples: deque[tuple[int, int, object]] = deque(maxlen=_KEPT)

    def add(self, at_ns: int, value: int, mark: object = None) -> None:
        """A sample; one that is not newer than the last is left out."""
        if not self._samples or at_ns > self._samples[-1][0]:
            self._samples.append((at_ns, value, mark))

    def rate(self, now_ns: int, window_s: float, since_ns: int | None = None) -> float | None:
        """Per second, over the last ``window_s`` seconds and not from before ``since_ns``; None where too little is
        known."""
        begin = now_ns - int(window_s * SECOND)
        if since_ns is not None:
            begin = max(begin, since_ns)
        covered = counted = 0
        later: tuple[int, int, object] | None = None
        for sample in reversed(self._samples):
            if sample[0] < begin:
                break
            if later is not None and later[2] == sample[2] and later[1] >= sample[1]:
                covered += later[0] - sample[0]
                counted += later[1] - sample[1]
            later = sample
        return counted * SECOND / covered if covered >= _LEAST_NS else None


@dataclass(frozen=True, slots=True)
class Now:
    """The present by three clocks: boot-time and wall-clock nanoseconds, and which boot it is."""

    boot_ns: int
    wall_ns: int
    boot_id: bytes


class Course:
    """The points of the past, about one a second, no more than ten minutes of them."""

    def __init__(self, points: Iterable[Point] = ()) -> None:
        self._points: deque[Point] = deque(points, maxlen=RECORDS)
        self._last: tuple[int, int, int] | None = None
        self._offset: float | None = None

    def add(self, now: Now, accepted: int, delivered: int, resident: int) -> None:
        """What the counters are now."""
        self._follow_clock(now)
        if self._last is None or accepted < self._last[1] or delivered < self._last[2]:
            self._last = now.boot_ns, accepted, delivered
            return
        elapsed = now.boot_ns - self._last[0]
        if elapsed < _STEP_NS:
            return
        per_second = SECOND / elapsed
        self._points.append(
            Point(
                now.wall_ns / SECOND,
                (accepted - self._last[1]) * per_second,
                (delivered - self._last[2]) * per_second,
                resident,
            )
        )
        self._last = now.boot_ns, accepted, delivered

    def points(self, now: Now) -> tuple[Point, ...]:
        """Those of the last ten minutes."""
        while self._points and self._points[0].at < now.wall_ns / SECOND - SPAN_S:
            self._points.popleft()
        return tuple(self._points)

    def _follow_clock(self, now: Now) -> None:
        offset = (now.wall_ns - now.boot_ns) / SECOND
        if self._offset is not None and abs(offset - self._offset) > _JUMP_S:
            moved = offset - self._offset
            self._points = deque((replace(point, at=point.at + moved) for point in self._points), maxlen=RECORDS)
        self._offset = offset


def course_of(written: Past | None, sent: Past | None, now: Now) -> list[Point]:
    """The points that the engine's rings tell, oldest first, one a second where both halves have recorded."""
    seconds: dict[int, list[tuple[float, Record] | None]] = {}
    for half, past in enumerate((written, sent)):
        for record in past.records if past is not None else ():
            at = _instant(record, past, now)
            if -SPAN_S <= at - now.wall_ns / SECOND <= 1.0:
                seconds.setdefault(int(at), [None, None])[half] = at, record
    points: list[Point] = []
    before: list[Record | None] = [None, None]
    resident, gone = 0, None
    for second in sorted(seconds):
        found = seconds[second]
        rates = [0.0, 0.0]
        for half, each in enumerate(found):
            earlier = before[half]
            if each is not None:
                rates[half] = _rate(earlier, each[1])
                before[half] = each[1]
        writer, sender = found
        exits = sender[1].counters[0] + sender[1].counters[2] if sender is not None else gone
        if writer is not None:
            resident = writer[1].counters[2]
        elif exits is not None and gone is not None:
            # With no writer to count what waits, it is what waited, less what has left since.
            resident = max(0, resident - max(0, exits - gone))
        gone = exits
        at = max(each[0] for each in found if each is not None)
        points.append(Point(at, rates[0], rates[1], resident))
    return points[-RECORDS:]


def _instant(record: Record, past: Past | None, now: Now) -> float:
    """When it was, in seconds since 1970; of the present boot by the clock that is never set."""
    if past is not None and past.boot_id == now.boot_id and record.run == past.run:
        return (now.wall_ns - now.boot_ns + record.boot_ns) / SECOND
    return record.wall_ns / SECOND


def _rate(before: Record | None, record: Record) -> float:
    if before is None or before.run != record.run or record.boot_ns - before.boot_ns < _LEAST_NS:
        return 0.0
    return max(0, record.counters[0] - before.counters[0]) * SECOND / (record.boot_ns - before.boot_ns)
