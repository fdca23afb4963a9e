"""The provider ``nats`` on a real server: what becomes of a message, streams, and what is refused how."""

from __future__ import annotations

import base64
import itertools
import logging
import socket
import time
from collections.abc import Callable
from pathlib import Path

import nats.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mbframework_nats.entry import Entry, covers, subject, topic_of
from mbframework_nats.faults import Lost, translate
from mbframework_nats.pace import Pace
from nats.js.errors import APIError

from mbframework.errors import ProviderUnusable, SendFailed
from mbframework.message import Message, Position
from mbframework.testing.nats import NatsServer
from tests.examples import examples
from tests.nats_fixture import require_nats
from tests.providers.batches import RUN, any_messages, batch_of, make_batch
from tests.providers.made import New, why_refused
from tests.providers.nats_reading import Plain, entries
from tests.providers.provider_pages import documented_examples

ONE = Message(1, "orders", b"value", b"key", (), None, None, 1_700_000_000_000_000_000)


@pytest.fixture
def stream(nats_server: NatsServer, nats_stream: str) -> str:
    """A stream for ``STREAM.>``."""
    with Plain(nats_server.port) as client:
        client.make(nats_stream)
    return nats_stream


def test_any_message_comes_back_as_it_was(nats_server: NatsServer, stream: str, new: New) -> None:
    numbers = itertools.count()

    @examples(60)
    @given(any_messages)
    def check(messages: list[Message]) -> None:
        prefix = f"{stream}.{next(numbers)}."
        provider = new(f"{nats_server.url}/{stream}?prefix={prefix}", lane=prefix)
        provider.send(batch_of(messages))
        provider.close(1)
        with Plain(nats_server.port) as client:
            found = entries(nats_server.port, stream, prefix)
            client.ask(f"STREAM.PURGE.{stream}")
        assert found == [
            (m.topic, Entry(m.value, m.key, m.headers, m.accepted if m.timestamp is None else m.timestamp, m.partition))
            for m in messages
        ]

    check()


def test_a_message_is_for_ordinary_clients(nats_server: NatsServer, stream: str, new: New) -> None:
    headers = (("trace", b"4711"), ("trace", b"4712"), ("none", None), ("raw", b"\0\r\n"), ("Nats-Rollup", b"all"))
    message = ONE._replace(headers=headers, timestamp=5, partition=3)
    new(f"{nats_server.url}/{stream}?prefix={stream}.").send(batch_of([message]))
    with Plain(nats_server.port) as client:
        [raw] = client.messages(stream)
    assert (raw.subject, raw.data) == (f"{stream}.orders", b"value")
    assert raw.headers.decode().split("\r\n") == [
        "NATS/1.0",
        f"Nats-Msg-Id: {'b' * 32}:main:1",
        f"Nats-Expected-Stream: {stream}",
        f"Mb-Run: {RUN.hex()}",
        "Mb-Timestamp: 5",
        "Mb-Key: key",
        "Mb-Partition: 3",
        "trace: 4711",
        "trace: 4712",
        "Mb-Header: none",
        "Mb-Header: raw=%00%0D%0A",
        "Mb-Header: Nats-Rollup=all",
        "",
        "",
    ]


@given(st.text(min_size=1, max_size=30))
def test_any_topic_has_a_subject_of_its_own(topic: str) -> None:
    made = subject("app.", topic)
    assert topic_of("app.", made) == topic
    assert made.isascii()
    assert made.isprintable()
    assert not set(made) & set(" *>")
    assert all(made.split("."))


@pytest.mark.parametrize(
    ("topic", "made"),
    [
        ("orders.eu", "orders.eu"),
        ("a..b", "a%2E%2Eb"),
        (".", "%2E"),
        ("a.", "a%2E"),
        ("50% *", "50%25%20%2A"),
        ("größe", "gr%C3%B6%C3%9Fe"),
        # A message must never be a command to the server.
        ("$JS.API.STREAM.DELETE.ORDERS", "%24JS.API.STREAM.DELETE.ORDERS"),
    ],
)
def test_subjects(topic: str, made: str) -> None:
    assert subject("", topic) == made


@pytest.mark.parametrize(
    ("pattern", "found", "covered"),
    [
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.*.c", "a.b.c", True),
        ("a", "a", True),
        ("a", "a.b", False),
    ],
)
def test_patterns_of_subjects(pattern: str, found: str, covered: bool) -> None:
    assert covers(pattern, found) is covered


def test_the_pace_slows_down_and_recovers() -> None:
    pace = Pace()
    assert not pace.careful
    found = []
    for happened in "iiiiwwwwwww":
        (pace.interrupted if happened == "i" else pace.well)()
        found.append((pace.messages, pace.careful))
    assert found[3] == (16, True)
    assert found[-2:] == [(1000, False), (1000, False)]


def test_lanes_keep_positions_of_their_own(nats_server: NatsServer, stream: str, new: New) -> None:
    url = f"{nats_server.url}/{stream}?prefix={stream}."
    one, two = new(url, "one"), new(url, "one:two")
    one.send(make_batch(1, 3))
    two.send(make_batch(1, 5))
    assert (one.committed(), two.committed()) == (Position(4, RUN), Position(6, RUN))
    assert new(url, "one").committed() == Position(4, RUN)
    assert new(url, "one:two").committed() == Position(6, RUN)
    assert new(url, "three").committed() is None


# ---- what is missing or too large


def test_a_missing_stream_blocks_unless_it_is_to_be_made(nats_server: NatsServer, nats_stream: str, new: New) -> None:
    url = f"{nats_server.url}/{nats_stream}?prefix={nats_stream}."
    with pytest.raises(ProviderUnusable, match=f"there is no stream '{nats_stream}'; make it .nats stream add."):
        new(url)
    provider = new(f"{url}&create={nats_stream}.>,{nats_stream}-more.>")
    provider.send(make_batch(1, 3))
    with Plain(nats_server.port) as client:
        config = client.ask(f"STREAM.INFO.{nats_stream}")["config"]
    assert (config["subjects"], config["storage"]) == ([f"{nats_stream}.>", f"{nats_stream}-more.>"], "file")
    # One that is there stays as it is.
    new(f"{url}&create=other.>")
    with pytest.raises(ProviderUnusable, match="10065.*another stream has these subjects"):
        new(f"{nats_server.url}/{nats_stream}-2?create={nats_stream}.>")


@pytest.mark.parametrize("elsewhere", [False, True], ids=["nobody's", "another stream's"])
def test_a_subject_that_the_stream_does_not_have_blocks(
    nats_server: NatsServer, stream: str, new: New, elsewhere: bool
) -> None:
    """In the middle of a batch: what is before it is stored, it is not rejected, and nothing passes it."""
    with Plain(nats_server.port) as client:
        client.change(stream, subjects=[f"{stream}.orders"])
        if elsewhere:
            client.make(f"{stream}-2", f"{stream}.billing")
        provider = new(f"{nats_server.url}/{stream}?prefix={stream}.")
        topics = ["orders", "orders", "billing", "billing", "orders"]
        batch = batch_of([ONE._replace(sequence=at, topic=topic) for at, topic in enumerate(topics, 1)])
        words = f"the subject '{stream}.billing' is not one of the stream '{stream}' .{stream}.orders.; add it there"
        with pytest.raises(ProviderUnusable, match=words):
            provider.send(batch)
        assert len(entries(nats_server.port, stream)) == 2
        if elsewhere:
            assert client.messages(f"{stream}-2") == []
            client.ask(f"STREAM.DELETE.{stream}-2")
        client.change(stream, subjects=[f"{stream}.>"])
    provider.send(batch)
    assert [topic for topic, _ in entries(nats_server.port, stream)] == topics


def test_a_message_too_large_for_the_server_is_rejected_alone(nats_server: NatsServer, stream: str, new: New) -> None:
    provider = new(f"{nats_server.url}/{stream}?prefix={stream}.")
    assert provider.max_message_bytes == (1 << 20) - 1024
    large = ONE._replace(sequence=2, value=bytes(1 << 20))
    many = ONE._replace(sequence=3, headers=(("h", b"v" * 70_000),))
    long = ONE._replace(sequence=4, topic="x" * 4000)
    with pytest.raises(SendFailed, match="would not take 3 of 5 messages") as failed:
        provider.send(batch_of([ONE, large, many, long, ONE._replace(sequence=5)]))
    reasons = failed.value.rejected
    assert sorted(reasons) == [1, 2, 3]
    assert ["max_payload" in reasons[1], "headers" in reasons[2], "subject" in reasons[3]] == [True] * 3
    assert failed.value.undelivered is None
    assert entries(nats_server.port, stream) == []
    # What a message may have, it may have in fact.
    provider.send(batch_of([ONE._replace(value=bytes((1 << 20) - 1024 - 9))]))
    assert len(entries(nats_server.port, stream)) == 1


def test_a_message_too_large_for_the_stream_is_rejected_alone(nats_server: NatsServer, stream: str, new: New) -> None:
    """Also where the limit was not yet there when the provider connected."""
    with Plain(nats_server.port) as client:
        client.change(stream, max_msg_size=5000)
        provider = new(f"{nats_server.url}/{stream}?prefix={stream}.")
        assert provider.max_message_bytes == 5000 - 1024
        client.change(stream, max_msg_size=2000)
    batch = batch_of([ONE, ONE._replace(sequence=2, value=bytes(3000)), ONE._replace(sequence=3)])
    with pytest.raises(SendFailed, match="the stream does not take it: message size exceeds") as failed:
        provider.send(batch)
    assert (list(failed.value.rejected), list(failed.value.undelivered or ())) == ([1], [2])
    assert provider.committed() == Position(2, RUN)
    provider.send(batch_of([batch[2]]))
    assert [entry.value for _, entry in entries(nats_server.port, stream)] == [b"value", b"value"]


def test_a_stream_in_memory_is_told(
    nats_server: NatsServer, nats_stream: str, new: New, caplog: pytest.LogCaptureFixture
) -> None:
    with Plain(nats_server.port) as client:
        client.make(nats_stream, storage="memory", retention="workqueue")
    facts = new(f"{nats_server.url}/{nats_stream}").describe()
    assert facts["stream"] == f"{nats_stream}: memory, 1 replica, retention workqueue, duplicates for 120 s"
    assert "is kept in memory: what it acknowledged is gone when its server restarts" in caplog.text


def test_a_work_queue_has_no_position_but_recognises_repeats(
    nats_server: NatsServer, nats_stream: str, new: New
) -> None:
    with Plain(nats_server.port) as client:
        client.make(nats_stream, retention="workqueue")
    url = f"{nats_server.url}/{nats_stream}?prefix={nats_stream}."
    new(url).send(make_batch(1, 10))
    assert new(url).committed() == Position(11, RUN)
    with Plain(nats_server.port) as client:
        client.ask(f"STREAM.PURGE.{nats_stream}")
    again = new(url)
    assert again.committed() is None
    again.send(make_batch(1, 12))
    with Plain(nats_server.port) as client:
        state = client.ask(f"STREAM.INFO.{nats_stream}")["state"]
        stored = [client.ask(f"STREAM.MSG.GET.{nats_stream}", seq=number)["message"] for number in (11, 12)]
    assert (state["first_seq"], state["last_seq"]) == (11, 12)
    assert [base64.b64decode(message["data"]) for message in stored] == [b"11", b"12"]


# ---- servers


def test_who_is_no_server_of_jetstream(new: New, promised: Callable[[float], float]) -> None:
    require_nats()
    with NatsServer(jetstream=False) as server:
        with pytest.raises(ProviderUnusable, match="start the server with -js"):
            new(f"{server.url}/ORDERS")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(SendFailed, match="takes connections, but does not answer"):
            new(f"nats://127.0.0.1:{port}/ORDERS?connect_timeout=300ms")
        assert time.monotonic() - began < promised(2)
    with pytest.raises(SendFailed, match=f"127.0.0.1:{port}: .*(refused|Connect call failed)"):
        new(f"nats://127.0.0.1:{port}/ORDERS")


def test_the_first_host_that_answers_is_used(nats_server: NatsServer, stream: str, new: New) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    new(f"nats://127.0.0.1:{port},127.0.0.1:{nats_server.port}/{stream}?prefix={stream}.").send(make_batch(1, 3))
    assert len(entries(nats_server.port, stream)) == 3


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (APIError(503, "insufficient storage resources available", 10047), SendFailed, "storage is used up"),
        (APIError(503, "JetStream system temporarily unavailable", 10008), SendFailed, "no leader"),
        (APIError(503, "JetStream not enabled for account", 10039), ProviderUnusable, "not enabled for this account"),
        (APIError(400, "what nobody\x1b has thought of", 10999), SendFailed, "thought of (10999)"),
        (nats.errors.Error("nats: 'Authorization Violation'"), ProviderUnusable, "nkey or credentials"),
        (Lost("the connection has ended (user authentication expired)"), ProviderUnusable, "expired"),
        (OSError(113, "No route to host"), SendFailed, "No route to host"),
    ],
)
def test_errors_that_are_hard_to_provoke(error: Exception, kind: type[Exception], words: str) -> None:
    told = translate(error, "host:4222")
    assert type(told) is kind
    assert words in str(told)
    assert str(told).startswith("host:4222: ")
    assert "\x1b" not in str(told)


# ---- options


@pytest.mark.parametrize(
    ("url", "option"),
    [
        ("nats:", "hosts"),
        ("nats://h", "path"),
        ("nats://h/", "path"),
        ("nats://h/a.b", "path"),
        ("nats://h/a/b", "path"),
        ("nats://user@h/S", "password"),
        ("nats://u:p@h/S?token=t", "token"),
        ("nats://h/S?nkey=SUAX", "nkey"),
        ("nats://h/S?credentials=/nowhere/user.creds", "credentials"),
        ("nats://h/S?prefix=a*", "prefix"),
        ("nats://h/S?prefix=$JS.API.", "prefix"),
        ("nats://h/S?prefix=a..b", "prefix"),
        ("nats://h/S?look_back=-1", "look_back"),
        ("nats://h/S?timeout=0s", "timeout"),
        ("nats://h/S?tls_ca=/x", "tls_ca"),
        ("nats://h/S?tls=true&tls_ca=/nowhere/ca.pem", "tls_ca"),
        ("nats://h/S?creat=a", "creat"),
    ],
)
def test_a_wrong_url_is_refused(url: str, option: str) -> None:
    assert "SUAX" not in why_refused(url, option)


def test_the_documented_example_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_nats()
    monkeypatch.chdir(tmp_path)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    with NatsServer() as server:
        for example in documented_examples("nats"):
            exec(example.replace("4222", str(server.port)), {})
