"""CloudEvents 1.0 in the headers of messages: the binary content mode, with the names that Kafka's binding gives them.

::

    headers = event_headers(type="com.example.order.placed", source="/shop", datacontenttype="application/json")
    buffer.write("orders", json.dumps(order), key=order_id, headers=headers)

    attributes = event_of(message.headers)  # in the consumer: {"specversion": "1.0", "type": …}, empty for others

Promises: the value stays as it is, each attribute is a header ``ce_…``, and ``datacontenttype`` is ``content-type``;
what is missing gets an id of its own and the present time, once: a message that is sent again is the same event. What
the specification forbids is refused before the message is accepted. Any thread. No library is needed.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from mbframework.errors import MessageError
from mbframework.intake import Data, Headers

_PREFIX = "ce_"
_NAME = re.compile(r"[a-z0-9]+")
#: Control characters, and what is no character.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_OWN = frozenset({"specversion", "id", "type", "source", "time", "subject", "dataschema", "datacontenttype", "data"})


def event_headers(
    *,
    type: str,
    source: str,
    id: str | None = None,
    time: datetime | None = None,
    subject: str | None = None,
    dataschema: str | None = None,
    datacontenttype: str | None = None,
    extensions: Mapping[str, str | int | bool] | None = None,
    headers: Headers | None = None,
) -> list[tuple[str, Data]]:
    """The headers of an event, for ``write()``, behind those that are given.

    :param source: a URI-reference; ``source`` and ``id`` together name the event.
    :param id: None: a new one.
    :param time: when it happened, with its time zone; None: now.
    :param extensions: further attributes. ``partitionkey`` is for a reader; give it as the message's key as well.

    :raises MessageError: an attribute that CloudEvents does not allow; it names the attribute.
    """
    when = datetime.now(UTC) if time is None else time
    if when.tzinfo is None:
        raise MessageError(f"time: {when.isoformat()} has no time zone; expected one, as of datetime.now(timezone.utc)")
    given: dict[str, object] = {
        "specversion": "1.0",
        "id": uuid.uuid4().hex if id is None else id,
        "source": source,
        "type": type,
        "time": when.isoformat(timespec="microseconds"),
        "subject": subject,
        "dataschema": dataschema,
        "datacontenttype": datacontenttype,
    }
    for name, value in (extensions or {}).items():
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in _OWN:
            raise MessageError(
                f"extensions: {name!r:.100}; expected names of a-z and 0-9, other than CloudEvents' own attributes"
            )
        if value is None:
            raise MessageError(f"{name}: None; expected a value, or nothing")
        given[name] = value
    before = headers.items() if isinstance(headers, Mapping) else headers or ()
    attributes = [(_header(name), _text(name, value).encode()) for name, value in given.items() if value is not None]
    return [*before, *attributes]


def event_of(headers: Iterable[tuple[str, bytes | str | None]] | None) -> dict[str, str]:
    """The attributes of the event that a message is, as text; empty where it is none. Never raises for what the
    headers hold."""
    found: dict[str, str] = {}
    for name, value in headers or ():
        header = name.lower()
        attribute = "datacontenttype" if header == "content-type" else header.removeprefix(_PREFIX)
        if value is not None and (attribute != header):
            found[attribute] = value if isinstance(value, str) else value.decode(errors="replace")
    return found if "specversion" in found else {}


def _header(attribute: str) -> str:
    return "content-type" if attribute == "datacontenttype" else _PREFIX + attribute


def _text(name: str, value: object) -> str:
    """As the specification writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and -(1 << 31) <= value < 1 << 31:
        return str(value)
    if not isinstance(value, str):
        raise MessageError(f"{name}: {value!r:.100}; expected a text, a bool, or a whole number of 32 bits")
    if not value or _FORBIDDEN.search(value):
        raise MessageError(
            f"{name}: {value!r:.100}; expected a text of at least one character, without control characters"
        )
    return value
