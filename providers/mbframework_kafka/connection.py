"""One KafkaProducer and its network client, from the first connection to a certain end.

Everything here that reaches into kafka-python's private parts does so because its public ``flush`` and ``close``
wait without bound, raise with data pending, or leave threads and sockets behind. kafka-python's loggers speak up
about each failed connection; they are left as they are (docs/providers/kafka.md). :meth:`Connection.end` may be
called from any thread and more than once, everything else from the sender's thread.
"""

# ruff: noqa: SLF001 - the reasons are in the docstring; the requirement is pinned to the 3.0 series
from __future__ import annotations

import contextlib
import logging
import selectors
import threading
from collections.abc import Callable, Mapping
from socket import socket
from traceback import walk_tb
from typing import Any
from weakref import WeakSet

from kafka import KafkaProducer
from kafka import errors as kafka_errors
from kafka.net import connection as kafka_connection
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.protocol import parser as kafka_parser
from kafka.protocol.admin import DescribeConfigsRequest
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslAuthenticateResponse, SaslBytesRequest, SaslBytesResponse

from mbframework_kafka.outcome import BLOCKS
from mbframework_kafka.reach import Address

#: Milliseconds until a node that is not ready is tried again.
_AGAIN_MS = 20
#: Seconds between looks at whether to go on waiting.
_LOOK_S = 0.1
_TOPIC = 2
_LARGEST_BATCH = "max.message.bytes"
#: Seconds that an ended producer's thread has to go away before it is left to do so alone.
_PATIENCE_S = 1.0


#: Seconds that may still be waited; 0.0 for none.
Left = Callable[[], float]


_TELLING = (SaslAuthenticateRequest, SaslAuthenticateResponse, SaslBytesRequest, SaslBytesResponse, bytes, bytearray)


class _Discreet(logging.Filter):
    """Of what kafka-python logs for debugging, the contents of requests that may hold a password are left out."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(type(given).__name__ if isinstance(given, _TELLING) else given for given in record.args)
        return True


for _module in (kafka_connection, kafka_parser):
    logging.getLogger(_module.__name__).addFilter(_Discreet())


class _Manager(KafkaConnectionManager):  # type: ignore[misc] # kafka-python is not typed
    """kafka-python's connections, with three of its gaps closed.

    What a broker said just before it hung up is read, such as "wrong password". That a broker refused us is
    kept in ``refusal`` until one lets us in, and ends the first connecting at once. The socket of a connection
    that failed is closed; the library leaves it to the garbage collector, once for each attempt of an outage.
    """

    refusal: Exception | None = None

    def __init__(self, net: NetworkSelector, **configuration: Any) -> None:
        #: All that may have a socket open.
        self.transports: WeakSet[Any] = WeakSet()
        super().__init__(net, **configuration)

    def get_connection(self, node_id: Any, *arguments: Any, **named: Any) -> Any:
        if self.refusal is not None and not self.bootstrapped:
            raise self.refusal
        before = self._conns.get(node_id)
        connection = super().get_connection(node_id, *arguments, **named)
        if connection is not before:
            connection.close_future.add_errback(self._lost)
            connection.init_future.add_callback(self._let_in)
        return connection

    def _lost(self, error: Exception) -> None:
        if isinstance(error, BLOCKS):
            self.refusal = error

    def _let_in(self, _: object) -> None:
        self.refusal = None

    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> Any:
        try:
            transport = await super()._build_transport(node, timeout_at=timeout_at)
        except BaseException as error:
            # Also where it is not awaited any more.
            _close_sockets(error)
            raise
        self.transports.add(transport)
        receive = transport._sock_recv

        def receive_to_the_end() -> tuple[bytes, Exception | None]:
            data, error = receive()
            # With data the error waits: the next call meets it again.
            return data, None if data else error

        transport._sock_recv = receive_to_the_end
        return transport


def _close_sockets(error: BaseException) -> None:
    """Close the sockets that the functions on the way of an error held."""
    cause: BaseException | None = error
    while cause is not None:
        for frame, _ in walk_tb(cause.__traceback__):
            for left in frame.f_locals.values():
                if isinstance(left, socket):
                    left.close()
        cause = cause.__context__


class _Client(KafkaNetClient):  # type: ignore[misc] # kafka-python is not typed
    """kafka-python's, which leaves no socket behind, and says that a node is not ready where the library's own raises,
    since its sender then forgets the request that it was about to send: a commit would wait for ever after a broken
    connection."""

    def await_ready(self, node_id: Any, timeout_ms: float = 30_000) -> bool:
        try:
            return bool(super().await_ready(node_id, timeout_ms=timeout_ms))
        except kafka_errors.KafkaError:
            # The sender asks again at once.
            self.poll(timeout_ms=_AGAIN_MS)
            return False

    def close(self, node_id: Any = None) -> None:
        """The sockets as well that have something left to send, which the library leaves to the garbage collector."""
        self._manager.close(node_id=node_id)
        if node_id is None:
            for transport in list(self._manager.transports):
                transport._close()
            self._net.close()


def _bootstrap(manager: _Manager, timeout_ms: float, left: Left) -> None:
    reached = manager.bootstrap_async(timeout_ms)
    while not reached.is_done:
        if not left():
            raise kafka_errors.KafkaTimeoutError("given up")
        manager._net.poll(timeout_ms=_LOOK_S * 1000, future=reached)
    if reached.exception is not None:
        raise reached.exception


class Connection:
    """A producer that has reached its cluster.

    :param left: seconds that may be spent on reaching it, asked again and again.
    :raises kafka.errors.KafkaError: it was not reached, or refused us; nothing is left behind.
    :raises ValueError, RuntimeError: the settings do not fit together or do not fit the broker.
    """

    def __init__(self, settings: Mapping[str, Any], left: Left) -> None:
        clients: list[_Client] = []
        managers: list[_Manager] = []

        def client(**configuration: Any) -> _Client:
            net = NetworkSelector(**configuration)
            manager = _Manager(net, **configuration)
            managers.append(manager)
            made = _Client(net=net, manager=manager, **configuration)
            clients.append(made)
            # KafkaProducer takes this option and does not pass it on.
            made.cluster.config["allow_auto_create_topics"] = settings["allow_auto_create_topics"]
            if manager.broker_version_data is None:
                # KafkaProducer would do the same, without an ear for who wants to stop.
                _bootstrap(manager, settings["bootstrap_timeout_ms"], left)
            return made

        # kafka-python remembers the one that there was when it was imported; in a worker that was forked since, and
        # patched by gevent, that would hold up all of it.
        selector = {"selector": selectors.DefaultSelector}
        try:
            self.producer = KafkaProducer(**{**selector, **settings}, kafka_client=client)
        except BaseException:
            for opened in clients:
                opened.close()
            raise
        self._client = clients[0]
        self._manager = managers[0]
        self._cluster = self._client.cluster
        self._largest_batches: dict[str, int | None] = {}
        self._ended = False

    @property
    def cluster(self) -> Any:
        """What kafka-python knows of the cluster."""
        return self._cluster

    @property
    def cluster_id(self) -> str:
        """The id that the cluster gave itself; "" for those before Kafka 0.10.1."""
        return self._cluster.cluster_id or ""

    @property
    def version(self) -> str:
        """The broker's version as far as its protocol tells."""
        return ".".join(map(str, self.producer.config["api_version"]))

    def partitions(self, topic: str) -> list[int] | None:
        """The partitions of a topic, ascending; None where the cluster has not told within ``MAX_BLOCK_MS``.

        :raises kafka.errors.AuthorizationError: we may not know.
        """
        try:
            return sorted(self.producer.partitions_for(topic))
        except kafka_errors.RetriableError:
            return None

    def writable(self, topic: str) -> list[int]:
        """Those of a topic's partitions that have a leader."""
        return sorted(self._cluster.available_partitions_for_topic(topic) or ())

    def refresh(self, timeout: float) -> bool:
        """Ask for metadata; whether the cluster answered within ``timeout`` seconds, be it that a topic is unknown."""
        done = threading.Event()
        future = self._cluster.request_update()
        future.add_both(lambda _: done.set())
        self.producer._sender.wakeup()
        # Where one topic alone was asked for, what the cluster says of that topic is the future's error.
        return done.wait(timeout) and isinstance(future.exception, (type(None), kafka_errors.BrokerResponseError))

    def largest_batch(self, topic: str, left: Left) -> int | None:
        """The topic's ``max.message.bytes``, of a record batch; asked once. None where the cluster does not tell us."""
        if topic in self._largest_batches:
            return self._largest_batches[topic]
        request = DescribeConfigsRequest(resources=[(_TOPIC, topic, [_LARGEST_BATCH])], min_version=0)
        found = None
        with contextlib.suppress(kafka_errors.KafkaError):
            settings = (setting for result in self.ask(request, left).results for setting in result.configs)
            found = next((int(each.value) for each in settings if each.name == _LARGEST_BATCH and each.value), None)
        self._largest_batches[topic] = found
        return found

    def ask(self, request: Any, left: Left, node: Any = None) -> Any:
        """The answer of a node, of any without one.

        :raises kafka.errors.KafkaError: it did not come, a :class:`~kafka.errors.KafkaTimeoutError` where no time is
            left, or a broker does not let us in any more.
        """
        done = threading.Event()
        future = self._manager.call_soon(self._manager.send, request, node)
        future.add_both(lambda _: done.set())
        self.wait(done, left)
        if future.exception is not None:
            raise future.exception
        return future.value

    def wait(self, event: threading.Event, left: Left) -> None:
        """Wait for what kafka-python's thread sets. Raises as :meth:`ask`."""
        while not event.wait(min(_LOOK_S, left())):
            if refusal := self.refusal():
                raise refusal
            if not left():
                raise kafka_errors.KafkaTimeoutError("no answer in time")

    def refusal(self) -> Exception | None:
        """Why a broker does not let us in any more; None while all do."""
        return self._manager.refusal

    def connected(self) -> bool:
        """Whether a connection to any of the brokers stands, as far as is known."""
        return any(self._client.connected(broker.node_id) for broker in self._cluster.brokers())

    def brokers(self) -> list[Address]:
        """Where the cluster says that its brokers are."""
        return [(broker.host, broker.port) for broker in self._cluster.brokers()]

    def end(self, timeout: float = _PATIENCE_S) -> None:
        """Give up whatever is pending, whose futures fail, and close; waits at most ``timeout`` seconds."""
        if self._ended:
            return
        self._ended = True
        producer = self.producer
        producer._sender.force_close()
        producer._sender.join(timeout)
        # KafkaProducer.close() would flush, and raise where the thread has not ended yet.
        producer._unregister_cleanup()
        producer._closed = True
