"""The contract, kept by the provider ``redis``, against a real server."""

from __future__ import annotations

import pytest

from mbframework.message import Message
from mbframework.testing.conformance import Arrived, ProviderContract
from mbframework.testing.redis import RedisServer
from tests.providers.redis_reading import client, entries

pytest_plugins = ["mbframework.testing.conformance"]

_PASSWORD = "hush-hush"


class TestRedis(ProviderContract):
    patience = "1s"
    keeps_position = True
    partitions = (0, 3)

    @pytest.fixture(autouse=True)
    def destination(self, redis_control: RedisServer, redis_prefix: str) -> None:
        self.server = redis_control
        self.prefix = redis_prefix
        reader = client(self.server.port)
        reader.acl_setuser("kit", enabled=True, passwords=[f"+{_PASSWORD}"], keys=["*"], commands=["+@all"])
        reader.close()

    def url(self) -> str:
        return f"redis://kit:{_PASSWORD}@127.0.0.1:{self.server.port}?prefix={self.prefix}&timeout={self.patience}"

    def unusable_url(self) -> str:
        return f"redis://kit:something-else@127.0.0.1:{self.server.port}?prefix={self.prefix}"

    def arrived(self) -> list[Arrived]:
        return [
            Arrived(found.value, topic, found.key, found.headers, found.timestamp, found.partition)
            for topic in self.topics
            for found in entries(self.server.port, self.prefix + topic)
        ]

    def kept(self, message: Message) -> Arrived:
        time = message.accepted if message.timestamp is None else message.timestamp
        return Arrived(message.value, message.topic, message.key, message.headers, time, message.partition)

    def take_down(self) -> None:
        self.server.kill()

    def bring_up(self) -> None:
        self.server.ensure_running()
        self._allow()

    def _allow(self) -> None:
        reader = client(self.server.port)
        # The users are in no file, so that a killed server has forgotten them.
        reader.acl_setuser("kit", enabled=True, passwords=[f"+{_PASSWORD}"], keys=["*"], commands=["+@all"])
        reader.config_set("maxmemory", 0)
        reader.close()

    def freeze(self) -> None:
        self.server.freeze()

    def thaw(self) -> None:
        self.server.thaw()

    def fail_after(self, count: int) -> None:
        reader = client(self.server.port)
        reader.config_set("maxmemory", 1)
        reader.close()

    def make_rejected(self, message: Message) -> Message:
        return message._replace(headers=tuple((f"h{number}", b"") for number in range(5000)))
