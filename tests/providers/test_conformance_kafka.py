"""The contract, kept by the provider ``kafka`` on a real broker, which is killed and frozen; also exactly once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mbframework.message import Message
from mbframework.testing.conformance import Arrived, ProviderContract
from mbframework.testing.kafka import KafkaBroker
from tests.providers.kafka_batches import NewTopic

pytest_plugins = ["mbframework.testing.conformance"]


#: Else a broker refuses what is said to be from the future.
_ANY_TIME = {"message.timestamp.after.max.ms": str((1 << 63) - 1)}


@pytest.mark.timeout(300)
class TestKafka(ProviderContract):
    partitions = (0, 2)
    recovery_timeout = 60.0
    # What is under way when the buffer closes has two seconds to be acknowledged.
    stopping_timeout = 4.0
    delivery = "at-least-once"
    isolation = "read_uncommitted"

    @pytest.fixture(autouse=True)
    def destination(self, kafka_control: KafkaBroker, kafka_topic: NewTopic) -> Iterator[None]:
        self.broker = kafka_control
        self.topics = [kafka_topic(3, _ANY_TIME), kafka_topic(3, _ANY_TIME)]
        yield
        self.broker.ensure_running()

    def url(self) -> str:
        return f"kafka://{self.broker.bootstrap}?send_timeout=8s&request_timeout=4s&delivery={self.delivery}"

    def arrived(self) -> list[Arrived]:
        found = []
        for topic in self.topics:
            records = sorted(
                self.broker.read_all(topic, self.isolation), key=lambda record: (record.partition, record.offset)
            )
            found += [Arrived(r.value, topic, r.key, r.headers, r.timestamp * 1_000_000, r.partition) for r in records]
        return found

    def kept(self, message: Message) -> Arrived:
        given = message.accepted if message.timestamp is None else message.timestamp
        return Arrived(
            message.value,
            message.topic,
            message.key,
            message.headers,
            given // 1_000_000 * 1_000_000,
            message.partition,
        )

    def take_down(self) -> None:
        self.broker.kill()

    def bring_up(self) -> None:
        self.broker.ensure_running()

    def freeze(self) -> None:
        self.broker.freeze()

    def thaw(self) -> None:
        self.broker.thaw()

    def make_rejected(self, message: Message) -> Message:
        return message._replace(topic="no topic is named so")


@pytest.mark.timeout(300)
class TestKafkaExactlyOnce(TestKafka):
    keeps_position = True
    delivery = "exactly-once"
    isolation = "read_committed"
    # A broker that is down is met before the first transaction: nothing here that is not tested above already.
    test_an_opening_meets_an_outage = None  # type: ignore[assignment]
    test_close_after_a_failed_open = None  # type: ignore[assignment]
    test_open_again_after_a_failed_open = None  # type: ignore[assignment]
    test_a_check_tells_of_an_outage = None  # type: ignore[assignment]
    test_errors_are_of_two_kinds = None  # type: ignore[assignment]
    test_no_error_tells_a_secret = None  # type: ignore[assignment]
