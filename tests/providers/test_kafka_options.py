"""The Kafka provider's options and its judgement of failures: all without a broker."""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import errors as kafka_errors
from mbframework_kafka import KafkaOptions, mbframework_provider
from mbframework_kafka.outcome import judge
from mbframework_kafka.placement import place
from mbframework_kafka.reach import addresses
from mbframework_kafka.settings import producer_settings

from mbframework import MessageBuffer
from mbframework.errors import ConfigurationError
from mbframework.plugins.options import parse_options
from mbframework.plugins.url import parse_url
from tests.providers.kafka_batches import make_batch


def settings_of(url: str) -> dict[str, Any]:
    """From a URL to the arguments of KafkaProducer."""
    return producer_settings(parse_options("kafka", mbframework_provider().options, url=parse_url(url)))


def test_a_full_url() -> None:
    settings = settings_of(
        "kafka://al:p%2Fw@k1:9093,k2?tls=yes&sasl=scram-sha-512&compression=zstd&linger=5ms&batch_size=64KiB"
        "&client.retry_backoff_ms=250&client.metrics_enabled=true&client.send_buffer_bytes=131072&client.retries=7"
    )
    expected = {
        "bootstrap_servers": ["k1:9093", "k2"],
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "al",
        "sasl_plain_password": "p/w",
        "compression_type": "zstd",
        "linger_ms": 5.0,
        "batch_size": 65_536,
        "retry_backoff_ms": 250,
        "metrics_enabled": True,
        "send_buffer_bytes": 131_072,
        "retries": 7,
        "acks": "all",
        "enable_idempotence": True,
        "delivery_timeout_ms": 2_147_483_647,
    }
    assert {name: settings[name] for name in expected} == expected
    assert "max_in_flight_requests_per_connection" not in settings


@pytest.mark.parametrize(
    ("query", "expected"),
    [("", 524_288), ("?max_request_size=200000", 200_000), ("?batch_size=1MiB&max_request_size=2MiB", 1_048_576)],
)
def test_a_record_batch_fits_into_a_request(query: str, expected: int) -> None:
    assert settings_of(f"kafka://h{query}")["batch_size"] == expected


@pytest.mark.parametrize("query", ["acks=1", "acks=0", "client.enable_idempotence=false"])
def test_without_idempotence_one_request_at_a_time_keeps_the_order(query: str) -> None:
    settings = settings_of(f"kafka://h?{query}")
    assert settings["enable_idempotence"] is False
    assert settings["max_in_flight_requests_per_connection"] == 1


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("kafka://", "hosts"),
        ("kafka://user@h", "password"),
        ("kafka://h?sasl=plain", "user name"),
        ("kafka://h?tls_ca=/x", "tls_ca is given, but tls is off"),
        ("kafka://h?send_timeout=0", "send_timeout"),
        ("kafka://h?batch_size=2MiB", "batch_size"),
        ("kafka://h?compression=zst", "'zstd'"),
        ("kafka://h?client.retry_backof_ms=1", "did you mean 'client.retry_backoff_ms'"),
        ("kafka://h?client.retry_backoff_ms=soon", "client.retry_backoff_ms.*an integer"),
        ("kafka://h?client.metrics_enabled=1.5", "true or false"),
        ("kafka://h?client.delivery_timeout_ms=1000", "cannot be set"),
        ("kafka://h?client.acks=1", "use acks"),
        ("kafka://h?client.ssl_check_hostname=false", "use tls_verify"),
        ("kafka://h?client.socket_options=x", "as a mapping"),
    ],
)
def test_mistakes(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        settings_of(url)


@pytest.mark.parametrize("url", ["kafka://h?client.nonsense=1", "confluent://h?client.nonsense=1"])
def test_an_option_that_the_library_does_not_know_is_refused_before_anything_is_made(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nonsense") as caught:
        MessageBuffer(tmp_path / "outbox", url)
    assert caught.value.option == "client.nonsense"
    assert not (tmp_path / "outbox").exists()


def test_verification_is_on() -> None:
    context = settings_of("kafka://h?tls=true")["ssl_context"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_a_token_provider_passes_as_an_object() -> None:
    tokens = object()
    options = KafkaOptions(hosts=("h",), client={"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": tokens})
    settings = producer_settings(options)
    assert settings["security_protocol"] == "SASL_PLAINTEXT"
    assert settings["sasl_oauth_token_provider"] is tokens


def test_declaring_the_provider_imports_no_client_library() -> None:
    code = "import sys, mbframework_kafka as m; m.mbframework_provider(); sys.exit('kafka' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("h", ("h", 9092)), ("h:1", ("h", 1)), ("[::1]:1", ("::1", 1)), ("[::1]", ("::1", 9092))],
)
def test_addresses(host: str, expected: tuple[str, int]) -> None:
    assert addresses([host]) == [expected]


ERRORS = st.sampled_from(
    [
        None,
        kafka_errors.MessageSizeTooLargeError("size"),
        kafka_errors.TopicAuthorizationFailedError("topic"),
        kafka_errors.IllegalStateError("closed"),
        kafka_errors.NotEnoughReplicasError("replicas"),
        kafka_errors.CorruptRecordError("corrupt"),
    ]
)


@given(st.lists(st.tuples(st.integers(0, 3), ERRORS), max_size=60))
def test_the_undelivered_are_a_suffix_of_each_domain(answers: list[tuple[int, Exception | None]]) -> None:
    domains = [domain for domain, _ in answers]
    errors = {index: error for index, (_, error) in enumerate(answers) if error is not None}
    outcome = judge(range(len(answers)), domains, errors)
    undelivered = set(outcome.undelivered)
    assert undelivered >= set(errors)
    for domain in set(domains):
        fates = [index in undelivered for index, of in enumerate(domains) if of == domain]
        assert fates == sorted(fates)
        first = next((i for i, of in enumerate(domains) if of == domain and i in undelivered), None)
        assert first is None or first in errors
    arrived_anyway = undelivered - set(errors)
    unknown = (kafka_errors.IllegalStateError, kafka_errors.NotEnoughReplicasError)
    assert outcome.uncertain == bool(arrived_anyway or any(isinstance(e, unknown) for e in errors.values()))
    assert (outcome.error is None) == (not errors)


@given(st.lists(st.tuples(st.binary(max_size=80), st.integers(-1, 5)), max_size=40), st.integers(1, 5))
def test_placement(messages: list[tuple[bytes, int]], count: int) -> None:
    """The same key goes to the same partition, what is asked for is given, and what is not there is named."""
    keys = [key or None for key, _ in messages]
    batch = make_batch("t", [b""] * len(messages), keys=keys, partitions=[asked for _, asked in messages])
    known = list(range(count))
    placed, wrong = place(batch, {"t": known}, {"t": known})
    assert set(wrong) == {i for i, (_, asked) in enumerate(messages) if asked >= count}
    by_key: dict[bytes | None, set[int]] = {}
    for key, asked, partition in zip(keys, batch.partitions, placed, strict=True):
        if asked >= 0:
            assert partition == asked
        else:
            assert partition in known
            by_key.setdefault(key, set()).add(partition)
    assert all(len(partitions) == 1 for partitions in by_key.values())
