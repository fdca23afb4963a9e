"""``mb peek``: one message on disk, with everything that is known of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import click

from mbframework.browse import Entry, Gap, LaneBrowser, Settled
from mbframework.cli.lane import instant, lane_option, lane_path, preview
from mbframework.cli.options import directory_argument
from mbframework.cli.terminal import narrate, plural, printable
from mbframework.errors import MessageError
from mbframework.files import Files
from mbframework.transfer import facts_of, printed
from mbframework.units import format_size

_SHOWN = 1 << 16
_LABEL = 12
_FORMATS = ("text", "json", "hex")


@click.command()
@directory_argument
@lane_option
@click.option("--at", metavar="SEQ", type=click.IntRange(0), help="Its sequence.  [default: the next to be delivered]")
@click.option("--format", "form", type=click.Choice(_FORMATS), help="How to show the value.  [default: what it is]")
@click.option("--all", "whole", is_flag=True, help="Show the whole value, however long.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON, as `mb export`, with `standing`.")
@click.pass_context
def peek(
    ctx: click.Context, directory: str, lane: str | None, at: int | None, form: str | None, whole: bool, as_json: bool
) -> None:
    """Show one message of the buffer in DIR; where it is not on disk any more, the next one that is.

    Exit status 1: nothing is on disk at or behind that sequence.
    """
    files = Files()
    path = lane_path(files, directory, lane)
    browser, settled = LaneBrowser(path, files), Settled.of(files, path)
    upcoming = next_waiting(browser, settled)
    if at is None:
        at = upcoming.sequence if upcoming is not None else settled.next
    entry = _find(browser, at)
    if entry is None:
        narrate(f"nothing is on disk from sequence {at} on")
        ctx.exit(1)
    standing = standing_of(entry, settled, upcoming)
    if as_json:
        click.echo(printed(facts_of(entry) | {"lane": os.path.basename(path), "standing": standing}))
        return
    for line in report(entry, standing):
        click.echo(line)
    shown = entry.value if whole or entry.value is None else entry.value[:_SHOWN]
    for line in () if shown is None else value_lines(entry.value or b"", shown, form):
        click.echo(line)
    if shown is not None and len(shown) < entry.value_size:
        narrate(f"{format_size(entry.value_size - len(shown))} more; --all shows them")


def next_waiting(browser: LaneBrowser, settled: Settled) -> Entry | None:
    """The first message that has not left the lane; None where none waits on disk."""
    # As a rule it is the first one, and they may be large.
    at, limit = settled.next, 1
    while page := browser.page(at, limit, value_limit=0):
        for item in page:
            if isinstance(item, Entry) and not settled.has(item):
                return item
        last = page[-1]
        at, limit = (last.last if isinstance(last, Gap) else last.sequence) + 1, 100
    return None


def standing_of(entry: Entry, settled: Settled, upcoming: Entry | None) -> str:
    """``"delivered"`` (or gone another way), ``"next"`` or ``"pending"``."""
    if settled.has(entry):
        return "delivered"
    return "next" if upcoming is not None and entry.sequence == upcoming.sequence else "pending"


def report(entry: Entry, standing: str) -> Iterator[str]:
    """Everything but the value."""
    yield _row("sequence", f"{entry.sequence} ({standing})")
    yield _row("topic", printable(entry.topic))
    yield _row("key", "(none)" if entry.key is None else f"{preview(entry.key, 200)} ({format_size(len(entry.key))})")
    yield _row("accepted", instant(entry.accepted))
    if entry.timestamp is not None:
        yield _row("timestamp", instant(entry.timestamp))
    if entry.partition is not None:
        yield _row("partition", str(entry.partition))
    for name, value in entry.headers:
        yield _row("header", f"{printable(name)} = {preview(value, 200)}")
    yield _row("size", f"{format_size(entry.size)}, of which the value has {format_size(entry.value_size)}")
    yield _row("stored", f"segment {entry.segment}, offset {entry.offset}, ordinal {entry.ordinal}")
    if entry.value is None:
        yield _row("value", "(none): a tombstone")


def value_lines(value: bytes, shown: bytes, form: str | None) -> Iterator[str]:
    """A value as text, JSON or hexadecimal; ``shown`` is its front, or all of it.

    :raises MessageError: it is not what was asked for.
    """
    if form == "json":
        try:
            yield from json.dumps(json.loads(value), indent=2).replace("\x7f", "\\u007f").splitlines()
        except (ValueError, RecursionError) as error:
            raise MessageError(f"the value is not JSON: {error}; try --format text or hex") from None
        return
    try:
        text = shown.decode() if len(shown) == len(value) else _front(shown)
    except UnicodeDecodeError:
        if form == "text":
            raise MessageError("the value is not UTF-8; try --format hex") from None
        text = None
    if text is None or form == "hex":
        for start in range(0, len(shown), 16):
            row = shown[start : start + 16]
            letters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
            yield f"{start:08x}  {row.hex(' '):<47}  {letters}"
        return
    for line in text.split("\n"):
        yield printable(line)


def _front(shown: bytes) -> str:
    """Text whose last character may have been cut. Raises UnicodeDecodeError."""
    try:
        return shown.decode()
    except UnicodeDecodeError as error:
        if error.start < len(shown) - 3:
            raise
        return shown[: error.start].decode()


def _find(browser: LaneBrowser, at: int) -> Entry | None:
    """The message at a sequence, or the next one; what is between is told."""
    asked = at
    while page := browser.page(at, 1):
        item = page[0]
        if isinstance(item, Entry):
            if item.sequence != asked:
                narrate(f"sequence {asked} is not on disk; this is the next one that is")
            return item
        narrate(f"{plural(item.messages, 'message')} from {item.first} to {item.last} cannot be read: {item.why}")
        at = item.last + 1
    return None


def _row(label: str, text: str) -> str:
    return f"{label:<{_LABEL}}{text}"
