"""The event log: what happened, newest last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mbframework.monitor import Event
from mbtui.figures import moment
from mbtui.glyphs import Glyphs
from mbtui.ink import Ink, Line, clean, crop
from mbtui.pattern import Pattern
from mbtui.rows_view import RowsView

_INKS: Mapping[str, Ink] = {"info": "", "warning": "warn", "error": "bad"}
_LABEL = 13


def event_line(event: Event, now: float) -> Line:
    """One event."""
    ink = _INKS.get(event.level, "")
    return (
        (f" {moment(event.at, now)} ", "dim"),
        (f"{clean(event.kind):<{_LABEL}} ", ink or "note"),
        (clean(event.text), ink if ink == "bad" else ""),
    )


def event_text(event: Event) -> str:
    """What a filter looks at."""
    return f"{clean(event.kind)} {clean(event.text)}"


class EventView(RowsView):
    """Draws the events that :meth:`show` was given; it follows the newest one until the cursor is moved off it."""

    def __init__(self, glyphs: Glyphs, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._glyphs = glyphs
        self._now = 0.0
        self._all: tuple[Event, ...] = ()
        self._shown: list[Event] = []
        self.pattern = Pattern()
        self.descending = False

    def show(self, events: Sequence[Event], now: float) -> None:
        """These are the events."""
        self._now = now
        events = tuple(events)
        if events != self._all:
            self._all = events
            self.order_anew()

    def order_anew(self) -> None:
        """Filter and order them again."""
        following = self.cursor >= self.total - 1 if not self.descending else self.cursor == 0
        chosen = self.chosen
        self._shown = [event for event in self._all if self.pattern.shows(event_text(event))]
        if self.descending:
            self._shown.reverse()
        self.set_total(len(self._shown))
        if following:
            self.move_to(0 if self.descending else self.total - 1)
        elif chosen in self._shown:
            self.shift(self._shown.index(chosen) - self.cursor)
        self.refresh()

    @property
    def chosen(self) -> Event | None:
        """The event with the cursor."""
        return self._shown[self.cursor] if self.cursor < len(self._shown) else None

    def find(self, step: int) -> bool:
        """Put the cursor on the next row that the pattern finds; whether there is one."""
        rows = range(self.cursor + step, self.total if step > 0 else -1, step)
        for at in rows:
            if self.pattern.finds(event_text(self._shown[at])):
                self.move_to(at)
                return True
        return False

    def row(self, at: int) -> Line:
        width = self.scrollable_content_region.width
        return crop(event_line(self._shown[at], self._now), width, self._glyphs.ellipsis)
