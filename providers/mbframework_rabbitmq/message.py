"""A message as AMQP has it: routing key, properties and body. Pure functions.

::

    body             the value
    routing key      the prefix and the topic
    type             "tombstone" where the value is None; the body is empty then
    message_id       BUFFER:LANE:SEQUENCE, the same where a message is repeated
    delivery_mode    2, persistent
    timestamp        whole seconds since 1970: the caller's, else when write() took the message
    headers          the message's own, in order; a name that comes again holds the array of its values
                     mb-key        the key; absent for None
                     mb-timestamp  the timestamp in nanoseconds
                     mb-partition  only where the caller gave one

A value of a header is a text where its bytes are UTF-8, else a byte array.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pika import BasicProperties

from mbframework.message import NO_PARTITION, Header

KEY = "mb-key"
TIMESTAMP = "mb-timestamp"
PARTITION = "mb-partition"
_TOMBSTONE = "tombstone"
_RESERVED = "amq."
_SECOND = 1_000_000_000

#: Bytes of a name in AMQP.
LONGEST_NAME = 255
#: Bytes of a frame that hold no header of the message: its other properties, generously.
_OTHER_PROPERTIES = 1024


class Content(NamedTuple):
    """A message read back; ``timestamp`` is nanoseconds since 1970."""

    value: bytes | None
    key: bytes | None
    headers: tuple[Header, ...]
    timestamp: int
    partition: int | None


def properties(
    message_id: str, value: bytes | None, key: bytes | None, headers: Iterable[Header], time: int, partition: int
) -> BasicProperties:
    """All of a message but for routing key and body. ``time`` is nanoseconds since 1970."""
    table: dict[str, Any] = {TIMESTAMP: time}
    if key is not None:
        table[KEY] = _text(key)
    if partition != NO_PARTITION:
        table[PARTITION] = partition
    for name, content in headers:
        told = None if content is None else _text(content)
        if name not in table:
            table[name] = told
        elif isinstance(table[name], list):
            table[name].append(told)
        else:
            table[name] = [table[name], told]
    return BasicProperties(
        delivery_mode=2,
        message_id=message_id,
        headers=table,
        # Before 1970 only the header tells it.
        timestamp=time // _SECOND if time >= 0 else None,
        type=_TOMBSTONE if value is None else None,
    )


def decode(found: BasicProperties, body: bytes) -> Content:
    """A message from what a consumer gets; for programs that read a queue."""
    table: Mapping[str, Any] = found.headers or {}
    headers: list[Header] = []
    for name, content in table.items():
        if name not in (KEY, TIMESTAMP, PARTITION):
            headers += [(name, _bytes(one)) for one in (content if isinstance(content, list) else [content])]
    return Content(
        None if found.type == _TOMBSTONE else body,
        _bytes(table.get(KEY)),
        tuple(headers),
        int(table[TIMESTAMP]),
        table.get(PARTITION),
    )


def refusal(
    routing_key: str, value: bytes | None, key: bytes | None, block: bytes | None, *, largest: int, frame: int
) -> str:
    """Why RabbitMQ can never take this message; "" where it can.

    :param block: the headers, encoded, or None.
    :param largest: bytes of a body; ``frame``: bytes of a frame, 0 for no limit.
    """
    if value is not None and len(value) > largest:
        return f"its value has {len(value)} bytes; this RabbitMQ takes {largest} (max_message_size)"
    if len(routing_key) > LONGEST_NAME // 4 and (size := len(routing_key.encode())) > LONGEST_NAME:
        return f"its routing key has {size} bytes; AMQP takes {LONGEST_NAME}"
    # A header takes about as many bytes in AMQP as it does in the block.
    size = len(block or b"") + len(key or b"")
    if frame and size > frame - _OTHER_PROPERTIES:
        return f"its key and headers have {size} bytes; they must fit into one frame of {frame} (frame_max)"
    return ""


def queue_refusal(queue: str) -> str:
    """Why RabbitMQ can never make a queue of this name; "" where it can."""
    if "\r" in queue or "\n" in queue:
        # It would take them out, and make a queue of another name.
        return f"its queue would be called {queue!r}; RabbitMQ makes none with a carriage return or a line feed"
    if queue.startswith(_RESERVED):
        return f"its queue would be called {queue!r}; RabbitMQ keeps names that begin with {_RESERVED!r} for itself"
    return ""


def names_refusal(headers: Iterable[Header]) -> str:
    """Why AMQP cannot hold headers of these names; "" where it can."""
    for name, _ in headers:
        if len(name.encode()) > LONGEST_NAME:
            return f"a header's name has more than {LONGEST_NAME} bytes, the most that AMQP takes"
        if name in (KEY, TIMESTAMP, PARTITION):
            return f"a header is called {name!r}, which the provider keeps for itself; call it otherwise"
    return ""


def _text(content: bytes) -> str | bytes:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content


def _bytes(content: object) -> bytes | None:
    return content.encode() if isinstance(content, str) else content if isinstance(content, bytes) else None
