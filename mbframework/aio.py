"""The buffer for asyncio programs.

Promises
--------
- Nothing that waits runs on the event loop: where a write would have to wait, it is tried again between sleeps of the
  loop; opening, closing and syncs run on a thread.
- A cancelled ``await write(…)`` was not accepted, unless ``accepted_sequence`` on the CancelledError says otherwise.

Every coroutine must run on the loop that is running; the buffer underneath may be shared with threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from mbframework.buffer import MessageBuffer
from mbframework.errors import BufferFull, MessageBufferError
from mbframework.intake import Data, Headers
from mbframework.lane import WouldWait

if TYPE_CHECKING:
    from mbframework.plugins.source import ProviderArgument
    from mbframework.status import LaneStatus

T = TypeVar("T")
_FIRST_SLEEP = 0.001
_LONGEST_SLEEP = 0.05


class AsyncMessageBuffer:
    """As :class:`~mbframework.MessageBuffer`, for ``async with``; it opens when it is entered.

    :raises ConfigurationError: from ``__aenter__``, like every error of opening.
    """

    def __init__(self, directory: Any, provider: ProviderArgument = None, **options: Any) -> None:
        self._make = partial(MessageBuffer, directory, provider, **options)
        self._buffer: MessageBuffer | None = None

    async def __aenter__(self) -> Self:
        self._buffer = await asyncio.to_thread(self._make)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except MessageBufferError:
            if error is None:
                raise

    @property
    def buffer(self) -> MessageBuffer:
        """The buffer underneath."""
        if self._buffer is None:
            raise RuntimeError("the buffer is not open; expected 'async with AsyncMessageBuffer(…)'")
        return self._buffer

    async def write(
        self,
        topic: str,
        value: Data,
        key: Data = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp: int | None = None,
    ) -> int:
        """As :meth:`MessageBuffer.write`; waits, where it must, without holding up the loop."""
        items, size = self.buffer.check_many(
            topic,
            [value],
            [key],
            None if headers is None else [headers],
            None if partition is None else [partition],
            None if timestamp is None else [timestamp],
        )
        return (await self._accept(items, size))[0]

    async def write_many(
        self,
        topic: str,
        values: Iterable[Data],
        keys: Iterable[Data] | None = None,
        headers: Iterable[Headers | None] | None = None,
        partitions: Iterable[int | None] | None = None,
        timestamps: Iterable[int | None] | None = None,
    ) -> range:
        """As :meth:`MessageBuffer.write_many`; waits, where it must, without holding up the loop."""
        items, size = self.buffer.check_many(topic, values, keys, headers, partitions, timestamps)
        return await self._accept(items, size)

    async def _accept(self, items: list[Any], size: int) -> range:
        lane = self.buffer.running_lane()
        timeout = lane.config.block_timeout
        loop = asyncio.get_running_loop()
        begun = loop.time()
        sleep = _FIRST_SLEEP
        searches = lane.space_searches
        while True:
            try:
                accepted = lane.write_many(items, size, wait=False)
                break
            except WouldWait as reason:
                # Everything or nothing was accepted: a part is only ever accepted by a call that may wait.
                if timeout is not None and loop.time() - begun >= timeout:
                    raise BufferFull(f"waited {timeout} s (block_timeout): {reason}") from None
                if lane.full and lane.config.on_full == "prune" and lane.space_searches >= searches + 2:
                    raise BufferFull(f"the buffer is full and nothing is left to prune: {reason}") from None
            await asyncio.sleep(sleep)
            sleep = min(2 * sleep, _LONGEST_SLEEP)
        if lane.limits.always_sync and accepted:
            await self._finish(accepted, partial(lane.make_durable, accepted[-1]))
        return accepted

    async def _finish(self, accepted: range, work: Callable[[], T]) -> T:
        """Work on a thread for messages that are accepted already."""
        try:
            return await asyncio.to_thread(work)
        except asyncio.CancelledError as error:
            error.accepted_sequence = accepted[0]  # type: ignore[attr-defined]
            raise

    async def flush(self, timeout: float | None = None) -> None:
        """As :meth:`MessageBuffer.flush`."""
        await asyncio.to_thread(self.buffer.flush, timeout)

    async def sync(self) -> None:
        """As :meth:`MessageBuffer.sync`."""
        await asyncio.to_thread(self.buffer.sync)

    async def set_mode(self, mode: Literal["block", "raise", "buffer", "always"]) -> None:
        """As :meth:`MessageBuffer.set_mode`."""
        await asyncio.to_thread(self.buffer.set_mode, mode)

    async def pause(self) -> None:
        """As :meth:`MessageBuffer.pause`."""
        await asyncio.to_thread(self.buffer.pause)

    async def resume(self) -> None:
        """As :meth:`MessageBuffer.resume`."""
        await asyncio.to_thread(self.buffer.resume)

    async def purge(self) -> int:
        """As :meth:`MessageBuffer.purge`."""
        return await asyncio.to_thread(self.buffer.purge)

    @property
    def pressure(self) -> float:
        """As :attr:`MessageBuffer.pressure`."""
        return self.buffer.pressure

    def status(self) -> LaneStatus:
        """As :meth:`MessageBuffer.status`."""
        return self.buffer.status()

    async def close(self, timeout: float | None = None) -> None:
        """As :meth:`MessageBuffer.close`."""
        if self._buffer is not None:
            await asyncio.to_thread(self._buffer.close, timeout)
