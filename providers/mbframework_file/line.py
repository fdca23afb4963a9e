r"""One message as one line of JSON, and back, without losing a bit.

::

    {"schema":1,"sequence":7,"topic":"orders","partition":null,"key":"42","value":"text",
     "headers":[["trace","1"]],"timestamp":null,"accepted":1700000000000000000}

- ``value`` is text where its bytes are valid UTF-8; else ``value_base64`` stands
  in its place. ``null`` is None, ``""`` is b"". The same for ``key``.
- A header is ``[name, text]``, ``[name, null]``, or ``[name, {"base64": "…"}]``.
- ``timestamp`` (the caller's, or null) and ``accepted`` are nanoseconds since
  1970: more digits than a double holds, so read them as integers.
- JSON escapes control characters, so a line ends with its only ``\n``.

Everything here is a pure function.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from mbframework.message import NO_PARTITION, NO_TIMESTAMP, Batch, Header, Message

#: The number of this layout.
SCHEMA = 1
#: What every line begins with.
BEGINNING = b'{"schema":'

_encode = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode


def encode(batch: Batch) -> bytes:
    """The lines of a batch, each with its newline."""
    lines = [
        _encode(
            {
                "schema": SCHEMA,
                "sequence": sequence,
                "topic": topic,
                "partition": None if partition == NO_PARTITION else partition,
                **_field("key", key),
                **_field("value", value),
                "headers": [[name, _header_value(content)] for name, content in headers],
                "timestamp": None if timestamp == NO_TIMESTAMP else timestamp,
                "accepted": accepted,
            }
        )
        for sequence, topic, partition, key, value, headers, timestamp, accepted in zip(
            batch.sequences,
            batch.topics,
            batch.partitions,
            batch.keys,
            batch.values,
            batch.headers,
            batch.timestamps,
            batch.accepted,
            strict=True,
        )
    ]
    lines.append("")
    return "\n".join(lines).encode()


def decode(line: bytes | str) -> Message:
    """The message of one line; for programs that read the file.

    :raises ValueError: it is no such line, or of a newer schema.
    """
    found = json.loads(line)
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise ValueError(f"expected a JSON object with schema {SCHEMA}; a newer one needs a newer mbframework_file")
    try:
        headers: tuple[Header, ...] = tuple((name, _bytes(content)) for name, content in found["headers"])
        return Message(
            found["sequence"],
            found["topic"],
            _read(found, "value"),
            _read(found, "key"),
            headers,
            found["timestamp"],
            found["partition"],
            found["accepted"],
        )
    except KeyError as missing:
        raise ValueError(f"the line has no {missing}; expected a whole line of the provider 'file'") from missing


def _text(content: bytes) -> str | None:
    try:
        return str(content, "utf-8")
    except UnicodeDecodeError:
        return None


def _field(name: str, content: bytes | None) -> dict[str, str | None]:
    if content is None:
        return {name: None}
    text = _text(content)
    return {f"{name}_base64": base64.b64encode(content).decode()} if text is None else {name: text}


def _header_value(content: bytes | None) -> object:
    if content is None:
        return None
    text = _text(content)
    return {"base64": base64.b64encode(content).decode()} if text is None else text


def _read(found: dict[str, Any], name: str) -> bytes | None:
    encoded = found.get(f"{name}_base64")
    return _bytes(found[name]) if encoded is None else base64.b64decode(encoded, validate=True)


def _bytes(content: Any) -> bytes | None:
    if content is None:
        return None
    return base64.b64decode(content["base64"], validate=True) if isinstance(content, dict) else content.encode()
