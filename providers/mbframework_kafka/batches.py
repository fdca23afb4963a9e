"""Which messages go into a record batch together, and its bytes: in C (``native/kafka_records.h``), or in plain Python,
which is the reference and does whatever the extension leaves.

Promises:

- No record batch of several messages is above the limit that it is given, before compression; a message that is alone
  above it goes in a batch of its own.
- Both make the same record batches, byte for byte.

Pure; any thread.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, repeat
from operator import floordiv
from typing import NamedTuple, TypeVar

from mbframework.message import NO_TIMESTAMP, Batch
from mbframework_kafka.encoding import HEADER, RECORD_OVERHEAD, encode_headers, finish, join_records
from mbframework_kafka.speedups import compiled

_Item = TypeVar("_Item")


class RecordBatch(NamedTuple):
    """``content``: complete but for the producer's state and the checksum. ``indices``: whose messages it has."""

    content: bytearray
    indices: Sequence[int]


def record_batches(batch: Batch, chosen: Sequence[int], limit: int, codec: int) -> Iterator[RecordBatch]:
    """The messages at ``chosen``, ascending, in order; each record batch is made when it is asked for.

    :param limit: bytes of a record batch.
    :param codec: see :func:`~mbframework_kafka.encoding.finish`.
    """
    start = 0
    if compiled is not None:
        columns = batch.keys, batch.values, batch.header_blocks, batch.timestamps, batch.accepted
        places = None if len(chosen) == len(batch) else list(chosen)
        while start < len(chosen):
            made = compiled.record_batch(*columns, places, start, limit)
            if made is None:
                break
            records, stop, first, highest = made
            yield RecordBatch(finish(records, stop - start, first, highest, codec), chosen[start:stop])
            start = stop
    if start < len(chosen):
        yield from plain_record_batches(batch, chosen[start:], limit, codec)


def plain_record_batches(batch: Batch, chosen: Sequence[int], limit: int, codec: int) -> Iterator[RecordBatch]:
    """The same in plain Python."""
    keys, values = taken(batch.keys, chosen), taken(batch.values, chosen)
    blocks, times = taken(batch.header_blocks, chosen), milliseconds(batch, chosen)
    headers = None if blocks.count(None) == len(blocks) else list(map(encode_headers, blocks))
    for start, stop in cuts(keys, values, headers, limit):
        part = slice(start, stop)
        stamps = times[part]
        records = join_records(keys[part], values[part], None if headers is None else headers[part], stamps)
        yield RecordBatch(finish(records, stop - start, stamps[0], max(stamps), codec), chosen[part])


def milliseconds(batch: Batch, chosen: Sequence[int]) -> list[int]:
    """The timestamp of each message at ``chosen``, as Kafka wants it: the caller's, else the time of acceptance."""
    given, times = taken(batch.timestamps, chosen), taken(batch.accepted, chosen)
    if given.count(NO_TIMESTAMP) < len(given):
        times = [own if own != NO_TIMESTAMP else accepted for own, accepted in zip(given, times, strict=True)]
    return list(map(floordiv, times, repeat(1_000_000)))


def taken(column: Sequence[_Item], chosen: Sequence[int]) -> Sequence[_Item]:
    """Those of a column's items that are ``chosen``, ascending."""
    return column if len(chosen) == len(column) else list(map(column.__getitem__, chosen))


def cuts(
    keys: Sequence[bytes | None], values: Sequence[bytes | None], headers: Sequence[bytes] | None, limit: int
) -> Iterator[tuple[int, int]]:
    """Where to cut, so that no part of several records takes more than ``limit`` bytes as a record batch.

    :param headers: as :func:`~mbframework_kafka.encoding.encode_headers` makes them; None: no message has any.
    """
    count = len(values)
    columns = [keys, values] if headers is None else [keys, values, headers]
    sums = [list(accumulate(_lengths(column), initial=0)) for column in columns]
    # That there are no headers takes a byte too.
    overhead = RECORD_OVERHEAD + (headers is None)

    def weight(records: int) -> int:
        return overhead * records + sum(column[records] for column in sums)

    start = 0
    while start < count:
        room = weight(start) + limit - HEADER.size
        stop = max(bisect_right(range(count + 1), room, lo=start + 1, key=weight) - 1, start + 1)
        yield start, stop
        start = stop


def _lengths(column: Sequence[bytes | None]) -> list[int]:
    if column[0] is None and column.count(None) == len(column):
        return [0] * len(column)
    try:
        return list(map(len, column))  # type: ignore[arg-type]  # None is what the except is for
    except TypeError:
        return [len(item) if item else 0 for item in column]
