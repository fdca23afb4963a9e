"""Messages that stay behind, or come again: failures 3, 14 and 15."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from mbframework_fake.broker import FakeBroker
from mbframework_fake.provider import FakeProvider

from mbframework import AsyncMessageBuffer, Context, MessageBuffer, Provider, SenderStuck, Sidecar
from mbframework.config import Config
from mbframework.files import Files
from mbframework.lockfile import is_held
from mbframework.message import Batch
from mbframework.plugins.source import resolve
from tests.known_failures.conftest import FAST, WAIT_S, eventually, numbers, padded

WAYS: dict[str, dict[str, Any]] = {
    "block": {"mode": "block"},
    "raise": {"mode": "raise"},
    "buffer": {"mode": "buffer"},
    "always": {"mode": "always"},
    "lingering": {"mode": "always", "linger": 0.01},
}


@pytest.mark.parametrize("way", WAYS)
def test_03_the_last_message_is_not_stuck_until_the_next_arrives(way: str, tmp_path: Path, broker: FakeBroker) -> None:
    with MessageBuffer(tmp_path / "buffer", FakeProvider(broker), **FAST, **WAYS[way]) as buffer:
        for number in range(1, 101):
            buffer.write("t", str(number))
            broker.wait_for(number, WAIT_S)
    assert numbers(broker) == list(range(1, 101))


@pytest.mark.parametrize("mode", ["buffer", "always"])
def test_03_nor_is_it_after_an_outage(mode: str, tmp_path: Path, broker: FakeBroker) -> None:
    with MessageBuffer(tmp_path / "buffer", FakeProvider(broker), **FAST, mode=mode) as buffer:
        for number in range(1, 21):
            if number % 2:
                broker.fail_next(2)
            buffer.write("t", str(number))
            broker.wait_for(number, WAIT_S)
    assert numbers(broker) == list(range(1, 21))


def test_03_nor_is_it_where_another_process_sends(tmp_path: Path, broker: FakeBroker) -> None:
    with MessageBuffer(tmp_path / "buffer", None, **FAST) as buffer:
        config = Config.layered(directory=str(tmp_path / "buffer"), **FAST)
        source = resolve(FakeProvider(broker))
        assert source is not None
        sidecar = Sidecar(config, source)
        thread = threading.Thread(target=sidecar.run)
        thread.start()
        try:
            for number in range(1, 51):
                buffer.write("t", str(number))
                broker.wait_for(number, WAIT_S)
        finally:
            sidecar.stop()
            thread.join(WAIT_S)
    assert numbers(broker) == list(range(1, 51))


@pytest.mark.parametrize("mode", ["buffer", "always"])
def test_14_the_log_is_not_sent_again_on_restart(mode: str, tmp_path: Path, broker: FakeBroker) -> None:
    # Delivered segments are kept, so that there would be something to send again.
    options = {**FAST, "mode": mode, "segment_size": "64KiB", "retain_delivered": 3600}
    broker.down()
    with MessageBuffer(tmp_path / "buffer", FakeProvider(broker), **options) as buffer:
        buffer.write_many("t", [padded(number, 100) for number in range(20_000)])
        broker.up()
        buffer.flush(WAIT_S)
    assert len(list((tmp_path / "buffer" / "main").glob("P*.seg"))) >= 2

    for start in range(5):
        attempts = broker.attempts
        with MessageBuffer(tmp_path / "buffer", FakeProvider(broker), **options) as buffer:
            assert buffer.status().resident == 0
            buffer.write("t", str(20_000 + start))
            buffer.flush(WAIT_S)
        assert broker.attempts == attempts + 1
    assert numbers(broker) == list(range(20_005))


WRITE_FLUSH_KILL = """
import os, signal, sys
from mbframework import MessageBuffer
buffer = MessageBuffer(sys.argv[1], sys.argv[2], mode=sys.argv[3], segment_size="64KiB", retain_delivered=3600)
for number in range(1000):
    buffer.write("t", str(number))
buffer.flush(60)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("mode", ["buffer", "always"])
def test_14_nor_after_a_kill(mode: str, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    for _ in range(2):
        child = subprocess.run(
            [sys.executable, "-c", WRITE_FLUSH_KILL, str(tmp_path / "buffer"), f"file:{out}", mode],
            check=False,
            timeout=60,
        )
        assert child.returncode == -signal.SIGKILL
    with MessageBuffer(tmp_path / "buffer", f"file:{out}", mode=mode) as buffer:
        buffer.write("t", "last")
        buffer.flush(WAIT_S)
        status = buffer.status()
    # All was acknowledged before each kill, so not even the last batch comes again.
    assert len(out.read_bytes().splitlines()) == status.delivered == status.accepted == 2001
    assert status.lost == 0


@pytest.mark.parametrize("mode", ["buffer", "always"])
def test_15_write_does_not_block_while_the_provider_hangs(mode: str, tmp_path: Path, broker: FakeBroker) -> None:
    broker.stick()
    buffer = MessageBuffer(tmp_path / "buffer", FakeProvider(broker), **FAST, mode=mode, segment_size="1MiB")
    try:
        buffer.write("t", "0")
        broker.wait_until(lambda: broker.stuck == 1, WAIT_S)
        # More than memory may hold (channel_messages), and more than one segment.
        application = threading.Thread(
            target=lambda: [buffer.write("t", str(number).ljust(100)) for number in range(1, 40_000)]
        )
        application.start()
        application.join(WAIT_S)
        assert not application.is_alive()
        assert broker.stuck == 1
        assert broker.count == 0
        assert buffer.status().accepted == 40_000
    finally:
        broker.release()
        buffer.flush(WAIT_S)
        buffer.close()
    assert numbers(broker) == list(range(40_000))


def test_15_nor_does_the_event_loop(tmp_path: Path, broker: FakeBroker) -> None:
    async def program() -> None:
        broker.stick()
        async with AsyncMessageBuffer(tmp_path / "buffer", FakeProvider(broker), **FAST) as buffer:
            try:
                async with asyncio.timeout(WAIT_S):
                    for number in range(20_000):
                        await buffer.write("t", str(number))
                assert broker.count == 0
            finally:
                broker.release()
            await buffer.flush(WAIT_S)

    asyncio.run(program())
    assert numbers(broker) == list(range(20_000))


class NeverOpens(Provider):
    """Its broker takes the connection and says nothing."""

    def __init__(self) -> None:
        self.opening, self.give_up = threading.Event(), threading.Event()

    def open(self, context: Context) -> None:
        self.opening.set()
        self.give_up.wait()

    def send(self, batch: Batch) -> None:
        raise AssertionError("it never opened")


def test_15_nor_does_opening(tmp_path: Path, broker: FakeBroker) -> None:
    provider = NeverOpens()
    try:
        buffer = MessageBuffer(tmp_path / "buffer", provider, **FAST)
        for number in range(1000):
            buffer.write("t", str(number))
        assert provider.opening.wait(WAIT_S)
        assert not provider.give_up.is_set()
        with pytest.raises(SenderStuck):
            buffer.close()
    finally:
        provider.give_up.set()
    eventually(lambda: not is_held(Files(), str(tmp_path / "buffer" / "main" / "sender.lock")), "the lock given back")
    with MessageBuffer(tmp_path / "buffer", FakeProvider(broker), **FAST) as buffer:
        buffer.flush(WAIT_S)
        assert buffer.lane == "main"
    assert numbers(broker) == list(range(1000))
