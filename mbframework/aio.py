"""The buffer for asyncio programs.

Promises
--------
- Nothing that waits runs on the event loop: where a write or a flush would have to wait, it is tried again between
  sleeps of the loop; opening, closing and syncs run on a thread.
- A cancelled ``await write(…)`` was not accepted, unless ``accepted`` on the CancelledError (a range of sequences) says
  otherwise.

Every coroutine must run on the loop that is running; the buffer underneath may be shared with threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

from mbframework.buffer import MessageBuffer
from mbframework.bundle import Bundle
from mbframework.config import Config, Mode
from mbframework.errors import BufferFull, NotAccepted
from mbframework.intake import Data, Headers, check_one
from mbframework.lane import Lane
from mbframework.patience import WouldWait
from mbframework.units import parse_time

if TYPE_CHECKING:
    from mbframework.plugins.source import ProviderArgument
    from mbframework.status import LaneStatus

_log = logging.getLogger("mbframework")
T = TypeVar("T")
_FIRST_SLEEP = 0.001
_LONGEST_SLEEP = 0.05


class Underneath(Protocol):
    """A buffer, as far as every one for asyncio hands things on to it."""

    def sync(self) -> None: ...
    def set_mode(self, mode: Mode) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def close(self, timeout: float | None = None) -> None: ...
    @property
    def pressure(self) -> float: ...
    @property
    def directory(self) -> str: ...


B = TypeVar("B", bound=Underneath)


class Entered(Generic[B]):
    """What every buffer for asyncio is: made, on a thread, when it is entered; closed, on a thread, when it is left."""

    def _begin(self, make: Callable[[], B]) -> None:
        self._make = make
        self._buffer: B | None = None

    @classmethod
    def _made_by(cls, make: Callable[[], B]) -> Self:
        """What alternative constructors return; what can be wrong shows when it is entered."""
        face = cls.__new__(cls)
        face._begin(make)  # noqa: SLF001  (an alternative constructor)
        return face

    async def __aenter__(self) -> Self:
        opening = asyncio.ensure_future(asyncio.to_thread(self._make))
        try:
            self._buffer = await asyncio.shield(opening)
        except asyncio.CancelledError:
            # Nobody will leave what was not entered.
            buffer = await opening
            await asyncio.to_thread(buffer.close, 0)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except Exception:
            if error is None:
                raise
            # The caller's own exception is the one that matters.
            _log.exception("closing after an exception failed")

    @property
    def buffer(self) -> B:
        """The buffer underneath."""
        if self._buffer is None:
            raise RuntimeError(f"the buffer is not open; expected 'async with {type(self).__name__}(…)'")
        return self._buffer

    async def sync(self) -> None:
        """As :meth:`MessageBuffer.sync`."""
        await asyncio.to_thread(self.buffer.sync)

    async def set_mode(self, mode: Mode) -> None:
        """As :meth:`MessageBuffer.set_mode`."""
        await asyncio.to_thread(self.buffer.set_mode, mode)

    async def pause(self) -> None:
        """As :meth:`MessageBuffer.pause`."""
        await asyncio.to_thread(self.buffer.pause)

    async def resume(self) -> None:
        """As :meth:`MessageBuffer.resume`."""
        await asyncio.to_thread(self.buffer.resume)

    @property
    def pressure(self) -> float:
        """As :attr:`MessageBuffer.pressure`."""
        return self.buffer.pressure

    @property
    def directory(self) -> str:
        """As :attr:`MessageBuffer.directory`."""
        return self.buffer.directory

    async def close(self, timeout: float | None = None) -> None:
        """As :meth:`MessageBuffer.close`."""
        if self._buffer is not None:
            await asyncio.to_thread(self._buffer.close, timeout)


class AsyncMessageBuffer(Entered[MessageBuffer]):
    """As :class:`~mbframework.MessageBuffer`, for ``async with``; it opens when it is entered.

    :raises ConfigurationError: from ``__aenter__``, like every error of opening.
    """

    def __init__(self, directory: Any, provider: ProviderArgument = None, **options: Any) -> None:
        self._begin(partial(MessageBuffer, directory, provider, **options))

    def _begin(self, make: Callable[[], MessageBuffer]) -> None:
        super()._begin(make)
        self._long = asyncio.Lock()

    @classmethod
    def around(cls, buffer: MessageBuffer) -> Self:
        """The same face of a buffer that is open, and that somebody else closes."""
        face = cls._made_by(lambda: buffer)
        face._buffer = buffer  # noqa: SLF001  (the same)
        return face

    @classmethod
    def from_config(cls, config: Config, provider: ProviderArgument = None) -> Self:
        """As :meth:`MessageBuffer.from_config`."""
        return cls._made_by(partial(MessageBuffer.from_config, config, provider))

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str], section: str | None = None, **options: Any) -> Self:
        """As :meth:`MessageBuffer.from_toml`; the file is read when the buffer is entered."""
        return cls._made_by(partial(MessageBuffer.from_toml, path, section, **options))

    @classmethod
    def from_env(cls, prefix: str = "MBFRAMEWORK_", **options: Any) -> Self:
        """As :meth:`MessageBuffer.from_env`; the environment is read when the buffer is entered."""
        return cls._made_by(partial(MessageBuffer.from_env, prefix, **options))

    @classmethod
    def from_json(cls, path: str | os.PathLike[str], **options: Any) -> Self:
        """As :meth:`MessageBuffer.from_json`; the file is read when the buffer is entered."""
        return cls._made_by(partial(MessageBuffer.from_json, path, **options))

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
        lane = self.buffer.running_lane()
        item, raw, size = check_one(topic, value, key, headers, partition, timestamp, lane.max_message)
        sequence = await self._patiently(lane, partial(lane.write, item, raw, size, wait=False))
        if lane.limits.always_sync and sequence:
            await self._finish(range(sequence, sequence + 1), partial(lane.make_durable, sequence))
        return sequence

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
        return await self._accept(self.buffer.check_many(topic, values, keys, headers, partitions, timestamps))

    async def _accept(self, bundle: Bundle) -> range:
        lane = self.buffer.running_lane()
        if not lane.fit_together(len(bundle), bundle.size):
            async with self._long:
                return await self._accept_long(lane, bundle)
        accepted = await self._patiently(lane, partial(lane.write_many, bundle, bundle.size, wait=False))
        if lane.limits.always_sync and accepted:
            await self._finish(accepted, partial(lane.make_durable, accepted[-1]))
        return accepted

    async def _patiently(self, lane: Lane, write: Callable[[], T]) -> T:
        """What ``write`` returns, which takes all or nothing, and may not wait."""
        timeout = lane.config.block_timeout
        loop = asyncio.get_running_loop()
        begun = loop.time()
        sleep = _FIRST_SLEEP
        searches = lane.vain_searches
        while True:
            try:
                return write()
            except WouldWait as reason:
                # Nothing was accepted.
                if timeout is not None and loop.time() - begun >= timeout:
                    raise BufferFull(f"waited {timeout} s (block_timeout): {reason}") from None
                if lane.full and lane.config.on_full == "prune" and lane.vain_searches >= searches + 2:
                    raise BufferFull(f"the buffer is full, and this lane has nothing left to prune: {reason}") from None
            await asyncio.sleep(sleep)
            sleep = min(2 * sleep, _LONGEST_SLEEP)

    async def _accept_long(self, lane: Lane, bundle: Bundle) -> range:
        """What takes several steps, between which it may have to wait with a part accepted, runs on a thread."""
        work: Future[range] = Future()
        work.set_running_or_notify_cancel()
        given_up = threading.Event()

        def run() -> None:
            try:
                work.set_result(lane.write_many(bundle, bundle.size, given_up))
            except BaseException as error:  # noqa: BLE001  (whatever it is, it is the awaiting task's)
                work.set_exception(error)

        # A daemon, unlike the executor's threads: one that waits for room does not keep the program from ending.
        threading.Thread(target=run, name="mbframework-write-many", daemon=True).start()
        done = asyncio.wrap_future(work)
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError as cancelled:
            given_up.set()
            while not done.done():
                # However often it is cancelled, the caller is told what was accepted.
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([done])
            try:
                accepted = done.result()
            except (NotAccepted, WouldWait) as refusal:
                accepted = refusal.accepted
            if accepted:
                cancelled.accepted = accepted  # type: ignore[attr-defined]
            raise

    async def _finish(self, accepted: range, work: Callable[[], T]) -> T:
        """Work on a thread for messages that are accepted already."""
        try:
            return await asyncio.to_thread(work)
        except asyncio.CancelledError as error:
            error.accepted = accepted  # type: ignore[attr-defined]
            raise

    async def flush(self, timeout: float | None = None) -> None:
        """As :meth:`MessageBuffer.flush`."""
        seconds = None if timeout is None else parse_time(timeout, name="timeout")
        engine = self.buffer.running_engine()
        target = engine.flush_target()
        loop = asyncio.get_running_loop()
        begun, sleep = loop.time(), _FIRST_SLEEP
        while not target or not engine.flushed(target):
            if seconds is not None and loop.time() - begun >= seconds:
                raise engine.flush_timeout(seconds)
            await asyncio.sleep(sleep)
            target = target or engine.flush_target()
            sleep = min(2 * sleep, _LONGEST_SLEEP)

    async def retry_now(self) -> None:
        """As :meth:`MessageBuffer.retry_now`."""
        await asyncio.to_thread(self.buffer.retry_now)

    async def purge(self) -> int:
        """As :meth:`MessageBuffer.purge`."""
        return await asyncio.to_thread(self.buffer.purge)

    def status(self) -> LaneStatus:
        """As :meth:`MessageBuffer.status`."""
        return self.buffer.status()

    @property
    def lane(self) -> str:
        """As :attr:`MessageBuffer.lane`."""
        return self.buffer.lane

    @property
    def config(self) -> Config:
        """As :attr:`MessageBuffer.config`."""
        return self.buffer.config
