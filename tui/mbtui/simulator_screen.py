"""The simulator's screen: sliders and buttons that act on a running simulation, gauges and lists that show it.

Promises
--------
- Every control works by mouse and by keyboard, and each has a word beside its colour.
- The event loop neither writes to the buffer nor reads its directory: it draws the simulation's latest picture.
- Texts of providers are drawn as text: never as markup, never raw.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import ClassVar

from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.css.query import NoMatches
from textual.widgets import Button, Footer, Static

from mbframework.cli.terminal import printable
from mbframework.config import Mode
from mbframework.errors import MessageBufferError
from mbtui import simulator_lines as lines
from mbtui.figures import rate
from mbtui.glyphs import ASCII, UNICODE
from mbtui.lines_view import LinesView
from mbtui.simulation import BATCH_MESSAGES, LOOK_EVERY_S, MODES, Simulation
from mbtui.slider import LogScale, Slider
from mbtui.themes import without_colours

PACE = LogScale(1, 20_000, 44)
DELAY_MS = LogScale(1, 5_000, 38)


class SimulatorApp(App[None]):
    """Shows ``simulation``, which the caller opens and closes."""

    TITLE = "mbtui --simulate"
    CSS_PATH = "simulator.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (96, "-wide")]  # noqa: RUF012  (as the base class declares it)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "provider", "Provider up/down"),
        Binding("e", "error", "Inject error"),
        Binding("m", "next_mode", "Next mode"),
        Binding("t", "theme", "Theme"),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("q,ctrl+c", "quit", "Quit", key_display="q"),
    ]

    def __init__(
        self, simulation: Simulation, *, color: bool = True, ascii: bool = False, theme: str = "textual-dark"
    ) -> None:
        super().__init__()
        if not color:
            without_colours(self)
        self.simulation = simulation
        self.glyphs = ASCII if ascii else UNICODE
        self._theme = theme
        self._delay = 0.0

    def compose(self) -> ComposeResult:
        plain = self.glyphs.ascii
        yield LinesView(id="banner")
        with Horizontal(id="gauges"):
            yield LinesView(id="in")
            yield LinesView(id="out")
        with Vertical(id="controls"):
            yield Slider("input pace", PACE, _pace_words, value=self.simulation.pace, ascii=plain, id="pace")
            yield Slider("provider delay", DELAY_MS, _delay_words, ascii=plain, id="delay")
            with Horizontal(id="buttons"):
                yield Button("", compact=True, id="provider")
                yield Button("inject error", compact=True, id="error", tooltip="The provider's next call fails.")
                yield Static("mode", id="mode-label")
                for mode in MODES:
                    yield Button("", compact=True, id=f"mode-{mode}", classes="mode", tooltip=_MODE_HELP[mode])
        yield LinesView(id="accounts")
        with VerticalScroll(id="list"):
            yield LinesView(id="segments")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.theme = self._theme
        self.set_class(self.glyphs.ascii, "-ascii")
        self.query_one("#in").border_title = "IN"
        self.query_one("#pace").focus()
        self._draw()
        self.set_interval(LOOK_EVERY_S, self._draw)

    def on_resize(self) -> None:
        # Once the new sizes are in force.
        self.call_after_refresh(self._draw)

    # ---- drawing

    def _draw(self) -> None:
        # While it ends, its parts go one by one.
        with suppress(NoMatches):
            self._draw_all()

    def _draw_all(self) -> None:
        picture, glyphs, now = self.simulation.picture, self.glyphs, time.time()
        width = self.size.width - 2
        self._lines("banner").show(lines.banner(picture, self.simulation.provider, now=now, width=width, glyphs=glyphs))
        top = lines.full_scale(picture, self._lines("in").size.width)
        for name, rates, rate_now, total in (
            ("in", picture.incoming, picture.in_rate, picture.status.accepted),
            ("out", picture.outgoing, picture.out_rate, picture.status.delivered),
        ):
            size = self._lines(name).size
            self._lines(name).show(
                lines.gauge(rates, rate_now, total, top, width=size.width, height=size.height, glyphs=glyphs)
            )
        self.query_one("#out").border_title = Content(_out_title(self._delay))
        self._lines("accounts").show(lines.accounts(picture, width))
        self._lines("segments").show(lines.segments(picture.segments, self.query_one("#list").size.width - 2, glyphs))
        self._show_controls()

    def _show_controls(self) -> None:
        # As they were set, not as the picture, which is a moment older, has them.
        down, mode = self.simulation.down, self.simulation.mode
        button = self.query_one("#provider", Button)
        sign = self.glyphs.states["blocked" if down else "live"]
        _label(button, f"{sign} provider {'DOWN' if down else 'up  '}")
        button.set_class(down, "-down")
        for each in MODES:
            chosen = each == mode
            radio = self.query_one(f"#mode-{each}", Button)
            _label(radio, f"({'*' if self.glyphs.ascii else '•'}) {each}" if chosen else f"( ) {each}")
            radio.set_class(chosen, "-chosen")

    def _lines(self, name: str) -> LinesView:
        return self.query_one(f"#{name}", LinesView)

    # ---- controls

    @on(Slider.Changed, "#pace")
    def _pace(self, event: Slider.Changed) -> None:
        self.simulation.set_pace(event.value)

    @on(Slider.Changed, "#delay")
    def _set_delay(self, event: Slider.Changed) -> None:
        self._delay = event.value / 1000
        self.simulation.set_delay(self._delay)
        self._draw()

    @on(Button.Pressed, "#provider")
    def action_provider(self) -> None:
        """The provider goes away, or comes back."""
        self.simulation.set_down(not self.simulation.down)
        self._show_controls()

    @on(Button.Pressed, "#error")
    def action_error(self) -> None:
        """The provider's next call fails."""
        self.simulation.inject_error()
        self.notify("The provider's next call fails.", title="Error injected", timeout=3, markup=False)

    @on(Button.Pressed, ".mode")
    async def _mode(self, event: Button.Pressed) -> None:
        for mode in MODES:
            if event.button.id == f"mode-{mode}":
                await self._change_mode(mode)

    async def action_next_mode(self) -> None:
        """The mode to the right of the present one."""
        at = MODES.index(self.simulation.mode)
        await self._change_mode(MODES[(at + 1) % len(MODES)])

    async def _change_mode(self, mode: Mode) -> None:
        try:
            await asyncio.to_thread(self.simulation.set_mode, mode)
        except MessageBufferError as error:
            self.notify(printable(str(error)), title=f"Not {mode} now", severity="warning", markup=False)
        self._show_controls()

    def action_theme(self) -> None:
        """From dark to light and back."""
        self.theme = "textual-light" if self.current_theme.dark else "textual-dark"

    def action_help(self) -> None:
        """What the keys do."""
        self.notify(_HELP, title="Keys", timeout=12, markup=False)


_MODE_HELP: dict[str, str] = {
    "buffer": "Past the disk while the provider answers; to disk until it has caught up.",
    "always": "Everything goes to disk first.",
    "block": "write() waits while the provider is down; nothing is kept on disk.",
    "raise": "write() raises while the provider is down; nothing is kept on disk.",
}
_HELP = """tab          to the next control
left, right  move a slider a step
page up/dn   move it five steps
home, end    off, and the most
p  provider up or down
e  inject an error
m  next mode
t  dark or light
q  quit, and remove all of it
The mouse works on all of them."""


def _pace_words(value: float) -> str:
    return f"{value:,.0f} msg/s" if value else "off"


def _delay_words(value: float) -> str:
    return f"{value:,.0f} ms/call"


def _out_title(delay: float) -> str:
    """With a delay, what the provider takes at most: calls of BATCH_MESSAGES messages, one after the other."""
    return f"OUT, at most {rate(BATCH_MESSAGES / delay)} msg/s" if delay else "OUT"


def _label(button: Button, text: str) -> None:
    # As plain content, and only where it changes: a label that is set again is laid out again.
    if str(button.label) != text:
        button.label = Content(text)
