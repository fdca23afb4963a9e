"""NATS JetStream as a provider, by way of nats-py: its options, and nothing that imports the client library.

``nats://host:4222/STREAM?prefix=app.``
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
class NatsOptions:
    """What ``nats:`` takes. Times are seconds."""

    hosts: tuple[str, ...] = option(
        (),
        part="hosts",
        help="the servers, with their ports (4222 where none is given); the first that answers is used",
    )
    path: str = option("", part="path", help="the stream, as /ORDERS; all messages of the lane go there")
    username: str | None = option(None, part="username", help="of the user")
    password: str | None = option(None, part="password", help="of the user")
    token: str | None = option(None, secret=True, help="in place of a user")
    nkey: str | None = option(None, secret=True, help="the seed of the user's NKey (SU…), in place of a password")
    credentials: str | None = option(None, help="file of credentials (.creds): a JWT and the seed of its NKey")
    prefix: str = option("", help="stands before each topic to make the subject; mostly ends with a dot")
    create: tuple[str, ...] = option(
        (), help="make the stream where it is missing, with these subjects, as orders.>; none: that blocks the lane"
    )
    domain: str | None = option(None, help="the JetStream domain, where it is not that of the server")
    look_back: int = option(
        100_000, help="messages that others have written, among which our last one is looked for when connecting"
    )
    inbox_prefix: str = option("_INBOX", help="the first token of the subjects on which we receive answers")
    tls: bool = option(False, help="encrypt, and verify the server's certificate and host name")
    tls_first: bool = option(False, help="begin with TLS, for servers with handshake_first")
    tls_ca: str | None = option(None, help="file of the authorities to trust, PEM; none: the system's")
    tls_cert: str | None = option(None, help="file of our own certificate, PEM, for servers that ask for one")
    tls_key: str | None = option(None, help="file of its private key, PEM; none: it is in tls_cert")
    tls_key_password: str | None = option(None, secret=True, help="of the private key")
    tls_verify: bool = option(True, help="false accepts any certificate: whoever is in between reads along")
    connect_timeout: float = option(3.0, unit="s", help="for the connection to one host")
    timeout: float = option(10.0, unit="s", help="for an answer; then the batch counts as failed, and is tried again")
    client_name: str = option("mbframework", help="our name in the server's list of connections")

    def __post_init__(self) -> None:
        if not self.hosts:
            raise ConfigurationError("expected a host, as in nats://host:4222/STREAM", option="hosts")
        if not self.stream or set(self.stream) & set(" \t\r\n.*>/\\") or not self.stream.isprintable():
            raise ConfigurationError(
                "expected the stream's name after the host, as in nats://host:4222/ORDERS, with no space, dot, '*',"
                " '>' or slash",
                option="path",
            )
        if set(self.prefix) & set(" \t\r\n*>") or not (self.prefix.isascii() and self.prefix.isprintable()):
            raise ConfigurationError("expected printable ASCII with no space, '*' or '>'", option="prefix")
        if self.prefix.startswith((".", "$")) or ".." in self.prefix:
            raise ConfigurationError("expected tokens with dots between them, and no '$' in front", option="prefix")
        if (self.username is None) != (self.password is None):
            raise ConfigurationError(
                "a user needs a name and a password; a token is given as token=…", option="password"
            )
        ways = ("username", "token", "nkey", "credentials")
        if len(given := [name for name in ways if getattr(self, name) is not None]) > 1:
            raise ConfigurationError(f"only one of {' and '.join(given)} can be used", option=given[1])
        check_tls(self)
        if self.tls_first and not self.tls:
            raise ConfigurationError("tls_first is given, but tls is off; add tls=true", option="tls_first")
        if self.look_back < 0:
            raise ConfigurationError("expected 0 or more", option="look_back")
        for name in ("connect_timeout", "timeout"):
            if getattr(self, name) <= 0:
                raise ConfigurationError("expected more than 0 seconds", option=name)

    @property
    def stream(self) -> str:
        """The name of the stream."""
        return self.path.removeprefix("/")


def _factory(options: NatsOptions) -> Provider:
    from mbframework_nats.provider import NatsProvider

    return NatsProvider(options)


@hookimpl
def mbframework_provider() -> ProviderType:
    """The hook by which the engine finds this provider."""
    return ProviderType(
        api=1,
        name="nats",
        options=NatsOptions,
        factory=_factory,
        requires=("nats-py[nkeys]>=2.12,<3",),
        extra="nats",
        summary="NATS JetStream, by nats-py; exactly once",
    )
