"""The main screen: what a person does on it, and the way to the others.

It holds what was chosen (lane, order, window, frozen or not, the row under the cursor) and says what is to be seen; how
that looks is the matter of :mod:`mbtui.dashboard_screen`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType

from mbframework.monitor import LaneView, View
from mbtui.arrangement import SORTS, Order
from mbtui.dashboard_screen import DashboardScreen
from mbtui.event_view import EventView, event_line
from mbtui.ink import plain
from mbtui.keys import KEYS
from mbtui.lane_words import address
from mbtui.past import WINDOWS
from mbtui.pattern import Pattern
from mbtui.rows_view import RowsView
from mbtui.scout import NOWHERE, Sight, Wish
from mbtui.segment_table import SegmentTable, row_line

_NOT_BOUND = ("open", "command_palette", "app.picture")


class MainScreen(DashboardScreen):
    """See the module."""

    BINDINGS: ClassVar[list[BindingType]] = [
        # The lists know what Enter opens; the palette's key is Textual's own.
        *(Binding(key.keys, key.action, key.help, show=False) for key in KEYS if key.action not in _NOT_BOUND),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._follows = True
        self._asked_at = 0

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

    def shown(self, sight: Sight) -> None:
        if self._belongs(sight) and sight.arranged is None:
            self._follow(sight)

    def _follow(self, sight: Sight) -> None:
        """Stay with the row under the cursor, or with the segment that is being sent."""
        table = self._segments
        asked = sight.wish.find, sight.wish.number
        if sight.searched is None and self.wish.find is not None and asked == (self.wish.find, self.wish.number):
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
        if self.wish.lane and address(place) != (self.wish.directory, self.wish.lane):
            # Whoever is about to press a key that changes the lane is to know that it is another one.
            self._say_gone(self.wish.directory, self.wish.lane, place[1].name)
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
            self._ask(order=order, find=None, number=self.wish.number + 1)

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
            self._choose(*address(places[(self._at(places) + step) % len(places)]))

    def action_lanes(self) -> None:
        from mbtui.lane_screen import LaneScreen

        def chosen(wanted: tuple[str, str] | None) -> None:
            if wanted is None:
                return
            if wanted in map(address, self.places):
                self._choose(*wanted)
            else:
                self._say_gone(*wanted)

        if places := self.places:
            self.app.push_screen(LaneScreen(places, self._at(places), self._app.glyphs), chosen)

    def _say_gone(self, directory: str, lane: str, instead: str = "") -> None:
        what = f"lane {lane} of {directory}" if lane else directory
        self._app.say(f"{what} is not there any more{f'; this is lane {instead}' if instead else ''}", "warning")

    def _choose(self, directory: str, lane: str) -> None:
        self._follows = True
        self._segments.forget()
        # Without a number: the first sight of a lane is where its sender stands.
        self.wish = Wish(directory, lane, order=self.wish.order)
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
        elif self.wish.find is not None:
            self._ask(find=None)
            self._app.say("the search was stopped")
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
