"""A forward proxy for the tests: it connects (CONNECT), passes plain requests on, and may ask for user and password."""

from __future__ import annotations

import base64
import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


class Proxy:
    """Where it is, and the requests that came, as ``CONNECT host:port`` or ``POST http://…``."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.seen: list[str] = []


@contextlib.contextmanager
def running_proxy(login: str = "") -> Iterator[Proxy]:
    """A proxy on 127.0.0.1; ``login``: "user:password", else 407."""
    expected = f"Basic {base64.b64encode(login.encode()).decode()}" if login else None

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _allowed(self) -> bool:
            proxy.seen.append(f"{self.command} {self.path}")
            if expected is None or self.headers.get("Proxy-Authorization") == expected:
                return True
            self.send_response(407)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return False

        def do_CONNECT(self) -> None:
            if not self._allowed():
                return
            host, _, port = self.path.rpartition(":")
            with socket.create_connection((host, int(port)), 5) as far:
                self.send_response(200)
                self.end_headers()
                _pass_on(self.connection, far)
            self.close_connection = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if not self._allowed():
                return
            target = urlsplit(self.path)
            with socket.create_connection((target.hostname, target.port), 5) as far:
                lines = [f"POST {target.path} HTTP/1.1"]
                lines += [f"{name}: {value}" for name, value in self.headers.items() if "proxy" not in name.lower()]
                far.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)
                answer = b"".join(iter(lambda: far.recv(65536), b""))
            # It must know that no other request may follow on this connection.
            self.wfile.write(answer.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        # They end with the connections, which clients keep open.
        server.daemon_threads = True
        proxy = Proxy(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    while True:
        for ready in select.select([one, other], [], [])[0]:
            data = ready.recv(65536)
            if not data:
                return
            (other if ready is one else one).sendall(data)
