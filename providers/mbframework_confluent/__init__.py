"""Apache Kafka as a provider, by way of confluent-kafka: its options, and nothing that imports the client library.

``confluent://host:9092,host:9092?compression=zstd``
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mbframework.errors import ConfigurationError
from mbframework.plugins import ProviderType, hookimpl, option
from mbframework.plugins.tls import check_tls

if TYPE_CHECKING:
    from mbframework.provider import Provider


#: Bytes. Half of what kafka-python gets: librdkafka has several under way, and the first of them leaves while the rest
#: of a batch is still being handed over. That is where the bare client is at its fastest as well (mb bench baselines).
_RECORD_BATCH = 262_144


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfluentOptions:
    """What ``confluent://`` takes: the options of ``kafka://``, where they mean the same. Times are seconds, sizes
    bytes."""

    hosts: tuple[str, ...] = option(
        part="hosts", help="some brokers of the cluster, with ports (9092 where none is given)"
    )
    username: str | None = option(None, part="username", help="for SASL")
    password: str | None = option(None, part="password", help="for SASL")
    sasl: Literal["plain", "scram-sha-256", "scram-sha-512"] | None = option(
        None, help="how to prove who we are; 'plain' where a user name is given; others: client.sasl.mechanism"
    )
    tls: bool = option(False, help="encrypt, and verify the broker's certificate and host name")
    tls_ca: str | None = option(None, help="file of the authorities to trust, PEM; none: the system's")
    tls_cert: str | None = option(None, help="file of our own certificate, PEM, for brokers that ask for one")
    tls_key: str | None = option(None, help="file of its private key, PEM; none: it is in tls_cert")
    tls_key_password: str | None = option(None, secret=True, help="of the private key")
    tls_verify: bool = option(True, help="false accepts any certificate: whoever is in between reads along")
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = option("none", help="of whole record batches")
    acks: Literal["all", "1", "0"] = option(
        "all", help="brokers that must have a message before it counts as delivered; '1' and '0' may lose some"
    )
    batch_size: int | None = option(
        None,
        unit="bytes",
        help="the largest record batch of a partition; none: 256 KiB, or max_request_size where that is less",
    )
    max_request_size: int = option(
        1_048_576, unit="bytes", help="the largest request, hence message; the brokers have a limit of their own"
    )
    connect_timeout: float = option(3.0, unit="s", help="for the first answer of a cluster, and for an unknown topic")
    request_timeout: float = option(10.0, unit="s", help="of one request, after which librdkafka asks again")
    send_timeout: float = option(
        30.0, unit="s", help="for all acknowledgements of a batch; then it counts as failed and may arrive twice"
    )
    create_topics: bool = option(True, help="let the cluster create unknown topics, where it is so configured")
    delivery: Literal["at-least-once", "exactly-once"] = option(
        "at-least-once",
        help="exactly-once: a transaction for each batch, in which the lane's position is stored as well",
    )
    transaction_prefix: str = option(
        "mbframework", help="with exactly-once: what the transactional id and the consumer group of a lane begin with"
    )
    position_topic: str = option(
        "mbframework-positions", help="with exactly-once: the topic to commit positions for; it holds no messages"
    )
    client_id: str = option("mbframework", help="our name in the brokers' logs and quotas")
    client: Mapping[str, object] = option(
        factory=dict, part="client", help="any other configuration property of librdkafka"
    )

    def __post_init__(self) -> None:
        if not self.hosts:
            raise ConfigurationError("expected at least one host, as in confluent://host:9092", option="hosts")
        if (self.username is None) != (self.password is None):
            missing = "username" if self.username is None else "password"
            raise ConfigurationError(f"SASL needs user name and password; give {missing} too", option=missing)
        if self.sasl and self.username is None:
            raise ConfigurationError(f"sasl={self.sasl} needs a user name and a password", option="username")
        check_tls(self)
        if self.delivery == "exactly-once" and self.acks != "all":
            raise ConfigurationError(
                f"acks={self.acks} may lose messages; delivery=exactly-once needs acks=all", option="acks"
            )
        for name in ("connect_timeout", "request_timeout", "send_timeout"):
            if getattr(self, name) <= 0:
                raise ConfigurationError("expected more than 0 seconds", option=name)
        if not 1_024 <= self.record_batch <= self.max_request_size:
            raise ConfigurationError(
                f"expected 1024 to max_request_size ({self.max_request_size}) bytes", option="batch_size"
            )
        if self.client:
            # Which properties there are, only librdkafka knows.
            from mbframework_confluent.settings import producer_settings

            producer_settings(self)

    @property
    def record_batch(self) -> int:
        """``batch_size``, given or not."""
        return min(_RECORD_BATCH, self.max_request_size) if self.batch_size is None else self.batch_size


def _factory(options: ConfluentOptions) -> Provider:
    if options.delivery == "exactly-once":
        from mbframework_confluent.exactly_once import ExactlyOnceProvider

        return ExactlyOnceProvider(options)
    from mbframework_confluent.provider import ConfluentProvider

    return ConfluentProvider(options)


@hookimpl
def mbframework_provider() -> ProviderType:
    """The hook by which the engine finds this provider."""
    return ProviderType(
        api=1,
        name="confluent",
        options=ConfluentOptions,
        factory=_factory,
        # Before 2.13 a producer cannot be closed.
        requires=("confluent-kafka>=2.13,<3",),
        extra="confluent",
        summary="Apache Kafka, by confluent-kafka (librdkafka); ordered by partition",
    )
