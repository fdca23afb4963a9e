"""A real, single-node Apache Kafka for tests, demos and benchmarks.

Promises:

- :class:`KafkaBroker` runs a KRaft broker (no ZooKeeper, no container) that listens on 127.0.0.1
  only, keeps its data in a temporary folder, and is ready for messages when ``start()`` returns.
- It can be killed (SIGKILL), restarted on the same port and data, frozen and thawed.
- No JVM outlives this process, however this process ends (Linux; elsewhere: however it ends but by SIGKILL).
- This module imports no client library; ``create_topic`` and ``read_all`` need the ``kafka`` extra.

Where the broker comes from, first match wins:

1. ``MBFRAMEWORK_TEST_KAFKA=host:port``: a running broker, which then can be neither killed nor frozen;
2. ``KAFKA_HOME``: an unpacked Apache Kafka, with a Java runtime;
3. Maven and a Java runtime: the jars are fetched once into ``~/.cache/mbframework`` (or
   ``XDG_CACHE_HOME``), behind a file lock and complete or not at all.

``python -m mbframework.testing.kafka`` runs a broker in the foreground, for demos; with
``--prepare`` it only fetches the jars. A broker's methods may be called from any thread, one at a time.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import NamedTuple, Self

from mbframework.testing.kafka_jars import BrokerError, jars, java, obstacle
from mbframework.testing.kafka_probe import answers, free_ports

#: The environment variable that names a running broker.
ENVIRONMENT = "MBFRAMEWORK_TEST_KAFKA"

# Asks Linux to kill the process when the thread that started it ends, then becomes the JVM. A launcher
# rather than preexec_fn, which is not safe in a process with threads.
_LAUNCHER = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the process that started this broker has ended")
os.execvp(sys.argv[2], sys.argv[2:])
"""

_JVM = ("-Xmx512m", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")


class Record(NamedTuple):
    """A record as read back; ``timestamp`` is milliseconds since 1970, UTC."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp: int


class KafkaBroker:
    """One broker. As a context manager it is started on entry and stopped on exit.

    :param listeners: further listeners beside the plain one, by their security protocol:
        ``SASL_PLAINTEXT``, ``SSL`` or ``SASL_SSL``. See :meth:`address`.
    :param properties: server properties that are added, or replace ours.
    :param format_arguments: added to the command that formats the storage, such as ``--add-scram``.
    :param data: a folder for data and log that is kept; None: a temporary one, removed by ``stop()``.
    :param port: of the plain listener; None: a free one.
    :param running: ``host:port`` of a broker that runs already, in place of the environment's.
    """

    def __init__(
        self,
        *,
        listeners: Sequence[str] = (),
        properties: Mapping[str, str] | None = None,
        format_arguments: Sequence[str] = (),
        data: Path | None = None,
        port: int | None = None,
        running: str | None = None,
    ) -> None:
        self._external = running or os.environ.get(ENVIRONMENT)
        self._listeners = listeners
        self._properties = properties or {}
        self._format_arguments = format_arguments
        self._keep_data = data is not None
        self._data = data
        self._port = port
        self._ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None
        # Starts the JVM and lives until stop(): the JVM is killed when the thread that started it ends.
        self._keeper: ThreadPoolExecutor | None = None

    @classmethod
    def available(cls) -> str | None:
        """None where a broker can be started here, else why not and the command that mends it."""
        if os.environ.get(ENVIRONMENT):
            return None
        return obstacle()

    @property
    def bootstrap(self) -> str:
        """``host:port`` of the plain listener; the same before and after a restart."""
        return self._external or self.address("PLAINTEXT")

    def address(self, protocol: str) -> str:
        """``host:port`` of the listener for a security protocol."""
        return f"127.0.0.1:{self._ports[protocol]}"

    @property
    def controllable(self) -> bool:
        """Whether the broker can be killed, restarted and frozen: it is ours."""
        return self._external is None

    @property
    def data(self) -> Path:
        """The folder of ``server.properties``, ``broker.log`` and the data; what is changed there acts on restart."""
        return self._folder

    @property
    def pid(self) -> int:
        """The process id of the running broker."""
        return self._running().pid

    def start(self, timeout: float = 60.0) -> Self:
        """Start the broker and wait until it takes messages, at most ``timeout`` seconds.

        :raises BrokerError: it does not come up; the last lines of its log are in the text.
        """
        if self._external:
            host, _, port = self._external.split(",")[0].rpartition(":")
            if not answers((host, int(port)), timeout):
                raise BrokerError(f"no Kafka answers at {self._external} (see {ENVIRONMENT}); start it")
            return self
        if self._process is not None:
            raise BrokerError("the broker is running already; stop() or kill() it first")
        if reason := self.available():
            raise BrokerError(reason)
        if self._keeper is None:
            self._keeper = ThreadPoolExecutor(1, "kafka-broker-keeper")
        deadline = time.monotonic() + timeout
        if not self._ports:
            self._format()
        command = [*self._jvm(), "kafka.Kafka", str(self._folder / "server.properties")]
        self._process = self._keeper.submit(self._launch, command).result()
        while not answers(("127.0.0.1", self._ports["PLAINTEXT"]), 1.0):
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = self._log_tail()
                self.stop()
                raise BrokerError(f"the broker did not come up within {timeout:g} s; its log ends:\n{tail}")
            time.sleep(0.05)  # a listening socket cannot be awaited
        return self

    def kill(self) -> None:
        """Kill -9: nothing is flushed, clients see their connections reset. The data stays."""
        process = self._running()
        process.send_signal(signal.SIGKILL)
        process.wait()
        self._process = None

    def restart(self, timeout: float = 60.0) -> None:
        """Start again on the same port and data, killing the broker first where it still runs."""
        if self._process is not None:
            self.kill()
        self.start(timeout)

    def ensure_running(self, timeout: float = 60.0) -> None:
        """Thaw the broker, or start it again where it was killed; does nothing to a running one."""
        if self._external:
            return
        if self._process is not None and self._process.poll() is None:
            self.thaw()
        else:
            self.restart(timeout)

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, the kernel still accepts new ones, nothing is answered."""
        process = self._running()
        process.send_signal(signal.SIGSTOP)
        # A thread that is at work stops a little later than the call returns.
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self) -> None:
        """SIGCONT: the end of :meth:`freeze`."""
        self._running().send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End the broker, and remove its data unless the caller named the folder. May be called twice."""
        if self._process is not None:
            if self._keep_data:
                self.thaw()
                self._process.terminate()
                try:
                    self._process.wait(15)
                except subprocess.TimeoutExpired:
                    self.kill()
                self._process = None
            else:
                self.kill()
        if self._keeper is not None:
            self._keeper.shutdown()
            self._keeper = None
        if self._data is not None and not self._keep_data:
            shutil.rmtree(self._data, ignore_errors=True)
            self._data = None
            self._ports = {}

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
        """Create a topic and wait until its partitions have leaders.

        :raises kafka.errors.KafkaError: it exists, or the broker refuses it.
        """
        from kafka.admin import KafkaAdminClient

        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            topic = {"num_partitions": partitions, "replication_factor": 1, "configs": dict(config or {})}
            admin.create_topics({name: topic})
            deadline = time.monotonic() + 10
            while True:
                found = [p for t in admin.describe_topics([name]) for p in t["partitions"]]
                if len(found) == partitions and all(p["leader_id"] >= 0 for p in found):
                    return
                if time.monotonic() > deadline:
                    raise BrokerError(f"topic {name!r} has no leaders 10 s after its creation: {found}")
                time.sleep(0.02)  # metadata has no event to await
        finally:
            admin.close()

    def read_all(self, topic: str, isolation: str = "read_uncommitted", timeout: float = 30.0) -> list[Record]:
        """Everything in ``topic`` from the beginning to the end offsets of now, by partition, then offset.

        :param isolation: ``read_uncommitted`` or ``read_committed``.
        :raises TimeoutError: the end was not reached within ``timeout`` seconds.
        """
        return sorted(self.read_iter(topic, isolation, timeout), key=lambda record: record[:2])

    def read_iter(self, topic: str, isolation: str = "read_uncommitted", timeout: float = 30.0) -> Iterator[Record]:
        """As :meth:`read_all`, but in the order of arrival here and without keeping what was read."""
        from kafka import KafkaConsumer, TopicPartition

        deadline = time.monotonic() + timeout
        consumer = KafkaConsumer(
            bootstrap_servers=self.bootstrap, group_id=None, isolation_level=isolation,
            enable_auto_commit=False, auto_offset_reset="earliest", metrics_enabled=False,
            fetch_max_bytes=16 << 20, max_partition_fetch_bytes=8 << 20, max_poll_records=10_000,
        )  # fmt: skip
        try:
            places = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic) or ())]
            ends = consumer.end_offsets(places)
            consumer.assign(places)
            consumer.seek_to_beginning(*places)
            behind = {place for place in places if consumer.position(place) < ends[place]}
            while behind:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"topic {topic!r} was not read to its end within {timeout:g} s: {behind}")
                for records in consumer.poll(timeout_ms=500).values():
                    for r in records:
                        if r.offset < ends[TopicPartition(topic, r.partition)]:
                            yield Record(r.partition, r.offset, r.key, r.value, tuple(r.headers), r.timestamp)
                behind = {place for place in behind if consumer.position(place) < ends[place]}
        finally:
            consumer.close()

    # -- the process ---------------------------------------------------------------------------

    @property
    def _folder(self) -> Path:
        if self._data is None:
            self._data = Path(tempfile.mkdtemp(prefix="mbframework-kafka-"))
        return self._data

    def _running(self) -> subprocess.Popen[bytes]:
        if self._external:
            raise BrokerError(f"the broker of {ENVIRONMENT} is not ours to kill or freeze; unset the variable")
        if self._process is None:
            raise BrokerError("the broker is not running; start() it first")
        return self._process

    def _jvm(self) -> list[str]:
        return [java(), *_JVM, "-cp", f"{jars()}/*"]

    def _launch(self, command: list[str]) -> subprocess.Popen[bytes]:
        with open(self._folder / "broker.log", "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder, start_new_session=True,
            )  # fmt: skip

    def _log_tail(self) -> str:
        return (self._folder / "broker.log").read_bytes()[-4000:].decode(errors="replace")

    def _format(self) -> None:
        protocols = ("PLAINTEXT", *self._listeners, "CONTROLLER")
        ports = dict(zip(protocols, free_ports(len(protocols)), strict=True))
        if self._port is not None:
            ports["PLAINTEXT"] = self._port
        client_side = [f"{name}://127.0.0.1:{port}" for name, port in ports.items() if name != "CONTROLLER"]
        properties = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{ports['CONTROLLER']}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listeners": ",".join([*client_side, f"CONTROLLER://127.0.0.1:{ports['CONTROLLER']}"]),
            "advertised.listeners": ",".join(client_side),
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,"
            + ",".join(f"{name}:{name}" for name in ports if name != "CONTROLLER"),
            "log.dirs": str(self._folder / "data"),
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
            **self._properties,
        }
        path = self._folder / "server.properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
        command = [*self._jvm(), "kafka.tools.StorageTool", "format", "--ignore-formatted"]
        command += ["-t", _cluster_id(self._folder / "data")]
        command += ["-c", str(path), *self._format_arguments]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        if done.returncode != 0:
            raise BrokerError(f"Kafka's storage was not formatted:\n{done.stdout[-4000:].decode(errors='replace')}")
        self._ports = ports


def _cluster_id(data: Path) -> str:
    """The id that the data was formatted with, else a new one."""
    with contextlib.suppress(FileNotFoundError):
        for line in (data / "meta.properties").read_text().splitlines():
            if line.startswith("cluster.id="):
                return line.removeprefix("cluster.id=")
    # Kafka takes an id that begins with "-" for an option.
    return "m" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]


def _wait_for_signal() -> None:
    """Return on SIGINT or SIGTERM; the handlers are put back."""
    arrived = Event()
    before = {number: signal.signal(number, lambda *_: arrived.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        arrived.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command ``python -m mbframework.testing.kafka``."""
    parser = argparse.ArgumentParser(prog="python -m mbframework.testing.kafka", description=main.__doc__)
    parser.add_argument("--prepare", action="store_true", help="fetch the jars, then end")
    parser.add_argument("--port", type=int, help="of the plain listener (default: a free one)")
    parser.add_argument("--data", type=Path, help="folder for data and log, kept (default: a temporary one)")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.prepare:
            print(jars())
            return 0
        if chosen.data is not None:
            chosen.data.mkdir(parents=True, exist_ok=True)
        with KafkaBroker(port=chosen.port, data=chosen.data and chosen.data.resolve()) as broker:
            print(f"kafka://{broker.bootstrap}", flush=True)
            _wait_for_signal()
    except BrokerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
