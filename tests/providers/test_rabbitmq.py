"""The provider ``rabbitmq`` on a real broker: what becomes of a message, queues and rights, and what is refused how."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mbframework_rabbitmq.confirms import Confirms, Fate
from mbframework_rabbitmq.message import Content
from pika.exceptions import ChannelClosedByBroker

from mbframework.errors import ProviderUnusable, SendFailed
from mbframework.message import Message
from mbframework.testing.rabbitmq import RabbitServer
from tests.examples import examples
from tests.providers.batches import any_messages, batch_of, make_batch
from tests.providers.certificates import Certificates
from tests.providers.made import New, why_refused
from tests.providers.provider_pages import documented_examples
from tests.providers.rabbitmq_reading import channel, contents, drain, make_queue, numbers
from tests.providers.secured import both_sides_are_checked
from tests.rabbitmq_fixture import RABBITMQ_LARGEST

ONE = Message(1, "orders", b"1", b"key", (), None, None, 1_700_000_000_000_000_000)


# ---- content


def test_any_message_comes_back_as_it_was(rabbitmq_server: RabbitServer, rabbitmq_prefix: str, new: New) -> None:
    queue = f"{rabbitmq_prefix}all"
    make_queue(rabbitmq_server.port, queue)
    with channel(rabbitmq_server.port) as opened:
        opened.exchange_declare(queue, "fanout", durable=True)
        opened.queue_bind(queue, queue)
    provider = new(f"{rabbitmq_server.url}?exchange={queue}&prefix={rabbitmq_prefix}")

    @examples(60)
    @given(any_messages)
    def check(messages: list[Message]) -> None:
        provider.send(batch_of(messages))
        [found] = contents(rabbitmq_server.port, queue)
        assert found == [
            Content(m.value, m.key, grouped(m), m.accepted if m.timestamp is None else m.timestamp, m.partition)
            for m in messages
        ]

    check()


def grouped(message: Message) -> tuple[tuple[str, bytes | None], ...]:
    """Its headers, those of one name together."""
    names = dict.fromkeys(name for name, _ in message.headers)
    return tuple(header for name in names for header in message.headers if header[0] == name)


def test_a_queue_is_for_ordinary_clients(rabbitmq_server: RabbitServer, rabbitmq_prefix: str, new: New) -> None:
    make_queue(rabbitmq_server.port, f"{rabbitmq_prefix}orders")
    headers = (("trace", b"4711"), ("tag", b"a"), ("raw", b"\xff"), ("tag", b"b"), ("none", None))
    message = ONE._replace(sequence=7, headers=headers, timestamp=5_600_000_000, partition=3)
    new(f"{rabbitmq_server.url}?prefix={rabbitmq_prefix}").send(batch_of([message]))
    [[(properties, body)]] = drain(rabbitmq_server.port, f"{rabbitmq_prefix}orders")
    assert body == b"1"
    assert properties.headers == {
        "mb-timestamp": 5_600_000_000,
        "mb-key": "key",
        "mb-partition": 3,
        "trace": "4711",
        "tag": ["a", "b"],
        "raw": b"\xff",
        "none": None,
    }
    assert properties.message_id == f"{'b' * 32}:main:7"
    assert (properties.timestamp, properties.delivery_mode, properties.type) == (5, 2, None)


def test_what_rabbitmq_can_never_take_is_rejected_alone(
    rabbitmq_server: RabbitServer, rabbitmq_prefix: str, new: New
) -> None:
    queue = f"{rabbitmq_prefix}orders"
    make_queue(rabbitmq_server.port, queue)
    provider = new(f"{rabbitmq_server.url}?prefix={rabbitmq_prefix}&max_message_size=1MiB")
    wrong = [
        ONE._replace(value=bytes((1 << 20) + 1)),
        ONE._replace(topic="ü" * 120),
        ONE._replace(headers=(("h" * 256, b""),)),
        ONE._replace(headers=(("h", bytes(140_000)),)),
        ONE._replace(headers=(("mb-key", b""),)),
    ]
    messages = [ONE, *wrong, ONE, ONE]
    with pytest.raises(SendFailed, match="would not take 5 of 8 messages: its value has 1048577 bytes") as failed:
        provider.send(batch_of([message._replace(sequence=n) for n, message in enumerate(messages, 1)]))
    assert list(failed.value.rejected) == [1, 2, 3, 4, 5]
    assert list(failed.value.undelivered or ()) == []
    words = ["max_message_size", "routing key", "name", "one frame", "keeps for itself"]
    assert all(word in reason for word, reason in zip(words, failed.value.rejected.values(), strict=True))
    # As large as it may be.
    provider.send(batch_of([ONE._replace(sequence=9, headers=tuple((f"{n}", bytes(100)) for n in range(1190)))]))
    assert len(numbers(rabbitmq_server.port, queue)) == 4


def test_the_largest_message_is_learned_from_a_refusal(
    rabbitmq_server: RabbitServer, rabbitmq_prefix: str, new: New
) -> None:
    queue = f"{rabbitmq_prefix}orders"
    make_queue(rabbitmq_server.port, queue)
    provider = new(f"{rabbitmq_server.url}?prefix={rabbitmq_prefix}")
    messages = [
        ONE._replace(sequence=n, value=b"%d" % n + (b"." * (RABBITMQ_LARGEST if n == 3 else 0))) for n in range(1, 6)
    ]
    with pytest.raises(SendFailed, match="larger than configured max size.*are rejected from now on") as failed:
        provider.send(batch_of(messages))
    assert failed.value.uncertain
    assert not failed.value.rejected
    assert provider.max_message_bytes == RABBITMQ_LARGEST
    left = [messages[index] for index in failed.value.undelivered or ()]
    with pytest.raises(SendFailed) as failed:
        provider.send(batch_of(left))
    assert [left[index].sequence for index in failed.value.rejected] == [3]
    assert sorted(set(numbers(rabbitmq_server.port, queue))) == [1, 2, 4, 5]


# ---- queues and exchanges


def test_a_missing_queue_blocks_and_nothing_is_lost(
    rabbitmq_server: RabbitServer, rabbitmq_prefix: str, new: New
) -> None:
    """The topic with a queue goes on up to the first message of the other; nothing is repeated."""
    orders, billing = f"{rabbitmq_prefix}orders", f"{rabbitmq_prefix}billing"
    make_queue(rabbitmq_server.port, orders)
    provider = new(f"{rabbitmq_server.url}?prefix={rabbitmq_prefix}")
    messages = [
        ONE._replace(sequence=n, topic="billing" if n in (50, 70) else "orders", value=b"%d" % n) for n in range(1, 101)
    ]
    with pytest.raises(SendFailed, match=f"there is no queue '{billing}'; create it") as failed:
        provider.send(batch_of(messages))
    assert (list(failed.value.undelivered or ()), failed.value.uncertain) == (list(range(49, 100)), False)
    assert not failed.value.rejected
    for _ in range(3):
        with pytest.raises(ProviderUnusable, match=f"there is no queue '{billing}'; create it"):
            provider.send(batch_of(messages[49:]))
    make_queue(rabbitmq_server.port, billing)
    provider.send(batch_of(messages[49:]))
    assert numbers(rabbitmq_server.port, billing) == [50, 70]
    assert numbers(rabbitmq_server.port, orders) == [n for n in range(1, 101) if n not in (50, 70)]


def test_a_queue_that_goes_away_blocks(rabbitmq_server: RabbitServer, rabbitmq_prefix: str, new: New) -> None:
    queue = f"{rabbitmq_prefix}orders"
    make_queue(rabbitmq_server.port, queue)
    provider = new(f"{rabbitmq_server.url}?prefix={rabbitmq_prefix}")
    provider.send(make_batch(1, 10))
    with channel(rabbitmq_server.port) as opened:
        opened.queue_delete(queue)
    for _ in range(2):
        with pytest.raises(ProviderUnusable, match="there is no queue"):
            provider.send(make_batch(11, 500))
    make_queue(rabbitmq_server.port, queue)
    provider.send(make_batch(11, 500))
    assert numbers(rabbitmq_server.port, queue) == list(range(11, 511))


def test_an_exchange_and_its_bindings(rabbitmq_server: RabbitServer, rabbitmq_prefix: str, new: New) -> None:
    name = f"{rabbitmq_prefix}events"
    url = f"{rabbitmq_server.url}?exchange={name}&prefix=shop."
    provider = new(url)
    with pytest.raises(ProviderUnusable, match=f"404 NOT_FOUND - no exchange '{name}'.*; create it, or correct"):
        provider.send(make_batch(1, 10))
    make_queue(rabbitmq_server.port, name)
    with channel(rabbitmq_server.port) as opened:
        opened.exchange_declare(name, "topic", durable=True)
        with pytest.raises(ProviderUnusable, match=f"there is no binding of exchange '{name}' for 'shop.orders'"):
            provider.send(make_batch(1, 10))
        opened.queue_bind(name, name, "shop.*")
        provider.send(make_batch(1, 10))
        assert numbers(rabbitmq_server.port, name) == list(range(1, 11))
        # Deleted while we know it: how much of the batch was stored is not known, but it blocks at the next try.
        opened.exchange_delete(name)
    with pytest.raises(SendFailed, match="404") as failed:
        provider.send(make_batch(11, 10))
    assert failed.value.uncertain
    with pytest.raises(ProviderUnusable, match="404"):
        provider.send(make_batch(11, 10))


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_queues_are_declared_where_asked_for(
    rabbitmq_server: RabbitServer, rabbitmq_prefix: str, new: New, kind: str
) -> None:
    provider = new(f"{rabbitmq_server.url}?prefix={rabbitmq_prefix}&declare={kind}")
    provider.send(make_batch(1, 300))
    queue = f"{rabbitmq_prefix}orders"
    assert numbers(rabbitmq_server.port, queue) == list(range(1, 301))
    # Names that RabbitMQ would change or keeps for itself are refused before anything is sent; no others are.
    topics = ["orders", "orders\n", "a\r\nx", "o\rrders", "orders", " a\0\tx ", "orders"]
    with pytest.raises(SendFailed, match="would not take 3 of 7 messages: its queue would be called") as failed:
        provider.send(
            batch_of([ONE._replace(sequence=n, topic=topic, value=b"%d" % n) for n, topic in enumerate(topics, 301)])
        )
    assert (list(failed.value.rejected), list(failed.value.undelivered or ())) == ([1, 2, 3], [])
    assert all("a carriage return or a line feed" in why for why in failed.value.rejected.values())
    assert numbers(rabbitmq_server.port, queue) == [301, 305, 307]
    assert numbers(rabbitmq_server.port, f"{rabbitmq_prefix} a\0\tx ") == [306]
    with channel(rabbitmq_server.port) as opened, pytest.raises(ChannelClosedByBroker, match="NOT_FOUND"):
        opened.queue_declare(f"{rabbitmq_prefix}ax", passive=True)
    bare = new(f"{rabbitmq_server.url}?declare={kind}")
    with pytest.raises(
        SendFailed, match=r"'amq\.x'; RabbitMQ keeps names that begin with 'amq\.' for itself"
    ) as failed:
        bare.send(batch_of([ONE._replace(topic="amq.x")]))
    assert list(failed.value.rejected) == [0]
    other = "quorum" if kind == "classic" else "classic"
    with pytest.raises(ProviderUnusable, match="406 PRECONDITION_FAILED - inequivalent arg.*set declare to its type"):
        new(f"{rabbitmq_server.url}?prefix={rabbitmq_prefix}&declare={other}").send(make_batch(1, 3))


def test_a_full_queue_is_tried_again_in_order(rabbitmq_server: RabbitServer, rabbitmq_prefix: str, new: New) -> None:
    queue = f"{rabbitmq_prefix}orders"
    make_queue(rabbitmq_server.port, queue, max_length=100, overflow="reject-publish")
    make_queue(rabbitmq_server.port, f"{rabbitmq_prefix}billing")
    provider = new(f"{rabbitmq_server.url}?prefix={rabbitmq_prefix}")
    messages = [ONE._replace(sequence=n, value=b"%d" % n, topic="orders" if n % 2 else "billing") for n in range(400)]
    seen: list[int] = []
    while len(messages) > 100:
        with pytest.raises(SendFailed, match="a queue refused messages of topic 'orders': it is full") as failed:
            provider.send(batch_of(messages))
        assert not failed.value.rejected
        messages = [messages[index] for index in failed.value.undelivered or ()]
        assert {message.topic for message in messages} <= {"orders"}
        seen += numbers(rabbitmq_server.port, queue)
    provider.send(batch_of(messages))
    seen += numbers(rabbitmq_server.port, queue)
    assert list(dict.fromkeys(seen)) == list(range(1, 400, 2))
    assert numbers(rabbitmq_server.port, f"{rabbitmq_prefix}billing") == list(range(0, 400, 2))


# ---- rights


def test_what_only_a_person_can_change_blocks(rabbitmq_server: RabbitServer, rabbitmq_prefix: str, new: New) -> None:
    place = f"127.0.0.1:{rabbitmq_server.port}"
    make_queue(rabbitmq_server.port, f"{rabbitmq_prefix}orders")
    # The right that the documentation names suffices.
    new(f"rabbitmq://writer:hush-hush@{place}?prefix={rabbitmq_prefix}").send(make_batch(1, 10))
    with pytest.raises(ProviderUnusable, match=r"403 ACCESS_REFUSED.*exchange 'amq\.topic'.*the right to write"):
        new(f"rabbitmq://writer:hush-hush@{place}?exchange=amq.topic").send(make_batch(1, 10))
    with pytest.raises(ProviderUnusable, match="403 ACCESS_REFUSED.*the right to.*configure"):
        new(f"rabbitmq://writer:hush-hush@{place}?prefix={rabbitmq_prefix}&declare=classic").send(make_batch(1, 10))
    with pytest.raises(ProviderUnusable, match="403 ACCESS_REFUSED - Login was refused.*check user name") as refused:
        new(f"rabbitmq://writer:wrong-one@{place}")
    assert "wrong-one" not in str(refused.value)
    with pytest.raises(ProviderUnusable, match="530 NOT_ALLOWED - vhost shop not found; create the virtual host"):
        new(f"rabbitmq://mb:mb@{place}/shop")
    assert numbers(rabbitmq_server.port, f"{rabbitmq_prefix}orders") == list(range(1, 11))


def test_who_does_not_answer_as_rabbitmq(new: New, promised: Callable[[float], float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(SendFailed, match="takes connections, but does not answer"):
            new(f"rabbitmq://127.0.0.1:{port}?connect_timeout=300ms")
        assert time.monotonic() - began < promised(2)
    with pytest.raises(SendFailed, match=f"127.0.0.1:{port}.*refused"):
        new(f"rabbitmq://127.0.0.1:{port}")


def test_the_first_host_that_answers_is_used(rabbitmq_server: RabbitServer, rabbitmq_prefix: str, new: New) -> None:
    make_queue(rabbitmq_server.port, f"{rabbitmq_prefix}orders")
    url = f"rabbitmq://mb:mb@127.0.0.1:1,127.0.0.1:{rabbitmq_server.port}?prefix={rabbitmq_prefix}"
    new(url).send(make_batch(1, 3))
    assert numbers(rabbitmq_server.port, f"{rabbitmq_prefix}orders") == [1, 2, 3]


def test_tls_checks_both_sides(
    rabbitmq_server: RabbitServer,
    rabbitmq_tls_port: int,
    rabbitmq_prefix: str,
    rabbitmq_certificates: Certificates,
    new: New,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_queue(rabbitmq_server.port, f"{rabbitmq_prefix}orders")
    url = f"rabbitmq://mb:mb@127.0.0.1:{rabbitmq_tls_port}?prefix={rabbitmq_prefix}&connect_timeout=60s"
    bare = f"amqps://127.0.0.1:{rabbitmq_server.port}?connect_timeout=3s"
    both_sides_are_checked(new, url, rabbitmq_certificates, caplog, bare=bare)


# ---- confirmations

_heard = st.lists(st.tuples(st.integers(1, 30), st.booleans(), st.booleans(), st.booleans()), max_size=30)


@given(first=st.integers(1, 20), count=st.integers(0, 10), heard=_heard)
def test_confirmations_of_any_kind(first: int, count: int, heard: list[tuple[int, bool, bool, bool]]) -> None:
    """Against a model that looks at every message each time."""
    confirms, model = Confirms(first, count), dict.fromkeys(range(first, first + count), Fate.OPEN)
    for number, multiple, stored, returned in heard:
        if returned:
            if number in model:
                model[number] = Fate.RETURNED
                confirms.returned(number - first)
            continue
        for each in model:
            if (each <= number if multiple else each == number) and model[each] is Fate.OPEN:
                model[each] = Fate.STORED if stored else Fate.REFUSED
        confirms.confirm(number, multiple=multiple, stored=stored)
    assert confirms.fates == list(model.values())
    assert confirms.open == list(model.values()).count(Fate.OPEN)


def test_what_is_behind_a_failure_comes_again() -> None:
    confirms = Confirms(1, 6)
    confirms.confirm(6, multiple=True, stored=True)
    confirms.fates[2] = Fate.REFUSED
    assert confirms.undelivered("ababab".__getitem__) == [2, 4]


# ---- options


@pytest.mark.parametrize(
    ("url", "option"),
    [
        ("rabbitmq:", "hosts"),
        ("rabbitmq://user@h", "password"),
        ("rabbitmq://h?exchange=e&declare=quorum", "declare"),
        ("rabbitmq://h?declare=stream", "declare"),
        ("rabbitmq://h?declare=classic&prefix=a%0A", "prefix"),
        ("rabbitmq://h?timeout=0s", "timeout"),
        ("rabbitmq://h?heartbeat=500ms", "heartbeat"),
        ("rabbitmq://h?max_message_size=0", "max_message_size"),
        (f"rabbitmq://h/{'v' * 256}", "path"),
        ("rabbitmq://h?tls_ca=/x", "tls_ca"),
        ("rabbitmq://h?tls=true&tls_ca=/nowhere/ca.pem", "tls_ca"),
        ("rabbitmq://h?exchang=e", "exchang"),
    ],
)
def test_a_wrong_url_is_refused(url: str, option: str) -> None:
    why_refused(url, option)


def test_the_documented_example_works(
    rabbitmq_server: RabbitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = f"127.0.0.1:{rabbitmq_server.port}"
    for example in documented_examples("rabbitmq"):
        assert "guest:guest@127.0.0.1:5672" in example
        exec(example.replace("guest:guest@127.0.0.1:5672", f"mb:mb@{here}"), {})
