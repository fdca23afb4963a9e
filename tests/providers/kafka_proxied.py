"""A broker with three doors: a plain one, one behind a proxy, and one that asks for a password and knows no rights.

Who comes without a password may do anything; ``USER`` may do what he was granted, which at first is nothing.
"""

from __future__ import annotations

from typing import Any

import pytest

from mbframework.testing.kafka import KafkaBroker
from mbframework.testing.kafka_probe import free_ports
from tests.providers.kafka_proxy import ProduceProxy

USER, PASSWORD = "carol", "pass-word"
_HOST = "127.0.0.1"


class ProxiedBroker(KafkaBroker):
    """Started, it is reached at ``bootstrap``, at ``proxied`` and at ``guarded``, all of them ``host:port``."""

    def __init__(self, proxy: ProduceProxy) -> None:
        plain, behind, guarded, controller = free_ports(4)
        doors = {"PLAINTEXT": plain, "PROXIED": behind, "SASL_PLAINTEXT": guarded}
        listeners = [f"{name}://{_HOST}:{port}" for name, port in doors.items()]
        super().__init__(
            port=plain,
            properties={
                "controller.quorum.voters": f"1@{_HOST}:{controller}",
                "listeners": ",".join([*listeners, f"CONTROLLER://{_HOST}:{controller}"]),
                "advertised.listeners": ",".join(
                    f"{name}://{_HOST}:{proxy.port if name == 'PROXIED' else port}" for name, port in doors.items()
                ),
                "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,"
                "SASL_PLAINTEXT:SASL_PLAINTEXT",
                "sasl.enabled.mechanisms": "PLAIN",
                "listener.name.sasl_plaintext.plain.sasl.jaas.config": "org.apache.kafka.common.security.plain."
                f'PlainLoginModule required user_{USER}="{PASSWORD}";',
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",
            },
        )
        self.proxied = f"{_HOST}:{proxy.port}"
        self.guarded = f"{_HOST}:{guarded}"
        self._behind = (_HOST, behind)
        self._proxy = proxy

    def start(self, timeout: float = 60.0) -> ProxiedBroker:
        """See :class:`KafkaBroker`; the proxy leads here."""
        if not self.controllable:
            pytest.skip("this test needs a broker of its own; unset MBFRAMEWORK_TEST_KAFKA")
        super().start(timeout)
        self._proxy.start(self._behind)
        return self

    def grant(self, *rights: tuple[str, str, str]) -> None:
        """Grant ``USER`` these: kind of resource, how its name begins, operation, as Kafka's tools name them."""
        from kafka.admin import (
            ACL,
            ACLOperation,
            ACLPermissionType,
            ACLResourcePatternType,
            KafkaAdminClient,
            ResourcePattern,
            ResourceType,
        )

        def rule(kind: str, name: str, operation: str) -> Any:
            pattern = ResourcePattern(ResourceType[kind], name, ACLResourcePatternType.PREFIXED)
            return ACL(f"User:{USER}", "*", ACLOperation[operation], ACLPermissionType.ALLOW, pattern)

        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            admin.create_acls([rule(*right) for right in rights])
        finally:
            admin.close()
