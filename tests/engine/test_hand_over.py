"""live → buffering → draining → live: nothing lost, nothing twice, never out of order, whatever the flight does."""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from mbframework_fake.provider import FakeProvider

from mbframework import MessageBuffer
from tests.engine.rig import FAST, at_rest, events, eventually, in_state, lane_files, numbers, padded, sampled


def test_the_way_to_disk_and_back(tmp_path: Path) -> None:
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        in_state(buffer, "live")
        for number in range(10):
            buffer.write("t", str(number))
        buffer.flush(60)
        assert lane_files(buffer) == []
        provider.down()
        for number in range(10, 20):
            buffer.write("t", str(number))
        in_state(buffer, "buffering")
        for number in range(20, 30):
            buffer.write("t", str(number))
        assert buffer.status().resident == 20
        assert "away" in (buffer.status().last_error or "")
        provider.up()
        buffer.flush(60)
        in_state(buffer, "live")
        for number in range(30, 40):
            buffer.write("t", str(number))
        buffer.flush(60)
        assert numbers(provider.messages) == list(range(40))
        eventually(lambda: lane_files(buffer) == [], "the removal of what is delivered")
        assert at_rest(buffer)["delivered"] == 40
        eventually(lambda: len(events(buffer, "hand-over")) == 3, "the lines about the hand-overs")
        ways = [(line["before"], line["after"]) for line in events(buffer, "hand-over")]
        assert ways == [("draining", "live"), ("live", "buffering"), ("draining", "live")]


def test_live_appends_no_frame(tmp_path: Path) -> None:
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, **FAST | {"live_wait": 60}) as buffer:
        in_state(buffer, "live")
        for number in range(20_000):
            buffer.write("t", str(number))
            if number % 1000 == 999:
                buffer.flush(60)
        lane = buffer.running_lane()
        assert (lane.live_accepted, buffer.running_lane().spool.ordinal) == (20_000, 0)
        assert provider.count == 20_000


CAUSES: dict[str, dict[str, Any]] = {
    "waits too long": {"live_wait": 0.05},
    "too many": {"channel_messages": 16},
    "too large": {"channel_bytes": "64KiB"},
}


@pytest.mark.parametrize("fate", ["arrives", "fails", "fails in the middle"])
@pytest.mark.parametrize("cause", CAUSES)
def test_a_batch_in_flight_is_spilled_first(tmp_path: Path, cause: str, fate: str) -> None:
    limits = CAUSES[cause]
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, **FAST | {"live_wait": 60} | limits) as buffer:
        in_state(buffer, "live")
        if fate != "arrives":
            provider.fail_next(after=3 if fate == "fails in the middle" else 0)
        provider.stick()
        size = 5000 if cause == "too large" else 10
        with sampled(buffer):
            buffer.write_many("t", [padded(number, size) for number in range(5)])
            eventually(lambda: provider.stuck, "a send that hangs")
            for number in range(5, 25):
                buffer.write("t", padded(number, size))
            eventually(lambda: not buffer.running_lane().live, "the way to disk")
            for number in range(25, 30):
                buffer.write("t", padded(number, size))
            status = buffer.status()
            assert (status.resident, status.delivered, status.state) == (30, 0, "buffering")
            provider.release()
            buffer.flush(60)
        assert numbers(provider.messages) == list(range(30))
        assert buffer.status().order_violations == 0
        in_state(buffer, "live")
        assert at_rest(buffer)["delivered"] == 30


def test_what_arrived_of_a_failed_batch_is_not_sent_again(tmp_path: Path) -> None:
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        in_state(buffer, "live")
        provider.fail_next(after=4)
        provider.fail_next(after=3)
        provider.fail_next(after=0)
        with sampled(buffer) as seen:
            buffer.write_many("t", map(str, range(10)))
            buffer.flush(60)
        assert numbers(provider.messages) == list(range(10))
        assert max(status.delivered for status in seen) <= 10
        assert at_rest(buffer)["delivered"] == 10


def test_what_arrived_counts_once_the_batch_is_on_disk(tmp_path: Path) -> None:
    """A reader of the directory, and the next opening, must not take it for undelivered."""
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        in_state(buffer, "live")
        provider.fail_next(after=4)
        buffer.pause()
        buffer.write_many("t", map(str, range(10)))
        buffer.resume()
        buffer.flush(60)
        in_state(buffer, "live")
        provider.fail_next(after=4)
        provider.fail_next(n=10_000)
        buffer.write_many("t", map(str, range(10, 20)))
        in_state(buffer, "buffering")
        eventually(lambda: buffer.status().delivered == 14, "four of the batch being counted")
        assert at_rest(buffer) == at_rest(buffer) | {"delivered": 14, "resident_messages": 6}
        provider.broker._failures.clear()
        buffer.flush(60)
        assert numbers(provider.messages) == list(range(20))


def test_a_slow_provider_does_not_make_the_lane_flap(tmp_path: Path) -> None:
    provider = FakeProvider(latency=0.02)
    with MessageBuffer(tmp_path / "b", provider, **FAST | {"live_after": 0.5, "channel_messages": 100}) as buffer:
        in_state(buffer, "live")
        begun = time.monotonic()
        for number in range(3000):
            buffer.write("t", str(number))
        buffer.flush(60)
        in_state(buffer, "live")
        assert numbers(provider.messages) == list(range(3000))
        # To disk and back, and as often again as the time allows: it is live after half a second at the earliest.
        assert len(events(buffer, "hand-over")) <= 3 + 2 * int((time.monotonic() - begun) / 0.5)


def test_writers_through_many_hand_overs(tmp_path: Path) -> None:
    """Four threads write while the provider fails, hangs, slows down and comes back: each message once, in order."""
    threads, written = 4, dict[int, int]()
    provider = FakeProvider()
    ready, done, enough = threading.Barrier(threads + 1), threading.Event(), threading.Event()

    def write(name: int) -> None:
        ready.wait()
        for number in itertools.count():
            if number % 50 == 49:
                buffer.write_many(f"t{name}", [str(number), f"{number}b"])
            else:
                buffer.write(f"t{name}", str(number))
            if number % 25 == 0:
                done.wait(0.004)
            if enough.is_set():
                written[name] = number + 1
                return

    options = FAST | {"live_wait": 0.03, "channel_messages": 500, "segment_size": "128KiB", "batch_messages": 700}
    with MessageBuffer(tmp_path / "b", provider, **options) as buffer:
        in_state(buffer, "live")
        writers = [threading.Thread(target=write, args=(name,)) for name in range(threads)]
        for writer in writers:
            writer.start()
        with sampled(buffer) as seen:
            ready.wait()
            rounds = 0
            while rounds < 6 or len(events(buffer, "hand-over")) < 6:
                trouble = rounds % 3
                if trouble == 0:
                    provider.down()
                elif trouble == 1:
                    provider.stick()
                else:
                    provider.fail_next(3, after=5)
                done.wait(0.06)
                provider.up()
                provider.release()
                done.wait(0.08)
                rounds += 1
            enough.set()
            for writer in writers:
                writer.join()
            buffer.flush(60)
            eventually(lambda: {"live", "buffering"} <= {status.state for status in seen}, "both states")
        total = 0
        for name in range(threads):
            wanted = [
                text
                for number in range(written[name])
                for text in ([str(number), f"{number}b"] if number % 50 == 49 else [str(number)])
            ]
            total += len(wanted)
            got = [
                message.value.decode() for message in provider.messages if message.topic == f"t{name}" and message.value
            ]
            assert got == wanted
        sequences = [message.sequence for message in provider.messages]
        assert sequences == sorted(set(sequences))
        assert at_rest(buffer)["delivered"] == total
