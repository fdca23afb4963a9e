"""Two questions that any screen may ask: a typed confirmation, and a value.

Promises
--------
- Escape is always "no": :class:`Confirm` gives False, :class:`Ask` gives None, and nothing happened.
- Enter alone never confirms: the expected text has to be typed.
- What is asked may quote keys, topics and error texts: control characters are escaped, markup is not read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Generic, TypeVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen, ScreenResultType
from textual.widgets import Input, Static

from mbtui.ink import clean

Value = TypeVar("Value")


class _Dialog(ModalScreen[ScreenResultType]):
    """A question, a line to type in, and a line that says what is wrong with it."""

    DEFAULT_CSS = """
    _Dialog {
        align: center middle;
        & > Vertical {
            width: 64; max-width: 96%; height: auto; max-height: 100%;
            padding: 0 1; border: round $primary; background: $surface;
            overflow-y: auto;
        }
        & Static { width: 1fr; height: auto; }
        & Input { margin: 1 0 0 0; background: $boost; }
        & .wrong { color: $text-error; min-height: 1; }
        & .keys { color: $text-muted; }
        &.-ascii > Vertical { border: ascii $primary; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Cancel", priority=True)]

    def __init__(self, question: str, *, hint: str, begin: str, keys: str) -> None:
        super().__init__()
        self._question, self._hint, self._begin, self._keys = question, hint, begin, keys

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(shown(self._question), markup=False)
            yield Input(self._begin, placeholder=shown(self._hint), compact=True)
            yield Static("", classes="wrong", markup=False)
            yield Static(self._keys, classes="keys", markup=False)

    def on_mount(self) -> None:
        self.set_class(bool(getattr(getattr(self.app, "glyphs", None), "ascii", False)), "-ascii")
        self.query_one(Input).focus()

    def on_input_changed(self) -> None:
        self._complain("")

    def _complain(self, text: str) -> None:
        self.query_one(".wrong", Static).update(shown(text))


class Confirm(_Dialog[bool]):
    """Ask whether to do what cannot be taken back; True only after ``expected_text`` was typed in full."""

    def __init__(self, question: str, expected_text: str) -> None:
        super().__init__(
            f'{question}\n\nType "{expected_text}" to confirm.',
            hint="",
            begin="",
            keys="Enter does it - Esc leaves everything as it is",
        )
        self._expected = expected_text

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.value.strip() == self._expected:
            self.dismiss(True)
        else:
            self._complain(f'expected "{self._expected}"')

    def action_leave(self) -> None:
        self.dismiss(False)


class Ask(_Dialog[Value | None], Generic[Value]):
    """Ask for a value; None where the person left.

    :param check: makes the value of the typed text. It raises ValueError, whose text is shown, and the person may
        try again; it runs on the event loop and must not wait.
    :param begin: what stands in the line at first.
    """

    def __init__(self, question: str, check: Callable[[str], Value], *, hint: str = "", begin: str = "") -> None:
        super().__init__(question, hint=hint, begin=begin, keys="Enter goes on - Esc leaves")
        self._check = check

    def on_input_submitted(self, event: Input.Submitted) -> None:
        try:
            value = self._check(event.value)
        except ValueError as error:
            self._complain(str(error))
        else:
            self.dismiss(value)

    def action_leave(self) -> None:
        self.dismiss(None)


def shown(text: str) -> str:
    """``text`` with its lines kept and every other control character escaped."""
    return "\n".join(map(clean, text.split("\n")))
