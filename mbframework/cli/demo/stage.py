"""The provider of the demo, which can be taken away and given back, and what arrived at it.

The demo's own thread calls all of it.
"""

from __future__ import annotations

import sqlite3
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from mbframework.errors import ConfigurationError
from mbframework.plugins.source import resolve_url
from mbframework.plugins.url import ProviderURL, decode_item, parse_url
from mbframework.testing.kafka import KafkaBroker
from mbframework.testing.kafka_jars import BrokerError


class Stage(ABC):
    """A provider under the demo's control; a context manager that frees what it took."""

    #: The URL that the writer gets, and for people the one without additions and secrets.
    provider: str
    display: str
    topic = "demo"
    partition: int | None = None
    #: The writer holds the plug: the outage is made inside of it, by ``fault:`` in front of the provider.
    plugged = False
    #: The provider promises that nothing arrives twice.
    once = False
    #: For people: what it is, what its outage is, and where messages are read back from.
    about: str
    outage: str
    place: str

    @abstractmethod
    def fail(self) -> None:
        """Begin the outage."""

    @abstractmethod
    def mend(self) -> None:
        """End it; does nothing where there is none."""

    @abstractmethod
    def arrived(self, buffer_id: str) -> list[str]:
        """The messages that arrived from that buffer, in their order."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.mend()


class Database(Stage):
    """A SQLite file, and a second program that locks it: to the writer's provider an outage like any other."""

    once = True
    outage = "Another program takes the database's write lock and keeps it: no insert succeeds any more."

    def __init__(self, url: ProviderURL) -> None:
        self.display = str(url)
        options = dict(decode_item(item, url.scheme, number) for number, item in enumerate(url.items, 1))
        if "busy_timeout" not in options:
            # With the default of 5 s the outage would begin with a pause.
            url = replace(url, items=(*url.items, "busy_timeout=200ms"))
        self.provider = url.render()
        self.place = f"the table {options.get('table', 'messages')} of {url.path}"
        self.about = f"the SQLite database {url.path}"
        self._path = url.path
        self._table = options.get("table", "messages")
        self._lock: sqlite3.Connection | None = None

    def fail(self) -> None:
        self._lock = sqlite3.connect(self._path, timeout=10, isolation_level=None)
        self._lock.execute("BEGIN EXCLUSIVE")

    def mend(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def arrived(self, buffer_id: str) -> list[str]:
        connection = sqlite3.connect(self._path, timeout=10)
        try:
            query = f'SELECT value FROM "{self._table}" WHERE buffer = ? ORDER BY id'  # noqa: S608 - a checked name
            return [bytes(value).decode() for (value,) in connection.execute(query, (buffer_id,))]
        finally:
            connection.close()


class Cluster(Stage):
    """A Kafka that belongs to somebody else: its outage is made by pulling the writer's plug."""

    plugged = True
    partition = 0
    outage = "The writer's connection to Kafka is cut: the fault provider in front of it lets nothing through."

    def __init__(self, url: ProviderURL) -> None:
        hosts = [host if host.rpartition(":")[2].isdigit() else f"{host}:9092" for host in url.hosts]
        options = dict(decode_item(item, url.scheme, number) for number, item in enumerate(url.items, 1))
        if url.username is not None or options.get("tls", "false").lower() not in ("false", "0", "no", "off"):
            raise ConfigurationError(
                "the demo reads back what arrived, and cannot do so with a password or TLS; give a plain listener",
                option="provider",
            )
        self.topic = f"mb-demo-{uuid.uuid4().hex[:12]}"
        self.about = f"the Kafka at {','.join(hosts)}"
        self.place = f"the topic {self.topic}"
        self.display = str(url)
        inner = url.render().replace("%", "%25").replace("&", "%26")
        self.provider = f"fault:?inner={inner}"
        self._kafka = KafkaBroker(running=",".join(hosts))

    def __enter__(self) -> Self:
        try:
            self._kafka.start(timeout=10)
            self._kafka.create_topic(self.topic)
        except RuntimeError as error:
            # Our BrokerError is one, and so are kafka-python's errors.
            raise ConfigurationError(f"{self.about} cannot be used: {error}", option="provider") from error
        return self

    def fail(self) -> None:
        """The writer does it."""

    def mend(self) -> None:
        """The writer does it."""

    def arrived(self, buffer_id: str) -> list[str]:
        return [(record.value or b"").decode() for record in self._kafka.read_all(self.topic)]


class Broker(Stage):
    """A Kafka of the demo's own, which is killed."""

    partition = 0
    outage = "The broker gets a kill -9."
    about = "a real Kafka, started for this"

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._kafka = KafkaBroker()
        self._down = False

    def __enter__(self) -> Self:
        if not self._kafka.controllable:
            raise ConfigurationError(
                "MBFRAMEWORK_TEST_KAFKA names a broker that is not the demo's to kill: unset it, or give --provider",
                option="kafka",
            )
        if reason := KafkaBroker.available():
            raise ConfigurationError(f"no Kafka can be started here: {reason}", option="kafka")
        self._say("Starting a Kafka; that takes some seconds.")
        try:
            self._kafka.start()
            self.topic = "mb-demo"
            self._kafka.create_topic(self.topic)
        except BaseException as error:
            self._kafka.stop()
            if isinstance(error, BrokerError):
                raise ConfigurationError(str(error), option="kafka") from error
            raise
        self.provider = self.display = f"kafka://{self._kafka.bootstrap}"
        self.place = f"the topic {self.topic}"
        return self

    def fail(self) -> None:
        self._kafka.kill()
        self._down = True

    def mend(self) -> None:
        if self._down:
            self._kafka.restart()
            self._down = False

    def arrived(self, buffer_id: str) -> list[str]:
        return [(record.value or b"").decode() for record in self._kafka.read_all(self.topic)]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kafka.stop()


def choose(url: str | None, folder: Path, say: Callable[[str], None]) -> Stage:
    """The stage for a provider's URL; None: a SQLite file in ``folder``; a Kafka without a host: one of our own.

    :raises ConfigurationError: a wrong URL, or a provider from which the demo cannot read back.
    :raises PluginError: the provider cannot be used; the text says what to install.
    """
    if url is None:
        return Database(parse_url(f"sqlite://{quote(str(folder))}/messages.db"))
    parsed = parse_url(url)
    if parsed.scheme == "kafka" and not parsed.hosts:
        resolve_url("kafka://127.0.0.1")
        return Broker(say)
    resolve_url(url)
    if parsed.scheme == "kafka":
        return Cluster(parsed)
    if parsed.scheme == "sqlite":
        return Database(parsed)
    raise ConfigurationError(
        f"the demo cannot read back from {parsed.scheme!r}, and so not check what arrived; expected sqlite:… or "
        "kafka://host:port",
        option="provider",
    )
