"""The contract, kept by the provider ``fake``: at least once, and with the position kept."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import pytest
from mbframework_fake.broker import FakeBroker
from mbframework_fake.provider import FakeProvider

from mbframework.message import Message
from mbframework.testing.conformance import Arrived, ProviderContract

pytest_plugins = ["mbframework.testing.conformance"]


class TestFake(ProviderContract):
    in_process = True
    partitions = (0, 3)

    @pytest.fixture(autouse=True)
    def destination(self) -> Iterator[None]:
        self.name = uuid.uuid4().hex
        self.broker: FakeBroker = FakeProvider.store(self.name)
        yield
        self.broker.clear()

    def url(self) -> str:
        return f"fake://{self.name}?keep=100000&keep_position={self.keeps_position}&max_message_bytes=1000000"

    def arrived(self) -> list[Arrived]:
        return [Arrived(m.value, m.topic, m.key, m.headers, m.timestamp, m.partition) for m in self.broker.messages]

    def take_down(self) -> None:
        self.broker.down()

    def bring_up(self) -> None:
        self.broker.up()

    def make_rejected(self, message: Message) -> Message:
        self.broker.reject_when(lambda one: one.topic == "refused" and "not this topic")
        return message._replace(topic="refused")

    def fail_after(self, count: int) -> None:
        self.broker.fail_next(after=count)

    def freeze(self) -> None:
        self.broker.set_latency(3600)

    def thaw(self) -> None:
        # Whoever waits looks up every 20 ms, and learns of it by a short outage.
        self.broker.set_latency(0)
        self.broker.down()
        time.sleep(0.1)
        self.broker.up()

    # It waits as long as it is told to: there is nobody else who could do it.
    test_a_frozen_destination_loses_nothing = None


class TestFakeWithPosition(TestFake):
    keeps_position = True
