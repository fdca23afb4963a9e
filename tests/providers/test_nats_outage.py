"""The provider ``nats`` in a real buffer, with a real server: exactly once, whatever is killed or comes in between."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mbframework import MessageBuffer
from mbframework.errors import ProviderUnusable, SendFailed
from mbframework.message import Position
from mbframework.provider import Provider
from mbframework.testing.nats import NatsServer
from tests.providers import exactly_once
from tests.providers.batches import RUN, batch_of, make_batch
from tests.providers.connections import mended_between_sends, waits_end
from tests.providers.made import New
from tests.providers.nats_reading import Plain, entries


@pytest.fixture
def stream(nats_server: NatsServer, nats_stream: str) -> str:
    """A stream for ``STREAM.>``."""
    with Plain(nats_server.port) as client:
        client.make(nats_stream)
    return nats_stream


@pytest.fixture
def new(new: New, nats_server: NatsServer, stream: str) -> New:
    """The same for this module's stream: ``new(query="", lane="main")``."""
    return lambda query="", lane="main": new(url(nats_server, stream, query), lane)


def url(server: NatsServer, stream: str, query: str = "") -> str:
    return f"{server.url}/{stream}?prefix={stream}.{'&' if query else ''}{query}"


def numbers(server: NatsServer, stream: str) -> list[int]:
    return [int((entry.value or b"").rstrip(b".")) for _, entry in entries(server.port, stream)]


def test_outages_among_50_000_messages(nats_control: NatsServer, stream: str, tmp_path: Path) -> None:
    exactly_once.outages_among_50_000(tmp_path / "b", url(nats_control, stream, "timeout=500ms"), nats_control)
    assert numbers(nats_control, stream) == list(range(50_000))


def test_a_position_ahead_of_the_seek_wins(nats_server: NatsServer, stream: str, tmp_path: Path) -> None:
    with Plain(nats_server.port) as client:
        # So short that the server does not recognise what comes again.
        client.change(stream, duplicate_window=100_000_000)
    count = exactly_once.kills_between_commit_and_seek(tmp_path / "b", url(nats_server, stream), 4)
    assert numbers(nats_server, stream) == list(range(count))


def test_writers_and_server_are_killed(nats_control: NatsServer, stream: str, tmp_path: Path) -> None:
    accepted = exactly_once.kills_of_writers(tmp_path / "b", url(nats_control, stream), 3, nats_control.restart)
    found = numbers(nats_control, stream)
    assert found == sorted(set(found))
    assert set(accepted) <= set(found)


#: Two lanes and another buffer in one thread; the server of the first lane stands still for a while.
_GREENLETS = """
import gevent.monkey
gevent.monkey.patch_all()
import os, signal, sys
from mbframework import MessageBuffer, RoutedBuffer

outbox, frozen, well, pid = *sys.argv[1:4], int(sys.argv[4])
lanes = {"a": {"topics": "a", "provider": frozen}, "b": {"topics": "b", "provider": well}}
with RoutedBuffer(outbox, lanes=lanes) as routed, MessageBuffer(f"{outbox}-c", well) as other:
    buffers = {**routed.lanes, "c": other}

    def through(*names):
        for name in names:
            buffers[name].write(name, name.encode())
            buffers[name].flush(30)

    through("a", "b", "c")
    os.kill(pid, signal.SIGSTOP)
    try:
        buffers["a"].write("a", b"a")
        # So long that its connection is given up, and others are tried.
        while buffers["a"].status().failures < 2:
            through("b", "c")
    finally:
        os.kill(pid, signal.SIGCONT)
    through("a", "b", "c")
    for name in "bc":
        status = buffers[name].status()
        assert (status.failures, status.last_error) == (0, None), status
"""


def test_greenlets_that_share_a_thread_do_not_wait_for_each_other(
    nats_control: NatsServer, stream: str, tmp_path: Path
) -> None:
    """While one server does not answer, lanes to another one go on as if nothing were the matter."""
    with NatsServer() as well:
        urls = [url(nats_control, stream, "timeout=300ms&connect_timeout=300ms"), f"{well.url}/other?create=b,c"]
        command = [sys.executable, "-W", "ignore", "-c", _GREENLETS, str(tmp_path / "b"), *urls, str(nats_control.pid)]
        done = subprocess.run(command, timeout=90, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert [entry.value for _, entry in entries(nats_control.port, stream)] == [b"a"] * 3


def test_an_attempt_without_an_answer_is_stored_once(nats_control: NatsServer, stream: str, new: New) -> None:
    """The server has the batch in its socket and has not read it; it comes again, cut otherwise."""
    provider = new("timeout=300ms")
    provider.send(make_batch(1, 10))
    nats_control.freeze()
    with pytest.raises(SendFailed, match="does not answer") as failed:
        provider.send(make_batch(11, 2500))
    assert failed.value.uncertain
    assert list(failed.value.undelivered or ()) == list(range(2500))
    nats_control.thaw()
    for first in range(11, 2511, 100):
        provider.send(make_batch(first, 100))
    provider.send(make_batch(2511, 10))
    assert numbers(nats_control, stream) == list(range(1, 2521))
    assert provider.committed() == Position(2521, RUN)


@pytest.mark.parametrize("most", [1, 1234, 5000])
def test_nothing_is_stored_behind_a_message_that_was_refused(
    nats_server: NatsServer, stream: str, new: New, most: int
) -> None:
    """The stream is full in the middle of a batch, and makes room again while later messages arrive."""
    provider = new()
    with Plain(nats_server.port) as client:
        client.change(stream, max_msgs=most, discard="new")
        with pytest.raises(SendFailed, match="10077.*the stream is full and refuses") as failed:
            provider.send(make_batch(1, 6000))
        assert not failed.value.uncertain
        left = list(failed.value.undelivered or ())
        assert left == list(range(most, 6000))
        assert numbers(nats_server, stream) == list(range(1, most + 1))
        assert provider.committed() == Position(most + 1, RUN)
        client.change(stream, max_msgs=-1)
    messages = make_batch(1, 6000)
    provider.send(batch_of([messages[index] for index in left]))
    assert numbers(nats_server, stream) == list(range(1, 6001))


def test_a_large_message_that_does_not_fit_lets_no_smaller_one_pass(
    nats_server: NatsServer, stream: str, new: New
) -> None:
    provider = new()
    small = make_batch(1, 100)
    mixed = [*small, small[0]._replace(sequence=101, value=b"101" + b"." * 50_000), small[0]._replace(sequence=102)]
    with Plain(nats_server.port) as client:
        client.change(stream, max_bytes=45_000, discard="new")
        with pytest.raises(SendFailed, match="10077") as failed:
            provider.send(batch_of(mixed))
        assert list(failed.value.undelivered or ()) == [100, 101]
        assert numbers(nats_server, stream) == list(range(1, 101))
        client.change(stream, max_bytes=-1)


def test_somebody_else_writes_all_the_time(nats_server: NatsServer, stream: str, new: New) -> None:
    """Order and count hold for two lanes and a stranger in one stream, to one subject."""
    one, two = new(lane="one"), new(lane="two")
    done = threading.Event()

    def meddle() -> None:
        with Plain(nats_server.port) as client:
            while not done.wait(0.002):
                client.publish(f"{stream}.orders", "x", "")

    def send(provider: Provider, first: int) -> None:
        for at in range(first, first + 4000, 500):
            provider.send(make_batch(at, 500))

    stranger = threading.Thread(target=meddle)
    other = threading.Thread(target=send, args=(two, 100_001))
    stranger.start()
    other.start()
    try:
        send(one, 1)
    finally:
        other.join(60)
        done.set()
        stranger.join(60)
    found = numbers(nats_server, stream)
    assert [number for number in found if number < 100_000] == list(range(1, 4001))
    assert [number for number in found if number > 100_000] == list(range(100_001, 104_001))
    with Plain(nats_server.port) as client:
        assert client.ask(f"STREAM.INFO.{stream}")["state"]["messages"] > 8000
    # Each finds its own among the others'.
    assert new(lane="one").committed() == Position(4001, RUN)
    assert new(lane="two").committed() == Position(104_001, RUN)
    assert new("look_back=0", lane="three").committed() is None


def test_a_position_is_found_behind_many_of_others(nats_server: NatsServer, stream: str, new: New) -> None:
    new(lane="one").send(make_batch(1, 10))
    new(lane="two").send(make_batch(1, 20_000))
    assert new(lane="one").committed() == Position(11, RUN)
    assert new("look_back=19999", lane="one").committed() is None
    assert new("look_back=20000", lane="one").committed() == Position(11, RUN)


def test_another_program_on_the_same_lane_is_told(nats_server: NatsServer, stream: str, new: New) -> None:
    """Two copies of a directory give the same numbers to different messages."""
    one, two = new(), new()
    one.send(make_batch(1, 10))
    with pytest.raises(ProviderUnusable, match="has another message in the place of this lane's 5: a copy"):
        two.send(make_batch(1, 5, size=3))
    two.close(1)
    one.send(make_batch(11, 10))
    assert numbers(nats_server, stream) == list(range(1, 21))


def test_a_copy_is_told_when_it_connects_again(nats_control: NatsServer, stream: str, new: New) -> None:
    one, two = new(), new()
    one.send(make_batch(1, 5))
    two.send(make_batch(1, 5))
    one.send(make_batch(6, 10))
    nats_control.restart()
    with pytest.raises(SendFailed):
        two.send(make_batch(6, 1))
    with pytest.raises(ProviderUnusable, match="up to sequence 15, this one is at 6: a copy"):
        two.send(make_batch(6, 1))


def test_a_server_that_lost_what_it_had_goes_on(
    nats_control: NatsServer, stream: str, new: New, caplog: pytest.LogCaptureFixture
) -> None:
    """The stream is removed and made again, as when it was kept in memory."""
    provider = new()
    provider.send(make_batch(1, 10))
    with Plain(nats_control.port) as client:
        client.ask(f"STREAM.DELETE.{stream}")
        client.make(stream)
    nats_control.restart()
    with pytest.raises(SendFailed):
        provider.send(make_batch(11, 5))
    provider.send(make_batch(11, 5))
    assert numbers(nats_control, stream) == list(range(11, 16))
    assert (
        "nats has lost what it had acknowledged: its position of this lane went back from sequence 11 to 0"
        in caplog.text
    )


@pytest.mark.parametrize("options", ["", "create={}.>"])
def test_a_stream_that_is_removed_meanwhile_and_made_again_is_told(
    nats_control: NatsServer, stream: str, options: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address = url(nats_control, stream, options.format(stream))
    with MessageBuffer(tmp_path / "b", address, retry_wait=0.05, retry_wait_max=0.2, close_timeout=1) as buffer:
        buffer.write_many("a", [b"%d" % number for number in range(10)])
        buffer.flush(timeout=60)
        with Plain(nats_control.port) as client:
            client.ask(f"STREAM.DELETE.{stream}")
            if not options:
                client.make(stream)
        for number in range(10, 15):
            buffer.write("a", b"%d" % number)
        buffer.flush(timeout=60)
        status = buffer.status()
        assert (status.delivered, status.acknowledged_lost, status.balanced) == (15, 10, True)
        assert "nats has lost what it had acknowledged" in caplog.text
        buffer.write("a", b"15")
        buffer.flush(timeout=60)
        assert buffer.status().acknowledged_lost == 10


def test_messages_that_were_consumed_are_not_lost(
    nats_control: NatsServer, stream: str, new: New, caplog: pytest.LogCaptureFixture
) -> None:
    provider = new()
    provider.send(make_batch(1, 10))
    with Plain(nats_control.port) as client:
        client.ask(f"STREAM.PURGE.{stream}")
    nats_control.restart()
    with pytest.raises(SendFailed):
        provider.send(make_batch(11, 5))
    provider.send(make_batch(11, 5))
    assert numbers(nats_control, stream) == list(range(11, 16))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_lost_connection_is_noticed_and_mended_between_sends(nats_control: NatsServer, stream: str, new: New) -> None:
    mended_between_sends(new(), nats_control.kill, nats_control.restart, "cannot be reached: ")
    assert numbers(nats_control, stream) == list(range(1, 21))


@pytest.mark.parametrize("how", ["stopping", "close"])
def test_a_wait_ends_when_the_buffer_stops_or_closes(
    nats_control: NatsServer, stream: str, how: str, promised: Callable[[float], float]
) -> None:
    waits_end(url(nats_control, stream, "timeout=300s"), nats_control, how, promised(4))
    nats_control.thaw()
