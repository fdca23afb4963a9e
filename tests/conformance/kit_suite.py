"""The kit applied to the reference, with and without a position, and to each flaw: run in a process of its own."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from kit_flaws import FLAWS, Flaw
from kit_reference import Options, make
from kit_server import TOKEN, Server

from mbframework.message import Message
from mbframework.provider import Provider
from mbframework.testing.conformance import Arrived, ProviderContract

pytest_plugins = ["mbframework.testing.conformance"]

#: Rules that wait, or start processes: only flaws that break one of them meet them.
SLOW = (
    "test_what_was_acknowledged_survives_a_kill",
    "test_the_position_agrees_after_a_kill",
    "test_a_frozen_destination_loses_nothing",
    "test_close_returns_while_send_is_stuck",
    "test_send_ends_when_the_buffer_stops",
    "test_open_ends_when_the_buffer_stops",
    "test_declaring_imports_no_client",
    "test_a_huge_batch_arrives",
)


def content(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


class Suite(ProviderContract):
    partitions = (0, 3)
    recovery_timeout = 3.0
    answer_timeout = 6.0
    reading_timeout = 0.3
    kills = 1
    huge_batch = 5_000
    scheme = "reference"
    more = ""

    @pytest.fixture(autouse=True)
    def destination(self) -> Iterator[None]:
        self.server = Server()
        yield
        self.server.thaw()
        self.server.down()

    def url(self, token: str = TOKEN) -> str:
        position = str(self.keeps_position).lower()
        return f"{self.scheme}://127.0.0.1:{self.server.port}?token={token}&position={position}{self.more}"

    def unusable_url(self) -> str:
        return self.url("wrong-4711")

    def arrived(self) -> list[Arrived]:
        return [
            Arrived(
                content(m["value"]),
                m["topic"],
                content(m["key"]),
                tuple((name, content(value)) for name, value in m["headers"]),
                m["timestamp"],
                m["partition"],
            )
            for m in self.server.messages
        ]

    def take_down(self) -> None:
        self.server.down()

    def bring_up(self) -> None:
        self.server.up()

    def freeze(self) -> None:
        self.server.freeze()

    def thaw(self) -> None:
        self.server.thaw()

    def make_rejected(self, message: Message) -> Message:
        return message._replace(topic=self.server.refused_topic)

    def fail_after(self, count: int) -> None:
        self.server.room = count


def applied(name: str, **attributes: Any) -> None:
    globals()[f"Test{name}"] = type(f"Test{name}", (Suite,), attributes)


def flawed(name: str, flaw: Flaw) -> None:
    def make_directly(suite: Suite) -> Provider:
        """Much faster than by a URL, since that looks at all that is installed."""
        host, timeout = f"127.0.0.1:{suite.server.port}", float(flaw.url.rpartition("=")[2] or 1)
        return make(Options(hosts=(host,), token=TOKEN, timeout=timeout, position=flaw.position, flaw=name))

    slow = {} if flaw.rule in SLOW else dict.fromkeys(SLOW)
    applied(name, make=make_directly, keeps_position=flaw.position, more=f"&flaw={name}{flaw.url}", **slow)


applied("Reference", kills=3)
applied("ReferenceWithPosition", keeps_position=True, kills=3)
for name in ("silent", "bare", "eager"):
    applied(name.title(), scheme=name)
for name, flaw in FLAWS.items():
    flawed(name, flaw)
