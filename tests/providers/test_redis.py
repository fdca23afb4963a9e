"""The provider ``redis`` on a real server: what becomes of a message, places and rights, and what is refused how."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis.exceptions
from hypothesis import given
from mbframework_redis.entry import MOST_HEADERS, Entry
from mbframework_redis.faults import translate

from mbframework.errors import ProviderUnusable, SendFailed
from mbframework.message import Message, Position
from mbframework.testing.redis import RedisServer
from tests.examples import examples
from tests.providers.batches import RUN, any_messages, batch_of, make_batch
from tests.providers.certificates import Certificates, make_certificates
from tests.providers.made import New, why_refused
from tests.providers.provider_pages import documented_examples
from tests.providers.redis_reading import client, entries
from tests.providers.secured import both_sides_are_checked

ONE = Message(1, "orders", b"value", b"key", (), None, None, 1_700_000_000_000_000_000)


def test_any_message_comes_back_as_it_was(redis_server: RedisServer, redis_prefix: str, new: New) -> None:
    numbers = itertools.count()

    @examples(60)
    @given(any_messages)
    def check(messages: list[Message]) -> None:
        prefix = f"{redis_prefix}{next(numbers)}:"
        provider = new(f"{redis_server.url}?prefix={prefix}")
        provider.send(batch_of(messages))
        for topic in {message.topic for message in messages}:
            assert entries(redis_server.port, prefix + topic) == [
                Entry(m.value, m.key, m.headers, m.accepted if m.timestamp is None else m.timestamp, m.partition)
                for m in messages
                if m.topic == topic
            ]
        provider.close(1)

    check()


def test_a_stream_is_for_ordinary_clients(redis_server: RedisServer, redis_prefix: str, new: New) -> None:
    message = ONE._replace(headers=(("trace", b"4711"),), timestamp=5, partition=3)
    new(f"{redis_server.url}?prefix={redis_prefix}").send(batch_of([message]))
    with closing(redis.Redis(port=redis_server.port)) as reader:
        [(_, fields)] = reader.xrange(f"{redis_prefix}orders")
    assert fields == {
        b"value": b"value",
        b"key": b"key",
        b"timestamp": b"5",
        b"partition": b"3",
        b"header:trace": b"4711",
    }


def test_lanes_keep_positions_of_their_own(redis_server: RedisServer, redis_prefix: str, new: New) -> None:
    url = f"{redis_server.url}?prefix={redis_prefix}"
    one, two = new(url, "one"), new(url, "two")
    one.send(make_batch(1, 3))
    two.send(make_batch(1, 5))
    assert (one.committed(), two.committed()) == (Position(4, RUN), Position(6, RUN))
    assert new(url, "one").committed() == Position(4, RUN)
    assert new(url, "three").committed() is None


@pytest.mark.parametrize(("query", "most"), [("maxlen=100", 500), ("maxlen=100&maxlen_exact=true", 100)])
def test_streams_are_kept_short(redis_server: RedisServer, redis_prefix: str, new: New, query: str, most: int) -> None:
    new(f"{redis_server.url}?prefix={redis_prefix}&{query}").send(make_batch(1, 3000))
    found = [int(entry.value or b"") for entry in entries(redis_server.port, f"{redis_prefix}orders")]
    assert 100 <= len(found) <= most
    assert found == list(range(3001 - len(found), 3001))


def test_databases_and_sockets(redis_server: RedisServer, redis_prefix: str, new: New) -> None:
    new(f"{redis_server.url}/3?prefix={redis_prefix}").send(make_batch(1, 1))
    new(f"redis://{redis_server.unix_socket}?db=4&prefix={redis_prefix}").send(make_batch(1, 2))
    new(f"redis://{redis_server.unix_socket}?prefix={redis_prefix}").send(make_batch(1, 3))
    found = [len(entries(redis_server.port, f"{redis_prefix}orders", db=db)) for db in (3, 4, 0)]
    assert found == [1, 2, 3]
    with pytest.raises(ProviderUnusable, match="DB index is out of range; give the number"):
        new(f"{redis_server.url}/99")


def test_a_message_too_large_for_the_server_is_rejected_alone(
    redis_server: RedisServer, redis_prefix: str, new: New
) -> None:
    with closing(client(redis_server.port)) as reader:
        before = reader.config_get("proto-max-bulk-len")["proto-max-bulk-len"]
        reader.config_set("proto-max-bulk-len", 1 << 20)
        try:
            provider = new(f"{redis_server.url}?prefix={redis_prefix}")
            assert provider.max_message_bytes == (1 << 20) - 4096
            large = ONE._replace(sequence=2, value=bytes(1 << 20))
            many = ONE._replace(sequence=3, headers=(("h", b""),) * (MOST_HEADERS + 1))
            with pytest.raises(SendFailed, match="would not take 2 of 4 messages") as failed:
                provider.send(batch_of([ONE, large, many, ONE._replace(sequence=4)]))
            assert sorted(failed.value.rejected) == [1, 2]
            assert "proto-max-bulk-len" in failed.value.rejected[1]
            assert failed.value.undelivered is None
            assert entries(redis_server.port, f"{redis_prefix}orders") == []
            most = ONE._replace(sequence=3, headers=(("h", b""),) * MOST_HEADERS)
            provider.send(batch_of([ONE, most, ONE._replace(sequence=4)]))
            assert len(entries(redis_server.port, f"{redis_prefix}orders")) == 3
        finally:
            reader.config_set("proto-max-bulk-len", before)


def test_a_key_of_another_type_blocks_and_nothing_of_the_batch_is_stored(
    redis_server: RedisServer, redis_prefix: str, new: New
) -> None:
    with closing(client(redis_server.port)) as reader:
        reader.set(f"{redis_prefix}billing", "in use")
        provider = new(f"{redis_server.url}?prefix={redis_prefix}")
        batch = batch_of([ONE, ONE._replace(sequence=2, topic="billing")])
        with pytest.raises(ProviderUnusable, match="billing is a string; .*set another prefix"):
            provider.send(batch)
        assert entries(redis_server.port, f"{redis_prefix}orders") == []
        reader.delete(f"{redis_prefix}billing")
    provider.send(batch)
    assert len(entries(redis_server.port, f"{redis_prefix}orders")) == 1


def test_what_only_a_person_can_change_blocks(redis_server: RedisServer, redis_prefix: str, new: New) -> None:
    place = f"127.0.0.1:{redis_server.port}"
    with closing(client(redis_server.port)) as reader:
        reader.acl_setuser(
            "writer", enabled=True, passwords=["+secret"], keys=[f"{redis_prefix}*"],
            commands=["-@all", "+evalsha", "+script|load", "+get", "+set", "+type", "+xadd"],
        )  # fmt: skip
        reader.acl_setuser("reader", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@read"])
        try:
            # The rights that the documentation names suffice.
            provider = new(f"redis://writer:secret@{place}?prefix={redis_prefix}")
            provider.send(make_batch(1, 10))
            assert provider.describe()["server"] == "unknown, unknown"
            assert provider.destination() == ""
            with pytest.raises(ProviderUnusable, match="NOPERM.*; grant "):
                new(f"redis://writer:secret@{place}?prefix=elsewhere:")
            with pytest.raises(ProviderUnusable, match="NOPERM.*; grant "):
                new(f"redis://reader:secret@{place}?prefix={redis_prefix}")
            with pytest.raises(ProviderUnusable, match="WRONGPASS: .*; check user name and password") as refused:
                new(f"redis://writer:wrong-one@{place}")
            assert "wrong-one" not in str(refused.value)
        finally:
            reader.acl_deluser("writer", "reader")


def test_a_server_with_a_password(redis_prefix: str, new: New) -> None:
    with RedisServer("--requirepass", "pass:w/rd") as server:
        new(f"redis://:pass%3Aw%2Frd@127.0.0.1:{server.port}").send(make_batch(1, 1))
        with pytest.raises(ProviderUnusable, match="(?i)authentication required.*; "):
            new(server.url)


def test_a_script_that_was_thrown_away_is_loaded_again(redis_server: RedisServer, redis_prefix: str, new: New) -> None:
    provider = new(f"{redis_server.url}?prefix={redis_prefix}")
    with closing(client(redis_server.port)) as reader:
        reader.script_flush()
    with pytest.raises(SendFailed) as failed:
        provider.send(make_batch(1, 2000))
    assert not failed.value.uncertain
    provider.send(make_batch(1, 2000))
    assert len(entries(redis_server.port, f"{redis_prefix}orders")) == 2000


def test_in_a_cluster_the_keys_share_a_slot(redis_prefix: str, new: New) -> None:
    cluster = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
    with RedisServer(*cluster) as one, RedisServer(*cluster) as two:
        first, second = client(one.port), client(two.port)
        first.execute_command("CLUSTER ADDSLOTSRANGE", 0, 8191)
        second.execute_command("CLUSTER ADDSLOTSRANGE", 8192, 16383)
        first.execute_command("CLUSTER MEET", "127.0.0.1", two.port)
        deadline = time.monotonic() + 60
        while any(node.execute_command("CLUSTER INFO")["cluster_state"] != "ok" for node in (first, second)):
            assert time.monotonic() < deadline, "the nodes do not meet"
            time.sleep(0.05)  # a cluster cannot be awaited
        for tag in ("mb", "other"):
            slot = int(first.execute_command("CLUSTER KEYSLOT", tag))
            here, elsewhere = (one, two) if slot < 8192 else (two, one)
            provider = new(f"{here.url}?prefix={{{tag}}}:")
            provider.send(batch_of([ONE, ONE._replace(sequence=2, topic="billing")]))
            with pytest.raises(ProviderUnusable, match=f"MOVED: .*{here.port}.*; this is a node of a cluster"):
                new(f"{elsewhere.url}?prefix={{{tag}}}:")
        first.close()
        second.close()


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (redis.exceptions.BusyLoadingError("Redis is loading the dataset in memory"), SendFailed, "after a start"),
        (redis.exceptions.ResponseError("MISCONF Redis is configured to save"), SendFailed, "room on its device"),
        (redis.exceptions.ResponseError("NOREPLICAS Not enough good replicas"), SendFailed, "min-replicas-to-write"),
        (redis.exceptions.ResponseError("BUSY Redis is busy running a script."), SendFailed, "SCRIPT KILL"),
        (redis.exceptions.ClusterDownError("The cluster is down"), SendFailed, "slots"),
        (redis.exceptions.TryAgainError("Multiple keys request during rehashing"), SendFailed, "moving"),
        (redis.exceptions.ClusterCrossSlotError("Keys in request"), ProviderUnusable, "hash tag"),
        (redis.exceptions.ResponseError("ERR what nobody has thought of"), SendFailed, "thought of"),
    ],
)
def test_errors_that_are_hard_to_provoke(error: redis.RedisError, kind: type[Exception], words: str) -> None:
    told = translate(error, "host:6379")
    assert type(told) is kind
    assert words in str(told)
    assert str(told).startswith("host:6379: ")


def test_who_does_not_answer_as_redis(new: New, promised: Callable[[float], float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(SendFailed, match="takes connections, but does not answer"):
            new(f"redis://127.0.0.1:{port}?connect_timeout=300ms")
        assert time.monotonic() - began < promised(2)
    with pytest.raises(SendFailed, match=f"127.0.0.1:{port}.*refused"):
        new(f"redis://127.0.0.1:{port}")


# ---- TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def redis_tls(redis_server: RedisServer, certificates: Certificates) -> Iterator[int]:
    """The port of a Redis that asks for a client's certificate."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    names = ("--tls-port", str(port), "--tls-cert-file", str(certificates.server))
    names += ("--tls-key-file", str(certificates.server_key), "--tls-ca-cert-file", str(certificates.authority))
    with RedisServer(*names):
        yield port


def test_tls_checks_both_sides(
    redis_server: RedisServer,
    redis_tls: int,
    redis_prefix: str,
    certificates: Certificates,
    new: New,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # A Redis without TLS waits for more, and does not say that it understands nothing.
    bare = f"rediss://127.0.0.1:{redis_server.port}?connect_timeout=300ms"
    url = f"redis://127.0.0.1:{redis_tls}?prefix={redis_prefix}"
    both_sides_are_checked(new, url, certificates, caplog, bare=bare)


# ---- options


@pytest.mark.parametrize(
    ("url", "option"),
    [
        ("redis:", "hosts"),
        ("redis:file", "hosts"),
        ("redis://h/one", "path"),
        ("redis://h/1?db=1", "db"),
        ("redis:///run/redis.sock?db=-1", "db"),
        ("redis://user@h", "password"),
        ("redis://h?maxlen=-1", "maxlen"),
        ("redis://h?timeout=0s", "timeout"),
        ("redis://h?tls_ca=/x", "tls_ca"),
        ("redis:///run/redis.sock?tls=true", "tls"),
        ("redis://h?tls=true&tls_ca=/nowhere/ca.pem", "tls_ca"),
        ("redis://h?max_len=3", "max_len"),
    ],
)
def test_a_wrong_url_is_refused(url: str, option: str) -> None:
    why_refused(url, option)


def test_the_documented_example_works(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for example in documented_examples("redis"):
        exec(example.replace("6379", str(redis_server.port)), {})
