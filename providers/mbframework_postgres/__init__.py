"""PostgreSQL as a provider, by way of psycopg 3: its options, and nothing that imports the client library.

``postgres://user:secret@host:5432/database?table=outgoing``
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mbframework.errors import ConfigurationError
from mbframework.plugins import ProviderType, hookimpl, option
from mbframework.plugins.tls import check_tls
from mbframework_postgres.schema import check_table

if TYPE_CHECKING:
    from mbframework.provider import Provider


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresOptions:
    """What ``postgres:`` takes. Times are seconds."""

    hosts: tuple[str, ...] = option(
        (), part="hosts", help="the server, with its port (5432 where none is given); of several the first primary"
    )
    database: str = option("", part="path", help="the database; none: that of the user's name")
    socket: str | None = option(None, help="the folder of the server's unix socket, in place of a host")
    username: str | None = option(None, part="username", help="the role; none: the name of the system's user")
    password: str | None = option(None, part="password", help="of the role")
    table: str = option("messages", help="the table, also as schema.table; made where it does not exist")
    synchronous_commit: Literal["on", "remote_apply", "remote_write", "local"] = option(
        "on", help="what a commit waits for; 'off' is none of them, since it loses delivered messages"
    )
    tls: bool = option(False, help="encrypt, and verify the server's certificate and host name")
    tls_ca: str | None = option(None, help="file of the authorities to trust, PEM; none: the system's")
    tls_cert: str | None = option(None, help="file of our own certificate, PEM, for servers that ask for one")
    tls_key: str | None = option(None, help="file of its private key, PEM, which nobody else may read")
    tls_key_password: str | None = option(None, secret=True, help="of the private key")
    tls_verify: bool = option(True, help="false accepts any certificate: whoever is in between reads along")
    connect_timeout: float = option(3.0, unit="s", help="for the connection to one host")
    timeout: float = option(
        30.0, unit="s", help="for one statement; then the batch counts as failed, and is tried again"
    )
    lock_timeout: float = option(5.0, unit="s", help="how long to wait for another transaction's lock")
    client: Mapping[str, str] = option(factory=dict, part="client", help="any other parameter of a libpq connection")

    def __post_init__(self) -> None:
        check_table(self.table)
        if self.hosts and self.socket:
            raise ConfigurationError("expected a host or a socket, not both", option="socket")
        if not self.hosts and not self.socket:
            raise ConfigurationError(
                "expected a host, as in postgres://host:5432/database, or a folder,"
                " as in postgres:///database?socket=/run/postgresql",
                option="hosts",
            )
        if self.socket and not self.socket.startswith("/"):
            raise ConfigurationError("expected an absolute path to a folder", option="socket")
        if "/" in self.database.removeprefix("/"):
            raise ConfigurationError("expected a database's name after the host", option="database")
        check_tls(self)
        if (self.tls_cert is None) != (self.tls_key is None):
            missing = "tls_cert" if self.tls_cert is None else "tls_key"
            raise ConfigurationError(f"a certificate and its key belong together; give {missing} too", option=missing)
        for name in ("connect_timeout", "timeout", "lock_timeout"):
            if getattr(self, name) <= 0:
                raise ConfigurationError("expected more than 0 seconds", option=name)


def _factory(options: PostgresOptions) -> Provider:
    from mbframework_postgres.provider import PostgresProvider

    return PostgresProvider(options)


@hookimpl
def mbframework_provider() -> ProviderType:
    """The hook by which the engine finds this provider."""
    return ProviderType(
        api=1,
        name="postgres",
        options=PostgresOptions,
        factory=_factory,
        requires=("psycopg>=3.2,<4",),
        extra="postgres",
        summary="PostgreSQL, by psycopg's COPY; exactly once",
    )
