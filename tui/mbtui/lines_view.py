"""Widgets that draw lines: of a fixed text, and of rows that are asked for as they come into sight.

Promises
--------
- Only lines that changed are drawn again. Nothing is cleared and filled anew.
- Text is drawn as it is; markup in it stays text. In ASCII everything else is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from mbtui.glyphs import only_ascii
from mbtui.ink import INKS, Ink, Line

if TYPE_CHECKING:
    from mbtui.app import DashboardApp

INK_CLASSES = {f"ink--{ink}" for ink in INKS}
INK_CSS = """
    & > .ink--dim { color: $text-muted; }
    & > .ink--strong { text-style: bold; }
    & > .ink--good { color: $text-success; }
    & > .ink--warn { color: $text-warning; text-style: bold; }
    & > .ink--bad { color: $text-error; text-style: bold; }
    & > .ink--note { color: $text-primary; }
"""


def strip_of(widget: Widget, line: Line, width: int, over: Style | None = None) -> Strip:
    """A line as the terminal shows it, ``width`` cells wide; ``over`` goes over all of its inks."""
    escape = cast("DashboardApp", widget.app).glyphs.ascii
    base = widget.rich_style
    segments = []
    for text, ink in line:
        style = base + _ink(widget, ink) if ink else base
        segments.append(Segment(only_ascii(text) if escape else text, style + over if over else style))
    return Strip(segments).adjust_cell_length(width, base + over if over else base)


def _ink(widget: Widget, ink: Ink) -> Style:
    return ink_of(widget, f"ink--{ink}")


def ink_of(widget: Widget, name: str) -> Style:
    """The style of one of its component classes without the background. A colour that a theme gives as one that is
    legible there, whatever the background, is found against that."""
    partial = widget.get_component_rich_style(name, partial=True)
    return partial + Style(color=widget.get_component_rich_style(name).color)


class LinesView(Widget):
    """Some lines of text."""

    COMPONENT_CLASSES = INK_CLASSES
    DEFAULT_CSS = "LinesView {" + INK_CSS + "height: auto; }"

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._lines: tuple[Line, ...] = ()

    @property
    def lines(self) -> tuple[Line, ...]:
        """What is shown."""
        return self._lines

    def show(self, lines: Sequence[Line]) -> None:
        """Show these lines instead."""
        before, self._lines = self._lines, tuple(lines)
        if len(before) != len(self._lines) and self.styles.is_auto_height:
            self.refresh(layout=True)
            return
        width = self.size.width
        for at in range(max(len(before), len(self._lines))):
            if before[at : at + 1] != self._lines[at : at + 1]:
                self.refresh(Region(0, at, width, 1))

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        return len(self._lines)

    def render_line(self, y: int) -> Strip:
        # Borders and padding are around this: y counts the lines of the content.
        return strip_of(self, self._lines[y] if y < len(self._lines) else (), self.size.width)
