"""What an endpoint has stored, as messages."""

from __future__ import annotations

import json

from mbframework_http.envelope import Item, from_headers, from_object

from mbframework.testing.http import HttpServer
from mbframework.testing.http_endpoint import Stored


def items(server: HttpServer, path: str = "/") -> list[Item]:
    """The messages of all requests to what begins with ``path``, in order."""
    return [item for request in server.stored() if request.target.startswith(path) for item in items_of(request)]


def items_of(request: Stored) -> list[Item]:
    """The messages of one request, by the kind of its body."""
    kind = request.header("Content-Type")
    if kind == "application/x-ndjson":
        return [from_object(json.loads(line)) for line in request.body.split(b"\n") if line]
    if kind == "application/json":
        found = json.loads(request.body)
        return [from_object(each) for each in (found if isinstance(found, list) else [found])]
    return [from_headers(request.headers, request.body)]


def numbers(server: HttpServer) -> list[int]:
    """The values that are numbers, in order."""
    return [int((item.value or b"").rstrip(b".")) for item in items(server)]
