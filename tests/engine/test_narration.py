"""What observers are told, what stands in the event and status files, and when."""

from __future__ import annotations

import itertools
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mbframework_fake.provider import FakeProvider

from mbframework import LaneStatus, MessageBuffer, hookimpl, read_status
from mbframework import events as event_module
from mbframework.events import EventLog
from mbframework.files import Files
from mbframework.reporter import Reporter
from tests.engine.rig import FAST, SMALL, Disk, buffer_on, events, eventually, from_directory, in_state, padded


class Recorder:
    """Keeps every call of every hook."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def of(self, hook: str) -> list[dict[str, Any]]:
        return [facts for name, facts in self.calls if name == hook]

    @hookimpl
    def mbframework_state_changed(self, directory: str, lane: str, before: str, after: str, reason: str) -> None:
        self.calls.append(("state", {"way": (before, after), "reason": reason, "lane": lane, "directory": directory}))

    @hookimpl
    def mbframework_segment_sealed(
        self, segment: int, first_sequence: int, last_sequence: int, messages: int, size: int
    ) -> None:
        self.calls.append(
            ("sealed", {"first": first_sequence, "last": last_sequence, "messages": messages, "size": size})
        )

    @hookimpl
    def mbframework_batch_delivered(
        self, first_sequence: int, last_sequence: int, messages: int, size: int, seconds: float
    ) -> None:
        self.calls.append(
            ("delivered", {"first": first_sequence, "last": last_sequence, "messages": messages, "size": size})
        )

    @hookimpl
    def mbframework_batch_failed(self, messages: int, reason: str, uncertain: bool, retry_wait: float) -> None:
        self.calls.append(
            ("failed", {"messages": messages, "reason": reason, "uncertain": uncertain, "wait": retry_wait})
        )

    @hookimpl
    def mbframework_pruned(self, first_sequence: int, last_sequence: int, messages: int, reason: str) -> None:
        self.calls.append(
            ("pruned", {"first": first_sequence, "last": last_sequence, "messages": messages, "reason": reason})
        )

    @hookimpl
    def mbframework_expired(self, messages: int, reason: str) -> None:
        self.calls.append(("expired", {"messages": messages, "reason": reason}))

    @hookimpl
    def mbframework_dead(self, sequence: int, topic: str, reason: str) -> None:
        self.calls.append(("dead", {"sequence": sequence, "topic": topic, "reason": reason}))

    @hookimpl
    def mbframework_recovered(self, messages: int, segments: int, reason: str) -> None:
        self.calls.append(("recovered", {"messages": messages, "segments": segments, "reason": reason}))


def test_observers_are_told_what_happens(tmp_path: Path) -> None:
    seen, provider = Recorder(), FakeProvider()
    provider.reject_when(lambda message: "never" if message.value == b"bad" else None)
    with MessageBuffer(tmp_path / "b", provider, observers=[seen], expire_after=60, **FAST | SMALL) as buffer:
        in_state(buffer, "live")
        buffer.write("t", "good")
        buffer.write("t", "bad")
        buffer.flush(60)
        provider.fail_next(uncertain=True)
        buffer.write_many("t", ["a", "b"])
        buffer.flush(60)
        in_state(buffer, "live")
        eventually(lambda: buffer.running_engine().reporter.current == "live", "the narrated state")
        provider.down()
        for number in range(1500):
            buffer.write("t", padded(number, 500))
        in_state(buffer, "buffering")
        eventually(lambda: buffer.running_engine().reporter.current == "buffering", "the narrated state")
        # What the batch that is tried again and again holds is pruned when it fails.
        eventually(lambda: buffer.status().pruned > 1000, "the accounts")
        eventually(lambda: sum(each["messages"] for each in seen.of("pruned")) == buffer.status().pruned, "the hooks")
    assert seen.of("dead") == [{"sequence": 2, "topic": "t", "reason": "never"}]
    assert sum(each["messages"] for each in seen.of("delivered")) >= 1
    failed = seen.of("failed")[0]
    assert (failed["messages"], failed["uncertain"], failed["reason"]) == (2, True, "the fake broker was told to fail")
    # What the provider had in hand when its segment went is told when it comes back, without its place.
    pruned = [each for each in seen.of("pruned") if each["first"] >= 0]
    spans = [(each["first"], each["last"]) for each in pruned]
    assert all(after[0] > before[1] for before, after in itertools.pairwise(spans))
    assert all("total_size" in each["reason"] for each in pruned)
    sealed = seen.of("sealed")
    assert sealed
    assert all(each["last"] - each["first"] + 1 == each["messages"] for each in sealed)
    ways = [each["way"] for each in seen.of("state")]
    assert ("live", "buffering") in ways
    assert all(before[1] == after[0] for before, after in itertools.pairwise(ways))
    assert {each["lane"] for each in seen.of("state")} == {"main"}


def test_an_observer_that_hangs_or_fails_harms_nobody(tmp_path: Path) -> None:
    release = threading.Event()

    class Bad:
        @hookimpl
        def mbframework_batch_delivered(self) -> None:
            release.wait(60)
            raise ValueError

    seen, provider = Recorder(), FakeProvider()
    try:
        with MessageBuffer(tmp_path / "b", provider, observers=[Bad(), seen], mode="always", **FAST) as buffer:
            for number in range(1000):
                buffer.write("t", str(number))
            buffer.flush(60)
            assert provider.count == 1000
    finally:
        release.set()


def test_a_state_is_narrated_when_it_comes_not_when_it_is_due(tmp_path: Path) -> None:
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, **FAST | {"status_interval": 3600}) as buffer:
        eventually(lambda: from_directory(buffer).state == "live", "live in the directory")
        provider.down()
        buffer.write("t", "0")
        eventually(lambda: from_directory(buffer).state == "buffering", "buffering in the directory")
        assert "away" in from_directory(buffer).state_reason
        eventually(lambda: "away" in (from_directory(buffer).last_error or ""), "the error in the directory")
        assert from_directory(buffer).failures >= 1
        buffer.pause()
        eventually(lambda: from_directory(buffer).state == "paused", "paused in the directory")
        provider.up()
        buffer.resume()
        eventually(lambda: from_directory(buffer).state == "live", "live again in the directory")
        buffer.set_mode("always")
        eventually(lambda: from_directory(buffer).mode == "always", "the mode in the directory")


def test_the_status_files_say_who_and_how(tmp_path: Path) -> None:
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        in_state(buffer, "live")
        buffer.write("t", "0")
        buffer.flush(60)
        eventually(lambda: from_directory(buffer).facts, "the facts")
        status = from_directory(buffer)
        assert (status.writer_pid, status.sender_pid) == (os.getpid(), os.getpid())
        assert status.heartbeat_age_s is not None
        assert status.heartbeat_age_s < 60
        assert status.provider == "FakeProvider"
        assert status.facts["broker"] == "in memory"
        first = from_directory(buffer).heartbeat_age_s
        eventually(lambda: (from_directory(buffer).heartbeat_age_s or 9) <= (first or 0) + 0.2, "a heartbeat")
        assert os.stat(tmp_path / "b/main/status.writer.json").st_mode & 0o777 == 0o600
    (closed,) = read_status(tmp_path / "b").lanes
    assert (closed.state, closed.clean) == ("dead", True)
    kinds = [line["kind"] for line in events(buffer, "opened") + events(buffer, "closed")]
    assert kinds == ["opened", "closed"]


def test_secrets_stay_out_of_what_is_told(tmp_path: Path) -> None:
    inner = "kafka%3A%2F%2Fme%3Ahunter2%40127.0.0.1%3A1"
    for name, url in (("plain", "kafka://me:hunter2@127.0.0.1:1"), ("behind", f"fault://?inner={inner}")):
        with MessageBuffer(tmp_path / name, url, **FAST) as buffer:
            buffer.write("t", "0")
            eventually(lambda: buffer.status().failures, "a failure")
            assert "hunter2" not in repr(buffer)
            assert "hunter2" not in json.dumps(buffer.status().as_dict(), default=str)
        for path in (tmp_path / name / "main").iterdir():
            assert path.is_dir() or b"hunter2" not in path.read_bytes(), path


def test_event_files_rotate_and_two_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_module, "ROTATE_BYTES", 2000)
    log = EventLog(Files(), str(tmp_path / "events.jsonl"), directory="d", lane="main")
    for number in range(200):
        log.tell("test", number=number)
        log.flush()
    assert sorted(os.listdir(tmp_path)) == ["events.jsonl", "events.jsonl.1"]
    lines = [
        json.loads(line)
        for name in ("events.jsonl.1", "events.jsonl")
        for line in (tmp_path / name).read_text().splitlines()
    ]
    assert [line["number"] for line in lines] == list(range(200 - len(lines), 200))
    assert all(line["schema"] == 1 and line["kind"] == "test" and line["at"] > 0 for line in lines)
    assert max(os.path.getsize(tmp_path / name) for name in os.listdir(tmp_path)) <= 2000


def test_events_that_the_device_refuses_come_later_or_are_counted(tmp_path: Path) -> None:
    disk = Disk()
    log = EventLog(disk, str(tmp_path / "events.jsonl"), directory="d", lane="main")
    disk.fail(5)
    log.tell("first")
    log.flush()
    log.tell("second")
    log.flush()
    disk.mend()
    log.tell("third")
    log.flush()
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert kinds == ["first", "second", "third"]
    for number in range(5000):
        log.tell("many", number=number)
    assert log.dropped == 5000 - 4096


def test_narration_goes_on_after_a_defect_in_it(tmp_path: Path) -> None:
    states: Iterator[tuple[str, str] | ZeroDivisionError] = iter(
        [("live", ""), ZeroDivisionError(), ("live", ""), ("paused", "p")]
    )
    told = threading.Event()
    written: list[str] = []

    def state() -> tuple[str, str]:
        value = next(states, ("end", ""))
        if isinstance(value, BaseException):
            raise value
        if value[0] == "end":
            told.set()
        return value

    reporter = Reporter(
        files=Files(), interval=0.01, state=state, sections={str(tmp_path / "s.json"): lambda: {"n": len(written)}},
        events=[], heartbeat=lambda: written.append("x"), accepted=lambda: 5,
    )  # fmt: skip
    reporter.start()
    assert told.wait(60)
    reporter.stop(5)
    assert json.loads((tmp_path / "s.json").read_text())["since"] > 0
    assert len(written) >= 4
    assert reporter.intake() == 0.0


def test_a_head_that_cannot_be_stored_is_noticed_by_the_heartbeat(tmp_path: Path) -> None:
    disk, provider = Disk(), FakeProvider()
    with buffer_on(disk, tmp_path / "b", provider, fsync="never") as buffer:
        in_state(buffer, "live")
        eventually(lambda: buffer.running_lane().spool.prepared is not None, "the next segment")
        disk.fail(30, "pwrite")
        in_state(buffer, "disk-error")
        disk.mend()
        in_state(buffer, "live")
        buffer.write("t", "0")
        buffer.flush(60)


def test_a_status_says_all_there_is(tmp_path: Path) -> None:
    with MessageBuffer(tmp_path / "b", FakeProvider(), **FAST) as buffer:
        inside = buffer.status()
        outside = from_directory(buffer)
        assert isinstance(inside, LaneStatus)
        for name in ("name", "mode", "provider", "writer_pid", "sender_pid", "order_violations"):
            assert getattr(inside, name) == getattr(outside, name), name
        assert json.loads(json.dumps(inside.as_dict()))["balanced"] is True
