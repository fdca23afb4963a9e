"""Redis Streams as a provider, by way of redis-py: its options, and nothing that imports the client library.

``redis://host:6379/0?prefix=app:``
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbframework.errors import ConfigurationError
from mbframework.plugins import ProviderType, hookimpl, option
from mbframework.plugins.tls import check_tls

if TYPE_CHECKING:
    from mbframework.provider import Provider


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisOptions:
    """What ``redis:`` takes. Times are seconds, sizes bytes."""

    hosts: tuple[str, ...] = option(
        (), part="hosts", help="the server, with its port (6379 where none is given); of several the first primary"
    )
    path: str = option("", part="path", help="with a host the database's number, as /2; without the unix socket's path")
    db: int | None = option(None, help="the database's number, where a unix socket is used (0)")
    username: str | None = option(None, part="username", help="of Redis' access control lists")
    password: str | None = option(None, part="password", help="of the user, or of the server (requirepass)")
    prefix: str = option("", help="stands before each topic to make the stream's name, and before our own keys")
    maxlen: int = option(0, help="streams keep about this many entries and drop the oldest; 0: all")
    maxlen_exact: bool = option(False, help="keep exactly maxlen entries, which is slower")
    replicas: int = option(0, help="replicas that must have a batch before it counts as delivered")
    scheme: str = option("redis", part="scheme", help="rediss: is redis: with tls")
    tls: bool = option(False, help="encrypt, and verify the server's certificate and host name")
    tls_ca: str | None = option(None, help="file of the authorities to trust, PEM; none: the system's")
    tls_cert: str | None = option(None, help="file of our own certificate, PEM, for servers that ask for one")
    tls_key: str | None = option(None, help="file of its private key, PEM; none: it is in tls_cert")
    tls_key_password: str | None = option(None, secret=True, help="of the private key")
    tls_verify: bool = option(True, help="false accepts any certificate: whoever is in between reads along")
    connect_timeout: float = option(3.0, unit="s", help="for the connection to one host")
    timeout: float = option(10.0, unit="s", help="for an answer; then the batch counts as failed, and is tried again")
    client_name: str = option("mbframework", help="our name in CLIENT LIST")

    def __post_init__(self) -> None:
        if self.hosts:
            number = self.path.removeprefix("/")
            if number and not (number.isascii() and number.isdigit()):
                raise ConfigurationError(
                    "expected the database's number after the host, as in redis://host:6379/2", option="path"
                )
            if number and self.db is not None:
                raise ConfigurationError("the database is given twice, also in the path", option="db")
        elif not self.path.startswith("/"):
            raise ConfigurationError(
                "expected a host, as in redis://host:6379, or a unix socket, as in redis:///run/redis.sock",
                option="hosts",
            )
        if self.db is not None and self.db < 0:
            raise ConfigurationError("expected 0 or more", option="db")
        if self.username and self.password is None:
            raise ConfigurationError("a user name needs a password", option="password")
        if self.scheme == "rediss":
            object.__setattr__(self, "tls", True)
        check_tls(self)
        if self.tls and not self.hosts:
            raise ConfigurationError("a unix socket has no TLS; leave tls out", option="tls")
        for name in ("maxlen", "replicas"):
            if getattr(self, name) < 0:
                raise ConfigurationError("expected 0 or more", option=name)
        for name in ("connect_timeout", "timeout"):
            if getattr(self, name) <= 0:
                raise ConfigurationError("expected more than 0 seconds", option=name)

    @property
    def database(self) -> int:
        """The number of the database."""
        return int(self.path.removeprefix("/") or 0) if self.hosts else self.db or 0


def _factory(options: RedisOptions) -> Provider:
    from mbframework_redis.provider import RedisProvider

    return RedisProvider(options)


@hookimpl
def mbframework_provider() -> ProviderType:
    """The hook by which the engine finds this provider."""
    return ProviderType(
        api=1,
        name="redis",
        options=RedisOptions,
        factory=_factory,
        requires=("redis>=5,<9",),
        extra="redis",
        summary="Redis Streams, by redis-py; exactly once",
    )
