"""What write() does about provider trouble in each of the four modes, and every change between them while running."""

from __future__ import annotations

import itertools
import signal
import threading
from pathlib import Path

import pytest
from mbframework_fake.provider import FakeProvider

from mbframework import (
    BufferClosed,
    BufferFull,
    ConfigurationError,
    MessageBuffer,
    ModeError,
    ProviderUnavailable,
    SenderStuck,
    SendFailed,
    Undelivered,
)
from mbframework.config import Mode
from tests.engine.rig import FAST, at_rest, eventually, in_state, lane_files, numbers, program, sampled

MODES: tuple[Mode, ...] = ("block", "raise", "buffer", "always")
MEMORY = ("block", "raise")


@pytest.mark.parametrize("before, after", list(itertools.permutations(MODES, 2)))
def test_a_change_under_traffic(tmp_path: Path, before: Mode, after: Mode) -> None:
    provider = FakeProvider(latency=0.001)
    stop = threading.Event()
    written: list[int] = []

    def write() -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            try:
                buffer.write("t", str(number))
            except BufferFull:
                stop.wait(0.001)
                buffer.write("t", str(number))
            written.append(number)
            if number % 20 == 0:
                stop.wait(0.001)

    with MessageBuffer(tmp_path / "b", provider, mode=before, **FAST) as buffer:
        in_state(buffer, "live")
        writer = threading.Thread(target=write)
        writer.start()
        with sampled(buffer):
            eventually(lambda: provider.count > 100, "traffic before")
            if after in MEMORY and before not in MEMORY:
                # Only without a backlog: the program leaves a gap in its writing.
                stop.set()
                writer.join()
                buffer.flush(60)
                buffer.set_mode(after)
                stop.clear()
                for number in range(len(written), len(written) + 100):
                    buffer.write("t", str(number))
                    written.append(number)
            else:
                buffer.set_mode(after)
                count = provider.count
                eventually(lambda: provider.count > count + 100, "traffic after")
            stop.set()
            writer.join()
            assert buffer.status().mode == after
            buffer.flush(60)
        assert numbers(provider.messages) == written == list(range(len(written)))
        assert at_rest(buffer)["delivered"] == len(written)


@pytest.mark.parametrize("before, after", list(itertools.permutations(MODES, 2)))
def test_a_change_during_an_outage(tmp_path: Path, before: Mode, after: Mode) -> None:
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, mode=before, **FAST) as buffer:
        in_state(buffer, "live")
        provider.stick()
        for number in range(5):
            buffer.write("t", str(number))
        provider.down()
        provider.release()
        in_state(buffer, "buffering")
        if after in MEMORY and before not in MEMORY:
            with pytest.raises(ModeError, match="5 messages are there: flush"):
                buffer.set_mode(after)
            assert buffer.status().mode == before
        else:
            buffer.set_mode(after)
            assert bool(lane_files(buffer)) == (after not in MEMORY) or after not in MEMORY
            if after == "raise":
                with pytest.raises(ProviderUnavailable):
                    buffer.write("t", "refused")
            elif after == "block":
                assert lane_files(buffer) == []
            else:
                buffer.write("t", "5")
        provider.up()
        buffer.flush(60)
        assert numbers(provider.messages) == list(range(provider.count))
        assert at_rest(buffer)["resident_messages"] == 0


@pytest.mark.parametrize("mode", MEMORY)
def test_modes_without_a_disk_never_touch_it(tmp_path: Path, mode: str) -> None:
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, mode=mode, **FAST) as buffer:
        in_state(buffer, "live")
        provider.stick()
        for number in range(100):
            buffer.write("t", str(number))
        buffer.write_many("t", map(str, range(100, 200)))
        with pytest.raises(ModeError, match="keeps nothing on disk: use flush"):
            buffer.sync()
        provider.release()
        buffer.flush(60)
        assert (buffer.running_lane().spool.ordinal, lane_files(buffer)) == (0, [])
        assert numbers(provider.messages) == list(range(200))


def test_block_waits_for_the_provider_and_goes_on(tmp_path: Path) -> None:
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, mode="block", **FAST) as buffer:
        in_state(buffer, "live")
        buffer.write("t", "0")
        buffer.flush(60)
        provider.down()
        buffer.write("t", "1")
        in_state(buffer, "buffering")
        results: list[int] = []
        writers = [threading.Thread(target=lambda: results.append(buffer.write("t", "2"))) for _ in range(3)]
        for writer in writers:
            writer.start()
        writers[0].join(0.1)
        assert all(writer.is_alive() for writer in writers)
        assert (results, buffer.status().accepted) == ([], 2)
        provider.up()
        for writer in writers:
            writer.join(60)
        buffer.flush(60)
        assert sorted(results) == [3, 4, 5]
        assert numbers(provider.messages) == [0, 1, 2, 2, 2]


def test_block_waits_where_memory_is_full(tmp_path: Path) -> None:
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, mode="block", channel_messages=10, **FAST) as buffer:
        in_state(buffer, "live")
        provider.stick()
        for number in range(10):
            buffer.write("t", str(number))
        writer = threading.Thread(target=lambda: buffer.write("t", "10"))
        writer.start()
        writer.join(0.1)
        assert writer.is_alive()
        provider.release()
        writer.join(60)
        buffer.flush(60)
        assert numbers(provider.messages) == list(range(11))


def test_block_gives_up_after_its_timeout(tmp_path: Path) -> None:
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, mode="block", block_timeout=0.05, **FAST) as buffer:
        in_state(buffer, "live")
        provider.down()
        buffer.write("t", "0")
        in_state(buffer, "buffering")
        with pytest.raises(BufferFull, match=r"waited 0\.05 s \(block_timeout\): the provider is down"):
            buffer.write("t", "1")
        provider.up()
        buffer.flush(60)
        assert at_rest(buffer)["accepted"] == 1


def test_a_waiting_write_is_told_of_the_closing(tmp_path: Path) -> None:
    provider = FakeProvider()
    buffer = MessageBuffer(tmp_path / "b", provider, mode="block", **FAST)
    in_state(buffer, "live")
    provider.down()
    buffer.write("t", "0")
    in_state(buffer, "buffering")
    errors: list[BaseException] = []

    def write() -> None:
        try:
            buffer.write("t", "1")
        except BufferClosed as error:
            errors.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    with pytest.raises(Undelivered) as caught:
        buffer.close(0.1)
    writer.join(60)
    assert [str(error) for error in errors] == ["the buffer is closed; open it anew to write"]
    assert numbers(caught.value.messages) == [0]


def test_raise_raises_with_the_cause_and_recovers(tmp_path: Path) -> None:
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, mode="raise", channel_messages=10, **FAST) as buffer:
        in_state(buffer, "live")
        provider.stick()
        for number in range(10):
            buffer.write("t", str(number))
        with pytest.raises(BufferFull, match="channel_messages or channel_bytes"):
            buffer.write("t", "too many")
        provider.down()
        provider.release()
        in_state(buffer, "buffering")
        with pytest.raises(ProviderUnavailable, match="the provider is down: the fake broker is away") as caught:
            buffer.write("t", "too late")
        assert isinstance(caught.value.__cause__, SendFailed)
        with pytest.raises(ProviderUnavailable):
            buffer.write_many("t", ["too", "late"])
        provider.up()
        in_state(buffer, "live")
        buffer.write("t", "10")
        buffer.flush(60)
        assert numbers(provider.messages) == list(range(11))
        assert at_rest(buffer)["accepted"] == 11


@pytest.mark.parametrize("mode", MEMORY)
@pytest.mark.parametrize("trouble", ["down", "stuck"])
def test_close_hands_back_what_memory_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, trouble: str
) -> None:
    monkeypatch.setattr("mbframework.shutdown._STOP_GRACE", 0.2)
    provider = FakeProvider()
    buffer = MessageBuffer(tmp_path / "b", provider, mode=mode, batch_messages=4, **FAST)
    in_state(buffer, "live")
    buffer.write("t", "0")
    buffer.flush(60)
    provider.stick()
    buffer.write_many("t", map(str, range(1, 4)))
    eventually(lambda: provider.stuck, "a send that hangs")
    buffer.write("t", "4", key="k", headers=[("h", b"v")], partition=3, timestamp=7)
    buffer.write_many("t", map(str, range(5, 10)))
    if trouble == "down":
        provider.down()
        provider.release()
    with pytest.raises(Undelivered, match="9 messages were accepted and not delivered") as caught:
        buffer.close(0.05)
    assert numbers(caught.value.messages) == list(range(1, 10))
    assert [message.sequence for message in caught.value.messages] == list(range(2, 11))
    fourth = caught.value.messages[3]
    assert fourth[1:7] == ("t", b"4", b"k", (("h", b"v"),), 7, 3)
    status = buffer.status()
    assert (status.delivered, status.returned, status.lost, status.resident) == (1, 9, 9, 0)
    assert status.balanced
    provider.release()
    eventually(lambda: not any("sender" in thread.name for thread in threading.enumerate()), "the sender's end")
    with MessageBuffer(tmp_path / "b", FakeProvider(), **FAST) as again:
        again.flush(60)
        assert at_rest(again) == at_rest(again) | {"accepted": 10, "delivered": 1, "lost": 9}


def test_close_of_a_stuck_provider_keeps_what_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mbframework.shutdown._STOP_GRACE", 0.2)
    provider = FakeProvider()
    buffer = MessageBuffer(tmp_path / "b", provider, **FAST)
    in_state(buffer, "live")
    provider.stick()
    buffer.write_many("t", map(str, range(5)))
    eventually(lambda: provider.stuck, "a send that hangs")
    buffer.write_many("t", map(str, range(5, 8)))
    with pytest.raises(SenderStuck, match="on disk and will be sent again"):
        buffer.close(0.05)
    # The lane stays locked for senders as long as the provider has it in hand.
    with MessageBuffer(tmp_path / "b", FakeProvider(), **FAST) as other:
        assert other.lane == "main-2"
    provider.release()
    eventually(lambda: not any("sender" in thread.name for thread in threading.enumerate()), "the sender's end")
    assert provider.count == 5
    later = FakeProvider()
    with MessageBuffer(tmp_path / "b", later, **FAST) as again:
        assert again.lane == "main"
        again.flush(60)
        assert numbers(later.messages) == list(range(8))
        assert at_rest(again)["delivered"] == 8


def test_modes_that_need_a_provider(tmp_path: Path) -> None:
    for mode in MEMORY:
        with pytest.raises(ConfigurationError, match="needs a provider"):
            MessageBuffer(tmp_path / "b", mode=mode)
    assert not (tmp_path / "b").exists()
    with MessageBuffer(tmp_path / "b") as buffer:
        assert buffer.status().mode == "always"
        with pytest.raises(ModeError, match="only writes"):
            buffer.set_mode("block")
        with pytest.raises(ConfigurationError, match="mode: 'alwyas'.*expected one of.*always"):
            buffer.set_mode("alwyas")  # type: ignore[arg-type]


def test_leaving_the_with_block_never_masks_the_callers_error(tmp_path: Path) -> None:
    provider = FakeProvider(latency=60)
    with pytest.raises(ZeroDivisionError), MessageBuffer(tmp_path / "b", provider, mode="block", **FAST) as buffer:
        in_state(buffer, "live")
        buffer.write("t", "0")
        raise ZeroDivisionError
    assert (buffer.status().returned, provider.count) == (1, 0)


def test_a_second_ctrl_c_during_close_loses_nothing(tmp_path: Path) -> None:
    text = """
provider = "fake://?latency=100"
buffer = MessageBuffer(sys.argv[1], provider, **FAST | {"close_timeout": 30})
while buffer.status().state != "live":
    time.sleep(0.005)
buffer.write_many("t", map(str, range(100)))
engine = buffer.running_engine()
deliver = engine.shutdown._deliver_rest
engine.shutdown._deliver_rest = lambda timeout: (print("closing", flush=True), deliver(timeout))
try:
    buffer.close()
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    with program(text, tmp_path / "b") as child:
        assert child.line() == "closing"
        child.process.send_signal(signal.SIGINT)
        assert child.line() == "interrupted"
        assert child.end()[0] == 0
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        buffer.flush(60)
        assert numbers(provider.messages) == list(range(100))
        assert at_rest(buffer)["lost"] == 0
