"""Three brokers that let nobody in without a password and TLS, and let nobody write what he was not granted.

Who comes to the plain listeners, as the tests do that judge, may do anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, urlencode

from mbframework.testing.kafka_cluster import KafkaCluster
from tests.providers.certificates import make_certificates

_MECHANISM = "scram-sha-256"
#: Milliseconds after which every client must show its password again.
_SESSION_MS = 8_000


class GuardedCluster(KafkaCluster):
    """See the module.

    :param folder: for certificates; exists.
    :param users: name → password. At first they may do nothing.
    """

    def __init__(self, folder: Path, users: Mapping[str, str]) -> None:
        #: Name → password.
        self.users = users
        made = make_certificates(folder)
        self._authority = made.authority
        keystore = folder / "keystore.pem"
        keystore.write_text(made.server_key.read_text() + made.server.read_text())
        listener = "listener.name.sasl_ssl"
        super().__init__(
            listeners=["SASL_SSL"],
            properties={
                "sasl.enabled.mechanisms": _MECHANISM.upper(),
                f"{listener}.{_MECHANISM}.sasl.jaas.config": "org.apache.kafka.common.security.scram."
                "ScramLoginModule required;",
                f"{listener}.{_MECHANISM}.connections.max.reauth.ms": str(_SESSION_MS),
                f"{listener}.ssl.keystore.type": "PEM",
                f"{listener}.ssl.keystore.location": str(keystore),
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",
            },
            format_arguments=_credentials(users),
        )

    def url(self, scheme: str, user: str, **options: object) -> str:
        """The provider URL of a user."""
        given = {"tls": "true", "tls_ca": self._authority, "sasl": _MECHANISM, "create_topics": "false", **options}
        password = quote(self.users[user], safe="")
        return f"{scheme}://{user}:{password}@{self.address('SASL_SSL')}?{urlencode(given)}"


def _credentials(users: Mapping[str, str]) -> Sequence[str]:
    arguments: list[str] = []
    for name, password in users.items():
        arguments += "--add-scram", f"{_MECHANISM.upper()}=[name={name},password={password}]"
    return arguments
