"""The provider on confluent-kafka: its options, and what is its own; what it shares is in test_kafka*.py."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError
from hypothesis import given
from hypothesis import strategies as st
from mbframework_confluent import ConfluentOptions, mbframework_provider
from mbframework_confluent.connection import taken
from mbframework_confluent.listener import Listener
from mbframework_confluent.outcome import Blocked, NotAcknowledged, NotWritten, Refused, TooLarge, answer_to, judge
from mbframework_confluent.placement import Partitions, illegal, place
from mbframework_confluent.provider import ConfluentProvider
from mbframework_confluent.settings import producer_settings

from mbframework.errors import ConfigurationError, SendFailed
from mbframework.plugins.options import parse_options
from mbframework.plugins.url import parse_url
from mbframework.provider import Context
from mbframework.testing.kafka import KafkaBroker
from tests.providers.kafka_batches import NewTopic, make_batch

CONTEXT = Context(buffer_id="0" * 32, lane="0", run=b"\0" * 16)


def settings_of(url: str) -> dict[str, Any]:
    """From a URL to the configuration of a Producer."""
    return producer_settings(parse_options("confluent", mbframework_provider().options, url=parse_url(url)))


def test_a_full_url() -> None:
    settings = settings_of(
        "confluent://al:p%2Fw@k1:9093,k2?tls=yes&sasl=scram-sha-512&compression=zstd&batch_size=64KiB"
        "&client.retry.backoff.ms=250&client.socket.keepalive.enable=true"
    )
    expected = {
        "bootstrap.servers": "k1:9093,k2",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "al",
        "sasl.password": "p/w",
        "enable.ssl.certificate.verification": True,
        "ssl.endpoint.identification.algorithm": "https",
        "compression.type": "zstd",
        "batch.size": 65_536,
        "retry.backoff.ms": "250",
        "socket.keepalive.enable": "true",
        "acks": "all",
        "enable.idempotence": True,
        "enable.gapless.guarantee": True,
        "message.timeout.ms": 0,
    }
    assert {name: settings[name] for name in expected} == expected
    assert "max.in.flight.requests.per.connection" not in settings


@pytest.mark.parametrize("query", ["acks=1", "acks=0", "client.enable.idempotence=false"])
def test_without_idempotence_one_request_at_a_time_keeps_the_order(query: str) -> None:
    settings = settings_of(f"confluent://h?{query}")
    assert settings["enable.idempotence"] in (False, "false")
    assert "enable.gapless.guarantee" not in settings
    assert settings["max.in.flight.requests.per.connection"] == 1


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("confluent://", "hosts"),
        ("confluent://user@h", "password"),
        ("confluent://h?sasl=plain", "user name"),
        ("confluent://h?tls_ca=/x", "tls_ca is given, but tls is off"),
        ("confluent://h?tls=true&tls_ca=/dev/null", "tls_ca.*there is no certificate"),
        ("confluent://h?send_timeout=0", "send_timeout"),
        ("confluent://h?batch_size=2MiB", "batch_size"),
        ("confluent://h?compression=zst", "'zstd'"),
        ("confluent://h?client.retry.backof.ms=1", 'No such configuration property: "retry.backof.ms"'),
        ("confluent://h?client.retry.backoff.ms=soon", "Invalid value.*retry.backoff.ms"),
        ("confluent://h?client.max.in.flight=9", "max.in.flight.*<= 5"),
        ("confluent://h?client.message.timeout.ms=1000", "cannot be set"),
        ("confluent://h?client.linger.ms=5", "cannot be set"),
        ("confluent://h?client.acks=1", "use acks"),
        ("confluent://h?client.ssl.endpoint.identification.algorithm=none", "use tls_verify"),
    ],
)
def test_mistakes(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        settings_of(url)


def test_a_token_provider_passes_as_an_object() -> None:
    def tokens(_: str) -> tuple[str, float]:
        raise AssertionError("nobody may ask for a token yet")

    client = {"sasl.mechanism": "OAUTHBEARER", "oauth_cb": tokens}
    settings = producer_settings(ConfluentOptions(hosts=("h",), client=client))
    assert settings["security.protocol"] == "SASL_PLAINTEXT"
    assert settings["oauth_cb"] is tokens


def test_declaring_the_provider_imports_no_client_library() -> None:
    code = (
        "import sys, mbframework_confluent as m; m.mbframework_provider(); sys.exit('confluent_kafka' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("topic", ["", ".", "..", "a b", "a\0b", "ä", "x" * 250])
def test_names_that_no_topic_has(topic: str) -> None:
    assert "cannot be the name of a topic" in illegal(topic)
    assert not illegal("orders-1.x_Y")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError.MSG_SIZE_TOO_LARGE, TooLarge),
        (KafkaError.INVALID_RECORD, Refused),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, Blocked),
        (KafkaError._AUTHENTICATION, Blocked),
        (KafkaError._UNKNOWN_PARTITION, NotWritten),
        (KafkaError.NOT_LEADER_FOR_PARTITION, NotWritten),
        (KafkaError.REQUEST_TIMED_OUT, NotAcknowledged),
        (KafkaError._TIMED_OUT, NotAcknowledged),
        (KafkaError._GAPLESS_GUARANTEE, NotAcknowledged),
    ],
)
def test_what_an_error_means(code: int, kind: type[Exception]) -> None:
    assert type(answer_to(KafkaError(code), "orders")) is kind


ANSWERS = st.none() | st.sampled_from(
    [TooLarge("size"), Blocked("rights", 1), NotAcknowledged("late"), NotWritten("aside")]
)


@given(st.lists(st.tuples(st.integers(0, 3), ANSWERS), max_size=60))
def test_the_undelivered_are_a_suffix_of_each_domain(answers: list[tuple[int, Any]]) -> None:
    domains = [domain for domain, _ in answers]
    errors = {index: error for index, (_, error) in enumerate(answers) if error is not None}
    outcome = judge(range(len(answers)), domains, errors)
    undelivered = set(outcome.undelivered)
    assert undelivered >= set(errors)
    for domain in set(domains):
        members = [index for index, of in enumerate(domains) if of == domain]
        fates = [index in undelivered for index in members]
        assert fates == sorted(fates)
        first = next((index for index in members if index in undelivered), None)
        assert first is None or first in errors
    arrived_anyway = undelivered - set(errors)
    assert outcome.uncertain == bool(arrived_anyway or any(isinstance(e, NotAcknowledged) for e in errors.values()))
    weight = None if outcome.error is None else outcome.error.weight
    assert weight == max((e.weight for e in errors.values()), default=None)


@given(st.lists(st.tuples(st.binary(max_size=80), st.integers(-1, 5)), max_size=40), st.integers(1, 5))
def test_placement(messages: list[tuple[bytes, int]], count: int) -> None:
    """The same key goes to the same partition, what is asked for is given, and what is not there is named."""
    keys = [key or None for key, _ in messages]
    batch = make_batch("t", [b""] * len(messages), keys=keys, partitions=[asked for _, asked in messages])
    placed, wrong = place(batch, {"t": Partitions(range(count), range(count))})
    assert set(wrong) == {i for i, (_, asked) in enumerate(messages) if asked >= count}
    by_key: dict[bytes | None, set[int]] = {}
    for key, asked, partition in zip(keys, batch.partitions, placed, strict=True):
        if asked >= 0:
            assert partition == asked
        else:
            assert partition in range(count)
            by_key.setdefault(key, set()).add(partition)
    assert all(len(partitions) == 1 for partitions in by_key.values())


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_a_part_of_a_column(count: int, start: int, stop: int) -> None:
    column = [f"{number}" for number in range(count)]
    chosen = range(count)[start:stop]
    assert taken(column, chosen) == taken(column, list(chosen)) == column[start:stop]


def test_a_storm_of_log_lines_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("mbframework.test")
    heard: dict[str, float] = {}
    with caplog.at_level(logging.DEBUG, "mbframework.test"):
        for _ in range(2):  # producers that follow each other
            listener = Listener(logger, heard)
            for number in range(20):
                listener.log(logging.ERROR, "%s [%s] %s", "FAIL", "name", f"refused {number}")
    assert [record.levelno for record in caplog.records] == [logging.WARNING] + [logging.DEBUG] * 39


@pytest.mark.parametrize(
    "text,refused",
    [
        ("SASL SCRAM-SHA-256 mechanism handshake failed: Local: Broker transport failure: broker's supported", False),
        ("SASL SCRAM-SHA-256 mechanism handshake failed: Local: Timed out in queue: broker's supported", False),
        ("SaslAuthenticateRequest failed: Local: Timed out", False),
        ("SASL SCRAM-SHA-256 mechanism handshake failed: Broker: Unsupported SASL mechanism: broker's", True),
        ("SASL authentication error: Authentication failed during re-authentication due to invalid", True),
    ],
)
def test_a_handshake_that_nobody_answered_is_no_refusal(text: str, refused: bool) -> None:
    """librdkafka has one code for both: a broker that goes, or throttles, while we authenticate needs no person."""
    listener = Listener(logging.getLogger("mbframework.test"), {})
    listener.error(KafkaError(KafkaError._AUTHENTICATION, text))
    assert listener.trouble == text
    assert (listener.refusal is not None) == refused


def test_each_report_finds_its_message(kafka_broker: KafkaBroker, kafka_topic: NewTopic) -> None:
    """Messages that a topic refuses, everywhere in a batch over partitions and topics: all others arrive, in order."""
    compacted, plain = kafka_topic(partitions=3, config={"cleanup.policy": "compact"}), kafka_topic(partitions=2)
    count, bad = 3_000, {0, 1, 17, 900, 1_501, 2_998}
    topics = [compacted if i % 5 else plain for i in range(count)]
    bad = {i for i in bad if topics[i] == compacted}
    partitions = [i % (3 if topics[i] == compacted else 2) for i in range(count)]
    values = [b"%05d" % i for i in range(count)]
    keys = [None if i in bad else b"k%05d" % i for i in range(count)]
    provider = ConfluentProvider(ConfluentOptions(hosts=(kafka_broker.bootstrap,), batch_size=4_096))
    try:
        with pytest.raises(SendFailed) as caught:
            provider.send(make_batch(topics, values, keys=keys, partitions=partitions))
    finally:
        provider.close(5)
    assert set(caught.value.rejected) == bad
    assert caught.value.undelivered == ()
    for topic in (compacted, plain):
        arrived = [(record.partition, record.value) for record in kafka_broker.read_all(topic)]
        wanted = [(partitions[i], values[i]) for i in range(count) if topics[i] == topic and i not in bad]
        assert arrived == sorted(wanted)


def test_nothing_is_printed(
    kafka_broker: KafkaBroker,
    kafka_topic: NewTopic,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What librdkafka has to say goes to the buffer's logger."""
    nobody = ConfluentProvider(ConfluentOptions(hosts=("127.0.0.1:1",), connect_timeout=0.5))
    provider = ConfluentProvider(ConfluentOptions(hosts=(kafka_broker.bootstrap,)))
    with caplog.at_level(logging.DEBUG, "mbframework"):
        with pytest.raises(SendFailed, match="Connection refused"):
            nobody.open(CONTEXT)
        nobody.close(5)
        provider.open(CONTEXT)
        provider.send(make_batch(kafka_topic(), [b"1"]))
        provider.close(5)
    assert capfd.readouterr() == ("", "")
    assert "librdkafka: FAIL" in caplog.text


def test_no_native_thread_stays(kafka_broker: KafkaBroker, kafka_topic: NewTopic) -> None:
    """librdkafka's threads are not Python's, so that the fixture of all tests does not see them."""
    topic = kafka_topic()

    def use() -> None:
        provider = ConfluentProvider(ConfluentOptions(hosts=(kafka_broker.bootstrap,)))
        provider.open(CONTEXT)
        provider.send(make_batch(topic, [b"1"]))
        provider.close(5)

    use()
    before = len(os.listdir("/proc/self/task"))
    for _ in range(3):
        use()
    deadline = time.monotonic() + 60
    while len(os.listdir("/proc/self/task")) > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(os.listdir("/proc/self/task")) <= before


def test_close_while_the_cluster_is_asked_for_a_topic(
    kafka_control: KafkaBroker, promised: Callable[[float], float]
) -> None:
    provider = ConfluentProvider(ConfluentOptions(hosts=(kafka_control.bootstrap,)))
    provider.open(CONTEXT)
    kafka_control.freeze()
    errors: list[BaseException] = []

    def send() -> None:
        try:
            provider.send(make_batch("never-heard-of", [b"1"]))
        except SendFailed as error:
            errors.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    time.sleep(0.3)  # until it asks, of which nothing tells
    began = time.monotonic()
    provider.close(2)
    sender.join(60)
    assert time.monotonic() - began < promised(2.5)
    assert "never-heard-of" in str(errors[0])


def test_a_fork_while_a_send_is_stuck(
    kafka_control: KafkaBroker, kafka_topic: NewTopic, promised: Callable[[float], float]
) -> None:
    """The copy in the child waits for nothing, neither when it is dropped nor when the interpreter ends."""
    code = (
        "import gc, os, sys, threading, time\n"
        "from mbframework_confluent import ConfluentOptions\n"
        "from mbframework_confluent.provider import ConfluentProvider\n"
        "from mbframework.errors import SendFailed\n"
        "from mbframework.provider import Context\n"
        "from tests.providers.kafka_batches import make_batch\n"
        "from contextlib import suppress\n"
        "provider = ConfluentProvider(ConfluentOptions(hosts=(sys.argv[1],)))\n"
        "provider.open(Context(buffer_id='0' * 32, lane='0', run=bytes(16)))\n"
        "provider.send(make_batch(sys.argv[2], [b'1']))\n"
        "print('ready', flush=True); input()\n"
        "def send():\n"
        "    with suppress(SendFailed): provider.send(make_batch(sys.argv[2], [b'2']))\n"
        "sender = threading.Thread(target=send); sender.start(); time.sleep(0.5)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    began = time.monotonic(); provider._connection = None; gc.collect()\n"
        "    sys.exit(0 if time.monotonic() - began < float(sys.argv[3]) else 3)\n"
        "began = time.monotonic(); _, status = os.waitpid(child, 0)\n"
        "print(status, time.monotonic() - began, flush=True)\n"
        "provider.close(5); sender.join()\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, kafka_control.bootstrap, kafka_topic(), str(promised(0.5))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in [os.getcwd(), *sys.path] if path)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        kafka_control.freeze()
        process.stdin.write("\n")
        process.stdin.flush()
        status, took = process.stdout.readline().split()
        kafka_control.thaw()
        process.wait(60)
    assert status == "0"
    assert float(took) < promised(0.9)
    assert process.returncode == 0
