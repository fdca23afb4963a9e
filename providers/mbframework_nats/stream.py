"""The stream at the server: what it is, whether it takes a subject, and how far a lane has come in it.

The last stored message of a lane tells the lane's position, since what is stored of a lane is always its beginning.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass

from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamInfo,
)
from nats.js.errors import NotFoundError

from mbframework.errors import ProviderUnusable
from mbframework.message import Position
from mbframework_nats import NatsOptions
from mbframework_nats.entry import Identity, covers, own_headers
from mbframework_nats.faults import NO_STREAM
from mbframework_nats.link import LONG_S, Link

#: Messages that are looked at in one go when looking back; first a tenth of it.
_STEP = 10_000


@dataclass(frozen=True)
class Found:
    """How far a lane has come: its position, if any of its messages was found, and the stream's last sequence."""

    position: Position | None
    last: int


async def ask(link: Link, options: NatsOptions) -> StreamInfo:
    """What the server knows of the stream, which is made where it is missing and that was asked for.

    :raises ProviderUnusable: there is none.
    """
    try:
        return await link.wait(link.js.stream_info(options.stream))
    except NotFoundError as error:
        if error.err_code != NO_STREAM:
            raise
    if not options.create:
        raise ProviderUnusable(
            f"{link.place}: there is no stream {options.stream!r}; make it (nats stream add), correct the name, or name"
            " its subjects in the option 'create'",
            provider="nats",
        )
    config = StreamConfig(name=options.stream, subjects=list(options.create), storage=StorageType.FILE)
    return await link.wait(link.js.add_stream(config))


async def made(link: Link, name: str) -> str:
    """When the stream was made, as the server says it; not every release of nats-py tells."""
    answer = await link.wait(link.client.request(f"{link.api}.STREAM.INFO.{name}", b"", LONG_S))
    return str(json.loads(answer.data).get("created", ""))


def takes(info: StreamInfo, subject: str) -> bool:
    """Whether a message with this subject goes to the stream."""
    return any(covers(pattern, subject) for pattern in info.config.subjects or [info.config.name or ""])


def facts(info: StreamInfo) -> str:
    """What should be known of it, in a line."""
    config = info.config
    copies = config.num_replicas or 1
    kept = [_word(config.storage), "1 replica" if copies == 1 else f"{copies} replicas"]
    if config.retention not in (None, RetentionPolicy.LIMITS):
        kept.append(f"retention {_word(config.retention)}")
    kept.append(f"duplicates for {config.duplicate_window or 0:g} s")
    return f"{config.name}: {', '.join(kept)}"


def _word(told: object) -> str:
    # nats-py leaves what the server says as it is, whatever its types say.
    return str(getattr(told, "value", told))


async def locate(link: Link, identity: Identity, info: StreamInfo, after: int, look_back: int) -> Found:
    """Look for the lane's last message behind the sequence ``after``, among the last ``look_back`` ones."""
    last = info.state.last_seq
    if last <= after:
        return Found(None, last)
    if position := await _at(link, identity, info, last):
        return Found(position, last)
    stop, begin = last, max(after + 1, info.state.first_seq, last - look_back)
    # Where messages go when they were read another consumer may be forbidden, and would hold them up.
    if not info.state.messages or info.config.retention not in (None, RetentionPolicy.LIMITS):
        return Found(None, last)
    step = _STEP // 10
    while begin < stop:
        start = max(begin, stop - step)
        if position := await _between(link, identity, info, start, stop):
            return Found(position, last)
        stop, step = start, _STEP
    return Found(None, last)


async def _at(link: Link, identity: Identity, info: StreamInfo, sequence: int) -> Position | None:
    try:
        message = await link.wait(link.js.get_msg(info.config.name or "", sequence))
    except NotFoundError:
        return None  # somebody has read or removed it
    return identity.position(message.headers)


async def _between(link: Link, identity: Identity, info: StreamInfo, start: int, stop: int) -> Position | None:
    """The position after the lane's last message from ``start`` on, before ``stop``."""
    mark, name = b"Nats-Msg-Id: " + identity.mark(), info.config.name or ""
    found = b""
    end: asyncio.Future[None] = link.future()

    def take(reply: bytes, headers: bytes) -> None:
        nonlocal found
        # $JS.ACK.STREAM.CONSUMER.DELIVERED.SEQUENCE.…, for who has a domain with two tokens more. A status has none.
        told = reply.split(b".")
        sequence = int(told[5 if len(told) <= 9 else 7]) if len(told) >= 9 else stop
        if sequence < stop and mark in headers:
            found = headers
        if sequence >= stop - 1 and not end.done():
            end.set_result(None)

    inbox = await link.listen(lambda _subject, reply, headers, _data: take(reply, headers))
    consumer = await link.wait(
        link.js.add_consumer(
            name,
            ConsumerConfig(
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=start,
                ack_policy=AckPolicy.NONE,
                headers_only=True,
                inactive_threshold=5.0,
            ),
        )
    )
    wanted = json.dumps({"batch": stop - start, "no_wait": True}).encode()
    await link.wait(link.client.publish(f"{link.api}.CONSUMER.MSG.NEXT.{name}.{consumer.name}", wanted, inbox))
    await link.wait(end)
    # It would also end by itself, soon.
    with contextlib.suppress(NotFoundError):
        await link.wait(link.js.delete_consumer(name, consumer.name))
    return identity.position(own_headers(found)) if found else None


async def same(link: Link, name: str, sequence: int, value: bytes) -> bool:
    """Whether the message at this place of the stream has this value; True where it is gone."""
    try:
        message = await link.wait(link.js.get_msg(name, sequence))
    except NotFoundError:
        return True
    return (message.data or b"") == value
