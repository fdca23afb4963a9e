"""The provider ``reference``: keeps the contract, and is what the bad ones derive from."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mbframework.errors import ConfigurationError, ProviderUnusable, SendFailed
from mbframework.message import Batch, Message, Position
from mbframework.plugins import ProviderType, hookimpl, option
from mbframework.provider import Context, Provider

LOOK_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    hosts: tuple[str, ...] = option(help="the server, as name:port", part="hosts")
    token: str = option("", help="what lets us in", secret=True)
    timeout: float = option(1.0, help="how long an answer may take", unit="s")
    position: bool = option(False, help="keep the lane's position with the messages")
    flaw: str = option("", help="which rule to break")


def text(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()


class Reference(Provider):
    max_message_bytes = 300_000

    def __init__(self, options: Options) -> None:
        name, _, port = options.hosts[0].rpartition(":")
        self.options = options
        self.address = name, int(port)
        self.connection: socket.socket | None = None
        self.context = Context(buffer_id="", lane="", run=b"")
        self.is_open = False
        self.is_closed = False

    def __repr__(self) -> str:
        return "<Reference>"

    def open(self, context: Context) -> None:
        self.drop()
        self.context = context
        self.is_open, self.is_closed = True, False
        if "denied" in self.ask({}):
            raise ProviderUnusable("the server does not take this token; correct the option 'token'")

    def send(self, batch: Batch) -> None:
        if not self.is_open:
            raise SendFailed("not open; call open() first")
        if len(batch):
            self.deliver(batch, list(batch))

    def deliver(self, batch: Batch, messages: list[Message]) -> None:
        limit = self.max_message_bytes or 1 << 30
        large = {i: "too large" for i, m in enumerate(messages) if len(m.value or b"") > limit}
        if large and self.options.position:
            raise SendFailed("too large", rejected=large)
        wanted = [i for i in range(len(messages)) if i not in large]
        request: dict[str, Any] = {"messages": [self.encode(messages[i]) for i in wanted]}
        if self.options.position:
            request["position"] = [batch.position.sequence, batch.position.run.hex()]
        answer = self.ask(request)
        if "denied" in answer:
            raise ProviderUnusable("the server does not take this token any more; correct the option 'token'")
        rejected = large | {wanted[i]: "the server refuses this topic" for i in answer["rejected"]}
        left = [i for i in wanted if i not in rejected]
        if rejected or answer["stored"] < len(left):
            raise SendFailed("the server did not take all", undelivered=left[answer["stored"] :], rejected=rejected)

    def encode(self, message: Message) -> dict[str, Any]:
        return {
            "sequence": message.sequence,
            "topic": message.topic,
            "key": text(message.key),
            "value": text(message.value),
            "headers": [[name, text(content)] for name, content in message.headers],
            "timestamp": message.timestamp,
            "partition": message.partition,
        }

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One request, one answer; a lost connection is mended by the next."""
        whose = {"token": self.options.token, "buffer": self.context.buffer_id, "lane": self.context.lane}
        line = json.dumps({**whose, **request}).encode() + b"\n"
        try:
            if self.connection is None:
                self.connection = socket.create_connection(self.address, self.options.timeout)
            self.connection.settimeout(self.options.timeout)
            self.connection.sendall(line)
        except OSError as error:
            self.drop()
            raise SendFailed(f"no connection to the server: {error}", uncertain=True) from error
        answer = self.answer(time.monotonic() + self.options.timeout)
        return dict(json.loads(answer))

    def answer(self, give_up: float) -> bytes:
        connection = self.connection
        received = b""
        while not received.endswith(b"\n"):
            if connection is None or self.context.stopping.is_set() or self.is_closed or time.monotonic() > give_up:
                self.drop()
                raise SendFailed("the server did not answer in time", uncertain=True)
            connection.settimeout(LOOK_S)
            try:
                part = connection.recv(65536)
            except TimeoutError:
                continue
            except OSError as error:
                self.drop()
                raise SendFailed(f"the connection broke: {error}", uncertain=True) from error
            if not part:
                self.drop()
                raise SendFailed("the server hung up", uncertain=True)
            received += part
        return received

    def committed(self) -> Position | None:
        found = self.ask({})["position"]
        return None if found is None else Position(found[0], bytes.fromhex(found[1]))

    def destination(self) -> str:
        return "reference:the-one"

    def describe(self) -> Mapping[str, str]:
        return {"server": "in the test"}

    def close(self, timeout: float) -> None:
        self.is_closed = True
        self.is_open = False
        self.drop()

    def drop(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()


def make(options: Options) -> Provider:
    from kit_flaws import FLAWS

    if options.flaw and options.flaw not in FLAWS:
        raise ConfigurationError(f"no such flaw: {options.flaw}", option="flaw")
    return (FLAWS[options.flaw].provider if options.flaw else Reference)(options)


@hookimpl
def mbframework_provider() -> ProviderType:
    return ProviderType(api=1, name="reference", options=Options, factory=make, summary="for the kit's own tests")
