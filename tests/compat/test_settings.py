"""Each argument of kafka-python goes somewhere: translated, passed on, named as without effect, or refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer as Original
from mbframework_kafka import KafkaOptions
from mbframework_kafka.settings import producer_settings

from mbframework import ConfigurationError, MessageBuffer
from mbframework.compat import KafkaProducer, MessageSizeTooLargeError
from mbframework.compat.serializing import serialize_with
from mbframework.compat.settings import KAFKA_ARGUMENTS, settings_of
from mbframework.config import OPTIONS
from mbframework.plugins.options import parse_options
from mbframework.plugins.url import parse_url


def test_every_argument_of_kafka_python_is_known_and_none_is_a_buffers() -> None:
    assert KAFKA_ARGUMENTS | {"key_serializer", "value_serializer"} == set(Original.DEFAULT_CONFIG) | {"ssl_password"}
    assert not KAFKA_ARGUMENTS & OPTIONS.keys()


def handed_on(arguments: dict[str, Any]) -> dict[str, Any]:
    """What kafka-python gets in the end."""
    settings = settings_of(arguments)
    assert settings.url is not None
    options = parse_options("kafka", KafkaOptions, url=parse_url(settings.url), mapping=settings.provider_options)
    return producer_settings(options)


@pytest.mark.parametrize(
    "arguments",
    [
        {"bootstrap_servers": ["k1:9092", "k2:9093"]},
        {"acks": "all"},
        {"compression_type": "gzip", "client_id": "billing", "allow_auto_create_topics": False},
        {"linger_ms": 20.0, "request_timeout_ms": 7000, "max_request_size": 2_000_000},
        {"api_version": (2, 3), "send_buffer_bytes": 65_536},
        {
            "security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "SCRAM-SHA-256", "sasl_plain_username": "u",
            "sasl_plain_password": "p:/@%",
        },
        {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": print},
    ],
)  # fmt: skip
def test_what_kafka_python_gets_is_what_was_asked_for(arguments: dict[str, Any]) -> None:
    given = handed_on(arguments)
    assert {name: given[name] for name in arguments} == arguments


def test_acks_and_defaults() -> None:
    assert handed_on({"acks": -1})["acks"] == "all"
    assert handed_on({"acks": 1})["acks"] == 1
    assert handed_on({})["bootstrap_servers"] == ["localhost"]
    assert handed_on({"compression_type": None})["compression_type"] is None
    assert handed_on({"bootstrap_servers": "k1, k2:1"})["bootstrap_servers"] == ["k1", "k2:1"]
    assert handed_on({"security_protocol": "SSL"})["ssl_context"] is not None
    merged = settings_of({"api_version": (2, 3), "provider_options": {"client": {"socks5_proxy": "x"}, "bulk": False}})
    assert merged.provider_options == {"client": {"api_version": (2, 3), "socks5_proxy": "x"}, "bulk": False}


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"partitioner": print}, "partition="),
        ({"transactional_id": "x"}, "exactly-once"),
        ({"ssl_context": object()}, "ssl_cafile"),
        ({"ssl_check_hostname": False}, "tls_verify"),
        ({"bootstrap_server": "k1"}, "did you mean 'bootstrap_servers'"),
        ({"total_sise": "1GiB"}, "did you mean 'total_size'"),
        ({"buffer_memory": 33_554_432}, "no such argument; give total_size"),
        ({"bootstrap_servers": 9092}, "host:port"),
        ({"bootstrap_servers": []}, "host:port"),
        ({"acks": 2}, "'all', 1 or 0"),
        ({"linger_ms": "soon"}, "milliseconds"),
        ({"max_request_size": "large"}, "'large': expected bytes"),
        ({"provider_options": {"max_request_size": None}}, "max_request_size"),
        ({"provider_options": "acks=1"}, "provider_options: str; expected a mapping"),
        ({"provider_options": {"client": None}}, "client: NoneType; expected a mapping"),
        ({"security_protocol": ["SSL"]}, "expected one of PLAINTEXT"),
        ({"security_protocol": "TLS"}, "SASL_SSL"),
        ({"provider": "fake:", "bootstrap_servers": "k1", "acks": 1}, "acks, bootstrap_servers"),
        ({"max_block_ms": -1}, "milliseconds"),
    ],
)
def test_what_is_refused_says_what_to_do(tmp_path: Path, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        KafkaProducer(buffer_directory=tmp_path / "outbox", **arguments)
    assert caught.value.option in arguments
    assert not (tmp_path / "outbox").exists()
    assert isinstance(caught.value, ValueError), "which kafka-python raises for an unknown argument"


def test_a_place_for_the_buffer_is_needed_and_it_must_send(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MBFRAMEWORK_DIRECTORY", "")
    with pytest.raises(ConfigurationError, match="buffer_directory.*MBFRAMEWORK_DIRECTORY"):
        KafkaProducer(bootstrap_servers="k1:9092")
    monkeypatch.setenv("MBFRAMEWORK_DIRECTORY", str(tmp_path / "named"))
    with pytest.raises(ConfigurationError, match="means the same"):
        KafkaProducer(buffer_directory=tmp_path / "outbox", directory=tmp_path / "other", provider="fake:")
    with KafkaProducer(provider="fake:") as producer:
        assert producer.buffer.config.directory == str(tmp_path / "named")
    with pytest.raises(ConfigurationError, match="MessageBuffer"):
        KafkaProducer(buffer="outbox")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="max_futures"):
        KafkaProducer(buffer_directory=tmp_path / "outbox", provider="fake:", max_futures=-1)
    with MessageBuffer(tmp_path / "outbox") as writes_only:
        with pytest.raises(ConfigurationError, match="only writes"):
            KafkaProducer(buffer=writes_only)
        with pytest.raises(ConfigurationError, match="acks"):
            KafkaProducer(buffer=writes_only, acks=1)


def test_what_has_no_effect_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.WARNING, "mbframework.compat"),
        KafkaProducer(buffer_directory=tmp_path / "outbox", provider="fake:", retries=5, delivery_timeout_ms=1000),
    ):
        pass
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "retries (" in caplog.text
    assert "expire_after" in caplog.text


def test_max_block_ms_is_how_long_a_full_buffer_waits() -> None:
    assert settings_of({"max_block_ms": 1500}).buffer_options == {"block_timeout": 1.5}
    assert settings_of({"max_block_ms": 1500, "block_timeout": 3}).buffer_options == {"block_timeout": 3}


class Modern:
    def serialize(self, topic: str, headers: list[tuple[str, bytes]], data: str) -> bytes:
        headers.append(("type", b"text"))
        return f"{topic}/{data}".encode()


class Older:
    def serialize(self, topic: str, data: str) -> bytes:
        return f"{topic}/{data}".encode()


def test_serializers_of_each_shape() -> None:
    headers: list[tuple[str, bytes]] = []
    assert serialize_with(Modern(), "key_serializer")("t", headers, "x") == b"t/x"
    assert headers == [("type", b"text")]
    assert serialize_with(Older(), "key_serializer")("t", [], "x") == b"t/x"
    assert serialize_with(str.encode, "key_serializer")("t", [], "x") == b"x"
    assert serialize_with(None, "key_serializer")("t", [], b"x") == b"x"
    with pytest.raises(ConfigurationError, match="value_serializer: int"):
        serialize_with(1, "value_serializer")
    with pytest.raises(TypeError, match="concatenate"):
        serialize_with(lambda data: data + 1, "value_serializer")("t", [], [])


@pytest.mark.parametrize(
    "limit", [{"max_request_size": 2000}, {"provider": None, "provider_options": {"max_request_size": "2KB"}}]
)
def test_a_message_above_the_request_size_is_refused_before_it_is_written(
    tmp_path: Path, limit: dict[str, Any]
) -> None:
    with KafkaProducer(
        buffer_directory=tmp_path / "outbox", bootstrap_servers="127.0.0.1:1", close_timeout=0.1, **limit
    ) as producer:
        assert producer.send("orders", bytes(1800)).sequence
        with pytest.raises(MessageSizeTooLargeError, match="max_request_size"):
            producer.send("orders", bytes(1900))
        assert producer.buffer.status().accepted == 1
        assert not producer.bootstrap_connected()
