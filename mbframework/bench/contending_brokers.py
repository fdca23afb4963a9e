"""Brokers of ``mb bench providers``, and their bare clients, used as their documentation recommends for bulk.

Client libraries are imported by what uses them.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from typing import Any

from mbframework.bench import kafka_clients
from mbframework.bench.contender import BATCH, MANY, TOPIC, Contender, Send
from mbframework.bench.kafka_round import arrived
from mbframework.bench.worker import MeasurementFailed
from mbframework.testing.kafka import KafkaBroker
from mbframework.testing.mqtt import MosquittoServer
from mbframework.testing.nats import NatsServer
from mbframework.testing.rabbitmq import RabbitServer
from mbframework.testing.redis import RedisServer

# -- Kafka -------------------------------------------------------------------------------------------------------------


def _kafka_bare(way: kafka_clients.Send) -> Send:
    def send(broker: KafkaBroker, place: str, values: Sequence[bytes]) -> float:
        broker.create_topic(place)
        return way(broker.bootstrap, place, kafka_clients.Load(list(values)), "")

    return send


def _kafka_place(scheme: str) -> Callable[[KafkaBroker, str], str]:
    def url(broker: KafkaBroker, place: str) -> str:
        broker.create_topic(place)
        return f"{scheme}://{broker.bootstrap}"

    return url


# -- Redis -------------------------------------------------------------------------------------------------------------


def _xadd(*, transaction: bool) -> Send:
    def send(server: RedisServer, place: str, values: Sequence[bytes]) -> float:
        import redis

        with closing(redis.Redis(port=server.port)) as client:
            client.ping()
            begun = time.perf_counter()
            for first in range(0, len(values), MANY):
                with client.pipeline(transaction=transaction) as pipeline:
                    for value in values[first : first + MANY]:
                        pipeline.xadd(place + TOPIC, {"value": value})
                    pipeline.execute()
            return time.perf_counter() - begun

    return send


def _xlen(server: RedisServer, place: str) -> int:
    import redis

    with closing(redis.Redis(port=server.port)) as client:
        return int(client.xlen(place + TOPIC))


# -- RabbitMQ ----------------------------------------------------------------------------------------------------------


def _confirmed(server: RabbitServer, place: str, values: Sequence[bytes]) -> float:
    """By pika's connection for many messages under way; its blocking one makes a round trip for each."""
    import pika

    parameters = pika.ConnectionParameters("127.0.0.1", server.port, credentials=pika.PlainCredentials("mb", "mb"))
    connection: Any = pika.SelectConnection(parameters, on_open_callback=lambda _: connection.ioloop.stop())
    loop = connection.ioloop
    loop.start()
    channel = connection.channel(on_open_callback=lambda _: loop.stop())
    loop.start()
    channel.queue_declare(place + TOPIC, durable=True, callback=lambda _: loop.stop())
    loop.start()
    published = 0

    def heard(frame: Any) -> None:
        if frame.method.delivery_tag == published:
            loop.stop()

    channel.confirm_delivery(heard, callback=lambda _: loop.stop())
    loop.start()
    begun = time.perf_counter()
    for first in range(0, len(values), MANY):
        for value in values[first : first + MANY]:
            channel.basic_publish("", place + TOPIC, value, pika.BasicProperties(delivery_mode=2), mandatory=True)
            published += 1
        loop.start()
    seconds = time.perf_counter() - begun
    connection.add_on_close_callback(lambda *_: loop.stop())
    connection.close()
    loop.start()
    return seconds


def _queued(server: RabbitServer, place: str) -> int:
    """How many there are; they are thrown away, so that the next measurement finds the broker's memory free."""
    import pika

    parameters = pika.ConnectionParameters("127.0.0.1", server.port, credentials=pika.PlainCredentials("mb", "mb"))
    with closing(pika.BlockingConnection(parameters)) as connection:
        return int(connection.channel().queue_delete(place + TOPIC).method.message_count)


# -- MQTT --------------------------------------------------------------------------------------------------------------


def _mqtt_client(server: MosquittoServer, name: str, *, clean: bool = False, **callbacks: Any) -> Any:
    """A connected client with a thread of its own."""
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

    version = CallbackAPIVersion.VERSION2
    client = Client(version, name, clean_session=clean, protocol=MQTTProtocolVersion.MQTTv311)
    welcome = threading.Event()
    client.on_connect = lambda *_: welcome.set()
    for when, callback in callbacks.items():
        setattr(client, when, callback)
    client.max_inflight_messages = MANY
    client.connect("127.0.0.1", server.port)
    client.loop_start()
    if not welcome.wait(10):
        raise MeasurementFailed("mqtt: the broker does not answer")
    return client


def _mqtt_part(client: Any) -> None:
    client.disconnect()
    client.loop_stop()


def _mqtt_place(server: MosquittoServer, place: str) -> str:
    """The provider's URL; a subscriber that is away gets what is published there."""
    subscribed = threading.Event()
    client = _mqtt_client(server, place, on_subscribe=lambda *_: subscribed.set())
    client.subscribe(f"{place}/#", 1)
    subscribed.wait(10)
    _mqtt_part(client)
    return f"{server.url}?prefix={place}/"


def _mqtt_publish(server: MosquittoServer, place: str, values: Sequence[bytes]) -> float:
    _mqtt_place(server, place)
    client = _mqtt_client(server, f"{place}-bare", clean=True)
    begun = time.perf_counter()
    # paho numbers messages up to 65,535: more must not be open at once.
    for first in range(0, len(values), BATCH):
        told = [client.publish(f"{place}/{TOPIC}", value, 1) for value in values[first : first + BATCH]]
        for one in told:
            one.wait_for_publish()
    seconds = time.perf_counter() - begun
    _mqtt_part(client)
    return seconds


def _mqtt_fetched(server: MosquittoServer, place: str) -> int:
    """How many wait for the subscriber; they are taken away."""
    count, end = 0, threading.Event()

    def arrived(_client: Any, _data: Any, message: Any) -> None:
        nonlocal count
        if message.topic.endswith("/end"):
            end.set()
        else:
            count += 1

    client = _mqtt_client(server, place, on_message=arrived)
    client.publish(f"{place}/end", b"", 1)
    end.wait(120)
    _mqtt_part(client)
    _mqtt_part(_mqtt_client(server, place, clean=True))
    return count


# -- NATS --------------------------------------------------------------------------------------------------------------


def _jetstream(server: NatsServer, place: str, work: Callable[[Any], Awaitable[float]]) -> float:
    """What the work gives, on a new stream for ``PLACE.>``."""
    import nats

    async def run() -> float:
        client = await nats.connect(server.url)
        try:
            context = client.jetstream(timeout=60)
            await context.add_stream(name=place, subjects=[f"{place}.>"])
            return await work(context)
        finally:
            await client.close()

    return asyncio.run(run())


def _publish_async(server: NatsServer, place: str, values: Sequence[bytes]) -> float:
    async def work(context: Any) -> float:
        begun = time.perf_counter()
        for value in values:
            await context.publish_async(f"{place}.{TOPIC}", value)
        await context.publish_async_completed()
        return time.perf_counter() - begun

    return _jetstream(server, place, work)


def _publish_gathered(server: NatsServer, place: str, values: Sequence[bytes]) -> float:
    async def work(context: Any) -> float:
        begun = time.perf_counter()
        for first in range(0, len(values), MANY):
            part = values[first : first + MANY]
            await asyncio.gather(*(context.publish(f"{place}.{TOPIC}", value) for value in part))
        return time.perf_counter() - begun

    return _jetstream(server, place, work)


def _stored(server: NatsServer, place: str) -> int:
    import nats

    async def ask() -> int:
        client = await nats.connect(server.url)
        try:
            return (await client.jetstream().stream_info(place)).state.messages
        finally:
            await client.close()

    return asyncio.run(ask())


CONTENDERS = (
    Contender(
        "kafka",
        lambda: KafkaBroker.available() or kafka_clients.missing_kafka_python() or None,
        KafkaBroker,
        _kafka_place("kafka"),
        arrived,
        {
            "KafkaProducer.send(), defaults": _kafka_bare(kafka_clients.kafka_send()),
            "KafkaProducer.send(), tuned": _kafka_bare(kafka_clients.kafka_send(**kafka_clients.TUNED_KAFKA)),
        },
        place_is_topic=True,
    ),
    Contender(
        "confluent",
        lambda: KafkaBroker.available() or kafka_clients.missing_confluent() or None,
        KafkaBroker,
        _kafka_place("confluent"),
        arrived,
        {
            "confluent produce_batch(), tuned": _kafka_bare(
                kafka_clients.confluent_batch(kafka_clients.TUNED_CONFLUENT)
            ),
        },
        place_is_topic=True,
    ),
    Contender(
        "redis",
        RedisServer.available,
        RedisServer,
        lambda server, place: f"{server.url}?prefix={place}",
        _xlen,
        {
            "redis-py, pipelines of 1,000": _xadd(transaction=False),
            "redis-py, pipelines of 1,000 in MULTI": _xadd(transaction=True),
        },
    ),
    Contender(
        "rabbitmq",
        RabbitServer.available,
        RabbitServer,
        lambda server, place: f"{server.url}?prefix={place}&declare=classic",
        _queued,
        {"pika, SelectConnection, 1,000 messages under way": _confirmed},
    ),
    Contender(
        "mqtt",
        MosquittoServer.available,
        MosquittoServer,
        _mqtt_place,
        _mqtt_fetched,
        {"paho-mqtt, QoS 1, 1,000 messages under way": _mqtt_publish},
        part=0.2,
    ),
    Contender(
        "nats",
        NatsServer.available,
        NatsServer,
        lambda server, place: f"{server.url}/{place}?prefix={place}.&create={place}.>",
        _stored,
        {
            "nats-py publish_async(), 4,000 under way": _publish_async,
            "nats-py publish(), 1,000 gathered": _publish_gathered,
        },
        part=0.5,
    ),
)
