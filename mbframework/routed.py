"""A buffer with a lane for each group of topics: its own files, limits, sender and provider connection.

Promises
--------
- A topic always goes to the same lane; within it, everything that :class:`MessageBuffer` promises holds.
- One lane's trouble (a provider that is down, slow or stuck, a full or blocked lane) never delays another lane.
- On disk the lanes hold ``total_size`` together. Where that is reached, the lane that holds the most makes room.
- Every method may be called from any thread.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from mbframework.budget import Budget
from mbframework.buffer import MessageBuffer
from mbframework.closing import Closing
from mbframework.config import Config, Mode
from mbframework.errors import ConfigurationError, FlushTimeout, Undelivered
from mbframework.intake import Data, Headers, check_topic
from mbframework.plugins.source import ProviderArgument
from mbframework.routing import Route, Routing
from mbframework.units import parse_time

if TYPE_CHECKING:
    from mbframework.status import LaneStatus

_log = logging.getLogger("mbframework")
_TOPICS_KEPT = 4096


def together(late: Sequence[FlushTimeout]) -> FlushTimeout:
    """The error of a flush of all lanes, from those of several."""
    return FlushTimeout("; ".join(map(str, late)), remaining=sum(error.remaining for error in late))


class RoutedBuffer(Closing):
    """Lanes in ``directory``, each towards its provider.

    :param provider: for the default lane and for lanes without one of their own: as for :class:`MessageBuffer`. A
        provider object serves one lane; several lanes need a URL or a factory.
    :param lanes: options by lane: ``topics`` (a pattern, or several) and whatever differs from ``options``, such as
        ``provider`` or ``mode``. See docs/lanes.md.
    :param route: a function from a topic to the name of its lane, or None for what the patterns say. It is asked once
        a topic, as long as that topic is among the last few thousand.
    :param options: see docs/configuration.md; ``total_size`` is what all lanes share.

    :raises ConfigurationError, PluginError: as for :class:`MessageBuffer`, for any of the lanes; nothing was created.
    :raises DirectoryError: a lane cannot be opened; those that had been are closed again.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        provider: ProviderArgument = None,
        *,
        lanes: Mapping[str, Mapping[str, object]],
        route: Route | None = None,
        provider_options: Mapping[str, object] | None = None,
        **options: Any,
    ) -> None:
        if isinstance(provider, str):
            options["provider"] = provider
        if provider_options is not None:
            options["provider_options"] = provider_options
        config = Config.layered(directory=directory, lanes=lanes, **options)
        self._begin(config, None if isinstance(provider, str) else provider, route)

    @classmethod
    def from_config(cls, config: Config, provider: ProviderArgument = None, *, route: Route | None = None) -> Self:
        """The same from a checked configuration with ``lanes``; ``provider`` goes before the one that it names."""
        buffer = cls.__new__(cls)
        buffer._begin(config, provider, route)  # noqa: SLF001  (an alternative constructor)
        return buffer

    @classmethod
    def from_toml(
        cls,
        path: str | os.PathLike[str],
        section: str | None = None,
        *,
        provider: ProviderArgument = None,
        route: Route | None = None,
        **options: Any,
    ) -> Self:
        """The same from a TOML file with a table for each lane, ``[lanes.orders]``; keyword arguments go before it."""
        return cls.from_config(Config.layered(file=path, section=section, **options), provider, route=route)

    def _begin(self, config: Config, provider: ProviderArgument, route: Route | None) -> None:
        if config.directory is None:
            raise ConfigurationError(
                "no directory is given; expected the path of the buffer's directory", option="directory"
            )
        self._config = config.anchored()
        self._routing = Routing(self._config, provider, route)
        plans = self._routing.plans
        served = [plan.name for plan in plans.values() if plan.provider is not None and plan.provider is provider]
        if len(served) > 1 and not callable(provider):
            raise ConfigurationError(
                f"the provider is an object, and serves the lanes {', '.join(served)}; expected a URL or a factory, "
                "so that each gets its own",
                option="provider",
            )
        opened = MessageBuffer.open_lanes(
            [(plan.config, plan.provider) for plan in plans.values()], Budget(self._config.total_size, len(plans))
        )
        self._lanes = dict(zip(plans, opened, strict=True))
        self._routes: dict[str, MessageBuffer] = {}

    def __repr__(self) -> str:
        return f"<RoutedBuffer {self._config.directory} with the lanes {', '.join(self._lanes)}>"

    @property
    def directory(self) -> str:
        """The directory's absolute path."""
        assert self._config.directory is not None
        return self._config.directory

    @property
    def lanes(self) -> Mapping[str, MessageBuffer]:
        """The lanes by name, each with everything that a buffer has; to be closed by :meth:`close` alone."""
        return MappingProxyType(self._lanes)

    def lane_for(self, topic: str) -> MessageBuffer:
        """The lane that takes a topic.

        :raises MessageError: it is no topic, or no lane takes it.
        """
        check_topic(topic)
        lane = self._lanes[self._routing.lane_of(topic)]
        if len(self._routes) >= _TOPICS_KEPT:
            self._routes.clear()
        self._routes[topic] = lane
        return lane

    # ---- writing

    def write(
        self,
        topic: str,
        value: Data,
        key: Data = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp: int | None = None,
    ) -> int:
        """As :meth:`MessageBuffer.write`, into the lane of the topic, whose sequence it returns.

        :raises MessageError: also where no lane takes the topic.
        """
        try:
            lane = self._routes.get(topic) or self.lane_for(topic)
        except TypeError:
            # It cannot be hashed: no text.
            lane = self.lane_for(topic)
        return lane.write(topic, value, key, headers, partition, timestamp)

    def write_many(
        self,
        topic: str,
        values: Iterable[Data],
        keys: Iterable[Data] | None = None,
        headers: Iterable[Headers | None] | None = None,
        partitions: Iterable[int | None] | None = None,
        timestamps: Iterable[int | None] | None = None,
    ) -> range:
        """As :meth:`MessageBuffer.write_many`, into the lane of the topic, whose sequences it returns."""
        return self.lane_for(topic).write_many(topic, values, keys, headers, partitions, timestamps)

    # ---- control, of all lanes

    def flush(self, timeout: float | None = None) -> None:
        """As :meth:`MessageBuffer.flush`, for all lanes, ``timeout`` seconds together.

        :raises FlushTimeout: ``remaining`` counts the messages of all lanes.
        """
        limit = None if timeout is None else time.monotonic() + parse_time(timeout, name="timeout")
        late: list[FlushTimeout] = []
        for lane in self._lanes.values():
            try:
                lane.flush(None if limit is None else max(0.0, limit - time.monotonic()))
            except FlushTimeout as error:
                late.append(error)
        if late:
            raise together(late)

    def sync(self) -> None:
        """As :meth:`MessageBuffer.sync`, for all lanes."""
        for lane in self._lanes.values():
            lane.sync()

    def set_mode(self, mode: Mode) -> None:
        """As :meth:`MessageBuffer.set_mode`, for one lane after another; at the first that cannot it ends."""
        for lane in self._lanes.values():
            lane.set_mode(mode)

    def pause(self) -> None:
        """Send nothing until :meth:`resume`; writing goes on."""
        for lane in self._lanes.values():
            lane.pause()

    def resume(self) -> None:
        """Send again, at once."""
        for lane in self._lanes.values():
            lane.resume()

    @property
    def pressure(self) -> float:
        """How full the fullest lane is, from 0.0 to 1.0."""
        return max(lane.pressure for lane in self._lanes.values())

    def status(self) -> dict[str, LaneStatus]:
        """The status of each lane, by the name that the configuration gives it."""
        return {name: lane.status() for name, lane in self._lanes.items()}

    # ---- closing

    def close(self, timeout: float | None = None) -> None:
        """As :meth:`MessageBuffer.close`, for all lanes at once.

        :raises Undelivered: of all lanes that could not keep what they held: ``messages`` has it all.
        :raises SenderStuck: a provider has not returned; what it holds is kept.
        """
        errors: list[Exception] = []

        def close(lane: MessageBuffer) -> None:
            try:
                lane.close(timeout)
            except Exception as error:  # noqa: BLE001  (raised below, when all are closed)
                errors.append(error)

        threads: list[threading.Thread] = []
        for lane in self._lanes.values():
            thread = threading.Thread(target=close, args=(lane,), name="mbframework-close", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                # No thread is to be had, as at the end of the interpreter.
                close(lane)
            else:
                threads.append(thread)
        for thread in threads:
            thread.join()
        self._raise(errors)

    @staticmethod
    def _raise(errors: list[Exception]) -> None:
        left = [error for error in errors if isinstance(error, Undelivered)]
        if left:
            raise Undelivered(
                "; ".join(map(str, left)), messages=[message for error in left for message in error.messages]
            )
        for error in errors[1:]:
            _log.error("closing a lane failed as well: %s", error)
        if errors:
            raise errors[0]
