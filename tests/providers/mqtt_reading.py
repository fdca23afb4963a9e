"""Subscribers with a session: what was published while they were away waits for them at the broker."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Self

from mbframework_mqtt.message import Content, decode
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

_USER, _PASSWORD = "reader", "reader"


class Read(NamedTuple):
    """One message; ``topic`` without the prefix."""

    topic: str
    content: Content
    retained: bool


class Subscriber:
    """Subscribed to all below ``prefix`` from entry to exit, also while it is not connected.

    :param bare: read by MQTT 3.1.1, which is faster, and leaves out all but topics and values.
    """

    def __init__(self, port: int, prefix: str, *, bare: bool = False) -> None:
        self._port, self._prefix, self._bare = port, prefix, bare
        self._name = f"reader{uuid.uuid4().hex[:16]}"
        self._end = f"{prefix}end-of-reading"
        self.found: list[Read] = []

    def __enter__(self) -> Self:
        self.subscribe()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        client = self._connected(lambda *_: None, clean=True)
        client.disconnect()
        client.loop(0.01)

    def subscribe(self) -> None:
        """Also after the broker has forgotten it."""
        self._visit(subscribe=True)

    def read(self) -> list[Read]:
        """All that has arrived at the broker by now, since entry."""
        self._visit()
        return self.found

    def _visit(self, *, subscribe: bool = False) -> None:
        """Connect, fetch what waits, and leave; the session stays."""
        done: list[bool] = []

        def arrived(_client: Client, _data: Any, message: Any) -> None:
            if message.topic == self._end:
                done.append(True)
                return
            given = getattr(message.properties, "UserProperty", [])
            topic = message.topic.removeprefix(self._prefix)
            self.found.append(Read(topic, decode(message.payload, given), message.retain))

        client = self._connected(arrived, clean=False)
        if subscribe:
            options = {"qos": 2} if self._bare else {"options": SubscribeOptions(qos=2)}
            client.subscribe(f"{self._prefix}#", **options)
        # Behind all that waits in the session.
        client.publish(self._end, b"", qos=1)
        _until(client, lambda: bool(done))
        # Acknowledge the last one.
        for _ in range(3):
            client.loop(0.01)
        client.disconnect()
        client.loop(0.01)

    def _connected(self, arrived: Any, *, clean: bool) -> Client:
        welcome: list[bool] = []
        if self._bare:
            client = Client(
                CallbackAPIVersion.VERSION2, self._name, clean_session=clean, protocol=MQTTProtocolVersion.MQTTv311
            )
        else:
            client = Client(CallbackAPIVersion.VERSION2, self._name, protocol=MQTTProtocolVersion.MQTTv5)
        client.username_pw_set(_USER, _PASSWORD)
        client.on_connect = lambda *_: welcome.append(True)
        client.on_message = arrived
        if self._bare:
            client.connect("127.0.0.1", self._port)
        else:
            expiry = Properties(PacketTypes.CONNECT)
            expiry.SessionExpiryInterval = 0 if clean else 3600
            client.connect("127.0.0.1", self._port, clean_start=clean, properties=expiry)
        _until(client, lambda: bool(welcome))
        return client


class Listening:
    """Connected and subscribed to all below ``prefix`` with QoS 1 from entry to exit; where the connection ends it
    comes back to its session. ``values`` are the numbers that arrived, repeats too."""

    def __init__(self, port: int, prefix: str) -> None:
        self._port, self._prefix = port, prefix
        self.values: list[int] = []
        self._client = Client(
            CallbackAPIVersion.VERSION2,
            f"reader{uuid.uuid4().hex[:16]}",
            clean_session=False,
            protocol=MQTTProtocolVersion.MQTTv311,
        )

    def __enter__(self) -> Self:
        client, subscribed = self._client, threading.Event()
        client.on_message = lambda _client, _data, message: self.values.append(int(message.payload))
        client.on_subscribe = lambda *_: subscribed.set()
        client.reconnect_delay_set(0.05, 0.1)  # type: ignore[arg-type]  # it takes parts of a second as well
        client.connect("127.0.0.1", self._port)
        client.subscribe(f"{self._prefix}#", qos=1)
        client.loop_start()
        assert subscribed.wait(60)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def _until(client: Client, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the subscriber does not get what waits for it"
        client.loop(0.1)


def numbers(subscriber: Subscriber) -> list[int]:
    """The numbers that are the values of :func:`tests.providers.batches.make_batch`."""
    return [int((one.content.value or b"").rstrip(b".")) for one in subscriber.read()]
