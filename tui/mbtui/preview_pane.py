"""The part of a screen that shows one message: what is known of it, and its value as JSON, text or bytes.

Promises: of a value, however large, only the beginning is looked at (:mod:`mbtui.preview`); it is laid out again only
when the message, the view or the width is another. On the event loop only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple, cast

from rich.cells import cell_len
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from mbtui.glyphs import UNICODE, Glyphs
from mbtui.ink import Line
from mbtui.lines_view import INK_CLASSES, INK_CSS, strip_of
from mbtui.preview import VIEWS, preview, several_lines

_MOST_FACT_LINES = 4
_VIEW_NAMES = {"json": "JSON", "text": "text", "hex": "hex"}


class Shown(NamedTuple):
    """What is to be shown of a message: which one it is, in words of ours; its ``value`` or the beginning of it, and
    how many bytes that has in full; what else is known, as names and texts; whether there is a value to be shown."""

    name: str
    value: bytes | None
    value_size: int
    facts: tuple[tuple[str, str | bytes], ...] = ()
    readable: bool = True


class PreviewPane(ScrollView, can_focus=True):
    """Scrolls when it has the focus."""

    COMPONENT_CLASSES = INK_CLASSES
    DEFAULT_CSS = (
        "PreviewPane {"
        + INK_CSS
        + """
        height: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; scrollbar-gutter: stable;
        border-top: solid $primary; border-title-color: $text-primary;
        &:focus { border-top: heavy $primary; }
        }
        """
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "scroll_up", "Up", show=False),
        Binding("down,j", "scroll_down", "Down", show=False),
        Binding("g,home", "scroll_home", "First", show=False),
        Binding("G,end", "scroll_end", "Last", show=False),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.view = VIEWS[0]
        self._shown: Shown | None = None
        self._lines: list[Line] = []
        self._made: tuple[object, ...] = ()

    @property
    def lines(self) -> list[Line]:
        """What there is to scroll through."""
        return self._lines

    def show(self, shown: Shown | None, *, empty: str = "") -> None:
        """Show this message; without one, the text ``empty``."""
        if shown is not None and shown == self._shown:
            return
        another = shown is None or self._shown is None or shown.name != self._shown.name
        self._shown = shown
        self._made = ()
        self._lay_out(empty)
        if another:
            self.scroll_to(y=0, animate=False, force=True)

    def next_view(self) -> str:
        """The next of JSON, text and hexadecimal; its name."""
        self.view = VIEWS[(VIEWS.index(self.view) + 1) % len(VIEWS)]
        self._lay_out()
        self.scroll_to(y=0, animate=False, force=True)
        return self.view

    def on_resize(self) -> None:
        self._lay_out()

    def render_line(self, y: int) -> Strip:
        at = round(self.scroll_y) + y
        return strip_of(self, self._lines[at] if at < len(self._lines) else (), self.size.width)

    def _lay_out(self, empty: str = "") -> None:
        shown, width, plain = self._shown, self.scrollable_content_region.width, self._glyphs.ascii
        if shown is None:
            self._lines = [((empty, "dim"),)] if empty else []
            self.border_title = ""
        elif width and self._made != (width, self.view):
            self._made = width, self.view
            made = preview(shown.value, self.view, width=width, size=shown.value_size, ascii=plain)
            facts = _fact_lines(shown.facts, width, ascii=plain)
            self._lines = [*facts, *made.lines] if shown.readable else facts
            # Nothing that is in the message is in the title, which is read as markup.
            said = (shown.name, _VIEW_NAMES[made.view], made.note) if shown.readable else (shown.name,)
            self.border_title = self._glyphs.dot.join(filter(None, said))
        self.virtual_size = Size(width, len(self._lines))
        self.refresh()

    @property
    def _glyphs(self) -> Glyphs:
        return cast("Glyphs", getattr(self.app, "glyphs", UNICODE))


def _fact_lines(facts: Sequence[tuple[str, str | bytes]], width: int, *, ascii: bool) -> list[Line]:
    """Names and texts side by side while there is room, then on the next line."""
    lines: list[Line] = []
    room = 0
    for name, text in facts:
        label: Line = ((f"{name} ", "dim"),)
        first, *rest = several_lines(text, max(8, width - len(name) - 1), _MOST_FACT_LINES, ascii=ascii)
        size = len(name) + 1 + sum(cell_len(part) for part, _ in first)
        if lines and not rest and size + 2 <= room:
            lines[-1] = (*lines[-1], ("  ", ""), *label, *first)
            room -= size + 2
        else:
            indent: Line = ((" " * (len(name) + 1), ""),)
            lines += [(*label, *first), *((*indent, *line) for line in rest)]
            room = 0 if rest else width - size
    return lines
