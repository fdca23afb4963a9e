"""What a person does to a Kafka: topics, partitions, rights, quotas.

Needs the ``kafka`` extra, which is imported only when something is asked for. Every method waits until what it did is
to be seen by the broker that answers; other brokers of a cluster may hear of it a moment later.

Errors of the cluster are kafka-python's, :class:`kafka.errors.KafkaError`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

#: Seconds for anything that the cluster does at its own pace.
_PATIENCE_S = 30.0
_LOOK_S = 0.05


class Partition(NamedTuple):
    """Of a topic: the node that leads it, -1 for none, and those that are in sync."""

    leader: int
    in_sync: tuple[int, ...]


class KafkaAdmin:
    """A connection to do it with, without a password; a context manager.

    For one occasion: kafka-python remembers which node it takes for the controller, and does not see that it went.

    :param bootstrap: ``host:port``, several with commas.
    """

    def __init__(self, bootstrap: str) -> None:
        from kafka.admin import KafkaAdminClient

        self._client: Any = KafkaAdminClient(bootstrap_servers=bootstrap.split(","), reconnect_backoff_max_ms=500)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    # -- topics --------------------------------------------------------------------------------

    def create_topic(
        self, name: str, partitions: int = 1, replicas: int = 1, config: Mapping[str, str] | None = None
    ) -> None:
        """Create a topic and wait until each of its partitions has a leader and ``replicas`` in sync."""
        topic = {"num_partitions": partitions, "replication_factor": replicas, "configs": dict(config or {})}
        self._wait(lambda: self._made(name, topic), f"no brokers are free for topic {name!r}")
        self.wait_in_sync(name, replicas, partitions)

    def _made(self, name: str, topic: Mapping[str, Any]) -> bool:
        from kafka.errors import InvalidReplicationFactorError

        try:
            self._client.create_topics({name: topic})
        except InvalidReplicationFactorError:
            # A broker whose heartbeat was late, on a machine with much to do, is fenced until the next one.
            return False
        return True

    def delete_topic(self, name: str) -> None:
        """Delete a topic and wait until it is gone."""
        self._client.delete_topics([name])
        self._wait(lambda: not self.partitions(name), f"topic {name!r} is still there")

    def grow(self, name: str, partitions: int, replicas: int = 1) -> None:
        """Increase a topic to this many ``partitions``, and wait as :meth:`create_topic` does."""
        self._client.create_partitions({name: partitions})
        self.wait_in_sync(name, replicas, partitions)

    def set_topic(self, name: str, config: Mapping[str, str]) -> None:
        """Change settings of a topic."""
        from kafka.admin import ConfigResource, ConfigResourceType

        self._client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, dict(config))])

    def partitions(self, name: str) -> list[Partition]:
        """The partitions of a topic, by their numbers; none where it is not there. Asks again where a node is down."""
        from kafka.errors import KafkaError

        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                topics = self._client.describe_topics([name])
            except KafkaError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_LOOK_S)  # a node that answers cannot be awaited
                continue
            found = [(p["partition_index"], p["leader_id"], p["isr_nodes"]) for t in topics for p in t["partitions"]]
            return [Partition(leader, tuple(in_sync)) for _, leader, in_sync in sorted(found)]

    def wait_in_sync(self, name: str, replicas: int, partitions: int | None = None) -> None:
        """Wait until each partition of a topic, and there are ``partitions``, has a leader and ``replicas`` in sync.

        :raises TimeoutError: it is not so after some time.
        """

        def reached() -> bool:
            found = self.partitions(name)
            whole = bool(found) if partitions is None else len(found) == partitions
            return whole and all(p.leader >= 0 and len(p.in_sync) >= replicas for p in found)

        self._wait(reached, f"topic {name!r} has not {replicas} replicas in sync everywhere")

    # -- who may do what -----------------------------------------------------------------------

    def allow(self, user: str, topic: str, operation: str = "WRITE") -> None:
        """Grant a user an operation, as Kafka's tools name it, on a topic."""
        from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType

        rule = ACL(
            principal=f"User:{user}",
            host="*",
            operation=ACLOperation[operation],
            permission_type=ACLPermissionType.ALLOW,
            resource_pattern=ResourcePattern(ResourceType.TOPIC, topic),
        )
        self._client.create_acls([rule])

    def revoke(self, user: str, topic: str, operation: str = "ANY") -> None:
        """Take away an operation that a user was granted on a topic, or all of them."""
        from kafka.admin import (
            ACLFilter,
            ACLOperation,
            ACLPermissionType,
            ACLResourcePatternType,
            ResourcePatternFilter,
            ResourceType,
        )

        pattern = ResourcePatternFilter(ResourceType.TOPIC, topic, ACLResourcePatternType.LITERAL)
        rules = ACLFilter(f"User:{user}", "*", ACLOperation[operation], ACLPermissionType.ANY, pattern)
        [(_, taken, _)] = self._client.delete_acls([rules])
        if not taken:
            raise RuntimeError(
                f"{user!r} had no rights on topic {topic!r} that could be taken away; allow() them first"
            )

    def set_password(self, user: str, password: str, mechanism: str = "SCRAM-SHA-256") -> None:
        """Give a user this password, from now on. What is connected stays so until it must authenticate again."""
        from kafka.admin import UserScramCredentialUpsertion

        changed = UserScramCredentialUpsertion(user, mechanism, password)
        refused = self._client.alter_user_scram_credentials([changed])
        if any(refused.values()):
            raise RuntimeError(f"the password was not set: {refused}")

    def limit(self, user: str, bytes_per_second: int | None) -> None:
        """What each broker lets a user write; None: no limit."""
        from kafka.protocol.admin import AlterClientQuotasRequest

        entry = AlterClientQuotasRequest.EntryData
        asked = AlterClientQuotasRequest(
            entries=[
                entry(
                    entity=[entry.EntityData(entity_type="user", entity_name=user)],
                    ops=[
                        entry.OpData(
                            key="producer_byte_rate",
                            value=float(bytes_per_second or 0),
                            remove=bytes_per_second is None,
                        )
                    ],
                )
            ],
            validate_only=False,
        )
        # kafka-python has the request, and no method for it.
        manager = self._client._manager  # noqa: SLF001
        for answer in manager.run(manager.send, asked).entries:
            if answer.error_code:
                raise RuntimeError(f"the quota of {user!r} was not set: {answer.error_message}")

    def _wait(self, reached: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not reached():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{otherwise} after {_PATIENCE_S:g} s")
            time.sleep(_LOOK_S)  # metadata has no event to await
