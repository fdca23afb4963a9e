"""The contract, kept by the provider ``rabbitmq``, against a real broker.

An outage is a cut of the line to it, since its restart takes seconds: test_rabbitmq_outage.py kills it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mbframework.message import Message
from mbframework.testing.conformance import Arrived, ProviderContract
from mbframework.testing.rabbitmq import RabbitServer
from tests.providers.rabbitmq_reading import channel, contents, make_queue
from tests.providers.tcp_line import TcpLine

pytest_plugins = ["mbframework.testing.conformance"]


class TestRabbit(ProviderContract):
    patience = "1s"
    partitions = (0, 3)
    # What is under way when the buffer closes has two seconds to be acknowledged.
    stopping_timeout = 4.0
    kills = 2

    @pytest.fixture(autouse=True)
    def destination(self, rabbitmq_control: RabbitServer, rabbitmq_prefix: str) -> Iterator[None]:
        self.server, self.prefix = rabbitmq_control, rabbitmq_prefix
        self.limited = False
        self.found: dict[str, list[Arrived]] = {topic: [] for topic in self.topics}
        for topic in self.topics:
            make_queue(self.server.port, self.prefix + topic)
        with TcpLine(self.server.port) as self.line:
            yield
        self.server.ensure_running()
        with channel(self.server.port) as opened:
            for topic in self.topics:
                opened.queue_delete(self.prefix + topic)

    def url(self) -> str:
        return f"rabbitmq://writer:hush-hush@127.0.0.1:{self.line.port}?prefix={self.prefix}&timeout={self.patience}&max_message_size=2MiB"

    def unusable_url(self) -> str:
        return f"rabbitmq://writer:something-else@127.0.0.1:{self.line.port}"

    def arrived(self) -> list[Arrived]:
        queues = [self.prefix + topic for topic in self.topics]
        for topic, taken in zip(self.topics, contents(self.server.port, *queues), strict=True):
            self.found[topic] += [
                Arrived(one.value, topic, one.key, one.headers, one.timestamp, one.partition) for one in taken
            ]
        return [message for topic in self.topics for message in self.found[topic]]

    def kept(self, message: Message) -> Arrived:
        time = message.accepted if message.timestamp is None else message.timestamp
        # The values of a name that comes again stand together.
        names = list(dict.fromkeys(name for name, _ in message.headers))
        headers = tuple(header for name in names for header in message.headers if header[0] == name)
        return Arrived(message.value, message.topic, message.key, headers, time, message.partition)

    def take_down(self) -> None:
        self.line.cut()

    def bring_up(self) -> None:
        self.line.mend()
        self.server.ensure_running()
        if self.limited:
            # No send is under way then, of which this would lose messages.
            self.arrived()
            with channel(self.server.port) as opened:
                opened.queue_delete(self.prefix + self.topic)
            make_queue(self.server.port, self.prefix + self.topic)
            self.limited = False

    def freeze(self) -> None:
        self.server.freeze()

    def thaw(self) -> None:
        self.server.thaw()

    def fail_after(self, count: int) -> None:
        self.limited = True
        with channel(self.server.port) as opened:
            opened.queue_delete(self.prefix + self.topic)
        make_queue(self.server.port, self.prefix + self.topic, max_length=count, overflow="reject-publish")

    def make_rejected(self, message: Message) -> Message:
        return message._replace(topic="t" * 256)
