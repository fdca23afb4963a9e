"""What waits in memory while a lane is live.

Promises: messages leave in the order in which they came, with successive sequences from ``first``. The number of a
message follows from its place in the list alone, and what changes the numbers is stored without a call in between, so
that an interrupt cannot give a number twice.

Everything runs under the lane's lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from mbframework.intake import Item
from mbframework.message import NO_PARTITION, NO_TIMESTAMP
from mbframework.spool.reader import Acceptance, Run
from mbframework.spool.segment_header import SegmentHeader

#: An item and when it was accepted (boot-time ns).
Waiting: TypeAlias = "tuple[str, bytes | None, bytes | None, bytes | None, int | None, int | None, int]"
#: Bytes that a message costs in memory beside its own.
OVERHEAD = 64
NEVER = 1 << 63


def size_of(item: Sequence[Any]) -> int:
    """Bytes of topic, value, key and headers of an item."""
    topic, value, key, block = item[:4]
    size: int = len(topic)
    for part in (value, key, block):
        if part is not None:
            size += len(part)
    return size


class Channel:
    """The list of waiting messages. ``bytes`` is what they take, ``oldest`` when the first was accepted."""

    __slots__ = ("bytes", "first", "items", "oldest")

    def __init__(self, first: int) -> None:
        self.items: list[Waiting] = []
        self.first = first
        self.bytes = 0
        self.oldest = NEVER

    @property
    def next(self) -> int:
        """The sequence of the message that comes next."""
        return self.first + len(self.items)

    def extend(self, items: Iterable[Item], size: int, now: int) -> None:
        """Add messages of ``size`` bytes together."""
        if not self.items:
            self.oldest = now
        before = len(self.items)
        self.items.extend([(*item, now) for item in items])
        self.bytes += size + OVERHEAD * (len(self.items) - before)

    def take(self, count: int, max_bytes: int) -> list[Waiting]:
        """Remove up to ``count`` messages and ``max_bytes`` from the front; at least one where there is one."""
        items = self.items
        end, left = len(items), 0
        if end > count or self.bytes > max_bytes:
            size = end = 0
            for item in items[:count]:
                bigger = size + size_of(item) + OVERHEAD
                if bigger > max_bytes and end:
                    break
                size = bigger
                end += 1
            left = max(0, self.bytes - size)
        taken, rest, first = items[:end], items[end:], self.first + end
        oldest = rest[0][6] if rest else NEVER
        self.items, self.first, self.bytes, self.oldest = rest, first, left, oldest
        return taken

    def clear(self) -> int:
        """Drop everything; how many."""
        dropped = len(self.items)
        self.take(dropped, NEVER)
        return dropped


def run_of(first: int, items: Sequence[Waiting], header: SegmentHeader, wall_offset: int, run: bytes) -> Run:
    """The columns of messages taken from a channel; ``wall_offset`` turns boot time into wall time."""
    topics, values, keys, blocks, timestamps, partitions, accepted = zip(*items, strict=True)
    return Run(
        first,
        topics=list(topics),
        keys=list(keys),
        values=list(values),
        header_blocks=list(blocks),
        timestamps=[NO_TIMESTAMP if given is None else given for given in timestamps],
        partitions=[NO_PARTITION if given is None else given for given in partitions],
        accepted=[at + wall_offset for at in accepted],
        acceptances=[Acceptance(1, at, header) for at in accepted],
        run=run,
    )


def waiting_of(run: Run) -> list[Waiting]:
    """The messages of a run as they came: what :func:`run_of` was given."""
    accepted = [each.accepted for each in run.acceptances for _ in range(each.count)]
    return [
        (
            topic,
            value,
            key,
            block,
            None if timestamp == NO_TIMESTAMP else timestamp,
            None if partition == NO_PARTITION else partition,
            at,
        )
        for topic, value, key, block, timestamp, partition, at in zip(
            run.topics, run.values, run.keys, run.header_blocks, run.timestamps, run.partitions, accepted, strict=True
        )
    ]
