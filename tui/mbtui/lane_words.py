"""What is said of a lane: its state and since when, the verdict, the loss, the trouble.

Pure: a LaneView and the time in, lines out. The banner, the panels, the list of lanes and the plain report share them.
"""

from __future__ import annotations

from collections.abc import Sequence

from mbframework.monitor import LaneView, View
from mbtui.figures import age, count, moment
from mbtui.glyphs import STATE_INKS, Glyphs
from mbtui.ink import Ink, Line, clean, length

_VERDICT_INKS: dict[str, Ink] = {
    "keeping-up": "good",
    "idle": "good",
    "draining": "note",
    "growing": "warn",
    "stalled": "bad",
    "paused": "warn",
    "blocked": "bad",
    "disk-error": "bad",
    "stale": "bad",
    "dead": "bad",
}


def state(lane: LaneView, glyphs: Glyphs) -> Line:
    """The sign and the word."""
    known = lane.status
    ink = "dim" if known.state == "dead" and known.clean and not known.resident else STATE_INKS.get(known.state, "bad")
    return ((glyphs.state(known.state), ink),)


def since(lane: LaneView, now: float) -> Line:
    """Since when: for how long, and the time of day."""
    known = lane.status
    if known.state == "stale":
        return ((f"silent for {age(known.heartbeat_age_s)}", "bad"),)
    if known.state == "dead":
        last = f", last sign of life {age(known.heartbeat_age_s)} ago" if known.heartbeat_age_s is not None else ""
        return ((("closed" if known.clean else "not closed properly") + last, "" if known.clean else "warn"),)
    if known.state_since is None:
        return ()
    return ((age(now - known.state_since), "strong"), (f" since {moment(known.state_since, now)}", "dim"))


def clock_set(lane: LaneView) -> Line:
    """That the wall clock was set since the state began: times of day from before do not fit those from after."""
    by = lane.status.clock_jump_s
    return ((f"clock set {'ahead' if by > 0 else 'back'} {age(abs(by))}", "warn"),) if by else ()


def verdict(lane: LaneView) -> Line:
    """Better or worse?"""
    return ((clean(lane.verdict.text), _VERDICT_INKS.get(lane.verdict.kind, "")),)


def lost_messages(lane: LaneView) -> int:
    """Messages that were accepted and will not be delivered, or are not known to have been."""
    known = lane.status
    return known.pruned + known.expired + known.lost


def loss(lane: LaneView) -> Line:
    """The short form, which is always on the screen."""
    lost = lost_messages(lane)
    return ((f"LOST {count(lost)}", "bad"),) if lost else (("nothing lost", "good"),)


def losses(lane: LaneView, width: int) -> Line:
    """The same behind the dead letters, which are kept, and have not arrived either; in ``width`` cells where there are
    words so short. It is never left out: whatever stands beside it gives way."""
    line = short = loss(lane)
    for kept in _dead_letters(lane):
        if length(line := (*kept, ("  ", ""), *short)) <= width:
            break
    return line


def letters(lane: LaneView) -> int:
    """The dead letters that are kept now; where they cannot be read, all that there ever were."""
    known = lane.status
    return known.dead if known.dead_letters is None else known.dead_letters


def _dead_letters(lane: LaneView) -> list[Line]:
    """The long words and the short ones; none where there is no dead letter."""
    number = letters(lane)
    words = (f"dead letter{'' if number == 1 else 's'}", "dead")
    return [((f"{count(number)} {word}", "warn"),) for word in words] if number else []


def loss_in_full(lane: LaneView) -> list[Line]:
    """The same with what it is made of, and with what else did not arrive."""
    known = lane.status
    prunes = f"in {lane.prunes:,} prune{'' if lane.prunes == 1 else 's'}" if lane.prunes else "pruned"
    kinds = [
        (known.pruned, prunes),
        (known.expired, "expired"),
        (known.lost_live, "in memory at a kill"),
        (known.lost_linger, "gathered at a kill"),
        (known.lost_disk, "unreadable on disk"),
        (known.returned, "handed back"),
    ]
    kinds = [(number, what) for number, what in kinds if number]
    lines = [loss(lane)]
    if len(kinds) == 1:
        ((_, what),) = kinds
        lines = [(*loss(lane), (f" {what}", "bad"))]
    elif kinds:
        lines += [((f"{count(number)} {what}", "bad"),) for number, what in kinds]
    lines += _dead_letters(lane)[:1]
    if known.purged:
        lines.append(((f"{count(known.purged)} purged on request", "dim"),))
    return lines


def nobody_sends(lane: LaneView) -> bool:
    """Whether a process writes to the lane, and none has it to send."""
    return lane.status.state not in ("dead", "stale") and lane.status.sender in ("killed", "none")


def paused(lane: LaneView, now: float) -> list[Line]:
    """That sending is paused, where the state does not say it, and what follows: in ever fewer words."""
    known = lane.status
    if not known.paused or known.state == "paused":
        return []
    what = "the next program will not send" if known.state == "dead" or nobody_sends(lane) else "nothing is sent"
    at = known.paused_since
    since = f" since {moment(at, now)} ({age(now - at)})" if at is not None else ""
    long = f"paused{since}: {what}"
    return [((text, "warn"),) for text in (f"{long}; mb resume ends it", long, f"paused: {what}", "paused: mb resume")]


def widest(lines: Sequence[Line], width: int) -> Line:
    """The first for which there is room, else the last one."""
    return next((line for line in lines if length(line) <= width), lines[-1])


def in_trouble(lane: LaneView) -> bool:
    """Whether the last error is of now."""
    known = lane.status
    return (bool(known.failures) and not nobody_sends(lane)) or known.state in ("blocked", "disk-error")


def trouble(lane: LaneView, now: float, glyphs: Glyphs) -> Line:
    """The last error of a provider that does not answer: when it began, how often, the next attempt, the text. Where
    nobody asks it, that."""
    known = lane.status
    if nobody_sends(lane) and known.state == "buffering":
        return ((clean(known.state_reason), "bad" if known.sender == "killed" else "warn"),)
    if not in_trouble(lane) or not (known.last_error or known.state_reason):
        return ()
    parts = []
    began = known.failing_since
    if began is not None:
        parts.append(f"began {age(now - began)} ago")
    if known.failures:
        parts.append(f"{glyphs.times}{count(known.failures)}")
    if retry := next_retry(lane, now):
        parts.append(retry)
    told = f" ({', '.join(parts)})" if parts else ""
    return (("error", "bad"), (told, "strong"), (" " + clean(known.last_error or known.state_reason), ""))


def next_retry(lane: LaneView, now: float) -> str:
    """When the provider is asked again; "" where that is not known."""
    at = lane.status.retry_at
    if at is None or lane.status.state in ("dead", "stale", "paused"):
        return ""
    return f"next retry in {age(at - now)}" if at - now > 0.05 else "retrying now"


def problems(view: View, lane: LaneView | None) -> list[str]:
    """What else has to be said, in words."""
    found = [clean(problem) for problem in view.problems]
    if lane is not None and lane.status.order_violations:
        number = lane.status.order_violations
        found.append(
            f"{number:,} message{'' if number == 1 else 's'} overtook one that had failed: a fault of the provider's"
        )
    return found


def address(of: tuple[View, LaneView | None]) -> tuple[str, str]:
    """A place by what stays the same while others come and go: the directory, and the lane ("" where it has none)."""
    view, lane = of
    return view.directory, lane.name if lane is not None else ""


def place(view: View, lane: LaneView | None) -> str:
    """The lane by a short name: the directory's last part, and the lane where it is not the only one."""
    directory = clean(view.directory.rstrip("/").rpartition("/")[2] or view.directory)
    return directory if lane is None else f"{directory}/{clean(lane.name)}"
