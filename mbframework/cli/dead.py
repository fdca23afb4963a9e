"""``mb dead``: the messages that a provider has rejected, to look at, to send again, to let go of.

Letters are chosen by id, by topic, by reason, or all of them; what is chosen by several must meet each.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click

from mbframework import directory as directories
from mbframework.cli.confirmation import confirm, yes_option
from mbframework.cli.options import config_option, configuration, directory_argument
from mbframework.cli.terminal import narrate, plural, printable
from mbframework.deadstore import EVERYTHING, DeadStore, Letter
from mbframework.errors import ConfigurationError, DirectoryError
from mbframework.files import Files
from mbframework.printable import shell_word
from mbframework.spool import layout
from mbframework.units import format_size

_KEY, _TOPIC = 16, 20
_NARROW = 80


@click.group()
def dead() -> None:
    """List, replay or drop the dead letters of the buffer in DIR: messages that its provider has rejected."""


_lane = click.option("--lane", metavar="NAME", help="Those of that lane.  [default: of all lanes]")
_topic = click.option("--topic", "topics", metavar="TOPIC", multiple=True, help="Those of that topic; may be repeated.")
_reason = click.option("--reason", metavar="REGEX", help="Those whose reason contains what this matches.")
_ids = click.argument("ids", metavar="[ID]...", nargs=-1, type=click.IntRange(min=1))
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@dataclass(frozen=True, slots=True)
class Choice:
    """Which letters are meant."""

    ids: tuple[int, ...]
    topics: tuple[str, ...]
    reason: re.Pattern[str] | None

    @classmethod
    def of(cls, ids: Iterable[int], topics: Iterable[str], reason: str | None) -> Choice:
        """From the command line. Raises ConfigurationError: the regular expression is none."""
        try:
            pattern = None if reason is None else re.compile(reason)
        except re.error as error:
            raise ConfigurationError(f"--reason {reason!r} is not a regular expression: {error}") from None
        return cls(tuple(ids), tuple(topics), pattern)

    @property
    def by_content(self) -> bool:
        """Whether letters must be read to know which are meant."""
        return bool(self.topics) or self.reason is not None

    def letters(self, store: DeadStore) -> Iterator[Letter]:
        """Those of a store."""
        with closing(store.letters(self.ids or EVERYTHING)) as found:  # type: ignore[type-var]  # a generator
            for letter in found:
                if (not self.topics or letter.topic in self.topics) and (
                    self.reason is None or self.reason.search(letter.reason)
                ):
                    yield letter


@dead.command("list")
@directory_argument
@_ids
@_lane
@_topic
@_reason
@click.option("--limit", metavar="N", type=click.IntRange(min=0), default=100, help="How many; 0: all.  [default: 100]")
@click.option("--full", is_flag=True, help="Show whole messages: headers and values as well.")
@_json
def list_(
    directory: str, ids: tuple[int, ...], lane: str | None, topics: tuple[str, ...], reason: str | None, limit: int,
    full: bool, as_json: bool,
) -> None:  # fmt: skip
    """List the dead letters of the buffer in DIR, the oldest first; with IDs, those."""
    choice, total, shown = Choice.of(ids, topics, reason), 0, 0
    listed: list[dict[str, Any]] = []
    wide = shutil.get_terminal_size((_NARROW, 24)).columns if sys.stdout.isatty() else 10_000
    for name, store in _stores(directory, lane):
        there = sum(end - first for first, end in store.ids()) if not choice.ids else len(choice.ids)
        with closing(choice.letters(store)) as letters:  # type: ignore[type-var]  # a generator
            for letter in letters:
                total += 1
                if limit and shown >= limit:
                    if not choice.by_content and not choice.ids:
                        # The rest need not be read to be counted.
                        total += there - _position(store, letter.id) - 1
                        break
                    continue
                shown += 1
                if as_json:
                    listed.append({"lane": name} | as_dict(letter, full=full))
                elif full:
                    click.echo("\n".join(block(name, letter)))
                else:
                    if shown == 1:
                        click.echo(heading())
                    click.echo(row(letter, wide))
    if as_json:
        found = {"schema": 1, "directory": os.path.abspath(directory), "total": total, "letters": listed}
        click.echo(json.dumps(found, indent=2))
    elif shown < total:
        narrate(f"{total - shown:,} more: --limit 0 shows all")
    elif not total:
        narrate("no dead letters")


@dead.command()
@directory_argument
@_ids
@_lane
@_topic
@_reason
@click.option("--all", "everything", is_flag=True, help="All of them.")
@config_option
@_json
def replay(
    directory: str, ids: tuple[int, ...], lane: str | None, topics: tuple[str, ...], reason: str | None,
    everything: bool, file: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Put dead letters of the buffer in DIR into it again, as new messages, and drop them.

    Exit status 1: some could not be written again; they are kept.
    """
    chosen = _chosen(directory, ids, lane, topics, reason, everything=everything)
    _work(directory, chosen, file, as_json, "replay")


@dead.command()
@directory_argument
@_ids
@_lane
@_topic
@_reason
@click.option("--all", "everything", is_flag=True, help="All of them.")
@config_option
@yes_option
@_json
def drop(
    directory: str, ids: tuple[int, ...], lane: str | None, topics: tuple[str, ...], reason: str | None,
    everything: bool, file: str | None, yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Let go of dead letters of the buffer in DIR, for good."""
    chosen = _chosen(directory, ids, lane, topics, reason, everything=everything)
    number = sum(map(len, chosen.values()))
    if number:
        confirm(f"{plural(number, 'dead letter')} of {directory} will be dropped for good", str(number), yes=yes)
    _work(directory, chosen, file, as_json, "drop")


def _work(directory: str, chosen: dict[str, list[int]], file: str | None, as_json: bool, action: str) -> None:
    from mbframework.deaddesk import DeadDesk

    files, config = Files(), configuration(directory, file)
    results: list[dict[str, Any]] = []
    done, asked, why = 0, sum(map(len, chosen.values())), ""
    with _progress(asked, f"{action}ing" if action == "replay" else "dropping") as advance:
        for name, ids in chosen.items():
            if not ids:
                continue
            desk = DeadDesk(files, config, name)
            outcome = desk.replay(ids, advance) if action == "replay" else desk.drop(ids, advance)
            done += outcome.done
            why = outcome.why or why
            results.append({"lane": name, "asked": len(ids), "done": outcome.done, "why": outcome.why})
    if as_json:
        click.echo(
            json.dumps({"schema": 1, "action": action, "done": done, "asked": asked, "lanes": results}, indent=2)
        )
    left = asked - done
    past = "replayed" if action == "replay" else "dropped"
    narrate(f"{plural(done, 'dead letter')} {past}" + (f", {left:,} not: {why or 'they are gone'}" if left else ""))
    if left:
        sys.exit(1)


def _chosen(
    directory: str, ids: tuple[int, ...], lane: str | None, topics: tuple[str, ...], reason: str | None, *,
    everything: bool,
) -> dict[str, list[int]]:  # fmt: skip
    """The ids of the letters that are meant, by lane. Raises ConfigurationError."""
    choice = Choice.of(ids, topics, reason)
    if not ids and not choice.by_content and not everything:
        raise ConfigurationError("no dead letters are named; expected ids, --topic, --reason, or --all")
    if ids and everything:
        raise ConfigurationError("ids and --all contradict each other; give one of them")
    stores = list(_stores(directory, lane))
    filled = [name for name, store in stores if store.ids()]
    if ids and len(filled) > 1:
        raise ConfigurationError(
            f"several lanes have dead letters; give --lane, one of {', '.join(filled)}", option="lane"
        )
    chosen: dict[str, list[int]] = {}
    for name, store in stores:
        if choice.by_content or ids:
            chosen[name] = [letter.id for letter in choice.letters(store)]
        else:
            chosen[name] = [number for first, end in store.ids() for number in range(first, end)]
    missing = set(ids) - {each for found in chosen.values() for each in found}
    if missing and not choice.by_content:
        raise ConfigurationError(
            f"there is no dead letter {min(missing)}; `mb dead list {shell_word(directory)}` shows what there is"
        )
    return chosen


def _stores(directory: str, lane: str | None) -> Iterator[tuple[str, DeadStore]]:
    """The stores of the lanes that are meant. Raises DirectoryError, ConfigurationError."""
    files, path = Files(), os.path.abspath(directory)
    if not os.path.isdir(path):
        raise DirectoryError(f"{directory} is not a directory; give the directory of a buffer", path=path)
    directories.read(files, path)
    names = directories.lanes_of(files, path)
    if lane is not None and lane not in names:
        raise ConfigurationError(
            f"{directory} has no lane {lane!r}; expected {', '.join(names) or 'one: nothing was written'}",
            option="lane",
        )
    for name in names if lane is None else [lane]:
        yield name, DeadStore(files, layout.dead_path(os.path.join(path, name)))


def _position(store: DeadStore, number: int) -> int:
    """How many letters are in front of that one."""
    return sum(min(end, number) - first for first, end in store.ids() if first < number)


# ---- how a letter looks: pure


def heading() -> str:
    """The table's first line."""
    return f"{'id':>10}  {'when (UTC)':19}  {'topic':{_TOPIC}}  {'key':{_KEY}}  {'size':>8}  reason"


def row(letter: Letter, wide: int) -> str:
    """A letter as a line of ``wide`` columns at most."""
    # More of it is not shown.
    key = letter.key if letter.key is None else letter.key[: 4 * _KEY]
    line = (
        f"{letter.id:>10}  {instant(letter.at)}  {_cut(letter.topic, _TOPIC)}  {_cut(preview(key), _KEY)}  "
        f"{format_size(letter.size):>8}  {printable(letter.reason)}"
    )
    return line if len(line) <= wide else line[: wide - 1] + "…"


def block(lane: str, letter: Letter) -> Iterator[str]:
    """A letter as lines, whole."""
    yield f"{letter.id}  {instant(letter.at)} UTC  lane {printable(lane)}, where it was message {letter.sequence}"
    yield f"  reason     {printable(letter.reason)}"
    yield f"  topic      {printable(letter.topic)}"
    yield f"  key        {preview(letter.key)}"
    if letter.partition is not None:
        yield f"  partition  {letter.partition}"
    if letter.timestamp is not None:
        yield f"  timestamp  {letter.timestamp} ns"
    for name, value in letter.headers:
        yield f"  header     {printable(name)}: {preview(value)}"
    yield f"  value      {preview(letter.value)}"
    yield ""


def instant(at: float) -> str:
    """Seconds since 1970 as a date and a time of 19 characters, UTC."""
    try:
        return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return f"{'?':19}"


def preview(data: bytes | None) -> str:
    """Bytes as people read them: text, with what could steer a terminal and what is no UTF-8 escaped; or (none)."""
    return "(none)" if data is None else printable(data.decode(errors="backslashreplace"))


def as_dict(letter: Letter, *, full: bool) -> dict[str, Any]:
    """For JSON; with ``full`` the value and the headers as well."""
    facts: dict[str, Any] = {
        "id": letter.id,
        "at": letter.at,
        "sequence": letter.sequence,
        "run": letter.run,
        "topic": letter.topic,
        **_data("key", letter.key),
        "partition": letter.partition,
        "timestamp": letter.timestamp,
        "size": letter.size,
        "reason": letter.reason,
    }
    if full:
        facts |= _data("value", letter.value)
        facts["headers"] = [{"name": name, **_data("value", value)} for name, value in letter.headers]
    return facts


def _data(name: str, data: bytes | None) -> dict[str, str | None]:
    try:
        return {name: None if data is None else data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data or b"").decode()}


def _cut(text: str, most: int) -> str:
    text = printable(text)
    return f"{text:{most}}" if len(text) <= most else text[: most - 1] + "…"


@contextmanager
def _progress(total: int, label: str) -> Iterator[Callable[[int], object]]:
    """A bar on stderr, where that is a terminal; what it gives moves the bar by a number."""
    if not total or sys.stderr is None or not sys.stderr.isatty():
        yield bool
        return
    with click.progressbar(length=total, label=label, file=sys.stderr) as bar:
        yield bar.update
