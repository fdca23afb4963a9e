"""``mb check``: one line and an exit status, as monitoring plugins give them (Nagios, Icinga, Zabbix, Sensu, …).

Promises: 0 ok, 1 warning, 2 critical, 3 unknown, and no other; whatever goes wrong in the command itself is 3. Without
``--json`` stdout is one line, whatever stands in the directory. It answers within ``--timeout``.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from mbframework.cli.directories import directories_argument
from mbframework.cli.judgement import Grade, Rules, judge, worst
from mbframework.cli.losses import ACCOUNTS, lost_since
from mbframework.cli.plugin_output import as_dict, line, performance_of, text_of
from mbframework.cli.thresholds import counts, sizes, times
from mbframework.errors import ConfigurationError
from mbframework.files import Files
from mbframework.metrics.samples import Reading
from mbframework.metrics.sources import of_directory
from mbframework.units import parse_time


class _Plugin(click.Command):
    """A command whose own failures are the exit status 3, told on stdout, where monitoring looks."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        try:
            return super().make_context(*args, **extra)
        except OSError as error:
            # --help prints before the command is called.
            _unknown(error.strerror or str(error))
        except (click.ClickException, ConfigurationError) as error:
            _unknown(error.format_message() if isinstance(error, click.ClickException) else str(error))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.exceptions.Exit:
            raise
        except KeyboardInterrupt:
            _unknown("interrupted")
        except Exception as error:  # noqa: BLE001  (Python's own exit status for a defect, 1, would say "warning")
            if ctx.find_root().params.get("debug"):
                traceback.print_exc()
            _unknown(error.format_message() if isinstance(error, click.ClickException) else str(error))


def _unknown(why: str) -> NoReturn:
    try:
        click.echo(line(Grade.UNKNOWN, why))
    except OSError:
        # Nobody reads, or there is no room: what is left must not fail again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(Grade.UNKNOWN)


def _time(_: click.Context, parameter: click.Parameter, value: str) -> float | None:
    return None if value.strip().lower() == "none" else parse_time(value, name=parameter.opts[0])


_PAIR: dict[str, Any] = {"metavar": "W,C", "show_default": True}


@click.command(cls=_Plugin)
@directories_argument
@click.option("--oldest", callback=times, default="5m,1h", **_PAIR, help="Age of the oldest message that waits.")
@click.option("--resident", callback=counts, default="none", **_PAIR, help="Messages that wait.")
@click.option(
    "--size", callback=sizes, default="50%,90%", **_PAIR, help="Bytes that wait, or their share of total_size."
)
@click.option("--pruned", callback=counts, default=",1", **_PAIR, help="Messages removed undelivered to make room.")
@click.option("--expired", callback=counts, default="1,", **_PAIR, help="Messages older than expire_after.")
@click.option("--dead", callback=counts, default="1,", **_PAIR, help="Messages that the provider rejected.")
@click.option("--lost", callback=counts, default="1,", **_PAIR, help="Messages lost with a process or a disk.")
@click.option(
    "--acknowledged-lost",
    callback=counts,
    default="1,",
    **_PAIR,
    help="Messages that the destination acknowledged, and lost.",
)
@click.option(
    "--within",
    metavar="TIME",
    default="1d",
    show_default=True,
    callback=_time,
    help="Count the last five over that time; none: since the buffer was made.",
)
@click.option("--not-live", callback=times, default="none", **_PAIR, help="Time buffering, draining or paused.")
@click.option(
    "--heartbeat", callback=times, default="10s,1m", **_PAIR, help="Silence of the process that has the lane."
)
@click.option("--error", callback=times, default="5m,", **_PAIR, help="Time for which the provider has been failing.")
@click.option("--running", is_flag=True, help="Critical where no process has the lane.")
@click.option(
    "--timeout",
    metavar="TIME",
    default="10s",
    show_default=True,
    callback=_time,
    help="A directory that does not answer for so long is unknown.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def check(
    ctx: click.Context,
    /,
    directories: tuple[str, ...],
    within: float | None,
    running: bool,
    timeout: float | None,
    as_json: bool,
    **thresholds: Any,
) -> None:
    """Tell in one line whether the buffers in DIR... are well, for monitoring.

    W,C are the numbers from which on it warns, and is critical; either may be left out ("5m,"), "none" is neither.
    Blocked lanes and failing disks are critical. A lane that no process has is a warning where messages wait.

    Exit status 0: ok. 1: warning. 2: critical. 3: unknown, which wrong usage is as well.
    """
    rules = Rules({name.replace("_", "-"): each for name, each in thresholds.items()}, within, running)
    files, now = Files(), time.time()
    checks = [judge(each, _losses(files, each, rules, now), rules, now) for each in _readings(directories, timeout)]
    grade = worst([each.grade for each in checks])
    if as_json:
        click.echo(json.dumps(as_dict(checks, grade), indent=2))
    else:
        click.echo(line(grade, text_of(checks), performance_of(checks)))
    ctx.exit(grade)


def _readings(directories: Sequence[str], timeout: float | None) -> list[Reading]:
    sources = [of_directory(path) for path in directories]
    for source in sources:
        source.ask()
    end = math.inf if timeout is None else time.monotonic() + timeout
    return [source.answer(min(3600.0, max(0.0, end - time.monotonic()))) for source in sources]


def _losses(files: Files, reading: Reading, rules: Rules, now: float) -> dict[str, Any]:
    """By lane what the event files tell, of lanes that ever lost anything."""
    if rules.within is None:
        return {}
    since = now - rules.within
    return {
        lane.status.name: lost_since(files, os.path.join(reading.directory, lane.status.name), since)
        for lane in reading.lanes
        if any(getattr(lane.status, account) for account in ACCOUNTS)
    }
