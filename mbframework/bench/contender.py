"""The ways to bring messages into each server that ``mb bench providers`` compares: the bare clients, used as their
documentation recommends for bulk, and how to start a server and to ask what has arrived.

Client libraries are imported by what uses them.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import tempfile
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from typing import Any

from mbframework.bench.worker import MeasurementFailed
from mbframework.testing.http import HttpServer
from mbframework.testing.mqtt import MosquittoServer
from mbframework.testing.nats import NatsServer
from mbframework.testing.postgres import PostgresServer
from mbframework.testing.rabbitmq import RabbitServer
from mbframework.testing.redis import RedisServer

_MANY = 1000
_BATCH = 10_000
TOPIC = "orders"

#: Sends all values to a new place at the server; how many seconds it took until they were acknowledged.
Send = Callable[[Any, str, Sequence[bytes]], float]


@dataclass(frozen=True)
class Contender:
    """A provider and the ways to use its client by itself, by what they are called. To add one, write a row in
    :data:`CONTENDERS`.

    ``obstacle``: None where the server can be had, else why not. ``server`` is entered once; what it gives is passed to
    the others, with the name of a new place there: a topic, a table. ``arrived``: how many messages it has.
    """

    name: str
    obstacle: Callable[[], str | None]
    server: Callable[[], AbstractContextManager[Any]]
    url: Callable[[Any, str], str]
    arrived: Callable[[Any, str], int]
    bare: dict[str, Send]
    #: Of the messages, for those that are slow.
    part: float = 1


# -- Redis -------------------------------------------------------------------------------------------------------------


def _xadd(*, transaction: bool) -> Send:
    def send(server: RedisServer, place: str, values: Sequence[bytes]) -> float:
        import redis

        with closing(redis.Redis(port=server.port)) as client:
            client.ping()
            begun = time.perf_counter()
            for first in range(0, len(values), _MANY):
                with client.pipeline(transaction=transaction) as pipeline:
                    for value in values[first : first + _MANY]:
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
    for first in range(0, len(values), _MANY):
        for value in values[first : first + _MANY]:
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
    client.max_inflight_messages = _MANY
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
    for first in range(0, len(values), _BATCH):
        told = [client.publish(f"{place}/{TOPIC}", value, 1) for value in values[first : first + _BATCH]]
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
        for first in range(0, len(values), _MANY):
            part = values[first : first + _MANY]
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


# -- PostgreSQL --------------------------------------------------------------------------------------------------------


def _table(server: PostgresServer, place: str) -> Any:
    """A connection, and a table as the provider makes it."""
    import psycopg
    from mbframework_postgres import schema

    connection = psycopg.connect(server.dsn)
    connection.execute(schema.CREATE[1].format(table=place))
    connection.commit()
    return connection


def _rows(values: Sequence[bytes]) -> list[tuple[object, ...]]:
    buffer, now = uuid.uuid4(), time.time_ns()
    return [
        (buffer, "main", number, TOPIC, None, value, None, None, None, now) for number, value in enumerate(values, 1)
    ]


def _copy(server: PostgresServer, place: str, values: Sequence[bytes]) -> float:
    from mbframework_postgres import schema

    rows = _rows(values)
    with closing(_table(server, place)) as connection:
        begun = time.perf_counter()
        for first in range(0, len(rows), _BATCH):
            with connection.cursor() as cursor, cursor.copy(schema.COPY.format(table=place)) as copy:
                copy.set_types(list(schema.COLUMNS.values()))
                for row in rows[first : first + _BATCH]:
                    copy.write_row(row)
            connection.commit()
        return time.perf_counter() - begun


def _executemany(server: PostgresServer, place: str, values: Sequence[bytes]) -> float:
    rows = _rows(values)
    with closing(_table(server, place)) as connection:
        columns = "buffer, lane, sequence, topic, key, value, headers, timestamp, partition, accepted"
        statement = f"INSERT INTO {place} ({columns}) VALUES ({', '.join(['%s'] * 10)})"
        begun = time.perf_counter()
        for first in range(0, len(rows), _BATCH):
            with connection.cursor() as cursor:
                cursor.executemany(statement, rows[first : first + _BATCH])
            connection.commit()
        return time.perf_counter() - begun


def _count(server: PostgresServer, place: str) -> int:
    import psycopg

    with psycopg.connect(server.dsn) as connection:
        row = connection.execute(f"SELECT count(*) FROM {place}").fetchone()
        assert row is not None
        return int(row[0])


# -- HTTP --------------------------------------------------------------------------------------------------------------


def _ndjson(server: HttpServer, place: str, values: Sequence[bytes]) -> float:
    import httpx

    with httpx.Client(timeout=30) as client:
        begun = time.perf_counter()
        for first in range(0, len(values), _MANY):
            lines = [json.dumps({"topic": TOPIC, "value": value.decode()}) for value in values[first : first + _MANY]]
            answer = client.post(
                f"http://127.0.0.1:{server.port}/{place}",
                content="\n".join(lines),
                headers={"Content-Type": "application/x-ndjson"},
            )
            answer.raise_for_status()
        return time.perf_counter() - begun


def _posted(server: HttpServer, place: str) -> int:
    """The lines that were posted; what was counted is thrown away."""
    found = sum(request.body.strip().count(b"\n") + 1 for request in server.stored() if request.target == f"/{place}")
    server.forget()
    return found


# -- SQLite ------------------------------------------------------------------------------------------------------------


def _sqlite_executemany(folder: str, place: str, values: Sequence[bytes]) -> float:
    from mbframework_sqlite import schema

    with closing(sqlite3.connect(f"{folder}/{place}", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = full")
        connection.executescript(schema.CREATE.format(table="messages"))
        insert = schema.INSERT.format(table="messages")
        rows = [("b", "main", n, TOPIC, None, value, None, 0, 0, 0) for n, value in enumerate(values, 1)]
        begun = time.perf_counter()
        for first in range(0, len(rows), _BATCH):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(insert, rows[first : first + _BATCH])
            connection.execute("COMMIT")
        return time.perf_counter() - begun


def _sqlite_count(folder: str, place: str) -> int:
    with closing(sqlite3.connect(f"{folder}/{place}")) as connection:
        return int(connection.execute("SELECT count(*) FROM messages").fetchone()[0])


CONTENDERS = (
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
    Contender(
        "postgres",
        PostgresServer.available,
        PostgresServer,
        lambda server, place: f"{server.url}?table={place}",
        _count,
        {
            "psycopg copy(), 10,000 rows a transaction": _copy,
            "psycopg executemany(), 10,000 rows a transaction": _executemany,
        },
    ),
    Contender(
        "http",
        HttpServer.available,
        HttpServer,
        lambda server, place: f"http://127.0.0.1:{server.port}/{place}?mb.body=ndjson",
        _posted,
        {"httpx, 1,000 lines of JSON a request": _ndjson},
    ),
    Contender(
        "sqlite",
        lambda: None,
        tempfile.TemporaryDirectory,
        lambda folder, place: f"sqlite://{folder}/{place}",
        _sqlite_count,
        {"sqlite3 executemany(), 10,000 rows a transaction": _sqlite_executemany},
    ),
)
