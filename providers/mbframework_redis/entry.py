"""A message as an entry of a stream, and a batch as one command. Pure functions.

::

    value            absent: None
    key              absent: None
    timestamp        nanoseconds since 1970: the caller's, else when write() took the message
    partition        only where the caller gave one
    header:NAME      once for each header, in order
    nullheader:NAME  a header whose value is None; the field is empty

Redis keeps fields that come twice; clients that make a mapping of an entry show the last of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mbframework.message import NO_PARTITION, Batch, Header, Position, unpack_headers

#: Adds a batch and its position, at once or not at all. It answers with the position that is stored in the end: another
#: one than the batch's means that nothing was added, since the stored one was not the expected one.
#:
#: KEYS: the position, then the streams. ARGV: the expected position ("" for none), the batch's, then the limit as the
#: number of arguments of XADD that state it (0 for none) and these; then for each message the index in KEYS of its
#: stream, the number of its arguments, and these.
#:
#: Redis undoes nothing: whatever could fail half-way (a key of another type) is looked at first.
SCRIPT = """
local found = redis.call('GET', KEYS[1]) or ''
if found ~= ARGV[1] then return found end
for i = 2, #KEYS do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= 'stream' and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is a ' .. kind)
  end
end
local limits = tonumber(ARGV[3])
local at = 4 + limits
while ARGV[at] do
  local last = at + 1 + tonumber(ARGV[at + 1])
  local stream = KEYS[tonumber(ARGV[at])]
  if limits == 0 then
    redis.call('XADD', stream, '*', unpack(ARGV, at + 2, last))
  elseif limits == 2 then
    redis.call('XADD', stream, ARGV[4], ARGV[5], '*', unpack(ARGV, at + 2, last))
  else
    redis.call('XADD', stream, ARGV[4], ARGV[5], ARGV[6], '*', unpack(ARGV, at + 2, last))
  end
  at = last + 1
end
redis.call('SET', KEYS[1], ARGV[2])
return ARGV[2]
"""

#: Lua unpacks at most some 8000 values at once, two for each field.
MOST_HEADERS = 3900


class Entry(NamedTuple):
    """An entry read back as a message; ``timestamp`` is nanoseconds since 1970."""

    value: bytes | None
    key: bytes | None
    headers: tuple[Header, ...]
    timestamp: int
    partition: int | None


def decode(fields: Iterable[tuple[bytes, bytes]]) -> Entry:
    """A message from the fields of an entry, in their order; for programs that read a stream."""
    plain: dict[bytes, bytes] = {}
    headers: list[Header] = []
    for name, value in fields:
        if name.startswith(b"header:"):
            headers.append((name[7:].decode(), value))
        elif name.startswith(b"nullheader:"):
            headers.append((name[11:].decode(), None))
        else:
            plain[name] = value
    partition = plain.get(b"partition")
    return Entry(
        plain.get(b"value"),
        plain.get(b"key"),
        tuple(headers),
        int(plain[b"timestamp"]),
        None if partition is None else int(partition),
    )


def encode_position(position: Position | None) -> bytes:
    """A position as it is stored; b"" for none."""
    return b"" if position is None else b"%d:%s" % (position.sequence, position.run.hex().encode())


def decode_position(stored: bytes) -> Position | None:
    """The reverse of :func:`encode_position`. ValueError: something else is stored there."""
    if not stored:
        return None
    sequence, colon, run = stored.partition(b":")
    if not colon:
        raise ValueError("a position has a colon")
    return Position(int(sequence), bytes.fromhex(run.decode("ascii")))


def limits(maxlen: int, *, exact: bool) -> list[bytes]:
    """The arguments of XADD that limit the stream."""
    if not maxlen:
        return []
    return [b"MAXLEN", b"%d" % maxlen] if exact else [b"MAXLEN", b"~", b"%d" % maxlen]


def bulk(value: bytes) -> bytes:
    """One argument of a command, as Redis' protocol writes it."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


def command(arguments: Sequence[bytes], written: bytes = b"", count: int = 0) -> bytes:
    """A command as Redis' protocol writes it, with ``count`` arguments more that are ``written`` already."""
    return b"*%d\r\n%b%b" % (len(arguments) + count, b"".join(map(bulk, arguments)), written)


_VALUE = b"$5\r\nvalue\r\n"
_KEY = b"$3\r\nkey\r\n"
_TIMESTAMP = b"$9\r\ntimestamp\r\n"
_PARTITION = b"$9\r\npartition\r\n"


def encode_messages(batch: Batch, start: int, stop: int, places: dict[str, int]) -> tuple[bytes, int]:
    """The messages ``start`` to ``stop`` as arguments of :data:`SCRIPT`, and how many arguments they are.

    :param places: for each topic the index of its stream among the script's keys.
    """
    # One piece a message and few calls: this loop is most of what a batch costs here.
    parts: list[bytes] = []
    total = 0
    columns = zip(
        batch.topics[start:stop], batch.keys[start:stop], batch.values[start:stop], batch.header_blocks[start:stop],
        batch.times()[start:stop], batch.partitions[start:stop], strict=True,
    )  # fmt: skip
    marks = {topic: bulk(b"%d" % place) for topic, place in places.items()}
    for topic, key, value, block, time, partition in columns:
        stamp = b"%d" % time
        fields = b"%b$%d\r\n%b\r\n" % (_TIMESTAMP, len(stamp), stamp)
        count = 2
        if value is not None:
            fields += b"%b$%d\r\n%b\r\n" % (_VALUE, len(value), value)
            count += 2
        if key is not None:
            fields += b"%b$%d\r\n%b\r\n" % (_KEY, len(key), key)
            count += 2
        if partition != NO_PARTITION:
            fields += _PARTITION + bulk(b"%d" % partition)
            count += 2
        if block:
            headers = unpack_headers(block)
            fields += b"".join(map(_header, headers))
            count += 2 * len(headers)
        parts += (marks[topic], _count(count), fields)
        total += count + 2
    return b"".join(parts), total


def _count(number: int) -> bytes:
    return b"$1\r\n%d\r\n" % number if number < 10 else bulk(b"%d" % number)


def _header(header: Header) -> bytes:
    name, value = header
    if value is None:
        return bulk(b"nullheader:" + name.encode()) + b"$0\r\n\r\n"
    return bulk(b"header:" + name.encode()) + bulk(value)
