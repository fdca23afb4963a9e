"""``mb verify``: is every byte of a buffer what was written?"""

from __future__ import annotations

import json
from collections.abc import Iterator

import click

from mbframework.cli import Failure
from mbframework.cli.options import directory_argument
from mbframework.cli.progress import progress_of
from mbframework.cli.reason import reason
from mbframework.cli.terminal import plural, printable
from mbframework.errors import MessageBufferError
from mbframework.files import Files
from mbframework.units import format_size
from mbframework.verify import BufferCheck, LaneCheck, check_buffer, size_of

DAMAGED, UNREADABLE = 1, 3


class Unchecked(Failure):
    """The buffer cannot be checked."""

    exit_code = UNREADABLE


@click.command()
@directory_argument
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def verify(ctx: click.Context, directory: str, as_json: bool) -> None:
    """Read everything that the buffer in DIR has on disk, also while a program has it open.

    Exit status 0: intact. 1: damaged; what cannot be read is told as ranges of sequences. 3: it cannot be checked.
    """
    files = Files()
    try:
        with progress_of(lambda: size_of(files, directory), "checking") as progress:
            check = check_buffer(directory, files, progress)
    except (MessageBufferError, OSError) as error:
        raise Unchecked(printable(reason(error))) from error
    if as_json:
        click.echo(json.dumps(check.as_dict(), indent=2))
    else:
        for line in report(check):
            click.echo(line)
    ctx.exit(UNREADABLE if check.errors else 0 if check.intact else DAMAGED)


def report(check: BufferCheck) -> Iterator[str]:
    """The report for people."""
    yield printable(check.directory)
    for damage in check.damages:
        yield f"  {_bad(printable(damage.sentence))}"
    for lane in check.lanes:
        yield ""
        yield from _lane(lane)
    yield ""
    if check.errors:
        yield "not everything could be checked"
    elif check.intact:
        yield "intact"
    else:
        lost = sum(each.messages for lane in check.lanes for each in lane.all_damages)
        yield f"damaged: {plural(lost, 'message')} cannot be read; `mb repair DIR` tells what can be mended"


def _lane(lane: LaneCheck) -> Iterator[str]:
    total = sum(segment.messages for segment in lane.segments)
    yield f"{printable(lane.name)}: {plural(len(lane.segments), 'segment')}, {plural(total, 'message')}"
    if lane.error:
        yield f"  {_bad(f'cannot be checked: {printable(lane.error)}')}"
    for segment in lane.segments:
        state = "ok" if not segment.damages else _bad("damaged")
        yield f"  {segment.name}  {format_size(segment.size):>9}  {segment.messages:>11,}  {state}"
        for damage in segment.damages:
            yield f"    {printable(damage.sentence)}"
    for damage in lane.damages:
        yield f"  {_bad(printable(damage.sentence))}"


def _bad(text: str) -> str:
    return click.style(text, fg="red")
