"""Status files with numbers that nobody can have written: left out, named, and shown again when they are mended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mbframework_fake.provider import FakeProvider

from mbframework import MessageBuffer, read_status
from mbframework.files import Files
from mbframework.monitor import Monitor
from mbframework.narration import leave_out_nonsense, read
from tests.engine.rig import FAST, eventually

NOW = 10**15
SAMPLE: dict[str, Any] = {
    "schema": 1, "pid": 7, "boot_id": "ab" * 16, "heartbeat_boot_ns": NOW, "heartbeat": 1e9, "state": "live",
    "since": 1e9, "since_boot_ns": NOW - 5, "closed": True, "mode": "buffer", "accepted": 5,
    "limits": {"total_size": 1 << 30, "segment_size": None},
    "trouble": {"text": "no", "began": 1e9, "began_boot_ns": NOW - 4, "count": 2, "retry_at_boot_ns": NOW + 10**9},
    "traffic": {"bytes": 9, "retries": 1, "last_delivered_boot_ns": NOW - 3}, "order_violations": 0,
}  # fmt: skip
#: Of these no field above can have any.
NONSENSE = [-1, -0.5, 10**40, 1e308, float("nan"), float("inf"), [], [7]]
PLACES = [
    (section, field)
    for section, table in [("", SAMPLE), *((name, each) for name, each in SAMPLE.items() if isinstance(each, dict))]
    for field in table
    if field != "schema"
]


def copied() -> dict[str, Any]:
    return json.loads(json.dumps(SAMPLE))  # type: ignore[no-any-return]  # an object


def test_what_an_engine_writes_is_left_alone(tmp_path: Path) -> None:
    assert leave_out_nonsense(copied(), "ab" * 16, NOW) == []
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        buffer.write("t", "1")
        buffer.flush(60)
        provider.down()
        buffer.write("t", "2")
        eventually(lambda: buffer.status().failures, "a failure")
        told = [read(Files(), str(tmp_path / "b" / "main" / f"status.{half}.json")) for half in ("writer", "sender")]
    assert [wrong for _, wrong in told] == ["", ""]
    assert all(facts["pid"] for facts, _ in told)


@pytest.mark.parametrize(("section", "field"), PLACES)
def test_what_nobody_can_have_written_is_left_out_and_named(section: str, field: str) -> None:
    for value in NONSENSE:
        told = copied()
        table = told[section] if section else told
        table[field] = value
        assert leave_out_nonsense(told, "ab" * 16, NOW) == [f"{section}.{field}".lstrip(".")]
        assert field not in table
        rest = copied()
        del (rest[section] if section else rest)[field]
        assert told == rest


Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from([*SAMPLE, "count"]), inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from([*SAMPLE]), Json))
def test_what_is_left_is_never_nonsense(content: dict[str, Any]) -> None:
    told = copied() | content
    leave_out_nonsense(told, "ab" * 16, NOW)
    assert leave_out_nonsense(told, "ab" * 16, NOW) == []


def test_what_was_told_of_the_future_counts_for_nothing() -> None:
    told = copied()
    assert leave_out_nonsense(told, "ab" * 16, NOW - 1) == ["heartbeat_boot_ns"]
    for section, field in (("", "since"), ("trouble", "began"), ("traffic", "last_delivered")):
        told = copied()
        (told[section] if section else told)[f"{field}_boot_ns"] = NOW + 60 * 10**9
        assert leave_out_nonsense(told, "ab" * 16, NOW) == [f"{section}.{field}_boot_ns".lstrip(".")]
        assert field not in (told[section] if section else told)


def test_who_writes_seldom_is_stale_later(tmp_path: Path) -> None:
    with MessageBuffer(tmp_path / "b", status_interval=20.0):
        [lane] = read_status(tmp_path / "b").lanes
        path = tmp_path / "b" / "main" / "status.writer.json"
        told = json.loads(path.read_text())
        for ago, state in ((0, lane.state), (50, lane.state), (70, "stale")):
            late = {"heartbeat_boot_ns": Files().boot_ns() - ago * 10**9}
            path.write_text(json.dumps(told | late))
            [seen] = read_status(tmp_path / "b").lanes
            assert (ago, seen.state) == (ago, state)
        path.write_text(json.dumps(told | late | {"interval": 1.0}))
        assert read_status(tmp_path / "b").lanes[0].state == "stale"


def test_it_is_said_and_passes(tmp_path: Path) -> None:
    with MessageBuffer(tmp_path / "b") as buffer:
        buffer.write("t", "1")
    path = tmp_path / "b" / "main" / "status.writer.json"
    good = json.loads(path.read_text())
    monitor = Monitor(tmp_path / "b")
    # A process that lives, and a heartbeat of the day after tomorrow: without it, it would be alive for two days.
    wrong = {"pid": 1, "closed": False, "heartbeat_boot_ns": good["heartbeat_boot_ns"] + 2 * 86_400 * 10**9}
    path.write_text(json.dumps(good | wrong | {"limits": {"total_size": -5, "max_segments": 1e999}, "since": -1}))
    for view in (monitor.look(), monitor.look()):
        (said,) = view.problems
        assert said == (
            "lane main: status.writer.json cannot be read: no engine writes what stands in since, limits.total_size, "
            "limits.max_segments and 1 more; that is left out until it is written anew"
        )
        (lane,) = view.lanes
        assert (lane.status.state, lane.status.heartbeat_age_s, lane.total_size) == ("dead", None, None)
    assert read_status(tmp_path / "b").problems == view.problems
    path.write_text(json.dumps(good))
    view = monitor.look()
    assert (view.problems, view.lanes[0].total_size) == ((), good["limits"]["total_size"])
