"""``KafkaProducer`` with a buffer in front of the brokers.

Promises
--------
- The names, arguments, return values and callbacks are kafka-python's (3.0), as far as docs/compat.md says.
- Neither the constructor nor ``send()`` waits for a broker, in the modes ``buffer`` and ``always``.
- A message is accepted when ``send()`` returns, and from then on under every promise of the buffer; its future says
  what became of it. There are no futures after a restart: what was accepted is delivered all the same.
- Memory for futures is bounded: ``max_futures``, see :mod:`mbframework.compat.outcomes`.

Any thread may call everything. After a fork the child has a lane of its own, and futures of its own.
"""

from __future__ import annotations

import atexit
import logging
import operator
import os
import re
import threading
import time
import weakref
from typing import Any, NoReturn

from mbframework.buffer import MessageBuffer
from mbframework.closing import Closing
from mbframework.compat.errors import (
    IllegalStateError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    SendRefused,
    UnsupportedOperation,
)
from mbframework.compat.future import FutureRecordMetadata, RecordMetadata, TopicPartition
from mbframework.compat.outcomes import Outcomes
from mbframework.compat.serializing import serialize_with
from mbframework.compat.settings import Settings, settings_of
from mbframework.engine import Engine
from mbframework.errors import (
    BufferClosed,
    BufferFull,
    ConfigurationError,
    DurabilityError,
    FlushTimeout,
    MessageTooLarge,
    NotAccepted,
    SenderStuck,
)

_log = logging.getLogger("mbframework.compat")
#: How many messages are followed at a time, unless the caller says otherwise; some 0.7 KB each.
MAX_FUTURES = 65_536
#: Read where no directory is given; the other variables are read by ``MessageBuffer.from_env()`` alone.
DIRECTORY_VARIABLE = "MBFRAMEWORK_DIRECTORY"
_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_BYTES = bytes | bytearray | memoryview | None
#: What a request takes beside its message.
_REQUEST_BYTES = 128
#: Seconds that callbacks have at the end of close().
_LAST_CALLBACKS = 5.0
_producers: weakref.WeakSet[KafkaProducer] = weakref.WeakSet()


class KafkaProducer(Closing):
    """kafka-python's producer, with a durable buffer.

    :param buffer_directory: where messages are kept; not given: what MBFRAMEWORK_DIRECTORY in the environment says; or
    :param buffer: a :class:`~mbframework.MessageBuffer` that is open, and that the caller closes.
    :param key_serializer: a function of the key, or an object with ``serialize(topic, headers, data)``.
    :param value_serializer: likewise.
    :param max_futures: how many messages are followed at a time.
    :param arguments: those of kafka-python, and any option of the buffer (docs/configuration.md); ``provider`` instead
        of ``bootstrap_servers`` sends elsewhere.

    :raises ConfigurationError: an argument is wrong, unknown or refused (a ``ValueError``); nothing was created.
    :raises MessageBufferError: the buffer cannot be opened; see the class.
    """

    def __init__(
        self,
        *,
        buffer_directory: str | os.PathLike[str] | None = None,
        buffer: MessageBuffer | None = None,
        key_serializer: object = None,
        value_serializer: object = None,
        max_futures: int = MAX_FUTURES,
        **arguments: Any,
    ) -> None:
        self._serialize_key = serialize_with(key_serializer, "key_serializer")
        self._serialize_value = serialize_with(value_serializer, "value_serializer")
        self._serializers = (key_serializer, value_serializer)
        if isinstance(max_futures, bool) or not isinstance(max_futures, int) or max_futures < 0:
            raise ConfigurationError(f"max_futures: {max_futures!r:.40}; expected a number", option="max_futures")
        self._max_futures = max_futures
        self._owns = buffer is None
        self._max_request_size: int | None = None
        self._buffer = self._open(buffer_directory, arguments) if buffer is None else self._taken(buffer, arguments)
        self._closed = False
        self._attaching = threading.Lock()
        self._engine: Engine | None = None
        self._outcomes = Outcomes(0)
        try:
            self._attach(self._buffer.running_engine())
        except BaseException:
            if self._owns:
                self._buffer.close(0)
            raise
        _producers.add(self)
        # Before the buffer's own exit handler, so that callbacks hear of what it delivers.
        atexit.register(self._at_exit)

    def _open(self, directory: str | os.PathLike[str] | None, arguments: dict[str, Any]) -> MessageBuffer:
        same = arguments.pop("directory", None)
        if same is not None and directory is not None:
            raise ConfigurationError("directory: buffer_directory is given too, and means the same", option="directory")
        directory = same if directory is None else directory
        # An empty variable counts as not set, as for a buffer.
        directory = os.environ.get(DIRECTORY_VARIABLE) or None if directory is None else directory
        if directory is None:
            raise ConfigurationError(
                f"KafkaProducer: expected buffer_directory=…, where messages are kept, {DIRECTORY_VARIABLE} in the"
                " environment, or buffer=…",
                option="buffer_directory",
            )
        settings: Settings = settings_of(arguments)
        if settings.idle:
            _log.warning("without effect, see docs/compat.md: %s", "; ".join(settings.idle))
        self._max_request_size = settings.max_request_size
        options = settings.buffer_options
        if settings.url is None:
            return MessageBuffer(directory, **options)
        return MessageBuffer(directory, settings.url, provider_options=settings.provider_options, **options)

    @staticmethod
    def _taken(buffer: object, arguments: dict[str, Any]) -> MessageBuffer:
        if not isinstance(buffer, MessageBuffer):
            raise ConfigurationError(
                f"buffer: {type(buffer).__name__}; expected a MessageBuffer (of a RoutedBuffer: one of its lanes)",
                option="buffer",
            )
        if arguments:
            name = min(arguments)
            raise ConfigurationError(f"{name}: give it to the buffer, which is made already", option=name)
        return buffer

    def _attach(self, engine: Engine) -> None:
        """Listen to what becomes of messages: from now on, and anew in the child of a fork."""
        with self._attaching:
            if engine is self._engine:
                return
            if engine.ledger is None:
                raise ConfigurationError(
                    "KafkaProducer: this buffer only writes, and the process that sends does not tell what became of a "
                    "message; expected a buffer with a provider, or use MessageBuffer.write()",
                    option="provider",
                )
            outcomes = Outcomes(self._max_futures)
            with engine.ledger.lock:
                engine.ledger.watchers.append(outcomes)
            self._outcomes, self._engine = outcomes, engine

    def __repr__(self) -> str:
        return f"<KafkaProducer in front of {self._buffer!r}>"

    @property
    def buffer(self) -> MessageBuffer:
        """The buffer underneath, with its status, pause, purge and so on."""
        return self._buffer

    # ---- sending

    def send(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        headers: list[tuple[str, bytes]] | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> FutureRecordMetadata:
        """Accept a message; the future says what becomes of it.

        :param headers: a list of (str, bytes) pairs; a serializer may add to it.
        :param timestamp_ms: milliseconds since 1970; None: now.

        :raises TypeError: topic, headers, partition, timestamp, serialized key or value are of a wrong type.
        :raises ValueError: neither key nor value, or the topic's name or the partition is not possible.
        :raises MessageSizeTooLargeError: the message is too large.
        :raises KafkaTimeoutError: the buffer is full (``on_full``).
        :raises SendRefused: it was not accepted for another reason; ``__cause__`` says which.
        :raises IllegalStateError: the producer is closed.
        """
        if self._closed:
            raise IllegalStateError("the producer is closed; make a new one")
        if not isinstance(topic, str):
            raise TypeError(f"topic is {type(topic).__name__}; expected str")
        if not _TOPIC.fullmatch(topic) or topic in (".", ".."):
            raise ValueError(f"topic {topic!r:.100}; expected 1 to 249 of the characters a-z, A-Z, 0-9, '.', '_', '-'")
        if value is None and key is None:
            raise ValueError("neither key nor value is given; expected one of them at least")
        if partition is not None and (partition := _whole("partition", partition, "a number")) < 0:
            raise ValueError(f"partition is {partition}; expected 0 or more")
        if timestamp_ms is not None:
            timestamp_ms = _whole("timestamp_ms", timestamp_ms, "whole milliseconds, as int(time.time() * 1000)")
        pairs = [] if headers is None else headers
        _check_headers(pairs)
        raw_key = self._serialize_key(topic, pairs, key)
        raw_value = self._serialize_value(topic, pairs, value)
        for name, data in (("key", raw_key), ("value", raw_value)):
            if not isinstance(data, _BYTES):
                raise TypeError(f"the serialized {name} is {type(data).__name__}; expected bytes, or a serializer")
        sizes = [-1 if data is None else len(bytes(data)) for data in (raw_key, raw_value)]
        # Measured again: a serializer may have added to them.
        sizes.append(sum(len(name.encode()) + len(data) for name, data in pairs) if pairs else -1)
        limit = self._max_request_size
        if limit is not None and sum(size for size in sizes if size > 0) > limit - _REQUEST_BYTES:
            raise MessageSizeTooLargeError(
                f"the message has {sum(size for size in sizes if size > 0):,} bytes; at most "
                f"{limit - _REQUEST_BYTES:,} are taken (max_request_size)"
            )
        moment = time.time_ns() // 1_000_000 if timestamp_ms is None else timestamp_ms
        place = -1 if partition is None else partition
        future = FutureRecordMetadata(
            RecordMetadata(topic, place, TopicPartition(topic, place), -1, moment, None, sizes[0], sizes[1], sizes[2])
        )
        outcomes, sequence = self._write(topic, raw_value, raw_key, pairs, partition, moment)
        if sequence:
            outcomes.follow(sequence, future)
        else:
            future.settle("unknown", "it was sent from within a signal handler or a finaliser")
        return future

    def _write(
        self, topic: str, value: Any, key: Any, headers: list[tuple[str, bytes]], partition: int | None, moment: int
    ) -> tuple[Outcomes, int]:
        try:
            engine = self._buffer.running_engine()
            if engine is not self._engine:
                self._attach(engine)
            outcomes = self._outcomes
            try:
                sequence = self._buffer.write(topic, value, key, headers or None, partition, moment * 1_000_000)
            except DurabilityError as error:
                # Accepted: an error here would make the program send it again.
                _log.error("message %d is accepted and not known to be on the device: %s", error.sequence, error)
                sequence = error.sequence
            return outcomes, sequence
        except MessageTooLarge as error:
            raise MessageSizeTooLargeError(str(error)) from error
        except BufferFull as error:
            raise KafkaTimeoutError(f"not accepted: {error}") from error
        except BufferClosed as error:
            raise IllegalStateError(str(error)) from error
        except NotAccepted as error:
            raise SendRefused(f"not accepted: {error}") from error

    # ---- control

    def flush(self, timeout: float | None = None) -> None:
        """Wait until every message sent so far has left the buffer and its future is done.

        :raises KafkaTimeoutError: not within ``timeout`` seconds; nothing is lost by that.
        """
        if self._closed:
            return
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            self._buffer.flush(timeout)
        except FlushTimeout as error:
            raise KafkaTimeoutError(f"{error}; they stay in the buffer and are delivered later") from error
        except BufferClosed as error:
            raise IllegalStateError(str(error)) from error
        if not self._outcomes.drain(None if deadline is None else max(0.0, deadline - time.monotonic())):
            raise KafkaTimeoutError(f"a callback has not returned within {timeout:g} s; all messages are delivered")

    def close(self, timeout: float | None = None) -> None:
        """Deliver for ``timeout`` seconds (``close_timeout``), then close the buffer, which keeps the rest.

        Futures of messages that are kept fail with ``StillBuffered``. A buffer that was passed in stays open: then
        this only waits for its messages and their callbacks, and stops listening.

        :raises Undelivered: the buffer could not keep everything, as in the modes ``block`` and ``raise``.
        """
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self._at_exit)
        outcomes = self._outcomes
        try:
            if self._owns:
                try:
                    self._buffer.close(timeout)
                except SenderStuck as error:
                    # kafka-python says nothing either; what it holds is kept.
                    _log.warning("closing: %s", error)
            else:
                self._leave(timeout)
        finally:
            if not outcomes.join(_LAST_CALLBACKS):
                _log.warning("a callback has not returned %g s after the producer was closed", _LAST_CALLBACKS)
            for serializer in self._serializers:
                close = getattr(serializer, "close", None)
                if callable(close):
                    close()

    def _leave(self, timeout: float | None) -> None:
        """Stop listening to a buffer that goes on."""
        engine = self._engine
        try:
            self._buffer.flush(self._buffer.config.close_timeout if timeout is None else timeout)
        except (FlushTimeout, BufferClosed) as error:
            _log.warning("closing: %s", error)
        ledger = engine.ledger if engine is not None else None
        if ledger is not None:
            with ledger.lock:
                if self._outcomes in ledger.watchers:
                    ledger.watchers.remove(self._outcomes)
                    self._outcomes.closed()

    # ---- looking

    def bootstrap_connected(self) -> bool:
        """Whether the provider answers at this moment."""
        engine = self._engine
        return bool(not self._closed and engine is not None and engine.sender is not None and engine.sender.up)

    def metrics(self, raw: bool = False) -> dict[str, dict[str, float]]:
        """Numbers by group: ``producer-metrics`` in kafka-python's names where there is the same thing here, and
        ``buffer-metrics`` with the buffer's accounts since it was made. ``raw`` changes nothing."""
        del raw
        status = self._buffer.status()
        gone = status.pruned + status.expired + status.dead + status.purged + status.lost
        return {
            "producer-metrics": {
                "record-send-total": float(status.delivered),
                "record-error-total": float(gone),
            },
            "buffer-metrics": {
                "accepted": float(status.accepted),
                "delivered": float(status.delivered),
                "pruned": float(status.pruned),
                "expired": float(status.expired),
                "dead": float(status.dead),
                "purged": float(status.purged),
                "lost": float(status.lost),
                "resident": float(status.resident_messages),
                "resident-bytes": float(status.resident_bytes),
                "pressure": self._buffer.pressure,
                "futures": float(self._outcomes.waiting),
            },
        }

    def partitions_for(self, topic: str) -> NoReturn:
        """Only the brokers know.

        :raises UnsupportedOperation: always.
        """
        raise UnsupportedOperation(
            f"the partitions of {topic!r}: a buffer does not ask the brokers; give a key and let the client choose, or "
            "ask with kafka.KafkaAdminClient.describe_topics()"
        )

    # ---- transactions

    def init_transactions(self) -> NoReturn:
        """:raises UnsupportedOperation: always, like the four below."""
        _no_transactions()

    def begin_transaction(self) -> NoReturn:
        """See above."""
        _no_transactions()

    def send_offsets_to_transaction(self, offsets: object, group_metadata: object) -> NoReturn:
        """See above."""
        _no_transactions()

    def commit_transaction(self) -> NoReturn:
        """See above."""
        _no_transactions()

    def abort_transaction(self) -> NoReturn:
        """See above."""
        _no_transactions()

    # ---- exits and forks

    def _at_exit(self) -> None:
        if self._engine is not None and self._outcomes.pid == os.getpid():
            self.close()

    def _after_fork(self) -> None:
        """In the child: the parent's lane, futures and locks are the parent's. The next send() makes new ones."""
        self._attaching = threading.Lock()
        self._engine, self._outcomes = None, Outcomes(0)


def _whole(name: str, value: object, expected: str) -> int:
    try:
        return operator.index(value)  # type: ignore[arg-type]  # that is what is being found out
    except TypeError:
        raise TypeError(f"{name} is {value!r:.40}; expected {expected}") from None


def _check_headers(headers: object) -> None:
    if not isinstance(headers, list):
        raise TypeError(f"headers are {type(headers).__name__}; expected a list of (str, bytes)")
    for item in headers:
        if not (isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) and isinstance(item[1], bytes)):
            raise TypeError(f"header {item!r:.100}; expected a tuple (str, bytes)")


def _no_transactions() -> NoReturn:
    raise UnsupportedOperation(
        "transactions of the program: a message is accepted when send() returns, and cannot be taken back. For every "
        "message once at the broker: provider_options={'delivery': 'exactly-once'}, see docs/providers/kafka.md"
    )


def _forked_child() -> None:
    for producer in list(_producers):
        producer._after_fork()  # noqa: SLF001  (same module)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked_child)
