"""The ways into Kafka that keep the same promises, and so have the same tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from mbframework_confluent import ConfluentOptions
from mbframework_confluent import mbframework_provider as confluent_provider
from mbframework_kafka import KafkaOptions
from mbframework_kafka import mbframework_provider as kafka_provider

from mbframework.provider import Provider


@dataclass(frozen=True)
class Kind:
    """``path`` and ``client``: what its status begins with."""

    scheme: str
    path: str
    client: str
    bulk: bool = True

    def make(self, *hosts: str, **options: Any) -> Provider:
        """A provider with these options, not open."""
        if self.scheme == "confluent":
            return confluent_provider().factory(ConfluentOptions(hosts=hosts, **options))
        return kafka_provider().factory(KafkaOptions(hosts=hosts, **{"bulk": self.bulk, **options}))


KAFKA = Kind("kafka", "bulk", "kafka-python 3.0.")
CONFLUENT = Kind("confluent", "produce()", "confluent-kafka 2.")
ALL = {
    "kafka-bulk": KAFKA,
    "kafka-send()": Kind("kafka", "send() (bulk=no)", "kafka-python 3.0.", bulk=False),
    "confluent": CONFLUENT,
}

#: Where it makes no difference by which path kafka-python is used.
by_scheme = pytest.mark.parametrize("kind", [KAFKA, CONFLUENT], ids=["kafka", "confluent"])


@pytest.fixture(params=ALL.values(), ids=ALL)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Both paths into kafka-python, and confluent-kafka."""
    made: Kind = request.param
    return made
