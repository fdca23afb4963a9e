"""A part of a batch as one request: what goes together, its body, headers and key. Pure functions.

Where a request begins and ends is decided from its first message on: what is tried again is cut as it was before, and
has the same key.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mbframework.message import Batch
from mbframework_http import HttpOptions, envelope

_TYPES = {
    "raw": "application/octet-stream",
    "json": "application/json",
    "array": "application/json",
    "ndjson": "application/x-ndjson",
}


@dataclass(frozen=True, slots=True)
class Piece:
    """A message on its way: its index in the batch, and what it is in a body; None where it cannot be in one."""

    index: int
    content: bytes | None


@dataclass(frozen=True, slots=True)
class Parcel:
    """What one request carries; ``pieces`` are neighbours of one batch, and of one topic where the URL names it."""

    pieces: tuple[Piece, ...]
    topic: str
    size: int

    def halves(self) -> tuple[Parcel, Parcel]:
        """Two smaller ones with the same messages; for more than one piece."""
        middle = len(self.pieces) // 2
        return parcel(self.pieces[:middle], self.topic), parcel(self.pieces[middle:], self.topic)


def parcel(pieces: tuple[Piece, ...], topic: str) -> Parcel:
    """A parcel with its size in bytes."""
    return Parcel(pieces, topic, sum(len(piece.content or b"") + 1 for piece in pieces))


def pieces_of(batch: Batch, options: HttpOptions) -> Iterator[Piece]:
    """The messages of a batch, encoded."""
    for index, value in enumerate(batch.values):
        if options.body == "raw":
            content: bytes | None = value or b""
        elif options.items == "value":
            content = envelope.json_of(value)
        else:
            content = envelope.object_of(batch[index])
        yield Piece(index, content)


def cut(batch: Batch, options: HttpOptions, most_bytes: int) -> Iterator[Parcel]:
    """The batch as parcels, in order; a piece without content is in one of its own."""
    by_topic = "{topic}" in options.path + options.query
    most = 1 if options.single else options.request_messages
    held: list[Piece] = []
    size = 0
    for piece in pieces_of(batch, options):
        length = len(piece.content or b"") + 1
        apart = bool(held) and (
            len(held) >= most
            or size + length > most_bytes
            or piece.content is None
            or held[-1].content is None
            or (by_topic and batch.topics[piece.index] != batch.topics[held[-1].index])
        )
        if apart:
            yield Parcel(tuple(held), batch.topics[held[0].index], size)
            held, size = [], 0
        held.append(piece)
        size += length
    if held:
        yield Parcel(tuple(held), batch.topics[held[0].index], size)


def key_of(batch: Batch, sent: Parcel, buffer_id: str, lane: str) -> str:
    """The same for the same messages, whenever they are sent."""
    first, last = batch.sequences[sent.pieces[0].index], batch.sequences[sent.pieces[-1].index]
    count = len(sent.pieces)
    if count == 1:
        return f"{buffer_id}:{lane}:{first}"
    # Where some in between have expired or were rejected, it is another request.
    gaps = "" if last - first + 1 == count else f"/{count}"
    return f"{buffer_id}:{lane}:{first}-{last}{gaps}"


def headers_of(batch: Batch, sent: Parcel, options: HttpOptions, buffer_id: str, lane: str) -> list[tuple[str, str]]:
    """The request's headers, but for those of the connection and of authorisation."""
    found = {"content-type": options.content_type or _TYPES[options.body], "accept": "application/json, */*;q=0.5"}
    found |= {name.lower(): value for name, value in options.header.items()}
    own: list[tuple[str, str]] = [("Mb-Buffer", buffer_id), ("Mb-Lane", lane)]
    if options.idempotency:
        own.append((options.idempotency, key_of(batch, sent, buffer_id, lane)))
    if options.single:
        index = sent.pieces[0].index
        message = batch[index]
        found |= envelope.forwarded(message.headers, map(str.lower, options.forward))
        if options.body == "raw":
            own += envelope.headers_of(message)
    return [*found.items(), *own]


def body_of(sent: Parcel, options: HttpOptions) -> bytes:
    """The request's body."""
    contents = [piece.content or b"" for piece in sent.pieces]
    return contents[0] if options.body == "raw" else envelope.joined(contents, options.body)
