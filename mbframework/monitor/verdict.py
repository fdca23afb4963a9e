"""Is it getting better or worse? One word, one sentence.

Promises: pure, and total: whatever the numbers, there is a verdict, and its text is one line without control
characters. The same circumstances with a little noise give the same word: who judges gives rates over some seconds, and
the verdict before, which a small difference does not overturn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mbframework.monitor.view import Verdict, VerdictKind
from mbframework.printable import shortened
from mbframework.units import format_time

#: Seconds without a message leaving, from which on a backlog is stalled.
STALLED_AFTER = 10.0
#: The part of the traffic by which in and out must differ before it counts, and before it overturns that they do not.
_MARGIN = 0.05
_NEWS = 0.1
#: Beyond this a time says no more than that it is long.
_LONG = 100 * 86_400.0
_REASON = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What a verdict is made of. Rates are messages per second, smoothed; None where they are not known.

    ``outgoing`` counts every exit but pruning; ``silent_s``: since a message last left, or since the backlog began;
    ``room``: bytes that the disk may still take; ``prunes``: whether a full buffer removes its oldest messages (None:
    not told), ``pruning``: whether it has done so lately.
    """

    state: str
    reason: str = ""
    resident: int = 0
    resident_bytes: int = 0
    incoming: float | None = None
    outgoing: float | None = None
    silent_s: float | None = None
    heartbeat_age_s: float | None = None
    room: int | None = None
    prunes: bool | None = None
    pruning: bool = False
    clean: bool = False


def judge(facts: Circumstances, before: VerdictKind | None = None) -> Verdict:
    """The verdict; ``before`` is the one before it."""
    if facts.state == "dead":
        how = "closed" if facts.clean else "dead"
        return Verdict("dead", f"{how}, {_waiting(facts)}")
    if facts.state == "stale":
        silent = f" for {_time(facts.heartbeat_age_s)}" if facts.heartbeat_age_s is not None else ""
        whose = shortened(facts.reason or "no sign of life", _REASON)
        return Verdict("stale", f"{whose}{silent}, {_waiting(facts)}", facts.heartbeat_age_s)
    if facts.state == "disk-error":
        return Verdict("disk-error", _because("disk error", facts.reason))
    if facts.state == "blocked":
        return Verdict("blocked", _because("blocked", facts.reason))
    if facts.state == "paused":
        return Verdict("paused", f"paused, {_waiting(facts)}")
    return _moving(facts, before)


def _moving(facts: Circumstances, before: VerdictKind | None) -> Verdict:
    silent = facts.silent_s or 0.0
    incoming, outgoing = facts.incoming, facts.outgoing
    if outgoing is None and facts.state == "buffering":
        outgoing = 0.0
    if not facts.resident or (facts.state == "live" and silent < STALLED_AFTER):
        return Verdict("keeping-up", "keeping up") if incoming or facts.resident else Verdict("idle", "idle")
    if incoming is None or outgoing is None:
        if silent >= STALLED_AFTER or facts.state == "buffering":
            return _stalled(facts)
        return Verdict("draining", "draining")
    net = incoming - outgoing
    margin = (_NEWS if before == "keeping-up" else _MARGIN) * max(incoming, outgoing)
    if net > (0.0 if before == "growing" else margin):
        return _growing(facts, net)
    if not outgoing and (silent >= STALLED_AFTER or facts.state == "buffering"):
        return _stalled(facts)
    if -net > (0.0 if before == "draining" else margin):
        eta = min(facts.resident / -net, _LONG)
        return Verdict("draining", f"draining, ETA {_time(eta)}", eta)
    if not outgoing:
        # It has only just begun.
        return Verdict("draining", "draining")
    return Verdict("keeping-up", f"keeping up, {_count(facts.resident)} behind")


def _stalled(facts: Circumstances) -> Verdict:
    since = f" for {_time(facts.silent_s)}" if facts.silent_s is not None and facts.silent_s >= 1.0 else ""
    return Verdict("stalled", f"stalled{since}, {_waiting(facts)}", facts.silent_s)


def _growing(facts: Circumstances, net: float) -> Verdict:
    if facts.pruning:
        return Verdict("growing", "growing, the oldest are pruned", 0.0)
    if facts.room is None or not facts.resident_bytes:
        return Verdict("growing", "growing")
    end = "pruning begins" if facts.prunes else "full"
    if facts.room <= 0:
        return Verdict("growing", "growing, the oldest are pruned" if facts.prunes else "growing, full", 0.0)
    seconds = min(facts.room / (net * facts.resident_bytes / facts.resident), _LONG)
    return Verdict("growing", f"growing, {end} in {_time(seconds)}", seconds)


def _waiting(facts: Circumstances) -> str:
    if not facts.resident:
        return "nothing waits"
    return f"{_count(facts.resident)} {'waits' if facts.resident == 1 else 'wait'}"


def _count(number: int) -> str:
    return f"{number:,} message{'' if number == 1 else 's'}"


def _because(what: str, reason: str) -> str:
    return shortened(f"{what}: {reason}" if reason else what, _REASON)


def _time(seconds: float | None) -> str:
    if seconds is None or not math.isfinite(seconds):
        return "an unknown time"
    if seconds >= _LONG:
        return f"more than {format_time(_LONG)}"
    return format_time(float(round(max(0.0, seconds)))) if seconds >= 10 else format_time(round(max(0.0, seconds), 1))
