"""Numbers that are wrong, and messages that leave without being counted: failures 2, 4, 17 and 21."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mbframework_fake.broker import FakeBroker
from mbframework_fake.provider import FakeProvider

from mbframework import DirectoryError, LaneStatus, MessageBuffer, MessageTooLarge, read_status
from mbframework.message import Batch
from tests.known_failures.conftest import FAST, WAIT_S, eventually, numbers, padded

COUNTS = (
    "accepted", "delivered", "pruned", "expired", "dead", "purged", "lost", "resident_messages", "resident_bytes",
    "disk_bytes", "segments",
)  # fmt: skip
SMALL: dict[str, Any] = {**FAST, "segment_size": "64KiB", "total_size": "256KiB", "min_free": 0}


# ---- 2: sizes below zero


@contextmanager
def watched(path: Path) -> Iterator[list[LaneStatus]]:
    """Look at the directory from outside, all the time."""
    stop = threading.Event()
    seen: list[LaneStatus] = []
    wrong: list[str] = []

    def look() -> None:
        while not stop.wait(0.005):
            try:
                lanes = read_status(path).lanes
            except DirectoryError:
                continue
            for lane in lanes:
                seen.append(lane)
                wrong.extend(
                    f"{name} is {count}" for name in COUNTS if not 0 <= (count := getattr(lane, name)) < 1 << 40
                )

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()
    assert not wrong, wrong[:3]


@pytest.mark.parametrize("mode", ["buffer", "always"])
def test_02_no_count_ever_falls_below_zero_and_nothing_is_full_for_ever(
    mode: str, tmp_path: Path, broker: FakeBroker
) -> None:
    path = tmp_path / "buffer"
    with watched(path) as seen:
        for life in range(3):
            with MessageBuffer(path, FakeProvider(broker), **SMALL, mode=mode) as buffer:
                broker.down()
                buffer.write("t", padded(0, 500))
                # From here on messages go to disk, in either mode.
                eventually(lambda: buffer.status().state == "buffering", "the outage noticed")
                for number in range(1500):
                    buffer.write("t", padded(number, 500))
                broker.up()
                if life == 1:
                    buffer.purge()
                buffer.flush(WAIT_S)
                assert (buffer.status().resident, buffer.status().resident_bytes) == (0, 0)
                # Drained, it has all its room again.
                pruned = buffer.status().pruned
                for number in range(100):
                    buffer.write("t", padded(number, 500))
                buffer.flush(WAIT_S)
                assert buffer.status().pruned == pruned
                # Segments whose accounts are settled twice would show here.
                eventually(lambda: from_outside(path).resident == 0, "the directory's agreement")
    assert len(seen) > 10
    assert from_outside(path).pruned > 500
    assert from_outside(path).balanced


def from_outside(path: Path) -> LaneStatus:
    return read_status(path).lanes[0]


# ---- 4: a batch that is too large


def test_04_what_is_larger_than_a_batch_is_sent_all_the_same(tmp_path: Path, broker: FakeBroker) -> None:
    sizes: list[int] = []

    class Measured(FakeProvider):
        def send(self, batch: Batch) -> None:
            sizes.append(batch.size_in_bytes())
            super().send(batch)

    options = {**FAST, "batch_bytes": "10KiB", "mode": "always"}
    with MessageBuffer(tmp_path / "buffer", Measured(broker), **options) as buffer:
        # One call, many times as large as a batch, with single messages that are larger than one.
        buffer.write_many("t", [padded(number, 100_000 if number % 50 == 7 else 1000) for number in range(300)])
        buffer.flush(WAIT_S)
        status = buffer.status()
    assert numbers(broker) == list(range(300))
    assert [len(message.value or b"") for message in broker.messages].count(100_000) == 6
    assert (status.delivered, status.dead, status.lost) == (300, 0, 0)
    # No batch has more than the limit and one message.
    assert max(size for size in sizes if size < 100_000) <= 11 * 1024
    assert max(sizes) <= 110 * 1024


def test_04_what_the_provider_can_never_take_is_refused_and_not_acknowledged(
    tmp_path: Path, broker: FakeBroker
) -> None:
    provider = FakeProvider(max_message_bytes=5000)
    with MessageBuffer(tmp_path / "buffer", provider, **FAST) as buffer:
        buffer.write("t", "0")
        buffer.flush(WAIT_S)
        with pytest.raises(MessageTooLarge):
            buffer.write("t", padded(1, 6000))
        with pytest.raises(MessageTooLarge):
            buffer.write_many("t", [padded(1, 10), padded(2, 6000), padded(3, 10)])
        buffer.write("t", padded(1, 4000))
        buffer.flush(WAIT_S)
        status = buffer.status()
    assert numbers(provider.broker) == [0, 1]
    assert (status.accepted, status.delivered) == (2, 2)


# ---- 17: drops that nobody counts


def test_17_whatever_is_dropped_is_counted_by_its_reason(tmp_path: Path, broker: FakeBroker) -> None:
    path = tmp_path / "buffer"
    broker.reject_when(lambda message: "odd" if (message.value or b"").startswith(b"1 ") else None)
    options = {**SMALL, "mode": "always"}
    with MessageBuffer(path, FakeProvider(broker), **options) as buffer:
        for number in range(10):
            buffer.write("t", padded(number, 500))
        buffer.flush(WAIT_S)
        broker.down()
        for number in range(10, 2000):
            buffer.write("t", padded(number, 500))
        pruned = buffer.status().pruned
        # What the provider has in hand goes when it has failed.
        buffer.purge()
        for number in range(2000, 2010):
            buffer.write("t", padded(number, 500))
    with MessageBuffer(path, FakeProvider(broker), **options, expire_after=0.1) as buffer:
        eventually(lambda: buffer.status().expired == 10, "the expiry")
        broker.up()
        buffer.write("t", padded(2010, 10))
        buffer.flush(WAIT_S)
        status = buffer.status()
    gone = 2011 - broker.count
    assert (status.accepted, status.delivered) == (2011, broker.count)
    assert (status.dead, status.expired, status.lost) == (1, 10, 0)
    assert status.pruned >= pruned > 1000
    assert status.dead + status.pruned + status.purged + status.expired == gone
    assert status.purged > 100
    assert status.balanced


# ---- 21: what is too old, sent again and again


def test_21_what_is_too_old_is_not_tried_for_ever(tmp_path: Path, broker: FakeBroker) -> None:
    sent: list[tuple[float, int]] = []

    class Noting(FakeProvider):
        def send(self, batch: Batch) -> None:
            sent.extend((time.monotonic(), int((value or b"").split(b" ")[0])) for value in batch.values)
            super().send(batch)

    broker.fail_next(1_000_000)
    options = {**FAST, "mode": "always", "expire_after": 1.0}
    with MessageBuffer(tmp_path / "buffer", Noting(broker), **options) as buffer:
        for number in range(100):
            buffer.write("t", str(number))
        eventually(lambda: bool(sent), "an attempt")
        eventually(lambda: buffer.status().expired == 100, "the expiry")
        last = max(at for at, _ in sent)
        # Nothing waits, so nothing is tried, however long the provider stays away.
        assert (buffer.status().resident, buffer.status().balanced) == (0, True)
        buffer.write("t", "100")
        eventually(lambda: buffer.status().expired == 101, "the next one's expiry")
        later = {number for at, number in sent if at > last}
        assert later <= {100}
    assert broker.count == 0
