"""Which of many messages go into one frame, and that frame's columns.

Promise: at least one message, then as many as fit; a frame is large enough to be cheap and small enough to be read in
one go. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mbframework.channel import size_of
from mbframework.message import NO_PARTITION, NO_TIMESTAMP
from mbframework.spool import frame

FRAME_BYTES = 256 * 1024
FRAME_COUNT = 4096
#: Bytes that a message takes in the columns of a frame, beside its own.
FRAME_OVERHEAD = 28


class FrameDraft:
    """The first ``count`` of the items (topic, value, key, headers, timestamp, partition, …) from ``start`` on."""

    def __init__(self, items: Sequence[Sequence[Any]], start: int, max_bytes: int, sequence: int, now: int) -> None:
        end, size = start, 0
        stop = min(len(items), start + FRAME_COUNT)
        while end < stop:
            size += size_of(items[end]) + FRAME_OVERHEAD
            if size > max_bytes and end > start:
                break
            end += 1
        self.count = end - start
        self._sequence = sequence
        self._now = now
        topics, self._values, self._keys, self._blocks, timestamps, partitions = list(
            zip(*items[start:end], strict=True)
        )[:6]
        self._topics: Any = (
            topics[0].encode() if topics.count(topics[0]) == self.count else [name.encode() for name in topics]
        )
        self._timestamps = [NO_TIMESTAMP if given is None else given for given in timestamps]
        self._partitions = [NO_PARTITION if given is None else given for given in partitions]

    def encode(self, salt: int) -> bytes:
        """The frame's bytes, in a segment of that salt."""
        return frame.encode_many(
            salt, self._sequence, self._now, self._topics, self._values, self._keys, self._blocks, self._timestamps,
            self._partitions,
        )  # fmt: skip
