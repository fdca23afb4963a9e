"""Queues of a RabbitMQ, made, filled up and read by a plain client."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pika
from mbframework_rabbitmq.message import Content, decode


@contextlib.contextmanager
def channel(port: int) -> Iterator[Any]:
    """A channel of the administrator's."""
    parameters = pika.ConnectionParameters("127.0.0.1", port, credentials=pika.PlainCredentials("mb", "mb"))
    with contextlib.closing(pika.BlockingConnection(parameters)) as connection:
        yield connection.channel()


def make_queue(port: int, name: str, **arguments: Any) -> None:
    """A durable queue; arguments are written ``max_length`` for ``x-max-length``."""
    with channel(port) as opened:
        opened.queue_declare(
            name, durable=True, arguments={f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
        )


def drain(port: int, *queues: str, timeout: float = 10.0) -> list[list[tuple[pika.BasicProperties, bytes]]]:
    """All that is in these queues at this moment, taken out, in order."""
    found: list[list[tuple[pika.BasicProperties, bytes]]] = [[] for _ in queues]
    with channel(port) as opened:
        for queue, into in zip(queues, found, strict=True):
            count = opened.queue_declare(queue, passive=True).method.message_count
            if not count:
                continue

            def take(
                _channel: Any, _method: Any, properties: pika.BasicProperties, body: bytes,
                into: list[tuple[pika.BasicProperties, bytes]] = into,
            ) -> None:  # fmt: skip
                into.append((properties, body))

            tag = opened.basic_consume(queue, take, auto_ack=True)
            deadline = time.monotonic() + timeout
            while len(into) < count and time.monotonic() < deadline:
                opened.connection.process_data_events(time_limit=1)
            opened.basic_cancel(tag)
    return found


def contents(port: int, *queues: str) -> list[list[Content]]:
    """The same, as messages."""
    return [[decode(properties, body) for properties, body in taken] for taken in drain(port, *queues)]


def numbers(port: int, queue: str) -> list[int]:
    """The numbers that are the values of :func:`tests.providers.batches.make_batch`."""
    [taken] = drain(port, queue)
    return [int(body.rstrip(b".")) for _, body in taken]
