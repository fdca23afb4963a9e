"""What ``send()`` returns: a promise of what became of one message.

Promises
--------
- It is done once, and stays what it is; callbacks and errbacks are called once each, in the order in which they were
  added, on the thread of :mod:`mbframework.compat.outcomes`, or at once on the caller's where it is done already.
- What a callback raises is logged and stops neither the others nor anything else.
- One that is not done and that the program lets go of, without a callback, is forgotten: it costs no memory.

Any thread may call everything.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from mbframework.compat.errors import KafkaTimeoutError, error_of

if TYPE_CHECKING:
    from mbframework.compat.outcomes import Outcomes

_log = logging.getLogger("mbframework.compat")


class TopicPartition(NamedTuple):
    """A topic, and a partition of it; -1: the broker's client chose it."""

    topic: str
    partition: int


class RecordMetadata(NamedTuple):
    """What is known of a delivered message, in kafka-python's fields.

    ``partition`` is the one that was asked for, or -1; ``offset`` is always -1 (as in kafka-python with ``acks=0``);
    ``timestamp`` milliseconds since 1970; sizes are bytes, -1 where there is none. ``sequence`` is not kafka-python's:
    the message's place in the buffer.
    """

    topic: str
    partition: int
    topic_partition: TopicPartition
    offset: int
    timestamp: int
    checksum: None
    serialized_key_size: int
    serialized_value_size: int
    serialized_header_size: int
    sequence: int = 0


class FutureRecordMetadata:
    """See the module. ``value`` and ``exception`` are set once ``is_done``."""

    __slots__ = (
        "__weakref__",
        "_arrival",
        "_callbacks",
        "_errbacks",
        "_lock",
        "_outcomes",
        "_pid",
        "_promised",
        "exception",
        "is_done",
        "sequence",
        "value",
    )

    def __init__(self, promised: RecordMetadata) -> None:
        self._promised = promised
        self._pid = os.getpid()
        self._outcomes: Outcomes | None = None
        # There may be very many of these: what few need is made when it is asked for.
        self._lock = threading.RLock()
        self._arrival: threading.Event | None = None
        self._callbacks: tuple[Callable[[RecordMetadata], object], ...] = ()
        self._errbacks: tuple[Callable[[BaseException], object], ...] = ()
        self.is_done = False
        self.value: RecordMetadata | None = None
        self.exception: BaseException | None = None
        #: The message's place in the buffer.
        self.sequence = 0

    def __repr__(self) -> str:
        state = "pending" if not self.is_done else "delivered" if self.exception is None else repr(self.exception)
        return f"<FutureRecordMetadata of message {self.sequence} for {self._promised.topic!r}: {state}>"

    def succeeded(self) -> bool:
        """It was delivered."""
        return self.is_done and self.exception is None

    def failed(self) -> bool:
        """It is known that it was not, or not known any more whether."""
        return self.is_done and self.exception is not None

    def retriable(self) -> bool:
        """Whether sending it again is right: never, since an accepted message is either kept or in an account."""
        return bool(self.is_done and getattr(self.exception, "retriable", False))

    def get(self, timeout: float | None = None) -> RecordMetadata:
        """Wait until the message has left the buffer, for ``timeout`` seconds at most.

        :raises KafkaTimeoutError: it waits still; it stays accepted, and another call may wait on.
        :raises NotDelivered, OutcomeUnknown: see :mod:`mbframework.compat.errors`.
        """
        self._disown()
        with self._lock:
            if not self.is_done and self._arrival is None:
                self._arrival = threading.Event()
            arrival = self._arrival
        if arrival is not None and not arrival.wait(timeout):
            raise KafkaTimeoutError(
                f"message {self.sequence} for topic {self._promised.topic!r} was not delivered within {timeout:g} s; "
                "it stays in the buffer and is delivered later: do not send it again"
            )
        if self.exception is not None:
            raise self.exception
        assert self.value is not None
        return self.value

    def add_callback(self, f: Callable[..., object], *args: Any, **kwargs: Any) -> Self:
        """Call ``f(*args, metadata, **kwargs)`` when the message is delivered; at once where it is."""
        call = partial(f, *args, **kwargs) if args or kwargs else f
        if not self._queued(callback=call) and self.value is not None:
            _call(call, self.value)
        return self

    def add_errback(self, f: Callable[..., object], *args: Any, **kwargs: Any) -> Self:
        """Call ``f(*args, error, **kwargs)`` when it is not delivered; at once where that is known."""
        call = partial(f, *args, **kwargs) if args or kwargs else f
        if not self._queued(errback=call) and self.exception is not None:
            _call(call, self.exception)
        return self

    def add_both(self, f: Callable[..., object], *args: Any, **kwargs: Any) -> Self:
        """Both of them."""
        return self.add_callback(f, *args, **kwargs).add_errback(f, *args, **kwargs)

    def chain(self, future: Any) -> Self:
        """Hand on to another future's ``success()`` and ``failure()``."""
        return self.add_callback(future.success).add_errback(future.failure)

    def __await__(self) -> Generator[Any, Any, RecordMetadata]:
        """In an asyncio program: wait without holding up the loop."""
        import asyncio

        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()

        def wake(_: object) -> None:
            try:
                loop.call_soon_threadsafe(lambda: None if waiter.done() else waiter.set_result(None))
            except RuntimeError:
                # The loop is closed: nobody waits.
                _log.debug("a loop was closed before a message that it waited for was delivered")

        self.add_both(wake)
        yield from waiter.__await__()
        return self.get(0)

    # ---- for the outcomes

    def success(self, value: RecordMetadata) -> Self:
        """It was delivered. The outcomes' business, and that of tests."""
        return self._finish(value, None)

    def failure(self, error: BaseException) -> Self:
        """It was not. The outcomes' business, and that of tests."""
        return self._finish(None, error)

    def follow(self, sequence: int, outcomes: Outcomes) -> None:
        """The message is accepted with this sequence, and who will say what becomes of it."""
        self.sequence = sequence
        self._outcomes = outcomes

    def settle(self, account: str, reason: str) -> None:
        """The message left the buffer by ``account``."""
        if account == "delivered":
            self.success(self._promised._replace(sequence=self.sequence))
        else:
            self.failure(error_of(account, self._promised.topic, self.sequence, reason))

    def _finish(self, value: RecordMetadata | None, error: BaseException | None) -> Self:
        with self._lock:
            if self.is_done:
                return self
            callbacks, errbacks = self._callbacks, self._errbacks
            self._callbacks, self._errbacks, self._outcomes = (), (), None
            self.value, self.exception, self.is_done = value, error, True
            if self._arrival is not None:
                self._arrival.set()
        if error is None and value is not None:
            for callback in callbacks:
                _call(callback, value)
        elif error is not None:
            for errback in errbacks:
                _call(errback, error)
        return self

    def _disown(self) -> None:
        """In a forked child: what becomes of the parent's message is told there, whose locks may be held for ever."""
        if self._pid != os.getpid() and not self.is_done:
            self._pid = os.getpid()
            self._lock, self._arrival = threading.RLock(), None
            self._callbacks, self._errbacks = (), ()
            self.settle("unknown", "this process was forked from the one that sent it")

    def _queued(
        self, *, callback: Callable[..., object] | None = None, errback: Callable[..., object] | None = None
    ) -> bool:
        """Whether it is not done, so that the call waits."""
        self._disown()
        with self._lock:
            if self.is_done:
                return False
            if callback is not None:
                self._callbacks += (callback,)
            if errback is not None:
                self._errbacks += (errback,)
            outcomes = self._outcomes
        if outcomes is not None:
            outcomes.hold(self)
        return True


def _call(function: Callable[..., object], argument: object) -> None:
    try:
        function(argument)
    except Exception:  # noqa: BLE001 - the program's code must stop neither the others nor us
        _log.exception("a callback of a message's future failed")
