"""The provider ``rabbitmq`` in a real buffer, with a real broker that is killed and frozen: at least once, in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mbframework_rabbitmq.provider import RabbitProvider

from mbframework.errors import ProviderUnusable, SendFailed
from mbframework.testing.rabbitmq import RabbitServer
from tests.providers import exactly_once
from tests.providers.batches import make_batch
from tests.providers.connections import mended_between_sends, waits_end
from tests.providers.made import opened
from tests.providers.rabbitmq_reading import channel, drain, make_queue, numbers
from tests.providers.tcp_line import TcpLine


def test_outages_among_50_000_messages(rabbitmq_control: RabbitServer, rabbitmq_prefix: str, tmp_path: Path) -> None:
    """Two kill -9 and a freeze: nothing is lost, the order is kept, and at most a batch each is repeated."""
    queue = f"{rabbitmq_prefix}orders"
    make_queue(rabbitmq_control.port, queue)
    url = f"{rabbitmq_control.url}?prefix={rabbitmq_prefix}&timeout=60s&connect_timeout=60s"
    exactly_once.outages_among_50_000(tmp_path / "b", url, rabbitmq_control)
    [taken] = drain(rabbitmq_control.port, queue, timeout=30)
    found = [int(body) for _, body in taken]
    assert list(dict.fromkeys(found)) == list(range(50_000))
    assert len(found) - 50_000 <= 3 * 1000
    # Copies are told by their ids.
    assert len({properties.message_id for properties, _ in taken}) == 50_000


def test_a_broker_without_room_is_waited_for(rabbitmq_prefix: str) -> None:
    """It says so to whoever publishes, and reads nothing more."""
    with RabbitServer({"vm_memory_high_watermark.absolute": "1MB"}) as server:
        queue = f"{rabbitmq_prefix}orders"
        make_queue(server.port, queue)
        provider = opened(f"{server.url}?prefix={rabbitmq_prefix}&timeout=500ms")
        for _ in range(2):
            with pytest.raises(SendFailed, match="did not acknowledge .* at present: low on memory") as failed:
                provider.send(make_batch(1, 1000))
            assert failed.value.uncertain
            assert list(failed.value.undelivered or ()) == list(range(1000))
        provider.close(1)


def test_a_lost_connection_is_noticed_and_mended_between_sends(
    rabbitmq_server: RabbitServer, rabbitmq_prefix: str
) -> None:
    queue = f"{rabbitmq_prefix}orders"
    make_queue(rabbitmq_server.port, queue)
    with TcpLine(rabbitmq_server.port) as line:
        provider = opened(f"rabbitmq://mb:mb@127.0.0.1:{line.port}?prefix={rabbitmq_prefix}")
        mended_between_sends(provider, line.cut, line.mend)
    assert numbers(rabbitmq_server.port, queue) == list(range(1, 21))


def test_a_connection_outlives_a_pause(rabbitmq_server: RabbitServer, rabbitmq_prefix: str) -> None:
    """The broker hangs up where no heartbeat comes for two intervals."""
    queue = f"{rabbitmq_prefix}orders"
    make_queue(rabbitmq_server.port, queue)
    provider = opened(f"{rabbitmq_server.url}?prefix={rabbitmq_prefix}&heartbeat=1s")
    assert isinstance(provider, RabbitProvider)
    provider.send(make_batch(1, 10))
    before = provider._link
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        provider.idle()
        time.sleep(0.1)  # as a lane does
    assert provider._link is before
    provider.send(make_batch(11, 10))
    provider.close(1)


def test_a_batch_that_is_cut_tells_what_is_there(rabbitmq_server: RabbitServer, rabbitmq_prefix: str) -> None:
    queue = f"{rabbitmq_prefix}orders"
    make_queue(rabbitmq_server.port, queue)
    with TcpLine(rabbitmq_server.port) as line:
        provider = opened(f"rabbitmq://mb:mb@127.0.0.1:{line.port}?prefix={rabbitmq_prefix}")
        provider.send(make_batch(1, 10))
        delivered = 10
        cutter = threading.Timer(0.1, line.cut)
        cutter.start()
        with pytest.raises(SendFailed) as failed:
            while True:
                provider.send(make_batch(delivered + 1, 5000))
                delivered += 5000
        cutter.join()
        provider.close(1)
    left = list(failed.value.undelivered or ())
    assert left == list(range(5000 - len(left), 5000))
    delivered += 5000 - len(left)
    # What was confirmed is there; behind it there may be more, in order.
    found = numbers(rabbitmq_server.port, queue)
    assert found == list(range(1, len(found) + 1))
    assert len(found) >= delivered


@pytest.mark.parametrize("how", ["stopping", "close"])
def test_a_wait_ends_when_the_buffer_stops_or_closes(
    rabbitmq_control: RabbitServer, rabbitmq_prefix: str, how: str, promised: Callable[[float], float]
) -> None:
    make_queue(rabbitmq_control.port, f"{rabbitmq_prefix}orders")
    waits_end(f"{rabbitmq_control.url}?prefix={rabbitmq_prefix}&timeout=300s", rabbitmq_control, how, promised(4))
    rabbitmq_control.thaw()


def test_a_queue_that_somebody_keeps_to_himself_blocks(rabbitmq_server: RabbitServer, rabbitmq_prefix: str) -> None:
    """Another connection has it for itself alone."""
    queue = f"{rabbitmq_prefix}orders"
    with channel(rabbitmq_server.port) as holder:
        holder.queue_declare(queue, exclusive=True)
        provider = opened(f"{rabbitmq_server.url}?prefix={rabbitmq_prefix}&declare=classic")
        with pytest.raises(ProviderUnusable, match="405 RESOURCE_LOCKED.*another program uses the queue"):
            provider.send(make_batch(1, 3))
        provider.close(1)
