"""``mb bench``: how fast it is on this machine, beside what else there is.

Each benchmark is a command whose options are the fields of its ``Settings``; it is imported when it is called for.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mbframework.bench import BENCHMARKS, module_of
from mbframework.cli import Failure
from mbframework.cli.terminal import narrate, printable

if TYPE_CHECKING:
    from mbframework.bench.report import Report

_directory = click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, writable=True),
    default=None,
    help="Where buffers are made.  [default: the system's place for temporary files]",
)


#: Nothing that can be counted or timed may be nothing.
_TYPES = {int: click.IntRange(min=1), float: click.FloatRange(min=0, min_open=True)}


class _Benchmarks(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*BENCHMARKS, "run", "report"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return _command(cmd_name) if cmd_name in BENCHMARKS else super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # Without importing what all of them need.
        with formatter.section("Benchmarks"):
            formatter.write_dl([(name, about) for name, (_, about) in BENCHMARKS.items()])
        with formatter.section("Commands"):
            formatter.write_dl([(each.name or "", each.get_short_help_str(90)) for each in (run, report)])


@click.group(cls=_Benchmarks)
def bench() -> None:
    """Measure how fast it is on this machine, beside what else there is.

    The other clients and queues come with the extra ``bench``; what is missing is said.
    """


def _command(name: str) -> click.Command:
    module = module_of(name)
    options = [
        click.Option(
            [_flag(field.name, field.default)],
            default=field.default,
            show_default=field.default not in ("", True, False),
            is_flag=isinstance(field.default, bool),
            type=_TYPES.get(type(field.default)),
            help=field.metadata["meaning"],
        )
        for field in dataclasses.fields(module.Settings)
    ]

    @_directory
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    def command(directory: str | None, as_json: bool, **chosen: Any) -> None:
        found = _measure(name, chosen, directory)
        click.echo(found.json() if as_json else found.text())

    made = click.command(name, help=module.__doc__, short_help=BENCHMARKS[name][1])(command)
    made.params[:0] = options
    return made


def _flag(name: str, default: object) -> str:
    """What the command line calls an option; one that is on can be switched off."""
    flag = name.replace("_", "-")
    return f"--{flag}/--no-{flag}" if default is True else f"--{flag}"


def _measure(name: str, chosen: dict[str, Any], directory: str | None) -> Report:
    """One benchmark, with the machine that it ran on."""
    from mbframework.bench.machine import facts
    from mbframework.testing.server import ServerError

    module, directory = module_of(name), directory or tempfile.gettempdir()
    settings = module.Settings(**chosen)
    # Before it begins: afterwards the load is its own.
    machine = facts(directory)
    # What clients say of brokers that are killed for it is no news.
    logging.disable(logging.CRITICAL)
    try:
        found: Report = module.run(settings, directory)
    except ServerError as error:
        raise Failure(printable(str(error))) from error
    finally:
        logging.disable(logging.NOTSET)
    found.machine, found.settings = machine, dataclasses.asdict(settings)
    return found


@bench.command()
@click.argument("names", nargs=-1, metavar="[NAME]...", type=click.Choice(list(BENCHMARKS)))
@click.option("--results", type=click.Path(file_okay=False), required=True, help="A folder for what is found.")
@click.option("--quick", is_flag=True, help="One short round of each, to see that it runs.")
@_directory
def run(names: tuple[str, ...], results: str, quick: bool, directory: str | None) -> None:
    """Run benchmarks, all of them unless named, and keep what they find as RESULTS/NAME.json.

    On a quiet machine; all of them take half an hour. Exit status 1: one of them could not be run.
    """
    from mbframework.bench.quick import QUICK

    Path(results).mkdir(parents=True, exist_ok=True)
    failed = False
    for name in names or BENCHMARKS:
        narrate(f"mb bench {name}: {BENCHMARKS[name][1]}")
        try:
            found = _measure(name, QUICK[name] if quick else {}, directory)
        except Exception as error:  # noqa: BLE001 - of whatever client or server: the other benchmarks go on
            narrate(f"mb bench {name}: {error or type(error).__name__}")
            failed = True
            continue
        path = Path(results) / f"{name}.json"
        path.with_suffix(".new").write_text(found.json(), encoding="utf-8")
        os.replace(path.with_suffix(".new"), path)
    click.get_current_context().exit(1 if failed else 0)


@bench.command()
@click.option("--results", type=click.Path(exists=True, file_okay=False), required=True, help="What `run` has kept.")
@click.option("--into", multiple=True, type=click.Path(exists=True, dir_okay=False), help="A page to write it into.")
@click.option("--plot", type=click.Path(dir_okay=False), help="A file for the plot, as SVG.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def report(results: str, into: tuple[str, ...], plot: str | None, as_json: bool) -> None:
    """What `mb bench run` has found, as tables in Markdown: printed, or put into pages.

    In a page, a table takes the place of what stands between <!-- mb bench: NAME --> and <!-- /mb bench -->. NAME is
    budgets, machine, or that of a benchmark and the number of its table, such as write 1.
    """
    from mbframework.bench.page import filled, markdown, whole
    from mbframework.bench.plot import drawn
    from mbframework.bench.report import Report, budget_table

    found = []
    for path in (Path(results) / f"{name}.json" for name in BENCHMARKS):
        if path.exists():
            try:
                found.append(Report.load(path.read_text(encoding="utf-8")))
            except ValueError as error:
                raise Failure(f"{path}: {error}; run it again: mb bench run --results {results} {path.stem}") from None
    if not found:
        raise Failure(f"{results}: there is nothing here; run: mb bench run --results {results}")
    for page in into:
        text = Path(page).read_text(encoding="utf-8")
        try:
            Path(page).write_text(filled(text, found), encoding="utf-8")
        except ValueError as error:
            raise Failure(f"{page}: {error}") from None
    if plot:
        Path(plot).write_text(drawn(found), encoding="utf-8")
    table = budget_table([each for one in found for each in one.measured], everything=True)
    if as_json:
        click.echo(json.dumps({"schema": 1, "figures": table.raw}, indent=1))
    else:
        click.echo(whole(found) if not (into or plot) else markdown(table))
