"""The RabbitMQ provider.

Promises:

- ``send()`` returns when the broker has confirmed every message: for a durable queue, when it is on disk (classic) or
  on a majority of nodes (quorum). All of a batch is on its way at once, not one message a round trip.
- A message that no queue wants comes back (``mandatory``), and is not lost: the lane waits for a person. So that
  nothing of its topic overtakes it, the first message of each topic on a connection is sent alone.
- Ordering domain: a topic; a lane's messages are published in its order across its topics, too.
- After a lost connection the next ``send()`` makes a new one, to the first of the hosts that answers.

Threads: the sender's. ``close()`` from another while ``send()`` runs makes it fail soon after, and it closes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pika
from pika import exceptions

from mbframework.errors import ProviderUnusable, SendFailed
from mbframework.message import Batch
from mbframework.plugins.occupancy import Occupancy
from mbframework.plugins.tls import tls_context, tls_fact, tls_hint, warn_unverified
from mbframework.provider import Context, Provider
from mbframework_rabbitmq import RabbitOptions
from mbframework_rabbitmq.faults import translate
from mbframework_rabbitmq.link import Link, places
from mbframework_rabbitmq.sending import Sending


class RabbitProvider(Provider):
    """Delivers a lane to RabbitMQ; see the module.

    :raises ConfigurationError: a certificate cannot be read; nothing was connected.
    """

    def __init__(self, options: RabbitOptions) -> None:
        if options.tls:
            tls_context(options, "rabbitmq")
        self._options = options
        self._context = Context(buffer_id="0" * 32, lane="", run=b"\0" * 16)
        self._link: Link | None = None
        # Topics of which a message was stored on this connection.
        self._routed: set[str] = set()
        self._occupancy = Occupancy(self._drop, "rabbitmq", "RabbitMQ")
        self._facts: dict[str, str] = {}
        self._destination = ""
        self.max_message_bytes: int = options.max_message_size

    # -- opening and closing -------------------------------------------------------------------

    def open(self, context: Context) -> None:
        self._context = context
        self._occupancy.open()
        with self._occupancy.held():
            self._drop()
            warn_unverified(self._options, "rabbitmq", context.logger)
            self._describe(self._connected())

    def destination(self) -> str:
        """A digest of the cluster's name, in which there may be a host's, and of the virtual host's."""
        return self._destination

    def describe(self) -> Mapping[str, str]:
        return self._facts

    def idle(self) -> None:
        """Beat; notice that the connection has ended, and mend it."""
        with self._occupancy.held():
            self._connected()

    def close(self, timeout: float) -> None:
        self._occupancy.close(timeout, interrupt=self._interrupt, drop=lambda: self._drop(farewell=timeout > 0))

    def _interrupt(self) -> None:
        link = self._link
        if link is not None:
            link.interrupt()

    def _connected(self) -> Link:
        if self._link is not None and self._link.alive():
            return self._link
        self._drop()
        reasons: list[SendFailed] = []
        blocked: ProviderUnusable | None = None
        for place in places(self._options):
            try:
                self._link = Link(place, self._options, self._context.stopping, self._occupancy.closed)
            except exceptions.AMQPError as error:
                told = translate(error, place)
                if isinstance(told, SendFailed):
                    reasons.append(told)
                else:
                    blocked = told
            else:
                return self._link
        if blocked is not None:
            raise blocked
        text = "; ".join(map(str, reasons))
        hint = tls_hint(self._options, text, "amqps", met=bool(self._facts))
        raise SendFailed(f"RabbitMQ cannot be reached: {text}{hint}", provider="rabbitmq")

    def _describe(self, link: Link) -> None:
        server = link.server
        cluster, vhost = str(server.get("cluster_name", "")), self._options.vhost
        self._destination = "rabbitmq:" + hashlib.sha256(f"{cluster}\0{vhost}".encode()).hexdigest()[:32]
        self._facts = {
            "client": f"pika {pika.__version__}",
            "server": f"RabbitMQ {server.get('version', 'unknown')}",
            "virtual host": vhost,
            "exchange": self._options.exchange or "the default one: topics are queues",
            "security": tls_fact(self._options),
        }

    def _drop(self, *, farewell: bool = False) -> None:
        link, self._link = self._link, None
        self._routed.clear()
        if link is not None:
            link.close(farewell=farewell)

    # -- sending -------------------------------------------------------------------------------

    def send(self, batch: Batch) -> None:
        """Deliver the batch.

        :raises SendFailed: ``undelivered`` are a suffix of each topic; ``uncertain`` where an answer did not come.
        :raises ProviderUnusable: a person must act; nothing of the batch was stored.
        """
        if not batch:
            return
        with self._occupancy.held():
            link = self._connected()
            identity = f"{self._context.buffer_id}:{self._context.lane}:"
            sending = Sending(link, self._options, batch, identity, self._routed, self.max_message_bytes)
            try:
                sending.run()
            finally:
                self.max_message_bytes = sending.largest
                if link.over:
                    # Confirmations that come after a time-out must not be taken for those of other messages.
                    self._drop()
