"""The provider ``redis`` in a real buffer, with a real server: exactly once, whatever is killed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from mbframework import MessageBuffer, read_status
from mbframework.cli import main
from mbframework.errors import ProviderUnusable, SendFailed
from mbframework.message import Position
from mbframework.monitor import Monitor
from mbframework.plugins.source import resolve
from mbframework.provider import Provider
from mbframework.testing.redis import RedisServer
from tests.providers import exactly_once, made
from tests.providers.batches import RUN, batch_of, context, make_batch
from tests.providers.connections import mended_between_sends, waits_end
from tests.providers.redis_reading import client, entries
from tests.redis_fixture import require_redis


def opened(server: RedisServer, query: str) -> Provider:
    return made.opened(f"{server.url}?{query}")


def numbers(server: RedisServer, prefix: str) -> list[int]:
    return [int((entry.value or b"").rstrip(b".")) for entry in entries(server.port, f"{prefix}orders")]


def test_outages_among_50_000_messages(redis_control: RedisServer, redis_prefix: str, tmp_path: Path) -> None:
    url = f"{redis_control.url}?prefix={redis_prefix}&timeout=500ms"
    exactly_once.outages_among_50_000(tmp_path / "b", url, redis_control)
    assert numbers(redis_control, redis_prefix) == list(range(50_000))


def test_a_position_ahead_of_the_seek_wins(redis_server: RedisServer, redis_prefix: str, tmp_path: Path) -> None:
    url = f"{redis_server.url}?prefix={redis_prefix}"
    count = exactly_once.kills_between_commit_and_seek(tmp_path / "b", url, 6)
    assert numbers(redis_server, redis_prefix) == list(range(count))


def test_writers_and_server_are_killed(redis_control: RedisServer, redis_prefix: str, tmp_path: Path) -> None:
    url = f"{redis_control.url}?prefix={redis_prefix}"
    accepted = exactly_once.kills_of_writers(tmp_path / "b", url, 4, redis_control.restart)
    found = numbers(redis_control, redis_prefix)
    assert found == sorted(set(found))
    assert set(accepted) <= set(found)


def test_an_attempt_without_an_answer_is_stored_once(redis_control: RedisServer, redis_prefix: str) -> None:
    """The server has the batch in its socket and has not read it; it comes again, cut otherwise."""
    provider = opened(redis_control, f"prefix={redis_prefix}&timeout=300ms&connect_timeout=300ms")
    provider.send(make_batch(1, 10))
    redis_control.freeze()
    with pytest.raises(SendFailed, match="does not answer") as failed:
        provider.send(make_batch(11, 2500))
    assert failed.value.uncertain
    assert list(failed.value.undelivered or ()) == list(range(2500))
    # A server that has answered before has another trouble than TLS.
    with pytest.raises(SendFailed, match="cannot be reached: .* does not answer$"):
        provider.idle()
    redis_control.thaw()
    for first in range(11, 2511, 100):
        provider.send(make_batch(first, 100))
    provider.send(make_batch(2511, 10))
    assert numbers(redis_control, redis_prefix) == list(range(1, 2521))
    assert provider.committed() == Position(2521, RUN)
    provider.close(1)


def test_a_batch_that_fails_in_its_middle_tells_how_far_it_came(redis_control: RedisServer, redis_prefix: str) -> None:
    """The first parts fit into Redis' memory, a later one does not."""
    reader = client(redis_control.port)
    provider = opened(redis_control, f"prefix={redis_prefix}")
    reader.config_set("maxmemory", reader.info("memory")["used_memory"] + (6 << 20))
    try:
        with pytest.raises(SendFailed, match="raise its maxmemory") as failed:
            provider.send(make_batch(1, 20_000, size=1000))
        left = list(failed.value.undelivered or ())
        assert not failed.value.uncertain
        stored = numbers(redis_control, redis_prefix)
        assert 0 < len(stored) < 20_000
        assert left == list(range(len(stored), 20_000))
        assert stored == list(range(1, len(stored) + 1))
    finally:
        reader.config_set("maxmemory", 0)
        reader.close()
    messages = make_batch(1, 20_000, size=1000)
    provider.send(batch_of([messages[index] for index in left]))
    assert numbers(redis_control, redis_prefix) == list(range(1, 20_001))
    provider.close(1)


def test_another_program_on_the_same_lane_is_told(redis_server: RedisServer, redis_prefix: str) -> None:
    one, two = (opened(redis_server, f"prefix={redis_prefix}") for _ in range(2))
    one.send(make_batch(1, 10))
    with pytest.raises(ProviderUnusable, match="up to sequence 10, this one is at 1: a copy"):
        two.send(make_batch(1, 5))
    two.close(1)
    one.send(make_batch(11, 10))
    one.close(1)
    assert numbers(redis_server, redis_prefix) == list(range(1, 21))


def test_a_server_that_lost_what_it_had_goes_on(
    redis_server: RedisServer, redis_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    provider = opened(redis_server, f"prefix={redis_prefix}")
    provider.send(make_batch(1, 10))
    reader = client(redis_server.port)
    for key in reader.scan_iter(f"{redis_prefix}*"):
        reader.delete(key)
    reader.close()
    provider.send(make_batch(11, 10))
    assert numbers(redis_server, redis_prefix) == list(range(11, 21))
    assert (
        "redis has lost what it had acknowledged: its position of this lane went back from sequence 11 to 0"
        in caplog.text
    )
    provider.close(1)


def test_a_server_that_forgot_is_told_from_the_directory(redis_prefix: str, tmp_path: Path) -> None:
    """A Redis that keeps nothing is killed, while the buffer is open, and while it is not."""
    require_redis()
    directory = tmp_path / "b"
    with RedisServer("--appendonly", "no") as server:
        url = f"{server.url}?prefix={redis_prefix}"
        with MessageBuffer(directory, url, retry_wait=0.05, retry_wait_max=0.1) as buffer:
            buffer.write_many("orders", [b"1"] * 100)
            buffer.flush(60)
            server.restart()
            buffer.write_many("orders", [b"2"] * 50)
            buffer.flush(60)
            assert (buffer.status().delivered, buffer.status().acknowledged_lost) == (150, 100)
            assert "went back from sequence 101 to 0; up to 100 delivered" in (buffer.status().last_error or "")
        server.restart()
        with MessageBuffer(directory, url, retry_wait=0.05, retry_wait_max=0.1) as buffer:
            buffer.write("orders", b"3")
            buffer.flush(60)
        [lane] = read_status(directory).lanes
        assert (lane.delivered, lane.lost, lane.acknowledged_lost, lane.balanced) == (151, 0, 150, True)
        assert len(entries(server.port, f"{redis_prefix}orders")) == 1
    with closing(Monitor(directory)) as monitor:
        told = [event for event in monitor.events("main") if event.kind == "acknowledged-lost"]
    assert [(event.level, event.facts["before"], event.facts["after"], event.facts["messages"]) for event in told] == [
        ("error", 101, 0, 100),
        ("error", 151, 0, 50),
    ]
    assert all("look at how the server keeps its data" in event.text for event in told)
    shown = CliRunner().invoke(main, ["status", str(directory)]).stdout
    assert "LOST 150 messages: 150 acknowledged, and lost by the destination (at most; mb tail tells how)" in shown
    checked = CliRunner().invoke(main, ["check", str(directory)])
    assert checked.exit_code == 1
    assert "up to 150 messages acknowledged, and lost by the destination within 1d" in checked.stdout


def test_a_fork_while_the_client_is_imported_is_quiet(
    redis_server: RedisServer, redis_prefix: str, tmp_path: Path
) -> None:
    forking = (
        "import os, sys\n"
        "from mbframework import MessageBuffer\n"
        "buffer = MessageBuffer(sys.argv[1], sys.argv[2])\n"
        "buffer.write('orders', 'm')\n"
        "if os.fork() == 0:\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "buffer.flush(timeout=60)\n"
    )
    url = f"{redis_server.url}?prefix={redis_prefix}"
    command = [sys.executable, "-c", forking, str(tmp_path / "b"), url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_lost_connection_is_noticed_and_mended_between_sends(redis_control: RedisServer, redis_prefix: str) -> None:
    provider = opened(redis_control, f"prefix={redis_prefix}")
    mended_between_sends(provider, redis_control.kill, redis_control.restart)
    assert numbers(redis_control, redis_prefix) == list(range(1, 21))


@pytest.mark.parametrize("how", ["stopping", "close"])
def test_a_wait_ends_when_the_buffer_stops_or_closes(
    redis_control: RedisServer, redis_prefix: str, how: str, promised: Callable[[float], float]
) -> None:
    waits_end(f"{redis_control.url}?prefix={redis_prefix}&timeout=300s", redis_control, how, promised(4))
    redis_control.thaw()


def test_replicas_must_have_it(redis_prefix: str) -> None:
    """Where the replica does not answer the batch has failed, and is there only once in the end."""
    with RedisServer() as primary, RedisServer("--replicaof", "127.0.0.1", str(primary.port)) as replica:
        reader = client(replica.port)
        deadline = time.monotonic() + 60
        while reader.info("replication")["master_link_status"] != "up":
            assert time.monotonic() < deadline, "the replica does not follow"
            time.sleep(0.05)  # a link cannot be awaited
        provider = opened(primary, f"prefix={redis_prefix}&replicas=1&timeout=500ms")
        provider.send(make_batch(1, 10))
        assert numbers(replica, redis_prefix) == list(range(1, 11))
        replica.freeze()
        for _ in range(2):
            with pytest.raises(SendFailed, match="0 of 1 replicas have the 10 messages") as failed:
                provider.send(make_batch(11, 10))
            assert failed.value.uncertain
        replica.thaw()
        provider.send(make_batch(11, 10))
        assert numbers(replica, redis_prefix) == list(range(1, 21))
        provider.close(1)
        # A replica takes no writes; where the primary is named as well it is found.
        with pytest.raises(SendFailed, match="this is a replica; give the primary"):
            opened(replica, f"prefix={redis_prefix}")
        source = resolve(f"redis://127.0.0.1:{replica.port},127.0.0.1:{primary.port}?prefix={redis_prefix}")
        assert source is not None
        either = source.create(context())
        either.open(context())
        assert either.committed() == Position(21, RUN)
        either.close(1)
        reader.close()
