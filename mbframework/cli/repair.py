"""``mb repair``: mend what ``mb verify`` finds; without ``--yes`` it only tells."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click

from mbframework.cli.options import directory_argument
from mbframework.cli.progress import progress_of
from mbframework.cli.reason import reason
from mbframework.cli.terminal import narrate, plural, printable
from mbframework.errors import DirectoryError
from mbframework.files import Files
from mbframework.repair import Repair, plan
from mbframework.repair import repair as mend
from mbframework.verify import Progress, check_buffer, size_of


@click.command()
@directory_argument
@click.option("--yes", is_flag=True, help="Do it; otherwise it is only told.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def repair(ctx: click.Context, directory: str, yes: bool, as_json: bool) -> None:
    """Make the damaged buffer in DIR whole again: every intact message is kept, what is lost is told and counted.

    No program may have it open. What is changed is kept under DIR/.repair-TIME.

    Exit status 0: nothing is to be done, or it is done. 1: there is damage, and --yes was not given; or some is left.
    2: it cannot be repaired.
    """
    files = Files()
    try:
        with progress_of(lambda: (3 if yes else 1) * size_of(files, directory), "reading") as progress:
            result = mend(directory, files, progress) if yes else _plan(directory, files, progress)
    except PermissionError as error:
        raise DirectoryError(reason(error), path=directory) from error
    if as_json:
        click.echo(json.dumps(result.as_dict(), indent=2))
    else:
        for line in report(result):
            click.echo(line)
    if result.steps and not yes:
        narrate("nothing was changed; with --yes it is")
    whole = result.before.intact or (result.after is not None and result.after.intact)
    ctx.exit(0 if whole else 1)


def _plan(directory: str, files: Files, progress: Progress) -> Repair:
    check = check_buffer(directory, files, progress)
    if check.errors:
        raise DirectoryError(f"{directory} cannot be repaired: {'; '.join(check.errors)}", path=directory)
    return plan(check)


def report(result: Repair) -> Iterator[str]:
    """The report for people."""
    if result.before.intact:
        yield "intact: nothing is to be done"
        return
    yield from (printable(step) for step in result.steps)
    verb = "are lost" if result.done else "cannot be read now; what of them can be brought back will be"
    for lane, damages in result.lost.items():
        total = sum(each.messages for each in damages)
        yield f"lane {printable(lane)}: {plural(total, 'message')} {verb}"
        yield from (f"  {printable(each.sentence)}" for each in damages)
    if result.done:
        yield f"what was changed is kept in {printable(result.copy)}"
        yield "intact now" if result.after is not None and result.after.intact else "damage is left: see `mb verify`"
