"""Messages as lines of JSON, and back: what ``mb export`` writes and ``mb import`` reads.

Promises
--------
- :func:`to_line` and :func:`from_line` are inverse to each other for topic, key, value, headers (in order, with
  duplicates), timestamp and partition. No value (null) and an empty one stay different.
- Bytes that are UTF-8 stand as text, others under the same name with ``_base64``. A line is ASCII without control
  characters, whatever is in the message.
- A line that is anything but this is refused: by what is wrong with it, and never taken in part.

::

    {"schema": 1, "sequence": 7, "accepted": 1700000000000000000, "topic": "orders", "key": "42", "value": "…",
     "headers": [["trace", "x"], ["raw", {"base64": "/w=="}], ["none", null]], "timestamp": null, "partition": null}

``sequence``, ``accepted`` (ns since 1970) and ``lane`` tell where the message was, ``dead`` why it was rejected:
``{"id": 1, "reason": "…", "at": seconds since 1970}``. A reader ignores the four: its buffer gives new ones. What is
null may be left out, ``value`` excepted. Pure but for :func:`walk`; any thread.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from mbframework.browse import Entry, Gap, LaneBrowser, Settled
from mbframework.deadstore import Letter
from mbframework.errors import MessageError
from mbframework.intake import check_headers, check_partition, check_timestamp, check_topic
from mbframework.message import Header

SCHEMA = 1
_PAGE = 1000
_NAMES = (
    "schema", "sequence", "accepted", "topic", "key", "key_base64", "value", "value_base64", "headers", "timestamp",
    "partition", "lane", "dead",
)  # fmt: skip


class Parcel(NamedTuple):
    """A message on its way from one buffer into another: what a line says of it."""

    topic: str
    value: bytes | None
    key: bytes | None
    headers: tuple[Header, ...]
    timestamp: int | None
    partition: int | None


def facts_of(message: Entry | Letter) -> dict[str, Any]:
    """A message, or a dead letter, as an object for JSON."""
    accepted = message.accepted if isinstance(message, Entry) else None
    facts: dict[str, Any] = {"schema": SCHEMA, "sequence": message.sequence, "accepted": accepted}
    facts["topic"] = message.topic
    facts |= _data("key", message.key) | _data("value", message.value)
    facts["headers"] = [[name, _header_value(value)] for name, value in message.headers]
    facts |= {"timestamp": message.timestamp, "partition": message.partition}
    if isinstance(message, Letter):
        facts["dead"] = {"id": message.id, "reason": message.reason, "at": message.at}
    return facts


def to_line(message: Entry | Letter, lane: str) -> str:
    """The message of a lane as a line, without newline."""
    return printed(facts_of(message) | {"lane": lane})


def printed(facts: dict[str, Any]) -> str:
    """An object as JSON in one line that cannot steer a terminal."""
    # JSON leaves DEL as it is.
    return json.dumps(facts).replace("\x7f", "\\u007f")


def from_line(line: bytes) -> Parcel:
    """The message that a line holds.

    :raises MessageError: it is not such a line; the text says why.
    """
    try:
        facts = json.loads(line, object_pairs_hook=_once, parse_constant=_no_constant)
    except MessageError:
        raise
    except (ValueError, RecursionError) as error:
        raise MessageError(f"no JSON: {error}; expected one object, as `mb export` prints") from None
    if not isinstance(facts, dict):
        raise MessageError(f"{type(facts).__name__}; expected one JSON object, as `mb export` prints")
    for name in facts:
        if name not in _NAMES:
            near = difflib.get_close_matches(name, _NAMES, 1)
            raise MessageError(f"unknown name {name!r:.60}{f': did you mean {near[0]!r}?' if near else ''}")
    if facts.get("schema", SCHEMA) != SCHEMA:
        raise MessageError(f"schema {facts['schema']!r:.40}; this release reads {SCHEMA}")
    if "topic" not in facts or not {"value", "value_base64"} & facts.keys():
        raise MessageError("topic or value is missing; a message without value has null there")
    check_topic(facts["topic"])
    key, value = _bytes_of(facts, "key"), _bytes_of(facts, "value")
    timestamp, partition = facts.get("timestamp"), facts.get("partition")
    return Parcel(
        topic=facts["topic"],
        value=value,
        key=key,
        headers=_headers(facts.get("headers")),
        timestamp=None if timestamp is None else check_timestamp(timestamp),
        partition=None if partition is None else check_partition(partition),
    )


def walk(browser: LaneBrowser, first: int, last: int | None) -> Iterator[Entry | Gap]:
    """The messages of a lane with sequences from ``first`` to ``last``, and what of them cannot be read; up to what was
    on disk when it began.

    What waits and is missing in front of, between and behind the segments is told by the ordinals; what was delivered
    and removed meanwhile is not missing.
    """
    # In this order: what the head counts is in the segments by the time that they are looked at.
    spooled, end = browser.spooled()
    settled = browser.settled()
    place = _start(browser, settled, first)
    stop = browser.end if last is None else last + 1
    at = first
    while at < stop and (page := browser.page(at, _PAGE)):
        for item in page:
            if isinstance(item, Gap):
                if item.first >= stop:
                    return
                if place is not None:
                    waited = min(item.messages, item.last + 1 - settled.next)
                    place = max(place, settled.reached or 0) + max(0, waited)
                at = item.last + 1
                yield _clipped(item, first, stop)
                continue
            if place is not None and item.ordinal > place:
                yield from _missing(browser, place, item.ordinal, at, min(stop, item.sequence) - 1)
            if item.sequence >= stop:
                return
            place = item.ordinal + 1
            at = item.sequence + 1
            yield item
    if place is not None and spooled > place:
        yield from _missing(browser, place, spooled, at, (end if last is None else min(end, stop)) - 1)


def _start(browser: LaneBrowser, settled: Settled, first: int) -> int | None:
    """The ordinal at sequence ``first``, or of a message in front that waits; None: not known."""
    if first > settled.next and (before := browser.before(first, 1, value_limit=0)):
        return before[-1].ordinal + 1 if isinstance(before[-1], Entry) else None
    return settled.reached


def _clipped(gap: Gap, first: int, stop: int) -> Gap:
    """What of a gap lies from ``first`` on and below ``stop``; no fewer messages than that can be."""
    begin, end = max(gap.first, first), min(gap.last + 1, stop)
    return gap._replace(first=begin, last=end - 1, messages=min(gap.messages, end - begin))


def _missing(browser: LaneBrowser, begin: int, end: int, first: int, last: int) -> Iterator[Gap]:
    """What of the ordinals from ``begin`` to below ``end`` waits, though no segment has it; its sequences lie between
    ``first`` and ``last``."""
    messages = min(browser.settled().waiting(begin, end), last + 1 - first)
    if messages > 0:
        yield Gap(first, last, messages, "missing or unreadable segments")


def text_or_base64(data: bytes) -> tuple[str, bool]:
    """The bytes as text, and whether that is base64: where they are not UTF-8."""
    try:
        return data.decode(), False
    except UnicodeDecodeError:
        return base64.b64encode(data).decode(), True


def _data(name: str, data: bytes | None) -> dict[str, str | None]:
    if data is None:
        return {name: None}
    text, coded = text_or_base64(data)
    return {f"{name}_base64" if coded else name: text}


def _header_value(data: bytes | None) -> str | dict[str, str] | None:
    if data is None:
        return None
    text, coded = text_or_base64(data)
    return {"base64": text} if coded else text


def _bytes_of(facts: dict[str, Any], name: str) -> bytes | None:
    if name in facts and f"{name}_base64" in facts:
        raise MessageError(f"{name} and {name}_base64 at once; expected one of them")
    if f"{name}_base64" in facts:
        return _decoded(facts[f"{name}_base64"], f"{name}_base64")
    return _encoded(facts.get(name), name)


def _encoded(text: object, name: str) -> bytes | None:
    if text is None:
        return None
    if not isinstance(text, str):
        raise MessageError(f"{name} is {type(text).__name__}; expected text or null")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise MessageError(f"{name} cannot be encoded as UTF-8: {error.reason}; use {name}_base64") from None


def _decoded(text: object, name: str) -> bytes:
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MessageError(f"{name}: {error}") from None
    raise MessageError(f"{name} is {type(text).__name__}; expected text")


def _headers(pairs: object) -> tuple[Header, ...]:
    if pairs is None:
        return ()
    if not isinstance(pairs, list):
        raise MessageError(f"headers are {type(pairs).__name__}; expected a list of [name, value]")
    headers: list[Header] = []
    for number, pair in enumerate(pairs):
        if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str):
            raise MessageError(f"header {number} is not [name, value]")
        what = f"the value of header {number}"
        value = pair[1]
        if isinstance(value, dict):
            if value.keys() != {"base64"}:
                raise MessageError(f"{what} is an object; expected text, null or {{'base64': text}}")
            headers.append((pair[0], _decoded(value["base64"], what)))
        else:
            headers.append((pair[0], _encoded(value, what)))
    check_headers(headers)
    return tuple(headers)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    facts = dict(pairs)
    if len(facts) != len(pairs):
        raise MessageError("a name stands twice in one object")
    return facts


def _no_constant(name: str) -> None:
    raise MessageError(f"{name} is no JSON")
