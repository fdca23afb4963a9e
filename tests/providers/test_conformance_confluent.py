"""The contract, kept by the provider ``confluent`` on a real broker, which is killed and frozen; also exactly once."""

from __future__ import annotations

import pytest

from mbframework.message import Message
from tests.providers.kafka_contract import ExactlyOnceContract, KafkaContract

pytest_plugins = ["mbframework.testing.conformance"]


@pytest.mark.timeout(300)
class TestConfluent(KafkaContract):
    scheme = "confluent"
    query = "send_timeout=3s&connect_timeout=2s&create_topics=false"

    def make_rejected(self, message: Message) -> Message:
        return message._replace(partition=99)


@pytest.mark.timeout(300)
class TestConfluentExactlyOnce(ExactlyOnceContract, TestConfluent):
    query = f"{TestConfluent.query}&delivery=exactly-once"
