"""The contract, kept by the provider ``confluent``, on a real broker that asks for a password; also exactly once."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from mbframework.message import Message
from mbframework.testing.conformance import Arrived, ProviderContract
from mbframework.testing.kafka import KafkaBroker
from tests.kafka_fixture import require_kafka

pytest_plugins = ["mbframework.testing.conformance"]

_MS = 1_000_000
_USER, _PASSWORD = "kit", "hush-hush"
#: Else a broker refuses what is said to be from the future.
_ANY_TIME = {"message.timestamp.after.max.ms": str((1 << 63) - 1)}


@pytest.fixture(scope="module")
def kafka_with_password() -> Iterator[KafkaBroker]:
    """A broker with a listener that asks for a password, which may be killed."""
    require_kafka()
    broker = KafkaBroker(
        listeners=["SASL_PLAINTEXT"],
        properties={
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config": "org.apache.kafka.common.security.plain."
            f'PlainLoginModule required user_{_USER}="{_PASSWORD}";',
        },
    )
    if not broker.controllable:
        pytest.skip("this test needs a broker of its own; unset MBFRAMEWORK_TEST_KAFKA")
    with broker:
        broker.create_topic("mbframework-positions")
        yield broker


@pytest.mark.timeout(300)
class TestConfluent(ProviderContract):
    partitions = (0, 2)
    recovery_timeout = 60.0
    # What is under way when the buffer closes has two seconds to be acknowledged.
    stopping_timeout = 4.0
    more = ""
    isolation = "read_uncommitted"

    @pytest.fixture(autouse=True)
    def destination(self, kafka_with_password: KafkaBroker) -> Iterator[None]:
        self.broker = kafka_with_password
        self.topics = [f"{name}-{uuid.uuid4().hex}" for name in ("orders", "billing")]
        for topic in self.topics:
            self.broker.create_topic(topic, 3, _ANY_TIME)
        yield
        self.broker.ensure_running()

    def _url(self, password: str) -> str:
        host = self.broker.address("SASL_PLAINTEXT")
        given = f"send_timeout=3s&connect_timeout=2s&create_topics=false{self.more}"
        return f"confluent://{_USER}:{password}@{host}?{given}"

    def url(self) -> str:
        return self._url(_PASSWORD)

    def unusable_url(self) -> str:
        return self._url("something-else")

    def arrived(self) -> list[Arrived]:
        return [
            Arrived(found.value, topic, found.key, found.headers, found.timestamp * _MS, found.partition)
            for topic in self.topics
            for found in self.broker.read_all(topic, self.isolation)
        ]

    def kept(self, message: Message) -> Arrived:
        time = message.accepted if message.timestamp is None else message.timestamp
        return Arrived(message.value, message.topic, message.key, message.headers, time // _MS * _MS, message.partition)

    def take_down(self) -> None:
        self.broker.kill()

    def bring_up(self) -> None:
        self.broker.ensure_running()

    def freeze(self) -> None:
        self.broker.freeze()

    def thaw(self) -> None:
        self.broker.thaw()

    def make_rejected(self, message: Message) -> Message:
        return message._replace(partition=99)


@pytest.mark.timeout(300)
class TestConfluentExactlyOnce(TestConfluent):
    keeps_position = True
    more = "&delivery=exactly-once"
    isolation = "read_committed"
    # A broker that is down is met before the first transaction: nothing here that is not tested above already.
    test_an_opening_meets_an_outage = None  # type: ignore[assignment]
    test_close_after_a_failed_open = None  # type: ignore[assignment]
    test_open_again_after_a_failed_open = None  # type: ignore[assignment]
    test_a_check_tells_of_an_outage = None  # type: ignore[assignment]
    test_errors_are_of_two_kinds = None  # type: ignore[assignment]
    test_no_error_tells_a_secret = None  # type: ignore[assignment]
