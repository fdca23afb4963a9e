"""From the arguments of kafka-python's ``KafkaProducer`` to a buffer: pure.

Each argument of kafka-python 3.0 is translated to an option of our Kafka provider, passed on to the client library
underneath, without effect here (and then named in the log), or refused with what to do instead. Nothing is dropped in
silence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mbframework.config import OPTIONS
from mbframework.config_option import nearest
from mbframework.errors import ConfigurationError
from mbframework.units import parse_size

#: Bytes; kafka-python's own default.
_MAX_REQUEST_SIZE = 1_048_576
#: Without effect: the buffer does it, or the provider sets it as its promises need it.
_WITHOUT_EFFECT = {
    "batch_size": "the buffer makes its own batches (batch_messages, batch_bytes)",
    "bootstrap_timeout_ms": "the program does not wait for the brokers",
    "connections_max_idle_ms": "the provider keeps its connection",
    "delivery_timeout_ms": "a message waits for as long as the buffer has room; expire_after limits its age",
    "enable_idempotence": "it follows from acks",
    "max_in_flight_requests_per_connection": "the provider sets it so that order holds",
    "metadata_max_age_ms": "the provider looks for itself",
    "metric_reporters": "see docs/observability.md",
    "metrics_enabled": "see docs/observability.md",
    "metrics_num_samples": "see docs/observability.md",
    "metrics_sample_window_ms": "see docs/observability.md",
    "reconnect_backoff_max_ms": "the buffer's retry_wait_max decides",
    "reconnect_backoff_ms": "the buffer's retry_wait decides",
    "retries": "the buffer tries until the message is delivered",
    "retry_backoff_ms": "the buffer's retry_wait decides",
}
_REFUSED = {
    "kafka_client": "it cannot be replaced; leave it out",
    "partitioner": "the client decides by the key (murmur2, as Kafka's own clients do); or give send(partition=…)",
    "ssl_ciphers": "give a buffer with a provider of your own, or leave it out",
    "ssl_context": "give ssl_cafile, ssl_certfile and ssl_keyfile instead",
    "ssl_crlfile": "give a buffer with a provider of your own, or leave it out",
    "transaction_timeout_ms": "leave it out: provider_options={'delivery': 'exactly-once'} sets its own",
    "transactional_id": "each batch is a transaction with provider_options={'delivery': 'exactly-once'}",
}
#: Of kafka-python before 3.0, which has dropped them.
_FORMER = {
    "buffer_memory": "give total_size, the room that messages have on disk",
}
#: Passed on to kafka-python as it is.
_PASSED = frozenset(
    {
        "api_version", "client_dns_lookup", "proxy_url", "receive_buffer_bytes", "receive_message_max_bytes",
        "sasl_kerberos_domain_name", "sasl_kerberos_name", "sasl_kerberos_service_name", "sasl_oauth_token_provider",
        "selector", "send_buffer_bytes", "socket_options", "socks5_proxy",
    }
)  # fmt: skip
_PROTOCOLS = {"PLAINTEXT": False, "SASL_PLAINTEXT": False, "SSL": True, "SASL_SSL": True}
_SASL = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


@dataclass
class Settings:
    """What the arguments come to. ``url`` is None where there are none of Kafka's."""

    url: str | None = None
    provider_options: dict[str, Any] = field(default_factory=dict)
    buffer_options: dict[str, Any] = field(default_factory=dict)
    #: Bytes, where it is Kafka that the messages are for.
    max_request_size: int | None = None
    #: "name (why)" of each argument that has no effect.
    idle: list[str] = field(default_factory=list)


def settings_of(arguments: Mapping[str, Any]) -> Settings:
    """What ``KafkaProducer``'s arguments come to; those of a buffer's options are among them.

    :raises ConfigurationError: an argument is unknown, refused, or has a wrong value.
    """
    result = Settings()
    kafka: dict[str, Any] = {}
    for name, value in arguments.items():
        if name == "provider" and value is None:
            # As of a variable of the environment that is not set.
            continue
        if name in OPTIONS:
            result.buffer_options[name] = value
        elif name in KAFKA_ARGUMENTS:
            kafka[name] = value
        elif name in _FORMER:
            raise ConfigurationError(f"{name}: kafka-python 3.0 has no such argument; {_FORMER[name]}", option=name)
        else:
            hint = nearest(name, [*OPTIONS, *KAFKA_ARGUMENTS])
            raise ConfigurationError(f"KafkaProducer has no argument {name!r}{hint}", option=name)
    for name, value in kafka.items():
        if name in _REFUSED and value is not None:
            raise ConfigurationError(f"{name}: {_REFUSED[name]}", option=name)
        if name in _WITHOUT_EFFECT:
            result.idle.append(f"{name} ({_WITHOUT_EFFECT[name]})")
    if "max_block_ms" in kafka:
        result.buffer_options.setdefault("block_timeout", _seconds("max_block_ms", kafka["max_block_ms"]))
    if "provider" in result.buffer_options:
        meant = sorted(kafka.keys() - _WITHOUT_EFFECT.keys() - {"max_block_ms"})
        if meant:
            raise ConfigurationError(
                f"{', '.join(meant)}: of no use beside provider=…, which says where to send; give either",
                option=meant[0],
            )
        return result
    options = _translated(kafka)
    client = {name: value for name, value in kafka.items() if name in _PASSED}
    own = _mapping("provider_options", result.buffer_options.pop("provider_options", None) or {})
    client = {**options.pop("client", {}), **client, **_mapping("provider_options: client", own.pop("client", {}))}
    result.provider_options = options | own | ({"client": client} if client else {})
    result.url = f"kafka://{','.join(_hosts(kafka.get('bootstrap_servers', 'localhost')))}"
    try:
        largest = result.provider_options.get("max_request_size", _MAX_REQUEST_SIZE)
        result.max_request_size = parse_size(largest, name="max_request_size")
    except ConfigurationError as error:
        given = "provider_options" if "max_request_size" in own else "max_request_size"
        raise ConfigurationError(str(error), option=given) from None
    return result


def _mapping(name: str, value: object) -> dict[str, Any]:
    """A copy of it."""
    if not isinstance(value, Mapping):
        raise ConfigurationError(
            f"{name}: {type(value).__name__}; expected a mapping of names to values", option="provider_options"
        )
    return dict(value)


def _translated(kafka: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the Kafka provider."""
    options: dict[str, Any] = {}
    for name, (option, translate) in _TRANSLATED.items():
        if kafka.get(name) is not None:
            options[option] = translate(name, kafka[name])
    protocol = kafka.get("security_protocol", "PLAINTEXT")
    if not isinstance(protocol, str) or protocol not in _PROTOCOLS:
        raise ConfigurationError(
            f"security_protocol: {protocol!r:.40}; expected one of {', '.join(_PROTOCOLS)}", option="security_protocol"
        )
    if _PROTOCOLS[protocol]:
        options["tls"] = True
    else:
        # kafka-python does not look at them either.
        for option in ("tls_ca", "tls_cert", "tls_key", "tls_key_password"):
            options.pop(option, None)
    if kafka.get("ssl_check_hostname", True) is not True:
        raise ConfigurationError(
            "ssl_check_hostname: only the whole check can be turned off: provider_options={'tls_verify': False}",
            option="ssl_check_hostname",
        )
    if protocol.startswith("SASL_"):
        mechanism = kafka.get("sasl_mechanism") or "PLAIN"
        if mechanism in _SASL:
            options["sasl"] = mechanism.lower()
        else:
            options["client"] = {"sasl_mechanism": mechanism}
    else:
        options.pop("username", None)
        options.pop("password", None)
    return options


def _hosts(servers: object) -> list[str]:
    """The brokers, as a URL has them."""
    hosts = servers.split(",") if isinstance(servers, str) else servers
    if not isinstance(hosts, list | tuple | set) or not hosts or not all(isinstance(host, str) for host in hosts):
        raise ConfigurationError(
            f"bootstrap_servers: {servers!r:.100}; expected 'host:port', or a list of such", option="bootstrap_servers"
        )
    return [host.strip().rpartition("://")[2] for host in hosts]


def _seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ConfigurationError(f"{name}: {value!r:.40}; expected a number of milliseconds", option=name)
    return value / 1000


def _acks(name: str, value: object) -> str:
    text = "all" if value in (-1, "-1") else str(value)
    if text not in ("all", "1", "0"):
        raise ConfigurationError(f"{name}: {value!r:.40}; expected 'all', 1 or 0", option=name)
    return text


def _same(name: str, value: object) -> object:
    del name
    return value


#: Of kafka-python → the provider's option, and how the value is translated.
_TRANSLATED: dict[str, tuple[str, Callable[[str, Any], Any]]] = {
    "acks": ("acks", _acks),
    "allow_auto_create_topics": ("create_topics", _same),
    "client_id": ("client_id", _same),
    "compression_type": ("compression", _same),
    "linger_ms": ("linger", _seconds),
    "max_request_size": ("max_request_size", _same),
    "request_timeout_ms": ("request_timeout", _seconds),
    "sasl_plain_password": ("password", _same),
    "sasl_plain_username": ("username", _same),
    "ssl_cafile": ("tls_ca", _same),
    "ssl_certfile": ("tls_cert", _same),
    "ssl_keyfile": ("tls_key", _same),
    "ssl_password": ("tls_key_password", _same),
}
#: Every argument of kafka-python's KafkaProducer but the serializers.
KAFKA_ARGUMENTS = frozenset(
    {
        *_TRANSLATED, *_PASSED, *_WITHOUT_EFFECT, *_REFUSED,
        "bootstrap_servers", "max_block_ms", "sasl_mechanism", "security_protocol", "ssl_check_hostname",
    }
)  # fmt: skip
