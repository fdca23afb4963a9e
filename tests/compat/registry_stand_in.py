"""A stand-in for Confluent Schema Registry, as a process of its own: it gives ids and says how often it was asked.

``python -m tests.compat.registry_stand_in`` prints its port, and serves until it is killed.
"""

from __future__ import annotations

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_ids: dict[tuple[str, str], int] = {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        found = re.match(r"/subjects/([^/?]+)(/versions)?(\?|$)", self.path)
        if found is None:
            self.answer(404, {"error_code": 404, "message": self.path})
            return
        schema = (found[1], json.loads(body)["schema"])
        number = _ids.setdefault(schema, 100 + len(_ids))
        self.answer(200, {"id": number, "subject": found[1], "version": 1, "schema": schema[1]})

    def answer(self, status: int, content: object) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        print("asked", self.path, flush=True)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
