"""The verdict: the right word, whatever the numbers, and the same word while nothing but noise changes."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbframework.monitor.history import SECOND, Series
from mbframework.monitor.verdict import Circumstances, judge
from mbframework.monitor.view import Verdict, VerdictKind
from mbframework.status import STATES

GIB = 1 << 30
KINDS = get_args(VerdictKind)
#: A thousand messages wait, which take a MiB.
BACKLOG: dict[str, Any] = {"resident": 1000, "resident_bytes": 1 << 20, "room": GIB}


def verdict(state: str, before: VerdictKind | None = None, **facts: Any) -> Verdict:
    return judge(Circumstances(state=state, **facts), before)


rates = st.none() | st.floats(0, 1e12) | st.sampled_from([0.0, 1e-9])
seconds = st.none() | st.floats(0, 1e12)
circumstances = st.builds(
    Circumstances,
    state=st.sampled_from(STATES),
    reason=st.text(),
    resident=st.integers(0, 1 << 62),
    resident_bytes=st.integers(0, 1 << 62),
    incoming=rates,
    outgoing=rates,
    silent_s=seconds,
    heartbeat_age_s=seconds,
    room=st.none() | st.integers(-(1 << 62), 1 << 62),
    prunes=st.none() | st.booleans(),
    pruning=st.booleans(),
    clean=st.booleans(),
)


@given(circumstances, st.none() | st.sampled_from(KINDS))
def test_there_is_always_a_verdict_in_one_printable_line(facts: Circumstances, before: VerdictKind | None) -> None:
    found = judge(facts, before)
    assert found.kind in KINDS
    assert found.text
    assert found.text.isprintable()
    assert len(found.text) < 1000
    assert found.seconds is None or 0 <= found.seconds < 1e13


@given(circumstances)
def test_a_verdict_confirms_itself(facts: Circumstances) -> None:
    first = judge(facts)
    assert judge(facts, first.kind).kind == first.kind


@given(circumstances, st.floats(0, 1e6), st.floats(0, 1e6))
def test_what_says_draining_shrinks_and_what_says_growing_grows(
    facts: Circumstances, incoming: float, outgoing: float
) -> None:
    found = judge(replace(facts, incoming=incoming, outgoing=outgoing))
    if found.kind == "growing":
        assert incoming > outgoing
    if found.kind == "draining" and found.seconds is not None:
        assert outgoing > incoming


@pytest.mark.parametrize(
    ("state", "facts", "kind", "text", "seconds"),
    [
        ("live", {"incoming": 100.0, "outgoing": 100.0}, "keeping-up", "keeping up", None),
        ("live", {"incoming": 0.0, "outgoing": 0.0}, "idle", "idle", None),
        ("live", {}, "idle", "idle", None),
        ("live", {"resident": 5, "silent_s": 0.2, "incoming": 9.0}, "keeping-up", "keeping up", None),
        (
            "draining",
            {"resident": 7_680_000, "incoming": 1000.0, "outgoing": 2000.0},
            "draining",
            "draining, ETA 2h8m",
            7680.0,
        ),
        (
            "draining",
            BACKLOG | {"incoming": 100.0, "outgoing": 99.0},
            "keeping-up",
            "keeping up, 1,000 messages behind",
            None,
        ),
        ("draining", BACKLOG | {"outgoing": None, "silent_s": 1.0}, "draining", "draining", None),
        (
            "draining",
            BACKLOG | {"incoming": 0.0, "outgoing": 0.0, "silent_s": 12.4},
            "stalled",
            "stalled for 12s, 1,000 messages wait",
            12.4,
        ),
        ("live", BACKLOG | {"incoming": 0.0, "outgoing": 0.0, "silent_s": 60.0}, "stalled", None, 60.0),
        (
            "buffering",
            {"resident": 1, "incoming": 0.0, "silent_s": 404.0},
            "stalled",
            "stalled for 6m44s, 1 message waits",
            404.0,
        ),
        ("buffering", BACKLOG | {"incoming": 1000.0}, "growing", "growing, full in 17m4s", 1024.0),
        (
            "buffering",
            BACKLOG | {"incoming": 1000.0, "prunes": True},
            "growing",
            "growing, pruning begins in 17m4s",
            1024.0,
        ),
        ("buffering", BACKLOG | {"incoming": 1.0, "room": 0}, "growing", "growing, full", 0.0),
        (
            "buffering",
            BACKLOG | {"incoming": 1.0, "pruning": True, "prunes": True},
            "growing",
            "growing, the oldest are pruned",
            0.0,
        ),
        ("paused", BACKLOG, "paused", "paused, 1,000 messages wait", None),
        ("blocked", {"reason": "the topic\x1b[2J is gone"}, "blocked", "blocked: the topic\\x1b[2J is gone", None),
        ("disk-error", {"reason": ""}, "disk-error", "disk error", None),
        (
            "stale",
            {"heartbeat_age_s": 12.0, "resident": 0},
            "stale",
            "no sign of life for 12s, nothing waits",
            12.0,
        ),
        ("dead", BACKLOG, "dead", "dead, 1,000 messages wait", None),
        ("dead", {"clean": True}, "dead", "closed, nothing waits", None),
    ],
)
def test_what_is_said(state: str, facts: dict[str, Any], kind: str, text: str | None, seconds: float | None) -> None:
    found = verdict(state, **facts)
    assert found.kind == kind
    assert text is None or found.text == text
    assert found.seconds == pytest.approx(seconds)


@given(
    seed=st.integers(0, 1 << 32),
    incoming=st.sampled_from([50.0, 1000.0, 100_000.0]),
    ratio=st.sampled_from([0.0, 0.5, 0.8, 1.0, 1.2, 2.0, 10.0]),
)
def test_noise_does_not_change_the_word(seed: int, incoming: float, ratio: float) -> None:
    """Looks at 2 Hz at a lane whose pace varies by 20 % from one to the next."""
    chance = random.Random(seed)
    accepted, left = Series(), Series()
    counts = [0.0, 0.0]
    kinds: list[VerdictKind] = []
    for look in range(200):
        at = look * SECOND // 2
        for place, pace in enumerate((incoming, incoming * ratio)):
            counts[place] += pace / 2 * chance.uniform(0.8, 1.2)
        accepted.add(at, int(counts[0]))
        left.add(at, int(counts[1]))
        facts = Circumstances(
            state="draining" if ratio else "buffering", resident=10**9, resident_bytes=10**11, room=10**12,
            incoming=accepted.rate(at, 20.0), outgoing=left.rate(at, 20.0), silent_s=0.0 if ratio else at / SECOND,
        )  # fmt: skip
        kinds.append(judge(facts, kinds[-1] if kinds else None).kind)
    settled = kinds[40:]
    changes = sum(before != after for before, after in pairwise(settled))
    assert settled[-1] == ("growing" if ratio < 1 else "draining" if ratio > 1 else settled[-1])
    assert changes <= (2 if ratio == 1.0 else 0)
