"""A real, single-node Apache Kafka for tests, demos and benchmarks.

Promises beside those of :mod:`mbframework.testing.server`:

- :class:`KafkaBroker` runs a KRaft broker (no ZooKeeper, no container), ready for messages when ``start()`` returns.
- This module imports no client library; ``create_topic`` and ``read_all`` need the ``kafka`` extra.

Where the broker comes from, first match wins:

1. ``MBFRAMEWORK_TEST_KAFKA=host:port``: a running broker, which then can be neither killed nor frozen;
2. ``KAFKA_HOME``: an unpacked Apache Kafka, with a Java runtime;
3. Maven and a Java runtime: the jars are fetched once into ``~/.cache/mbframework`` (or
   ``XDG_CACHE_HOME``), behind a file lock and complete or not at all.

``python -m mbframework.testing.kafka`` runs a broker in the foreground, for demos; with ``--prepare`` it only fetches
the jars, and keeps the classes that a broker loads where Java finds them faster. Three of them are
:mod:`mbframework.testing.kafka_cluster`.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from mbframework.testing.kafka_jars import BrokerError, class_archive, jars, java, obstacle
from mbframework.testing.kafka_probe import answers, free_ports
from mbframework.testing.kafka_topics import Record, Topics
from mbframework.testing.server import Server, run_in_foreground

__all__ = ["ENVIRONMENT", "BrokerError", "KafkaBroker", "Record"]

#: The environment variable that names a running broker.
ENVIRONMENT = "MBFRAMEWORK_TEST_KAFKA"
#: Where all listeners are.
HOST = "127.0.0.1"


class KafkaBroker(Server, Topics):
    """One broker. As a context manager it is started on entry and stopped on exit.

    :param listeners: further listeners beside the plain one, by their security protocol:
        ``SASL_PLAINTEXT``, ``SSL`` or ``SASL_SSL``. See :meth:`address`.
    :param properties: server properties that are added, or replace ours.
    :param format_arguments: added to the command that formats the storage, such as ``--add-scram``.
    :param data: a folder for data and log that is kept; None: a temporary one, removed by ``stop()``. What is changed
        there in ``server.properties`` acts on restart.
    :param port: of the plain listener; None: a free one.
    :param running: ``host:port`` of a broker that runs already, in place of the environment's.
    :param cluster_id: of storage that is not formatted yet; None: a new one.
    :param heap: the most that Java's heap may take, as ``-Xmx`` has it.
    """

    name = "the broker"

    def __init__(
        self,
        *,
        listeners: Sequence[str] = (),
        properties: Mapping[str, str] | None = None,
        format_arguments: Sequence[str] = (),
        data: Path | None = None,
        port: int | None = None,
        running: str | None = None,
        cluster_id: str | None = None,
        heap: str = "512m",
    ) -> None:
        super().__init__(data)
        self._external = running or os.environ.get(ENVIRONMENT)
        protocols = ("PLAINTEXT", *listeners, "CONTROLLER")
        self._ports = dict(zip(protocols, free_ports(len(protocols)), strict=True))
        if port is not None:
            self._ports["PLAINTEXT"] = port
        self.port = self._ports["PLAINTEXT"]
        #: What is added to our properties, or replaces them; read by the first start.
        self.properties = dict(properties or {})
        self._format_arguments = format_arguments
        self._cluster_id = cluster_id
        self._heap = heap

    @classmethod
    def available(cls) -> str | None:
        """None where a broker can be started here, else why not and the command that mends it."""
        if os.environ.get(ENVIRONMENT):
            return None
        return obstacle()

    @property
    def url(self) -> str:
        return f"kafka://{self.bootstrap}"

    @property
    def bootstrap(self) -> str:
        """``host:port`` of the plain listener; the same before and after a restart."""
        return self._external or self.address("PLAINTEXT")

    def address(self, protocol: str) -> str:
        """``host:port`` of the listener for a security protocol; ``CONTROLLER`` is the one for other brokers."""
        return f"{HOST}:{self._ports[protocol]}"

    @property
    def controllable(self) -> bool:
        """Whether the broker can be killed, restarted and frozen: it is ours."""
        return self._external is None

    def start(self, timeout: float = 60.0) -> Self:
        """Start the broker and wait until it takes messages, at most ``timeout`` seconds.

        :raises BrokerError: it does not come up; the last lines of its log are in the text.
        """
        if self._external is None:
            if self._process is None and self.answers():
                raise BrokerError(f"another broker answers at {self.bootstrap} already; end it, or choose another port")
            return super().start(timeout)
        host, _, port = self._external.split(",")[0].rpartition(":")
        if not answers((host, int(port)), timeout):
            raise BrokerError(f"no Kafka answers at {self._external} (see {ENVIRONMENT}); start it")
        return self

    def ensure_running(self, timeout: float = 60.0) -> None:
        """Thaw the broker, or start it again where it was killed; does nothing to a running one."""
        if self._external is None:
            super().ensure_running(timeout)

    # -- the process ---------------------------------------------------------------------------

    def command(self) -> Sequence[str]:
        return (*self._jvm(), "kafka.Kafka", str(self.data / "server.properties"))

    def answers(self) -> bool:
        return answers((HOST, self.port), 1.0)

    def prepare(self) -> None:
        """Write the properties and format the storage; where it is formatted already it stays as it is."""
        path = self.data / "server.properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in self._all_properties().items()))
        self.run(
            *(*self._jvm(), "kafka.tools.StorageTool", "format", "--ignore-formatted", "-c", str(path)),
            *("-t", _formatted_for(self.data / "data") or self._cluster_id or new_cluster_id()),
            *self._format_arguments,
        )

    def _running(self) -> subprocess.Popen[bytes]:
        if self._external:
            raise BrokerError(f"the broker of {ENVIRONMENT} is not ours to kill or freeze; unset the variable")
        return super()._running()

    def _jvm(self) -> list[str]:
        options = ("-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
        return [java(), f"-Xmx{self._heap}", *self._classes(), *options, "-cp", f"{jars()}/*"]

    def _classes(self) -> tuple[str, ...]:
        archive = class_archive()
        # Another Java than the one that made it goes on without it.
        return (f"-XX:SharedArchiveFile={archive}", "-Xshare:auto", "-Xlog:cds=off") if archive.exists() else ()

    def _all_properties(self) -> dict[str, str]:
        client_side = [f"{name}://{self.address(name)}" for name in self._ports if name != "CONTROLLER"]
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{self.address('CONTROLLER')}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listeners": ",".join([*client_side, f"CONTROLLER://{self.address('CONTROLLER')}"]),
            "advertised.listeners": ",".join(client_side),
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,"
            + ",".join(f"{name}:{name}" for name in self._ports if name != "CONTROLLER"),
            "log.dirs": str(self.data / "data"),
            "num.network.threads": "2",
            "num.io.threads": "2",
            # Messages may carry timestamps of long ago.
            "log.retention.hours": "-1",
            "offsets.topic.num.partitions": "1",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            # A killed broker is let in again after its session has ended: short, so that a restart takes seconds.
            "broker.session.timeout.ms": "1000",
            "broker.heartbeat.interval.ms": "250",
            **self.properties,
        }


def new_cluster_id() -> str:
    """For storage that is to be formatted."""
    # Kafka takes an id that begins with "-" for an option.
    return "m" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]


def _formatted_for(data: Path) -> str | None:
    """The id of the cluster that the data belongs to; None where there is none yet."""
    with contextlib.suppress(FileNotFoundError):
        for line in (data / "meta.properties").read_text().splitlines():
            if line.startswith("cluster.id="):
                return line.removeprefix("cluster.id=")
    return None


class _Remembered(KafkaBroker):
    """Writes the classes that it has loaded to a file when it is stopped."""

    def __init__(self, archive: Path) -> None:
        super().__init__()
        self._archive = archive

    def _classes(self) -> tuple[str, ...]:
        return (f"-XX:ArchiveClassesAtExit={self._archive}", "-Xlog:cds=off")


def remember_classes() -> None:
    """Make the archive of classes, unless it is there: one start of a broker, a few seconds.

    :raises BrokerError: the broker does not come up.
    """
    archive = class_archive()
    if archive.exists():
        return
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix="remembering-") as folder:
        made = Path(folder, archive.name)
        with _Remembered(made):
            pass
        # A Java before 13 makes none.
        if made.exists():
            made.replace(archive)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command ``python -m mbframework.testing.kafka``."""
    parser = argparse.ArgumentParser(prog="python -m mbframework.testing.kafka", description=main.__doc__)
    parser.add_argument("--prepare", action="store_true", help="fetch the jars, then end")
    parser.add_argument("--port", type=int, help="of the plain listener (default: a free one)")
    parser.add_argument("--data", type=Path, help="folder for data and log, kept (default: a temporary one)")
    chosen = parser.parse_args(arguments)
    if chosen.data is not None:
        chosen.data.mkdir(parents=True, exist_ok=True)
    try:
        if chosen.prepare:
            print(jars())
            if os.environ.get(ENVIRONMENT) is None:
                remember_classes()
            return 0
        broker = KafkaBroker(port=chosen.port, data=chosen.data and chosen.data.resolve())
    except BrokerError as error:
        print(error, file=sys.stderr)
        return 1
    return run_in_foreground(broker)


if __name__ == "__main__":
    sys.exit(main())
