"""The contract, kept by the provider ``http``, against a real endpoint: a request a message, and one for many."""

from __future__ import annotations

import base64
import uuid

import pytest

from mbframework.message import Message
from mbframework.testing.conformance import Arrived, ProviderContract
from mbframework.testing.http import HttpServer, Manner
from tests.providers.http_reading import items

pytest_plugins = ["mbframework.testing.conformance"]

_PASSWORD = "hush-hush"
_LOGIN = "Basic " + base64.b64encode(f"kit:{_PASSWORD}".encode()).decode()
_POISON = b"not to be taken"


class TestHttp(ProviderContract):
    """Each message is a request."""

    patience = "1s"
    query = ""
    partitions = (0, 3)
    #: With a request for each message.
    huge_batch = 500
    kills = 3
    #: An answer that is under way gets two seconds.
    stopping_timeout = 4.0

    @pytest.fixture(autouse=True)
    def destination(self, http_server: HttpServer) -> None:
        self.server = http_server
        #: Of this test alone: a request that an earlier one gave up may still be stored.
        self.path = f"/inbox/{uuid.uuid4().hex}"
        self._behave()

    def _behave(self, **more: int) -> None:
        self.server.behave(Manner(authorization=_LOGIN, poison=_POISON.decode(), **more))

    def url(self) -> str:
        return f"http://kit:{_PASSWORD}@127.0.0.1:{self.server.port}{self.path}?mb.timeout={self.patience}{self.query}"

    def unusable_url(self) -> str:
        return (
            f"http://kit:something-else@127.0.0.1:{self.server.port}{self.path}?mb.timeout={self.patience}{self.query}"
        )

    def arrived(self) -> list[Arrived]:
        return [
            Arrived(found.value, found.topic, found.key, found.headers, found.timestamp, found.partition)
            for found in items(self.server, self.path)
        ]

    def kept(self, message: Message) -> Arrived:
        time = message.accepted if message.timestamp is None else message.timestamp
        return Arrived(message.value, message.topic, message.key, message.headers, time, message.partition)

    def take_down(self) -> None:
        self.server.kill()

    def bring_up(self) -> None:
        self._behave()
        self.server.ensure_running()

    def freeze(self) -> None:
        self.server.freeze()

    def thaw(self) -> None:
        self.server.thaw()

    def fail_after(self, count: int) -> None:
        self._behave(after=count, status=503)

    def make_rejected(self, message: Message) -> Message:
        return message._replace(value=(message.value or b"") + _POISON)


class TestArrays(TestHttp):
    """A request has many messages, in a JSON array; what is refused is found by halves."""

    query = "&mb.body=array&mb.request_messages=300"
    huge_batch = 10_000
    kills = 2

    def fail_after(self, count: int) -> None:
        # A request is kept whole.
        self._behave(status=503)
