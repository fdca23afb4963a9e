"""The provider ``mqtt`` in a real buffer, whose broker ends, is cut off, frozen and killed: at least once, in order.

Mosquitto acknowledges before it writes: with a kill -9 it loses what was acknowledged and not fetched yet, unless it
writes after each message and the provider asks once more (decision 0022): then all must be there.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mbframework import MessageBuffer
from mbframework.testing.mqtt import MosquittoServer
from tests.mqtt_fixture import require_mqtt
from tests.providers.conftest import LONG
from tests.providers.connections import mended_between_sends, waits_end
from tests.providers.made import opened
from tests.providers.mqtt_reading import Listening, Subscriber
from tests.providers.tcp_line import TcpLine

_COUNT, _PART, _WINDOW = 50_000, 1000, 500
#: It writes its database before it takes the next packet of anybody.
_WRITES = ("autosave_on_changes true", "autosave_interval 1")


@pytest.fixture
def quick_folder() -> Iterator[Path | None]:
    """In memory, where there is such a file system: a kill -9 of a process loses nothing there either, and Mosquitto
    writes its whole database after every packet."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield None
        return
    with TemporaryDirectory(dir=memory, prefix="mbframework-test-") as folder:
        yield Path(folder)


def test_outages_among_50_000_messages(quick_folder: Path | None, tmp_path: Path) -> None:
    """Kills, a freeze, a cut line, a restart of a Mosquitto that writes what it has: with ``confirm`` nothing is lost,
    and the order is kept."""
    require_mqtt()
    chance = random.Random()
    with (
        MosquittoServer(_WRITES, data=quick_folder) as server,
        TcpLine(server.port) as line,
        Listening(server.port, "kept/") as listening,
    ):
        url = f"mqtt://127.0.0.1:{line.port}?prefix=kept/&timeout=1s&window=100&confirm=true"
        with MessageBuffer(
            tmp_path / "b",
            url,
            mode="buffer",
            batch_messages=500,
            retry_wait=0.05,
            retry_wait_max=0.2,
            catch_up="full",
        ) as buffer:
            for first in range(0, _COUNT, _PART):
                buffer.write_many("orders", [b"%d" % number for number in range(first, first + _PART)])
            outages: tuple[tuple[Callable[[], object], Callable[[], object], bool], ...] = (
                (server.kill, server.start, False),
                (server.freeze, server.thaw, True),
                (server.kill, server.start, True),
                (line.cut, line.mend, True),
                (server.kill, server.start, False),
                (server.shut_down, server.start, True),
                (server.kill, server.start, False),
            )
            for number, (end, mend, noticed) in enumerate(outages):
                _delivers(buffer, 6_000 * number + chance.randrange(1_000, 5_000))
                end()
                if noticed:
                    _wait(lambda: buffer.status().failures)
                mend()
            buffer.flush(300)
            status = buffer.status()
            assert (status.delivered, status.lost, status.pruned) == (_COUNT, 0, 0)
        _wait(lambda: listening.values and listening.values[-1] == _COUNT - 1)
    assert list(dict.fromkeys(listening.values)) == list(range(_COUNT))


@pytest.mark.skipif(not LONG, reason="takes long; MBFRAMEWORK_TEST_KIT=long runs it")
def test_what_a_broker_acknowledged_before_it_wrote(
    mqtt_control: MosquittoServer, mqtt_prefix: str, tmp_path: Path
) -> None:
    """A restart, a freeze, a cut line: nothing is lost. A kill -9: nothing that was not acknowledged before. The order
    is kept, and at most a window each is repeated."""
    server = mqtt_control
    with TcpLine(server.port) as line, Subscriber(server.port, mqtt_prefix, bare=True) as subscriber:
        url = f"mqtt://writer:hush-hush@127.0.0.1:{line.port}?prefix={mqtt_prefix}&timeout=500ms&window={_WINDOW}"
        with MessageBuffer(
            tmp_path / "b",
            f"{url}&subscribers=required",
            mode="buffer",
            batch_messages=_PART,
            retry_wait=0.05,
            retry_wait_max=0.2,
            catch_up="full",
        ) as buffer:
            for part in range(_COUNT // _PART):
                buffer.write_many("orders", [b"%d" % n for n in range(part * _PART, (part + 1) * _PART)])
                if part == 5:
                    fetched = len(subscriber.read())
                    server.kill()
                    # The first of them has told what of its batch was acknowledged.
                    _wait(lambda: buffer.status().failures > 1)
                    acknowledged = buffer.status().delivered
                elif part == 8:
                    server.start()
                    # Nothing was sent meanwhile: the broker has forgotten who is subscribed.
                    subscriber.subscribe()
                elif part == 15:
                    server.shut_down()
                elif part == 20:
                    server.start()
                elif part == 25:
                    server.freeze()
                elif part == 30:
                    server.thaw()
                elif part == 35:
                    line.cut()
                elif part == 40:
                    line.mend()
                # Time for batches to be under way when the next outage comes.
                threading.Event().wait(0.05)
            buffer.flush(60)
            status = buffer.status()
            assert (status.delivered, status.lost, status.pruned) == (_COUNT, 0, 0)
        found = subscriber.read()
        values = [int(one.content.value or b"") for one in found]
        there = list(dict.fromkeys(values))
        missing = set(range(_COUNT)).difference(there)
        assert there == sorted(there)
        # What the broker forgot is one piece, from what had been fetched to the last acknowledgement.
        assert missing == set(range(acknowledged - len(missing), acknowledged))
        assert fetched <= acknowledged - len(missing)
        # A freeze may fail several times before it ends.
        assert len(values) - len(there) <= 7 * _WINDOW


def _delivers(buffer: MessageBuffer, least: int) -> None:
    _wait(lambda: buffer.status().delivered >= least)


def _wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "the lane does not notice what became of its broker"
        time.sleep(0.01)  # another thread's state can only be looked at


def test_a_lost_connection_is_noticed_and_mended_between_sends(mqtt_server: MosquittoServer, mqtt_prefix: str) -> None:
    with TcpLine(mqtt_server.port) as line, Subscriber(mqtt_server.port, mqtt_prefix) as subscriber:
        provider = opened(f"mqtt://writer:hush-hush@127.0.0.1:{line.port}?prefix={mqtt_prefix}")
        mended_between_sends(provider, line.cut, line.mend, "can be reached: .*refused")
        assert [int(one.content.value or b"") for one in subscriber.read()] == list(range(1, 21))


def test_a_connection_outlives_a_pause(mqtt_server: MosquittoServer, mqtt_prefix: str) -> None:
    """The broker hangs up after one and a half times the keepalive without a word."""
    provider = opened(f"mqtt://writer:hush-hush@127.0.0.1:{mqtt_server.port}?prefix={mqtt_prefix}&keepalive=1s")
    before = provider._link
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        provider.idle()
        time.sleep(0.1)  # as a lane does
    assert provider._link is before
    provider.close(1)


@pytest.mark.parametrize("how", ["stopping", "close"])
def test_a_wait_ends_when_the_buffer_stops_or_closes(
    mqtt_control: MosquittoServer, mqtt_prefix: str, how: str, promised: Callable[[float], float]
) -> None:
    url = f"mqtt://writer:hush-hush@127.0.0.1:{mqtt_control.port}?prefix={mqtt_prefix}&timeout=300s"
    waits_end(url, mqtt_control, how, promised(4))
    mqtt_control.thaw()
