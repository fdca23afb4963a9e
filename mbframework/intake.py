"""Checks on what a caller hands over, before anything is accepted, and the limits that writing obeys.

Promises: pure functions; a refusal names the argument, what was expected and what was given, and leaves the
buffer as it was. Mutable values are copied, so that a later change by the caller changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from mbframework.errors import MessageError, MessageTooLarge
from mbframework.message import NO_TIMESTAMP, pack_headers
from mbframework.spool.layout import MAX_MESSAGE

if TYPE_CHECKING:
    from typing_extensions import Buffer  # type checkers have it; collections.abc has it from Python 3.12 on

    from mbframework.config import Config

#: topic, value, key, header block, timestamp (ns), partition.
Item: TypeAlias = "tuple[str, bytes | None, bytes | None, bytes | None, int | None, int | None]"
Data: TypeAlias = "Buffer | str | None"
Headers: TypeAlias = "Iterable[tuple[str, Data]] | Mapping[str, Data]"

MAX_TOPIC = 65_535
#: What the count of a header block can say, less the four that a dead letter carries in front.
_MAX_HEADERS = 65_535 - 4
_MAX_PARTITION = (1 << 31) - 1
_MAX_TIMESTAMP = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What writing obeys: bytes, messages, nanoseconds."""

    max_message: int
    channel_messages: int
    channel_bytes: int
    live_wait_ns: int
    linger_ns: int
    always_sync: bool

    @classmethod
    def of(cls, config: Config) -> Limits:
        """The limits that a configuration stands for."""
        return cls(
            max_message=min(MAX_MESSAGE, config.segment_size // 4),
            channel_messages=config.channel_messages,
            channel_bytes=config.channel_bytes,
            live_wait_ns=int(config.live_wait * 1e9),
            linger_ns=int(config.linger * 1e9),
            always_sync=config.fsync == "always",
        )


def check_topic(topic: object) -> bytes:
    """The topic's UTF-8.

    :raises MessageError: not text, empty, too long, or not encodable.
    """
    if not isinstance(topic, str):
        raise MessageError(f"topic is {type(topic).__name__}; expected str")
    try:
        raw = topic.encode()
    except UnicodeEncodeError as error:
        raise MessageError(f"topic cannot be encoded as UTF-8: {error.reason}; expected text") from None
    if not 0 < len(raw) <= MAX_TOPIC:
        raise MessageError(f"topic has {len(raw)} bytes of UTF-8; expected 1 to {MAX_TOPIC:,}")
    return raw


def check_data(data: object, name: str) -> bytes | None:
    """A value or key as bytes: bytes-like (a buffer of bytes) is copied, text is encoded as UTF-8, None stays None.

    :raises MessageError: anything else.
    """
    if data is None:
        return None
    if isinstance(data, str):
        try:
            return data.encode()
        except UnicodeEncodeError as error:
            raise MessageError(f"{name} cannot be encoded as UTF-8: {error.reason}; pass bytes instead") from None
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    return _buffer(data, name)


def _buffer(data: Any, name: str) -> bytes:
    """The bytes of whatever else has them: array.array, mmap, a column of numpy's."""
    try:
        view = memoryview(data)
    except TypeError:
        raise MessageError(f"{name} is {type(data).__name__}; expected bytes-like, str or None") from None
    with view:
        if view.itemsize != 1:
            # Numbers: their bytes are those of this machine, which is hardly meant.
            raise MessageError(
                f"{name} is {type(data).__name__} with items of {view.itemsize} bytes; expected items of one byte, str "
                "or None: memoryview(…).cast('B') gives the bytes"
            )
        return bytes(view)


def check_headers(headers: object) -> bytes | None:
    """The header block; None for no headers.

    :raises MessageError: not pairs of a text name and a value.
    """
    if isinstance(headers, (str, bytes)) or not isinstance(headers, Iterable):
        raise MessageError(f"headers are {type(headers).__name__}; expected pairs of (str, bytes or None)")
    pairs = headers.items() if isinstance(headers, dict) else headers
    checked: list[tuple[str, bytes | None]] = []
    for pair in pairs:
        try:
            name, value = pair
        except (TypeError, ValueError):
            raise MessageError(f"header {len(checked)} is not a pair; expected (str, bytes or None)") from None
        if not isinstance(name, str):
            raise MessageError(f"the name of header {len(checked)} is {type(name).__name__}; expected str")
        raw = name.encode(errors="surrogatepass")
        if len(raw) > MAX_TOPIC or raw != name.encode(errors="replace"):
            raise MessageError(f"the name of header {len(checked)} is not UTF-8 of at most {MAX_TOPIC:,} bytes")
        checked.append((name, check_data(value, f"the value of header {len(checked)}")))
    if len(checked) > _MAX_HEADERS:
        raise MessageError(f"{len(checked)} headers; at most {_MAX_HEADERS:,} are taken")
    return pack_headers(checked) if checked else None


def check_partition(partition: object) -> int:
    """A partition number. Raises MessageError."""
    if isinstance(partition, bool) or not isinstance(partition, int) or not 0 <= partition <= _MAX_PARTITION:
        raise MessageError(f"partition is {partition!r:.40}; expected an int from 0 to {_MAX_PARTITION:,}, or None")
    return partition


def check_timestamp(timestamp: object) -> int:
    """Nanoseconds since 1970. Raises MessageError."""
    if isinstance(timestamp, bool) or not isinstance(timestamp, int):
        raise MessageError(
            f"timestamp is {type(timestamp).__name__}; expected an int: nanoseconds since 1970, as time.time_ns() gives"
        )
    if not NO_TIMESTAMP < timestamp <= _MAX_TIMESTAMP:
        raise MessageError("timestamp is beyond 64 bits; expected nanoseconds since 1970")
    return timestamp


def check_size(size: int, limit: int) -> None:
    """:raises MessageTooLarge: ``size`` bytes are more than ``limit``."""
    if size > limit:
        raise MessageTooLarge(
            f"the message has {size:,} bytes (topic, key, value and headers); at most {limit:,} are taken: "
            "a quarter of segment_size, 16 MiB, or the provider's own limit",
            size=size,
            limit=limit,
        )


def check_one(
    topic: object, value: object, key: object, headers: object, partition: object, timestamp: object, limit: int
) -> tuple[Item, bytes, int]:
    """A message, the UTF-8 of its topic, and its bytes, of which there may be ``limit``. Raises MessageError."""
    raw = check_topic(topic)
    item: Item = (
        raw.decode(),
        check_data(value, "value"),
        check_data(key, "key"),
        None if headers is None else check_headers(headers),
        None if timestamp is None else check_timestamp(timestamp),
        None if partition is None else check_partition(partition),
    )
    size = len(raw) + sum(len(part) for part in item[1:4] if part)
    check_size(size, limit)
    return item, raw, size


def check_column(column: object, name: str, count: int) -> Sequence[object] | None:
    """A column of write_many(): None, or a sequence of ``count`` entries. Raises MessageError."""
    if column is None:
        return None
    if isinstance(column, (str, bytes, bytearray)) or not isinstance(column, Iterable):
        raise MessageError(f"{name} is {type(column).__name__}; expected a sequence with one entry a message, or None")
    entries = column if isinstance(column, Sequence) else list(column)
    if len(entries) != count:
        raise MessageError(f"{name} has {len(entries)} entries; expected {count}, one a message")
    return entries
