"""Messages on their way to the stream, and the answers to them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from mbframework.message import Batch
from mbframework_nats.entry import Press
from mbframework_nats.link import Answer, Link
from mbframework_nats.pace import Pace

#: Portions under way at once, and their bytes unless one message alone has more. Together they stay below the 10,000
#: messages that later servers let wait for a stream.
_PORTIONS = 4
_PORTION_BYTES = 1 << 20


class Refused(Exception):
    """The server refused the message with this index; ``error`` is why.

    None behind it is stored, nor will be. With a careful pace all before it are. Otherwise only the error that it is
    not directly behind the one before it says that the server has come to all of those.
    """

    def __init__(self, index: int, error: Exception) -> None:
        super().__init__(str(error))
        self.index = index
        self.error = error


async def publish(
    link: Link,
    press: Press,
    batch: Batch,
    start: int,
    pace: Pace,
    suffix: bytes,
    stored: Callable[[int, Answer], Awaitable[None]],
) -> None:
    """Publish the messages of the batch from ``start`` on; return when all are stored.

    :param suffix: of their ids.
    :param stored: told of indices, in order: this message is stored, and all before it.
    :raises Refused: the server does not take one of them.
    """
    flight: deque[tuple[int, asyncio.Future[Answer]]] = deque()
    careful, count = pace.careful, len(batch)
    previous: bytes | None = None
    at = start
    while at < count or flight:
        if at < count and (not flight if careful else len(flight) < _PORTIONS):
            # Without a message under way all before it is known to be stored: then it may stand anywhere.
            condition = previous if flight else None
            stop = press.end(at, pace.messages, _PORTION_BYTES)
            replies = [b""] * (stop - at)
            for index in range(at if careful else stop - 1, stop):
                replies[index - at], future = link.expect()
                flight.append((index, future))
            commands, previous = press.commands(at, stop, suffix, replies, condition)
            await link.write(commands)
            at = stop
            continue
        index, future = flight.popleft()
        answer = await link.wait(future)
        if answer.error is not None:
            raise Refused(index, answer.error)
        await stored(index, answer)
        if careful and not flight:
            pace.well()
            careful = pace.careful
