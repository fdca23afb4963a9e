"""A small broker for the kit's own tests: one JSON object a line over TCP, in memory, with a way to go wrong.

A request is ``{"token", "buffer", "lane", "messages", "position"}``, or ``{"ask": "position"}``; the answer says
``stored``, ``rejected`` and ``position``. Messages are kept whole; with ``position`` in the request it is kept in the
same step, and what lies below it is passed over.
"""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import threading
from typing import Any

TOKEN = "sesame-7361"


class Server:
    """Listens on one port while it is up; ``messages`` are those that were stored."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.positions: dict[str, list[Any]] = {}
        self.refused_topic = "refused"
        self.room: int | None = None
        self.running = threading.Event()
        self.running.set()
        self.connections: set[socket.socket] = set()
        self.lock = threading.Lock()
        self.listener: _Listener | None = None
        self.port = 0
        self.up()

    def up(self) -> None:
        if self.listener is None:
            self.listener = _Listener(("127.0.0.1", self.port), _Connection)
            self.listener.owner = self
            self.port = self.listener.server_address[1]
            self.thread = threading.Thread(target=self.listener.serve_forever, kwargs={"poll_interval": 0.005})
            self.thread.start()
        self.room = None

    def down(self) -> None:
        listener, self.listener = self.listener, None
        if listener is not None:
            listener.shutdown()
            self.thread.join()
            for connection in list(self.connections):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self.running.set()
            listener.server_close()

    def freeze(self) -> None:
        self.running.clear()

    def thaw(self) -> None:
        self.running.set()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["token"] != TOKEN:
            return {"denied": True}
        whose = f"{request['buffer']}/{request['lane']}"
        with self.lock:
            if "messages" not in request:
                return {"position": self.positions.get(whose)}
            wanted = request["messages"]
            rejected = [i for i, m in enumerate(wanted) if m["topic"] == self.refused_topic]
            position = request.get("position")
            if position is not None:
                return self._whole(whose, wanted, rejected, position)
            taken = [m for i, m in enumerate(wanted) if i not in rejected][: self.room]
            self.messages += taken
            return {"stored": len(taken), "rejected": rejected}

    def _whole(
        self, whose: str, wanted: list[dict[str, Any]], rejected: list[int], position: list[Any]
    ) -> dict[str, Any]:
        if rejected or (self.room is not None and self.room < len(wanted)):
            return {"stored": 0, "rejected": rejected}
        known = self.positions.get(whose, [0, ""])
        self.messages += [message for message in wanted if message["sequence"] >= known[0]]
        if wanted or position[0] > known[0]:
            self.positions[whose] = max(position, known, key=lambda one: one[0])
        return {"stored": len(wanted), "rejected": []}


class _Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    owner: Server


class _Connection(socketserver.StreamRequestHandler):
    server: _Listener

    def handle(self) -> None:
        owner = self.server.owner
        owner.connections.add(self.connection)
        with contextlib.suppress(OSError, ValueError):
            while line := self.rfile.readline():
                owner.running.wait()
                if owner.listener is None:
                    break
                self.wfile.write(json.dumps(owner.answer(json.loads(line))).encode() + b"\n")
        owner.connections.discard(self.connection)
