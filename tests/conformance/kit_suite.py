"""The kit applied to the reference, with and without a position, and to each flaw: run in a process of its own.

A flaw meets the rule that it breaks and the quick ones beside it in the contract; with ``MBFRAMEWORK_TEST_KIT=long``
the whole contract.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kit_flaws import DECLARATIONS, FLAWS, Flaw
from kit_reference import Options, make
from kit_server import TOKEN, Server

from mbframework.message import Message
from mbframework.provider import Provider
from mbframework.testing.conformance import Arrived, ProviderContract

pytest_plugins = ["mbframework.testing.conformance"]

LONG = os.environ.get("MBFRAMEWORK_TEST_KIT") == "long"
#: What a flaw makes the kit wait for, in seconds.
PATIENCE = {} if LONG else {"recovery_timeout": 2.0, "answer_timeout": 3.0, "parting_timeout": 0.5}
#: Rules that wait, or start processes: only flaws that break one of them meet one.
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


def flawed(name: str, rule: str, **attributes: Any) -> None:
    not_met = dict.fromkeys(set(rules(ProviderContract)) - met(rule) - {rule})
    applied(name, **PATIENCE, **not_met, **attributes)


def rules(of: type) -> list[str]:
    return [name for name in dir(of) if name.startswith("test_")]


def met(broken: str) -> set[str]:
    """The rules that a flaw keeps, and meets."""
    if LONG:
        return set(rules(ProviderContract)).difference(() if broken in SLOW else SLOW)
    beside = next(part for part in ProviderContract.__mro__ if broken in vars(part))
    return set() if broken in SLOW else set(rules(beside)).difference(SLOW)


def directly(name: str, flaw: Flaw) -> Callable[[Suite], Provider]:
    """Much faster than by a URL, since that looks at all that is installed."""

    def make_directly(suite: Suite) -> Provider:
        host, timeout = f"127.0.0.1:{suite.server.port}", float(flaw.url.rpartition("=")[2] or 1)
        return make(Options(hosts=(host,), token=TOKEN, timeout=timeout, position=flaw.position, flaw=name))

    return make_directly


applied("Reference", kills=2)
applied("ReferenceWithPosition", keeps_position=True, kills=2)
for name, rule in DECLARATIONS.items():
    flawed(name, rule, scheme=name.lower())
for name, flaw in FLAWS.items():
    more = f"&flaw={name}{flaw.url}"
    flawed(name, flaw.rule, make=directly(name, flaw), keeps_position=flaw.position, more=more)
