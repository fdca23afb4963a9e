"""The MQTT provider.

Promises:

- ``send()`` returns when the broker has acknowledged every message, with QoS 2 completed it. What that is worth is the
  broker's affair: many keep messages in memory, and throw away what nobody is subscribed to.
- Ordering domain: a topic; a lane's messages are published in its order across its topics, too.
- After a lost connection the next ``send()`` makes a new one, to the first of the hosts that answers.

Threads: the sender's. ``close()`` from another while ``send()`` runs makes it fail soon after, and it closes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import version

from mbframework.errors import ProviderUnusable, SendFailed
from mbframework.message import Batch
from mbframework.plugins.occupancy import Occupancy
from mbframework.plugins.tls import tls_fact, tls_hint, warn_unverified
from mbframework.provider import Context, Provider
from mbframework_mqtt import MqttOptions
from mbframework_mqtt.faults import Broken, translate
from mbframework_mqtt.link import Link, places, secured
from mbframework_mqtt.sending import Sending

#: What a packet has beside the message, generously: our own user properties among it.
_OVERHEAD = 1024


class MqttProvider(Provider):
    """Delivers a lane to an MQTT broker; see the module.

    :raises ConfigurationError: a certificate cannot be read; nothing was connected.
    """

    def __init__(self, options: MqttOptions) -> None:
        secured(options)
        self._options = options
        self._context = Context(buffer_id="0" * 32, lane="", run=b"\0" * 16)
        self._link: Link | None = None
        # Topics that somebody listened to on this connection, where that is required.
        self._known: set[str] = set()
        self._occupancy = Occupancy(self._drop, "mqtt", "an MQTT broker")
        # The last connection ended with its first message.
        self._ask_why = False
        #: A broker has accepted a connection before.
        self._met = False

    # -- opening and closing -------------------------------------------------------------------

    def open(self, context: Context) -> None:
        self._context = context
        self._occupancy.open()
        with self._occupancy.held():
            self._drop()
            warn_unverified(self._options, "mqtt", context.logger)
            self._connected()

    def describe(self) -> Mapping[str, str]:
        return {
            "client": f"paho-mqtt {version('paho-mqtt')}",
            "protocol": f"MQTT 5, QoS {self._options.qos}",
            "window": f"{self._link.window if self._link is not None else self._options.window} messages",
            "client id": self._client_id,
            "security": tls_fact(self._options),
        }

    def idle(self) -> None:
        """Keep the connection alive; notice that it has ended, and mend it."""
        with self._occupancy.held():
            self._connected()

    def close(self, timeout: float) -> None:
        self._occupancy.close(timeout)

    @property
    def _client_id(self) -> str:
        """23 letters and digits, which every broker takes."""
        lane = f"{self._context.buffer_id}:{self._context.lane}"
        return self._options.client_id or "mb" + hashlib.sha256(lane.encode()).hexdigest()[:21]

    def _connected(self) -> Link:
        if self._link is not None and self._link.alive():
            return self._link
        self._drop()
        reasons: list[SendFailed] = []
        blocked: ProviderUnusable | None = None
        for place in places(self._options):
            try:
                self._link = link = Link(
                    place, self._client_id, self._options, self._context.stopping, self._occupancy.closed
                )
            except Broken as error:
                told = translate(str(error), error.code, place, error.__cause__)
                if isinstance(told, SendFailed):
                    reasons.append(told)
                else:
                    blocked = told
            else:
                self._met = True
                self.max_message_bytes = link.largest - _OVERHEAD
                return link
        if blocked is not None:
            raise blocked
        text = "; ".join(map(str, reasons))
        hint = tls_hint(self._options, text, "mqtts", met=self._met)
        raise SendFailed(f"no MQTT broker can be reached: {text}{hint}", provider="mqtt")

    def _drop(self) -> None:
        link, self._link = self._link, None
        self._known.clear()
        if link is not None:
            link.close()

    # -- sending -------------------------------------------------------------------------------

    def send(self, batch: Batch) -> None:
        """Deliver the batch.

        :raises SendFailed: ``undelivered`` are a suffix of each topic; ``uncertain`` where an answer did not come.
        :raises ProviderUnusable: a person must act; nothing of the batch was taken.
        """
        if not batch:
            return
        with self._occupancy.held():
            link = self._connected()
            identity = f"{self._context.buffer_id}:{self._context.lane}:"
            try:
                Sending(link, self._options, batch, identity, self._known, ask_why=self._ask_why).run()
            finally:
                self._ask_why = not link.proven
                if link.over:
                    # Answers that come after a time-out must not be taken for those of other messages.
                    self._drop()
