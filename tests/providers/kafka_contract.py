"""What both Kafka providers keep of the contract, on one real broker that asks for a password.

The broker is reached by a line that can be cut, in a moment and in the middle of a request. Where a rule is about
outages it is also killed with -9; its restart takes seconds of Java.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator

import pytest

from mbframework.message import Message
from mbframework.testing.conformance import Arrived, ProviderContract
from mbframework.testing.kafka import KafkaBroker
from mbframework.testing.kafka_probe import free_ports
from tests.providers.tcp_line import TcpLine

_MS = 1_000_000
_USER, _PASSWORD = "kit", "hush-hush"
#: Else a broker refuses what is said to be from the future.
_ANY_TIME = {"message.timestamp.after.max.ms": str((1 << 63) - 1)}


class LinedBroker(KafkaBroker):
    """Whoever comes with a password is sent to ``line_port``, where a line to ``guarded_port`` may be."""

    def __init__(self) -> None:
        plain, self.guarded_port, controller, self.line_port = free_ports(4)
        super().__init__(
            port=plain,
            properties={
                "controller.quorum.voters": f"1@127.0.0.1:{controller}",
                "listeners": f"PLAINTEXT://127.0.0.1:{plain},SASL_PLAINTEXT://127.0.0.1:{self.guarded_port},"
                f"CONTROLLER://127.0.0.1:{controller}",
                "advertised.listeners": f"PLAINTEXT://127.0.0.1:{plain},SASL_PLAINTEXT://127.0.0.1:{self.line_port}",
                "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,"
                "SASL_PLAINTEXT:SASL_PLAINTEXT",
                "sasl.enabled.mechanisms": "PLAIN",
                "listener.name.sasl_plaintext.plain.sasl.jaas.config": "org.apache.kafka.common.security.plain."
                f'PlainLoginModule required user_{_USER}="{_PASSWORD}";',
            },
        )


class KafkaContract(ProviderContract):
    """At least once; the rules on outages meet a kill -9."""

    scheme = ""
    query = ""
    isolation = "read_uncommitted"
    partitions = (0, 2)
    recovery_timeout = 60.0
    # What is under way when the buffer closes has two seconds to be acknowledged.
    stopping_timeout = 4.0
    killed = True

    @pytest.fixture(autouse=True)
    def destination(self, kafka_on_a_line: LinedBroker) -> Iterator[None]:
        self.broker = kafka_on_a_line
        self.topics = [f"{name}-{uuid.uuid4().hex}" for name in ("orders", "billing")]
        for topic in self.topics:
            self.broker.create_topic(topic, 3, _ANY_TIME)
        with TcpLine(self.broker.guarded_port, self.broker.line_port) as self.line:
            yield
            self.bring_up()
            # What librdkafka still has under way ends when somebody answers.
            for thread in threading.enumerate():
                if thread.name.startswith("mb-confluent"):
                    thread.join(30)

    def _url(self, password: str) -> str:
        return f"{self.scheme}://{_USER}:{password}@127.0.0.1:{self.line.port}?{self.query}"

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
        if self.killed:
            self.broker.kill()
        self.line.cut()

    def bring_up(self) -> None:
        # A machine that has much else to do takes its time to start Java.
        self.broker.ensure_running(180)
        self.line.mend()

    def freeze(self) -> None:
        self.broker.freeze()

    def thaw(self) -> None:
        self.broker.thaw()

    def fail_after(self, count: int) -> None:
        # In the middle of a request that has all of the messages, some twenty bytes each.
        self.line.cut_after(20 * count)


class ExactlyOnceContract(KafkaContract):
    """The broker is killed where that may lose or repeat a message; the other outages are cuts of the line."""

    keeps_position = True
    isolation = "read_committed"
    killed = False

    def _url(self, password: str) -> str:
        # Any topic will do.
        return f"{super()._url(password)}&position_topic={self.topics[-1]}"

    def test_an_outage_loses_nothing(self) -> None:
        """See the base."""
        self.killed = True
        super().test_an_outage_loses_nothing()
