"""The four panels: IN, OUT, BACKLOG, HEALTH.

Pure: a LaneView and a width in, four lines out each. Rates are per second, sizes bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mbframework.monitor import LaneView, Point, Rates
from mbtui.figures import age, count, rate, share, size
from mbtui.glyphs import Glyphs
from mbtui.ink import Ink, Line, clean, crop, fit, length, opposite
from mbtui.lane_words import in_trouble, loss, loss_in_full, next_retry, nobody_sends, paused, widest
from mbtui.past import columns

#: Lines of each panel.
HEIGHT = 4
_DIM: Ink = "dim"


@dataclass(frozen=True, slots=True)
class Panel:
    """What a panel shows."""

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """The time that the sparklines cover: the last ``seconds``, of which ``points`` are known. ``peaks``: points of a
    second each, the ones with the most accepted among them, where ``points`` are of more than a second."""

    seconds: float
    name: str
    points: Sequence[Point]
    reach: float
    peaks: Sequence[Point] = ()


def panels(lane: LaneView, span: Span, *, now: float, widths: Sequence[int], glyphs: Glyphs) -> tuple[Panel, ...]:
    """All four, ``widths`` being the cells inside of each."""
    return (
        incoming(lane, span, now, widths[0], glyphs),
        outgoing(lane, span, now, widths[1], glyphs),
        backlog(lane, span, now, widths[2], glyphs),
        health(lane, now, widths[3], glyphs),
    )


def incoming(lane: LaneView, span: Span, now: float, width: int, glyphs: Glyphs) -> Panel:
    """What the program writes."""
    values = _values(span, lambda point: point.accepted, now, width)
    peak = _peak(lane, span, now)
    lines = (
        _pace(lane.incoming, width, glyphs),
        _labelled("total", count(lane.status.accepted), width),
        _labelled(f"peak {span.name}", glyphs.unknown if peak is None else rate(peak), width),
        _ink(glyphs.sparkline(values), "note"),
    )
    return Panel("IN", lines)


def outgoing(lane: LaneView, span: Span, now: float, width: int, glyphs: Glyphs) -> Panel:
    """What the provider took, and by how much the backlog grows or shrinks."""
    scheme = clean(lane.status.provider.partition(":")[0])
    values = _values(span, lambda point: point.delivered, now, width)
    growth, ink = glyphs.unknown, _DIM
    if lane.incoming is not None and lane.outgoing is not None:
        net = lane.incoming.messages - lane.outgoing.messages
        growth, ink = "steady", ""
        if lane.status.resident and abs(net) >= 0.05:
            growth, ink = f"{'+' if net > 0 else ''}{rate(net)}/s", "warn" if net > 0 else "good"
    lines = (
        _pace(lane.outgoing, width, glyphs),
        _labelled("total", count(lane.status.delivered), width),
        _labelled("backlog", growth, width, ink),
        _ink(glyphs.sparkline(values), "good"),
    )
    return Panel(f"OUT {glyphs.arrow} {scheme}" if scheme else "OUT", lines)


def backlog(lane: LaneView, span: Span, now: float, width: int, glyphs: Glyphs) -> Panel:
    """What waits, how much of the limit that is, and for how long."""
    known = lane.status
    used = known.resident_bytes / lane.total_size if lane.total_size else 0.0
    ink: Ink = "bad" if used >= 0.9 else "warn" if used >= 0.6 else ""
    limit = size(known.resident_bytes) + (f"/{size(lane.total_size)}" if lane.total_size else "")
    values = _values(span, lambda point: float(point.resident), now, width)
    age_ink: Ink = "strong" if known.resident else "dim"
    lines = (
        fit(
            width,
            ((f"{count(known.resident)} msgs", "strong" if known.resident else ""),),
            ((f"{count(known.segments)} seg{'' if known.segments == 1 else 's'}", "dim"),),
        ),
        fit(width, ((limit, ink),), ((share(known.resident_bytes, lane.total_size), ink),), gap=" "),
        _labelled(
            "oldest", age(known.oldest_age_s) if known.oldest_age_s is not None else glyphs.unknown, width, age_ink
        ),
        _ink(glyphs.sparkline(values), "warn" if known.resident else "dim"),
    )
    return Panel("BACKLOG", tuple(crop(line, width, glyphs.ellipsis) for line in lines))


def health(lane: LaneView, now: float, width: int, glyphs: Glyphs) -> Panel:
    """How the provider is, and what was lost."""
    known = lane.status
    if known.state in ("dead", "stale"):
        two = known.writer_pid and known.sender_pid and known.writer_pid != known.sender_pid
        silent = f"the {'sender' if known.sender == 'silent' else 'writer'} is silent" if two else "process is silent"
        nobody = "no process has it" if known.state == "dead" else silent
        first: Line = ((nobody, "bad" if known.state == "stale" or not known.clean else "dim"),)
        second, third = _former_error(lane, now)
    elif in_trouble(lane):
        began = known.failing_since
        text = clean(known.last_error or known.state_reason or known.state)
        first = ((text, "bad"),)
        second = fit(
            width,
            ((f"began {age(now - began)} ago" if began is not None else "failing", "strong"),),
            ((f"{glyphs.times}{count(known.failures)}", "strong"),) if known.failures else (),
            gap=" ",
        )
        third = ((next_retry(lane, now), ""),)
    elif nobody_sends(lane):
        first = (("nobody sends", "bad" if known.sender == "killed" else "warn"),)
        second, third = (("next: mb drain", "strong"),), _former_error(lane, now)[0]
    else:
        first = (("provider answers", "good"),) if known.provider else (("no provider here", "dim"),)
        second, third = _former_error(lane, now)
    if held := paused(lane, now)[2:]:
        # It comes before what the provider once said: whoever starts a program waits for what is not sent.
        second, third = widest(held, width), second or third
    sum_, *kinds = loss_in_full(lane)
    # The kinds of loss stand where there is room; the sum is never left out, nor cut.
    fourth: Line = fit(width, sum_ if length(sum_) <= width else loss(lane), *kinds)
    return Panel("HEALTH", tuple(crop(line, width, glyphs.ellipsis) for line in (first, second, third, fourth)))


def _ink(text: str, ink: Ink) -> Line:
    return ((text, ink),)


def _former_error(lane: LaneView, now: float) -> tuple[Line, Line]:
    known = lane.status
    if not known.last_error:
        return (), ()
    when = f"last error {age(now - known.last_error_at)} ago" if known.last_error_at else "last error"
    return ((when, "dim"),), ((clean(known.last_error), "dim"),)


def _pace(rates: Rates | None, width: int, glyphs: Glyphs) -> Line:
    if rates is None:
        return ((f"{glyphs.unknown} msg/s", "dim"),)
    left: Line = ((f"{rate(rates.messages)} msg/s", "strong"),)
    right: Line = ((f"{size(rates.size)}/s" if rates.size is not None else "", ""),)
    return opposite(left, right, width, glyphs.ellipsis) if len(left[0][0]) + len(right[0][0]) < width else left


def _labelled(label: str, text: str, width: int, ink: Ink = "") -> Line:
    if len(label) + 1 + len(text) > width:
        return ((text, ink),)
    return ((f"{label} ", "dim"), (text, ink))


def _peak(lane: LaneView, span: Span, now: float) -> float | None:
    """The most in a second, never below the present pace; None where nothing is known."""
    # A point from a moment after the last look belongs to now.
    known = [point.accepted for point in span.peaks or span.points if now - point.at < span.seconds]
    return max(known + ([lane.incoming.messages] if lane.incoming is not None else []), default=None)


def _values(span: Span, pick: Callable[[Point], float], now: float, width: int) -> list[float | None]:
    return columns(span.points, pick, now=now, window=span.seconds, width=width, reach=span.reach)
