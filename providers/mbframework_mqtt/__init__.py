"""MQTT 5 as a provider, by way of paho-mqtt: its options, and nothing that imports the client library.

``mqtt://user:password@host:1883?qos=1&prefix=site/7/``
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
class MqttOptions:
    """What ``mqtt:`` takes. Times are seconds, sizes bytes."""

    hosts: tuple[str, ...] = option(
        part="hosts", help="the brokers, with their ports (1883, or 8883 with tls, where none is given), tried in turn"
    )
    username: str | None = option(None, part="username", help="as whom to connect")
    password: str | None = option(None, part="password", help="of the user")
    prefix: str = option("", help="stands before each topic, as in site/7/")
    qos: Literal["1", "2"] = option("1", help="1: acknowledged; 2: the broker also drops copies that the network makes")
    retain: bool = option(False, help="the broker keeps the last message of each topic for new subscribers")
    subscribers: Literal["optional", "required"] = option(
        "optional", help="required: a message that nobody is subscribed to waits here, and is not thrown away there"
    )
    window: int = option(1000, help="messages under way at once, unless the broker allows fewer; 1: strict order")
    confirm: bool = option(
        False, help="ask once more behind the acknowledgements of a batch: for a broker that writes after each message"
    )
    client_id: str = option("", help="our name at the broker, one for each lane; none: made of the buffer and the lane")
    scheme: str = option("mqtt", part="scheme", help="mqtts: is mqtt: with tls")
    tls: bool = option(False, help="encrypt, and verify the broker's certificate and host name")
    tls_ca: str | None = option(None, help="file of the authorities to trust, PEM; none: the system's")
    tls_cert: str | None = option(None, help="file of our own certificate, PEM, for brokers that ask for one")
    tls_key: str | None = option(None, help="file of its private key, PEM; none: it is in tls_cert")
    tls_key_password: str | None = option(None, secret=True, help="of the private key")
    tls_verify: bool = option(True, help="false accepts any certificate: whoever is in between reads along")
    connect_timeout: float = option(5.0, unit="s", help="until the connection to one broker stands")
    timeout: float = option(20.0, unit="s", help="without any acknowledgement; then what is left counts as failed")
    keepalive: float = option(30.0, unit="s", help="a connection that is silent for so long is tested")

    def __post_init__(self) -> None:
        if self.password is not None and not self.username:
            raise ConfigurationError("a password needs a user name", option="username")
        if "#" in self.prefix or "+" in self.prefix:
            raise ConfigurationError("expected no wildcards (# and +): they are for subscribers", option="prefix")
        if self.scheme == "mqtts":
            object.__setattr__(self, "tls", True)
        check_tls(self)
        for name in ("connect_timeout", "timeout"):
            if getattr(self, name) <= 0:
                raise ConfigurationError("expected more than 0 seconds", option=name)
        if not 1 <= self.keepalive <= 65535:
            raise ConfigurationError("expected 1s to 65535s", option="keepalive")
        if not 1 <= self.window <= 65535:
            raise ConfigurationError("expected 1 to 65535", option="window")


def _factory(options: MqttOptions) -> Provider:
    from mbframework_mqtt.provider import MqttProvider

    return MqttProvider(options)


@hookimpl
def mbframework_provider() -> ProviderType:
    """The hook by which the engine finds this provider."""
    return ProviderType(
        api=1,
        name="mqtt",
        options=MqttOptions,
        factory=_factory,
        requires=("paho-mqtt>=2.1,<3",),
        extra="mqtt",
        summary="MQTT 5, by paho-mqtt; QoS 1 and 2",
    )
