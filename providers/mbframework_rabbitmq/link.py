"""One connection to RabbitMQ with one channel in confirm mode, on which no call hangs.

Each ends with the answer, the time-out, the end of the buffer or ``close()``.

pika does the talking, on its event loop, which runs only while a method of :class:`Link` does: there is no thread.
Threads: the sender's; :meth:`Link.interrupt` may come from any.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from threading import Event
from typing import Any, NamedTuple

import pika
from pika import exceptions, spec
from pika.adapters.select_connection import IOLoop, SelectConnection

from mbframework.deadline import Deadline
from mbframework.plugins.tls import tls_context
from mbframework.plugins.url import with_port
from mbframework_rabbitmq import RabbitOptions
from mbframework_rabbitmq.faults import NoAnswer

#: Seconds between looks at whether to go on waiting.
_LOOK_S = 0.1
#: Seconds that a farewell may take.
_FAREWELL_S = 1.0
_PORT, _PORT_TLS = 5672, 5671


class Letter(NamedTuple):
    """What is published, in AMQP's words."""

    routing_key: str
    body: bytes
    properties: pika.BasicProperties


class Listener:
    """Hears what the broker says of published messages."""

    @property
    def settled(self) -> bool:
        """Whether nothing is awaited."""
        return True

    def confirm(self, number: int, *, multiple: bool, stored: bool) -> None:
        """Of one message, or of all up to it."""

    def returned(self, message_id: str) -> None:
        """No queue wants it."""


class _Connection(SelectConnection):  # type: ignore[misc]  # pika comes without types
    """An adapter of pika, which pika lets others write: many frames are handed to the socket as one."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._corked: list[bytes] | None = None
        super().__init__(*arguments, **named)

    def _adapter_emit_data(self, data: bytes) -> None:
        if self._corked is None:
            super()._adapter_emit_data(data)
        else:
            self._corked.append(data)

    @contextlib.contextmanager
    def corked(self) -> Any:
        """Frames within are sent together at its end; none of them where it ends with an error."""
        frames: list[bytes] = []
        self._corked = frames
        try:
            yield
        finally:
            self._corked = None
        if frames:
            self._adapter_emit_data(b"".join(frames))

    def cut(self) -> None:
        """End the connection without a farewell; the loop must turn once more."""
        if not self.is_closed:
            self._terminate_stream(exceptions.ConnectionClosedByClient(320, "cut"))


def places(options: RabbitOptions) -> list[str]:
    """The nodes with their ports."""
    port = _PORT_TLS if options.tls else _PORT
    return [with_port(host, port) for host in options.hosts]


class Link:
    """A connection that is authenticated, with an open channel that confirms.

    :raises exceptions.AMQPError: it cannot be made, or does not stand within ``connect_timeout``.
    """

    def __init__(self, place: str, options: RabbitOptions, stopping: Event, closed: Event) -> None:
        self.place = place
        #: Bytes of a frame; 0: no limit.
        self.frame = 0
        #: Why the broker takes nothing at the moment; "": it does.
        self.blocked = ""
        #: What the next published message is called in confirmations.
        self.next_number = 1
        self.listener = Listener()
        self._timeout = options.timeout
        self._stopping, self._closed = stopping, closed
        self._heard = 0
        self._ended: exceptions.AMQPError | None = None
        self._channel: Any = None
        self._shut = False
        self._loop = IOLoop()
        self._connection = _Connection(
            _parameters(place, options),
            on_open_callback=lambda _: self._loop.stop(),
            on_open_error_callback=lambda _, error: self._end(error),
            on_close_callback=lambda _, error: self._end(error),
            custom_ioloop=self._loop,
        )
        try:
            self._set_up(options.connect_timeout)
        except BaseException:
            self.close()
            raise

    def _set_up(self, timeout: float) -> None:
        patience = self._patience(timeout)
        self._await(lambda: bool(self._connection.is_open), patience)
        self.frame = self._connection.params.frame_max
        self._connection.add_on_connection_blocked_callback(self._on_blocked)
        self._connection.add_on_connection_unblocked_callback(self._on_unblocked)
        self._channel = self._connection.channel(on_open_callback=lambda _: self._loop.stop())
        self._channel.add_on_close_callback(lambda _, error: self._end(error))
        self._channel.add_on_return_callback(self._on_return)
        self._await(lambda: bool(self._channel.is_open), patience)
        self._ask(lambda done: self._channel.confirm_delivery(self._on_confirm, callback=done), patience)

    @property
    def server(self) -> dict[str, Any]:
        """What the broker tells of itself."""
        return dict(self._connection.server_properties or {})

    def declare(self, queue: str, kind: str) -> None:
        """Make a durable queue of this type where it is missing. :raises exceptions.AMQPError:"""
        arguments = {"x-queue-type": kind}
        self._ask(
            lambda done: self._channel.queue_declare(queue, durable=True, arguments=arguments, callback=done),
            self._patience(self._timeout),
            f"RabbitMQ does not answer that it has made the queue {queue!r}; see its log",
        )

    def publish(self, exchange: str, letters: Iterable[Letter]) -> None:
        """Hand messages to the connection; what becomes of them is told to the listener."""
        with self._connection.corked():
            for letter in letters:
                self._channel.basic_publish(
                    exchange, letter.routing_key, letter.body, letter.properties, mandatory=True
                )
                self.next_number += 1

    def wait(self) -> None:
        """Return when the listener has heard enough. :raises exceptions.AMQPError: that cannot be any more, or nothing
        is heard for the time-out."""
        patience, heard = self._patience(self._timeout), self._heard
        while not self.listener.settled:
            self._look(patience, "")
            if heard != self._heard and not self._stopping.is_set():
                patience, heard = self._patience(self._timeout), self._heard

    def alive(self) -> bool:
        """Whether the connection stands, as far as is known; heartbeats are sent and heard."""
        if self._ended is None:
            self._turn(0)
        return self._ended is None

    @property
    def over(self) -> bool:
        """Whether it is of no use any more: it has ended, or owes an answer."""
        return self._ended is not None

    def interrupt(self) -> None:
        """From any thread: let a wait in another thread look around now."""
        # The loop may be closed by now.
        with contextlib.suppress(OSError):
            self._loop.add_callback_threadsafe(self._loop.stop)

    def close(self, *, farewell: bool = False) -> None:
        """Let go of the connection, on the thread that uses it. May be called twice.

        :param farewell: tell the broker, and wait for its answer a second at most.
        """
        if farewell and self._connection.is_open:
            self._connection.close()
            patience = Deadline(_FAREWELL_S, Event(), Event())
            while not self._connection.is_closed and patience.left():
                self._turn(min(_LOOK_S, patience.left()))
        self._connection.cut()
        for _ in range(3):
            if not self._connection.is_closed:
                self._turn(0)
        if not self._shut:
            self._shut = True
            self._loop.close()

    # -- what pika tells -----------------------------------------------------------------------

    def _end(self, error: BaseException) -> None:
        # The first is the cause of the others.
        if self._ended is None:
            known = isinstance(error, exceptions.AMQPError)
            self._ended = error if known else exceptions.AMQPConnectionError(error)
        self._loop.stop()

    def _on_confirm(self, frame: Any) -> None:
        self._heard += 1
        answer = frame.method
        self.listener.confirm(answer.delivery_tag, multiple=answer.multiple, stored=isinstance(answer, spec.Basic.Ack))
        if self.listener.settled:
            self._loop.stop()

    def _on_return(self, _channel: Any, _method: Any, properties: Any, _body: bytes) -> None:
        self._heard += 1
        self.listener.returned(properties.message_id)

    def _on_blocked(self, _connection: Any, frame: Any) -> None:
        self.blocked = frame.method.reason or "no reason given"

    def _on_unblocked(self, _connection: Any, _frame: Any) -> None:
        self.blocked = ""
        self._heard += 1

    # -- waiting -------------------------------------------------------------------------------

    def _ask(self, call: Callable[[Callable[[object], None]], object], patience: Deadline, in_vain: str = "") -> None:
        answers: list[object] = []

        def done(answer: object) -> None:
            answers.append(answer)
            self._loop.stop()

        call(done)
        self._await(lambda: bool(answers), patience, in_vain)

    def _await(self, condition: Callable[[], bool], patience: Deadline, in_vain: str = "") -> None:
        while not condition():
            if self._stopping.is_set() and self._ended is None:
                self._ended = NoAnswer("the buffer is closing, and RabbitMQ has not answered yet")
            self._look(patience, in_vain or "RabbitMQ takes connections, but does not answer")

    def _look(self, patience: Deadline, in_vain: str) -> None:
        """Let the loop turn for a moment. :raises exceptions.AMQPError: there is nothing left to wait for."""
        if self._ended is not None:
            raise self._ended
        left = patience.left()
        if not left:
            blocked = f"; it takes no messages at present: {self.blocked}" if self.blocked else ""
            self._ended = NoAnswer(f"{in_vain or patience.why()}{blocked}")
            raise self._ended
        self._turn(min(_LOOK_S, left))

    def _turn(self, seconds: float) -> None:
        timer = self._loop.call_later(seconds, self._loop.stop)
        self._loop.start()
        self._loop.remove_timeout(timer)

    def _patience(self, timeout: float) -> Deadline:
        return Deadline(timeout, self._stopping, self._closed)


def _parameters(place: str, options: RabbitOptions) -> pika.ConnectionParameters:
    host, _, port = place.rpartition(":")
    host = host.strip("[]")
    context = tls_context(options, "rabbitmq") if options.tls else None
    return pika.ConnectionParameters(
        host=host,
        port=int(port),
        virtual_host=options.vhost,
        credentials=pika.PlainCredentials(options.username or "guest", options.password or "guest"),
        heartbeat=round(options.heartbeat),
        ssl_options=None if context is None else pika.SSLOptions(context, host),
        socket_timeout=options.connect_timeout,
        stack_timeout=options.connect_timeout,
        connection_attempts=1,
        client_properties={"connection_name": options.client_name, "product": "mbframework"},
    )
