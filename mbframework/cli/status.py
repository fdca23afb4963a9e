"""``mb status``: how a buffer stands, from its directory alone.

It imports neither a provider nor a client library, and what watches is imported where it is asked to watch.
"""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import click

from mbframework.cli.options import directory_argument
from mbframework.cli.pausing import consequence
from mbframework.cli.terminal import plural, printable
from mbframework.printable import shell_word
from mbframework.status import BufferStatus, LaneStatus, read
from mbframework.units import format_size, format_time

#: The time between two looks of who watches.
WATCH = "2s"
_WIDTH = 80
_LABEL = 16
_COLORS = {"live": "green", "draining": "cyan", "buffering": "yellow", "blocked": "red", "disk-error": "red"}


@click.command()
@directory_argument
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --watch, a line for each look.")
@click.option(
    "--watch",
    metavar="[TIME]",
    is_flag=False,
    flag_value=WATCH,
    help=f"Look again every TIME ({WATCH}), until stopped.",
)
def status(directory: str, as_json: bool, watch: str | None) -> None:
    """Tell how the buffer in DIR stands, whether or not a program has it open."""
    if watch is not None:
        from mbframework.cli.watch import watching

        watching(directory, watch, as_json=as_json)
        return
    found = read(directory)
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=2))
        return
    for line in report(found, time.time()):
        click.echo(line)


def report(found: BufferStatus, now: float, outlook: Mapping[str, str] = MappingProxyType({})) -> Iterator[str]:
    """The report for people, in lines of 80 columns where what is told has no longer words; ``now`` is wall-clock
    seconds, ``outlook`` whether it gets better or worse, by lane."""
    yield printable(found.directory)
    if len(found.lanes) > 1:
        waiting = plural(sum(lane.resident for lane in found.lanes), "message")
        yield f"{len(found.lanes)} lanes, {waiting} waiting"
    if not found.lanes and not found.problems:
        yield "no lane yet: nothing was written"
    for lane in found.lanes:
        yield ""
        only = f" --lane {lane.name}" if len(found.lanes) > 1 else ""
        yield from _lane(lane, now, outlook.get(lane.name, ""), f"mb resume {shell_word(found.directory)}{only}")
    for problem in found.problems:
        yield click.style(printable(problem), fg="red")


def _lane(lane: LaneStatus, now: float, outlook: str, resume: str) -> Iterator[str]:
    yield f"{printable(lane.name)}: {click.style(lane.state, fg=_COLORS.get(lane.state), bold=True)}{_since(lane, now)}"
    if lane.state_reason:
        yield from _row("because", lane.state_reason)
    if lane.paused and lane.state != "paused":
        yield from _row("paused", f"{consequence(lane)}; {resume} ends it")
    if outlook:
        yield from _row("outlook", outlook)
    yield from _row("mode", printable(lane.mode))
    if lane.provider:
        yield from _row("provider", lane.provider)
    yield from _count("accepted", lane.accepted)
    yield from _count("delivered", lane.delivered)
    yield from _count("waiting", lane.resident, _where(lane))
    for account in ("pruned", "expired", "dead", "purged", "lost"):
        if getattr(lane, account):
            note = _letters(lane) if account == "dead" else _ACCOUNTS[account]
            yield from _count(account, getattr(lane, account), note)
    seek = lane.seek
    yield from _row("seek", f"sequence {seek.sequence:,}: segment {seek.segment:,}, offset {seek.offset:,}")
    if lane.last_error:
        yield from _row("last error", f"{_when(lane, now)}{lane.last_error}")
    yield f"  {_loss(lane)}"
    if lane.order_violations:
        yield f"  {plural(lane.order_violations, 'message')} overtook one that had failed: a fault of the provider's"
    if not lane.balanced:
        yield "  these counts do not add up: they moved while they were read; look again"


_ACCOUNTS = {
    "pruned": "removed undelivered to keep to total_size",
    "expired": "older than expire_after",
    "purged": "removed on request",
    "lost": "",
}


def _letters(lane: LaneStatus) -> str:
    if lane.dead_letters is None:
        return "rejected by the provider"
    return f"rejected by the provider; kept under dead/ now: {lane.dead_letters or 'none'}"


def _since(lane: LaneStatus, now: float) -> str:
    if lane.state == "dead":
        return ", closed properly" if lane.clean else ": no process has it open, and the last one did not close it"
    if lane.state == "stale":
        # Which process that is stands in the reason.
        return f": a process holds it, and was silent for {_age(lane.heartbeat_age_s)}"
    pid = lane.writer_pid or lane.sender_pid
    process = f", process {pid}" if pid else ""
    jump = lane.clock_jump_s
    clock = f"; the clock was set {'ahead' if jump > 0 else 'back'} by {_age(abs(jump))} since" if jump else ""
    return f" for {_age(now - lane.state_since)}{process}{clock}" if lane.state_since else process


def _where(lane: LaneStatus) -> str:
    if not lane.resident:
        return ""
    oldest = f", the oldest for {_age(lane.oldest_age_s)}" if lane.oldest_age_s is not None else ""
    if not lane.resident_bytes:
        # Of a dead lane memory is gone: what no segment shows is counted as lost by whoever sends next.
        return "in no segment that can be read" if lane.state == "dead" else f"in memory{oldest}"
    return f"{format_size(lane.resident_bytes)} in {plural(lane.segments, 'segment')}{oldest}"


def _when(lane: LaneStatus, now: float) -> str:
    parts = []
    if lane.last_error_at:
        parts.append(f"{_age(now - lane.last_error_at)} ago")
    if lane.failures:
        parts.append(f"{lane.failures:,} in a row")
    if lane.retry_at and lane.retry_at > now and lane.state not in ("dead", "stale"):
        parts.append(f"next attempt in {_age(lane.retry_at - now)}")
    return f"({', '.join(parts)}) " if parts else ""


def _loss(lane: LaneStatus) -> str:
    kinds = {
        "pruned": lane.pruned,
        "expired": lane.expired,
        "in memory when the program was killed (may have arrived)": lane.lost_live,
        "not yet on disk when the program was killed": lane.lost_linger,
        "unreadable on disk": lane.lost_disk,
        "returned to the program": lane.returned,
    }
    lost = {what: count for what, count in kinds.items() if count}
    if lane.acknowledged_lost:
        # They are among the delivered ones, and how many the destination really lost it does not say.
        lost["acknowledged, and lost by the destination (at most; mb tail tells how)"] = lane.acknowledged_lost
    if not lost:
        return click.style("nothing was lost", fg="green")
    text = ", ".join(f"{count:,} {what}" for what, count in lost.items())
    return click.style(f"LOST {plural(sum(lost.values()), 'message')}: {text}", fg="red", bold=True)


def _age(seconds: float | None) -> str:
    return "an unknown time" if seconds is None else format_time(max(0.0, seconds))


def _count(label: str, count: int, note: str = "") -> Iterator[str]:
    yield f"  {label:{_LABEL - 2}}{count:>15,}   {note}".rstrip()


def _row(label: str, text: str) -> Iterator[str]:
    first, *more = textwrap.wrap(printable(text), _WIDTH - _LABEL, break_long_words=False, break_on_hyphens=False)
    yield f"  {label:{_LABEL - 2}}{first}"
    for line in more:
        yield " " * _LABEL + line
