"""The contract, kept by the provider ``kafka`` on a real broker, which is killed and frozen; also exactly once."""

from __future__ import annotations

import pytest

from mbframework.message import Message
from tests.providers.kafka_contract import ExactlyOnceContract, KafkaContract

pytest_plugins = ["mbframework.testing.conformance"]


@pytest.mark.timeout(300)
class TestKafka(KafkaContract):
    scheme = "kafka"
    query = "send_timeout=8s&request_timeout=4s"

    def make_rejected(self, message: Message) -> Message:
        return message._replace(topic="no topic is named so")


@pytest.mark.timeout(300)
class TestKafkaExactlyOnce(ExactlyOnceContract, TestKafka):
    query = f"{TestKafka.query}&delivery=exactly-once"
