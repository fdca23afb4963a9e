"""The provider interface: what the sender needs from a plugin that talks to a broker.

One object serves one lane. The lane's sender is the only thread that calls it,
except ``close()``, which the closing thread may call while ``send()`` is stuck.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Event

from mbframework.message import Batch, Position

#: The version of this interface; a plugin states the one that it was written for.
API_VERSION = 1


@dataclass(frozen=True, slots=True)
class Context:
    """What a provider is told about the lane that it serves.

    ``buffer_id`` is 32 hex digits, ``run`` the 16-byte id of this opening. ``stopping`` is set
    when the buffer closes: whatever waits inside a provider must end soon after.

    ``went_back`` is for providers that keep a position and find, while they are open, that it has gone back: it is
    called on the sender's thread with the sequences of the former and of the present one, 0 for none. The lane tells
    everybody. None where no lane listens.
    """

    buffer_id: str
    lane: str
    run: bytes
    stopping: Event = field(default_factory=Event)
    logger: logging.Logger = field(default_factory=lambda: logging.getLogger("mbframework.provider"))
    went_back: Callable[[int, int], None] | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """The answer of :meth:`Provider.check`: ``ok``, one line of ``detail``, and facts worth showing."""

    ok: bool
    detail: str
    facts: Mapping[str, str] = field(default_factory=dict)


class Provider(ABC):
    """The base of every provider; only :meth:`send` must be written."""

    #: The largest message (bytes of topic, key, value and headers) that the broker takes; None: unknown.
    #: Read after ``open()`` returned, and again after each failure.
    max_message_bytes: int | None = None

    #: Whether a fork may copy an open provider: nothing in the copy, which is never called, may disturb the original.
    #: Where it is False the lane closes the provider before its process forks, and opens it again afterwards.
    fork_safe: bool = True

    #: Whether a position that is older than it was, or gone, when the provider is opened says that the destination has
    #: lost messages. False where none is kept, or retention and what others do may take it away as well.
    #: Read after ``open()`` returned.
    position_tells: bool = False

    def open(self, context: Context) -> None:
        """Connect. Called again, after ``close()``, when an earlier attempt failed.

        Must return or raise within seconds and obey ``context.stopping``.

        :raises SendFailed: the broker does not answer; it is tried again.
        :raises ProviderUnusable: a person must act first.
        """

    @abstractmethod
    def send(self, batch: Batch) -> None:
        """Deliver the batch in order; return when every message is acknowledged.

        :raises SendFailed: part or all of it was not delivered.
        :raises ProviderUnusable: a person must act first; nothing of the batch counts as delivered.

        Anything else that is raised counts as a SendFailed of the whole batch and is logged with its
        traceback.
        """

    def idle(self) -> None:
        """About once a second between sends, on the sender's thread: heartbeats, polling.

        A :class:`SendFailed` raised here means that the broker is known to be gone: the lane leaves live.
        """

    def committed(self) -> Position | None:
        """The position that was stored together with the messages, or None. Called after ``open()``."""
        return None

    def destination(self) -> str:
        """What a backlog belongs to, without hosts or credentials; "" where that is not known.

        Called after ``open()``. Example: the id of a Kafka cluster.
        """
        return ""

    def describe(self) -> Mapping[str, str]:
        """Facts for the status: the path in use, versions, limits. Never a secret."""
        return {}

    def check(self) -> Health:
        """A health check for ``mb providers --check``: connect, look, disconnect.

        The provider was not opened, and will not be used afterwards.
        """
        self.open(Context(buffer_id="0" * 32, lane="check", run=b"\0" * 16))
        try:
            return Health(True, "opened", self.describe())
        finally:
            self.close(5.0)

    def close(self, timeout: float) -> None:
        """Let go of everything within ``timeout`` seconds; may be called twice, and after a failed open."""


def keeps_no_position(provider: Provider) -> bool:
    """Whether ``provider`` is of a kind that never has a position: there is nothing to ask it for, even when it can be
    reached."""
    return getattr(provider.committed, "__func__", None) is Provider.committed
