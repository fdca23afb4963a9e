"""The main screen: banner, panels, segments and events of one lane, and the way to the others.

It holds what the person chose (lane, order, window, frozen or not) and hands what is seen to the widgets; what they
show is computed by pure functions next door.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, cast

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.screen import Screen
from textual.widget import Widget

from mbframework.monitor import LaneView, View
from mbtui.arrangement import SORTS, Order
from mbtui.banner import banner, strip, tabs
from mbtui.event_view import EventView, event_line
from mbtui.figures import count, moment
from mbtui.ink import Line, clean, plain
from mbtui.keys import KEYS, bar
from mbtui.lines_view import LinesView
from mbtui.panels import HEIGHT, Span, panels
from mbtui.past import WINDOWS, Past
from mbtui.pattern import Pattern
from mbtui.rows_view import RowsView
from mbtui.scout import NOWHERE, Sight, Wish
from mbtui.segment_table import SegmentTable, row_line

if TYPE_CHECKING:
    from mbtui.app import DashboardApp

Place = tuple[View, LaneView | None]
#: Below this only the banner and the strip are drawn.
SMALLEST = (60, 15)
_PANELS = ("in", "out", "backlog", "health")
_ROOMY = 100
_COMES_UP = "Looked at every second: a buffer shows as soon as there is one."
_NOT_BOUND = ("open", "command_palette", "app.picture")


class MainScreen(Screen[None]):
    """See the module."""

    DEFAULT_CSS = f"""
    MainScreen {{
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
    BINDINGS: ClassVar[list[BindingType]] = [
        # The lists know what Enter opens; the palette's key is Textual's own.
        *(Binding(key.keys, key.action, key.help, show=False) for key in KEYS if key.action not in _NOT_BOUND),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.sight: Sight | None = None
        self.wish = Wish()
        self._follows = True
        self._asked_at = 0
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

    def on_mount(self) -> None:
        self.set_class(self._app.glyphs.ascii, "-ascii-borders")
        self._segments.focus()
        self._draw()
        if self.sight is not None:
            # It came before there was anything to show it on.
            self.call_after_refresh(self.show, self.sight)

    @property
    def frozen(self) -> bool:
        """Whether the picture is held."""
        return self._frozen is not None

    # What is seen.

    def show(self, sight: Sight) -> None:
        """Show what was seen, unless the picture is held."""
        for view in sight.views:
            for lane in view.lanes:
                self._pasts.setdefault((view.directory, lane.name), Past()).add(lane.history)
        if self._frozen is not None and self.sight is not None:
            return
        self.sight = sight
        if self.is_mounted:
            self._draw()
            if self._belongs(sight) and sight.arranged is None:
                self._follow(sight)

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
        for at, (view, lane) in enumerate(places):
            if (view.directory, lane.name if lane is not None else "") == wanted:
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

    def _follow(self, sight: Sight) -> None:
        """Stay with the row under the cursor, or with the segment that is being sent."""
        table = self._segments
        if sight.wish.find is not None and sight.wish.find == self.wish.find and sight.wish.number == self.wish.number:
            if sight.found is None:
                self._app.say("no further match")
            else:
                self._follows = False
                table.move_to(sight.found)
            self._ask(find=None)
        elif sight.cursor is not None and sight.wish.anchor == self.wish.anchor:
            if self._follows:
                table.move_to(sight.cursor)
            elif sight.cursor != table.cursor == min(self._asked_at, table.total - 1):
                # It has not been moved since; rows in front of it came or went.
                table.shift(sight.cursor - table.cursor)
        self._ask_for_window()

    # What is wanted.

    def _ask(self, **changes: object) -> None:
        wish = replace(self.wish, **changes)  # type: ignore[arg-type]
        if wish != self.wish:
            self.wish = wish
            self._app.want(wish)

    def _ask_for_window(self) -> None:
        place = self.place
        if place is None or place[1] is None:
            return
        table = self._segments
        room = max(20, table.visible_rows)
        # In steps, so that a row up or down asks for nothing new.
        start = max(0, (table.window.start // room - 1) * room)
        row = table.chosen
        self._asked_at = table.cursor
        anchor = None if self._follows else NOWHERE if row is None else row.first
        self._ask(
            directory=place[0].directory,
            lane=place[1].name,
            start=start,
            stop=start + 4 * room,
            anchor=anchor,
            number=max(1, self.wish.number),
        )

    def _order(self, order: Order) -> None:
        if order != self.wish.order:
            self._segments.sort, self._segments.descending = order.sort, order.descending
            self._segments.forget()
            self._ask(order=order, number=self.wish.number + 1)

    def on_rows_view_moved(self, message: RowsView.Moved) -> None:
        self._ask_for_window()

    def on_resize(self, event: events.Resize) -> None:
        self._draw()
        self.call_after_refresh(self._ask_for_window)

    def on_key(self, event: events.Key) -> None:
        # Whoever moves the cursor no longer follows the sender.
        if event.key in ("up", "down", "j", "k", "g", "G", "home", "end", "pageup", "pagedown", "ctrl+f", "ctrl+b"):
            self._follows = self._follows and self.focused is not self._segments

    # Keys.

    def action_help(self) -> None:
        from mbtui.help_screen import HelpScreen, help_text

        self.app.push_screen(HelpScreen(help_text(self._app.glyphs, write=self._app.write)))

    def action_lane(self, step: int) -> None:
        places = self.places
        if len(places) > 1:
            self._choose((self._at(places) + step) % len(places))

    def action_lanes(self) -> None:
        from mbtui.lane_screen import LaneScreen

        def chosen(at: int | None) -> None:
            if at is not None:
                self._choose(at)

        if places := self.places:
            self.app.push_screen(LaneScreen(places, self._at(places), self._app.glyphs), chosen)

    def _choose(self, at: int) -> None:
        view, lane = self.places[at]
        self._follows = True
        self._segments.forget()
        # Without a number: the first sight of a lane is where its sender stands.
        self.wish = Wish(view.directory, lane.name if lane is not None else "", order=self.wish.order)
        self._app.want(self.wish)
        self._draw()

    def action_filter(self) -> None:
        from mbtui.filter_bar import FilterBar

        if self.query(FilterBar):
            return
        target = self._target()
        pattern = target.pattern if isinstance(target, EventView) else self.wish.order.pattern
        self.mount(FilterBar(target, str(pattern)), before=self._keys)

    def apply_filter(self, target: RowsView, pattern: Pattern) -> None:
        """Show only what the pattern finds in one of the lists."""
        if isinstance(target, EventView):
            target.pattern = pattern
            target.order_anew()
        else:
            self._order(replace(self.wish.order, pattern=pattern))
        self._title(self.place[1] if self.place is not None else None)

    def _target(self) -> RowsView:
        return self._events if self.focused is self._events else self._segments

    def action_find(self, step: int) -> None:
        target = self._target()
        if isinstance(target, EventView):
            if not target.find(step):
                self._app.say("no further match")
        elif target.total:
            self._ask(find=(target.cursor + step, step), number=self.wish.number + 1)

    def action_sort(self) -> None:
        order, names = self.wish.order, list(SORTS)
        self._order(replace(order, sort=names[(names.index(order.sort) + 1) % len(names)]))

    def action_reverse(self) -> None:
        if self._target() is self._events:
            self._events.descending = not self._events.descending
            self._events.order_anew()
            self._events.move_to(0 if self._events.descending else self._events.total - 1)
        else:
            self._order(replace(self.wish.order, descending=not self.wish.order.descending))

    def action_maximise(self) -> None:
        name = "-only-events" if self._target() is self._events else "-only-segments"
        self._only("" if self.has_class(name) else name)

    def action_events(self) -> None:
        shown = not self.has_class("-only-events")
        self._only("-only-events" if shown else "")
        (self._events if shown else self._segments).focus()

    def _only(self, name: str) -> None:
        for each in ("-only-events", "-only-segments"):
            self.set_class(each == name, each)
        self.call_after_refresh(self._ask_for_window)

    def action_freeze(self) -> None:
        self._frozen = self._app.clock() if self._frozen is None else None
        self._draw()

    def action_window(self) -> None:
        self._window = (self._window + 1) % len(WINDOWS)
        self._draw()

    def action_copy(self) -> None:
        target, now = self._target(), self._now()
        text = ""
        if isinstance(target, EventView) and target.chosen is not None:
            text = plain(event_line(target.chosen, now)).strip()
        elif isinstance(target, SegmentTable) and target.chosen is not None:
            line = row_line(target.chosen, target.columns, now, self._app.glyphs)
            text = f"{target.chosen.name} {plain(line).strip()}"
        if text:
            self.app.copy_to_clipboard(text)
            self._app.say(f"copied: {text}")

    def action_back(self) -> None:
        from mbtui.filter_bar import FilterBar

        target = self._target()
        pattern = target.pattern if isinstance(target, EventView) else self.wish.order.pattern
        if bars := self.query(FilterBar):
            bars.first().leave()
        elif pattern.filters:
            self.apply_filter(target, replace(pattern, active=False))
        else:
            self._only("")

    def on_rows_view_opened(self, message: RowsView.Opened) -> None:
        place = self.place
        if message.view is self._events:
            if self._events.chosen is not None:
                self._app.say(self._events.chosen.text)
        elif place is not None and place[1] is not None and self._segments.chosen is not None:
            from mbtui.segment_screen import SegmentScreen

            self.app.push_screen(SegmentScreen(self._path(place[0], place[1]), self._segments.chosen.first))

    def action_dead_letters(self) -> None:
        place = self.place
        if place is not None and place[1] is not None:
            from mbtui.dead_screen import DeadScreen

            self.app.push_screen(DeadScreen(place[0].directory, place[1].name))

    def _path(self, view: View, lane: LaneView) -> str:
        return os.path.join(view.directory, lane.name)

    def _on_lane(self) -> tuple[str, LaneView] | None:
        place = self.place
        if place is None or place[1] is None:
            self._app.say("there is no lane here", "warning")
            return None
        return self._path(place[0], place[1]), place[1]

    def action_pause(self) -> None:
        if found := self._on_lane():
            self._app.orders.pause(*found)

    def action_retry(self) -> None:
        if found := self._on_lane():
            self._app.orders.retry(found[0])

    def action_mode(self) -> None:
        if found := self._on_lane():
            self._app.orders.mode(*found)

    def action_purge(self) -> None:
        if found := self._on_lane():
            self._app.orders.purge(*found)


def _set_title(widget: Widget, title: str) -> None:
    """A title that holds what people typed and what providers are called: never read as markup."""
    content = Content(clean(title))
    if widget.border_title != content.markup:
        widget.border_title = content
