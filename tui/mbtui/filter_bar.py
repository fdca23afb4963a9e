"""The line in which a filter is typed; the list follows with every letter."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from textual.widgets import Input

from mbtui.pattern import Pattern
from mbtui.rows_view import RowsView

if TYPE_CHECKING:
    from mbtui.app import DashboardApp
    from mbtui.main_screen import MainScreen


class FilterBar(Input):
    """Enter keeps the filter; ``leave`` takes it away. ``wrong``: why what stands there is not a filter, or ""."""

    DEFAULT_CSS = """
    FilterBar.-wrong { color: $text-error; }
    """

    def __init__(self, target: RowsView, text: str) -> None:
        super().__init__(text, placeholder="regular expression; ! in front hides what it finds", compact=True)
        self._target = target
        self.wrong = ""

    def on_mount(self) -> None:
        self.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.wrong = ""
        try:
            pattern = Pattern.parse(event.value)
        except ValueError as error:
            # While it is being typed it often is none yet: the list stays as it is.
            self.wrong = str(error)
        else:
            cast("MainScreen", self.screen).apply_filter(self._target, pattern)
        self.set_class(bool(self.wrong), "-wrong")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if self.wrong:
            cast("DashboardApp", self.app).say(self.wrong, "error")
        else:
            self._target.focus()
            self.remove()

    def leave(self) -> None:
        """Close the line, and show everything again."""
        cast("MainScreen", self.screen).apply_filter(self._target, Pattern())
        self._target.focus()
        self.remove()
