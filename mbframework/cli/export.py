"""``mb export``: messages on disk as lines of JSON, which ``mb import`` takes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

import click

from mbframework.browse import Entry, Gap, LaneBrowser, Settled
from mbframework.cli.lane import lane_option, lane_path, lanes_in
from mbframework.cli.options import directory_argument
from mbframework.cli.progress import progress_of
from mbframework.cli.terminal import narrate, plural
from mbframework.deadstore import DeadStore, Letter
from mbframework.errors import ConfigurationError
from mbframework.files import Files
from mbframework.spans import count
from mbframework.spool.layout import dead_path
from mbframework.transfer import to_line, walk

_AT_ONCE = 1000
_LETTERS_AT_ONCE = 50


@click.command()
@directory_argument
@lane_option
@click.option("--all", "everything", is_flag=True, help="Everything on disk, what is delivered too.")
@click.option("--from", "first", metavar="SEQ", type=click.IntRange(0), help="The first sequence; implies --all.")
@click.option("--to", "last", metavar="SEQ", type=click.IntRange(0), help="The last sequence; implies --all.")
@click.option("--dead", is_flag=True, help="The dead letters instead.")
@click.pass_context
def export(
    ctx: click.Context, directory: str, lane: str | None, everything: bool, first: int | None, last: int | None,
    dead: bool,
) -> None:  # fmt: skip
    """Print what waits in the buffer in DIR, one line of JSON for each message; of every lane, unless one is named.

    It changes nothing: what is exported is still delivered.

    Exit status 1: some could not be read, or are missing, which is told; the others are printed.
    """
    files = Files()
    ranged = first is not None or last is not None
    if dead and (everything or ranged):
        raise ConfigurationError("--dead goes with --lane alone; dead letters have numbers of their own")
    names = lanes_in(files, directory)
    if lane is not None or ranged:
        # Sequences are those of one lane.
        names = [os.path.basename(lane_path(files, directory, lane))]
    told = _Told()
    for name in names:
        path = os.path.join(os.path.abspath(directory), name)
        if dead:
            _dead(DeadStore(files, dead_path(path)), name, told)
        else:
            settled = None if everything or ranged else Settled.of(files, path)
            _messages(LaneBrowser(path, files), name, settled, first or 1, last, told)
    narrate(f"{plural(told.printed, 'message')} exported" + (f", {told.missing:,} unreadable" if told.missing else ""))
    ctx.exit(1 if told.missing else 0)


class _Told:
    printed = 0
    missing = 0


def _dead(store: DeadStore, lane: str, told: _Told) -> None:
    expected, before = count(store.ids()), told.printed
    letters = store.letters()
    if sys.stdout.isatty():
        _print(letters, lane, told)
    else:
        with progress_of(lambda: expected, f"lane {lane}") as progress:
            _print(_counted_letters(letters, progress), lane, told)
    missing = expected - (told.printed - before)
    if missing > 0:
        told.missing += missing
        narrate(f"lane {lane}: {plural(missing, 'dead letter')} cannot be read")


def _messages(
    browser: LaneBrowser, lane: str, settled: Settled | None, first: int, last: int | None, told: _Told
) -> None:
    """The messages of a lane from ``first`` to ``last``; of those that are ``settled``, none."""
    end = browser.end if last is None else last + 1
    first = first if settled is None else max(1, settled.next)
    begin = max(first, browser.first)
    items = walk(browser, first, last)
    if settled is not None:
        items = (item for item in items if isinstance(item, Gap) or not settled.has(item))
    if sys.stdout.isatty():
        # A bar and lines on one terminal would run into each other.
        _print(items, lane, told)
        return
    with progress_of(lambda: max(0, end - begin), f"lane {lane}") as progress:
        _print(_counted(items, begin, progress), lane, told)


def _counted(items: Iterator[Entry | Gap], begin: int, progress: Callable[[int], object]) -> Iterator[Entry | Gap]:
    at = reached = begin
    for number, item in enumerate(items):
        yield item
        reached = (item.last if isinstance(item, Gap) else item.sequence) + 1
        if number % _AT_ONCE == 0:
            progress(max(0, reached - at))
            at = max(at, reached)
    progress(max(0, reached - at))


def _counted_letters(letters: Iterator[Letter], progress: Callable[[int], object]) -> Iterator[Letter]:
    number = 0
    for number, letter in enumerate(letters, 1):
        yield letter
        if number % _LETTERS_AT_ONCE == 0:
            progress(_LETTERS_AT_ONCE)
    progress(number % _LETTERS_AT_ONCE)


def _print(items: Iterator[Entry | Gap] | Iterator[Letter], lane: str, told: _Told) -> None:
    for item in items:
        if isinstance(item, Gap):
            told.missing += item.messages
            narrate(
                f"lane {lane}: {plural(item.messages, 'message')} from {item.first} to {item.last} cannot be read: "
                f"{item.why}"
            )
        else:
            sys.stdout.write(to_line(item, lane) + "\n")
            told.printed += 1
    sys.stdout.flush()
