"""Messages as bodies and headers of requests, and back. Pure functions.

A request for one message, ``body=raw``: the value is the body, the rest stands in headers, percent-encoded (letters,
digits and ``-._~`` are as they are, every other byte is ``%XX``)::

    Mb-Sequence: 17               rises within buffer and lane; with these two it names the message for good
    Mb-Topic: orders
    Mb-Key: customer-7            absent: None
    Mb-Header: trace=4711         once for each header, in order; without "=" for a value of None
    Mb-Timestamp: 170000000…      nanoseconds since 1970: the caller's, else when write() took the message
    Mb-Partition: 3               only where the caller gave one
    Mb-Tombstone: true            the value is None, which is not an empty one

As an object, ``body=json``, ``array`` and ``ndjson``; what is not UTF-8 stands under the same name with ``_base64``::

    {"sequence": 17, "topic": "orders", "key": "customer-7", "value": "two apples",
     "headers": [{"name": "trace", "value": "4711"}], "timestamp": 170000000…, "partition": 3}

Every request also has ``Mb-Buffer`` and ``Mb-Lane``.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, quote_from_bytes, unquote, unquote_to_bytes

from mbframework.message import Header, Message

#: Bytes that some servers take for the end of a line, within a value that is JSON: only ever between its parts.
_BREAKS = bytes.maketrans(b"\r\n", b"  ")
#: What a header of a request may hold as it is.
_PLAIN = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


class Item(NamedTuple):
    """A message as it arrived; ``timestamp`` is nanoseconds since 1970."""

    sequence: int
    topic: str
    value: bytes | None
    key: bytes | None
    headers: tuple[Header, ...]
    timestamp: int
    partition: int | None


# -- one message in headers ----------------------------------------------------------------------


def headers_of(message: Message) -> list[tuple[str, str]]:
    """All but the value, as headers."""
    found = [
        ("Mb-Sequence", str(message.sequence)),
        ("Mb-Topic", quote(message.topic, safe="")),
        ("Mb-Timestamp", str(_time_of(message))),
    ]
    if message.key is not None:
        found.append(("Mb-Key", quote_from_bytes(message.key, safe="")))
    if message.partition is not None:
        found.append(("Mb-Partition", str(message.partition)))
    for name, value in message.headers:
        equals = "" if value is None else f"={quote_from_bytes(value, safe='')}"
        found.append(("Mb-Header", quote(name, safe="") + equals))
    if message.value is None:
        found.append(("Mb-Tombstone", "true"))
    return found


def forwarded(headers: Sequence[Header], names: Iterable[str]) -> list[tuple[str, str]]:
    """Those headers of a message that become the request's, where their values can; their names are in lower case."""
    wanted = set(names)
    return [
        (name.lower(), value.decode("ascii"))
        for name, value in headers
        if name.lower() in wanted and value is not None and _PLAIN.fullmatch(value)
    ]


def from_headers(headers: Iterable[tuple[str, str]], body: bytes) -> Item:
    """The reverse of :func:`headers_of`, for receivers. Headers of one name in their order; ValueError: not ours."""
    plain: dict[str, str] = {}
    own: list[Header] = []
    for name, value in headers:
        if name.lower() != "mb-header":
            plain[name.lower()] = value
            continue
        inner, equals, content = value.partition("=")
        own.append((unquote(inner), unquote_to_bytes(content) if equals else None))
    if "mb-sequence" not in plain:
        raise ValueError("the request has no Mb-Sequence")
    key, partition = plain.get("mb-key"), plain.get("mb-partition")
    return Item(
        int(plain["mb-sequence"]),
        unquote(plain["mb-topic"]),
        None if "mb-tombstone" in plain else body,
        None if key is None else unquote_to_bytes(key),
        tuple(own),
        int(plain["mb-timestamp"]),
        None if partition is None else int(partition),
    )


# -- messages as JSON ----------------------------------------------------------------------------


def object_of(message: Message) -> bytes:
    """A message as an object, in one line."""
    found: dict[str, Any] = {"sequence": message.sequence, "topic": message.topic}
    _put(found, "key", message.key)
    _put(found, "value", message.value)
    if message.headers:
        found["headers"] = [_put({"name": name}, "value", value) for name, value in message.headers]
    found["timestamp"] = _time_of(message)
    if message.partition is not None:
        found["partition"] = message.partition
    return json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()


def from_object(found: Mapping[str, Any]) -> Item:
    """The reverse of :func:`object_of`, for receivers. KeyError, ValueError: it is none."""
    headers = tuple((each["name"], _get(each, "value")) for each in found.get("headers", ()))
    return Item(
        found["sequence"],
        found["topic"],
        _get(found, "value"),
        _get(found, "key"),
        headers,
        found["timestamp"],
        found.get("partition"),
    )


def json_of(value: bytes | None) -> bytes | None:
    """A value that is JSON, in one line; None: it is no JSON."""
    if value is None:
        return b"null"
    try:
        json.loads(value, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return value.translate(_BREAKS)


def joined(pieces: Sequence[bytes], body: str) -> bytes:
    """Pieces of JSON as one body: ``array``, ``ndjson``, or ``json`` of the only one."""
    if body == "array":
        return b"[" + b",".join(pieces) + b"]"
    return b"\n".join(pieces) + b"\n" if body == "ndjson" else pieces[0]


def _time_of(message: Message) -> int:
    return message.accepted if message.timestamp is None else message.timestamp


def _put(found: dict[str, Any], name: str, content: bytes | None) -> dict[str, Any]:
    try:
        found[name] = None if content is None else content.decode()
    except UnicodeDecodeError:
        found[f"{name}_base64"] = base64.b64encode(content or b"").decode()
    return found


def _get(found: Mapping[str, Any], name: str) -> bytes | None:
    if f"{name}_base64" in found:
        return base64.b64decode(found[f"{name}_base64"], validate=True)
    content = found[name]
    return None if content is None else content.encode()


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
