"""What travels: a message, a batch of them, and a position in a lane.

A :class:`Batch` offers two views of the same data: a sequence of
:class:`Message` objects, made when asked for, and columns (one list a field)
for providers that encode in bulk. A batch is immutable by agreement: providers
read it, on the sender's thread, and may keep no reference after ``send()``
returns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from struct import Struct
from typing import NamedTuple, overload

Header = tuple[str, bytes | None]

#: In a column of timestamps: the caller gave none.
NO_TIMESTAMP = -(1 << 63)
#: In a column of partitions: by key.
NO_PARTITION = -1

_U16 = Struct("<H")
_HEADER = Struct("<HI")
_NONE = 0xFFFFFFFF


class Position(NamedTuple):
    """A place in a lane: everything below ``sequence`` is settled; ``run`` is the 16-byte id of the
    opening that wrote the last settled message."""

    sequence: int
    run: bytes


class Message(NamedTuple):
    """One message as the provider sees it. Times are nanoseconds since 1970, UTC."""

    sequence: int
    topic: str
    value: bytes | None
    key: bytes | None
    headers: tuple[Header, ...]
    timestamp: int | None
    partition: int | None
    accepted: int


def pack_headers(headers: Sequence[tuple[str, bytes | None]]) -> bytes:
    """Encode headers as a header block (docs/format.md); order, duplicates and None survive."""
    parts = [_U16.pack(len(headers))]
    for name, value in headers:
        raw = name.encode()
        parts.append(_HEADER.pack(len(raw), _NONE if value is None else len(value)))
        parts.append(raw)
        if value is not None:
            parts.append(value)
    return b"".join(parts)


def unpack_headers(block: bytes | None) -> tuple[Header, ...]:
    """Decode a header block. Raises ValueError where its lengths do not fit its bytes."""
    if not block:
        return ()
    end = len(block)
    if end < 2:
        raise ValueError("header block of one byte; expected at least two")
    (count,) = _U16.unpack_from(block)
    headers: list[Header] = []
    at = 2
    for _ in range(count):
        if at + 6 > end:
            raise ValueError(f"header block ends at {end}; expected another header at {at}")
        name_length, value_length = _HEADER.unpack_from(block, at)
        at += 6
        value_end = at + name_length + (0 if value_length == _NONE else value_length)
        if value_end > end:
            raise ValueError(f"header block ends at {end}; a header claims to end at {value_end}")
        name = block[at : at + name_length].decode()
        value = None if value_length == _NONE else block[at + name_length : value_end]
        headers.append((name, value))
        at = value_end
    return tuple(headers)


def fault_of(block: bytes | None) -> str:
    """What is wrong with a header block, "" for nothing."""
    try:
        unpack_headers(block)
    except ValueError as error:
        return f"its headers cannot be read: {error}"
    return ""


class Batch(Sequence[Message]):
    """Messages on their way to the provider, in order.

    Columns, all of the batch's length: ``sequences`` (rising, not always without gaps), ``topics``,
    ``keys``, ``values``, ``header_blocks`` (encoded, or None for no headers), ``timestamps``
    (:data:`NO_TIMESTAMP` where the caller gave none), ``partitions`` (:data:`NO_PARTITION` = by key),
    ``accepted`` (acceptance, wall clock, nanoseconds).

    ``position`` is what an exactly-once provider stores in the same transaction as the messages.
    """

    __slots__ = (
        "_headers",
        "accepted",
        "header_blocks",
        "keys",
        "partitions",
        "position",
        "sequences",
        "timestamps",
        "topics",
        "values",
    )

    def __init__(
        self,
        *,
        sequences: Sequence[int],
        topics: Sequence[str],
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        header_blocks: Sequence[bytes | None],
        timestamps: Sequence[int],
        partitions: Sequence[int],
        accepted: Sequence[int],
        position: Position,
    ) -> None:
        self.sequences = sequences
        self.topics = topics
        self.keys = keys
        self.values = values
        self.header_blocks = header_blocks
        self.timestamps = timestamps
        self.partitions = partitions
        self.accepted = accepted
        self.position = position
        self._headers: list[tuple[Header, ...]] | None = None

    @property
    def headers(self) -> list[tuple[Header, ...]]:
        """The headers of each message, decoded once."""
        if self._headers is None:
            self._headers = [unpack_headers(block) for block in self.header_blocks]
        return self._headers

    def times(self) -> list[int]:
        """The caller's timestamp where given, else the time of acceptance; nanoseconds."""
        return [
            accepted if given == NO_TIMESTAMP else given
            for given, accepted in zip(self.timestamps, self.accepted, strict=True)
        ]

    def size_in_bytes(self) -> int:
        """Bytes of topics, keys, values and headers together."""
        present = (filter(None, column) for column in (self.keys, self.values, self.header_blocks))
        return sum(map(len, chain(self.topics, *present)))

    def __len__(self) -> int:
        return len(self.sequences)

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Message]: ...
    def __getitem__(self, index: int | slice) -> Message | Sequence[Message]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        timestamp = self.timestamps[index]
        partition = self.partitions[index]
        return Message(
            self.sequences[index],
            self.topics[index],
            self.values[index],
            self.keys[index],
            self.headers[index],
            None if timestamp == NO_TIMESTAMP else timestamp,
            None if partition == NO_PARTITION else partition,
            self.accepted[index],
        )

    def __iter__(self) -> Iterator[Message]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        span = f"{self.sequences[0]}..{self.sequences[-1]}" if len(self) else "empty"
        return f"<Batch of {len(self)}: {span}>"
