"""One connection to an MQTT broker, on which no call hangs but the making of the TCP connection.

Each ends with the answer, the time-out, the end of the buffer or ``close()``.

paho-mqtt does the talking, and only while a method of :class:`Link` runs: there is no thread. A new connection knows
nothing of an older one: what was under way there is for the lane to send again. The broker ends an older connection of
the same client id, so that what was left of it cannot get in between.
Threads: the sender's.
"""

from __future__ import annotations

import contextlib
import select
import ssl
from collections.abc import Sequence
from copy import copy
from threading import Event
from typing import Any

from paho.mqtt.client import Client, error_string
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from mbframework.deadline import Deadline
from mbframework.plugins.tls import tls_context
from mbframework.plugins.url import with_port
from mbframework_mqtt import MqttOptions
from mbframework_mqtt.faults import Broken
from mbframework_mqtt.message import Property

#: Seconds between looks at whether to go on waiting.
_LOOK_S = 0.1
_PORT, _PORT_TLS = 1883, 8883
#: Bytes of a packet in MQTT itself.
_LARGEST = 268_435_455
_ANY_WINDOW = 65535
#: A topic that no connection of ours is subscribed to.
_NOBODYS = "mbframework/nobodys"


class Listener:
    """Hears what the broker says of published messages."""

    def answered(self, number: int, code: int) -> None:
        """Of the message that :meth:`Link.publish` gave this number; a code from 128 on says that it has failed."""


def places(options: MqttOptions) -> list[str]:
    """The brokers with their ports."""
    port = _PORT_TLS if options.tls else _PORT
    return [with_port(host, port) for host in options.hosts]


def secured(options: MqttOptions) -> ssl.SSLContext | None:
    """None where TLS is off. :raises ConfigurationError: a file cannot be used."""
    if not options.tls:
        return None
    context = tls_context(options, "mqtt")
    context.sslsocket_class = _Socket
    return context


class _Socket(ssl.SSLSocket):
    """Closed where the handshake fails, which paho forgets."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


class Link:
    """A connection that the broker has accepted.

    :raises Broken: it cannot be made, or is refused.
    """

    def __init__(self, place: str, client_id: str, options: MqttOptions, stopping: Event, closed: Event) -> None:
        self.place = place
        self.listener = Listener()
        #: Messages that may be under way, and bytes of a packet.
        self.window, self.largest = options.window, _LARGEST
        self._stopping, self._closed, self._timeout = stopping, closed, options.timeout
        self._qos, self._retain = int(options.qos), options.retain
        #: Whether a message was taken: before that one goes alone, so that a refusal of all says nothing of others.
        self.proven = False
        self._heard = 0
        self._confirmed = False
        self._ended: Broken | None = None
        self._welcome: Any = None
        # To make one takes longer than to copy it.
        self._no_properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        self._client = Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.connect_timeout = options.connect_timeout
        # The window is kept here, since the broker says its own only when it accepts.
        self._client.max_inflight_messages = 0
        if options.username is not None:
            self._client.username_pw_set(options.username, options.password)
        if (context := secured(options)) is not None:
            self._client.tls_set_context(context)
            self._client.tls_insecure_set(not options.tls_verify)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        self._client.on_unsubscribe = self._on_unsubscribe
        try:
            self._connect(options)
        except BaseException:
            self.close()
            raise

    def _connect(self, options: MqttOptions) -> None:
        host, _, port = self.place.rpartition(":")
        try:
            self._client.connect(host.strip("[]"), int(port), round(options.keepalive), clean_start=True)
        except (OSError, ValueError) as error:  # ValueError: a host name that is none
            raise Broken(str(error) or type(error).__name__) from error
        patience = Deadline(options.connect_timeout, self._stopping, self._closed)
        while self._welcome is None:
            if self._stopping.is_set():
                raise Broken("the buffer is closing, and the broker has not answered yet")
            self._look(patience, "it takes connections, but does not answer")
        code, told = self._welcome
        if code.is_failure:
            raise Broken(f"it refused the connection: {code}", code.value)
        self.window = min(self.window, getattr(told, "ReceiveMaximum", _ANY_WINDOW))
        self.largest = min(self.largest, getattr(told, "MaximumPacketSize", _LARGEST))
        if getattr(told, "MaximumQoS", 2) < self._qos:
            raise Broken(f"it has no quality of service {self._qos}", 155)
        if self._retain and not getattr(told, "RetainAvailable", 1):
            raise Broken("it keeps no messages for new subscribers", 154)

    def publish(self, topic: str, payload: bytes, properties: Sequence[Property], qos: int) -> int:
        """Hand a message to the connection; its number. :raises Broken: there is no connection any more."""
        told = copy(self._no_properties)
        told.UserProperty = list(properties)
        done = self._client.publish(topic, payload, qos, self._retain, told)
        if done.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._end(error_string(done.rc))
            assert self._ended is not None
            raise self._ended
        return done.mid

    def patience(self) -> Deadline:
        """How long acknowledgements may take from now on."""
        return Deadline(self._timeout, self._stopping, self._closed)

    def hear(self, patience: Deadline) -> Deadline:
        """Wait a moment for answers, which are told to the listener; how long further ones may take.

        :raises Broken: the connection has ended, or nothing was heard for the time-out.
        """
        heard = self._heard
        self._look(patience, "")
        return self.patience() if heard != self._heard and not self._stopping.is_set() else patience

    def confirm(self) -> None:
        """Return when the broker has answered something that was asked after all that it has acknowledged.

        :raises Broken: the connection has ended, or nothing was heard for the time-out.
        """
        self._confirmed = False
        patience = self.patience()
        # Of MQTT's questions the one that changes nothing, and that paho tells the answer of.
        self._client.unsubscribe(_NOBODYS)
        while not self._confirmed:
            self._look(patience, "")

    def alive(self) -> bool:
        """Whether the connection stands, as far as is known; it is kept alive."""
        if self._ended is None:
            self._turn(0)
        return self._ended is None

    @property
    def over(self) -> bool:
        """Whether it is of no use any more: it has ended, or owes an answer."""
        return self._ended is not None

    def close(self) -> None:
        """Take leave, without waiting for an answer. May be called twice."""
        self._client.on_disconnect = None
        self._client.on_publish = None
        taken = self._client.socket()
        if taken is None:
            return
        # Only as much as the socket takes at once.
        self._client.disconnect()
        with contextlib.suppress(OSError):
            taken.close()

    # -- what paho tells -----------------------------------------------------------------------

    def _on_connect(self, _client: Client, _data: Any, _flags: Any, code: Any, told: Any) -> None:
        self._welcome = (code, told)

    def _on_disconnect(self, _client: Client, _data: Any, _flags: Any, code: Any, _told: Any) -> None:
        # Before the welcome the refusal says more.
        if self._welcome is None or not self._welcome[0].is_failure:
            self._end(f"the connection has ended: {code}", code.value if code.value >= 128 else 0)

    def _on_publish(self, _client: Client, _data: Any, number: int, code: Any, _told: Any) -> None:
        self._heard += 1
        self.listener.answered(number, code.value)

    def _on_unsubscribe(self, *_: Any) -> None:
        self._confirmed = True

    def _end(self, said: str, code: int = 0) -> None:
        # The first is the cause of the others.
        if self._ended is None:
            self._ended = Broken(said, code)

    # -- waiting -------------------------------------------------------------------------------

    def _look(self, patience: Deadline, in_vain: str) -> None:
        if self._ended is not None:
            raise self._ended
        left = patience.left()
        if not left:
            self._end(in_vain or patience.why())
        else:
            self._turn(min(_LOOK_S, left))

    def _turn(self, seconds: float) -> None:
        """Send, wait for the socket, and hear what there is."""
        taken: Any = self._client.socket()
        if taken is None:
            return self._end("the connection has ended")
        poll = select.poll()
        poll.register(taken, select.POLLIN | (select.POLLOUT if self._client.want_write() else 0))
        # What TLS has read already no poll sees.
        pending = hasattr(taken, "pending") and taken.pending()
        ready = poll.poll(0 if pending else seconds * 1000)
        told = MQTTErrorCode.MQTT_ERR_SUCCESS
        if pending or any(event & ~select.POLLOUT for _, event in ready):
            told = self._client.loop_read(1000)
        if told == MQTTErrorCode.MQTT_ERR_SUCCESS and self._client.want_write():
            told = self._client.loop_write()
        if told == MQTTErrorCode.MQTT_ERR_SUCCESS:
            told = self._client.loop_misc()
        if told != MQTTErrorCode.MQTT_ERR_SUCCESS and self._welcome is None:
            # The broker may have said why in its welcome; else this is all that is known.
            self._end(error_string(told))
        elif told != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._end(f"the connection has ended: {error_string(told)}")
        return None
