"""Frames of one message each, many in a row: what most programs write, and what a backlog mostly is.

Promises:

- Pure functions on bytes; any thread.
- The same messages as :func:`mbframework.spool.frame.decode` gives, one frame after the other, at an eighth of the
  cost. At the first frame that is anything else (of several messages, a seal, not whole, damaged, out of its turn, of a
  newer format) they end in front of it, and the caller looks at it with care. Nothing is raised.
- Hostile bytes cost no more than the window that holds them.

With the extension (:mod:`mbframework.speedups`) the work is done there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from struct import Struct
from typing import Any, TypeVar

from mbframework.message import NO_PARTITION, NO_TIMESTAMP
from mbframework.speedups import compiled, crc32
from mbframework.spool.frame import HEADER_SIZE, HEADERS, KEYS, PARTITIONS, TIMES
from mbframework.spool.layout import FRAME_MARKER, MAX_FRAME, NONE_LENGTH, U64_LIMIT
from mbframework.spool.stretch import Stretch

_T = TypeVar("_T")

_COLUMNS = KEYS | HEADERS | TIMES | PARTITIONS
#: Bytes of a frame's header in front of its own CRC.
_PREFIX = HEADER_SIZE - 4


@dataclass(slots=True)
class Singles(Stretch):
    """The messages, all columns of one length. ``accepted``: boot-time ns of each."""

    accepted: list[int] = field(default_factory=list)

    def even(self, topic: str) -> None:
        """Make all columns as long as ``accepted``: what is beyond goes, what is missing is what an absent column
        stands for."""
        count = len(self.accepted)
        _fit(self.topics, count, topic)
        _fit(self.keys, count, None)
        _fit(self.values, count, None)
        _fit(self.header_blocks, count, None)
        _fit(self.timestamps, count, NO_TIMESTAMP)
        _fit(self.partitions, count, NO_PARTITION)


def decode_singles(window: bytes, offset: int, salt: int, first: int, most: int, max_size: int) -> Singles:
    """The messages of the frames from ``offset`` on (a multiple of 8), which have the sequences from ``first`` (≥ 1)
    on: up to ``most``, and until their frames have ``max_size`` bytes together."""
    columns = None if compiled is None else compiled.decode_singles(window, offset, salt, first, most, max_size)
    if columns is None:
        return plain_decode_singles(window, offset, salt, first, most, max_size)
    return Singles(*columns)


def plain_decode_singles(window: bytes, offset: int, salt: int, first: int, most: int, max_size: int) -> Singles:
    """The same in plain Python."""
    found = Singles(offset)
    add_key, add_value, add_block = found.keys.append, found.values.append, found.header_blocks.append
    add_timestamp, add_partition, add_accepted = (
        found.timestamps.append,
        found.partitions.append,
        found.accepted.append,
    )
    # What ends within this is no longer than a frame may be.
    end = min(len(window), offset + MAX_FRAME)
    shape, raw_topic, topic = -1, b"", ""
    unpack, width = _layout(0, 0)
    keys = blocks = timestamps = partitions = 0
    at, size = offset, 0
    # Per message, so that each operation in here is worth its place.
    for sequence in range(first, min(first + most, U64_LIMIT)):
        if size >= max_size:
            break
        if at + width > end:
            # The last frame may have a narrower fixed part than those before it.
            shape = -1
            unpack, width = _layout(0, 0)
            if at + width > end:
                break
        fields = unpack(window, at)
        if fields[4] != shape:
            # Other columns than the frame before, or a topic of another length.
            shape = fields[4]
            flags = shape >> 32 & 0xFFFF
            if shape & 0xFFFFFFFF != 1 or flags & ~_COLUMNS:
                break
            found.even(topic)
            keys, blocks, timestamps, partitions = flags & KEYS, flags & HEADERS, flags & TIMES, flags & PARTITIONS
            unpack, width = _layout(shape >> 48, flags)
            if at + width > end:
                break
            fields = unpack(window, at)
        marker, length, stored, accepted, _, body_crc, crc, name, key, value, block, timestamp, partition = fields
        stop = at + length
        if (
            stored != sequence
            or marker != FRAME_MARKER
            or stop > end
            or crc32(window[at : at + _PREFIX], salt) != crc
            or crc32(window[at + HEADER_SIZE : stop], salt) != body_crc
        ):
            break
        if name != raw_topic:
            found.even(topic)
            try:
                topic = name.decode()
            except UnicodeDecodeError:
                break
            raw_topic = name
        here = at + width
        if keys:
            if key == NONE_LENGTH:
                add_key(None)
            else:
                add_key(window[here : here + key])
                here += key
        if value == NONE_LENGTH:
            add_value(None)
        else:
            add_value(window[here : here + value])
            here += value
        if blocks:
            if block == NONE_LENGTH:
                add_block(None)
            else:
                add_block(window[here : here + block])
                here += block
        if here != stop:
            break
        if timestamps:
            add_timestamp(timestamp)
        if partitions:
            add_partition(partition)
        add_accepted(accepted)
        size += length
        at = stop + 7 & -8
    found.even(topic)
    found.size, found.offset = size, at
    return found


@lru_cache(64)
def _layout(topic_length: int, flags: int) -> tuple[Callable[[bytes, int], tuple[Any, ...]], int]:
    """What takes the fixed part of a frame to pieces, and how long that part is: the header (count, flags and topic
    length as one number), the topic and a number a column; what is not there is b""."""
    numbers = ((KEYS, "I"), (0, "I"), (HEADERS, "I"), (TIMES, "q"), (PARTITIONS, "i"))
    columns = "".join(code if not flag or flags & flag else "0s" for flag, code in numbers)
    layout = Struct(f"<4sIQqQII{topic_length}s{columns}")
    return layout.unpack_from, layout.size


def _fit(column: list[_T], count: int, filler: _T) -> None:
    missing = count - len(column)
    if missing > 0:
        column += [filler] * missing
    elif missing:
        del column[count:]
