"""Three real Kafka brokers for tests: a cluster that keeps every message three times.

Promises:

- Each node is a :class:`~mbframework.testing.kafka.KafkaBroker`, broker and controller in one process, on 127.0.0.1 and
  free ports; it can be killed, frozen, shut down and brought back by itself.
- Topics have a replica on every node, and ``acks=all`` needs two of them (``min.insync.replicas``). Nothing is led by a
  replica that lacks something. Topics come only by :meth:`~mbframework.testing.kafka_topics.Topics.create_topic`.
- When ``start()`` returns, all nodes take messages. When it ends, however that is, no JVM remains (as with one broker).

With two of three nodes gone the cluster elects no leader; what the third one leads waits for the others.

The methods may be called from any thread, one at a time; the nodes' own as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from mbframework.testing.kafka import KafkaBroker, new_cluster_id
from mbframework.testing.kafka_jars import BrokerError
from mbframework.testing.kafka_topics import Topics

_NODES = (1, 2, 3)


class KafkaCluster(Topics):
    """Three brokers. As a context manager they are started on entry and stopped on exit.

    :param listeners, properties, format_arguments: as for :class:`~mbframework.testing.kafka.KafkaBroker`, of each.
    :param heap: of each node, as ``-Xmx`` has it.
    """

    replicas = len(_NODES)

    def __init__(
        self,
        *,
        listeners: Sequence[str] = (),
        properties: Mapping[str, str] | None = None,
        format_arguments: Sequence[str] = (),
        heap: str = "256m",
    ) -> None:
        cluster_id = new_cluster_id()
        #: By their ids.
        self.nodes = {
            node: KafkaBroker(
                listeners=listeners,
                properties={"node.id": str(node), **_SHARED, **(properties or {})},
                format_arguments=format_arguments,
                cluster_id=cluster_id,
                heap=heap,
            )
            for node in _NODES
        }
        voters = ",".join(f"{node}@{broker.address('CONTROLLER')}" for node, broker in self.nodes.items())
        for broker in self.nodes.values():
            broker.properties["controller.quorum.voters"] = voters

    @property
    def bootstrap(self) -> str:
        """``host:port`` of all plain listeners, with commas."""
        return self.address("PLAINTEXT")

    def address(self, protocol: str) -> str:
        """``host:port`` of all listeners for a security protocol, with commas."""
        return ",".join(broker.address(protocol) for broker in self.nodes.values())

    def start(self, timeout: float = 120.0) -> Self:
        """Start all nodes and wait until they take messages, at most ``timeout`` seconds.

        :raises BrokerError: one does not come up; the last lines of its log are in the text.
        """
        if not all(broker.controllable for broker in self.nodes.values()):
            raise BrokerError("a cluster needs brokers of its own; unset MBFRAMEWORK_TEST_KAFKA")
        try:
            self.start_nodes(self.nodes, timeout)
        except BaseException:
            self.stop()
            raise
        return self

    def start_nodes(self, nodes: Iterable[int], timeout: float = 120.0) -> None:
        """Start these, side by side: a node alone waits for others before it takes messages."""
        self._each(nodes, lambda broker: broker.start(timeout))

    def kill(self, nodes: Iterable[int]) -> None:
        """Kill -9 these, one right after the other."""
        for node in nodes:
            self.nodes[node].kill()

    def ensure_running(self, timeout: float = 120.0) -> None:
        """Thaw or start whichever node does not run."""
        self._each(self.nodes, lambda broker: broker.ensure_running(timeout))

    def stop(self) -> None:
        """End all nodes and remove their data. May be called twice."""
        for broker in self.nodes.values():
            broker.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _each(self, nodes: Iterable[int], do: Callable[[KafkaBroker], object]) -> None:
        chosen = [self.nodes[node] for node in nodes]
        with ThreadPoolExecutor(len(_NODES), "kafka-cluster") as threads:
            for done in [threads.submit(do, broker) for broker in chosen]:
                done.result()


_SHARED = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "unclean.leader.election.enable": "false",
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    # Seconds rather than half a minute until a node that is gone is known to be gone.
    "replica.lag.time.max.ms": "3000",
    "controller.quorum.election.timeout.ms": "500",
    "controller.quorum.fetch.timeout.ms": "1000",
}
