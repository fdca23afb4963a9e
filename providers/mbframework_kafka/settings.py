"""From our options to the arguments of ``kafka.KafkaProducer``: pure functions, but for reading certificates.

What is set here and may not be overridden is what the provider's promises rest on.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from kafka import KafkaProducer
from kafka.codec import has_lz4, has_snappy, has_zstd

from mbframework.errors import ConfigurationError, MissingRequirement
from mbframework.plugins.tls import tls_context
from mbframework_kafka import KafkaOptions

#: KafkaProducer blocks at most this long, in milliseconds, where it waits for metadata: we wait in a loop of our own.
MAX_BLOCK_MS = 500

_OURS = {
    "acks": "acks",
    "allow_auto_create_topics": "create_topics",
    "batch_size": "batch_size",
    "bootstrap_servers": "the hosts of the URL",
    "bootstrap_timeout_ms": "connect_timeout",
    "client_id": "client_id",
    "compression_type": "compression",
    "linger_ms": "linger",
    "max_request_size": "max_request_size",
    "request_timeout_ms": "request_timeout",
    "sasl_plain_password": "password",
    "sasl_plain_username": "username",
    "security_protocol": "tls and sasl",
    "ssl_cafile": "tls_ca",
    "ssl_certfile": "tls_cert",
    "ssl_check_hostname": "tls_verify",
    "ssl_context": "the tls options",
    "ssl_keyfile": "tls_key",
    "ssl_password": "tls_key_password",
}
_FIXED = frozenset(
    {
        "delivery_timeout_ms",
        "kafka_client",
        "key_serializer",
        "max_block_ms",
        "partitioner",
        "transaction_timeout_ms",
        "transactional_id",
        "value_serializer",
    }
)
_CODECS = {"snappy": has_snappy, "lz4": has_lz4, "zstd": has_zstd}
_PLAIN_KINDS = {int: "an integer", float: "a number", str: "text"}


def producer_settings(options: KafkaOptions) -> dict[str, Any]:
    """The keyword arguments of KafkaProducer.

    :raises ConfigurationError: a client option is unknown, wrong or not for users; a certificate cannot be read.
    :raises MissingRequirement: the library of the chosen compression is not installed.
    """
    if not _CODECS.get(options.compression, lambda: True)():
        command = "pip install 'mbframework[kafka]'"
        raise MissingRequirement(
            f"provider 'kafka' lacks the library for compression={options.compression}; run: {command}",
            plugin="kafka",
            command=command,
        )
    settings: dict[str, Any] = {
        "bootstrap_servers": list(options.hosts),
        "client_id": options.client_id,
        "acks": "all" if options.acks == "all" else int(options.acks),
        "enable_idempotence": options.acks == "all",
        "compression_type": None if options.compression == "none" else options.compression,
        "linger_ms": options.linger * 1000,
        "batch_size": options.record_batch,
        "max_request_size": options.max_request_size,
        "request_timeout_ms": round(options.request_timeout * 1000),
        "bootstrap_timeout_ms": round(options.connect_timeout * 1000),
        "allow_auto_create_topics": options.create_topics,
        # Defaults here are for people at a screen; a lane waits by itself, and wants to know soon.
        "reconnect_backoff_max_ms": 1000,
        "metrics_enabled": False,
        **_security(options),
        **{name: _client_option(name, value) for name, value in options.client.items()},
        # An idempotent producer whose batch expires is wedged for good: nothing expires, we give up by ourselves.
        "delivery_timeout_ms": 2_147_483_647,
        "max_block_ms": MAX_BLOCK_MS,
    }
    if options.delivery == "exactly-once":
        # That long kafka-python waits until the transaction before has come to its end, at the broker too.
        settings.setdefault("retry_backoff_ms", 20)
    if not settings["enable_idempotence"]:
        # Without sequence numbers a retry overtakes what was sent after it.
        settings.setdefault("max_in_flight_requests_per_connection", 1)
    return settings


def _security(options: KafkaOptions) -> dict[str, Any]:
    sasl = options.username is not None or "sasl_mechanism" in options.client
    transport = "SSL" if options.tls else "PLAINTEXT"
    settings: dict[str, Any] = {"security_protocol": f"SASL_{transport}" if sasl else transport}
    if options.username is not None:
        settings["sasl_mechanism"] = (options.sasl or "plain").upper()
        settings["sasl_plain_username"] = options.username
        settings["sasl_plain_password"] = options.password
    if options.tls:
        settings["ssl_context"] = tls_context(options, "kafka")
    return settings


def check_client(client: Mapping[str, object]) -> None:
    """:raises ConfigurationError: a client option is unknown, wrong or not for users."""
    for name, value in client.items():
        _client_option(name, value)


def _client_option(name: str, value: object) -> object:
    """A ``client.<name>``: text is converted to the type of the library's default, anything else passes."""
    defaults = KafkaProducer.DEFAULT_CONFIG
    option = f"client.{name}"
    if name in _OURS or name in _FIXED:
        instead = f"use {_OURS[name]}" if name in _OURS else "delivery and order rest on it, so it cannot be set"
        raise ConfigurationError(instead, option=option)
    if name not in defaults:
        near = difflib.get_close_matches(name, defaults, 1)
        hint = f"; did you mean {'client.' + near[0]!r}?" if near else ""
        raise ConfigurationError(f"KafkaProducer has no option {name!r}{hint}", option=option)
    if not isinstance(value, str):
        return value
    default = defaults[name]
    if isinstance(default, bool):
        if value.lower() not in ("true", "false"):
            raise ConfigurationError("expected true or false", option=option)
        return value.lower() == "true"
    # Where the library's default is None or infinite, a number is one and other text stays text.
    kinds: tuple[type, ...] = (int, str) if default is None else (int, float) if name == "retries" else (type(default),)
    for kind in kinds:
        if kind not in _PLAIN_KINDS:
            raise ConfigurationError(
                f"it is a {kind.__name__}, which a URL cannot hold; give the options as a mapping", option=option
            )
        try:
            return kind(value)
        except ValueError:
            continue
    raise ConfigurationError(f"expected {_PLAIN_KINDS[kinds[0]]}", option=option)
