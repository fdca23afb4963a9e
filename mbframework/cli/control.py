"""``mb pause``, ``resume``, ``retry``, ``mode`` and ``purge``: what a running buffer can be told to do.

Each goes to all lanes, or to that of ``--lane``. One lane's refusal does not keep the others from being told.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from mbframework import directory as directories
from mbframework.cli.confirmation import confirm, yes_option
from mbframework.cli.options import directory_argument
from mbframework.cli.reason import reason
from mbframework.cli.terminal import narrate, plural
from mbframework.config import MODES
from mbframework.errors import ConfigurationError, DirectoryError, MessageBufferError
from mbframework.files import Files
from mbframework.lanedesk import tell
from mbframework.status import read
from mbframework.units import parse_time

lane_option = click.option("--lane", metavar="NAME", help="That lane only.  [default: all lanes]")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
timeout_option = click.option(
    "--timeout", metavar="TIME", default="5s", show_default=True, help="How long to wait for an answer of each lane."
)


@click.command()
@directory_argument
@lane_option
@timeout_option
@json_option
def pause(directory: str, lane: str | None, timeout: str, as_json: bool) -> None:
    """Send nothing of the buffer in DIR until `mb resume DIR`; writing goes on.

    The pause belongs to the lane: it outlives the program. Where no process sends, the next one begins paused.
    """

    def act(files: Files, path: str, seconds: float) -> tuple[dict[str, Any], str]:
        answer = tell(files, path, "pause", timeout=seconds)
        return answer, "paused" if _runs(answer) else "no process sends it; the next one begins paused"

    _each(directory, lane, timeout, as_json, "pause", act)


@click.command()
@directory_argument
@lane_option
@timeout_option
@json_option
def resume(directory: str, lane: str | None, timeout: str, as_json: bool) -> None:
    """Send again what the buffer in DIR holds, at once."""

    def act(files: Files, path: str, seconds: float) -> tuple[dict[str, Any], str]:
        answer = tell(files, path, "resume", timeout=seconds)
        return answer, "resumed" if _runs(answer) else "no process sends it; the next one is not paused"

    _each(directory, lane, timeout, as_json, "resume", act)


@click.command()
@directory_argument
@lane_option
@timeout_option
@json_option
def retry(directory: str, lane: str | None, timeout: str, as_json: bool) -> None:
    """End the present wait between two attempts to reach the provider of the buffer in DIR."""

    def act(files: Files, path: str, seconds: float) -> tuple[dict[str, Any], str]:
        return tell(files, path, "retry", timeout=seconds), "tries again now"

    _each(directory, lane, timeout, as_json, "retry", act)


@click.command()
@directory_argument
@click.argument("new", metavar="MODE", type=click.Choice(MODES))
@lane_option
@timeout_option
@yes_option
@json_option
def mode(directory: str, new: str, lane: str | None, timeout: str, yes: bool, as_json: bool) -> None:
    """Change what write() does about provider trouble in the running program of DIR, until its end.

    MODE is block, raise, buffer or always; the first two need an empty backlog.
    """
    _lanes(Files(), directory, lane)
    confirm(f"the mode of {directory} becomes {new!r}", new, yes=yes)

    def act(files: Files, path: str, seconds: float) -> tuple[dict[str, Any], str]:
        return tell(files, path, "mode", {"mode": new}, timeout=seconds), f"mode {new}"

    _each(directory, lane, timeout, as_json, "mode", act)


@click.command()
@directory_argument
@lane_option
@timeout_option
@yes_option
@json_option
def purge(directory: str, lane: str | None, timeout: str, yes: bool, as_json: bool) -> None:
    """Remove everything that waits in the buffer in DIR, undelivered; it is counted as purged.

    What the provider has in hand is delivered all the same, if it takes it. Works with and without a running program,
    and with `mb drain`: whoever sends the lane does it.
    """
    chosen = _lanes(Files(), directory, lane)
    waiting = sum(each.resident for each in read(directory).lanes if each.name in chosen)
    what = f"{plural(waiting, 'message')} in {directory} will be removed, undelivered"
    confirm(what, str(waiting), yes=yes)

    def act(files: Files, path: str, seconds: float) -> tuple[dict[str, Any], str]:
        answer = tell(files, path, "purge", timeout=seconds)
        return answer, f"{plural(int(answer['purged']), 'message')} purged"

    _each(directory, lane, timeout, as_json, "purge", act)


def _runs(answer: dict[str, Any]) -> bool:
    return answer.get("running") is not False


def _each(
    directory: str,
    lane: str | None,
    timeout: str,
    as_json: bool,
    action: str,
    act: Callable[[Files, str, float], tuple[dict[str, Any], str]],
) -> None:
    """Do it lane by lane; exit status 2 where one of them refuses."""
    files, seconds = Files(), parse_time(timeout, name="timeout")
    found: list[dict[str, Any]] = []
    for name in _lanes(files, directory, lane):
        try:
            answer, words = act(files, os.path.join(os.path.abspath(directory), name), seconds)
        except (MessageBufferError, OSError) as error:
            why = reason(error)
            found.append({"lane": name, "ok": False, "error": why})
            words = why.removeprefix(f"lane {name}").removeprefix(":").lstrip()
        else:
            found.append({"lane": name, "ok": True} | answer)
        narrate(f"lane {name}: {words}")
    if as_json:
        click.echo(json.dumps({"schema": 1, "action": action, "lanes": found}, indent=2))
    if not all(each["ok"] for each in found):
        sys.exit(2)


def _lanes(files: Files, directory: str, lane: str | None) -> Sequence[str]:
    """The lanes to tell. Raises DirectoryError, ConfigurationError."""
    path = os.path.abspath(directory)
    if not os.path.isdir(path):
        raise DirectoryError(f"{directory} is not a directory; give the directory of a buffer", path=path)
    directories.read(files, path)
    names = directories.lanes_of(files, path)
    if not names:
        raise DirectoryError(f"{directory} has no lane yet: nothing was written", path=path)
    if lane is None:
        return names
    if lane not in names:
        raise ConfigurationError(f"{directory} has no lane {lane!r}; expected {', '.join(names)}", option="lane")
    return [lane]
