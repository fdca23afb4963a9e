"""A message as MQTT 5 has it: topic, payload and user properties. Pure functions.

::

    topic            the prefix and the topic
    payload          the value; empty for None
    user properties  mb-id         BUFFER:LANE:SEQUENCE, the same where a message is repeated
                     mb-timestamp  nanoseconds since 1970: the caller's, else when write() took the message
                     mb-key        the key; absent for None
                     mb-partition  only where the caller gave one
                     mb-null       where the value is None
                     then the headers, in order, repeated names as well

A user property is a text without control characters. What is none has ``;base64`` behind its name, and a header whose
value is None has ``;null``; so has a header whose own name ends like that.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mbframework.message import NO_PARTITION, Header

Property = tuple[str, str]

ID, TIMESTAMP, KEY, PARTITION, NULL = "mb-id", "mb-timestamp", "mb-key", "mb-partition", "mb-null"
_OWN = frozenset({ID, TIMESTAMP, KEY, PARTITION, NULL})
_BASE64, _NONE = ";base64", ";null"
#: Bytes of a topic, a name and a value, each.
LONGEST = 65535
#: What brokers take for a mistake in a text: control characters and code points that are no characters.
_NOT_CHARACTERS = "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
_NO_TEXT = re.compile(f"[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef{_NOT_CHARACTERS}]")


class Content(NamedTuple):
    """A message read back; ``timestamp`` is nanoseconds since 1970."""

    value: bytes | None
    key: bytes | None
    headers: tuple[Header, ...]
    timestamp: int
    partition: int | None
    identity: str


def properties(
    identity: str, value: bytes | None, key: bytes | None, headers: Iterable[Header], time: int, partition: int
) -> list[Property]:
    """The user properties of a message. ``time`` is nanoseconds since 1970."""
    found = [(ID, identity), (TIMESTAMP, str(time))]
    if key is not None:
        found.append(_property(KEY, key))
    if partition != NO_PARTITION:
        found.append((PARTITION, str(partition)))
    if value is None:
        found.append((NULL, ""))
    found.extend(_property(name, content) for name, content in headers)
    return found


def decode(payload: bytes, found: Iterable[Property]) -> Content:
    """A message from what a subscriber gets; for programs that read a topic."""
    own: dict[str, bytes | None] = {}
    headers: list[Header] = []
    for raw in found:
        name, content = _content(*raw)
        if name in _OWN:
            own[name] = content
        else:
            headers.append((name, content))
    partition = own.get(PARTITION)
    return Content(
        None if NULL in own else payload,
        own.get(KEY),
        tuple(headers),
        int(own.get(TIMESTAMP) or b"0"),
        None if partition is None else int(partition),
        (own.get(ID) or b"").decode(),
    )


def refusal(topic: str, value: bytes | None, found: Sequence[Property], headers: Iterable[Header], most: int) -> str:
    """Why MQTT can never take this message; "" where it can.

    :param found: its user properties; ``most``: bytes of a packet.
    """
    if "+" in topic or "#" in topic:
        return "its topic has a wildcard (+ or #), which only subscribers may use"
    if not topic or _NO_TEXT.search(topic):
        return "its topic is empty, or has control characters; MQTT takes neither"
    if len(topic) > LONGEST // 4 and len(topic.encode()) > LONGEST:
        return f"its topic has more than {LONGEST} bytes, the most that MQTT takes"
    for name, _ in headers:
        if name in _OWN:
            return f"a header is called {name!r}, which the provider keeps for itself; call it otherwise"
        if _NO_TEXT.search(name):
            return "a header's name has control characters, which MQTT does not take"
    size = len(topic.encode()) + len(value or b"") + _OVERHEAD
    for name, text in found:
        lengths = len(name.encode()), len(text.encode())
        if max(lengths) > LONGEST:
            return f"its key, or a header, has more than {LONGEST} bytes, the most that MQTT takes"
        size += sum(lengths) + 5
    return f"it has {size} bytes; this broker takes {most}" if size > most else ""


#: Bytes of a packet beside topic, payload and user properties.
_OVERHEAD = 16


def _property(name: str, content: bytes | None) -> Property:
    if content is None:
        return name + _NONE, ""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = ""
    if name.endswith((_BASE64, _NONE)) or (content and not text) or _NO_TEXT.search(text):
        return name + _BASE64, base64.b64encode(content).decode()
    return name, text


def _content(name: str, text: str) -> Header:
    if name.endswith(_NONE):
        return name.removesuffix(_NONE), None
    if name.endswith(_BASE64):
        return name.removesuffix(_BASE64), base64.b64decode(text)
    return name, text.encode()
