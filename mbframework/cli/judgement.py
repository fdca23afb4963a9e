"""Is a buffer well? What ``mb check`` measures, and what it makes of it. Pure.

Every number from which on something is wrong comes from outside; states that a person must look at are wrong by
themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

from mbframework.cli.losses import ACCOUNTS
from mbframework.cli.pausing import consequence
from mbframework.cli.thresholds import Thresholds
from mbframework.metrics.samples import LaneReading, Reading
from mbframework.units import format_size, format_time


class Grade(IntEnum):
    """The values are the exit statuses of monitoring plugins."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


#: From well to worst: what is known to be critical counts more than what is not known.
ORDER = (Grade.OK, Grade.WARNING, Grade.UNKNOWN, Grade.CRITICAL)


def worst(grades: list[Grade]) -> Grade:
    """The one that counts."""
    return max(grades, key=ORDER.index, default=Grade.OK)


@dataclass(frozen=True, slots=True)
class Rules:
    """``thresholds`` by the name of a measure; ``within``: the seconds over which losses are counted, None: since the
    buffer was made; ``running``: whether a process must have the lane."""

    thresholds: Mapping[str, Thresholds]
    within: float | None
    running: bool = False


@dataclass(frozen=True, slots=True)
class Measure:
    """A number with its thresholds, as performance data has it; ``value`` None: not known. ``unit``: "" (a count),
    "s", "B" or "c" (a counter)."""

    name: str
    value: float | None
    unit: str = ""
    warning: float | None = None
    critical: float | None = None
    limit: float | None = None

    @property
    def grade(self) -> Grade:
        """What the thresholds make of it; what is not known is well."""
        for bound, grade in ((self.critical, Grade.CRITICAL), (self.warning, Grade.WARNING)):
            if bound is not None and self.value is not None and self.value >= bound:
                return grade
        return Grade.OK


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be, in words."""

    grade: Grade
    text: str


@dataclass(frozen=True, slots=True)
class LaneCheck:
    """One lane: its state, the messages that wait, what was measured, and what is wrong."""

    name: str
    state: str
    waiting: int
    measures: tuple[Measure, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """One directory."""

    directory: str
    lanes: tuple[LaneCheck, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def grade(self) -> Grade:
        """The worst of all findings."""
        return worst([each.grade for each in (*self.findings, *(own for lane in self.lanes for own in lane.findings))])


def judge(reading: Reading, losses: Mapping[str, Mapping[str, int]], rules: Rules, now: float) -> Check:
    """The buffer of a directory; ``losses``: of a lane the messages by account that were lost within the time of the
    rules, for lanes that lost any; ``now``: seconds since 1970."""
    if reading.error:
        return Check(reading.directory, (), (Finding(Grade.UNKNOWN, reading.error),))
    lanes = tuple(_lane(lane, losses.get(lane.status.name, {}), rules, now) for lane in reading.lanes)
    findings = [Finding(Grade.UNKNOWN, problem) for problem in reading.problems]
    if rules.running and not lanes:
        findings.append(Finding(Grade.CRITICAL, "no process has it: nothing was written yet"))
    return Check(reading.directory, lanes, tuple(findings))


def _lane(lane: LaneReading, losses: Mapping[str, int], rules: Rules, now: float) -> LaneCheck:
    status = lane.status
    measures = tuple(_measures(lane, losses, rules, now))
    findings = [*_states(lane, rules)]
    for measure in measures:
        if measure.grade:
            findings.append(Finding(measure.grade, _words(measure, lane, rules)))
    findings.sort(key=lambda finding: -ORDER.index(finding.grade))
    return LaneCheck(status.name, status.state, status.resident, measures, tuple(findings))


def _measures(lane: LaneReading, losses: Mapping[str, int], rules: Rules, now: float) -> Iterator[Measure]:
    status = lane.status

    def measure(name: str, value: float | None, unit: str = "", limit: float | None = None) -> Measure:
        bounds = rules.thresholds.get(name, Thresholds()).within(limit)
        return Measure(name, value, unit, *bounds, limit)

    yield measure("oldest", status.oldest_age_s if status.resident else 0.0, "s")
    yield measure("resident", status.resident)
    yield measure("size", status.resident_bytes, "B", lane.limit)
    for account in ACCOUNTS:
        total = getattr(status, account)
        if account == "dead" and status.dead_letters is not None:
            # Those that were replayed or dropped need nobody any more.
            total = min(total, status.dead_letters)
        # The log may repeat what a kill kept from the accounts, and never knows better than they.
        name = account.replace("_", "-")
        yield measure(name, total if rules.within is None else min(total, losses.get(account, 0)))
    yield measure("not-live", _ago(now, status.state_since) if status.state in _NOT_LIVE else 0.0, "s")
    yield measure("heartbeat", status.heartbeat_age_s if status.state != "dead" else 0.0, "s")
    failing = status.failing_since if status.state != "dead" and status.sender == "alive" else None
    yield measure("error", 0.0 if failing is None else _ago(now, failing), "s")
    yield Measure("accepted", status.accepted, "c")
    yield Measure("delivered", status.delivered, "c")


_NOT_LIVE = ("buffering", "draining", "paused")


def _states(lane: LaneReading, rules: Rules) -> Iterator[Finding]:
    status = lane.status
    if status.state in ("blocked", "disk-error"):
        reason = f": {status.state_reason or status.last_error or 'no reason is told'}"
        yield Finding(Grade.CRITICAL, f"{status.state}{reason}")
    elif status.state == "dead" and (status.resident or rules.running):
        waiting = f", and {_count(status.resident)} {'waits' if status.resident == 1 else 'wait'}"
        grade = Grade.CRITICAL if rules.running else Grade.WARNING
        yield Finding(grade, f"no process has it{waiting if status.resident else ''}")
    elif status.state == "buffering" and status.sender == "killed" and (status.resident or rules.running):
        yield Finding(Grade.CRITICAL if rules.running else Grade.WARNING, status.state_reason or "nobody sends")
    elif status.state == "stale" and status.heartbeat_age_s is None:
        yield Finding(Grade.CRITICAL, "a process holds it and gives no sign of life")
    if status.paused and status.state != "paused":
        # Somebody wanted it; whoever starts a program to send wants to know.
        yield Finding(Grade.OK, f"paused {consequence(status)}; mb resume ends it")


def _words(measure: Measure, lane: LaneReading, rules: Rules) -> str:
    status, value = lane.status, measure.value or 0.0
    match measure.name:
        case "oldest":
            return f"the oldest of {_count(status.resident)} has waited for {format_time(value)}"
        case "resident":
            return f"{_count(status.resident)} wait"
        case "size":
            share = f", {100 * value / lane.limit:.0f}% of total_size" if lane.limit else ""
            return f"{format_size(int(value))} wait{share}"
        case "not-live":
            return f"{status.state} for {format_time(value)}"
        case "heartbeat":
            whose = status.state_reason if status.state == "stale" else ""
            return f"{whose or 'no sign of life'} for {format_time(value)}"
        case "error":
            reason = f": {status.last_error}" if status.last_error else ""
            return f"the provider has failed for {format_time(value)}{reason}"
    when = "since the buffer was made" if rules.within is None else f"within {format_time(rules.within)}"
    if measure.name == "dead" and status.dead_letters is not None:
        kept = f"{status.dead_letters:,} dead letter{'' if status.dead_letters == 1 else 's'}"
        if rules.within is None or value == status.dead == status.dead_letters:
            return f"{kept}, rejected {when}"
        # Which of them are still there, the log does not tell.
        return f"{kept}, of which at most {int(value):,} {'was' if value == 1 else 'were'} rejected {when}"
    if measure.name == "acknowledged-lost":
        return f"up to {_count(int(value))} acknowledged, and lost by the destination {when}; mb tail tells how"
    what = {"dead": "rejected"}.get(measure.name, measure.name)
    return f"{_count(int(value))} {what} {when}"


def _ago(now: float, at: float | None) -> float | None:
    return None if at is None else max(0.0, now - at)


def _count(number: int) -> str:
    return f"{number:,} message{'' if number == 1 else 's'}"
