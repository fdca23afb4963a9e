"""Each hook for observers, called by a whole buffer at work, with what docs/hooks.md says of its arguments."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mbframework_fake.broker import FakeBroker
from mbframework_fake.provider import FakeProvider

from mbframework import Config, MessageBuffer, Sidecar, hookimpl
from mbframework.plugins.source import resolve
from tests.known_failures.conftest import FAST, WAIT_S, padded


class Recorder:
    """Writes down every call of every hook, and on which thread it came."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.threads: set[str] = set()

    def _note(self, hook: str, arguments: dict[str, Any]) -> None:
        with self._changed:
            self.calls.append((hook, {name: value for name, value in arguments.items() if name != "self"}))
            self.threads.add(threading.current_thread().name)
            self._changed.notify_all()

    def of(self, hook: str) -> list[dict[str, Any]]:
        return [arguments for name, arguments in self.calls if name == hook]

    def wait_for(self, hook: str, count: int = 1) -> list[dict[str, Any]]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.of(hook)) >= count, WAIT_S), f"{hook} was not called"
        return self.of(hook)

    @hookimpl
    def mbframework_segment_sealed(
        self, directory: str, lane: str, segment: int, first_sequence: int, last_sequence: int, messages: int, size: int
    ) -> None:
        self._note("segment_sealed", locals())

    @hookimpl
    def mbframework_batch_delivered(
        self, directory: str, lane: str, first_sequence: int, last_sequence: int, messages: int, size: int,
        seconds: float,
    ) -> None:  # fmt: skip
        self._note("batch_delivered", locals())

    @hookimpl
    def mbframework_batch_failed(
        self, directory: str, lane: str, first_sequence: int, last_sequence: int, messages: int, reason: str,
        uncertain: bool, retry_wait: float,
    ) -> None:  # fmt: skip
        self._note("batch_failed", locals())

    @hookimpl
    def mbframework_pruned(
        self, directory: str, lane: str, first_sequence: int, last_sequence: int, messages: int, size: int, reason: str
    ) -> None:
        self._note("pruned", locals())

    @hookimpl
    def mbframework_expired(
        self, directory: str, lane: str, first_sequence: int, last_sequence: int, messages: int, size: int, reason: str
    ) -> None:
        self._note("expired", locals())

    @hookimpl
    def mbframework_dead(self, directory: str, lane: str, sequence: int, topic: str, reason: str) -> None:
        self._note("dead", locals())

    @hookimpl
    def mbframework_lost(
        self, directory: str, lane: str, first_sequence: int, last_sequence: int, messages: int, reason: str
    ) -> None:
        self._note("lost", locals())

    @hookimpl
    def mbframework_recovered(
        self, directory: str, lane: str, messages: int, size: int, segments: int, seconds: float, reason: str
    ) -> None:
        self._note("recovered", locals())

    @hookimpl
    def mbframework_state_changed(self, directory: str, lane: str, before: str, after: str, reason: str) -> None:
        self._note("state_changed", locals())


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    made = FakeBroker()
    yield made
    made.release()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "buffer"


def test_batches_and_states(path: Path, broker: FakeBroker, recorder: Recorder) -> None:
    with MessageBuffer(path, FakeProvider(broker), **FAST, observers=[recorder]) as buffer:
        change = recorder.wait_for("state_changed")[0]
        assert (change["before"], change["after"]) in [("buffering", "draining"), ("buffering", "live")]
        buffer.write("t", "value", key="key")
        delivered = recorder.wait_for("batch_delivered")[0]
        broker.fail_next(after=1, uncertain=False)
        buffer.write_many("t", ["2", "3", "4"])
        failed = recorder.wait_for("batch_failed")[0]
        recorder.wait_for("batch_delivered", 2)
    seconds = delivered.pop("seconds")
    assert 0 <= seconds < WAIT_S
    about = {"directory": str(path), "lane": "main"}
    assert delivered == about | {"first_sequence": 1, "last_sequence": 1, "messages": 1, "size": 9}
    wait = failed.pop("retry_wait")
    assert 0 <= wait <= FAST["retry_wait_max"]
    assert failed == about | {
        "first_sequence": 2,
        "last_sequence": 4,
        "messages": 2,
        "reason": "the fake broker was told to fail",
        "uncertain": False,
    }
    assert recorder.threads == {"mbframework-observers"}


def test_segments_that_are_sealed_and_pruned(path: Path, broker: FakeBroker, recorder: Recorder) -> None:
    broker.down()
    options = {**FAST, "mode": "always", "segment_size": "64KiB", "total_size": "256KiB", "observers": [recorder]}
    with MessageBuffer(path, FakeProvider(broker), **options) as buffer:
        for number in range(1000):
            buffer.write("t", padded(number, 1000))
        status = buffer.status()
    sealed, pruned = recorder.of("segment_sealed"), recorder.of("pruned")
    assert sealed[0]["segment"] == sealed[0]["first_sequence"] == 1
    assert all(each["messages"] == each["last_sequence"] - each["first_sequence"] + 1 for each in sealed)
    assert all(each["size"] > 1000 * each["messages"] for each in sealed)
    assert sum(each["messages"] for each in pruned) >= status.pruned > 0
    assert pruned[0]["first_sequence"] == 1
    assert all("total_size" in each["reason"] for each in pruned)


def test_messages_that_expire_or_are_rejected(path: Path, broker: FakeBroker, recorder: Recorder) -> None:
    broker.stick()
    broker.reject_when(lambda message: "too odd" if message.value == b"odd" else None)
    options = {**FAST, "expire_after": 0.2, "batch_messages": 1, "observers": [recorder]}
    with MessageBuffer(path, FakeProvider(broker), **options) as buffer:
        buffer.write("t", "odd")
        broker.wait_until(lambda: broker.stuck == 1, WAIT_S)
        buffer.write_many("t", ["2", "3"])
        # They grow old behind a send that hangs, and are looked at when it has returned.
        threading.Event().wait(0.3)
        broker.release()
        buffer.flush(WAIT_S)
    dead = recorder.of("dead")
    assert dead == [{"directory": str(path), "lane": "main", "sequence": 1, "topic": "t", "reason": "too odd"}]
    expired = recorder.of("expired")
    assert [(each["first_sequence"], each["last_sequence"], each["messages"]) for each in expired] == [
        (2, 2, 1),
        (3, 3, 1),
    ]
    assert "expire_after" in expired[0]["reason"]
    assert broker.count == 0


def test_a_backlog_that_is_opened_again_and_what_is_lost_of_it(
    path: Path, broker: FakeBroker, recorder: Recorder
) -> None:
    with MessageBuffer(path, None, **FAST) as buffer:
        buffer.write_many("t", [padded(number, 1000) for number in range(100)])
    (segment,) = (path / "main").glob("P*.seg")
    damaged = bytearray(segment.read_bytes())
    damaged[4096 + 60 : 4096 + 70] = bytes(10)
    segment.write_bytes(damaged)
    with MessageBuffer(path, FakeProvider(broker), **FAST, observers=[recorder]) as buffer:
        recovered = recorder.wait_for("recovered")[0]
        lost = recorder.wait_for("lost")[0]
        buffer.flush(WAIT_S)
        status = buffer.status()
    assert (recovered["messages"], recovered["segments"], recovered["reason"]) == (100, 1, "closed in order")
    assert recovered["size"] == len(damaged)
    assert lost["messages"] == lost["last_sequence"] - lost["first_sequence"] + 1 == status.lost_disk > 0
    assert (status.delivered + status.lost, status.balanced) == (100, True)


WRITE_LIVE_KILL = """
import os, signal, sys, time
from mbframework import MessageBuffer
from mbframework_fake.broker import FakeBroker
from mbframework_fake.provider import FakeProvider
broker = FakeBroker()
buffer = MessageBuffer(sys.argv[1], FakeProvider(broker))
while buffer.status().state != "live":
    time.sleep(0.01)
broker.stick()
for number in range(7):
    buffer.write("t", str(number))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_kill_takes_from_memory(path: Path, broker: FakeBroker, recorder: Recorder) -> None:
    subprocess.run([sys.executable, "-c", WRITE_LIVE_KILL, str(path)], check=False, timeout=60)
    with MessageBuffer(path, FakeProvider(broker), **FAST, observers=[recorder]) as buffer:
        lost = recorder.wait_for("lost")[0]
        assert buffer.status().lost_live == 7
    assert (lost["first_sequence"], lost["last_sequence"], lost["messages"]) == (-1, -1, 7)
    assert "may have arrived" in lost["reason"]
    assert "7 accepted messages" in recorder.of("recovered")[0]["reason"]


def test_a_process_that_only_sends_has_observers_too(path: Path, broker: FakeBroker, recorder: Recorder) -> None:
    with MessageBuffer(path, None, **FAST) as buffer:
        buffer.write_many("t", ["1", "2", "3"])
    source = resolve(FakeProvider(broker))
    assert source is not None
    config = Config.layered(directory=str(path), **FAST, observers=[recorder])
    Sidecar(config, source).run(until_empty=True)
    assert sum(each["messages"] for each in recorder.of("batch_delivered")) == 3
