"""The thread that reads: all of the buffers' directories, and nothing of the screen.

Promises
--------
- The event loop never waits for a file: it says what it wants to see (:meth:`Scout.want`) and is told what
  is there, at most about once a second of its own accord, and at once when it wants something else.
- Whatever fails in here is told as a sight with a ``fault``, and tried again.

``want``, ``nudge``, ``start`` and ``listen`` from any thread; who listens is called on the reading thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from mbframework.monitor import Event, LaneView, SegmentRow, View
from mbtui.arrangement import Arrangement, Order
from mbtui.hunt import Hunt
from mbtui.source import Source

#: Seconds between two looks where nothing changes, and the least between two where much does.
PERIOD_S = 1.0
LEAST_S = 0.7
_LONGEST_S = 5.0
#: And between two words about what takes long.
_TELL_S = 0.3
#: The anchor of a cursor that stands on a row which has not come yet.
NOWHERE = -1


@dataclass(frozen=True, slots=True)
class Wish:
    """What the screen wants to see.

    ``start`` and ``stop``: rows of the segment table. ``anchor``: the first sequence of the segment under the cursor,
    None for the one that is being sent. ``find``: from which row on, and in which direction, the pattern is looked
    for; ``number`` makes a wish a new one.
    """

    directory: str = ""
    lane: str = ""
    start: int = 0
    stop: int = 50
    order: Order = field(default_factory=Order)
    anchor: int | None = None
    find: tuple[int, int] | None = None
    number: int = 0


@dataclass(frozen=True, slots=True)
class Sight:
    """What there is to see, as an answer to ``wish``: the views of all directories, and rows and events of one lane.

    ``arranged``: where the rows are still being put into the order that was wished for, and none is there yet, how much
    of that is done, 0 to 1; ``searched`` likewise, where a row is still being looked for. ``total``: rows of the table
    that the filter leaves; ``cursor``: the row of the anchor; ``found``: the row that was looked for.
    """

    wish: Wish
    looks: int
    views: tuple[View, ...]
    total: int = 0
    start: int = 0
    rows: tuple[SegmentRow, ...] = ()
    cursor: int | None = None
    found: int | None = None
    events: tuple[Event, ...] = ()
    fault: str = ""
    arranged: float | None = None
    searched: float | None = None


class _Superseded(Exception):
    """Something else is wanted by now."""


class Scout:
    """Looks at a source until it is stopped."""

    def __init__(self, source: Source, *, period: float = PERIOD_S, least: float = LEAST_S) -> None:
        self._source = source
        self._listener: Callable[[Sight], None] | None = None
        self._last: Sight | None = None
        self._period, self._least = period, least
        self._condition = threading.Condition()
        self._wish = Wish()
        self._wanted = self._nudged = self._stopped = False
        self._arrangement = Arrangement()
        self._hunt: Hunt | None = None
        self._hunted: object = None
        self._views: tuple[View, ...] = ()
        self._looks = 0
        self._due = self._told_at = 0.0
        self._thread = threading.Thread(target=self._run, name="mbtui-scout", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def listen(self, tell: Callable[[Sight], None]) -> None:
        """Call ``tell`` with each sight from now on, and with the last one there is."""
        with self._condition:
            self._listener, last = tell, self._last
        if last is not None:
            tell(last)

    def want(self, wish: Wish) -> None:
        """From now on this is to be seen."""
        with self._condition:
            if wish != self._wish:
                self._wish = wish
                self._wanted = True
                self._condition.notify()

    def nudge(self) -> None:
        """Something changed in a directory: look before the time."""
        with self._condition:
            self._nudged = True
            self._condition.notify()

    def stop(self) -> None:
        """Stop looking, and let go of the source. A read that does not come back, as on a dead network share, is not
        waited for longer than a moment."""
        with self._condition:
            self._stopped = True
            self._condition.notify()
        if self._thread.is_alive():
            self._thread.join(2.0)

    def _run(self) -> None:
        while True:
            began = time.monotonic()
            sight: Sight | None
            try:
                self._look_if_due()
                with self._condition:
                    wish, self._wanted = self._wish, False
                sight = self._see(wish)
            except _Superseded:
                sight = None
            except Exception as error:  # noqa: BLE001 - a fault in here belongs on the screen, which would stand still
                self._due = time.monotonic() + self._period
                fault = f"the directory could not be read: {type(error).__name__}: {error}"
                sight = Sight(self._wish, self._looks, self._views, fault=fault)
            if sight is not None:
                self._tell(sight)
            hunting = sight is not None and sight.searched is not None
            with self._condition:
                while not (self._stopped or self._wanted or hunting):
                    now = time.monotonic()
                    if self._nudged:
                        self._nudged = False
                        self._due = min(self._due, max(now, began + self._least))
                    if now >= self._due:
                        break
                    self._condition.wait(self._due - now)
                if self._stopped:
                    break
        self._source.close()

    def _look_if_due(self) -> bool:
        """Look at the source, unless that was done lately."""
        began = time.monotonic()
        if began < self._due:
            return False
        self._views = self._source.look()
        self._looks += 1
        # Looks that take long make for fewer; the first one, which reads everything, does not count.
        took = time.monotonic() - began if self._looks > 1 else 0.0
        self._due = time.monotonic() + min(_LONGEST_S, max(self._period, 4 * took))
        return True

    def _tell(self, sight: Sight) -> None:
        with self._condition:
            self._last, tell = sight, self._listener
        if tell is not None:
            tell(sight)

    def _meanwhile(self, wish: Wish, done: float) -> None:
        """While the rows are put into order: show how all is, and how far that is."""
        with self._condition:
            if self._stopped or (self._wanted and _table(self._wish) != _table(wish)):
                raise _Superseded
        now = time.monotonic()
        if not self._look_if_due() and now < self._told_at + _TELL_S:
            return
        self._told_at = now
        last = self._last
        if last is not None and last.arranged is None and _table(last.wish) == _table(wish):
            # It is done anew: what it was before is still there to see.
            self._tell(replace(last, looks=self._looks, views=self._views))
        else:
            lane = chosen(self._views, wish.directory, wish.lane)
            events = tuple(self._source.events(lane[0], lane[1].name)) if lane is not None else ()
            self._tell(Sight(wish, self._looks, self._views, events=events, arranged=done))

    def _see(self, wish: Wish) -> Sight:
        views, looks = self._views, self._looks
        lane = chosen(views, wish.directory, wish.lane)
        if lane is None:
            return Sight(wish, looks, views)
        directory, view = lane
        self._told_at = time.monotonic()
        order = self._arrangement.of(
            (directory, view.name), view.segments, wish.order, lambda done: self._meanwhile(wish, done)
        )
        views, looks = self._views, self._looks
        anchor = view.status.seek.sequence if wish.anchor is None else wish.anchor
        at = view.segments.index_of(anchor)
        cursor = None if at is None else self._arrangement.place(at)
        start, stop = wish.start, wish.stop
        if wish.number == 0 and cursor is not None:
            # The first sight of a lane: that part of the table where something happens.
            start, stop = max(0, cursor - (stop - start)), cursor + (stop - start)
        hunt = self._hunt_for(wish)
        found = None
        if hunt is not None:
            hunt.go_on(self._arrangement, view.segments, len(order))
            at = view.segments.index_of(hunt.hit) if hunt.hit is not None else None
            found = None if at is None else self._arrangement.place(at)
        if found is not None and not start <= found < stop:
            start, stop = max(0, found - (stop - start)), found + (stop - start)
        start = max(0, min(start, len(order) - 1))
        rows = self._arrangement.rows(view.segments, start, stop)
        return Sight(
            wish,
            looks,
            views,
            total=len(order),
            start=start,
            rows=tuple(rows),
            cursor=cursor,
            found=found,
            events=tuple(self._source.events(directory, view.name)),
            searched=None if hunt is None or hunt.over else hunt.done,
        )

    def _hunt_for(self, wish: Wish) -> Hunt | None:
        """The search that is wished for, as far as it has come."""
        key = None if wish.find is None else (_table(wish), wish.find, wish.number)
        if key != self._hunted:
            self._hunted = key
            self._hunt = None if wish.find is None else Hunt(wish.order.pattern, *wish.find)
        return self._hunt


def _table(wish: Wish) -> tuple[str, str, Order]:
    return wish.directory, wish.lane, wish.order


def chosen(views: Sequence[View], directory: str, lane: str) -> tuple[str, LaneView] | None:
    """The lane of that name, or the first one there is."""
    first = None
    for view in views:
        for found in view.lanes:
            if view.directory == directory and found.name == lane:
                return view.directory, found
            first = first or (view.directory, found)
    return None if directory else first
