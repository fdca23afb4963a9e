"""Which of many messages go into one frame, and that frame's columns.

Promise: at least one message, then as many as fit; a frame is large enough to be cheap and small enough to be read in
one go. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mbframework.bundle import Bundle
from mbframework.channel import size_of
from mbframework.message import NO_PARTITION, NO_TIMESTAMP
from mbframework.speedups import compiled
from mbframework.spool import frame

FRAME_BYTES = 256 * 1024
FRAME_COUNT = 4096
#: Bytes that a message takes in the columns of a frame, beside its own.
FRAME_OVERHEAD = 28


class FrameDraft:
    """The first ``count`` of the items (topic, value, key, headers, timestamp, partition, …) from ``start`` on."""

    def __init__(self, items: Sequence[Sequence[Any]], start: int, max_bytes: int, sequence: int, now: int) -> None:
        count = None
        if isinstance(items, Bundle):
            count = items.fitting(start, FRAME_COUNT, max_bytes, FRAME_OVERHEAD)
        elif compiled is not None:
            count = compiled.fitting(items, start, FRAME_COUNT, max_bytes, FRAME_OVERHEAD)
        self.count = fitting(items, start, max_bytes) if count is None else count
        self._items = items
        self._start = start
        self._sequence = sequence
        self._now = now

    def encode(self, salt: int) -> bytes:
        """The frame's bytes, in a segment of that salt."""
        made = None
        if isinstance(self._items, Bundle):
            return self._items.encode(salt, self._sequence, self._now, self._start, self.count)
        if compiled is not None:
            made = compiled.encode_items(salt, self._sequence, self._now, self._items, self._start, self.count)
        return self._plain_encode(salt) if made is None else made

    def _plain_encode(self, salt: int) -> bytes:
        topics, values, keys, blocks, timestamps, partitions = list(
            zip(*self._items[self._start : self._start + self.count], strict=True)
        )[:6]
        names: Any = topics[0].encode() if topics.count(topics[0]) == self.count else [name.encode() for name in topics]
        return frame.encode_many(
            salt, self._sequence, self._now, names, values, keys, blocks,
            [NO_TIMESTAMP if given is None else given for given in timestamps],
            [NO_PARTITION if given is None else given for given in partitions],
        )  # fmt: skip


def fitting(items: Sequence[Sequence[Any]], start: int, max_bytes: int) -> int:
    """How many of the items from ``start`` on go into one frame."""
    end, size = start, 0
    stop = min(len(items), start + FRAME_COUNT)
    while end < stop:
        size += size_of(items[end]) + FRAME_OVERHEAD
        if size > max_bytes and end > start:
            break
        end += 1
    return end - start
