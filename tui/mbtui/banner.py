"""The lines on top: state and since when, the verdict and the loss, and what is wrong.

Pure: they are drawn by :class:`mbtui.lines_view.LinesView`.
"""

from __future__ import annotations

from collections.abc import Sequence

from mbframework.monitor import LaneView, View
from mbtui.figures import age, count, rate, share
from mbtui.glyphs import Glyphs
from mbtui.ink import Line, clean, crop, fit, length, opposite, wrap
from mbtui.lane_words import (
    clock_set,
    in_trouble,
    losses,
    nobody_sends,
    paused,
    place,
    problems,
    since,
    state,
    trouble,
    verdict,
    widest,
)


def banner(
    view: View | None,
    lane: LaneView | None,
    *,
    now: float,
    width: int,
    glyphs: Glyphs,
    mark: Line,
) -> list[Line]:
    """Two lines, and up to four more where something is wrong. ``mark``: read-only or not, frozen or not."""
    if view is None:
        return [opposite((("looking", "dim"),), mark, width, glyphs.ellipsis), ()]
    if lane is None:
        head: Line
        path = clean(view.directory)
        if view.error:
            lines = wrap(clean(view.error), width, 3, "bad", glyphs.ellipsis)
            head = ((glyphs.state("unreadable"), "bad"), ("  " + path, ""))
            return [opposite(head, mark, width, glyphs.ellipsis), *lines]
        told = problems(view, None)
        first: Line = (("no lane can be read", "bad"),) if told else (("no lane yet: nothing was written", "dim"),)
        head = ((glyphs.state("empty"), "warn"), ("  " + path, ""))
        return [
            opposite(head, mark, width, glyphs.ellipsis),
            first,
            *wrap("; ".join(told), width, 2, "bad", glyphs.ellipsis),
        ]
    known = lane.status
    # Of two processes the one that gives no sign of life is the one to look for.
    silent = known.sender_pid if known.state == "stale" and known.sender == "silent" else None
    process = silent or known.writer_pid or known.sender_pid
    pid = f"pid {process}" if process else ""
    beat = f"beat {age(known.heartbeat_age_s)}" if known.state not in ("dead", "stale") else ""
    top = fit(
        width - sum(len(text) for text, _ in mark) - 2,
        state(lane, glyphs),
        since(lane, now),
        clock_set(lane),
        ((clean(known.provider), ""),) if known.provider else (),
        ((place(view, lane), "note"),),
        ((beat, "dim"),) if beat and known.heartbeat_age_s is not None else (),
        ((pid, "dim"),) if pid else (),
        ((f"mode {clean(known.mode)}", "dim"),),
        ((clean(view.directory), "dim"),),
    )
    lost = losses(lane, width - length(verdict(lane)) - 2)
    below = opposite((*verdict(lane), *_reason(lane)), lost, width, glyphs.ellipsis)
    lines = [opposite(top, mark, width, glyphs.ellipsis), below]
    if held := paused(lane, now):
        lines.append(crop(widest(held, width), width, glyphs.ellipsis))
    if wrong := trouble(lane, now, glyphs):
        # What does not fit in one line gets two: it is what people look for.
        *start, (text, ink) = wrong
        if length(wrong) <= width:
            lines.append(wrong)
        else:
            above = [crop(tuple(start), width, glyphs.ellipsis)] if start else []
            lines += [*above, *wrap(text, width, 2 - len(above), ink, glyphs.ellipsis)]
    if told := problems(view, lane):
        lines.append(crop((("; ".join(told), "bad"),), width, glyphs.ellipsis))
    return lines


def strip(view: View | None, lane: LaneView | None, *, width: int, glyphs: Glyphs) -> list[Line]:
    """The figures that fit where nothing else does, one below the other where they do not fit side by side. What was
    lost stands in the banner already."""
    if view is None or lane is None:
        return []
    known = lane.status
    figures: list[Line] = [
        (("in ", "dim"), (f"{rate(lane.incoming.messages)}/s" if lane.incoming else glyphs.unknown, "")),
        (("out ", "dim"), (f"{rate(lane.outgoing.messages)}/s" if lane.outgoing else glyphs.unknown, "")),
        (
            ("wait ", "dim"),
            (" ".join(filter(None, (count(known.resident), share(known.resident_bytes, lane.total_size)))), ""),
        ),
    ]
    if known.oldest_age_s is not None:
        figures.append((("oldest ", "dim"), (age(known.oldest_age_s), "")))
    lines: list[Line] = []
    for figure in figures:
        joined = fit(width, lines[-1], figure) if lines else figure
        if lines and joined != lines[-1]:
            lines[-1] = joined
        else:
            lines.append(figure)
    return lines


def tabs(places: Sequence[tuple[View, LaneView | None]], chosen: int, *, width: int, glyphs: Glyphs) -> Line:
    """The lanes side by side, the chosen one in the window."""
    if len(places) < 2:
        return ()
    head: Line = ((f"{chosen + 1}/{len(places)} ", "dim"),)
    labels: list[Line] = []
    for at, (view, lane) in enumerate(places):
        sign: Line = (("✖" if not glyphs.ascii else "X", "bad"),)
        if lane is not None:
            sign = ((glyphs.states.get(lane.status.state, "?"), state(lane, glyphs)[0][1]),)
        name = place(view, lane)
        if at == chosen:
            labels.append((("[", "strong"), *sign, (f" {name}]", "strong")))
        else:
            labels.append(((" ", ""), *sign, (f" {name} ", "")))
    # From the chosen one outwards, as far as there is room.
    low = high = chosen
    used = len(f"{chosen + 1}/{len(places)} ") + _width(labels[chosen])
    while True:
        grown = False
        for at in (high + 1, low - 1):
            if 0 <= at < len(labels) and low - 1 <= at <= high + 1 and used + _width(labels[at]) <= width:
                used += _width(labels[at])
                low, high, grown = min(low, at), max(high, at), True
        if not grown:
            break
    return crop((*head, *(piece for label in labels[low : high + 1] for piece in label)), width, glyphs.ellipsis)


def _width(line: Line) -> int:
    return sum(len(text) for text, _ in line)


def _reason(lane: LaneView) -> Line:
    reason = clean(lane.status.state_reason)
    # While it drains, or is live, the reason tells of what is over; an error that goes on has a line of its own.
    in_line = in_trouble(lane) or nobody_sends(lane)
    told = lane.status.state in ("live", "draining") or (lane.status.state == "buffering" and in_line)
    if not reason or told or reason in lane.verdict.text:
        return ()
    return ((f": {reason}", ""),)
