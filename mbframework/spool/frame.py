"""Frames: what one append puts on disk, N ≥ 1 messages or the seal of a segment.

Promises:

- Pure functions on bytes; any thread.
- What is encoded here decodes to the same messages; what does not validate under the segment's salt is
  refused as a whole. The CRC-32 starts from the salt, and two salts never agree on the same bytes, so a
  frame of another segment inside a message is no frame.
- Hostile bytes cost no more than their own size: a count is checked against the frame's length, and the sum
  of all lengths must fit the body exactly, before anything is made of them. Nothing but
  :class:`~mbframework.errors.UnsupportedFormat` is raised by them.

Layout (little-endian; the frame begins at a multiple of 8, zeros pad it to the next)::

     0  4s  marker "MBF1"            28  u16 flags
     4  u32 length with header       30  u16 topic length (0 with TOPICS)
     8  u64 first sequence           32  u32 CRC of the body
    16  i64 accepted, boot-time ns   36  u32 CRC of the 36 bytes before
    24  u32 count                    40  body: the columns, in the order of their flags

``buf`` is always the content of a segment from some multiple of 8 on, and offsets count from its beginning.

With the extension (:mod:`mbframework.speedups`) the work is done there. ``plain_…`` are the same in plain Python: the
reference, and what takes over where an argument is not of the usual kind.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple, cast

from mbframework.errors import UnsupportedFormat
from mbframework.message import NO_PARTITION, NO_TIMESTAMP
from mbframework.speedups import compiled, crc32
from mbframework.spool.layout import FRAME_MARKER, MAX_COUNT, MAX_FRAME, NONE_LENGTH, U64_LIMIT, align8

if TYPE_CHECKING:
    from mmap import mmap

    Searchable = bytes | bytearray | mmap
    Readable = Searchable | memoryview

TOPICS = 1
KEYS = 2
HEADERS = 4
TIMES = 8
SEAL = 16
PARTITIONS = 32

HEADER_SIZE = 40

_PREFIX = Struct("<4sIQqIHHI")
_HEADER = Struct("<4sIQqIHHII")
_U32 = Struct("<I")
_NONE = _U32.pack(NONE_LENGTH)
_PADDING = tuple(bytes(n) for n in range(8))
_BIG_ENDIAN = sys.byteorder == "big"

#: Bytes of fixed-width columns that one message takes, by flags; the value's length is always there.
_WIDTH = tuple(
    4
    + (2 if flags & TOPICS else 0)
    + (4 if flags & KEYS else 0)
    + (4 if flags & HEADERS else 0)
    + (8 if flags & TIMES else 0)
    + (4 if flags & PARTITIONS else 0)
    for flags in range(64)
)
_WIDEST = max(_WIDTH)
#: The fixed-width columns of a frame of one message, by flags without TOPICS.
_NUMBERS_OF_ONE = tuple(
    Struct(
        "<"
        + ("I" if flags & KEYS else "")
        + "I"
        + ("I" if flags & HEADERS else "")
        + ("q" if flags & TIMES else "")
        + ("i" if flags & PARTITIONS else "")
    )
    for flags in range(64)
)


@dataclass(slots=True)
class Columns:
    """The messages of a frame, one list a field, each ``count`` long.

    ``timestamps`` hold NO_TIMESTAMP and ``partitions`` NO_PARTITION where the caller gave none; ``accepted``
    is the boot-time clock in nanoseconds and stands for all of them.
    """

    first: int
    count: int
    topics: Sequence[str]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    header_blocks: Sequence[bytes | None]
    timestamps: Sequence[int]
    partitions: Sequence[int]
    accepted: int


class FrameHeader(NamedTuple):
    """The header of a frame; ``length`` is in bytes, with the header and without padding."""

    length: int
    first: int
    accepted: int
    count: int  # type: ignore[assignment]  # hides tuple.count(), of which a header has no need
    flags: int
    topic_length: int
    body_crc: int


def size_of_one(topic_len: int, key_len: int, value_len: int, header_len: int) -> int:
    """The most bytes that :func:`encode_one` makes of a message with these lengths; 0 stands for None."""
    return align8(HEADER_SIZE + _WIDEST + topic_len + key_len + value_len + header_len)


def size_of_many(count: int, payload: int) -> int:
    """The most bytes that :func:`encode_many` makes of ``count`` messages.

    ``payload``: bytes of all values, keys, header blocks and topics (each message's topic counted).
    """
    return align8(HEADER_SIZE + _WIDEST * count + payload)


def encode_one(
    salt: int,
    sequence: int,
    accepted: int,
    topic: bytes,
    key: bytes | None,
    value: bytes | None,
    header_block: bytes | None,
    timestamp: int | None,
    partition: int | None,
) -> bytes:
    """A frame of one message, padded. ``sequence`` is ≥ 1; not checked here, since this is write()'s path.

    :raises ValueError: the frame is larger than MAX_FRAME.
    """
    if compiled is not None:
        made = compiled.encode_one(salt, sequence, accepted, topic, key, value, header_block, timestamp, partition)
        if made is not None:
            return made
    return plain_encode_one(salt, sequence, accepted, topic, key, value, header_block, timestamp, partition)


def plain_encode_one(
    salt: int,
    sequence: int,
    accepted: int,
    topic: bytes,
    key: bytes | None,
    value: bytes | None,
    header_block: bytes | None,
    timestamp: int | None,
    partition: int | None,
) -> bytes:
    """See :func:`encode_one`."""
    flags = 0
    if key is None and header_block is None and timestamp is None and partition is None:
        body = topic + (_NONE if value is None else _U32.pack(len(value)) + value)
    else:
        flags, body = _body_of_one(topic, key, value, header_block, timestamp, partition)
    length = HEADER_SIZE + len(body)
    if length > MAX_FRAME:
        raise _too_large(length)
    prefix = _PREFIX.pack(FRAME_MARKER, length, sequence, accepted, 1, flags, len(topic), crc32(body, salt))
    return b"".join((prefix, _U32.pack(crc32(prefix, salt)), body, _PADDING[-length & 7]))


if compiled is None and not TYPE_CHECKING:
    # A call less for every message.
    encode_one = plain_encode_one


def encode_many(
    salt: int,
    first: int,
    accepted: int,
    topics: Sequence[bytes] | bytes,
    values: Sequence[bytes | None],
    keys: Sequence[bytes | None] | None = None,
    header_blocks: Sequence[bytes | None] | None = None,
    timestamps: Sequence[int] | None = None,
    partitions: Sequence[int] | None = None,
) -> bytes:
    """One frame of all messages, padded. ``topics`` may be one topic for all.

    A column that is None, or holds nothing but None, NO_TIMESTAMP or NO_PARTITION, is left out, and topics
    that are all the same are stored once: the bytes depend on the messages alone.

    :raises ValueError: no message, more than MAX_COUNT, columns of different lengths, a sequence out of
        range, or a frame larger than MAX_FRAME: split the messages (:func:`size_of_many` tells beforehand).
    """
    columns = topics, values, keys, header_blocks, timestamps, partitions
    made = None if compiled is None else compiled.encode_many(salt, first, accepted, *columns)
    return plain_encode_many(salt, first, accepted, *columns) if made is None else made


def plain_encode_many(
    salt: int,
    first: int,
    accepted: int,
    topics: Sequence[bytes] | bytes,
    values: Sequence[bytes | None],
    keys: Sequence[bytes | None] | None,
    header_blocks: Sequence[bytes | None] | None,
    timestamps: Sequence[int] | None,
    partitions: Sequence[int] | None,
) -> bytes:
    """See :func:`encode_many`."""
    count = len(values)
    if not 0 < count <= MAX_COUNT:
        raise ValueError(f"{count} messages in a frame; expected 1 to {MAX_COUNT}")
    if not 0 < first <= U64_LIMIT - count:
        raise ValueError(f"first sequence {first} of {count}; expected 1 to 2^63 - count")
    for column in (keys, header_blocks, timestamps, partitions):
        if column is not None and len(column) != count:
            raise ValueError(f"a column of {len(column)} entries for {count} values")

    flags = 0
    parts: list[bytes] = []
    if isinstance(topics, bytes):
        topic_length = len(topics)
        parts.append(topics)
    else:
        if len(topics) != count:
            raise ValueError(f"{len(topics)} topics for {count} values")
        if topics.count(topics[0]) == count:
            topic_length = len(topics[0])
            parts.append(topics[0])
        else:
            flags |= TOPICS
            topic_length = 0
            parts += (_column("H", map(len, topics)), *topics)
    payload: list[bytes] = []
    if keys is not None and keys.count(None) != count:
        flags |= KEYS
        parts.append(_blobs(keys, payload))
    parts.append(_blobs(values, payload))
    if header_blocks is not None and header_blocks.count(None) != count:
        flags |= HEADERS
        parts.append(_blobs(header_blocks, payload))
    if timestamps is not None and timestamps.count(NO_TIMESTAMP) != count:
        flags |= TIMES
        parts.append(_column("q", timestamps))
    if partitions is not None and partitions.count(NO_PARTITION) != count:
        flags |= PARTITIONS
        parts.append(_column("i", partitions))
    return assemble(salt, first, accepted, count, flags, topic_length, b"".join(parts + payload))


def assemble(salt: int, first: int, accepted: int, count: int, flags: int, topic_length: int, body: bytes) -> bytes:
    """A header in front of ``body``, padding behind it; for the encoders of frames and of the seal.

    :raises ValueError: the frame is larger than MAX_FRAME.
    """
    length = HEADER_SIZE + len(body)
    if length > MAX_FRAME:
        raise _too_large(length)
    prefix = _PREFIX.pack(FRAME_MARKER, length, first, accepted, count, flags, topic_length, crc32(body, salt))
    return b"".join((prefix, _U32.pack(crc32(prefix, salt)), body, _PADDING[-length & 7]))


def read_header(buf: Readable, offset: int, salt: int) -> FrameHeader | None:
    """The header of the frame at ``offset``, or None where no valid one is.

    With a header, :func:`next_offset` is the way to the next frame even where the body is damaged.

    :raises UnsupportedFormat: an intact header with a flag or codec that this release does not know.
    """
    if offset < 0 or offset & 7 or offset + HEADER_SIZE > len(buf):
        return None
    marker, length, first, accepted, count, flags, topic_length, body_crc, crc = _HEADER.unpack_from(buf, offset)
    if marker != FRAME_MARKER or crc32(buf[offset : offset + 36], salt) != crc:
        return None
    if flags > 63:
        raise UnsupportedFormat(
            f"the frame at {offset} has flags {flags:#06x}, of which this release knows {63:#06x}: "
            "read it with the release that wrote it",
            offset=offset,
        )
    if length > MAX_FRAME or not 0 < first <= U64_LIMIT - count:
        return None
    if flags & SEAL:
        fits = flags == SEAL and not count and not topic_length and length >= HEADER_SIZE
    else:
        fits = 0 < count <= MAX_COUNT and HEADER_SIZE + topic_length + count * _WIDTH[flags] <= length
        fits = fits and not (flags & TOPICS and topic_length)
    return FrameHeader(length, first, accepted, count, flags, topic_length, body_crc) if fits else None


def end_told(buf: Readable) -> tuple[int, int] | None:
    """The first sequence of the frame at the beginning of ``buf``, and one past its last, as it says itself: whether it
    is undamaged is not known without its segment's salt. None where none begins."""
    if len(buf) < HEADER_SIZE:
        return None
    marker, _, first, _, count, flags, *_ = _HEADER.unpack_from(buf, 0)
    return (first, first + count) if marker == FRAME_MARKER and count and not flags & SEAL else None


def decode(buf: Readable, offset: int, salt: int, header: FrameHeader | None = None) -> Columns | None:
    """The messages of the frame at ``offset``, or None where it is not whole and undamaged.

    ``header`` is what :func:`read_header` said of this offset, where the caller has it. A seal gives no messages.

    :raises UnsupportedFormat: as :func:`read_header`.
    """
    if header is None and (header := read_header(buf, offset, salt)) is None:
        return None
    body = read_body(buf, offset, salt, header)
    if body is None:
        return None
    _, first, accepted, count, flags, topic_length, _ = header
    if flags & SEAL:
        return Columns(first, 0, [], [], [], [], [], [], accepted)
    if compiled is None:
        return plain_decode_body(body, header)
    columns = compiled.decode_body(body, count, flags, topic_length)
    return None if columns is None else Columns(first, count, *columns, accepted)


def plain_decode_body(body: bytes, header: FrameHeader) -> Columns | None:
    """The messages of a body whose CRC is right, or None where its lengths do not fit, or a topic is no UTF-8."""
    _, first, accepted, count, flags, topic_length, _ = header
    if count == 1 and not flags & TOPICS:
        return _decode_one(body, header)
    source = BytesIO(body)
    read = source.read
    if flags & TOPICS:
        sizes = _array("H", read(2 * count))
        if sum(sizes) + count * _WIDTH[flags] > len(body):
            return None
        raw = list(map(read, sizes))
    else:
        raw = [read(topic_length)]
    try:
        names = {topic: topic.decode() for topic in set(raw)}
    except UnicodeDecodeError:
        return None

    key_sizes = _array("I", read(4 * count)) if flags & KEYS else None
    value_sizes = _array("I", read(4 * count))
    header_sizes = _array("I", read(4 * count)) if flags & HEADERS else None
    timestamps = _array("q", read(8 * count)).tolist() if flags & TIMES else [NO_TIMESTAMP] * count
    partitions = _array("i", read(4 * count)).tolist() if flags & PARTITIONS else [NO_PARTITION] * count
    left = len(body) - source.tell()
    for column in (key_sizes, value_sizes, header_sizes):
        if column is not None:
            left -= _total(column)
    if left:
        return None
    absent: list[bytes | None] = [None] * count
    keys = absent if key_sizes is None else _split(read, key_sizes)
    values = _split(read, value_sizes)
    header_blocks = absent if header_sizes is None else _split(read, header_sizes)
    topics = [names[topic] for topic in raw] if flags & TOPICS else [names[raw[0]]] * count
    return Columns(first, count, topics, keys, values, header_blocks, timestamps, partitions, accepted)


def read_body(buf: Readable, offset: int, salt: int, header: FrameHeader) -> bytes | None:
    """The body behind ``header``, or None where it is not whole in ``buf`` or its CRC differs."""
    body = bytes(buf[offset + HEADER_SIZE : offset + header.length])
    if len(body) != header.length - HEADER_SIZE or crc32(body, salt) != header.body_crc:
        return None
    return body


def is_seal(header: FrameHeader) -> bool:
    """Whether the frame is the seal of its segment rather than messages."""
    return header.flags & SEAL != 0


def next_offset(offset: int, length: int) -> int:
    """Where the frame after the one of ``length`` bytes at ``offset`` begins."""
    return align8(offset + length)


def find_marker(buf: Searchable, start: int) -> int:
    """The first multiple of 8, at or after ``start``, where the marker stands; -1 where none does."""
    at = buf.find(FRAME_MARKER, max(start, 0))
    while at >= 0 and at & 7:
        at = buf.find(FRAME_MARKER, at + 1)
    return at


def _body_of_one(
    topic: bytes,
    key: bytes | None,
    value: bytes | None,
    header_block: bytes | None,
    timestamp: int | None,
    partition: int | None,
) -> tuple[int, bytes]:
    """The flags and the body of a frame of one message that is more than a topic and a value."""
    flags = 0
    numbers: list[int] = []
    blobs: list[bytes] = []
    if key is not None:
        flags = KEYS
        numbers.append(len(key))
        blobs.append(key)
    if value is None:
        numbers.append(NONE_LENGTH)
    else:
        numbers.append(len(value))
        blobs.append(value)
    if header_block is not None:
        flags |= HEADERS
        numbers.append(len(header_block))
        blobs.append(header_block)
    if timestamp is not None and timestamp != NO_TIMESTAMP:
        flags |= TIMES
        numbers.append(timestamp)
    if partition is not None and partition != NO_PARTITION:
        flags |= PARTITIONS
        numbers.append(partition)
    return flags, b"".join((topic, _NUMBERS_OF_ONE[flags].pack(*numbers), *blobs))


def _decode_one(body: bytes, header: FrameHeader) -> Columns | None:
    """The same as the columns of :func:`decode`, at a third of the cost: most frames have one message."""
    _, first, accepted, _, flags, topic_length, _ = header
    layout = _NUMBERS_OF_ONE[flags]
    numbers = layout.unpack_from(body, topic_length)
    at = topic_length + layout.size
    i = 0
    key = header_block = value = None
    if flags & KEYS:
        if numbers[0] != NONE_LENGTH:
            key = body[at : at + numbers[0]]
            at += numbers[0]
        i = 1
    if numbers[i] != NONE_LENGTH:
        value = body[at : at + numbers[i]]
        at += numbers[i]
    if flags & HEADERS:
        i += 1
        if numbers[i] != NONE_LENGTH:
            header_block = body[at : at + numbers[i]]
            at += numbers[i]
    if at != len(body):
        return None
    try:
        topic = body[:topic_length].decode()
    except UnicodeDecodeError:
        return None
    partition = numbers[-1] if flags & PARTITIONS else NO_PARTITION
    timestamp = numbers[i + 1] if flags & TIMES else NO_TIMESTAMP
    return Columns(first, 1, [topic], [key], [value], [header_block], [timestamp], [partition], accepted)


def _too_large(length: int) -> ValueError:
    return ValueError(f"a frame of {length} bytes; at most {MAX_FRAME} fit")


def _blobs(column: Sequence[bytes | None], payload: list[bytes]) -> bytes:
    """The column of lengths; the bytes that they measure are appended to ``payload``."""
    if None in column:
        payload += [entry for entry in column if entry is not None]
        return _column("I", [NONE_LENGTH if entry is None else len(entry) for entry in column])
    present = cast("Sequence[bytes]", column)
    payload += present
    return _column("I", map(len, present))


def _column(code: str, numbers: Iterable[int]) -> bytes:
    column = array(code, numbers)
    if _BIG_ENDIAN:
        column.byteswap()
    return column.tobytes()


def _array(code: str, raw: bytes) -> array[int]:
    column = array(code, raw)
    if _BIG_ENDIAN:
        column.byteswap()
    return column


def _total(sizes: array[int]) -> int:
    """The bytes that a column of lengths claims."""
    # One None alone exceeds any body, so that the plain sum is right wherever it is small.
    total = sum(sizes)
    return total if total < NONE_LENGTH else sum(size for size in sizes if size != NONE_LENGTH)


def _split(read: Callable[[int], bytes], sizes: array[int]) -> list[bytes | None]:
    """The entries of a column, read one after the other; the caller has checked that they are there."""
    if NONE_LENGTH in sizes:
        return [None if size == NONE_LENGTH else read(size) for size in sizes]
    return list(map(read, sizes))
