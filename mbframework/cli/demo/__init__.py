"""``mb demo``: what a buffer is for, shown with real parts and checked by itself.

A program writes steadily; its provider goes away and comes back; in between the program is killed with SIGKILL and
started again. All that is shown comes from the buffer's directory, read from outside. At the end the delivered messages
are read back from the provider and compared with a ledger that the program kept outside of the buffer.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mbframework.cli.terminal import printable

if TYPE_CHECKING:
    from mbframework.cli.demo.verdict import Verdict


@click.command()
@click.option("--provider", metavar="URL", help="sqlite:… or kafka://host:port  [default: a SQLite file of its own]")
@click.option("--kafka", is_flag=True, help="Start a real Kafka for it, kill that with SIGKILL, and start it again.")
@click.option("--messages", type=click.IntRange(100, 1_000_000), default=6_000, show_default=True, help="At least.")
@click.option("--keep", is_flag=True, help="Keep the buffer and what else was made, and tell where.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def demo(ctx: click.Context, provider: str | None, kafka: bool, messages: int, keep: bool, as_json: bool) -> None:
    """Show an outage from live to live, with a kill -9 in the middle, and check that nothing is missing.

    Takes about 20 seconds, and needs no server.

    Exit status 0: all messages arrived, in order. 1: they did not, or a step was not reached. 2: it cannot begin.
    128 + n: stopped by signal n.
    """
    from mbframework.cli.demo.play import Play, Stuck
    from mbframework.cli.demo.screen import Screen
    from mbframework.cli.demo.stage import choose

    if kafka and provider:
        raise click.UsageError("give --kafka or --provider, not both")
    folder = Path(tempfile.mkdtemp(prefix="mb-demo-"))
    with ExitStack() as stack:
        if not keep:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        # Without this, SIGTERM would leave the writer, the broker and the folder behind.
        former = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        stack.callback(signal.signal, signal.SIGTERM, former)
        screen = Screen()
        stage = stack.enter_context(choose("kafka:" if kafka else provider, folder, screen.say))
        play = stack.enter_context(Play(stage, folder, messages, screen))
        try:
            verdict = play.run()
        except Stuck as stuck:
            screen.say(f"The demo has come to a halt: {stuck}")
            ctx.exit(1)
        if as_json:
            click.echo(json.dumps(verdict.as_dict(), indent=2))
        else:
            _print(verdict, stage.place)
        if keep:
            screen.say(f"Kept: {folder} (try: mb status {play.directory})")
    ctx.exit(0 if verdict.ok else 1)


def _print(verdict: Verdict, place: str) -> None:
    rows = [
        ("written", verdict.written, "each noted outside of the buffer when write() had returned"),
        ("delivered", verdict.delivered, f"read back from {place}"),
        ("repeated", verdict.repeated, ""),
        ("lost", verdict.lost, ""),
        ("out of order", verdict.out_of_order, ""),
    ]
    for label, count, note in rows:
        bad = count and label in ("repeated", "lost", "out of order")
        click.echo(f"  {label:14}{click.style(f'{count:>9,}', fg='red' if bad else None, bold=True)}   {note}".rstrip())
    click.echo(
        f"\nwrite() took {verdict.median_write_us:.1f} µs (median), {verdict.slowest_write_ms:.1f} ms at most, "
        "the outage included."
    )
    if verdict.unacknowledged:
        click.echo(f"{verdict.unacknowledged} more had been accepted at the moment of the kill, and arrived too.")
    for problem in verdict.problems:
        click.echo(click.style(f"WRONG: {printable(problem)}", fg="red", bold=True))
    if verdict.ok:
        how = "once, in order" if not verdict.repeated else "in order; repeated where the broker had not answered"
        click.echo(click.style(f"Everything arrived, {how}.", fg="green", bold=True))
