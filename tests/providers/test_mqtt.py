"""The provider ``mqtt`` on a real broker: what becomes of a message, topics and rights, and what is refused how."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mbframework_mqtt.faults import translate
from mbframework_mqtt.message import Content, decode, properties, refusal

from mbframework.errors import ProviderUnusable, SendFailed
from mbframework.message import NO_PARTITION, Header, Message
from mbframework.testing.mqtt import MosquittoServer
from tests.mqtt_fixture import MQTT_LARGEST
from tests.providers.batches import batch_of, make_batch
from tests.providers.certificates import Certificates
from tests.providers.made import New, why_refused
from tests.providers.mqtt_reading import Subscriber, numbers
from tests.providers.provider_pages import documented_examples
from tests.providers.secured import both_sides_are_checked

ONE = Message(1, "orders", b"1", b"key", (), None, None, 1_700_000_000_000_000_000)
IDENTITY = f"{'b' * 32}:main:"


def writer(server: MosquittoServer, query: str) -> str:
    return f"mqtt://writer:hush-hush@127.0.0.1:{server.port}?{query}"


# ---- content

_bytes = st.binary(max_size=40) | st.text(max_size=20).map(str.encode)
_names = st.text(st.characters(exclude_categories=["C"]), max_size=8) | st.sampled_from(["x;base64", "x;null", ";null"])


@given(
    value=st.none() | _bytes,
    key=st.none() | _bytes,
    headers=st.lists(st.tuples(_names, st.none() | _bytes), max_size=4),
    time=st.integers(-(1 << 62), 1 << 62),
    partition=st.just(NO_PARTITION) | st.integers(0, 1 << 31),
)
def test_any_message_comes_back_from_its_properties(
    value: bytes | None, key: bytes | None, headers: list[Header], time: int, partition: int
) -> None:
    found = properties("id", value, key, headers, time, partition)
    assert refusal("t", value, found, headers, 1 << 20) == ""
    told = None if partition == NO_PARTITION else partition
    assert decode(value or b"", found) == Content(value, key, tuple(headers), time, told, "id")


def test_a_broker_takes_whatever_is_not_refused(mqtt_server: MosquittoServer, mqtt_prefix: str, new: New) -> None:
    """What counts as a text here is one for Mosquitto, too, which hangs up where it is none."""
    odd = [chr(code) for code in (*range(0x21), *range(0x7F, 0xA2), 0xFDD0, 0xFFFD, 0xFFFE, 0xFFFF, 0x1F600)]
    odd += [chr(code) for code in (0xFDEF, 0xFDF0, 0x1FFFE, 0x2FFFF, 0x30000, 0x3FFFE, 0xE0100, 0x10FFFF, 0x10FFFD)]
    messages = [
        ONE._replace(
            sequence=n, topic=f"t{text}", headers=((f"n{text}", b"1"), ("v", text.encode())), key=text.encode()
        )
        for n, text in enumerate(odd)
    ]
    with Subscriber(mqtt_server.port, mqtt_prefix) as subscriber:
        provider = new(writer(mqtt_server, f"prefix={mqtt_prefix}"))
        with pytest.raises(SendFailed) as failed:
            provider.send(batch_of(messages))
        assert list(failed.value.undelivered or ()) == []
        rejected = failed.value.rejected
        assert 60 < len(rejected) < len(messages)
        taken = [message for index, message in enumerate(messages) if index not in rejected]
        # The same in the content of a message is no trouble.
        provider.send(
            batch_of([m._replace(sequence=100 + n, topic="x", headers=m.headers[1:]) for n, m in enumerate(messages)])
        )
        found = subscriber.read()
        assert [(one.topic, one.content.headers) for one in found[: len(taken)]] == [
            (m.topic, m.headers) for m in taken
        ]
        assert [one.content.key for one in found[len(taken) :]] == [m.key for m in messages]


def test_a_topic_is_for_ordinary_clients(mqtt_server: MosquittoServer, mqtt_prefix: str, new: New) -> None:
    headers = (("trace", b"4711"), ("raw", b"\xff"), ("none", None))
    found = properties(f"{IDENTITY}7", b"1", b"key", headers, 5, 3)
    assert found == [
        ("mb-id", f"{IDENTITY}7"),
        ("mb-timestamp", "5"),
        ("mb-key", "key"),
        ("mb-partition", "3"),
        ("trace", "4711"),
        ("raw;base64", "/w=="),
        ("none;null", ""),
    ]
    with Subscriber(mqtt_server.port, mqtt_prefix) as subscriber:
        message = ONE._replace(sequence=7, headers=headers, timestamp=5, partition=3)
        new(writer(mqtt_server, f"prefix={mqtt_prefix}")).send(batch_of([message]))
        [one] = subscriber.read()
    assert (one.topic, one.content) == ("orders", Content(b"1", b"key", headers, 5, 3, f"{IDENTITY}7"))


def test_what_mqtt_can_never_take_is_rejected_alone(mqtt_server: MosquittoServer, mqtt_prefix: str, new: New) -> None:
    wrong = [
        ONE._replace(topic="orders/#"),
        ONE._replace(topic="a+b"),
        ONE._replace(topic="t" * 65536),
        ONE._replace(key=b"k" * 65536),
        ONE._replace(headers=(("h", b"\xff" * 50_000),)),
        ONE._replace(headers=(("mb-key", b""),)),
        ONE._replace(value=bytes(MQTT_LARGEST)),
    ]
    with Subscriber(mqtt_server.port, mqtt_prefix) as subscriber:
        provider = new(writer(mqtt_server, f"prefix={mqtt_prefix}"))
        assert MQTT_LARGEST - 2000 < (provider.max_message_bytes or 0) < MQTT_LARGEST
        messages = [message._replace(sequence=n) for n, message in enumerate([ONE, *wrong, ONE], 1)]
        with pytest.raises(SendFailed, match="would not take 7 of 9 messages: its topic has a wildcard") as failed:
            provider.send(batch_of(messages))
        assert list(failed.value.rejected) == list(range(1, 8))
        assert list(failed.value.undelivered or ()) == []
        assert len(subscriber.read()) == 2


def test_retained_messages_and_their_end(mqtt_server: MosquittoServer, mqtt_prefix: str, new: New) -> None:
    provider = new(writer(mqtt_server, f"prefix={mqtt_prefix}&retain=true"))
    messages = [ONE._replace(sequence=n, topic=f"t{n % 2}", value=b"%d" % n) for n in range(1, 5)]
    provider.send(batch_of(messages))
    with Subscriber(mqtt_server.port, mqtt_prefix) as late:
        assert [(one.topic, one.content.value, one.retained) for one in sorted(late.read())] == [
            ("t0", b"4", True),
            ("t1", b"3", True),
        ]
    provider.send(batch_of([ONE._replace(sequence=5, topic="t0", value=None)]))
    with Subscriber(mqtt_server.port, mqtt_prefix) as late:
        assert [one.topic for one in late.read()] == ["t1"]
    provider.send(batch_of([ONE._replace(sequence=6, topic="t1", value=None)]))


# ---- subscribers, rights, limits


def test_a_subscriber_may_be_required(mqtt_server: MosquittoServer, mqtt_prefix: str, new: New) -> None:
    """Those of other topics go on up to the first that nobody hears; nothing is repeated."""
    provider = new(writer(mqtt_server, f"prefix={mqtt_prefix}&subscribers=required"))
    messages = [
        ONE._replace(sequence=n, topic="billing/new" if n in (50, 70) else "orders/new", value=b"%d" % n)
        for n in range(1, 101)
    ]
    with Subscriber(mqtt_server.port, f"{mqtt_prefix}orders/") as orders:
        with pytest.raises(SendFailed, match=f"nobody is subscribed to '{mqtt_prefix}billing/new'") as failed:
            provider.send(batch_of(messages))
        assert (list(failed.value.undelivered or ()), failed.value.uncertain) == (list(range(49, 100)), False)
        for _ in range(2):
            with pytest.raises(ProviderUnusable, match="nobody is subscribed to .*; start a subscriber, or set"):
                provider.send(batch_of(messages[49:]))
        with Subscriber(mqtt_server.port, f"{mqtt_prefix}billing/") as billing:
            provider.send(batch_of(messages[49:]))
            assert numbers(billing) == [50, 70]
        assert numbers(orders) == [n for n in range(1, 101) if n not in (50, 70)]
    with pytest.raises(ProviderUnusable, match="nobody is subscribed"):
        provider.send(make_batch(101, 10))


@pytest.mark.parametrize("qos", ["1", "2"])
def test_a_missing_right_blocks(mqtt_server: MosquittoServer, mqtt_prefix: str, new: New, qos: str) -> None:
    with Subscriber(mqtt_server.port, mqtt_prefix) as subscriber:
        provider = new(writer(mqtt_server, f"prefix=closed/{mqtt_prefix}&qos={qos}"))
        if qos == "2":
            # paho does not tell why; the next attempt finds out.
            with pytest.raises(SendFailed, match="the connection has ended"):
                provider.send(make_batch(1, 10))
        for _ in range(2):
            with pytest.raises(
                ProviderUnusable, match="refused a message to 'closed/.*the right to publish to the topic"
            ):
                provider.send(make_batch(1, 10))
        assert not subscriber.read()


def test_what_only_a_person_can_change_blocks(mqtt_server: MosquittoServer, new: New) -> None:
    place = f"127.0.0.1:{mqtt_server.port}"
    with pytest.raises(ProviderUnusable, match="it refused the connection: Not authorized.*check user name") as refused:
        new(f"mqtt://writer:wrong-one@{place}")
    assert "wrong-one" not in str(refused.value)
    with pytest.raises(ProviderUnusable, match="Not authorized"):
        new(f"mqtt://{place}")


def test_a_broker_with_little_to_offer(new: New) -> None:
    """Its window is kept to; what it does not have is said."""
    with MosquittoServer(["max_inflight_messages 3", "retain_available false"]) as server:
        provider = new(f"{server.url}?prefix=a/")
        assert provider.describe()["window"] == "3 messages"
        with Subscriber(server.port, "a/") as subscriber:
            provider.send(make_batch(1, 200))
            assert numbers(subscriber) == list(range(1, 201))
        with pytest.raises(ProviderUnusable, match="set retain=false"):
            new(f"{server.url}?retain=true", "other")


def test_two_that_share_a_client_id(mqtt_server: MosquittoServer, mqtt_prefix: str, new: New) -> None:
    url = writer(mqtt_server, f"prefix={mqtt_prefix}&client_id={mqtt_prefix[:20]}")
    first = new(url)
    new(url)
    deadline = time.monotonic() + 60
    while first._link.alive():  # type: ignore[attr-defined]
        assert time.monotonic() < deadline, "the broker did not end the older connection"
        time.sleep(0.01)  # the end of a connection takes a moment to arrive


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (142, SendFailed, "is a copy of the buffer's directory in use"),
        (151, SendFailed, "a quota of the broker is used up"),
        (137, SendFailed, "said"),
        (132, ProviderUnusable, "does not speak MQTT 5"),
        (155, ProviderUnusable, "set qos=1"),
        (157, ProviderUnusable, "give the other broker's address"),
    ],
)
def test_reasons_that_this_broker_never_gives(code: int, kind: type[Exception], words: str) -> None:
    told = translate("what it said", code, "host:1883")
    assert type(told) is kind
    assert words in str(told)
    assert str(told).startswith("host:1883: what it said")


def test_who_does_not_answer_as_mqtt(new: New, promised: Callable[[float], float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(SendFailed, match="takes connections, but does not answer"):
            new(f"mqtt://127.0.0.1:{port}?connect_timeout=300ms")
        assert time.monotonic() - began < promised(2)
    with pytest.raises(SendFailed, match=f"127.0.0.1:{port}.*refused"):
        new(f"mqtt://127.0.0.1:{port}")


def test_tls_checks_both_sides(
    mqtt_server: MosquittoServer,
    mqtt_tls_port: int,
    mqtt_prefix: str,
    mqtt_certificates: Certificates,
    new: New,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = f"mqtt://writer:hush-hush@127.0.0.1:{mqtt_tls_port}?prefix={mqtt_prefix}&connect_timeout=60s"
    with Subscriber(mqtt_server.port, mqtt_prefix) as subscriber:
        bare = f"mqtts://127.0.0.1:{mqtt_server.port}?connect_timeout=3s"
        both_sides_are_checked(new, url, mqtt_certificates, caplog, bare=bare)
        assert numbers(subscriber) == list(range(1, 3001))


# ---- options


@pytest.mark.parametrize(
    ("url", "option"),
    [
        ("mqtt:", "hosts"),
        ("mqtt://:secret@h", "username"),
        ("mqtt://h?prefix=%23/", "prefix"),
        ("mqtt://h?qos=0", "qos"),
        ("mqtt://h?window=0", "window"),
        ("mqtt://h?subscribers=many", "subscribers"),
        ("mqtt://h?timeout=0s", "timeout"),
        ("mqtt://h?keepalive=0s", "keepalive"),
        ("mqtt://h?tls_ca=/x", "tls_ca"),
        ("mqtt://h?tls=true&tls_ca=/nowhere/ca.pem", "tls_ca"),
        ("mqtt://h?retained=true", "retained"),
    ],
)
def test_a_wrong_url_is_refused(url: str, option: str) -> None:
    why_refused(url, option)


def test_the_documented_example_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with MosquittoServer() as server:
        for example in documented_examples("mqtt"):
            assert "1883" in example
            exec(example.replace("1883", str(server.port)), {})
