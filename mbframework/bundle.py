"""The messages of one write_many(): columns on their way from the caller to the frames on disk.

Promises: they are checked as write() checks each of them, and nothing of theirs can change afterwards. Whoever wants
them one by one takes the bundle as a sequence of items; those are made when they are asked for. Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice, repeat
from operator import add
from types import NoneType
from typing import Any, overload

from mbframework.errors import MessageError
from mbframework.intake import (
    Data,
    Headers,
    Item,
    check_column,
    check_data,
    check_headers,
    check_partition,
    check_size,
    check_timestamp,
)
from mbframework.message import NO_PARTITION, NO_TIMESTAMP
from mbframework.spool import frame

_PLAIN = frozenset({bytes, NoneType})


class Bundle(Sequence[Item]):
    """Messages of one topic. ``size``: bytes of topics, values, keys and headers of all of them together.

    :param raw_topic: its UTF-8.
    :param most: how many messages are taken.
    :param limit: bytes that one of them may have.
    :raises MessageError: one of them is refused, and so are all.
    """

    __slots__ = ("_blocks", "_keys", "_partitions", "_sums", "_timestamps", "_topic", "_values", "raw_topic", "size")

    def __init__(
        self,
        topic: str,
        raw_topic: bytes,
        values: Iterable[Data],
        keys: Iterable[Data] | None,
        headers: Iterable[Headers | None] | None,
        partitions: Iterable[int | None] | None,
        timestamps: Iterable[int | None] | None,
        *,
        most: int,
        limit: int,
    ) -> None:
        if isinstance(values, (str, bytes, bytearray, memoryview)) or not isinstance(values, Iterable):
            raise MessageError(f"values are {type(values).__name__}; expected a sequence of values, one a message")
        self._topic, self.raw_topic = topic, raw_topic
        self._values = _checked(list(values), "a value")
        count = len(self._values)
        if count > most:
            raise MessageError(f"{count:,} messages in one call; at most {most:,} are taken")
        names = check_column(keys, "keys", count)
        self._keys = None if names is None else _checked(list(names), "a key")
        lists = check_column(headers, "headers", count)
        self._blocks = None if lists is None else [None if each is None else check_headers(each) for each in lists]
        places = check_column(partitions, "partitions", count)
        self._partitions = (
            None if places is None else [None if place is None else check_partition(place) for place in places]
        )
        times = check_column(timestamps, "timestamps", count)
        self._timestamps = (
            None if times is None else [None if moment is None else check_timestamp(moment) for moment in times]
        )
        #: Bytes of values, keys and headers of the first n messages, by n; made when it is needed.
        self._sums: list[int] = []
        own = len(raw_topic)
        lengths = self._lengths()
        self.size = own * count + sum(map(sum, lengths))
        if own + sum(max(each, default=0) for each in lengths) > limit:
            # Perhaps: the longest of each column need not be in one message.
            for payload in _together(lengths):
                check_size(own + payload, limit)

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Item]:
        absent = repeat(None)
        return zip(
            repeat(self._topic, len(self)), self._values, self._keys or absent, self._blocks or absent,
            self._timestamps or absent, self._partitions or absent, strict=False,
        )  # fmt: skip

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        if isinstance(index, slice):
            return list(self)[index]
        return next(islice(self, range(len(self))[index], None))

    def _lengths(self) -> list[list[int]]:
        """Bytes of each value, key and header block, by the columns that there are."""
        return [_lengths(column) for column in (self._values, self._keys, self._blocks) if column is not None]

    def fitting(self, start: int, most: int, max_bytes: int, overhead: int) -> int:
        """How many messages from index ``start`` on go into one frame: at least one, at most ``most``, and as long as
        they have no more than ``max_bytes``, with ``overhead`` and the topic's letters for each."""
        each, left = len(self._topic) + overhead, len(self) - start
        if left <= most and self.size + (each - len(self.raw_topic)) * len(self) <= max_bytes:
            return left
        if not self._sums:
            self._sums = list(accumulate(_together(self._lengths()), initial=0))
        sums = self._sums

        def weight(end: int) -> int:
            return sums[end] - sums[start] + each * (end - start)

        stop = min(start + most, len(self))
        return max(1, bisect_right(range(stop + 1), max_bytes, lo=start, key=weight) - 1 - start)

    def encode(self, salt: int, first: int, accepted: int, start: int, count: int) -> bytes:
        """One frame of ``count`` messages from index ``start`` on; see :func:`mbframework.spool.frame.encode_many`."""
        part = slice(start, start + count)
        return frame.encode_many(
            salt, first, accepted, self.raw_topic, self._values[part], self._keys and self._keys[part],
            self._blocks and self._blocks[part], _or(self._timestamps, part, NO_TIMESTAMP),
            _or(self._partitions, part, NO_PARTITION),
        )  # fmt: skip


def _checked(column: list[Any], name: str) -> list[bytes | None]:
    if _PLAIN.issuperset(map(type, column)):
        return column
    return [entry if entry.__class__ is bytes else check_data(entry, name) for entry in column]


def _lengths(column: Sequence[bytes | None]) -> list[int]:
    try:
        return list(map(len, column))  # type: ignore[arg-type]  # None is what the except is for
    except TypeError:
        return [0 if entry is None else len(entry) for entry in column]


def _together(lengths: Sequence[list[int]]) -> Iterable[int]:
    """The sums of columns of lengths, message by message."""
    sums: Iterable[int] = lengths[0]
    for more in lengths[1:]:
        sums = map(add, sums, more)
    return sums


def _or(column: Sequence[int | None] | None, part: slice, absent: int) -> list[int] | None:
    return None if column is None else [absent if entry is None else entry for entry in column[part]]
