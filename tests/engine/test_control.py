"""What a program may ask for: flush, sync, pause, resume, purge, retry now, expiry, pace, linger."""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path

import pytest
from mbframework_fake.provider import FakeProvider
from mbframework_fault.provider import FaultProvider

from mbframework import (
    Batch,
    BufferClosed,
    Context,
    FlushTimeout,
    MessageBuffer,
    ModeError,
    Provider,
    SendFailed,
    read_status,
)
from mbframework.plugins.source import resolve_url
from mbframework.reporter import Reporter
from mbframework.throttle import LEAST
from tests.engine.rig import FAST, SMALL, Disk, at_rest, buffer_on, eventually, in_state, numbers, padded, sampled


def test_flush_says_how_much_is_left_and_why(tmp_path: Path) -> None:
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        in_state(buffer, "live")
        buffer.flush(0)
        provider.down()
        buffer.write_many("t", map(str, range(7)))
        in_state(buffer, "buffering")
        with pytest.raises(
            FlushTimeout, match=r"7 messages are not delivered after 0\.05 s; the lane is buffering: the fake"
        ):
            buffer.flush("50ms")  # type: ignore[arg-type]
        with pytest.raises(TimeoutError) as caught:
            buffer.flush(0)
        assert isinstance(caught.value, FlushTimeout)
        assert caught.value.remaining == 7
        provider.up()
        buffer.flush()
        assert provider.count == 7


def test_flush_concerns_what_was_accepted_before_it(tmp_path: Path) -> None:
    provider = FakeProvider()
    stop = threading.Event()
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        in_state(buffer, "live")

        def write() -> None:
            while not stop.wait(0.0005):
                buffer.write("t", "more")

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(20):
                sequence = buffer.write("t", "mine")
                buffer.flush(60)
                assert provider.messages[-1].sequence >= sequence
        finally:
            stop.set()
            writer.join()


def test_flush_after_a_restart_with_skipped_sequences(tmp_path: Path) -> None:
    """Sequences leap after a kill; an empty lane is flushed all the same."""
    with MessageBuffer(tmp_path / "b", FakeProvider(), **FAST) as buffer:
        buffer.write("t", "0")
        buffer.flush(60)
        lane = buffer.running_lane()
        with lane.lock:
            lane._next += 1000
            lane.channel.first += 1000
        buffer.flush(60)
        buffer.write("t", "1")
        buffer.flush(60)
        assert buffer.status().resident == 0


def test_a_flush_ends_when_the_buffer_is_closed(tmp_path: Path) -> None:
    provider = FakeProvider()
    provider.down()
    buffer = MessageBuffer(tmp_path / "b", provider, **FAST)
    buffer.write("t", "0")
    ended: list[BaseException] = []

    def flush() -> None:
        try:
            buffer.flush()
        except BufferClosed as error:
            ended.append(error)

    thread = threading.Thread(target=flush)
    thread.start()
    buffer.close(0)
    thread.join(60)
    assert len(ended) == 1
    with pytest.raises(BufferClosed, match="open it anew"):
        buffer.flush()
    with pytest.raises(BufferClosed):
        buffer.write("t", "0")
    with pytest.raises(BufferClosed):
        buffer.write_many("t", ["0"])
    buffer.close()


def test_pause_keeps_and_resume_sends(tmp_path: Path) -> None:
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        in_state(buffer, "live")
        with sampled(buffer):
            for number in range(100):
                if number == 30:
                    buffer.pause()
                if number == 60:
                    assert buffer.status().state == "paused"
                    assert provider.count <= 30
                buffer.write("t", str(number))
            with pytest.raises(FlushTimeout, match="paused by request"):
                buffer.flush(0.05)
            buffer.resume()
            buffer.flush(60)
        assert numbers(provider.messages) == list(range(100))
        in_state(buffer, "live")
        buffer.pause()
        buffer.write("t", "100")
    assert provider.count == 100
    with MessageBuffer(tmp_path / "b", FakeProvider(provider.broker), **FAST) as buffer:
        buffer.flush(60)
        assert numbers(provider.messages) == list(range(101))


def test_pause_before_the_provider_was_ever_reached(tmp_path: Path) -> None:
    provider = FakeProvider()
    provider.down()
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        buffer.write("t", "0")
        in_state(buffer, "buffering")
        buffer.pause()
        in_state(buffer, "paused")
        provider.up()
        buffer.write("t", "1")
        buffer.resume()
        buffer.flush(60)
        assert numbers(provider.messages) == [0, 1]


@pytest.mark.parametrize("mode", ["buffer", "always", "block"])
def test_purge_removes_what_waits_and_nothing_else(tmp_path: Path, mode: str) -> None:
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, mode=mode, batch_messages=5, **FAST) as buffer:
        in_state(buffer, "live")
        buffer.write("t", "0")
        buffer.flush(60)
        assert buffer.purge() == 0
        provider.stick()
        for number in range(1, 6):
            buffer.write("t", str(number))
            if number == 1:
                eventually(lambda: provider.stuck, "a send that hangs")
        buffer.write_many("t", map(str, range(6, 30)))
        in_hand = len(buffer.running_engine().ledger.flight.marks)  # type: ignore[union-attr]
        with sampled(buffer):
            assert buffer.purge() == 29 - in_hand
            assert (buffer.status().purged, buffer.status().resident) == (29 - in_hand, in_hand)
            buffer.write("t", "30")
            assert buffer.purge() == 1
            buffer.write("t", "31")
            provider.release()
            buffer.flush(60)
        assert numbers(provider.messages) == [*range(in_hand + 1), 31]
        assert at_rest(buffer) == at_rest(buffer) | {"purged": 30 - in_hand, "delivered": in_hand + 2}


@pytest.mark.parametrize("mode", ["buffer", "always", "block"])
def test_what_the_provider_had_in_hand_is_purged_if_it_fails(tmp_path: Path, mode: str) -> None:
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, mode=mode, **FAST) as buffer:
        in_state(buffer, "live")
        provider.fail_next(after=2)
        provider.stick()
        buffer.write_many("t", map(str, range(6)))
        eventually(lambda: provider.stuck, "a send that hangs")
        with sampled(buffer):
            buffer.write_many("t", map(str, range(6, 10)))
            assert buffer.purge() == 4
            provider.release()
            buffer.flush(60)
        assert numbers(provider.messages) == [0, 1]
        assert at_rest(buffer) == at_rest(buffer) | {"purged": 8, "delivered": 2, "accepted": 10}


def test_purge_during_an_outage_survives_a_restart(tmp_path: Path) -> None:
    provider = FakeProvider()
    provider.down()
    with MessageBuffer(tmp_path / "b", provider, **FAST | SMALL) as buffer:
        for number in range(200):
            buffer.write("t", padded(number, 500))
        assert buffer.purge() == 200
        eventually(lambda: buffer.status().segments == 0, "the removal of the files")
        buffer.write("t", "200")
        assert at_rest(buffer) == at_rest(buffer) | {"purged": 200, "resident_messages": 1}
    later = FakeProvider()
    with MessageBuffer(tmp_path / "b", later, **FAST | SMALL) as buffer:
        buffer.flush(60)
        assert numbers(later.messages) == [200]
        assert at_rest(buffer) == at_rest(buffer) | {"purged": 200, "delivered": 1}


def test_who_only_writes_cannot_send_pause_or_purge(tmp_path: Path) -> None:
    with MessageBuffer(tmp_path / "b", **FAST) as buffer:
        buffer.write("t", "0")
        for call in (buffer.pause, buffer.resume, buffer.purge):
            with pytest.raises(ModeError, match="only writes"):
                call()
        buffer.retry_now()
        with pytest.raises(FlushTimeout):
            buffer.flush(0.05)
        buffer.sync()


@pytest.mark.parametrize("reachable", [True, False])
def test_messages_expire_by_their_age_whatever_the_provider_does(tmp_path: Path, reachable: bool) -> None:
    class Clock(Disk):
        step = 0

        def boot_ns(self) -> int:
            return super().boot_ns() + self.step

        def wall_ns(self) -> int:
            return super().wall_ns() + self.step

    disk, provider = Clock(), FakeProvider()
    if not reachable:
        provider.down()
    with buffer_on(disk, tmp_path / "b", provider, expire_after=3600, batch_messages=3) as buffer:
        if reachable:
            in_state(buffer, "live")
            provider.down()
        with sampled(buffer):
            buffer.write_many("t", map(str, range(10)), timestamps=[1] * 10)
            disk.step = 3601 * 10**9
            eventually(lambda: buffer.status().expired == 10, "the expiry")
            assert buffer.status().resident == 0
            buffer.write("t", "10")
            provider.up()
            buffer.flush(60)
        assert numbers(provider.messages) == [10]
        assert at_rest(buffer) == at_rest(buffer) | {"expired": 10, "delivered": 1}


#: Leaving waits for nothing.
AT_ONCE = FAST | {"close_timeout": 0}


class Away(Provider):
    """Never keeps a position, so that nobody has to wait for what it would say."""

    def __init__(self, where: str) -> None:
        self.where = where

    def open(self, context: Context) -> None:
        self._fail("open")

    def send(self, batch: Batch) -> None:
        self._fail("send")

    def _fail(self, where: str) -> None:
        if where == self.where:
            raise SendFailed("it is away", uncertain=True)


def test_what_a_provider_without_a_position_had_in_hand_expires_while_it_is_away(tmp_path: Path) -> None:
    with MessageBuffer(tmp_path / "b", Away("send"), mode="always", **AT_ONCE) as buffer:
        buffer.write_many("t", map(str, range(10)))
        eventually(lambda: buffer.status().failures, "a batch that failed")
    with MessageBuffer(tmp_path / "b", Away("open"), mode="always", expire_after=0.1, **AT_ONCE) as buffer:
        eventually(lambda: buffer.status().expired == 10, "the expiry")


def test_what_an_answer_has_refused_expires_after_a_restart_without_asking(tmp_path: Path) -> None:
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, mode="always", **AT_ONCE) as buffer:
        in_state(buffer, "live", "draining")
        provider.down()
        buffer.write_many("t", map(str, range(10)))
        eventually(lambda: buffer.status().failures, "a batch that failed")
    for _ in range(2):
        with MessageBuffer(tmp_path / "b", provider, mode="always", expire_after=3600, **AT_ONCE) as buffer:
            eventually(lambda: buffer.status().failures > 1, "some looks at their age")
    with MessageBuffer(tmp_path / "b", provider, mode="always", expire_after=0.1, **AT_ONCE) as buffer:
        eventually(lambda: buffer.status().expired == 10, "the expiry")


def test_a_clock_that_is_set_expires_nothing(tmp_path: Path) -> None:
    class Clock(Disk):
        step = 0

        def wall_ns(self) -> int:
            return super().wall_ns() + self.step

    disk, provider = Clock(), FakeProvider()
    provider.down()
    with buffer_on(disk, tmp_path / "b", provider, expire_after=3600) as buffer:
        buffer.write("t", "0")
        in_state(buffer, "buffering")
        for step in (7 * 86400, -86400):
            disk.step = step * 10**9
            attempts = buffer.status().failures
            eventually(lambda: buffer.status().failures > attempts + 3, "further attempts")  # noqa: B023
            assert buffer.status().resident == 1
            assert 0 <= (buffer.status().oldest_age_s or 0) < 60
        provider.up()
        buffer.flush(60)
        assert provider.count == 1


def test_linger_gathers_and_appends_in_time(tmp_path: Path) -> None:
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, mode="always", linger=0.05, **FAST) as buffer:
        lane = buffer.running_lane()
        with sampled(buffer):
            for number in range(50):
                buffer.write("t", str(number))
            eventually(lambda: provider.count == 50, "the delivery without a flush")
            for number in range(50, 100):
                buffer.write("t", str(number))
            buffer.flush(60)
            buffer.write("t", "100")
            buffer.sync()
            assert not lane.lingering()
            buffer.write_many("t", ["101", "102"])
            buffer.write("t", "103")
            buffer.flush(60)
        assert numbers(provider.messages) == list(range(104))
        buffer.write("t", "104")
        buffer.set_mode("buffer")
        buffer.write("t", "105")
    assert numbers(provider.messages) == list(range(106))


@pytest.mark.parametrize("policy", ["block", "reject"])
def test_linger_in_a_full_buffer_accepts_nothing_twice(tmp_path: Path, policy: str) -> None:
    provider = FakeProvider()
    provider.down()
    options = FAST | SMALL | {"on_full": policy, "block_timeout": 0.05, "linger": 0.01}
    with MessageBuffer(tmp_path / "b", provider, mode="always", **options) as buffer:
        accepted: list[int] = []
        refused = 0
        for number in range(1500):
            try:
                buffer.write("t", padded(number, 500))
                accepted.append(number)
            except Exception:  # noqa: BLE001  (whatever it is, the message was not accepted)
                refused += 1
                if refused > 5:
                    break
        assert refused > 5
        assert buffer.status().accepted == len(accepted)
        assert buffer.status().balanced
        provider.up()
        buffer.flush(60)
        assert numbers(provider.messages) == accepted
        assert at_rest(buffer)["delivered"] == len(accepted)


def test_sync_in_every_state(tmp_path: Path) -> None:
    disk, provider = Disk(), FakeProvider()
    with buffer_on(disk, tmp_path / "b", provider, fsync="never") as buffer:
        in_state(buffer, "live")
        provider.stick()
        buffer.write_many("t", map(str, range(5)))
        eventually(lambda: provider.stuck, "a send that hangs")
        before = disk.calls["datasync"]
        buffer.sync()
        # In memory it would not be on the device: the lane has left live, and the batch in flight is on disk too.
        assert buffer.running_lane().spool.ordinal == 5
        assert disk.calls["datasync"] > before
        head = buffer.running_lane().head.slot
        assert head.synced_sequence == 6
        buffer.write("t", "5")
        buffer.sync()
        assert head.synced_sequence == 7
        buffer.pause()
        buffer.write("t", "6")
        buffer.sync()
        assert head.synced_sequence == 8
        buffer.resume()
        provider.release()
        buffer.flush(60)
        buffer.sync()
        assert numbers(provider.messages) == list(range(7))


def test_the_pace_is_kept_and_smooth(tmp_path: Path) -> None:
    sent: list[tuple[float, int]] = []

    class Timed(FakeProvider):
        def send(self, batch: Batch) -> None:
            sent.append((time.monotonic(), len(batch)))
            super().send(batch)

    with MessageBuffer(tmp_path / "b", Timed(), mode="always", max_rate=2000, **FAST) as buffer:
        begun = time.monotonic()
        buffer.write_many("t", map(str, range(2000)))
        buffer.flush(60)
    assert sum(count for _, count in sent) == 2000
    assert max(count for _, count in sent) <= 100
    # A second's worth takes no less than that second, but for the slice that may go at once; nor does any part of it.
    for (at, _), before in zip(sent, itertools.accumulate((count for _, count in sent), initial=0), strict=False):
        assert at - begun > (before - 100) / 2000 - 0.001


def test_catching_up_begins_slowly_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What was just written at once is a pace of which twice is fast.
    monkeypatch.setattr(Reporter, "intake", lambda _self: 0.0)
    sizes: dict[str, list[tuple[float, int]]] = {"ramp": [], "full": []}
    up_again = 0.0

    class Sized(FakeProvider):
        how = "ramp"

        def send(self, batch: Batch) -> None:
            super().send(batch)
            sizes[self.how].append((time.monotonic(), len(batch)))

    for how in sizes:
        provider = Sized()
        provider.how = how
        options = FAST | {"catch_up": how, "batch_messages": 1000}
        with MessageBuffer(tmp_path / how, provider, mode="always", **options) as buffer:
            in_state(buffer, "live")
            provider.down()
            buffer.write_many("t", map(str, range(3000)))
            eventually(lambda: buffer.status().failures > 0, "a failure")
            up_again = up_again or time.monotonic()
            provider.up()
            buffer.flush(60)
    # The batch that failed comes again as it was.
    assert [size for _, size in sizes["full"]] == [1000] * 3
    assert sizes["ramp"][0][1] == 1000
    # A twentieth of a second's worth, at a pace that doubles in no less than 1.6 s.
    assert all(size <= 0.06 * LEAST * 2.0 ** ((at - up_again) / 1.6) for at, size in sizes["ramp"][1:])


def test_pressure_tells_memory_and_disk(tmp_path: Path) -> None:
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, channel_messages=100, live_wait=60, **FAST | SMALL) as buffer:
        in_state(buffer, "live")
        assert buffer.pressure == 0.0
        provider.stick()
        buffer.write("t", "0")
        eventually(lambda: provider.stuck, "a send that hangs")
        buffer.write_many("t", map(str, range(1, 50)))
        assert 0.4 < buffer.pressure < 0.6
        for number in range(50, 120):
            buffer.write("t", padded(number, 1000))
        assert 0.2 < buffer.pressure <= 1.0
        provider.release()


@pytest.mark.parametrize("act", ["expire", "purge", "purge and close"])
def test_what_may_have_arrived_is_asked_for_before_it_goes(tmp_path: Path, act: str) -> None:
    """The answer to a batch that had arrived was lost, and an outage follows, longer than messages live."""

    class Away(FaultProvider):
        def send(self, batch: Batch) -> None:
            try:
                super().send(batch)
            except SendFailed as error:
                if error.uncertain:
                    self.down()
                raise

    provider = Away(resolve_url(f"sqlite://{tmp_path}/out.db"))
    options = FAST | ({"expire_after": 0.1} if act == "expire" else {})
    with MessageBuffer(tmp_path / "b", provider, mode="always", batch_messages=100, **options) as buffer:
        in_state(buffer, "live")
        buffer.pause()
        buffer.write_many("t", map(str, range(150)))
        provider.inject_error("uncertain")
        buffer.resume()
        eventually(lambda: (buffer.status().oldest_age_s or 0) > 0.3 and buffer.status().failures > 3, "some attempts")
        if act == "expire":
            assert (buffer.status().expired, buffer.status().resident) == (0, 150)
        else:
            assert buffer.purge() == 50
        if act != "purge and close":
            provider.up()
            eventually(lambda: not buffer.status().resident, "an end")
    [lane] = read_status(tmp_path / "b").lanes
    if act == "expire":
        assert (lane.delivered, lane.expired, lane.resident) == (100, 50, 0)
    elif act == "purge":
        assert (lane.delivered, lane.purged, lane.resident) == (100, 50, 0)
    else:
        assert (lane.delivered, lane.purged, lane.resident) == (0, 150, 0)
