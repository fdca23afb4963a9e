"""Kafka record batches (format 2) out of columns: pure functions, a few interpreter operations a batch instead of a
few dozen a record.

A record is eight pieces: its size, attributes and timestamp, offset, key with length, value with length, headers. They
are made column by column with what runs in C (``map``, ``len``, slice assignment) and joined once. What is the same in
all records of a batch, as with messages of one size without keys, is made once.

Promise: the bytes are those of ``kafka.record.default_records.DefaultRecordBatchBuilder``, for every input.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from operator import add, sub

from kafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode

#: Base offset, length, leader epoch, magic, CRC, attributes, last offset, first and last timestamp, producer id, epoch
#: and sequence, number of records.
HEADER = struct.Struct(">qiibIhiqqqhii")
#: What a record takes at most beyond key, value and headers: size, attributes, timestamp, offset, two lengths.
RECORD_OVERHEAD = 5 + 1 + 10 + 5 + 5 + 5

#: By the number that a batch's attributes give the codec.
COMPRESSORS: Mapping[int, Callable[[bytes], bytes]] = {1: gzip_encode, 2: snappy_encode, 3: lz4_encode, 4: zstd_encode}

_AFTER_LENGTH = 12
_MAGIC = 2
_NULL = b"\x01"
_BLOCK_COUNT = struct.Struct("<H")
_BLOCK_HEADER = struct.Struct("<HI")
_BLOCK_NULL = 0xFFFFFFFF
_LONGEST_CACHED = 256

#: A column: the same bytes in every record, or a list.
_Column = bytes | list[bytes]


def varint(number: int) -> bytes:
    """A signed number of up to 64 bits: zigzag, seven bits a byte, the lowest first."""
    rest = (number << 1) ^ (number >> 63)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


class _Varints(dict[int, bytes]):
    """The encodings of numbers behind a prefix, made when they are first asked for; the usual ones are kept."""

    def __init__(self, prefix: bytes = b"") -> None:
        super().__init__()
        self._prefix = prefix

    def __missing__(self, number: int) -> bytes:
        encoded = self._prefix + varint(number)
        if -1 <= number < 1 << 16:
            self[number] = encoded
        return encoded


_varint = _Varints().__getitem__
#: A record's attributes, of which there are none, and its timestamp.
_stamp = _Varints(b"\0").__getitem__


class _Offsets:
    """The offsets 0, 1, 2, … encoded, and how long each is; grows as needed."""

    def __init__(self) -> None:
        self.encoded: list[bytes] = []
        self.widths: list[int] = []

    def reach(self, count: int) -> None:
        """Have at least ``count`` of them."""
        if count > len(self.encoded):
            # A new list each time: another lane's thread may be reading the former.
            encoded = [varint(number) for number in range(max(count, 2 * len(self.encoded), 1024))]
            self.widths = list(map(len, encoded))
            self.encoded = encoded


_offsets = _Offsets()


def encode_headers(block: bytes | None) -> bytes:
    """A header block (docs/format.md) as Kafka writes headers."""
    if not block:
        return b"\0"
    # Long ones are not kept: the cache is bounded in bytes too.
    return _cached_headers(block) if len(block) <= _LONGEST_CACHED else _headers(block)


def _headers(block: bytes) -> bytes:
    (count,) = _BLOCK_COUNT.unpack_from(block)
    parts = [_varint(count)]
    at = 2
    for _ in range(count):
        name_size, value_size = _BLOCK_HEADER.unpack_from(block, at)
        at += 6
        parts += (_varint(name_size), block[at : at + name_size])
        at += name_size
        if value_size == _BLOCK_NULL:
            parts.append(_NULL)
        else:
            parts += (_varint(value_size), block[at : at + value_size])
            at += value_size
    return b"".join(parts)


_cached_headers = lru_cache(maxsize=4_096)(_headers)


def finish(records: bytearray, count: int, first: int, highest: int, codec: int) -> bytearray:
    """The same as a record batch, complete but for the producer's state and the checksum.

    :param records: of :func:`join_records`.
    :param first: the timestamp of the first record, in milliseconds since 1970; ``highest``: of the latest.
    :param codec: 0 for none, else one of :data:`COMPRESSORS`. It stays uncompressed where it would not get smaller.
    """
    attributes = 0
    if codec:
        body = bytes(memoryview(records)[HEADER.size :])
        compressed = COMPRESSORS[codec](body)
        if len(compressed) < len(body):
            records[HEADER.size :] = compressed
            attributes = codec
    HEADER.pack_into(
        records, 0, 0, len(records) - _AFTER_LENGTH, 0, _MAGIC, 0, attributes, count - 1, first, highest,
        -1, -1, -1, count,
    )  # fmt: skip
    return records


def join_records(
    keys: Sequence[bytes | None], values: Sequence[bytes | None], headers: Sequence[bytes] | None, times: Sequence[int]
) -> bytearray:
    """All records, behind room for the header.

    :param headers: as :func:`encode_headers` makes them; None: no message has any.
    :param times: milliseconds since 1970.
    """
    count = len(values)
    _offsets.reach(count)
    constant = 1
    variable: list[Sequence[int]] = []
    if times.count(times[0]) == count:
        stamps: _Column = b"\0\0"
        constant += 1
    else:
        stamps = list(map(_stamp, map(sub, times, repeat(times[0]))))
        widths = list(map(len, stamps))
        if widths.count(widths[0]) == count:
            constant += widths[0] - 1
        else:
            constant -= 1
            variable.append(widths)
    columns: list[_Column] = [stamps, _offsets.encoded[:count]]
    for column in (keys, values):
        pieces, sizes = _with_length(column, count)
        columns += pieces
        if isinstance(sizes, int):
            constant += sizes
        else:
            variable.append(sizes)
    if headers is None:
        columns.append(b"\0")
        constant += 1
    else:
        columns.append(list(headers))
        variable.append(list(map(len, headers)))
    return _weave([_sizes(constant, variable, count), *columns], count)


def _with_length(column: Sequence[bytes | None], count: int) -> tuple[list[_Column], int | list[int]]:
    """A column of byte strings as columns of lengths and of bytes, and how much they take in each record."""
    first = column[0]
    if first is None and column.count(None) == count:
        return [_NULL], 1
    try:
        lengths = list(map(len, column))  # type: ignore[arg-type]  # None is what the except is for
        present: list[bytes] = list(column)  # type: ignore[arg-type]  # there is none
    except TypeError:
        prefixes = [_NULL if item is None else _varint(len(item)) for item in column]
        present = [item or b"" for item in column]
        return [prefixes, present], list(map(add, map(len, prefixes), map(len, present)))
    if lengths.count(lengths[0]) == count:
        prefix = _varint(lengths[0])
        return [prefix, present], len(prefix) + lengths[0]
    prefixes = list(map(_varint, lengths))
    return [prefixes, present], list(map(add, map(len, prefixes), lengths))


def _sizes(constant: int, variable: list[Sequence[int]], count: int) -> list[bytes]:
    """The column of the records' sizes: what is the same in all of them, what is not, and the offsets."""
    if variable:
        sums: Sequence[int] | map[int] = _offsets.widths[:count]
        for sizes in variable:
            sums = map(add, sums, sizes)
        return list(map(_varint, map(add, sums, repeat(constant))))
    found: list[bytes] = []
    while len(found) < count:
        width = _offsets.widths[len(found)]
        last = 1 << 7 * width - 1  # the first offset that takes a byte more
        found += repeat(_varint(constant + width), min(last, count) - len(found))
    return found


def _weave(columns: Sequence[_Column], count: int) -> bytearray:
    """One record after the other, behind room for the header; constants that meet are joined first."""
    merged: list[_Column] = []
    for column in columns:
        last = merged[-1] if merged else None
        if isinstance(column, bytes) and isinstance(last, bytes):
            merged[-1] = last + column
        else:
            merged.append(column)
    width = len(merged)
    pieces: list[bytes] = [b""] * (1 + width * count)
    pieces[0] = bytes(HEADER.size)
    for place, column in enumerate(merged, 1):
        pieces[place::width] = [column] * count if isinstance(column, bytes) else column
    return bytearray().join(pieces)
