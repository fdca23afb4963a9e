"""What docs/features.md promises, where no other test shows it: each through a whole buffer, on real files."""

from __future__ import annotations

import errno
import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mbframework_fake.broker import FakeBroker
from mbframework_fake.provider import FakeProvider
from mbframework_fault import Plan
from mbframework_fault.provider import FaultProvider

from mbframework import (
    Batch,
    BufferFull,
    Context,
    MessageBuffer,
    NotABuffer,
    Provider,
    SendFailed,
)
from mbframework.files import Files
from tests.known_failures.conftest import FAST, WAIT_S, eventually, numbers, padded


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    made = FakeBroker()
    yield made
    made.release()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "buffer"


def spooled(buffer: MessageBuffer) -> int:
    """Messages that were ever put into a segment."""
    return buffer.running_lane().spool.ordinal


def events(path: Path) -> list[dict[str, Any]]:
    """The event lines of a closed buffer."""
    lines = [line for file in sorted((path / "main").glob("events.*.jsonl")) for line in file.read_text().splitlines()]
    return [json.loads(line) for line in lines]


# ---- modes


def test_mode_buffer_is_live_until_the_first_error_and_again_after_the_backlog(path: Path, broker: FakeBroker) -> None:
    with MessageBuffer(path, FakeProvider(broker), **FAST, mode="buffer", live_wait=WAIT_S) as buffer:
        eventually(lambda: buffer.status().state == "live", "the provider opened")
        for number in range(100):
            buffer.write("t", str(number))
        buffer.flush(WAIT_S)
        assert (buffer.status().state, spooled(buffer)) == ("live", 0)

        broker.down()
        buffer.write("t", "100")
        eventually(lambda: buffer.status().state == "buffering", "the error noticed")
        buffer.write("t", "101")
        assert spooled(buffer) == 2

        broker.up()
        eventually(lambda: buffer.status().state == "live", "the way back")
        before = spooled(buffer)
        buffer.write("t", "102")
        buffer.flush(WAIT_S)
        assert spooled(buffer) == before
    assert numbers(broker) == list(range(103))
    changes = [(event["before"], event["after"]) for event in events(path) if event["kind"] == "hand-over"]
    assert changes == [("draining", "live"), ("live", "buffering"), ("draining", "live")]


def test_mode_always_puts_every_message_on_disk_first(path: Path, broker: FakeBroker) -> None:
    with MessageBuffer(path, FakeProvider(broker), **FAST, mode="always") as buffer:
        for number in range(100):
            buffer.write("t", str(number))
        assert spooled(buffer) == 100
        buffer.flush(WAIT_S)
    assert numbers(broker) == list(range(100))


# ---- segments, and who sends them


def test_segments_are_limited_in_size_and_never_share_a_name(path: Path, broker: FakeBroker) -> None:
    broker.down()
    with MessageBuffer(path, FakeProvider(broker), **FAST, mode="always", segment_size="64KiB") as buffer:
        for number in range(2000):
            buffer.write("t", padded(number, 1000))
    # Many within one second: a name is the first sequence of the file, not the time.
    segments = sorted((path / "main").glob("P*.seg"))
    firsts = [int(segment.stem[1:]) for segment in segments]
    assert len(segments) > 10
    assert firsts[0] == 1
    assert firsts == sorted(set(firsts))
    # The first one of a lane is larger, as long as nobody knows whether it will be needed.
    assert max(segment.stat().st_size for segment in segments[1:]) <= 64 * 1024


def test_segments_are_limited_in_age(path: Path, broker: FakeBroker) -> None:
    broker.down()
    with MessageBuffer(path, FakeProvider(broker), **FAST, mode="always", segment_age=0.1) as buffer:
        for number in range(3):
            buffer.write("t", str(number))
            eventually(lambda: len(list((path / "main").glob("P*.seg"))) > number, "a segment sealed for its age")  # noqa: B023
        broker.up()
        buffer.flush(WAIT_S)
    assert numbers(broker) == [0, 1, 2]


class Diary(Provider):
    """Notes what is called, on which thread, and fails as told."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.threads: set[threading.Thread] = set()
        self.failures: list[SendFailed] = []
        self.values: list[bytes | None] = []

    def _note(self, call: str) -> None:
        self.calls.append(call)
        self.threads.add(threading.current_thread())

    def open(self, context: Context) -> None:
        self._note("open")

    def send(self, batch: Batch) -> None:
        self._note("send")
        if self.failures:
            raise self.failures.pop()
        self.values.extend(batch.values)

    def close(self, timeout: float) -> None:
        self._note("close")


def test_a_thread_of_its_own_sends_in_order_while_segments_grow(path: Path) -> None:
    diary = Diary()
    with MessageBuffer(path, diary, **FAST, mode="always") as buffer:
        for number in range(500):
            buffer.write("t", str(number))
        buffer.flush(WAIT_S)
        # Delivered before the segment was closed: the sender does not wait for that.
        assert buffer.running_lane().spool.active is not None
        assert not list((path / "main").glob("P*.seg"))
    assert diary.values == [str(number).encode() for number in range(500)]
    assert len(diary.threads) == 1
    assert threading.current_thread() not in diary.threads


def test_a_provider_is_opened_sent_to_retried_after_the_wait_it_asked_for_and_closed(path: Path) -> None:
    diary = Diary()
    diary.failures = [SendFailed("not now", retry_after=0.3), SendFailed("no")]
    with MessageBuffer(path, diary, **FAST) as buffer:
        begun = time.monotonic()
        buffer.write("t", "1")
        buffer.flush(WAIT_S)
        assert time.monotonic() - begun >= 0.3
    assert diary.calls == ["open", "send", "send", "send", "close"]
    assert diary.values == [b"1"]
    waits = {event["reason"]: event["retry_wait_s"] for event in events(path) if event["kind"] == "failure"}
    assert waits["not now"] >= 0.3
    assert waits["no"] <= FAST["retry_wait_max"]


class Halting(FakeProvider):
    """Takes 37 messages of the first batch, then its broker is away."""

    def send(self, batch: Batch) -> None:
        self.broker.fail_next(after=37)
        try:
            super().send(batch)
        finally:
            self.broker.down()


def test_a_restart_resumes_at_the_message_where_the_seek_stands(path: Path, broker: FakeBroker) -> None:
    # Messages of all lengths, with the characters that once were separators.
    texts = [f"{number} \n\t".encode() * (number % 7) + b"\n" for number in range(1000)]
    with MessageBuffer(path, None, **FAST) as buffer:
        buffer.write_many("t", texts)
    for start in range(1, 11):
        broker.up()
        with MessageBuffer(path, Halting(broker), **FAST):
            broker.wait_for(37 * start, WAIT_S)
        assert broker.count == 37 * start
    broker.up()
    with MessageBuffer(path, FakeProvider(broker), **FAST) as buffer:
        buffer.flush(WAIT_S)
    assert [message.value for message in broker.messages] == texts


def test_the_oldest_files_are_pruned_at_once_and_counted(path: Path, broker: FakeBroker) -> None:
    limit, segment = 1 << 20, 64 * 1024
    options = {**FAST, "mode": "always", "segment_size": segment, "total_size": limit}
    broker.down()
    with MessageBuffer(path, FakeProvider(broker), **options) as buffer:
        for number in range(5000):
            buffer.write("t", padded(number, 1000))
            if number % 500 == 499:
                assert buffer.status().disk_bytes <= limit
        pruned = buffer.status().pruned
        assert pruned > 3000
        broker.up()
        buffer.flush(WAIT_S)
        status = buffer.status()
    assert numbers(broker) == list(range(status.pruned, 5000))
    assert (status.delivered, status.balanced) == (5000 - status.pruned, True)


# ---- pace and trouble


def test_an_output_delay_is_a_limit_of_the_rate(path: Path, broker: FakeBroker) -> None:
    with MessageBuffer(path, FakeProvider(broker), **FAST, max_rate=1000) as buffer:
        begun = time.monotonic()
        buffer.write_many("t", [str(number) for number in range(500)])
        buffer.flush(WAIT_S)
        # Half a second's worth, of which a twentieth of a second may go at once.
        assert time.monotonic() - begun >= 0.4
    assert numbers(broker) == list(range(500))


@pytest.mark.parametrize("mode", ["buffer", "always"])
def test_an_injected_error_delays_and_neither_loses_nor_reorders(mode: str, path: Path, broker: FakeBroker) -> None:
    provider = FaultProvider(FakeProvider(broker), Plan())
    with MessageBuffer(path, provider, **FAST, mode=mode, batch_messages=20) as buffer:
        for number in range(300):
            if number % 50 == 10:
                provider.inject_error("partial" if number % 100 == 10 else "before", n=2)
            buffer.write("t", str(number))
        buffer.flush(WAIT_S)
        status = buffer.status()
    # A success after a retry counts, and nothing is given up for the next message.
    assert numbers(broker) == list(range(300))
    assert (status.delivered, status.lost, status.balanced) == (300, 0, True)


def test_a_rejected_message_is_kept_apart_and_the_others_keep_their_order(path: Path, broker: FakeBroker) -> None:
    broker.reject_when(lambda message: "odd" if int(message.value or b"0") % 2 else None)
    with MessageBuffer(path, FakeProvider(broker), **FAST) as buffer:
        for number in range(100):
            buffer.write("t", str(number))
        buffer.flush(WAIT_S)
        status = buffer.status()
    assert numbers(broker) == list(range(0, 100, 2))
    assert (status.delivered, status.dead, status.balanced) == (50, 50, True)
    assert [event["reason"] for event in events(path) if event["kind"] == "dead"] == ["odd"] * 50


def test_the_channel_is_watched(path: Path, broker: FakeBroker) -> None:
    broker.stick()
    buffer = MessageBuffer(path, FakeProvider(broker), **FAST, mode="buffer", channel_messages=100, live_wait=WAIT_S)
    try:
        eventually(lambda: buffer.status().state == "live", "the provider opened")
        buffer.write("t", "0")
        broker.wait_until(lambda: broker.stuck == 1, WAIT_S)
        for number in range(1, 60):
            buffer.write("t", str(number))
        assert buffer.pressure == pytest.approx(0.6, abs=0.05)
        assert spooled(buffer) == 0
        # The provider has not failed; it does not keep up, and what waits is bounded.
        for number in range(60, 200):
            buffer.write("t", str(number))
        assert spooled(buffer) == 200
        broker.release()
        buffer.flush(WAIT_S)
    finally:
        broker.release()
        buffer.close()
    assert numbers(broker) == list(range(200))
    reasons = [event["reason"] for event in events(path) if event["kind"] == "hand-over"]
    assert reasons[1] == "the provider does not keep up"


class FullDevice(Files):
    """A device without room for another segment, while ``full`` is set."""

    full = threading.Event()

    def reserve(self, fd: int, size: int) -> None:
        if self.full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        super().reserve(fd, size)


def test_a_full_disk_applies_the_policy_and_recovers_by_itself(
    path: Path, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MessageBuffer, "_make_files", FullDevice)
    broker.down()
    options = {**FAST, "mode": "always", "segment_size": "64KiB", "on_full": "reject"}
    with MessageBuffer(path, FakeProvider(broker), **options) as buffer:
        FullDevice.full.set()
        accepted = 0
        try:
            with pytest.raises(BufferFull, match="full"):
                for accepted in range(10_000):
                    buffer.write("t", padded(accepted, 1000))
        finally:
            FullDevice.full.clear()
        for number in range(accepted, accepted + 100):
            buffer.write("t", padded(number, 1000))
        broker.up()
        buffer.flush(WAIT_S)
        assert buffer.status().lost == 0
    assert numbers(broker) == list(range(accepted + 100))


# ---- messages, logs, configuration


def test_any_bytes_in_topic_key_value_and_headers_arrive_as_they_were(path: Path, broker: FakeBroker) -> None:
    odd = b"tab\tnewline\nreturn\r\\n nul\0 high\xff"
    headers = [("a\tb", odd), ("a\tb", None), ("", b"")]
    for mode in ("buffer", "always"):
        with MessageBuffer(path, FakeProvider(broker), **FAST, mode=mode) as buffer:
            buffer.write("topic\twith\ntabs", odd, key=odd[::-1], headers=headers)
            buffer.write("t", None, key="")
            buffer.write("t", "", key=None)
            buffer.flush(WAIT_S)
    assert len(broker.messages) == 6
    for first, tombstone, empty in (broker.messages[:3], broker.messages[3:]):
        assert (first.topic, first.value, first.key) == ("topic\twith\ntabs", odd, odd[::-1])
        assert list(first.headers) == headers
        assert (tombstone.value, tombstone.key) == (None, b"")
        assert (empty.value, empty.key) == (b"", None)


def test_logs_are_structured_and_a_library_is_silent_by_default(
    path: Path, broker: FakeBroker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mbframework")
    broker.fail_next(2)
    with MessageBuffer(path, FakeProvider(broker), **FAST) as buffer:
        buffer.write("t", "1")
        buffer.flush(WAIT_S)
    warning = next(record for record in caplog.records if record.levelno == logging.WARNING)
    assert warning.name == "mbframework.sender"
    assert warning.getMessage() == "lane main: FakeProvider: the fake broker was told to fail"
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("mbframework").handlers)
    lines = events(path)
    assert {"opened", "failure", "provider-back", "closed"} <= {line["kind"] for line in lines}
    assert all({"schema", "at", "boot_ns", "kind"} <= line.keys() for line in lines)


def test_the_json_configuration_of_the_original_runs_a_buffer(path: Path, tmp_path: Path, broker: FakeBroker) -> None:
    file = tmp_path / "config.json"
    settings = {"file_max_time": 30, "file_max_size": 2, "total_size": 10, "buffer_dir": str(path)}
    file.write_text(json.dumps(settings | {"prune_frequency": 10}))
    with MessageBuffer.from_json(file, provider=FakeProvider(broker), **FAST) as buffer:
        buffer.write("t", "1")
        buffer.flush(WAIT_S)
        limits = buffer.running_lane().spool.limits
        assert (limits.segment_size, limits.total_size) == (2_000_000, 10_000_000)
        assert limits.segment_age_ns == 30 * 10**9
    assert numbers(broker) == [1]


def test_a_directory_of_the_original_is_refused_and_left_alone(path: Path) -> None:
    path.mkdir(mode=0o700)
    (path / "P1700000000").write_text("topic\tkey\tmessage\n")
    (path / "SP1700000000").write_text("12")
    with pytest.raises(NotABuffer):
        MessageBuffer(path, "fake://")
    assert sorted(entry.name for entry in path.iterdir()) == ["P1700000000", "SP1700000000"]
