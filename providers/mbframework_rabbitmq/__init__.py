"""RabbitMQ as a provider, by way of pika: its options, and nothing that imports the client library.

``rabbitmq://user:password@host:5672/vhost?exchange=events``
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mbframework.errors import ConfigurationError
from mbframework.plugins import ProviderType, hookimpl, option
from mbframework.plugins.tls import check_tls

if TYPE_CHECKING:
    from mbframework.provider import Provider


@dataclass(frozen=True, slots=True, kw_only=True)
class RabbitOptions:
    """What ``rabbitmq:`` takes. Times are seconds, sizes bytes."""

    hosts: tuple[str, ...] = option(
        part="hosts", help="the nodes, with their ports (5672, or 5671 with tls, where none is given), tried in turn"
    )
    path: str = option("", part="path", help="the virtual host, as /orders; none: the one that is called /")
    username: str | None = option(
        None, part="username", help="as whom to connect; none: as guest, from the same machine"
    )
    password: str | None = option(None, part="password", help="of the user")
    exchange: str = option("", help="where messages are published; none: the default exchange, whose queues are topics")
    prefix: str = option("", help="stands before each topic to make the routing key")
    declare: Literal["no", "classic", "quorum"] = option(
        "no", help="make the durable queue of a topic, of this type, where it is missing; only without exchange"
    )
    max_message_size: int = option(16 << 20, unit="bytes", help="larger messages are rejected; at most the broker's")
    scheme: str = option("rabbitmq", part="scheme", help="amqp: is rabbitmq:, and amqps: that with tls")
    tls: bool = option(False, help="encrypt, and verify the server's certificate and host name")
    tls_ca: str | None = option(None, help="file of the authorities to trust, PEM; none: the system's")
    tls_cert: str | None = option(None, help="file of our own certificate, PEM, for servers that ask for one")
    tls_key: str | None = option(None, help="file of its private key, PEM; none: it is in tls_cert")
    tls_key_password: str | None = option(None, secret=True, help="of the private key")
    tls_verify: bool = option(True, help="false accepts any certificate: whoever is in between reads along")
    connect_timeout: float = option(5.0, unit="s", help="until the connection to one node stands")
    timeout: float = option(30.0, unit="s", help="without any confirmation; then what is left counts as failed")
    heartbeat: float = option(30.0, unit="s", help="nodes are told as often that we are there; 0s: never")
    client_name: str = option("mbframework", help="the connection's name in the management's lists")

    def __post_init__(self) -> None:
        if self.exchange and self.declare != "no":
            raise ConfigurationError(
                "queues are declared for the default exchange only; leave exchange or declare out", option="declare"
            )
        if self.declare != "no" and {"\r", "\n"} & set(self.prefix):
            raise ConfigurationError(
                "no queue of RabbitMQ has a carriage return or a line feed in its name", option="prefix"
            )
        if (self.username is None) != (self.password is None):
            raise ConfigurationError("user name and password come together", option="password")
        if self.scheme == "amqps":
            object.__setattr__(self, "tls", True)
        check_tls(self)
        for name in ("connect_timeout", "timeout"):
            if getattr(self, name) <= 0:
                raise ConfigurationError("expected more than 0 seconds", option=name)
        if self.heartbeat < 0 or 0 < self.heartbeat < 1:
            raise ConfigurationError("expected 0s, or 1s and more", option="heartbeat")
        if self.max_message_size < 1:
            raise ConfigurationError("expected 1 or more bytes", option="max_message_size")
        for name in ("exchange", "prefix", "vhost", "username"):
            if len((getattr(self, name) or "").encode()) > 255:
                raise ConfigurationError(
                    "expected 255 bytes at most, as AMQP has it", option="path" if name == "vhost" else name
                )

    @property
    def vhost(self) -> str:
        """The name of the virtual host."""
        return self.path.removeprefix("/") or "/"


def _factory(options: RabbitOptions) -> Provider:
    from mbframework_rabbitmq.provider import RabbitProvider

    return RabbitProvider(options)


@hookimpl
def mbframework_provider() -> ProviderType:
    """The hook by which the engine finds this provider."""
    return ProviderType(
        api=1,
        name="rabbitmq",
        options=RabbitOptions,
        factory=_factory,
        requires=("pika>=1.3,<2",),
        extra="rabbitmq",
        summary="RabbitMQ, by pika; publisher confirms",
    )
