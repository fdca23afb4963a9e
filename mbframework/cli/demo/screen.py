"""What the audience sees on stderr: numbered steps, and below each how the buffer stands.

On a terminal that line is kept up to date in place; elsewhere there is one for each state and one at a step's end.
"""

from __future__ import annotations

import os
import sys
import textwrap

import click

from mbframework.cli.terminal import narrate, printable
from mbframework.status import LaneStatus

_COLORS = {"live": "green", "draining": "cyan", "buffering": "yellow", "dead": "red", "blocked": "red"}
_WIDTH = 80
_CLEAR = "\r\x1b[K"


class Screen:
    """One show."""

    def __init__(self) -> None:
        terminal = sys.stderr is not None and sys.stderr.isatty()
        self._moves = terminal and os.environ.get("TERM", "dumb") != "dumb"
        self._steps = 0
        self._state = ""
        self._open = ""

    def say(self, text: str) -> None:
        """A paragraph."""
        self.end_step()
        for line in textwrap.wrap(text, _WIDTH, break_on_hyphens=False):
            narrate(line)

    def step(self, title: str, text: str) -> None:
        """The next step, and what is going to be seen."""
        self.end_step()
        self._steps += 1
        click.echo(err=True)
        click.echo(f"{click.style(f'{self._steps}. {title}', bold=True)}", err=True)
        for line in textwrap.wrap(text, _WIDTH - 3, break_on_hyphens=False):
            narrate(f"   {line}")

    def show(self, lane: LaneStatus) -> None:
        """How the buffer stands now."""
        line = _line(lane)
        if self._moves:
            click.echo(f"{_CLEAR}{line}", nl=False, err=True)
        elif lane.state != self._state:
            click.echo(line, err=True)
            line = ""
        self._state, self._open = lane.state, line

    def end_step(self) -> None:
        """Leave the last line as it is."""
        if self._open:
            click.echo("" if self._moves else self._open, err=True)
        self._open = self._state = ""


def _line(lane: LaneStatus) -> str:
    state = click.style(f"{printable(lane.state):10}", fg=_COLORS.get(lane.state), bold=True)
    files = "1 file" if lane.segments == 1 else f"{lane.segments} files"
    return (
        f"   {state} accepted {lane.accepted:>7,}   delivered {lane.delivered:>7,}"
        f"   waiting {lane.resident:>7,}   {files}"
    )
