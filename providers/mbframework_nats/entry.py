"""A message as one of a stream: its subject, its headers, and the commands that publish many. Pure functions.

::

    Nats-Msg-Id     BUFFER:LANE:SEQUENCE, and :ROUND where an earlier attempt was refused
    Mb-Run          the run of the position, in hex
    Mb-Timestamp    nanoseconds since 1970: the caller's, else when write() took the message
    Mb-Key          percent-encoded; absent: None
    Mb-Null         1: the value is None; an empty value has no such header
    Mb-Partition    only where the caller gave one
    NAME            a header as it is, where NATS can carry it so
    Mb-Header       any other, as NAME=VALUE, both percent-encoded; a NAME alone has the value None

Each message but the first of those under way says ``Nats-Expected-Last-Msg-Id``: the server stores it directly behind
the one before it, or not at all. So what is stored of a lane is always its beginning, without a hole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes

from mbframework.message import NO_PARTITION, Batch, Header, Position, unpack_headers

#: Bytes of a subject; the server takes 4,096 for the whole command line.
MOST_SUBJECT = 3000
#: The server keeps the length of the headers in 16 bits.
MOST_HEADERS = 65_535
#: Headers of each message whose length does not depend on it, generously, without buffer, lane and stream.
_FIXED = 200

_OURS = ("Mb-", "Nats-")
_CODED = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")
_TOPIC = "".join(char for char in _CODED if char not in "*>")
_NAME = re.compile(r"(?!(?i:nats-|mb-))[A-Za-z0-9!#$&'*+.^_`|~-]+")
_VALUE = re.compile(rb"(?:[!-~](?:[ -~]*[!-~])?)?")


class Entry(NamedTuple):
    """A stored message read back; ``timestamp`` is nanoseconds since 1970."""

    value: bytes | None
    key: bytes | None
    headers: tuple[Header, ...]
    timestamp: int
    partition: int | None


class Identity(NamedTuple):
    """By what a lane's messages are known in the stream."""

    buffer_id: str
    lane: str

    def mark(self) -> bytes:
        """What their ids begin with."""
        return f"{self.buffer_id}:{quote(self.lane, safe='')}:".encode()

    def position(self, headers: Mapping[str, str] | None) -> Position | None:
        """The position after the message with these headers; None: it is not of this lane."""
        told, run = (headers or {}).get("Nats-Msg-Id", ""), (headers or {}).get("Mb-Run", "")
        mark = self.mark().decode()
        if not told.startswith(mark):
            return None
        try:
            return Position(int(told[len(mark) :].partition(":")[0]) + 1, bytes.fromhex(run))
        except ValueError:
            return None


def subject(prefix: str, topic: str) -> str:
    """The subject of a topic. Dots stay, and make tokens; what a subject cannot hold is percent-encoded.

    A "$" in front is, too: such subjects are commands to the server.
    """
    encoded = quote(topic, safe=_TOPIC)
    if encoded.startswith(".") or encoded.endswith(".") or ".." in encoded:
        encoded = re.sub(r"\.(?=\.)|(?<=\.)\.|^\.|\.$", "%2E", encoded)
    if encoded.startswith("$"):
        encoded = f"%24{encoded[1:]}"
    return prefix + encoded


def topic_of(prefix: str, found: str) -> str:
    """The reverse of :func:`subject`."""
    return unquote_to_bytes(found.removeprefix(prefix)).decode()


def covers(pattern: str, found: str) -> bool:
    """Whether a pattern of subjects, with ``*`` and ``>``, takes the subject in."""
    wanted, tokens = pattern.split("."), found.split(".")
    for at, token in enumerate(wanted):
        if token == ">":  # noqa: S105 - no password
            return len(tokens) > at
        if at >= len(tokens) or token not in ("*", tokens[at]):
            return False
    return len(wanted) == len(tokens)


def headers_of(batch: Batch) -> list[bytes]:
    """For each message the headers that do not depend on how it is published, a line each."""
    found: list[bytes] = []
    columns = zip(batch.keys, batch.values, batch.header_blocks, batch.times(), batch.partitions, strict=True)
    for key, value, block, time, partition in columns:
        lines = b"Mb-Timestamp: %d\r\n" % time
        if key is not None:
            lines += b"Mb-Key: %b\r\n" % quote_from_bytes(key, safe=_CODED).encode()
        if value is None:
            lines += b"Mb-Null: 1\r\n"
        if partition != NO_PARTITION:
            lines += b"Mb-Partition: %d\r\n" % partition
        if block:
            lines += b"".join(map(_line, unpack_headers(block)))
        found.append(lines)
    return found


def _line(header: Header) -> bytes:
    name, value = header
    if value is not None and _NAME.fullmatch(name) and _VALUE.fullmatch(value):
        return b"%b: %b\r\n" % (name.encode(), value)
    coded = quote(name, safe=_CODED.replace("=", ""))
    return f"Mb-Header: {coded}{'' if value is None else '=' + quote_from_bytes(value, safe=_CODED)}\r\n".encode()


def _lines(block: bytes) -> Iterator[tuple[str, str]]:
    for line in block.decode(errors="replace").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            yield name, value.removeprefix(" ")


def own_headers(block: bytes) -> dict[str, str]:
    """Of a block of headers those that are not the caller's."""
    return {name: value for name, value in _lines(block) if name.startswith(_OURS)}


def decode(block: bytes, data: bytes) -> Entry:
    """A message from its block of headers, as the server keeps it, and its data; for programs that read a stream."""
    own = own_headers(block)
    headers: list[Header] = []
    for name, value in _lines(block):
        if name == "Mb-Header":
            coded, equals, rest = value.partition("=")
            headers.append((unquote_to_bytes(coded).decode(), unquote_to_bytes(rest) if equals else None))
        elif not name.startswith(_OURS):
            headers.append((name, value.encode()))
    key, partition = own.get("Mb-Key"), own.get("Mb-Partition")
    return Entry(
        None if "Mb-Null" in own else data,
        None if key is None else unquote_to_bytes(key),
        tuple(headers),
        int(own["Mb-Timestamp"]),
        None if partition is None else int(partition),
    )


class Press:
    """Makes commands of the messages of one batch.

    :param mark: of the :class:`Identity`.
    """

    def __init__(self, batch: Batch, mark: bytes, stream: str, prefix: str) -> None:
        self._batch = batch
        self._lines = headers_of(batch)
        self._subjects = {topic: subject(prefix, topic).encode() for topic in set(batch.topics)}
        self._mark = mark
        self._stream = stream.encode()
        self._run = batch.position.run.hex().encode()
        self.overhead = _FIXED + 2 * len(mark) + len(self._stream)

    def refused(self, most: int) -> dict[int, str]:
        """Messages that the server cannot hold, of ``most`` bytes with their headers, and why."""
        refused: dict[int, str] = {}
        for index, (topic, value, lines) in enumerate(
            zip(self._batch.topics, self._batch.values, self._lines, strict=True)
        ):
            head = len(lines) + self.overhead
            if head + len(value or b"") > most:
                refused[index] = (
                    f"it has {head + len(value or b'')} bytes with its headers; this server takes {most}"
                    " (max_payload, or max_msg_size of the stream)"
                )
            elif head > MOST_HEADERS:
                refused[index] = f"its headers have {head} bytes; NATS takes {MOST_HEADERS}"
            elif len(self._subjects[topic]) > MOST_SUBJECT:
                refused[index] = f"its subject has {len(self._subjects[topic])} bytes; expected at most {MOST_SUBJECT}"
        return refused

    def end(self, start: int, count: int, size: int) -> int:
        """The end of a portion: at most ``count`` messages, and ``size`` bytes unless one alone has more."""
        stop, most, taken = start, min(start + count, len(self._batch)), 0
        while stop < most and (taken < size or stop == start):
            taken += len(self._lines[stop]) + len(self._batch.values[stop] or b"")
            stop += 1
        return stop

    def commands(
        self, start: int, stop: int, suffix: bytes, replies: Sequence[bytes], previous: bytes | None
    ) -> tuple[bytes, bytes]:
        """The commands that publish the messages ``start`` to ``stop``, and the id of the last.

        :param suffix: of their ids.
        :param replies: for each the subject of its answer; b"": none is wanted.
        :param previous: the id of the message directly before them; None: the first is stored wherever it arrives.
        """
        # One piece a message and few calls: this loop is most of what a batch costs here.
        parts: list[bytes] = []
        batch, mark, run, subjects = self._batch, self._mark, self._run, self._subjects
        told = b"" if previous is not None else b"Nats-Expected-Stream: %b" % self._stream
        own = previous or b""
        columns = zip(
            batch.sequences[start:stop], batch.topics[start:stop], batch.values[start:stop], self._lines[start:stop],
            replies, strict=True,
        )  # fmt: skip
        for sequence, topic, value, lines, reply in columns:
            condition = told or b"Nats-Expected-Last-Msg-Id: %b" % own
            told = b""
            own = b"%b%d%b" % (mark, sequence, suffix)
            head = b"NATS/1.0\r\nNats-Msg-Id: %b\r\n%b\r\nMb-Run: %b\r\n%b\r\n" % (own, condition, run, lines)
            data = value or b""
            size = len(head)
            parts.append(b"HPUB %b %b %d %d\r\n%b" % (subjects[topic], reply, size, size + len(data), head))
            parts += (data, b"\r\n")
        return b"".join(parts), own

    def subject(self, index: int) -> str:
        """The subject of a message."""
        return self._subjects[self._batch.topics[index]].decode()
