"""The contract, kept by the provider ``mqtt``, against a real broker.

An outage is a cut of the line to it: killed with -9, Mosquitto forgets what it had acknowledged (decision 0022), and
the subscriptions with which the tests read; test_mqtt_outage.py kills it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mbframework.message import Message
from mbframework.testing.conformance import Arrived, ProviderContract
from mbframework.testing.mqtt import MosquittoServer
from tests.providers.mqtt_reading import Subscriber
from tests.providers.tcp_line import TcpLine

pytest_plugins = ["mbframework.testing.conformance"]


class _Mqtt(ProviderContract):
    patience = "1s"
    partitions = (0, 3)
    # What is under way when the buffer closes has two seconds to be acknowledged.
    stopping_timeout = 4.0
    qos = ""

    @pytest.fixture(autouse=True)
    def destination(self, mqtt_control: MosquittoServer, mqtt_prefix: str) -> Iterator[None]:
        self.server, self.prefix = mqtt_control, mqtt_prefix
        with TcpLine(self.server.port) as self.line, Subscriber(self.server.port, self.prefix) as self.subscriber:
            yield
            self.server.ensure_running()

    def _url(self, password: str) -> str:
        place = f"127.0.0.1:{self.line.port}"
        return f"mqtt://writer:{password}@{place}?prefix={self.prefix}&timeout={self.patience}&qos={self.qos}"

    def url(self) -> str:
        return self._url("hush-hush")

    def unusable_url(self) -> str:
        return self._url("something-else")

    def arrived(self) -> list[Arrived]:
        return [
            Arrived(found.value, topic, found.key, found.headers, found.timestamp, found.partition)
            for topic, found, _ in self.subscriber.read()
        ]

    def kept(self, message: Message) -> Arrived:
        time = message.accepted if message.timestamp is None else message.timestamp
        return Arrived(message.value, message.topic, message.key, message.headers, time, message.partition)

    def take_down(self) -> None:
        self.line.cut()

    def bring_up(self) -> None:
        self.line.mend()
        self.server.ensure_running()

    def freeze(self) -> None:
        self.server.freeze()

    def thaw(self) -> None:
        self.server.thaw()

    def fail_after(self, count: int) -> None:
        # Of the size that a message has with its properties.
        self.line.cut_after(160 * count)

    def make_rejected(self, message: Message) -> Message:
        return message._replace(topic=f"{message.topic}/#")


class TestMqttQos1(_Mqtt):
    qos = "1"
    kills = 3


class TestMqttQos2(_Mqtt):
    qos = "2"
    huge_batch = 3000
    kills = 2
