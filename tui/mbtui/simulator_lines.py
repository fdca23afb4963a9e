"""What the simulator's screen says: a picture in, lines out.

Pure. Widths are terminal cells; texts of providers and engine come out printable.
"""

from __future__ import annotations

from collections.abc import Sequence

from mbframework.status import LaneStatus
from mbtui.figures import age, count, rate, size
from mbtui.glyphs import SEGMENT_INKS, STATE_INKS, Glyphs
from mbtui.ink import Line, clean, crop, fit, opposite
from mbtui.simulation import Picture, SegmentPicture


def banner(picture: Picture, provider: str, *, now: float, width: int, glyphs: Glyphs) -> list[Line]:
    """Two lines: the state and since when, the mode, the provider; and why it is so."""
    status = picture.status
    since: Line = () if status.state_since is None else ((age(now - status.state_since), "strong"),)
    top = fit(
        width,
        ((glyphs.state(status.state), STATE_INKS.get(status.state, "bad")),),
        since,
        ((f"mode {clean(status.mode)}", ""),),
        ((f"to {clean(provider)}", ""),),
        (("a real buffer in a temporary directory", "dim"),),
    )
    return [crop(top, width, glyphs.ellipsis), crop(_reason(status, now, glyphs), width, glyphs.ellipsis)]


def _reason(status: LaneStatus, now: float, glyphs: Glyphs) -> Line:
    if status.failures and status.last_error:
        wait = status.retry_at - now if status.retry_at else 0.0
        told = f" ({glyphs.times}{count(status.failures)}{f', next try in {age(wait)}' if wait >= 0.05 else ''}) "
        return (("error", "bad"), (told, "strong"), (clean(status.last_error), ""))
    if status.state_reason:
        return ((clean(status.state_reason), ""),)
    return (("the provider answers", "dim"),)


def gauge(
    rates: Sequence[float], now: float, total: int, top: float, *, width: int, height: int, glyphs: Glyphs
) -> list[Line]:
    """The rate in figures and as a bar, and how it came there: as many lines as there is room for.

    ``rates`` are those of the last looks, newest last; ``top`` is what a full bar stands for, messages per second.
    """
    figures = opposite(((f"{rate(now)} msg/s", "strong"),), ((f"total {total:,}", "dim"),), width, glyphs.ellipsis)
    full, empty = glyphs.bar(now / top if top else 0.0, width)
    lines: list[Line] = [figures, ((full, "note"), (empty, "dim"))]
    if height >= 5:
        lines.append(())
    lines += [((row, "note"),) for row in sparkline(rates, top, width, height - len(lines), glyphs.levels)]
    return lines[:height]


def sparkline(values: Sequence[float], top: float, width: int, height: int, levels: str) -> list[str]:
    """Columns of up to ``height`` rows, the newest value in the last one; ``levels`` are the heights of one row."""
    if height <= 0 or width <= 0:
        return []
    shown = list(values)[-width:]
    most = height * len(levels)
    bars = [0 if top <= 0 or value <= 0 else max(1, round(min(value, top) / top * most)) for value in shown]
    rows = []
    for row in range(height - 1, -1, -1):
        cells = (bar - row * len(levels) for bar in bars)
        text = "".join(" " if cell <= 0 else levels[min(cell, len(levels)) - 1] for cell in cells)
        rows.append(text.rjust(width))
    return rows


def full_scale(picture: Picture, width: int) -> float:
    """What both gauges are drawn against: the highest rate that either of them shows."""
    return max((*picture.incoming[-width:], *picture.outgoing[-width:], 1.0))


def accounts(picture: Picture, width: int) -> list[Line]:
    """Where every accepted message is; the sum always holds, and what is zero but matters is shown as well."""
    status = picture.status
    parts: list[Line] = [
        (("accepted ", "dim"), (f"{status.accepted:,}", "strong")),
        (("= delivered ", "dim"), (f"{status.delivered:,}", "strong")),
        (("+ waiting ", "dim"), (f"{status.resident:,}", "strong")),
        (("+ pruned ", "dim"), (f"{status.pruned:,}", "bad" if status.pruned else "strong")),
        (("+ lost ", "dim"), (f"{status.lost:,}", "bad" if status.lost else "strong")),
    ]
    parts += [
        ((f"+ {name} ", "dim"), (f"{number:,}", "warn"))
        for name, number in (("expired", status.expired), ("dead", status.dead), ("purged", status.purged))
        if number
    ]
    beside: list[Line] = [
        (("refused ", "dim"), (f"{picture.refused:,}", "warn" if picture.refused else "strong")),
        (("errors injected ", "dim"), (f"{picture.injected:,}", "strong")),
        (("on disk ", "dim"), (size(status.disk_bytes or sum(each.size for each in picture.segments)), "strong")),
    ]
    if status.oldest_age_s is not None:
        beside.append((("oldest ", "dim"), (age(status.oldest_age_s), "strong")))
    return [fit(width, *parts, gap=" "), fit(width, *beside)]


def segments(found: Sequence[SegmentPicture], width: int, glyphs: Glyphs) -> list[Line]:
    """A heading and a line for each segment file, the oldest first; the one being sent is marked."""
    if not found:
        return [(("no segment: what is written goes past the disk", "dim"),)]
    name_cells = 29 if width >= 76 else 17
    bar_cells = max(8, min(40, width - name_cells - 48))
    heading = f"  {'segment file':{name_cells}}{'state':11}{'size':>9}{'messages':>10}{'left':>9}  delivered"
    return [
        crop(((heading, "dim"),), width, glyphs.ellipsis),
        *(crop(_segment(each, name_cells, bar_cells, glyphs), width, glyphs.ellipsis) for each in found),
    ]


def _segment(each: SegmentPicture, name_cells: int, bar_cells: int, glyphs: Glyphs) -> Line:
    name = each.name
    if len(name) >= name_cells:
        name = glyphs.ellipsis + name[len(name) + 2 - name_cells :]
    ink = SEGMENT_INKS[each.state]
    sent = each.state in ("draining", "next")
    full, empty = glyphs.bar(each.done, bar_cells)
    return (
        (f"{glyphs.segments[each.state]} ", ink),
        (f"{name:{name_cells}}", "strong" if sent else ""),
        (f"{each.state:11}", ink),
        (f"{size(each.size):>9}{count(each.messages):>10}{count(each.left):>9}  ", ""),
        (full, ink or "dim"),
        (empty, "dim"),
        (f" {100 * each.done:3.0f}%", ""),
    )
