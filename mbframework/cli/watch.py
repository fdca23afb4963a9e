"""``mb status --watch``: the report again and again.

Promises
--------
- On a terminal it is drawn over the one before, in one write, at the top of the screen, cut to its size; what stood on
  the screen can be scrolled back to. Elsewhere one report, or line of JSON, is printed for each look, and flushed.
- A directory that disappears is told, and shown again when it is back. One that is not there at first is a mistake.
- SIGINT and SIGTERM end it with exit status 0, and leave the last report where it is.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import click

from mbframework.cli.status import WATCH, report
from mbframework.cli.stopping import StopSignal
from mbframework.cli.terminal import printable
from mbframework.errors import ConfigurationError
from mbframework.monitor import LaneView, Monitor, View
from mbframework.status import BufferStatus, read
from mbframework.units import format_size, format_time, parse_time

_LEAST_S = 0.1


def watching(directory: str, interval: str, *, as_json: bool) -> None:
    """Print reports until a signal comes.

    :raises ConfigurationError: the interval is none.
    :raises DirectoryError: there is no buffer to begin with.
    """
    within = f"expected a time from {format_time(_LEAST_S)} to 1d, such as '--watch {WATCH}', behind DIR"
    seconds = parse_time(interval, name="--watch", within=within)
    if not _LEAST_S <= seconds <= 86_400:
        raise ConfigurationError(f"--watch: {interval!r}: {within}", option="watch")
    read(directory)
    with StopSignal() as stop, closing(Monitor(directory)) as monitor:
        screen = _Screen(seconds) if not as_json and _on_terminal() else None
        while not stop.number:
            begun = time.monotonic()
            view = monitor.look()
            if screen is not None:
                screen.draw(list(_lines(view)))
            elif as_json:
                click.echo(json.dumps(as_dict(view)))
            else:
                click.echo("\n".join([_instant(view.at), *_lines(view), ""]))
            pause = max(0.0, seconds - (time.monotonic() - begun))
            select.select([stop.fileno()], [], [], pause)
        if screen is not None:
            screen.leave()


def as_dict(view: View) -> dict[str, Any]:
    """A look, for JSON: what `mb status --json` has, ``at``, and of each lane ``verdict`` and ``rates``."""
    if view.error:
        return {"schema": 1, "at": view.at, "directory": view.directory, "error": view.error}
    found = _status(view).as_dict()
    for lane, told in zip(view.lanes, found["lanes"], strict=True):
        told["verdict"] = {"kind": lane.verdict.kind, "text": lane.verdict.text, "seconds": lane.verdict.seconds}
        told["rates"] = {
            name: None if rates is None else {"messages": rates.messages, "bytes": rates.size}
            for name, rates in (("in", lane.incoming), ("out", lane.outgoing))
        }
    return {"schema": found.pop("schema"), "at": view.at} | found


def _status(view: View) -> BufferStatus:
    return BufferStatus(view.directory, view.id, tuple(lane.status for lane in view.lanes), view.problems)


def _lines(view: View) -> Iterator[str]:
    if view.error:
        yield printable(view.directory)
        yield click.style(printable(view.error), fg="red")
        return
    yield from report(_status(view), view.at, {lane.name: _outlook(lane) for lane in view.lanes})


def _outlook(lane: LaneView) -> str:
    """Such as "draining, ETA 2h8m (in 1,812/s, out 2,605/s, 567KiB/s)"."""
    pace = []
    for name, rates in (("in", lane.incoming), ("out", lane.outgoing)):
        if rates is not None and rates.messages:
            size = f", {format_size(int(rates.size))}/s" if rates.size else ""
            number = f"{rates.messages:,.0f}" if rates.messages >= 10 else f"{rates.messages:.1f}"
            pace.append(f"{name} {number}/s{size}")
    return lane.verdict.text + (f" ({'; '.join(pace)})" if pace else "")


def _instant(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        # A clock that no calendar has.
        return f"{at:.0f}"


def _on_terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


class _Screen:
    """The terminal on stdout."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._begun = False
        context = click.get_current_context(silent=True)
        self._colours = context is None or context.color is not False

    def draw(self, lines: Sequence[str]) -> None:
        """Put these lines over those before."""
        rows = shutil.get_terminal_size().lines
        now = _instant(time.time())
        head = f"{now}  every {format_time(self._interval)}; Ctrl-C ends it"
        frame = frame_of([head, "", *lines], rows, colours=self._colours)
        # What stands there moves up, out of sight.
        sys.stdout.write(frame if self._begun else "\n" * (rows - 1) + frame)
        sys.stdout.flush()
        self._begun = True

    def leave(self) -> None:
        """Make room for the prompt: the terminal has echoed the key."""
        sys.stdout.write("\r\x1b[K")
        sys.stdout.flush()


def frame_of(lines: Sequence[str], rows: int, *, colours: bool) -> str:
    """All of a screen with so many rows, in the order in which a terminal takes it without flicker: each line is
    written over the one before, and what is left of that is erased behind it. The terminal cuts lines that are too
    long. Pure."""
    shown = list(lines)
    room = max(1, rows - 1)
    if len(shown) > room:
        hidden = len(shown) - room + 1
        shown = [*shown[: room - 1], f"… {hidden} more lines: a higher window shows them"]
    texts = shown if colours else [click.unstyle(line) for line in shown]
    return "\x1b[H\x1b[?7l" + "".join(f"{text}\x1b[K\n" for text in texts) + "\x1b[J\x1b[?7h"
