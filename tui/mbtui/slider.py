"""A slider: a value between two ends, moved by mouse and keyboard.

Promises
--------
- The value is always one of the scale's; its logarithmic steps begin with 0, which is off.
- A click on the track, dragging, the wheel, the arrows, page up and down, home and end move it, and each move that
  changes the value posts :class:`Slider.Changed`.
- One line high; it draws itself at any width, in ASCII if told so, and shows the value in words, not by colour alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget


@dataclass(frozen=True, slots=True)
class LogScale:
    """0, then ``steps`` values from ``least`` to ``most`` at even ratios, rounded to two digits."""

    least: float
    most: float
    steps: int

    def value(self, position: int) -> float:
        """The value at a position from 0 to ``steps``."""
        if position <= 0:
            return 0.0
        share = (min(position, self.steps) - 1) / (self.steps - 1)
        return float(f"{self.least * (self.most / self.least) ** share:.2g}")

    def position(self, value: float) -> int:
        """The position whose value is nearest."""
        return min(range(self.steps + 1), key=lambda position: abs(self.value(position) - value))


class Slider(Widget, can_focus=True):
    """A label, a track with a knob, and the value in words.

    :param words: the value as text, at most VALUE_CELLS cells wide.
    """

    LABEL_CELLS, VALUE_CELLS = 15, 13

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "move(-1)", "Less", show=False),
        Binding("right,l", "move(1)", "More", show=False),
        Binding("pagedown", "move(-5)", "Much less", show=False),
        Binding("pageup", "move(5)", "Much more", show=False),
        Binding("home,0", "move(-1000)", "Off", show=False),
        Binding("end", "move(1000)", "Most", show=False),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {"slider--knob", "slider--filled", "slider--track", "slider--value"}
    DEFAULT_CSS = """
    Slider {
        height: 1; width: 1fr;
        & > .slider--knob { color: $accent; text-style: bold; }
        & > .slider--filled { color: $accent; }
        & > .slider--track { color: $foreground 40%; }
        & > .slider--value { text-style: bold; }
        &:focus { background: $boost; }
        &:focus > .slider--knob { text-style: bold reverse; }
    }
    """

    position = reactive(0)

    class Changed(Message):
        """The value is another one now."""

        def __init__(self, slider: Slider, value: float) -> None:
            super().__init__()
            self.slider = slider
            self.value = value

        @property
        def control(self) -> Slider:
            return self.slider

    def __init__(
        self,
        label: str,
        scale: LogScale,
        words: Callable[[float], str],
        *,
        value: float = 0.0,
        ascii: bool = False,
        id: str | None = None,
    ) -> None:
        super().__init__(id=id)
        self._label, self._scale, self._words, self._ascii = label, scale, words, ascii
        self._dragging = False
        self.set_reactive(Slider.position, scale.position(value))

    @property
    def value(self) -> float:
        """What the knob stands at."""
        return self._scale.value(self.position)

    def validate_position(self, position: int) -> int:
        return max(0, min(self._scale.steps, position))

    def watch_position(self) -> None:
        self.post_message(self.Changed(self, self.value))

    def action_move(self, steps: int) -> None:
        """Move the knob by so many steps; at the ends it stays."""
        self.position += steps

    # ---- drawing

    @property
    def _track(self) -> tuple[int, int]:
        """The first cell of the track and how many it has, its ends not counted."""
        return self.LABEL_CELLS + 1, max(3, self.size.width - self.LABEL_CELLS - self.VALUE_CELLS - 3)

    def render(self) -> Text:
        _, width = self._track
        knob = round(self.position / self._scale.steps * (width - 1))
        left, filled, handle, empty, right = "[=O-]" if self._ascii else "├━●─┤"

        def style(name: str) -> Style:
            return self.get_component_rich_style(f"slider--{name}")

        return Text.assemble(
            self._label.ljust(self.LABEL_CELLS)[: self.LABEL_CELLS],
            (left, style("track")),
            (filled * knob, style("filled")),
            (handle, style("knob")),
            (empty * (width - knob - 1), style("track")),
            (right, style("track")),
            (" " + self._words(self.value), style("value")),
            no_wrap=True,
            overflow="crop",
        )

    # ---- the mouse

    def _move_to(self, x: int) -> None:
        first, width = self._track
        self.position = round((x - first) / (width - 1) * self._scale.steps)

    def on_mouse_down(self, event: events.MouseDown) -> None:
        first, width = self._track
        if first - 1 <= event.x <= first + width:
            self._dragging = True
            self.capture_mouse()
            self._move_to(event.x)
        event.stop()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._dragging:
            self._move_to(event.x)

    def on_mouse_up(self) -> None:
        if self._dragging:
            self._dragging = False
            self.release_mouse()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.action_move(1)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.action_move(-1)
