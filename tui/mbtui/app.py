"""The application: options, themes, the reading thread, and the main screen.

Promises
--------
- The event loop reads no file: :class:`mbtui.scout.Scout` does, on a thread of its own, and what it saw is handed
  over as one message, however much was seen meanwhile.
- Ctrl-C, as a key, ends it; what signals do is said in :mod:`mbtui.departure`.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import Screen

from mbtui.arguments import DEFAULT_THEME, Options
from mbtui.glyphs import ASCII, UNICODE, only_ascii
from mbtui.ink import clean
from mbtui.keys import KEYS
from mbtui.main_screen import MainScreen
from mbtui.orders import Ask, Orders, ask_the_engine
from mbtui.scout import Scout, Sight, Wish
from mbtui.source import Directories, Source
from mbtui.themes import OWN, after, without_colours

if TYPE_CHECKING:
    from mbtui.watcher import Watcher


class DashboardApp(App[int]):
    """``mbtui``. ``scout``: one that is looking already. For tests: a ``source`` of views, a ``clock`` (wall seconds),
    and whom to ``ask`` for changes."""

    TITLE = "mbtui"
    ENABLE_COMMAND_PALETTE = True
    CSS = """
    .-ascii-borders {
        & #panels LinesView { border: ascii $border; }
        & #segments, & #events { border-top: ascii $border; }
        & Vertical, & VerticalScroll { border: ascii $primary; }
    }
    Toast { max-width: 90%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "quit", "Quit", show=False),
        Binding("f8", "picture", "Picture", show=False, priority=True),
    ]

    class Sighted(Message):
        """There is a new sight."""

    def __init__(
        self,
        options: Options,
        *,
        source: Source | None = None,
        scout: Scout | None = None,
        clock: Callable[[], float] = time.time,
        ask: Ask = ask_the_engine,
    ) -> None:
        super().__init__()
        self.options = options
        self.clock = clock
        self.glyphs = ASCII if options.ascii else UNICODE
        self.orders = Orders(self, ask)
        if not options.color:
            without_colours(self)
        for theme in OWN:
            self.register_theme(theme)
        self.theme = options.theme if options.theme in self.available_themes else DEFAULT_THEME
        self._sight: Sight | None = None
        self._told = False
        self.watcher: Watcher | None = None
        self._watching = source is None
        self.main = MainScreen()
        self.scout = scout or Scout(source or Directories(options.directories))
        self.scout.listen(self._tell)
        if scout is None:
            self.scout.start()

    @property
    def write(self) -> bool:
        """Whether changes to a buffer are allowed."""
        return self.options.write

    @property
    def polling(self) -> str:
        """Why a directory is only looked at every second; "" where none is."""
        return self.watcher.polling if self.watcher is not None else ""

    def get_default_screen(self) -> Screen[None]:
        return self.main

    def on_mount(self) -> None:
        if self.options.theme not in self.available_themes:
            self.say(f"no theme {self.options.theme}; the command palette (ctrl+p) lists them", "warning")

    def want(self, wish: Wish) -> None:
        """From now on this is to be seen."""
        self.scout.want(wish)

    def say(self, text: str, severity: Literal["information", "warning", "error"] = "information") -> None:
        """A note for a moment."""
        told = clean(text)
        self.notify(only_ascii(told) if self.glyphs.ascii else told, severity=severity, markup=False)

    def _tell(self, sight: Sight) -> None:
        """On the reading thread. A message that is under way brings what is newest when it is read."""
        if self._watching:
            self._watch(sight)
        self._sight = sight
        if not self._told:
            self._told = True
            self.post_message(self.Sighted())

    def on_dashboard_app_sighted(self) -> None:
        self._told = False
        if self._sight is not None:
            self.main.show(self._sight)

    def _watch(self, sight: Sight) -> None:
        if self.watcher is None:
            from mbtui.watcher import Watcher

            self.watcher = Watcher(self.scout.nudge, poll=self.options.poll)
        self.watcher.follow(view.directory for view in sight.views if not view.error)

    def stop(self) -> None:
        """End the reading."""
        self.scout.stop()
        if self.watcher is not None:
            self.watcher.close()

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        yield SystemCommand("Theme", "Choose a theme", self.action_change_theme)
        if screen is self.main:
            for key in KEYS:
                if key.action not in ("command_palette", "app.theme", "back") and (self.write or not key.changes):
                    yield SystemCommand(
                        f"{key.help[0].upper()}{key.help[1:]}", f"Key {key.shown}", _run(self.main, key.action)
                    )
        else:
            yield SystemCommand("Quit", "Key q", self.action_quit)

    def action_theme(self) -> None:
        self.theme = after(self.theme)

    def action_picture(self) -> None:
        if self.is_web:
            # The directory is the server's: the picture goes to where the person sits.
            picture = io.StringIO(self.export_screenshot())
            self.deliver_text(picture, save_filename="mbtui.svg", open_method="download", mime_type="image/svg+xml")
            return
        try:
            path = self.save_screenshot(path=os.getcwd())
        except OSError as error:
            self.say(f"no picture: {error.strerror or error}", "error")
        else:
            self.say(f"picture: {path}")


def _run(screen: MainScreen, action: str) -> Callable[[], object]:
    return lambda: screen.call_later(screen.run_action, action)
