"""The keys, and what the signs mean."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen

from mbtui.glyphs import STATE_INKS, Glyphs
from mbtui.ink import Line
from mbtui.keys import help_lines
from mbtui.lines_view import LinesView

_STATES = {
    "live": "messages go to the provider past the disk",
    "buffering": "they go to disk: the provider is away, or slow",
    "draining": "the provider is back, the backlog shrinks",
    "paused": "somebody paused the sending; writing goes on",
    "blocked": "a person, or room, is needed; the banner says why",
    "disk-error": "the device fails; nothing is accepted",
    "stale": "the process is silent for more than 3 s",
    "dead": "no process has the buffer open",
}


def help_text(glyphs: Glyphs, *, write: bool) -> list[Line]:
    """All of it."""
    lines: list[Line] = [
        (("Keys", "note"),),
        *help_lines(write=write, ascii_only=glyphs.ascii),
        (),
        (("States", "note"),),
    ]
    for state, meaning in _STATES.items():
        lines.append(((f"{glyphs.state(state):<14}", STATE_INKS[state]), (meaning, "")))
    lines += [
        (),
        (
            ("LOST", "bad"),
            (" adds up what was pruned, expired, or lost with a process or a disk; dead letters are", ""),
        ),
        (("kept, and not among them. ", ""), ("RO", "strong"), (": this screen changes nothing in the buffer.", "")),
    ]
    return lines


class HelpScreen(ModalScreen[None]):
    """Any of the keys that open or leave something close it."""

    DEFAULT_CSS = """
    HelpScreen {
        align: center middle;
        & > VerticalScroll {
            width: 90; max-width: 100%; height: auto; max-height: 100%;
            border: round $primary; background: $surface; padding: 0 1;
            scrollbar-size-vertical: 1;
        }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q,enter", "dismiss", "Close", show=False),
        Binding("j", "scroll(1)", show=False),
        Binding("k", "scroll(-1)", show=False),
    ]

    def __init__(self, lines: list[Line]) -> None:
        super().__init__()
        self._lines = lines

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield LinesView()

    def on_mount(self) -> None:
        self.query_one(LinesView).show(self._lines)
        self.query_one(VerticalScroll).border_title = "Help"

    def action_scroll(self, lines: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)

    async def action_dismiss(self, result: None = None) -> None:
        self.dismiss(result)
