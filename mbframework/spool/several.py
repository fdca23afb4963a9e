"""Frames of several messages, one after the other: what write_many() leaves behind.

Promises: those of :mod:`mbframework.spool.singles`, for frames of two messages and more. Of a frame all messages are
given, or none.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mbframework.errors import UnsupportedFormat
from mbframework.speedups import compiled
from mbframework.spool.frame import next_offset, plain_decode_body, read_body, read_header
from mbframework.spool.stretch import Stretch


@dataclass(slots=True)
class Several(Stretch):
    """The messages. ``moments`` and ``counts``: when each frame was accepted (boot-time ns), and how many it has."""

    moments: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)


def decode_several(window: bytes, offset: int, salt: int, first: int, most: int, max_size: int) -> Several:
    """The messages of the frames from ``offset`` on (a multiple of 8), which have the sequences from ``first`` (≥ 1)
    on: up to ``most``, of frames that have no more than ``max_size`` bytes together."""
    columns = None if compiled is None else compiled.decode_several(window, offset, salt, first, most, max_size)
    if columns is None:
        return plain_decode_several(window, offset, salt, first, most, max_size)
    return Several(*columns)


def plain_decode_several(window: bytes, offset: int, salt: int, first: int, most: int, max_size: int) -> Several:
    """The same in plain Python."""
    found = Several(offset)
    end = first + most
    while True:
        try:
            header = read_header(window, found.offset, salt)
        except UnsupportedFormat:
            return found
        if header is None or header.first != first or header.count < 2 or header.count > end - first:
            return found
        body = read_body(window, found.offset, salt, header) if header.length <= max_size - found.size else None
        columns = None if body is None else plain_decode_body(body, header)
        if columns is None:
            return found
        found.topics += columns.topics
        found.keys += columns.keys
        found.values += columns.values
        found.header_blocks += columns.header_blocks
        found.timestamps += columns.timestamps
        found.partitions += columns.partitions
        found.moments.append(columns.accepted)
        found.counts.append(columns.count)
        found.size += header.length
        found.offset = next_offset(found.offset, header.length)
        first += columns.count
