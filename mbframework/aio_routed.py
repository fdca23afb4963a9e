"""The buffer with several lanes for asyncio programs.

Promises: those of :class:`~mbframework.RoutedBuffer`, and of :class:`~mbframework.AsyncMessageBuffer` for each lane. A
write that waits for room in one lane holds up neither the loop nor a write to another lane.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from mbframework.aio import AsyncMessageBuffer, Entered
from mbframework.errors import FlushTimeout
from mbframework.intake import Data, Headers
from mbframework.routed import RoutedBuffer, together

if TYPE_CHECKING:
    from mbframework.buffer import MessageBuffer
    from mbframework.config import Config
    from mbframework.plugins.source import ProviderArgument
    from mbframework.routing import Route
    from mbframework.status import LaneStatus


class AsyncRoutedBuffer(Entered[RoutedBuffer]):
    """As :class:`~mbframework.RoutedBuffer`, for ``async with``; it opens when it is entered.

    :raises ConfigurationError: from ``__aenter__``, like every error of opening.
    """

    def __init__(
        self,
        directory: Any,
        provider: ProviderArgument = None,
        *,
        lanes: Mapping[str, Mapping[str, object]],
        route: Route | None = None,
        **options: Any,
    ) -> None:
        self._begin(partial(RoutedBuffer, directory, provider, lanes=lanes, route=route, **options))

    def _begin(self, make: Callable[[], RoutedBuffer]) -> None:
        super()._begin(make)
        self._faces: dict[MessageBuffer, AsyncMessageBuffer] = {}

    @classmethod
    def from_config(cls, config: Config, provider: ProviderArgument = None, *, route: Route | None = None) -> Self:
        """As :meth:`RoutedBuffer.from_config`."""
        return cls._made_by(partial(RoutedBuffer.from_config, config, provider, route=route))

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str], section: str | None = None, **options: Any) -> Self:
        """As :meth:`RoutedBuffer.from_toml`; the file is read when the buffer is entered."""
        return cls._made_by(partial(RoutedBuffer.from_toml, path, section, **options))

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._faces = {lane: AsyncMessageBuffer.around(lane) for lane in self.buffer.lanes.values()}
        return self

    @property
    def lanes(self) -> Mapping[str, AsyncMessageBuffer]:
        """The lanes by name, each with everything that a buffer has; to be closed by :meth:`close` alone."""
        return {name: self._faces[lane] for name, lane in self.buffer.lanes.items()}

    def lane_for(self, topic: str) -> AsyncMessageBuffer:
        """The lane that takes a topic. Raises MessageError: it is no topic, or no lane takes it."""
        return self._faces[self.buffer.lane_for(topic)]

    async def write(
        self,
        topic: str,
        value: Data,
        key: Data = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp: int | None = None,
    ) -> int:
        """As :meth:`AsyncMessageBuffer.write`, into the lane of the topic, whose sequence it returns."""
        return await self.lane_for(topic).write(topic, value, key, headers, partition, timestamp)

    async def write_many(
        self,
        topic: str,
        values: Iterable[Data],
        keys: Iterable[Data] | None = None,
        headers: Iterable[Headers | None] | None = None,
        partitions: Iterable[int | None] | None = None,
        timestamps: Iterable[int | None] | None = None,
    ) -> range:
        """As :meth:`AsyncMessageBuffer.write_many`, into the lane of the topic, whose sequences it returns."""
        return await self.lane_for(topic).write_many(topic, values, keys, headers, partitions, timestamps)

    async def flush(self, timeout: float | None = None) -> None:
        """As :meth:`AsyncMessageBuffer.flush`, for all lanes at once.

        :raises FlushTimeout: ``remaining`` counts the messages of all lanes.
        """
        flushes = (lane.flush(timeout) for lane in self._faces.values())
        raised = [each for each in await asyncio.gather(*flushes, return_exceptions=True) if each is not None]
        late = [error for error in raised if isinstance(error, FlushTimeout)]
        for error in raised:
            if not isinstance(error, FlushTimeout):
                raise error
        if late:
            raise together(late)

    def status(self) -> dict[str, LaneStatus]:
        """The status of each lane, by the name that the configuration gives it."""
        return self.buffer.status()
