"""What the provider ``nats`` stored, read over the plain protocol: headers as they are, repeated ones as well."""

from __future__ import annotations

import json
import socket
import uuid
from collections import deque
from types import TracebackType
from typing import Any, NamedTuple, Self

from mbframework_nats.entry import Entry, decode, topic_of


class Raw(NamedTuple):
    subject: str
    reply: str
    headers: bytes
    data: bytes


class Plain:
    """A connection that asks and reads, one thing at a time."""

    def __init__(self, port: int, **login: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._lines = self._socket.makefile("rb")
        self._inbox = uuid.uuid4().hex
        self._early: deque[Raw] = deque()
        self._lines.readline()
        options = {"verbose": False, "headers": True, "no_responders": True, **login}
        self._write(f"CONNECT {json.dumps(options)}\r\nSUB {self._inbox}.answer 1\r\nSUB {self._inbox}.read 2\r\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._socket.close()

    def _write(self, text: str) -> None:
        self._socket.sendall(text.encode())

    def next(self) -> Raw:
        """The next message."""
        return self._early.popleft() if self._early else self._read()

    def _read(self) -> Raw:
        while True:
            line = self._lines.readline().decode().split()
            if not line:
                raise ConnectionError("the server has closed the connection")
            if line[0] == "PING":
                self._write("PONG\r\n")
            elif line[0] in ("MSG", "HMSG"):
                with_headers = line[0] == "HMSG"
                size, head = int(line[-1]), int(line[-2]) if with_headers else 0
                reply = line[3] if len(line) == (6 if with_headers else 5) else ""
                body = self._lines.read(size + 2)[:-2]
                return Raw(line[1], reply, body[:head], body[head:])

    def publish(self, subject: str, data: str, reply: str = "") -> None:
        self._write(f"PUB {subject} {reply} {len(data)}\r\n{data}\r\n")

    def ask(self, subject: str, **content: Any) -> dict[str, Any]:
        """The answer of JetStream's API."""
        self.publish(f"$JS.API.{subject}", json.dumps(content) if content else "", f"{self._inbox}.answer")
        # What a new consumer delivers may come before the answer that says that it is there.
        while (raw := self._read()).subject != f"{self._inbox}.answer":
            self._early.append(raw)
        answer: dict[str, Any] = json.loads(raw.data)
        if "error" in answer:
            raise RuntimeError(f"{subject}: {answer['error']}")
        return answer

    def make(self, stream: str, *subjects: str, **config: Any) -> None:
        """Make a stream; without subjects one for ``STREAM.>``."""
        self.ask(f"STREAM.CREATE.{stream}", name=stream, subjects=subjects or [f"{stream}.>"], **config)

    def change(self, stream: str, **config: Any) -> None:
        """Change settings of a stream."""
        kept = self.ask(f"STREAM.INFO.{stream}")["config"]
        self.ask(f"STREAM.UPDATE.{stream}", **(kept | config))

    def messages(self, stream: str) -> list[Raw]:
        """All messages, in order."""
        count = self.ask(f"STREAM.INFO.{stream}")["state"]["messages"]
        config = {"deliver_policy": "all", "ack_policy": "none", "deliver_subject": f"{self._inbox}.read"}
        answer = self.ask(f"CONSUMER.CREATE.{stream}", stream_name=stream, config=config) if count else {}
        found = [self.next() for _ in range(count)]
        if answer:
            self.ask(f"CONSUMER.DELETE.{stream}.{answer['name']}")
        return found


def entries(port: int, stream: str, prefix: str | None = None, **login: str) -> list[tuple[str, Entry]]:
    """All messages of a stream that the provider wrote, with their topics, in order."""
    with Plain(port, **login) as reader:
        return [
            (topic_of(f"{stream}." if prefix is None else prefix, raw.subject), decode(raw.headers, raw.data))
            for raw in reader.messages(stream)
            if b"Mb-Run" in raw.headers
        ]
