"""The contract, kept by the provider ``nats``, against a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mbframework.message import Message
from mbframework.testing.conformance import Arrived, ProviderContract
from mbframework.testing.nats import NatsServer
from tests.nats_fixture import require_nats
from tests.providers.nats_reading import Plain, entries

pytest_plugins = ["mbframework.testing.conformance"]

_LOGIN = {"user": "kit", "pass": "hush-hush"}
_SETTINGS = "authorization { users: [ { user: kit, password: hush-hush } ] }"


@pytest.fixture(scope="module")
def nats_with_password() -> Iterator[NatsServer]:
    require_nats()
    with NatsServer(_SETTINGS) as server:
        yield server


class TestNats(ProviderContract):
    patience = "1s"
    keeps_position = True
    partitions = (0, 3)
    kills = 3
    # The path of a file.
    public_options = ("credentials",)

    @pytest.fixture(autouse=True)
    def destination(self, nats_with_password: NatsServer, nats_stream: str) -> Iterator[None]:
        self.server = nats_with_password
        self.stream = nats_stream
        with Plain(self.server.port, **_LOGIN) as client:
            client.make(self.stream)
        yield
        self.server.ensure_running()

    def url(self) -> str:
        return f"nats://kit:hush-hush@127.0.0.1:{self.server.port}/{self.stream}?prefix={self.stream}.&timeout={self.patience}"

    def unusable_url(self) -> str:
        return f"nats://kit:something-else@127.0.0.1:{self.server.port}/{self.stream}"

    def arrived(self) -> list[Arrived]:
        return [
            Arrived(found.value, topic, found.key, found.headers, found.timestamp, found.partition)
            for topic, found in entries(self.server.port, self.stream, **_LOGIN)
        ]

    def kept(self, message: Message) -> Arrived:
        time = message.accepted if message.timestamp is None else message.timestamp
        return Arrived(message.value, message.topic, message.key, message.headers, time, message.partition)

    def take_down(self) -> None:
        self.server.kill()

    def bring_up(self) -> None:
        self.server.ensure_running()
        with Plain(self.server.port, **_LOGIN) as client:
            client.change(self.stream, max_msgs=-1)

    def freeze(self) -> None:
        self.server.freeze()

    def thaw(self) -> None:
        self.server.thaw()

    def fail_after(self, count: int) -> None:
        with Plain(self.server.port, **_LOGIN) as client:
            there = client.ask(f"STREAM.INFO.{self.stream}")["state"]["messages"]
            client.change(self.stream, max_msgs=there + count, discard="new")

    def make_rejected(self, message: Message) -> Message:
        return message._replace(headers=(("h", bytes(70_000)),))
