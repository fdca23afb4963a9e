"""``mb tail``: the last messages on disk, and with ``-f`` those that are appended.

It reads the files and needs no connection to the program that writes them.
"""

from __future__ import annotations

import errno
import os
import select
import shutil
import sys
import time

import click

from mbframework.browse import Entry, Gap, LaneBrowser
from mbframework.cli.lane import lane_option, lane_path, one_line
from mbframework.cli.options import directory_argument
from mbframework.cli.stopping import StopSignal
from mbframework.cli.terminal import narrate, plural
from mbframework.files import Files
from mbframework.transfer import to_line

_LOOK_S = 0.2
_AT_ONCE = 500
#: Bytes of a value that a line for people can need.
_SHOWN = 4096


@click.command()
@directory_argument
@lane_option
@click.option("-n", "--messages", metavar="N", type=click.IntRange(0), default=10, help="How many.  [default: 10]")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is appended, until stopped.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each, as `mb export`.")
def tail(directory: str, lane: str | None, messages: int, follow: bool, as_json: bool) -> None:
    """Print the last messages of the buffer in DIR that are on disk, delivered or not.

    While a buffer is live its messages do not touch the disk, and are not shown.

    Exit status 0; 2: not a buffer, or no such lane.
    """
    files = Files()
    browser = LaneBrowser(lane_path(files, directory, lane), files)
    tailing = _Tail(browser, as_json)
    with StopSignal() as stop:
        # In this order: what the head counts is in the segments by the time that their end is looked for.
        spooled, _ = browser.spooled()
        end = browser.end
        tailing.show_last(end, messages, spooled)
        if not follow:
            return
        narrate("following what is buffered on disk; while the buffer is live, messages go past it and are not shown")
        while os.path.isdir(browser.path):
            begun = time.monotonic()
            found = tailing.show_new()
            # What a killed program was filling before the last boot takes a search at each look.
            pause = 0.0 if found else max(_LOOK_S, 10 * (time.monotonic() - begun))
            if _ended(stop, pause):
                return
        narrate(f"{browser.path} is gone")


def _ended(stop: StopSignal, seconds: float) -> bool:
    """Whether, within the time, a signal has come. Raises BrokenPipeError: nobody reads stdout any more."""
    poll = select.poll()
    poll.register(stop.fileno(), select.POLLIN)
    # Of a pipe whose reader has gone the kernel tells unasked.
    output = sys.stdout.fileno() if sys.stdout is not None else -1
    if output >= 0:
        poll.register(output, 0)
    ready = dict(poll.poll(1000 * seconds))
    if stop.fileno() in ready:
        return True
    if output in ready:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
    return False


class _Tail:
    """Prints messages, and tells what it could not."""

    def __init__(self, browser: LaneBrowser, as_json: bool) -> None:
        self._browser = browser
        self._as_json = as_json
        self._limit = None if as_json else _SHOWN
        self._width = shutil.get_terminal_size((120, 24)).columns
        self._lane = os.path.basename(browser.path)
        #: The next sequence, and the ordinal that it has where nothing comes and goes unseen.
        self._next = 1
        self._ordinal: int | None = None

    def show_last(self, end: int, count: int, spooled: int) -> None:
        """The last ``count`` in front of ``end``, and what is missing behind them of ``spooled`` messages; the next
        call goes on there."""
        at, asked = end, count
        pages: list[tuple[int, int]] = []
        while count > 0 and (page := self._browser.before(at, count, value_limit=_SHOWN)):
            count -= len(page)
            first = page[0].first if isinstance(page[0], Gap) else page[0].sequence
            pages.append((first, at))
            at = first
        self._next = end
        for first, stop in reversed(pages):
            self._show(first, stop)
        self._next = max(self._next, end)
        # Nothing on disk: everything that waits is missing.
        reached = self._ordinal if pages else 0
        missing = self._browser.settled().waiting(reached, spooled) if asked and reached is not None else 0
        if missing:
            narrate(f"{plural(missing, 'message')} from {self._next} on cannot be read: missing or unreadable segments")

    def _show(self, first: int, stop: int) -> None:
        while first < stop and (page := self._browser.page(first, _AT_ONCE, value_limit=self._limit)):
            for item in page:
                first = (item.last if isinstance(item, Gap) else item.sequence) + 1
                if first > stop:
                    return
                self._print(item)

    def show_new(self) -> bool:
        """Everything from the next sequence on; whether there was anything."""
        page = self._browser.page(self._next, _AT_ONCE, value_limit=self._limit)
        for item in page:
            if isinstance(item, Entry) and self._ordinal is not None and item.ordinal > self._ordinal:
                missed = item.ordinal - self._ordinal
                narrate(f"{plural(missed, 'message')} came and went between two looks")
            self._print(item)
        return bool(page)

    def _print(self, item: Entry | Gap) -> None:
        if isinstance(item, Gap):
            narrate(f"{plural(item.messages, 'message')} from {item.first} to {item.last} cannot be read: {item.why}")
            self._next = max(self._next, item.last + 1)
            self._ordinal = None
            return
        click.echo(to_line(item, self._lane) if self._as_json else one_line(item, self._width))
        self._next, self._ordinal = max(self._next, item.sequence + 1), item.ordinal + 1
