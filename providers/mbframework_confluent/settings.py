"""From our options to the configuration of librdkafka: pure functions, but for a look at certificate files.

What is set here and may not be overridden is what the provider's promises rest on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaException, Producer

from mbframework.errors import ConfigurationError
from mbframework_confluent import ConfluentOptions

#: Milliseconds that a record batch may wait for more. Never felt: each send() ends with a flush, which waits for none.
_LINGER_MS = 20

_OURS = {
    "acks": "acks",
    "allow.auto.create.topics": "create_topics",
    "batch.size": "batch_size",
    "bootstrap.servers": "the hosts of the URL",
    "client.id": "client_id",
    "compression.codec": "compression",
    "compression.type": "compression",
    "enable.ssl.certificate.verification": "tls_verify",
    "message.max.bytes": "max_request_size",
    "metadata.broker.list": "the hosts of the URL",
    "request.required.acks": "acks",
    "request.timeout.ms": "request_timeout",
    "sasl.password": "password",
    "sasl.username": "username",
    "security.protocol": "tls and sasl",
    "socket.connection.setup.timeout.ms": "connect_timeout",
    "socket.timeout.ms": "request_timeout",
    "ssl.ca.location": "tls_ca",
    "ssl.certificate.location": "tls_cert",
    "ssl.endpoint.identification.algorithm": "tls_verify",
    "ssl.key.location": "tls_key",
    "ssl.key.password": "tls_key_password",
}
_FIXED = frozenset(
    {
        "batch.num.messages",
        "delivery.report.only.error",
        "delivery.timeout.ms",
        "enable.gapless.guarantee",
        "error_cb",
        "linger.ms",
        "log.queue",
        "logger",
        "message.timeout.ms",
        "on_delivery",
        "partitioner",
        "queue.buffering.max.kbytes",
        "queue.buffering.max.messages",
        "queue.buffering.max.ms",
        "transaction.timeout.ms",
        "transactional.id",
    }
)


def producer_settings(options: ConfluentOptions) -> dict[str, Any]:
    """The configuration of a Producer, without what it calls back.

    :raises ConfigurationError: a client option is unknown, wrong or not for users; a certificate cannot be read.
    """
    request_ms = round(options.request_timeout * 1000)
    settings: dict[str, Any] = {
        "bootstrap.servers": ",".join(options.hosts),
        "client.id": options.client_id,
        "acks": options.acks,
        "enable.idempotence": options.acks == "all",
        "compression.type": options.compression,
        "batch.size": options.record_batch,
        # How our limit counts is not how librdkafka counts.
        "message.max.bytes": options.max_request_size + 1024,
        "request.timeout.ms": request_ms,
        "socket.timeout.ms": min(request_ms, 300_000),
        "socket.connection.setup.timeout.ms": max(round(options.connect_timeout * 1000), 1000),
        "allow.auto.create.topics": options.create_topics,
        # Defaults here are for many clients of one cluster; a lane waits by itself, and wants to know soon.
        "reconnect.backoff.max.ms": 1000,
        **_security(options),
        **{name: _client_option(name, value) for name, value in options.client.items()},
        # Nothing expires by itself, and nothing is refused for want of room: send() bounds both.
        "message.timeout.ms": 0,
        "queue.buffering.max.messages": 0,
        "queue.buffering.max.kbytes": 2_147_483_647,
        "batch.num.messages": 1_000_000,
        "linger.ms": _LINGER_MS,
        # What is not reported as failed when nothing is left to report was delivered.
        "delivery.report.only.error": True,
    }
    if options.delivery == "exactly-once":
        # That long librdkafka waits until the transaction before has come to its end, at the broker too.
        settings.setdefault("retry.backoff.ms", 20)
        # It remembers which broker keeps a group's offsets, beyond the point where it has thrown its handle of that
        # broker away, and then waits for ever. So it is to forget soon, and to look again when a connection changes.
        settings.setdefault("metadata.max.age.ms", 1_000)
        settings.setdefault("connections.max.idle.ms", 30_000)
    if str(settings["enable.idempotence"]).lower() == "true":
        # Without it librdkafka goes on behind a batch that was refused.
        settings["enable.gapless.guarantee"] = True
    elif "max.in.flight" not in settings:
        # Without sequence numbers a retry overtakes what was sent after it.
        settings.setdefault("max.in.flight.requests.per.connection", 1)
    _try_out(settings, options.client)
    return settings


def _security(options: ConfluentOptions) -> dict[str, Any]:
    sasl = options.username is not None or not {"sasl.mechanism", "sasl.mechanisms"}.isdisjoint(options.client)
    transport = "SSL" if options.tls else "PLAINTEXT"
    settings: dict[str, Any] = {"security.protocol": f"SASL_{transport}" if sasl else transport}
    if options.username is not None:
        settings["sasl.mechanism"] = (options.sasl or "plain").upper()
        settings["sasl.username"] = options.username
        settings["sasl.password"] = options.password
    if options.tls:
        files = {"ca": options.tls_ca, "certificate": options.tls_cert, "key": options.tls_key or options.tls_cert}
        for name, path in zip(("tls_ca", "tls_cert", "tls_key"), files.values(), strict=True):
            _look_at(name, path)
        settings |= {f"ssl.{kind}.location": path for kind, path in files.items() if path is not None}
        settings["enable.ssl.certificate.verification"] = options.tls_verify
        settings["ssl.endpoint.identification.algorithm"] = "https" if options.tls_verify else "none"
        if options.tls_key_password is not None:
            settings["ssl.key.password"] = options.tls_key_password
    return settings


def _look_at(name: str, path: str | None) -> None:
    """librdkafka does not say which file is wrong, nor why."""
    if path is None:
        return
    try:
        with open(path, "rb") as file:
            pem = b"-----BEGIN " in file.read()
    except OSError as error:
        reason = error.strerror or str(error)
    else:
        if pem:
            return
        reason = "there is no certificate or key in it"
    raise ConfigurationError(
        f"provider 'confluent': option {name!r}: {path!r} cannot be used: {reason}; expected a PEM file", option=name
    )


def _client_option(name: str, value: object) -> object:
    if name in _OURS or name in _FIXED:
        option = f"client.{name}"
        instead = f"use {_OURS[name]}" if name in _OURS else "delivery and order rest on it, so it cannot be set"
        raise ConfigurationError(instead, option=option)
    return value


class _Nobody:
    """Listens to a producer that does nothing."""

    def log(self, level: int, template: str, *arguments: object) -> None:
        """Nothing."""


def _try_out(settings: dict[str, Any], client: Mapping[str, object]) -> None:
    """Only librdkafka itself knows its properties and their values: let it look at them, without brokers."""
    if any(map(callable, settings.values())):
        # It would be called at once, for credentials.
        return
    offline = {name: value for name, value in settings.items() if name != "bootstrap.servers"}
    try:
        Producer({**offline, "logger": _Nobody()}).close()
    except (KafkaException, TypeError, ValueError) as error:
        said = error.args[0].str() if isinstance(error, KafkaException) else str(error)
        named = next((f"client.{name}" for name in client if f'"{name}"' in said or f"`{name}`" in said), "")
        raise ConfigurationError(
            f"librdkafka refuses {'it' if named else 'these options'}: {said.strip()}; its properties are listed in"
            " librdkafka's CONFIGURATION.md",
            option=named,
        ) from error
