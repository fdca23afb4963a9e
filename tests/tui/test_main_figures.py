"""The figures, lines and columns that the dashboard computes."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mbtui import figures
from mbtui.arguments import parse
from mbtui.arrangement import Arrangement, Order
from mbtui.banner import banner, strip, tabs
from mbtui.event_view import event_line
from mbtui.glyphs import ASCII, UNICODE, Glyphs, only_ascii
from mbtui.ink import crop, fit, length, opposite, plain, wrap
from mbtui.lane_words import loss, loss_in_full, next_retry, trouble
from mbtui.panels import Span, panels
from mbtui.past import Past, columns
from mbtui.pattern import Pattern
from mbtui.segment_table import columns_for, heading, row_line

from mbframework.monitor import Event, Point, Rates, Verdict
from tests.tui.scripted import NOW, buffering, lane, live, segments, view

TEXTS = st.text(max_size=60)


def span(seconds: float = 300.0) -> Span:
    return Span(seconds, "5m", lane().history, 2.6)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (1812, "1,812"), (99_999, "99,999"), (120_422, "120k"), (999_499, "999k"), (999_600, "1.00M"),
     (6_113_106, "6.11M"), (18_204_551, "18.2M"), (2.5e9, "2.50G"), (-4_000, "-4,000"), (float("inf"), "?")],
)  # fmt: skip
def test_counts_are_short(number: float, text: str) -> None:
    assert figures.count(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "?"), (-5, "0s"), (0.4, "0.4s"), (9.96, "10s"), (404, "6m44s"), (7_700, "2h8m"), (float("nan"), "?")],
)
def test_ages(seconds: float | None, text: str) -> None:
    assert figures.age(seconds) == text


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_no_instant_is_too_strange(at: float) -> None:
    assert figures.moment(at, NOW)
    assert figures.age(at)


@given(TEXTS, st.integers(0, 40))
def test_what_is_cropped_fits(text: str, width: int) -> None:
    assert length(crop(((text, ""), (text, "dim")), width)) <= width


@given(TEXTS, st.integers(1, 30), st.integers(1, 4))
def test_what_is_wrapped_fits_and_loses_nothing_without_saying_so(text: str, width: int, lines: int) -> None:
    found = wrap(text, width, lines)
    assert len(found) <= lines
    assert all(length(line) <= width for line in found)
    said = "".join(map(plain, found))
    assert said.endswith("…") or re.sub(r"\s", "", said) == re.sub(r"\s", "", text)


def test_parts_are_left_out_whole_and_the_right_side_is_never_cut() -> None:
    assert plain(fit(9, (("one", ""),), (("three", ""),), (("two", ""),))) == "one  two"
    assert plain(opposite((("a long verdict", ""),), (("LOST 5", "bad"),), 14)) == "a long… LOST 5"


def test_a_column_without_a_point_is_blank_and_zero_is_the_lowest_level() -> None:
    points = [Point(at=NOW - 9.5, accepted=0, delivered=0, resident=0), Point(NOW - 0.5, 8, 0, 0)]
    values = columns(points, lambda point: point.accepted, now=NOW, window=10, width=10)
    # A point stands for the two seconds in front of it too.
    assert values == [0, *[None] * 6, 8, 8, 8]
    assert UNICODE.sparkline(values) == "▁      ███"
    assert ASCII.sparkline(values).isascii()


@given(st.lists(st.floats(-1e6, 1e6), max_size=50), st.floats(1, 1e4), st.integers(0, 60))
def test_columns_of_any_past(offsets: list[float], window: float, width: int) -> None:
    points = [Point(NOW + offset, 1.0, 1.0, 1) for offset in sorted(offsets)]
    found = columns(points, lambda point: point.accepted, now=NOW, window=window, width=width)
    assert len(found) == width
    assert {value for value in found if value is not None} <= {1.0}


def test_an_hour_is_kept_in_steps() -> None:
    past = Past()
    for at in range(0, 7_200, 600):
        past.add([Point(at + second, float(at), 0.0, at) for second in range(600)])
        past.add([Point(at + second, 1e9, 0.0, at) for second in range(600)])  # seen before
    points = past.points()
    assert 355 <= len(points) <= 362
    assert points[-1].accepted == 6_600.0
    assert all(b.at - a.at == 10 for a, b in itertools.pairwise(points))


@pytest.mark.parametrize("hours", [-2, 2])
def test_the_past_moves_along_with_a_clock_that_is_set(hours: int) -> None:
    past, moved = Past(), hours * 3_600.0
    past.add([Point(NOW + second, 5.0, 0.0, 1) for second in range(600)], ahead=1e9)
    # The clocks are read one after the other, so that they never differ by quite the same.
    past.add([Point(NOW + second, 5.0, 0.0, 1) for second in range(600)], ahead=1e9 + 0.01)
    later = [Point(NOW + moved + second, 5.0, 0.0, 1) for second in range(600, 700)]
    past.add(later, ahead=1e9 + moved)
    points, (_, *peaks) = past.points(), past.peaks()
    assert 70 <= len(points) <= 71
    assert abs(points[0].at - (NOW + moved)) <= 10
    assert abs(points[-1].at - (NOW + moved + 700)) <= 10
    assert abs(peaks[-1].at - points[-1].at) <= 10
    assert all(b.at - a.at == pytest.approx(10) for a, b in itertools.pairwise(points))


def test_a_clock_that_was_set_is_told_in_one_word() -> None:
    for by, words in ((-7_200.0, "clock set back 2h"), (7_200.0, "clock set ahead 2h")):
        head = banner(view(), lane(clock_jump_s=by), now=NOW, width=100, glyphs=UNICODE, mark=())[0]
        assert words in plain(head)
    assert "clock" not in plain(banner(view(), lane(), now=NOW, width=200, glyphs=UNICODE, mark=())[0])


@pytest.mark.parametrize(
    ("changes", "there", "panel"),
    [
        (
            {"state": "stale", "state_reason": "the sender (process 7) has given no sign of life", "sender": "silent"},
            ["? STALE", "silent for 12s", "pid 7"],
            "the sender is silent",
        ),
        (
            {"state": "stale", "state_reason": "the writer (process 4242) has given no sign of life"},
            ["? STALE", "silent for 12s", "pid 4242"],
            "the writer is silent",
        ),
        (
            {"state_reason": "nobody sends: the sender (process 7) has died; next: mb drain b", "sender": "killed"},
            ["■ BUFFERING", "growing, full in 41m", "nobody sends: the sender (process 7) has died; next: mb drain b"],
            "nobody sends",
        ),
        (
            {"state_reason": "nobody sends: this process only writes; next: mb drain b", "sender": "none"},
            ["■ BUFFERING", "nobody sends: this process only writes; next: mb drain b"],
            "nobody sends",
        ),
    ],
)
def test_without_a_sender_nothing_is_told_as_if_it_lived(changes: dict[str, Any], there: list[str], panel: str) -> None:
    found = buffering(writer_pid=4242, sender_pid=7, heartbeat_age_s=12.0, **{"retry_at": None} | changes)
    lines = banner(view(), found, now=NOW, width=160, glyphs=UNICODE, mark=())
    told = "\n".join(map(plain, lines))
    health = panels(found, span(), now=NOW, widths=[30] * 4, glyphs=UNICODE)[3]
    shown = "\n".join(map(plain, health.lines))
    assert all(words in told for words in there), told
    assert health.lines[0][0][0] == panel
    for words in ("retry", "provider answers"):
        assert words not in told + shown


def test_letters_that_were_replayed_or_dropped_are_no_more() -> None:
    for kept, words in ((0, ""), (2, "2 dead letters  "), (None, "3 dead letters  ")):
        second = plain(banner(view(), lane(dead=3, dead_letters=kept), now=NOW, width=120, glyphs=UNICODE, mark=())[1])
        assert ("dead letter" in second) == bool(words)
        assert words in second


class Interrupted(Exception):
    """Somebody wants something else."""


def test_what_was_read_for_one_order_is_not_read_again_for_another() -> None:
    rows, arrangement = segments(2_000), Arrangement(clock=itertools.count().__next__)

    def interrupt(done: float) -> None:
        if done >= 0.5:
            raise Interrupted

    with pytest.raises(Interrupted):
        arrangement.of("lane", rows, Order(sort="left"), interrupt)
    assert rows.reads == 1_000
    by_left = arrangement.of("lane", rows, Order(sort="left", descending=True))
    assert rows.reads == 2_000
    assert by_left[-1] == 0
    draining = arrangement.of("lane", rows, Order(Pattern.parse("draining"), "left"))
    assert list(draining) == [1]
    assert [row.state for row in arrangement.rows(rows, 0, 5)] == ["draining"]
    assert rows.reads == 2_001
    # The lane is another one.
    arrangement.of("other", rows, Order(sort="age"))
    assert rows.reads == 4_001


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_every_row_has_the_width_of_its_heading(width: int) -> None:
    chosen = columns_for(width)
    head = plain(heading(chosen, "segment", False, UNICODE))
    assert length(((head, ""),)) <= width
    for row in segments().table:
        assert length(row_line(row, chosen, NOW, UNICODE)) == len(head)


def test_only_what_is_done_is_a_hundred_percent() -> None:
    row = replace(segments().table[1], done=0.99999)
    line = plain(row_line(row, columns_for(120), NOW, UNICODE))
    assert " 99.9%" in line
    assert UNICODE.empty in line


def test_losses_are_added_up_and_named() -> None:
    mixed = lane(lost=7, lost_live=5, lost_disk=2, expired=30, purged=9)
    assert plain(loss(mixed)) == "LOST 120k"
    assert [plain(line) for line in loss_in_full(mixed)] == [
        "LOST 120k",
        "120k in 3 prunes",
        "30 expired",
        "5 in memory at a kill",
        "2 unreadable on disk",
        "3 dead letters",
        "9 purged on request",
    ]
    assert plain(loss(live())) == "nothing lost"


def test_an_outage_says_when_it_began_how_often_and_what_comes_next() -> None:
    told = plain(trouble(buffering(), NOW, UNICODE))
    assert told == ("error (began 6m44s ago, ×9, next retry in 4.0s) BrokerUnavailable: no broker answers at k1:9092")
    assert not trouble(lane(), NOW, UNICODE)


def test_the_banner_answers_the_five_questions_at_every_width() -> None:
    for width in range(40, 200, 7):
        lines = banner(view(buffering()), buffering(), now=NOW, width=width, glyphs=UNICODE, mark=(("RO", ""),))
        text = "\n".join(map(plain, lines))
        assert all(length(line) <= width for line in lines)
        for answer in ("■ BUFFERING", "6m44s", "growing, full in 41m", "LOST 120k", "RO", "began 6m44s ago"):
            assert answer in text


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
def test_what_was_lost_and_the_dead_letters_stand_whole_beside_a_verdict_of_any_length(glyphs: Glyphs) -> None:
    text = "blocked: 100 messages in a row were rejected, which looks like trouble of the provider: no"
    shown = lane(
        verdict=Verdict("blocked", text), state="blocked", state_reason=text, pruned=81_628, lost=0, lost_disk=0,
        lost_live=0, lost_linger=0, returned=0, expired=0, dead=186,
    )  # fmt: skip
    for width in range(40, 200, 3):
        second = banner(view(shown), shown, now=NOW, width=width, glyphs=glyphs, mark=())[1]
        told = only_ascii(plain(second)) if glyphs.ascii else plain(second)
        assert length(second) <= width
        assert len(told) <= width
        assert re.search(r"186 dead( letters)?  LOST 81,628$", told), told


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": "dead"}, "the next program will not send"),
        ({"state": "buffering", "sender": "none"}, "the next program will not send"),
        ({"state": "stale", "sender": "silent"}, "nothing is sent"),
        ({"state": "blocked"}, "nothing is sent"),
        ({"state": "paused"}, ""),
    ],
)
@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_pause_is_told_where_the_state_does_not_tell_it(changes: dict[str, Any], words: str, width: int) -> None:
    shown = lane(paused=True, paused_since=NOW - 4_000.0, **changes)
    lines = [plain(line) for line in banner(view(), shown, now=NOW, width=width - 2, glyphs=UNICODE, mark=())]
    told = [line for line in lines if line.startswith("paused")]
    assert [words in line for line in told] == [True] * bool(words)
    assert [" (1h7m): " in line for line in told] == [width > 60 or "nothing" in words] * bool(words)
    (beside,) = (panel for panel in panels(shown, span(), now=NOW, widths=[17] * 4, glyphs=UNICODE)[3:])
    assert ("paused: mb resume" in map(plain, beside.lines)) == bool(words)


def test_a_paused_lane_tries_nothing() -> None:
    assert next_retry(buffering(state="paused"), NOW) == ""


@pytest.mark.parametrize("state", ["live", "buffering", "draining", "paused", "blocked", "disk-error", "stale", "dead"])
def test_every_state_has_a_sign_and_a_word(state: str) -> None:
    shown = lane(state=state, failures=0, state_reason="")
    for glyphs in (UNICODE, ASCII):
        top = plain(banner(view(shown), shown, now=NOW, width=80, glyphs=glyphs, mark=())[0])
        sign, word = top.split()[:2]
        assert word == state.upper()
        assert len(sign) == 1
        assert not glyphs.ascii or top.isascii()
    assert len(set(UNICODE.states.values())) == len(set(ASCII.states.values())) == 8


def test_panels_keep_to_their_width_and_to_ascii() -> None:
    for shown in (lane(), buffering(), live(), lane(state="stale"), replace(lane(), incoming=None, outgoing=None)):
        for width in (11, 16, 26, 46):
            for panel in panels(shown, span(), now=NOW, widths=[width] * 4, glyphs=ASCII):
                assert len(panel.lines) == 4
                assert all(length(line) <= width for line in panel.lines), (width, panel)
                assert all(only_ascii(plain(line)) == plain(line) for line in panel.lines)


@pytest.mark.parametrize("seconds", [60.0, 300.0, 3600.0])
@pytest.mark.parametrize(("burst", "now_in", "peak"), [(9_000.0, 100.0, "9,000"), (9_000.0, 9_500.0, "9,500")])
def test_the_peak_is_the_most_in_a_second_and_never_below_the_pace(
    seconds: float, burst: float, now_in: float, peak: str
) -> None:
    points = [Point(NOW - at, burst if at == 20 else 100.0, 0.0, 0) for at in range(600, 0, -1)]
    past = Past()
    past.add(points)
    seen = replace(lane(), history=tuple(points), incoming=Rates(now_in, 1.0))
    for span in (Span(seconds, "5m", points, 2.6), Span(seconds, "5m", past.points(), 13.0, past.peaks())):
        shown = panels(seen, span, now=NOW, widths=[30] * 4, glyphs=UNICODE)[0]
        assert plain(shown.lines[2]) == f"peak 5m {peak}"


def test_a_moment_that_is_over_is_no_peak_of_the_last_minute() -> None:
    points = [Point(NOW - at, 9_000.0 if at == 90 else 100.0, 0.0, 0) for at in range(600, 0, -1)]
    shown = panels(
        replace(lane(), incoming=None), Span(60.0, "1m", points, 2.6), now=NOW, widths=[30] * 4, glyphs=ASCII
    )
    assert plain(shown[0].lines[2]) == "peak 1m 100"


def test_hostile_texts_are_escaped_everywhere() -> None:
    evil = "\x1b]0;gotcha\x07[red]\u202e\r\n"
    shown = buffering(last_error=evil, provider=f"x{evil}://", state_reason=evil, mode=evil)
    seen = view(shown, directory=f"/tmp/{evil}", problems=(evil,))
    event = Event(NOW, "main", evil, "error", evil)
    lines = banner(seen, shown, now=NOW, width=200, glyphs=UNICODE, mark=())
    lines += [line for p in panels(shown, span(), now=NOW, widths=[60] * 4, glyphs=UNICODE) for line in p.lines]
    lines.append(event_line(event, NOW))
    lines += [tabs([(seen, shown), (view(error=evil), None)], 0, width=200, glyphs=UNICODE)]
    lines += strip(seen, shown, width=80, glyphs=UNICODE)
    text = "".join(map(plain, lines))
    assert text.isprintable()
    assert "[red]" in text


def test_the_chosen_lane_is_among_the_tabs() -> None:
    places = [(view(directory=f"/var/lib/buffer-{at}"), lane()) for at in range(40)]
    for chosen in range(40):
        line = plain(tabs(places, chosen, width=80, glyphs=UNICODE))
        assert f"{chosen + 1}/40" in line
        assert f"buffer-{chosen}/main]" in line
        assert len(line) <= 80
    assert tabs(places[:1], 0, width=80, glyphs=UNICODE) == ()


def test_patterns() -> None:
    assert Pattern.parse("").shows("anything")
    assert Pattern.parse("SEAL").shows("a sealed one")
    assert not Pattern.parse("!seal").shows("a sealed one")
    assert str(Pattern.parse("!seal")) == "!seal"
    with pytest.raises(ValueError, match="not a regular expression"):
        Pattern.parse("(")


@pytest.mark.parametrize(
    "text", ["(a+)+b", "(a|aa)+$", "(a|A)*(a|b?)+c", "(?:x+x+)+y", ".*.*.*.*b", "(a*){20}", "!(a+)+"]
)
def test_a_pattern_that_could_take_hours_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match="it would take too long: .*repetition"):
        Pattern.parse(text)


@pytest.mark.parametrize("text", ["a*b", "a.*a.*b", "(a+){3}b", "(a++)+b", "(aa|ba)+c", r"(\d{1,3}\.){3}\d+", "a+"])
def test_a_pattern_with_repetitions_comes_to_its_end(text: str, promised: Callable[[float], float]) -> None:
    began = time.monotonic()
    Pattern.parse(text).finds("a" * (1 << 18))
    assert time.monotonic() - began < promised(5)


def test_a_pattern_without_repetitions_searches_everything() -> None:
    assert Pattern.parse("needle|pin").finds("a" * (1 << 20) + "Needle")


def test_the_command_line() -> None:
    options = parse(["a", "b", "a", "--write", "--ascii"], {"NO_COLOR": "1"})
    assert [path.rpartition("/")[2] for path in options.directories] == ["a", "b"]
    assert options.write
    assert options.ascii
    assert not options.color
