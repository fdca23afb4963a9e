"""What the author of a provider supplies: the interface of :class:`ProviderContract`.

Pytest makes a new object for every test, so that a fixture of the subclass may keep its server on ``self``. The
destination is empty at the start of each test. Everything is called on the thread of the test, but for
``take_down()``, ``bring_up()``, ``freeze()`` and ``thaw()``, during which a ``send()`` may run on another.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from threading import Event
from typing import NamedTuple

import pytest

from mbframework.message import Header, Message
from mbframework.plugins.options import parse_options, secret_values
from mbframework.plugins.registry import load
from mbframework.plugins.source import resolve_url
from mbframework.plugins.url import parse_url
from mbframework.provider import Context, Provider

#: The run that the kit's lanes are in.
RUN = b"conformance-kit!"


class Arrived(NamedTuple):
    """A message as a reader of the destination finds it. Leave out what the destination does not keep, in
    :meth:`Hooks.arrived` and in :meth:`Hooks.kept` alike. ``timestamp`` is nanoseconds since 1970."""

    value: bytes | None
    topic: str = ""
    key: bytes | None = None
    headers: tuple[Header, ...] = ()
    timestamp: int | None = None
    partition: int | None = None


class Hooks:
    """The methods and attributes to override. ``url()`` (or ``make()``) and ``arrived()`` are required."""

    #: Topics that may be used, at least one. With two or more, order is tested across topics too.
    topics: Sequence[str] = ("orders", "billing")
    #: Partitions that a message may ask for; empty: the destination has none.
    partitions: Sequence[int] = ()
    #: Whether ``committed()`` tells the lane's position: exactly once.
    keeps_position: bool = False
    #: Whether the destination lives in the memory of this process, so that no other process can send to it.
    in_process: bool = False
    #: Messages in the huge batch.
    huge_batch: int = 10_000
    #: Processes killed by each of the rules about kills.
    kills: int = 5
    #: Seconds that the destination may take to show what was acknowledged.
    reading_timeout: float = 5.0
    #: Seconds within which it all goes on after ``bring_up()`` or ``thaw()``.
    recovery_timeout: float = 30.0
    #: Seconds within which ``open()`` and ``send()`` come back from a destination that is down or frozen.
    answer_timeout: float = 60.0
    #: Seconds within which ``open()`` and ``send()`` end once ``context.stopping`` is set.
    stopping_timeout: float = 1.0
    #: Seconds within which threads and descriptors are gone after ``close()``.
    parting_timeout: float = 3.0
    #: Names of options that sound like a secret and are none, such as the name of a token's column.
    public_options: Sequence[str] = ()

    # ---- required

    def url(self) -> str:
        """The provider's URL, with all it needs to reach this test's destination: the same throughout a test.

        Put a secret into it where the provider takes one. The plugin must be installed (``pip install -e .``).
        """
        pytest.skip("needs url(): the provider's URL for this test's destination")

    def make(self) -> Provider:
        """A new provider for this test's destination, not opened. Override it only where no URL can make it."""
        return resolve_url(self.url()).create(self.context())

    def arrived(self) -> Sequence[Arrived]:
        """All that a reader of this test's destination finds at this moment: of all topics, repeats included.

        In the order of arrival within each ordering domain (partition, queue, file); domains may stand one after
        another. Also called while the provider is open, never while the destination is down.
        """
        raise NotImplementedError("override arrived(): everything that can be read at the destination")

    # ---- what the destination makes of messages

    def kept(self, message: Message) -> Arrived | None:
        """What a reader finds of this message; None where the provider rejects it. Pure.

        Examples: ``timestamp`` cut to milliseconds; a value of None as ``b""``; a key that is not kept left out.
        By default all of it, as it was given.
        """
        return Arrived(message.value, message.topic, message.key, message.headers, message.timestamp, message.partition)

    # ---- what may go wrong there

    def take_down(self) -> None:
        """Make the destination unreachable, at once and for all connections: kill the server, lock the file."""
        pytest.skip("needs take_down() and bring_up(): make the destination unreachable, and reachable again")

    def bring_up(self) -> None:
        """Make it well again, with all that it had acknowledged; return when it answers. Also called when it is up."""
        pytest.skip("needs take_down() and bring_up(): make the destination unreachable, and reachable again")

    def freeze(self) -> None:
        """Make it take connections and bytes, and answer nothing: SIGSTOP."""
        pytest.skip("needs freeze() and thaw(): let the destination take connections and answer nothing")

    def thaw(self) -> None:
        """Let it answer again."""
        pytest.skip("needs freeze() and thaw(): let the destination take connections and answer nothing")

    def make_rejected(self, message: Message) -> Message:
        """A message like this one that the destination will never take; it may be told so in this call.

        It must go on taking other messages. Examples: an illegal topic, a value that a constraint refuses.
        """
        pytest.skip("needs make_rejected(): a message that the destination will never take")

    def fail_after(self, count: int) -> None:
        """Let the next ``send()`` fail when about ``count`` of its messages are stored; ``bring_up()`` ends it.

        Examples: a full device, a quota. Where batches are kept whole, none of them is stored.
        """
        pytest.skip("needs fail_after() and bring_up(): let a send fail in its middle")

    def unusable_url(self) -> str:
        """A URL for which a person must act before ``open()`` can succeed: a wrong password, a missing right."""
        pytest.skip("needs unusable_url(): a URL that is refused until a person acts, as with a wrong password")

    # ---- what nobody may be told

    def secrets(self, url: str) -> Sequence[str]:
        """What nobody may be told of a URL of this provider: by default the values of its secret options."""
        parsed = parse_url(url)
        declared = load(parsed.scheme)
        return secret_values(parse_options(parsed.scheme, declared.options, url=parsed, own_prefix=declared.own_prefix))

    # ---- at hand for authors

    def context(self, lane: str = "main", stopping: Event | None = None) -> Context:
        """The context of one of this test's lanes; the buffer's id is new for every test."""
        if not hasattr(self, "_buffer_id"):
            self._buffer_id = uuid.uuid4().hex
        return Context(buffer_id=self._buffer_id, lane=lane, run=RUN, stopping=stopping or Event())
