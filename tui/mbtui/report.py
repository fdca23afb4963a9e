"""One plain report, for a pipe, a dumb terminal, or ``--once``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mbframework.monitor import Event, LaneView, View
from mbtui.banner import banner
from mbtui.event_view import event_line
from mbtui.glyphs import Glyphs
from mbtui.ink import clean, plain
from mbtui.lane_words import loss_in_full, losses
from mbtui.panels import Span, panels

_WIDTH = 100
#: Nothing is left out for want of room.
_WIDEST = 2_000
_EVENTS = 10


def report(view: View, events: dict[str, list[Event]], *, now: float, glyphs: Glyphs) -> Iterator[str]:
    """The lines; ``events`` by lane."""
    yield clean(view.directory)
    if not view.lanes:
        for line in banner(view, None, now=now, width=_WIDTH, glyphs=glyphs, mark=())[1:]:
            yield "  " + plain(line)
    for lane in view.lanes:
        yield ""
        yield from _lane(view, lane, events.get(lane.name, []), now, glyphs)


def _lane(view: View, lane: LaneView, events: Sequence[Event], now: float, glyphs: Glyphs) -> Iterator[str]:
    top, second, *more = banner(view, lane, now=now, width=_WIDEST, glyphs=glyphs, mark=())
    yield plain(top)
    # The loss, on the right of the screen, has a line of its own here.
    yield "  " + plain(second).removesuffix(plain(losses(lane, _WIDEST))).rstrip()
    for line in more:
        yield "  " + plain(line)
    span = Span(300.0, "5m", lane.history, 2.6)
    for panel in panels(lane, span, now=now, widths=(60, 60, 60, 120), glyphs=glyphs):
        lines = [plain(line).strip() for line in panel.lines]
        title = panel.title.partition(" ")[0]
        # The sparklines are for the screen.
        kept = lines if title == "HEALTH" else lines[:-1]
        yield f"  {title:<9}{glyphs.dot.join(' '.join(line.split()) for line in kept if line)}"
    told = glyphs.dot.join(plain(line) for line in loss_in_full(lane))
    yield f"  {'LOSS':<9}{told}"
    for event in events[-_EVENTS:]:
        yield f"  {plain(event_line(event, now)).strip()}"
