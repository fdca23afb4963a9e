"""The lines above the messages of a segment: what it is, how far it is delivered, whether it is intact. Pure."""

from __future__ import annotations

from mbframework.browse import SegmentInfo
from mbtui.figures import count
from mbtui.figures import size as size_text
from mbtui.glyphs import SEGMENT_INKS, Glyphs
from mbtui.ink import Ink, Line, clean, crop, fit, opposite
from mbtui.message_lines import moment
from mbtui.segment_source import Facts

CHECKING: Line = (("check: reading every byte", "dim"),)


def segment_lines(
    facts: Facts | None, check: SegmentInfo | str | None, place: str, *, width: int, glyphs: Glyphs, gone: bool = False
) -> list[Line]:
    """Three lines.

    :param check: None while it goes on; why it was not made, where that is so.
    :param place: directory and lane.
    """
    if facts is None:
        return [((clean(place), "strong"),), (("gone", "bad") if gone else ("looking", "dim"),), ()]
    state = "gone" if gone else facts.state
    sign = glyphs.segments["damaged" if gone else state]
    ink: Ink = "bad" if gone else SEGMENT_INKS[state]
    top = fit(
        width,
        ((f"{sign} {state.upper()}", ink or "strong"),),
        ((f"segment {facts.first:,}", "strong"),),
        ((clean(place), "note"),),
        ((f"{count(facts.messages)} message{'' if facts.messages == 1 else 's'}", ""),),
        ((size_text(facts.size), ""),),
        ((facts.name, "dim"),),
    )
    return [
        crop(top, width, glyphs.ellipsis),
        _delivery(facts, width, glyphs),
        _check_line(facts, check, width, glyphs),
    ]


def check_result(check: SegmentInfo, facts: Facts, glyphs: Glyphs) -> Line:
    """What reading every byte has shown."""
    if not check.damage:
        # It has grown since.
        how_far = ": every byte read" if check.end >= facts.end else f" up to {check.end - 1:,}"
        return ((f"{glyphs.segments['drained']} intact", "good"), (how_far, "dim"))
    more = f" (and {len(check.damage) - 1} more)" if len(check.damage) > 1 else ""
    return ((f"{glyphs.segments['damaged']} damaged: {clean(check.damage[0])}{more}", "bad"),)


def _delivery(facts: Facts, width: int, glyphs: Glyphs) -> Line:
    if not facts.messages:
        return (("no message yet", "dim"),)
    if not facts.known:
        return (("how far it is delivered cannot be read", "warn"),)
    done = facts.delivered / facts.messages
    # All of it only when it is all.
    percent = 100.0 if done == 1 else min(99.9, 100 * done)
    left = facts.messages - facts.delivered
    filled, empty = glyphs.bar(done, 10)
    return fit(
        width,
        ((f"delivered {percent:.1f}% ", ""), (filled, "note"), (empty, "dim")),
        ((f"{count(left)} left", "strong" if left else "dim"),),
        ((f"next {facts.undelivered:,}", "note"),) if facts.is_sent_now else (),
        ((f"sequences {facts.first:,} to {facts.end - 1:,}", "dim"),),
        ((f"({facts.otherwise:,} of this lane settled, but not by delivery)", "dim"),) if facts.otherwise else (),
    )


def _check_line(facts: Facts, check: SegmentInfo | str | None, width: int, glyphs: Glyphs) -> Line:
    if not isinstance(check, SegmentInfo):
        result: Line = CHECKING if check is None else ((f"not checked: {clean(check)}", "bad"),)
        return opposite((("first ", "dim"), (moment(facts.wall_ns, date=True), "")), result, width, glyphs.ellipsis)
    result = check_result(check, facts, glyphs)
    if check.damage:
        return crop(result, width, glyphs.ellipsis)
    times: Line = (
        ("first ", "dim"),
        (moment(check.first_time, date=True), ""),
        ("  last ", "dim"),
        (moment(check.last_time, date=False), ""),
    )
    return opposite(times, result, width, glyphs.ellipsis)
