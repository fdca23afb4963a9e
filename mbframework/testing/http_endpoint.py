"""The program of :class:`mbframework.testing.http.HttpServer`: an HTTP/1.1 endpoint that stores requests in a file.

Promises:

- A request is answered with 2xx when it is in the file as a whole, and on the device unless it was told otherwise.
- Half a request, which a kill has left at the end of the file, is cut off at the next start.
- Requests are stored one at a time, in the order in which they came in whole.

The file: for each request one line of JSON, the body in base64. How it behaves otherwise stands in the file
``manner.json`` beside it, which is read again when it has changed.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

STORE, MANNER = "requests.jsonl", "manner.json"
_KEY = "idempotency-key"


@dataclass(frozen=True, slots=True)
class Stored:
    """A request as it came; headers in their order, with their names as they were written."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The first header of that name, whatever its case."""
        return next((value for each, value in self.headers if each.lower() == name.lower()), None)


@dataclass(frozen=True, slots=True)
class Manner:
    """How the endpoint behaves. The rules are tried in this order."""

    #: What ``Authorization`` must be; else 401. Any where it is None.
    authorization: str | None = None
    #: The length in bytes from which on a body is answered with 413; 0: none.
    largest: int = 0
    #: A body that contains this is answered with 422; "": none.
    poison: str = ""
    #: So many requests are handled as usual before the rules below begin.
    after: int = 0
    #: So many requests are answered by the rules below; 0: all.
    times: int = 0
    #: Answer with this and store nothing; 0: as usual.
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    #: Store the request, and end the connection without an answer.
    hang_up: bool = False
    #: Seconds between the storing and the answer.
    pause: float = 0.0
    #: The body is ndjson, or an array: store one by one, and answer ``{"items": [{"status": 200}, …]}``. One that
    #: contains ``poison`` has status 422, one that contains ``busy`` 503.
    each: bool = False
    busy: str = ""


def read(path: Path) -> list[Stored]:
    """The requests in a file, but for half a one at its end."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    found = []
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        one = json.loads(line)
        headers = tuple((name, value) for name, value in one["headers"])
        found.append(Stored(one["method"], one["target"], headers, base64.b64decode(one["body"])))
    return found


class _Store:
    """The file. Any thread."""

    def __init__(self, folder: Path, *, sync: bool, drop_repeats: bool) -> None:
        self._path = folder / STORE
        self._manner_path = folder / MANNER
        self._sync = sync
        self._drop_repeats = drop_repeats
        self._lock = threading.Lock()
        self._keys = {one.header(_KEY) for one in read(self._path)} if drop_repeats else set[str | None]()
        self._manner = Manner()
        self._manner_mark: tuple[int, int] | None = None
        self._seen = 0
        if self._path.exists():
            whole = self._path.read_bytes().rfind(b"\n") + 1
            os.truncate(self._path, whole)

    def manner(self) -> tuple[Manner, int]:
        """How to behave, and the number of this request since that was said, from 1."""
        with self._lock:
            try:
                info = self._manner_path.stat()
                mark = (info.st_ino, info.st_mtime_ns)
                if mark != self._manner_mark:
                    self._manner, self._manner_mark = Manner(**json.loads(self._manner_path.read_bytes())), mark
                    self._seen = 0
            except FileNotFoundError:
                pass
            self._seen += 1
            return self._manner, self._seen

    def add(self, request: Stored) -> bool:
        """Store it; False where its key is known."""
        key = request.header(_KEY)
        line = asdict(request) | {"body": base64.b64encode(request.body).decode()}
        written = json.dumps(line).encode() + b"\n"
        with self._lock:
            if self._drop_repeats and key is not None:
                if key in self._keys:
                    return False
                self._keys.add(key)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                left = memoryview(written)
                while left:
                    left = left[os.write(descriptor, left) :]
                if self._sync:
                    os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
        return True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Else the kernel holds the body of an answer back until its head is acknowledged.
    disable_nagle_algorithm = True
    store: _Store

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:
            # The client is gone in the middle of it.
            self.close_connection = True
            return
        request = Stored(self.command, self.path, tuple(self.headers.items()), body)
        manner, number = self.store.manner()
        begun = manner.after < number and (not manner.times or number <= manner.after + manner.times)
        poison, busy = manner.poison.encode(), manner.busy.encode()
        if manner.authorization is not None and self.headers.get("Authorization") != manner.authorization:
            self._answer(401, {"message": "who are you?"})
        elif manner.largest and len(body) > manner.largest:
            self._answer(413, {"message": f"at most {manner.largest} bytes"})
        elif manner.each:
            self._answer(200, {"items": [self._one(request, piece, poison, busy) for piece in _pieces(body)]})
        elif poison and poison in body:
            self._answer(422, {"message": "this is not to be taken"})
        elif begun and manner.status:
            self._answer(manner.status, manner.body, manner.headers)
        else:
            new = self.store.add(request)
            if begun and manner.hang_up:
                self.close_connection = True
                return
            if begun and manner.pause:
                time.sleep(manner.pause)
            self._answer(200, {"stored": new})

    do_PUT = do_PATCH = do_POST  # noqa: N815  (the names that http.server calls)

    def _one(self, request: Stored, piece: bytes, poison: bytes, busy: bytes) -> dict[str, Any]:
        if poison and poison in piece:
            return {"create": {"status": 422, "error": {"reason": "this is not to be taken"}}}
        if busy and busy in piece:
            return {"create": {"status": 503, "error": {"reason": "later"}}}
        self.store.add(Stored(request.method, request.target, request.headers, piece))
        return {"create": {"status": 201}}

    def _answer(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        body = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status)
        if not isinstance(content, str):
            self.send_header("Content-Type", "application/json")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Only what goes wrong is worth a line."""


def _pieces(body: bytes) -> list[bytes]:
    """The parts of an array, or of lines, as JSON."""
    if body.lstrip().startswith(b"["):
        return [json.dumps(each, ensure_ascii=False).encode() for each in json.loads(body)]
    return body.splitlines()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Connections that a kill has left may still be known to the kernel.
    allow_reuse_address = True
    security: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        # On the connection's own thread, where one client that says nothing holds up no other.
        if self.security is not None:
            try:
                request = self.security.wrap_socket(request, server_side=True)
            except OSError:
                return
        try:
            super().finish_request(request, client_address)
        except ConnectionError:
            pass
        finally:
            if self.security is not None:
                request.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description="an HTTP endpoint that stores what arrives")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True, help="the folder of its files")
    parser.add_argument("--drop-repeats", action="store_true", help="store a request of a known Idempotency-Key once")
    parser.add_argument("--no-sync", dest="sync", action="store_false", help="leave it to the system when to write")
    parser.add_argument("--certificate", nargs=2, metavar=("CERTIFICATE", "KEY"), help="PEM files; speaks TLS")
    parser.add_argument("--authority", help="PEM file of who vouches for clients, which must show a certificate")
    chosen = parser.parse_args(arguments)
    _Handler.store = _Store(chosen.data, sync=chosen.sync, drop_repeats=chosen.drop_repeats)
    with _Server(("127.0.0.1", chosen.port), _Handler) as server:
        if chosen.certificate:
            server.security = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server.security.load_cert_chain(*chosen.certificate)
            if chosen.authority:
                server.security.load_verify_locations(chosen.authority)
                server.security.verify_mode = ssl.CERT_REQUIRED
        server.serve_forever()


if __name__ == "__main__":
    main()
