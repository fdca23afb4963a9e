"""What ``mb bench providers`` compares: a provider, a server for it, and the ways to use its client by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

#: Messages of a call or a request, and of a transaction.
MANY, BATCH = 1000, 10_000
TOPIC = "orders"

#: Sends all values to a new place at the server; how many seconds it took until they were acknowledged.
Send = Callable[[Any, str, Sequence[bytes]], float]


@dataclass(frozen=True)
class Contender:
    """A provider and the ways to use its client by itself, by what they are called. To add one, write a row in
    :data:`mbframework.bench.contending_brokers.CONTENDERS` or :data:`mbframework.bench.contending_stores.CONTENDERS`.

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
    #: The place is the topic; else the topic is :data:`TOPIC`, and the place stands in the URL.
    place_is_topic: bool = False
