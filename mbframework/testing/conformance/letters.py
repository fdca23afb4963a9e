"""The messages and batches that the kit sends. Everything here is a pure function, but for the clock."""

from __future__ import annotations

import time
from collections.abc import Sequence

from mbframework.message import NO_PARTITION, NO_TIMESTAMP, Batch, Header, Message, Position, pack_headers
from mbframework.testing.conformance.hooks import RUN


def letter(
    sequence: int,
    topic: str,
    *,
    value: bytes | None = b"",
    key: bytes | None = b"k",
    headers: tuple[Header, ...] = (),
    timestamp: int | None = None,
    partition: int | None = None,
) -> Message:
    """One message, accepted just now."""
    return Message(sequence, topic, value, key, headers, timestamp, partition, time.time_ns())


def numbered(first: int, count: int, topic: str, *, key: bytes | None = b"k") -> list[Message]:
    """Messages whose values tell their sequence."""
    return [letter(sequence, topic, value=b"%d" % sequence, key=key) for sequence in range(first, first + count)]


class Column(list[object]):
    """A list that can be watched being let go."""

    __slots__ = ("__weakref__",)


class WatchedBatch(Batch):
    """A batch that can be watched being let go."""

    __slots__ = ("__weakref__",)


def batch_of(messages: Sequence[Message], *, first: int = 1, run: bytes = RUN) -> Batch:
    """The batch of these messages; ``first`` is where an empty one stands."""
    return Batch(
        sequences=[m.sequence for m in messages],
        topics=[m.topic for m in messages],
        keys=[m.key for m in messages],
        values=[m.value for m in messages],
        header_blocks=[pack_headers(m.headers) if m.headers else None for m in messages],
        timestamps=[NO_TIMESTAMP if m.timestamp is None else m.timestamp for m in messages],
        partitions=[NO_PARTITION if m.partition is None else m.partition for m in messages],
        accepted=[m.accepted for m in messages],
        position=Position(messages[-1].sequence + 1 if messages else first, run),
    )


def batches_of(messages: Sequence[Message], size: int) -> list[list[Message]]:
    """The messages in portions of ``size``."""
    return [list(messages[at : at + size]) for at in range(0, len(messages), size)]
