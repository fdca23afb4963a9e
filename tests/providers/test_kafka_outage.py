"""The Kafka providers against a real broker that is killed, frozen and brought back."""

from __future__ import annotations

import gc
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from confluent_kafka import KafkaError
from kafka.errors import SaslAuthenticationFailedError
from mbframework_confluent.outcome import Blocked

from mbframework.errors import SendFailed
from mbframework.message import Batch
from mbframework.provider import Context, Provider
from mbframework.testing.kafka import KafkaBroker
from tests.engine.rig import eventually
from tests.providers.kafka_batches import NewTopic, deliver, make_batch
from tests.providers.kafka_kinds import ALL, KAFKA, Kind, kind

__all__ = ["kind"]

NewProvider = Callable[..., Provider]

#: With ``MBFRAMEWORK_TEST_KIT=long`` a broker is killed twice where it else is killed once: its restart takes long.
LONG = os.environ.get("MBFRAMEWORK_TEST_KIT") == "long"


@pytest.fixture
def stopping() -> threading.Event:
    """What the buffer sets when it closes."""
    return threading.Event()


@pytest.fixture
def of_each_kind(kafka_control: KafkaBroker, stopping: threading.Event) -> Iterator[NewProvider]:
    """Makes an open provider of a kind, with the options given; it is closed afterwards."""
    made = []

    def create(kind: Kind, **options: Any) -> Provider:
        provider = kind.make(kafka_control.bootstrap, **options)
        provider.open(Context(buffer_id="0" * 32, lane="0", run=b"\0" * 16, stopping=stopping))
        made.append(provider)
        return provider

    yield create
    for provider in made:
        provider.close(5)


@pytest.fixture
def new_provider(of_each_kind: NewProvider, kind: Kind) -> NewProvider:
    """Makes one of the kind that the test is about."""
    return partial(of_each_kind, kind)


@pytest.fixture
def sender() -> Iterator[ThreadPoolExecutor]:
    """One thread that plays the lane's sender."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


def repeats_of(broker: KafkaBroker, topic: str, values: list[bytes]) -> int:
    """Check that every value arrived, in order within its partition but for repeats; how many were repeats."""
    records = broker.read_all(topic)
    first_arrivals: dict[int, list[bytes]] = {}
    seen: set[bytes] = set()
    for record in records:
        assert record.value is not None
        if record.value not in seen:
            first_arrivals.setdefault(record.partition, []).append(record.value)
        seen.add(record.value)
    assert seen == set(values)
    for arrived in first_arrivals.values():
        assert arrived == sorted(arrived)
    return len(records) - len(values)


class _Stream:
    """Batches that one provider sends until it is told that it is enough."""

    def __init__(self, provider: Provider, topic: str) -> None:
        self._provider, self.topic = provider, topic
        self.values: list[bytes] = []
        self.batches = self.doubtful = 0

    def run(self, enough: threading.Event) -> None:
        sent: Any = self
        while not enough.is_set():
            values = [b"%06d" % number for number in range(len(self.values), len(self.values) + 500)]
            self.values += values
            self.doubtful += deliver(sent, self.topic, values, 500, 280)

    def send(self, batch: Batch) -> None:
        self._provider.send(batch)
        self.batches += 1


@pytest.mark.timeout(600)
def test_killed_while_sending(kafka_control: KafkaBroker, kafka_topic: NewTopic, of_each_kind: NewProvider) -> None:
    """kill -9: nothing is lost, the order holds, and a batch is repeated only where the answer was uncertain.

    Each provider once waits for the broker, and once gives up and sends again.
    """
    streams = {
        (name, timeout): _Stream(of_each_kind(kind, send_timeout=timeout), kafka_topic(partitions=3))
        for name, kind in ALL.items()
        for timeout in (120.0, 0.7)
    }
    enough = threading.Event()

    def five_more() -> None:
        before = {each: stream.batches for each, stream in streams.items()}
        eventually(
            lambda: all(running.done() or streams[each].batches > before[each] + 5 for each, running in all_of.items()),
            "five batches of each",
            timeout=120,
        )

    with ThreadPoolExecutor(len(streams)) as pool:
        all_of = {each: pool.submit(stream.run, enough) for each, stream in streams.items()}
        try:
            for _ in range(2 if LONG else 1):
                # The kill is to come in the middle of any send.
                five_more()
                kafka_control.kill()
                time.sleep(1.0)
                assert not any(running.done() for running in all_of.values())
                kafka_control.restart()
            five_more()
        finally:
            enough.set()
        for running in all_of.values():
            running.result(280)
    for (name, timeout), stream in streams.items():
        repeated = repeats_of(kafka_control, stream.topic, stream.values)
        assert repeated <= (stream.doubtful if timeout < 1 else 0), (name, timeout)


def test_what_was_sent_before_a_refusal_is_uncertain(
    kafka_control: KafkaBroker, kafka_topic: NewTopic, new_provider: NewProvider, sender: ThreadPoolExecutor, kind: Kind
) -> None:
    """A broker ends a session, for a password that was changed, while it has our messages: they may be there."""
    topic = kafka_topic()
    provider: Any = new_provider(send_timeout=60.0)
    provider.send(make_batch(topic, [b"1"]))
    kafka_control.freeze()
    sending = sender.submit(provider.send, make_batch(topic, [b"2"]))
    time.sleep(1.0)  # until it is in the connection, at which nobody can look
    if kind.scheme == "kafka":
        provider._connection._manager.refusal = SaslAuthenticationFailedError("another password")
    else:
        provider._connection.heard.refusal = Blocked("another password", KafkaError.SASL_AUTHENTICATION_FAILED)
    with pytest.raises(SendFailed, match="another password") as caught:
        sending.result(60)
    assert caught.value.uncertain
    assert caught.value.undelivered == [0]
    assert not caught.value.rejected
    kafka_control.thaw()
    provider.send(make_batch(topic, [b"2"]))
    arrived = [record.value for record in kafka_control.read_all(topic)]
    assert arrived in ([b"1", b"2"], [b"1", b"2", b"2"])


def test_frozen(
    kafka_control: KafkaBroker, kafka_topic: NewTopic, new_provider: NewProvider, promised: Callable[[float], float]
) -> None:
    topic = kafka_topic()
    provider = new_provider(send_timeout=1.0)
    doubtful = deliver(provider, topic, [b"0"], 10)
    kafka_control.freeze()
    started = time.monotonic()
    with pytest.raises(SendFailed, match="did not acknowledge them within 1 s") as caught:
        provider.send(make_batch(topic, [b"1", b"2"]))
    assert time.monotonic() - started < promised(4)
    assert caught.value.undelivered == [0, 1]
    assert caught.value.uncertain
    with pytest.raises(SendFailed, match="does not answer as a Kafka broker"):
        provider.send(make_batch(topic, [b"1", b"2"]))
    assert time.monotonic() - started < promised(10)
    kafka_control.thaw()
    doubtful += deliver(provider, topic, [b"1", b"2"], 10)
    assert repeats_of(kafka_control, topic, [b"0", b"1", b"2"]) <= 2 + doubtful


def test_an_outage_of_any_length_does_not_wedge(
    kafka_control: KafkaBroker,
    kafka_topic: NewTopic,
    of_each_kind: NewProvider,
    promised: Callable[[float], float],
) -> None:
    """Each provider gives up several times before the broker is back, and delivers at once then."""
    topics = {name: kafka_topic() for name in ALL}
    providers = {name: of_each_kind(kind, send_timeout=0.5, connect_timeout=0.5) for name, kind in ALL.items()}
    doubtful = {name: deliver(provider, topics[name], [b"0"], 10) for name, provider in providers.items()}
    kafka_control.kill()
    for name, provider in providers.items():
        reasons = []
        for _ in range(5):
            with pytest.raises(SendFailed) as caught:
                provider.send(make_batch(topics[name], [b"1"]))
            reasons.append(str(caught.value))
        assert "did not acknowledge" in reasons[0], name
        assert all("Connection refused" in reason for reason in reasons[1:]), name
    kafka_control.restart()
    for name, provider in providers.items():
        started = time.monotonic()
        deliver(provider, topics[name], [b"1"], 10)
        assert time.monotonic() - started < promised(10), name
        assert repeats_of(kafka_control, topics[name], [b"0", b"1"]) <= 1 + doubtful[name], name


def test_an_idle_lane_notices_that_the_broker_is_gone(
    kafka_control: KafkaBroker, kafka_topic: NewTopic, of_each_kind: NewProvider
) -> None:
    topics = {name: kafka_topic() for name in ALL}
    providers = {name: of_each_kind(kind) for name, kind in ALL.items()}
    for name, provider in providers.items():
        provider.idle()
        provider.send(make_batch(topics[name], [b"0"]))
        provider.idle()
    kafka_control.kill()
    for provider in providers.values():
        deadline = time.monotonic() + 60
        with pytest.raises(SendFailed, match="Kafka is gone: .*Connection refused"):
            while time.monotonic() < deadline:
                provider.idle()
                time.sleep(0.05)  # the sender calls it once a second
    kafka_control.restart()
    for name, provider in providers.items():
        provider.idle()
        deliver(provider, topics[name], [b"1"], 10)
        assert repeats_of(kafka_control, topics[name], [b"0", b"1"]) == 0, name


@pytest.mark.parametrize("ending", ["close", "stopping"])
def test_a_stuck_send_ends(
    ending: str,
    kafka_control: KafkaBroker,
    kafka_topic: NewTopic,
    new_provider: NewProvider,
    sender: ThreadPoolExecutor,
    stopping: threading.Event,
    promised: Callable[[float], float],
) -> None:
    """Soon after another thread closes the provider, or once the buffer closes, with data pending."""
    topic = kafka_topic()
    provider = new_provider()
    provider.send(make_batch(topic, [b"0"]))
    kafka_control.freeze()
    stuck = sender.submit(provider.send, make_batch(topic, [b"1"] * 10_000))
    time.sleep(0.5)  # until it waits for acknowledgements, of which nothing tells
    started = time.monotonic()
    if ending == "close":
        provider.close(1)
    else:
        stopping.set()
    assert time.monotonic() - started < promised(1.5)
    error = stuck.exception(timeout=60)
    assert isinstance(error, SendFailed)
    assert error.uncertain
    provider.close(1)
    assert time.monotonic() - started < promised(6)


@pytest.mark.parametrize("kind", [KAFKA], ids=["kafka"])
def test_no_socket_is_left_to_the_garbage_collector(
    kafka_control: KafkaBroker, kafka_topic: NewTopic, new_provider: NewProvider, sender: ThreadPoolExecutor
) -> None:
    """Not with megabytes on their way to a broker that takes none of them, nor in the middle of connecting to it."""
    topic = kafka_topic(partitions=8)
    provider = new_provider(max_request_size=16 << 20, send_timeout=1.0, connect_timeout=1.0)
    provider.send(make_batch(topic, [b"0"]))
    kafka_control.freeze()
    megabyte = os.urandom(1 << 20)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(SendFailed):
            provider.send(make_batch(topic, [megabyte] * 24, partitions=[i % 8 for i in range(24)]))
        with pytest.raises(SendFailed):
            provider.send(make_batch(topic, [b"1"]))
        provider.close(1)
        gc.collect()
    kafka_control.thaw()
    assert [str(each.message) for each in caught if each.category is ResourceWarning] == []
