"""A list of any length with a cursor: it holds no row, and draws those in sight.

Promises
--------
- The cost of a key or of a tick does not depend on how many rows there are.
- ``Moved`` tells that other rows came into sight, ``Opened`` that Enter was pressed on one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.scrollbar import ScrollBarRender
from textual.strip import Strip

from mbtui.ink import Line
from mbtui.lines_view import INK_CLASSES, INK_CSS, ink_of, strip_of

if TYPE_CHECKING:
    from mbtui.app import DashboardApp


class _PlainBar(ScrollBarRender):
    """A scrollbar without block characters."""

    VERTICAL_BARS: ClassVar[list[str]] = [" "] * 8


class RowsView(ScrollView, can_focus=True):
    """Subclasses say how many rows there are (``set_total``), and what is in one (``row``)."""

    COMPONENT_CLASSES = INK_CLASSES | {"rows--cursor", "rows--head"}
    DEFAULT_CSS = (
        "RowsView {"
        + INK_CSS
        + """
        height: 1fr;
        overflow-x: hidden;
        scrollbar-size-vertical: 1;
        scrollbar-background: $panel; scrollbar-background-hover: $panel; scrollbar-background-active: $panel;
        & > .rows--head { color: $text-muted; text-style: underline; }
        & > .rows--cursor { background: $foreground 12%; }
        &:focus > .rows--cursor { background: $primary 35%; text-style: bold; }
        }
        """
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "step(1)", "Down", show=False),
        Binding("up,k", "step(-1)", "Up", show=False),
        Binding("pagedown,ctrl+f", "page(1)", "Page down", show=False),
        Binding("pageup,ctrl+b", "page(-1)", "Page up", show=False),
        Binding("g,home", "begin", "First", show=False),
        Binding("G,end", "end", "Last", show=False),
        Binding("enter", "open", "Open", show=False),
    ]

    class Moved(Message):
        """Other rows came into sight, or the cursor is on another row."""

    class Opened(Message):
        """Enter, or a click on the row with the cursor."""

        def __init__(self, view: RowsView, row: int) -> None:
            super().__init__()
            self.view = view
            self.row = row

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.total = 0
        self.cursor = 0

    def on_mount(self) -> None:
        if cast("DashboardApp", self.app).glyphs.ascii:
            # Textual documents this, and declares a class variable.
            self.vertical_scrollbar.renderer = _PlainBar  # type: ignore[misc]

    def head(self) -> Line | None:
        """The line above the rows, which does not scroll."""
        return None

    def row(self, at: int) -> Line:
        """What is in a row."""
        raise NotImplementedError

    @property
    def _head_lines(self) -> int:
        return 0 if self.head() is None else 1

    @property
    def visible_rows(self) -> int:
        """How many rows there is room for."""
        return max(0, self.size.height - self._head_lines)

    @property
    def window(self) -> range:
        """The rows in sight."""
        top = round(self.scroll_y)
        return range(top, min(self.total, top + self.visible_rows))

    def set_total(self, total: int) -> None:
        """There are so many rows now."""
        if total != self.total:
            self.total = total
            self.virtual_size = Size(self.size.width, total + self._head_lines)
        self.cursor = max(0, min(self.cursor, total - 1))

    def move_to(self, row: int) -> None:
        """Put the cursor on a row, and that into sight."""
        before, self.cursor = self.cursor, max(0, min(row, self.total - 1))
        top, room = round(self.scroll_y), max(1, self.visible_rows)
        if self.cursor < top:
            top = self.cursor
        elif self.cursor >= top + room:
            top = self.cursor - room + 1
        if top != round(self.scroll_y):
            self.scroll_to(y=top, animate=False, force=True)
        if before != self.cursor:
            self.refresh_row(before)
            self.refresh_row(self.cursor)
            self.post_message(self.Moved())

    def shift(self, rows: int) -> None:
        """So many rows came in front of those in sight (or went, if negative): stay with the same ones."""
        self.cursor = max(0, min(self.cursor + rows, self.total - 1))
        self.scroll_to(y=max(0, round(self.scroll_y) + rows), animate=False, force=True)
        self.refresh()

    def refresh_row(self, row: int) -> None:
        """Draw a row again."""
        y = row - round(self.scroll_y)
        if 0 <= y < self.visible_rows:
            self.refresh(Region(0, y + self._head_lines, self.size.width, 1))

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if round(old_value) != round(new_value):
            self.post_message(self.Moved())

    def on_resize(self) -> None:
        self.virtual_size = Size(self.size.width, self.total + self._head_lines)
        self.move_to(self.cursor)
        self.post_message(self.Moved())

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        head = self.head()
        if head is not None:
            if y == 0:
                return strip_of(self, head, width, ink_of(self, "rows--head"))
            y -= 1
        at = round(self.scroll_y) + y
        if at >= self.total:
            return strip_of(self, (), width)
        return strip_of(self, self.row(at), width, self._cursor_style() if at == self.cursor else None)

    def _cursor_style(self) -> Style:
        if self.app.no_color:
            return Style(reverse=self.has_focus, underline=not self.has_focus)
        style = self.get_component_rich_style("rows--cursor", partial=False)
        return Style(bgcolor=style.bgcolor, bold=style.bold)

    def on_focus(self) -> None:
        self.refresh_row(self.cursor)

    def on_blur(self) -> None:
        self.refresh_row(self.cursor)

    def on_click(self, event: events.Click) -> None:
        row = round(self.scroll_y) + event.y - self._head_lines
        if event.y >= self._head_lines and 0 <= row < self.total:
            if row == self.cursor:
                self.action_open()
            self.move_to(row)

    def action_step(self, rows: int) -> None:
        self.move_to(self.cursor + rows)

    def action_page(self, pages: int) -> None:
        self.move_to(self.cursor + pages * max(1, self.visible_rows - 1))

    def action_begin(self) -> None:
        self.move_to(0)

    def action_end(self) -> None:
        self.move_to(self.total - 1)

    def action_open(self) -> None:
        if self.total:
            self.post_message(self.Opened(self, self.cursor))
