"""How the main screen looks: banner, panels, segments and events of one lane.

Promises: what is on it follows from the last sight, from what is wished for, and from the time; it is computed by pure
functions next door and handed to the widgets here. What a person does is the matter of :mod:`mbtui.main_screen`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.screen import Screen
from textual.widget import Widget

from mbframework.monitor import LaneView, View
from mbtui.banner import banner, strip, tabs
from mbtui.event_view import EventView
from mbtui.figures import count, moment
from mbtui.ink import Line, clean
from mbtui.keys import bar
from mbtui.lane_words import address
from mbtui.lines_view import LinesView
from mbtui.panels import HEIGHT, Span, panels
from mbtui.past import WINDOWS, Past
from mbtui.scout import Sight, Wish
from mbtui.segment_table import SegmentTable

if TYPE_CHECKING:
    from mbtui.app import DashboardApp

Place = tuple[View, LaneView | None]
#: Below this only the banner and the strip are drawn.
SMALLEST = (60, 15)
_PANELS = ("in", "out", "backlog", "health")
_ROOMY = 100
_COMES_UP = "Looked at every second: a buffer shows as soon as there is one."


class DashboardScreen(Screen[None]):
    """See the module. ``sight`` is what was seen last, ``wish`` what is wished for; the picture may be held."""

    DEFAULT_CSS = f"""
    DashboardScreen {{
        layout: vertical;
        & #banner, & #tabs, & #strip {{ padding: 0 1; }}
        & #tabs, & #strip {{ display: none; }}
        & #panels {{ height: {HEIGHT + 2}; }}
        & #panels LinesView {{ height: {HEIGHT + 2}; border: round $border; border-title-color: $text-primary; }}
        & #segments, & #events {{
            border-top: solid $border; border-title-color: $text-primary;
            &:focus {{ border-top: solid $primary; border-title-style: bold; }}
        }}
        & #segments {{ height: 2fr; }}
        & #events {{ height: 1fr; min-height: 5; }}
        & #keys {{ height: 1; background: $panel; }}
        & Input {{ height: 1; border: none; padding: 0 1; background: $panel; }}
        &.-short #events {{ display: none; }}
        &.-no-lane #panels, &.-no-lane #segments, &.-no-lane #events {{ display: none; }}
        & #nothing {{ display: none; padding: 1; height: 1fr; }}
        &.-no-lane #nothing {{ display: block; }}
        &.-only-segments #events, &.-only-events #segments {{ display: none; }}
        &.-only-segments #panels, &.-only-events #panels {{ display: none; }}
        &.-only-events #events {{ display: block; }}
        &.-tiny #panels, &.-tiny #segments, &.-tiny #events, &.-tiny #nothing, &.-tiny #keys {{ display: none; }}
        &.-tiny #strip {{ display: block; }}
    }}
    """

    def __init__(self) -> None:
        super().__init__()
        self.sight: Sight | None = None
        self.wish = Wish()
        self._frozen: float | None = None
        self._window = 1
        self._pasts: dict[tuple[str, str], Past] = {}

    @property
    def _app(self) -> DashboardApp:
        return cast("DashboardApp", self.app)

    def compose(self) -> ComposeResult:
        glyphs = self._app.glyphs
        self._banner = LinesView(id="banner")
        self._tabs = LinesView(id="tabs")
        self._strip = LinesView(id="strip")
        self._panel_views = [LinesView(id=name) for name in _PANELS]
        self._nothing = LinesView(id="nothing")
        self._segments = SegmentTable(glyphs, id="segments")
        self._events = EventView(glyphs, id="events")
        self._keys = LinesView(id="keys")
        yield self._banner
        yield self._tabs
        yield self._strip
        with Horizontal(id="panels"):
            yield from self._panel_views
        yield self._nothing
        yield self._segments
        yield self._events
        yield self._keys

    def show(self, sight: Sight) -> None:
        """Show what was seen, unless the picture is held."""
        for view in sight.views:
            for lane in view.lanes:
                self._pasts.setdefault((view.directory, lane.name), Past()).add(lane.history, view.ahead)
        if self._frozen is not None and self.sight is not None:
            return
        self.sight = sight
        if self.is_mounted:
            self._draw()
            self.shown(sight)

    def shown(self, sight: Sight) -> None:
        """It is on the screen: what follows from that."""

    @property
    def places(self) -> list[Place]:
        """All lanes; a directory without any has one place all the same."""
        found: list[Place] = []
        for view in self.sight.views if self.sight is not None else ():
            found += [(view, lane) for lane in view.lanes] or [(view, None)]
        return found

    @property
    def place(self) -> Place | None:
        """The lane that is shown. One that went leaves its directory's first in its stead."""
        places = self.places
        at = self._at(places)
        return places[at] if places else None

    def _at(self, places: Sequence[Place]) -> int:
        wanted = (self.wish.directory, self.wish.lane)
        for at, each in enumerate(places):
            if address(each) == wanted:
                return at
        same = [at for at, (view, _) in enumerate(places) if view.directory == wanted[0]]
        return same[0] if same else 0

    def _belongs(self, sight: Sight) -> bool:
        place = self.place
        if place is None or place[1] is None:
            return False
        asked = (sight.wish.directory, sight.wish.lane)
        return asked in (("", ""), (place[0].directory, place[1].name)) and sight.wish.order == self.wish.order

    def _draw(self) -> None:
        width, height = self.app.size
        now, glyphs = self._now(), self._app.glyphs
        places, place = self.places, self.place
        view, lane = place if place is not None else (None, None)
        sight = self.sight
        mine = sight is not None and self._belongs(sight)
        tiny = width < SMALLEST[0] or height < SMALLEST[1]
        self.set_class(tiny, "-tiny")
        self.set_class(height < 20, "-short")
        self.set_class(lane is None, "-no-lane")
        lines = banner(view, lane, now=now, width=width - 2, glyphs=glyphs, mark=self._mark())
        if sight is not None and sight.fault:
            lines = [*lines[:1], ((clean(sight.fault), "bad"),), *lines[2:]]
        self._banner.show(lines)
        line = tabs(places, self._at(places), width=width - 2, glyphs=glyphs)
        self._tabs.display = bool(line) and height > 3
        self._tabs.show([line])
        if tiny:
            self._strip.show(strip(view, lane, width=width - 2, glyphs=glyphs)[: max(0, height - len(lines))])
            return
        if view is not None and lane is not None:
            self._draw_panels(view, lane, width, now)
        else:
            self._nothing.show([((_COMES_UP if view is not None else "", "dim"),)])
        self._keys.show([bar(width, write=self._app.write)])
        if sight is None or not mine:
            self._segments.show(0, 0, [], now)
            self._events.show((), now)
        else:
            if sight.arranged is None:
                self._segments.show(sight.total, sight.start, list(sight.rows), now)
            self._events.show(sight.events, now)
        self._title(lane)

    def _draw_panels(self, view: View, lane: LaneView, width: int, now: float) -> None:
        widths = [width // 4 + (at < width % 4) for at in range(4)]
        roomy = width >= _ROOMY
        inner = [each - (4 if roomy else 2) for each in widths]
        seconds, name = WINDOWS[self._window]
        past = self._pasts.get((view.directory, lane.name))
        long = seconds > 600 and past is not None
        points = past.points() if long and past is not None else lane.history
        peaks = [*past.peaks(), *lane.history] if long and past is not None else lane.history
        span = Span(seconds, name, points, 13.0 if long else 2.6, peaks)
        shown_panels = panels(lane, span, now=now, widths=inner, glyphs=self._app.glyphs)
        for at, (panel, shown) in enumerate(zip(shown_panels, self._panel_views, strict=True)):
            shown.styles.width = widths[at]
            shown.styles.padding = (0, 1) if roomy else 0
            title = f"{panel.title} {name}" if panel.title == "IN" else panel.title
            _set_title(shown, title)
            shown.show(panel.lines)

    def _title(self, lane: LaneView | None) -> None:
        dot = self._app.glyphs.dot
        order, sight = self.wish.order, self.sight
        parts = ["SEGMENTS"]
        if lane is not None and sight is not None and self._belongs(sight):
            all_of_them = lane.status.segments
            parts = [f"SEGMENTS {count(sight.total)}"]
            if sight.arranged is not None:
                parts = [f"SEGMENTS reading {count(all_of_them)} headers: {100 * sight.arranged:.0f}%"]
                parts += [f"filter {order.pattern}"] if order.pattern.filters else []
            elif order.pattern.filters:
                parts = [f"SEGMENTS {count(sight.total)} of {count(all_of_them)}", f"filter {order.pattern}"]
            if sight.searched is not None and self.wish.find is not None:
                parts += [f"searching {order.pattern}: {100 * sight.searched:.0f}% (esc stops)"]
        _set_title(self._segments, dot.join(parts))
        pattern = self._events.pattern
        parts = [f"EVENTS {count(self._events.total)}"] + ([f"filter {pattern}"] if pattern.filters else [])
        _set_title(self._events, dot.join(parts))

    def _mark(self) -> Line:
        pieces: Line = (("WRITE", "warn"),) if self._app.write else (("RO", "note"),)
        if self._frozen is not None:
            pieces = ((f"FROZEN {moment(self._frozen, self._app.clock())}", "warn"), (" ", ""), *pieces)
        if self._app.polling:
            pieces = (("polling ", "dim"), *pieces)
        return pieces

    def _now(self) -> float:
        return self._frozen if self._frozen is not None else self._app.clock()


def _set_title(widget: Widget, title: str) -> None:
    """A title that holds what people typed and what providers are called: never read as markup."""
    content = Content(clean(title))
    if widget.border_title != content.markup:
        widget.border_title = content
