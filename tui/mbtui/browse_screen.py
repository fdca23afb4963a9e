"""What a screen with a list of messages and a preview has in common: layout, keys, search, copy, the line that says.

Promises
--------
- What is under the cursor is previewed; the preview follows without a key waiting for a disk.
- A search reads on from the cursor, says how far it is, and stops at Escape. Nothing else waits for it.
- What went wrong stands on the screen until something else is to be said there.

Subclasses say what is listed. On the event loop only.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, Generic, TypeVar, cast

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen

from mbframework.errors import MessageBufferError
from mbframework.units import format_size
from mbtui.dialogs import Ask
from mbtui.glyphs import UNICODE, Glyphs
from mbtui.help_screen import HelpScreen
from mbtui.ink import Ink, Line, clean, crop
from mbtui.keys import Key
from mbtui.lines_view import LinesView
from mbtui.message_list import MessageList, reason
from mbtui.pattern import Pattern
from mbtui.preview_pane import PreviewPane, Shown

Item = TypeVar("Item")

#: Seconds between two looks at what may have changed.
LOOK: Final = 1.0

MOVES: Final = (
    Key("up,k", "up k", "", "the message before"),
    Key("down,j", "down j", "", "the next message"),
    Key("pageup", "PgUp", "", "a page up"),
    Key("pagedown", "PgDn", "", "a page down"),
    Key("g,home", "g", "", "the first message"),
    Key("G,end", "G", "", "the last message"),
    Key("tab", "tab", "", "to the preview, which scrolls, and back"),
)
VIEW: Final = Key("v", "v", "view", "the value as JSON, as text, as bytes", "view")
COPY: Final = Key("c", "c", "copy", "copy the value under the cursor", "copy")
SEARCH: Final = Key("slash", "/", "search", "search topics, keys and values; ! in front: what does not match", "search")
NEXT: Final = Key("n", "n", "again(1)", "the next match")
PREVIOUS: Final = Key("N", "N", "again(-1)", "the match before")
HELP: Final = Key("question_mark", "?", "help", "this help", "help")
BACK: Final = Key("escape", "esc", "back", "stop the search; back", "back")
QUIT: Final = Key("q", "q", "app.quit", "quit")
THEME: Final = Key("t", "t", "app.theme", "next theme; ctrl+p has all")


class BrowseScreen(Screen[None], Generic[Item]):
    """See the module."""

    KEYS: ClassVar[tuple[Key, ...]] = ()
    #: What the preview says where nothing is listed.
    EMPTY: ClassVar[str] = ""
    DEFAULT_CSS = """
    BrowseScreen {
        & #facts { height: 3; padding: 0 1; }
        & #list { height: 3fr; padding: 0 0 0 1; scrollbar-gutter: stable; }
        & #preview { height: 2fr; padding: 0 1; }
        & #said { height: 1; padding: 0 1; }
        & #keys { height: 1; background: $surface; }
        &.-low #facts { height: 1; }
        &.-low #preview { display: none; }
        &.-ascii #preview, &.-ascii #preview:focus { border-top: ascii $primary; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("tab", "other", show=False, priority=True)]

    def __init__(self) -> None:
        super().__init__()
        for key in self.KEYS:
            if key.action:
                self._bindings.bind(key.keys, key.action, show=False)
        self._pattern = Pattern()
        self._searching = self._looked = False
        #: What the last look, or page, failed with; "" where nothing is wrong.
        self._trouble = ""

    # ---- what subclasses say

    @abstractmethod
    async def fetch(self, start: int, stop: int) -> Mapping[int, Item]:
        """The rows from ``start`` on and below ``stop``. May raise OSError and MessageBufferError."""

    @abstractmethod
    async def look(self) -> None:
        """See what has changed: called at first and about once a second. May raise as :meth:`fetch`."""

    @abstractmethod
    async def find(self, pattern: Pattern, start: int, stop: int) -> int | None:
        """The first row from ``start`` on below ``stop`` that is found, or, where ``stop`` is smaller, the last one
        in front of ``start`` from ``stop`` on. May raise as :meth:`fetch`."""

    @abstractmethod
    def draw(self, number: int, item: Item | None, width: int) -> Line:
        """One row."""

    @abstractmethod
    def heading(self, width: int) -> Line:
        """The line above them."""

    @abstractmethod
    def shown(self, item: Item) -> Shown:
        """What the preview shows."""

    @abstractmethod
    def facts(self, width: int) -> Sequence[Line]:
        """The lines at the top."""

    def legend(self) -> Sequence[Line]:
        """What the help says below the keys."""
        return ()

    # ---- the screen

    def compose(self) -> ComposeResult:
        yield LinesView(id="facts")
        yield MessageList[Item](self.fetch, self.draw, self.heading, id="list")
        yield PreviewPane(id="preview")
        yield LinesView(id="said")
        yield LinesView(id="keys")

    def on_mount(self) -> None:
        self.set_class(self.glyphs.ascii, "-ascii")
        self.list.focus()
        self.set_interval(LOOK, self.look_soon)
        self.look_soon()

    def on_resize(self) -> None:
        self.set_class(self.size.height < 16, "-low")
        self.call_after_refresh(self.show_facts)

    def look_soon(self) -> None:
        """Look now, unless a look is under way."""
        if not any(worker.group == "look" and not worker.is_finished for worker in self.workers):
            self.run_worker(self._look(), group="look")

    @property
    def write(self) -> bool:
        """Whether changes to a buffer are allowed."""
        return bool(getattr(self.app, "write", False))

    @property
    def list(self) -> MessageList[Item]:
        """The list."""
        return cast("MessageList[Item]", self.query_one("#list"))

    @property
    def pane(self) -> PreviewPane:
        """The preview."""
        return self.query_one(PreviewPane)

    @property
    def glyphs(self) -> Glyphs:
        """The signs that the application draws with."""
        return cast("Glyphs", getattr(self.app, "glyphs", UNICODE))

    def say(self, text: str, ink: Ink = "") -> None:
        """One line above the keys; it may hold what came from elsewhere."""
        line: Line = ((clean(text), ink),)
        self.query_one("#said", LinesView).show([crop(line, max(8, self.size.width - 2), self.glyphs.ellipsis)])

    def show_facts(self) -> None:
        """Draw the lines at the top, and the keys."""
        width = max(8, self.size.width - 2)
        self.query_one("#facts", LinesView).show(self.facts(width))
        self.query_one("#keys", LinesView).show([key_line(self.KEYS, self.size.width, write=self.write)])

    def show_row(self) -> None:
        """Preview what is under the cursor."""
        item = self.list.item
        if item is not None:
            self.pane.show(self.shown(item))
        elif not self.list.total:
            self.pane.show(None, empty=self.EMPTY if self._looked else "")

    async def _look(self) -> None:
        try:
            await self.look()
        except (OSError, MessageBufferError) as error:
            self._trouble = reason(error)
            self.say(self._trouble, "bad")
        else:
            self._looked = True
            if self._trouble:
                self._trouble = ""
                self.say("")
            if self.list.stopped:
                self.list.reload()
        self.show_facts()
        self.show_row()

    def on_rows_view_moved(self) -> None:
        self.show_row()

    def on_message_list_arrived(self) -> None:
        self.show_row()

    def on_message_list_failed(self, event: MessageList.Failed) -> None:
        self._trouble = event.reason
        self.say(self._trouble, "bad")

    # ---- keys

    def action_other(self) -> None:
        """The focus goes to the preview, and back."""
        (self.list if self.pane.has_focus or self.has_class("-low") else self.pane).focus()

    def action_view(self) -> None:
        self.pane.next_view()

    def action_copy(self) -> None:
        item = self.list.item
        if item is None:
            return
        shown = self.shown(item)
        if not shown.value:
            self.say(f"{shown.name} has no value to copy", "warn")
            return
        text = shown.value.hex() if self.pane.view == "hex" else shown.value.decode(errors="replace")
        self.app.copy_to_clipboard(text)
        part = f"the first {format_size(len(shown.value))} of " if len(shown.value) < shown.value_size else ""
        self.say(f"copied {part}the value of {shown.name}{' in hexadecimal' if self.pane.view == 'hex' else ''}")

    @work(group="ask")
    async def action_search(self) -> None:
        question = (
            "Search topics, keys and values: a regular expression, case ignored.\n! in front: what does not match."
        )
        pattern = await self.app.push_screen_wait(Ask(question, Pattern.parse, begin=str(self._pattern)))
        if pattern is not None:
            self._pattern = pattern
            if pattern.expression is None:
                self.say("")
            else:
                self._search(1, here=True)

    def action_again(self, step: int) -> None:
        if self._pattern.expression is None:
            self.say("nothing is searched for: / begins a search", "warn")
        else:
            self._search(step)

    def action_help(self) -> None:
        lines: list[Line] = []
        for key in (*MOVES, *self.KEYS):
            told = "" if self.write or not key.changes else " (start mbtui with --write)"
            lines.append(((f"{key.shown:>10}", "strong"), (f"  {key.help}{told}", "")))
        self.app.push_screen(HelpScreen([*lines, *self.legend()]))

    def action_back(self) -> None:
        if self._searching:
            self.workers.cancel_group(self, "search")
        else:
            self.dismiss()

    def progress(self, done: float) -> None:
        """How far the search is."""
        self.say(f"searching {self._pattern}: {100 * done:.0f}% (esc stops)", "note")

    @work(group="search", exclusive=True)
    async def _search(self, step: int, *, here: bool = False) -> None:
        rows, pattern = self.list, self._pattern
        start, stop = (rows.cursor + (0 if here else 1), rows.total) if step > 0 else (rows.cursor, 0)
        self._searching = True
        said = f"{pattern}: no match {'behind' if step > 0 else 'in front of'} this one", "warn"
        try:
            self.progress(0)
            found = await self.find(pattern, start, stop) if start != stop else None
            if found is not None:
                rows.jump(found)
                said = f"{pattern}: found; n next, N before", "note"
        except (OSError, MessageBufferError) as error:
            said = reason(error), "bad"
        except BaseException:
            said = f"{pattern}: the search was stopped", "warn"
            raise
        finally:
            self._searching = False
            if self.is_attached:
                self.say(*cast("tuple[str, Ink]", said))


def key_line(keys: Sequence[Key], width: int, *, write: bool) -> Line:
    """As many of the keys as there is room for, the last one always; without ``write`` none that changes a buffer."""
    last: Line = ()
    pieces: list[tuple[str, Ink]] = []
    named = [key for key in keys if key.bar and (write or not key.changes)]
    size = [len(key.shown) + len(key.bar) + 3 for key in named]
    room = width - (size[-1] if size else 0)
    for key, need in zip(named, size, strict=True):
        piece: Line = ((f" {key.shown}", "strong"), (f" {key.bar} ", "dim"))
        if key is named[-1]:
            last = piece
        elif need <= room:
            pieces += piece
            room -= need
    return (*pieces, *last)
