"""The bulk path against a real broker: who can read it, what becomes of refused batches, and when it is not taken."""

from __future__ import annotations

import logging
import re
import subprocess
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from mbframework_kafka import KafkaOptions, bulk
from mbframework_kafka.provider import KafkaProvider

from mbframework.errors import SendFailed
from mbframework.message import NO_PARTITION, Batch, pack_headers
from mbframework.provider import Context
from mbframework.testing.kafka import KafkaBroker
from mbframework.testing.kafka_jars import jars, java
from tests.providers.kafka_batches import NewTopic, alter, make_batch

MS = 1_000_000
NOW = 1_700_000_000_000
CONTEXT = Context(buffer_id="0" * 32, lane="0", run=b"\0" * 16)
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
#: Messages that the independent clients read.
COUNT = 3_000
CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer"

NewProvider = Callable[..., KafkaProvider]
#: Partition, key, value, headers, timestamp.
Read = tuple[int, bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...], int]


@pytest.fixture
def new_provider(kafka_broker: KafkaBroker) -> Iterator[NewProvider]:
    """Makes an open provider with the options given; it is closed afterwards."""
    made = []

    def create(**options: Any) -> KafkaProvider:
        provider = KafkaProvider(KafkaOptions(hosts=(kafka_broker.bootstrap,), **options))
        made.append(provider)
        provider.open(CONTEXT)
        return provider

    yield create
    for provider in made:
        provider.close(5)


def varied(topic: str, count: int) -> Batch:
    """Messages of all kinds over three partitions, and large enough for several record batches."""
    keys = [None if i % 3 == 0 else b"key-%d" % (i % 50) for i in range(count)]
    return make_batch(
        topic,
        [None if i % 7 == 1 else b"%d " % i * (i % 90) for i in range(count)],
        keys=keys,
        header_blocks=[pack_headers([("n", b"%d" % i), ("none", None)]) if i % 5 == 0 else None for i in range(count)],
        timestamps=[(NOW + i // 3) * MS for i in range(count)],
        partitions=[2 if key is None else NO_PARTITION for key in keys],
    )


def expected_of(batch: Batch) -> list[list[Any]]:
    """What arrives in each partition, in order; keys are placed by the library's own murmur2."""
    from kafka.partitioner.default import murmur2

    expected: list[list[Any]] = [[], [], []]
    for message in batch:
        key = message.key
        place = 2 if key is None else (murmur2(key) & 0x7FFFFFFF) % 3
        assert message.timestamp is not None
        expected[place].append((key, message.value, message.headers, message.timestamp // MS))
    return expected


def by_kafka_python(broker: KafkaBroker, topic: str) -> list[Read]:
    return [(r.partition, r.key, r.value, r.headers, r.timestamp) for r in broker.read_all(topic)]


def by_confluent(broker: KafkaBroker, topic: str) -> list[Read]:
    reason = "confluent-kafka is not installed; run: pip install confluent-kafka"
    confluent: Any = pytest.importorskip("confluent_kafka", reason=reason)
    settings = {"bootstrap.servers": broker.bootstrap, "group.id": "read", "check.crcs": True}
    consumer = confluent.Consumer(settings | {"enable.auto.commit": False, "enable.partition.eof": True})
    try:
        consumer.assign([confluent.TopicPartition(topic, partition, 0) for partition in range(3)])
        found: list[Read] = []
        ended = 0
        while ended < 3:
            message = consumer.poll(30)
            assert message is not None, "nothing arrives"
            if message.error() is None:
                headers = tuple(message.headers() or ())
                place = message.partition()
                found.append((place, message.key(), message.value(), headers, message.timestamp()[1]))
            else:
                assert message.error().code() == confluent.KafkaError._PARTITION_EOF
                ended += 1
        return found
    finally:
        consumer.close()


def by_java(broker: KafkaBroker, topic: str) -> list[Read]:
    if not list(jars().glob("kafka-tools-[0-9]*.jar")):
        pytest.skip(f"no jar with {CONSUMER}; set KAFKA_HOME to an unpacked Apache Kafka")
    show = ("partition", "timestamp", "headers", "key", "value")
    properties = [f"print.{name}=true" for name in show]
    properties += ["key.separator=\x01", "headers.separator=\x02", "null.literal=\x03"]
    command = [
        *(java(), "-cp", f"{jars()}/*", CONSUMER, "--bootstrap-server", broker.bootstrap, "--topic", topic),
        *(
            "--from-beginning",
            "--timeout-ms",
            "60000",
            "--max-messages",
            str(COUNT),
            "--consumer-property",
            "check.crcs=true",
        ),
    ]
    for each in properties:
        command += ["--property", each]
    done = subprocess.run(command, capture_output=True, check=False, timeout=100)

    def value(raw: bytes) -> bytes | None:
        return None if raw == b"\x03" else raw

    found: list[Read] = []
    for line in done.stdout.split(b"\n")[:-1]:
        time, partition, headers, key, text = line.split(b"\x01")
        pairs = [] if headers == b"NO_HEADERS" else [pair.split(b":", 1) for pair in headers.split(b"\x02")]
        named = tuple((name.decode(), value(raw)) for name, raw in pairs)
        place, at = int(partition.removeprefix(b"Partition:")), int(time.removeprefix(b"CreateTime:"))
        found.append((place, value(key), value(text), named, at))
    assert found, done.stderr.decode()
    return found


@pytest.mark.parametrize("reader", [by_kafka_python, by_confluent, by_java])
@pytest.mark.parametrize("compression", CODECS)
def test_independent_clients_read_it(
    compression: Any, reader: Callable[[KafkaBroker, str], list[Read]], kafka_broker: KafkaBroker,
    kafka_topic: NewTopic, new_provider: NewProvider,
) -> None:  # fmt: skip
    topic = kafka_topic(partitions=3)
    provider = new_provider(compression=compression, batch_size=40_000)
    batch = varied(topic, COUNT)
    provider.send(batch)
    found: list[list[Any]] = [[], [], []]
    for partition, *rest in reader(kafka_broker, topic):
        found[partition].append(tuple(rest))
    assert found == expected_of(batch)
    assert provider.describe()["path"] == "bulk"


def test_sequences_go_on_from_batch_to_batch(
    kafka_broker: KafkaBroker, kafka_topic: NewTopic, new_provider: NewProvider
) -> None:
    """The broker checks them: an idempotent producer that skipped or repeated one would be refused."""
    topic = kafka_topic(partitions=2)
    provider = new_provider(batch_size=2_000)
    values = [b"%05d" % i for i in range(6_000)]
    for first in range(0, 6_000, 1_500):
        part = values[first : first + 1_500]
        provider.send(make_batch(topic, part, keys=part))
    connection = provider._connection
    assert connection is not None
    manager = connection.producer._transaction_manager
    counts = [0, 0]
    for record in kafka_broker.read_all(topic):
        counts[record.partition] += 1
    assert sum(counts) == 6_000
    from kafka import TopicPartition

    assert [manager.sequence_number(TopicPartition(topic, partition)) for partition in (0, 1)] == counts


def test_no_record_batch_is_above_the_limit_of_its_topic(
    kafka_broker: KafkaBroker, kafka_topic: NewTopic, new_provider: NewProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """The topic's limit is known before the first batch is sent: nothing is refused on the way."""
    topic = kafka_topic(config={"max.message.bytes": "3000"})
    values = [b"%d " % i * 20 for i in range(2_000)]
    with caplog.at_level(logging.WARNING):
        new_provider().send(make_batch(topic, values))
    assert [record.value for record in kafka_broker.read_all(topic)] == values
    assert not caplog.records


@pytest.mark.parametrize("too_large", [[], [0], [700, 701, 1_999]])
def test_a_batch_that_is_refused_as_too_large_is_split(
    too_large: list[int], kafka_broker: KafkaBroker, kafka_topic: NewTopic, new_provider: NewProvider
) -> None:
    """The limit falls after it was asked for: nothing is lost, nothing repeated, the order holds in all partitions."""
    topic = kafka_topic(partitions=2)
    provider = new_provider()
    provider.send(make_batch(topic, [b"before"], partitions=[0]))
    first = provider._connection
    alter(kafka_broker, topic, "max.message.bytes", "3000")
    values = [(b"%04d " % i * 800)[: 4_000 if i in too_large else 100] for i in range(2_000)]
    batch = make_batch(topic, values, partitions=[i // 100 % 2 for i in range(2_000)])
    if too_large:
        with pytest.raises(SendFailed) as caught:
            provider.send(batch)
        assert sorted(caught.value.rejected) == too_large
        assert caught.value.undelivered == ()
    else:
        provider.send(batch)
    assert provider._connection is not first, "the limit was not in force yet"
    arrived = [(r.partition, r.value) for r in kafka_broker.read_all(topic)]
    wanted = [(0, b"before"), *((i // 100 % 2, v) for i, v in enumerate(values) if i not in too_large)]
    assert arrived == sorted(wanted, key=lambda pair: pair[0])


def test_of_a_refused_batch_only_the_messages_at_fault_are_rejected(
    kafka_broker: KafkaBroker, kafka_topic: NewTopic, new_provider: NewProvider
) -> None:
    """Several in one record batch, and others in another partition, on a topic that takes no message without a key."""
    topic = kafka_topic(partitions=3, config={"cleanup.policy": "compact"})
    provider = new_provider()
    faults = [10, 11, 500, 899]
    keys = [None if i in faults else b"%d" % i for i in range(900)]
    values = [b"%d" % i for i in range(900)]
    with pytest.raises(SendFailed) as caught:
        provider.send(make_batch(topic, values, keys=keys, partitions=[i % 3 for i in range(900)]))
    assert sorted(caught.value.rejected) == faults
    assert all("refused by Kafka" in reason for reason in caught.value.rejected.values())
    assert caught.value.undelivered == ()
    arrived = [(r.partition, r.value) for r in kafka_broker.read_all(topic)]
    assert arrived == [(p, values[i]) for p in range(3) for i in range(p, 900, 3) if i not in faults]


def test_without_idempotence(kafka_broker: KafkaBroker, kafka_topic: NewTopic, new_provider: NewProvider) -> None:
    topic = kafka_topic(partitions=2)
    values = [b"%d" % i for i in range(500)]
    for acks in ("1", "0"):
        provider = new_provider(acks=acks)
        provider.send(make_batch(topic, values, partitions=[0] * 500))
        assert provider.describe()["path"] == "bulk"
    arrived = [r.value for r in kafka_broker.read_all(topic)]
    assert arrived[:500] == values


def test_another_release_of_the_library_is_used_by_send_and_says_so_once(
    kafka_broker: KafkaBroker, kafka_topic: NewTopic, new_provider: NewProvider, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    topic = kafka_topic()
    monkeypatch.setattr(bulk, "_BEFORE", (3, 0, 12))
    bulk._library_differs.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, "mbframework"):
            provider = new_provider()
            provider.send(make_batch(topic, [b"1"]))
            provider._drop()
            provider.send(make_batch(topic, [b"2"]))
    finally:
        bulk._library_differs.cache_clear()
    assert [record.value for record in kafka_broker.read_all(topic)] == [b"1", b"2"]
    assert provider.describe()["path"].startswith("send() (it is not known from the inside: kafka-python 3.0.")
    told = [record.getMessage() for record in caplog.records if record.name.startswith("mbframework")]
    assert len(told) == 1
    assert "one send() a message instead of whole record batches: it is not known" in told[0]


def likeness(**changes: Any) -> Any:
    """Something with the inside of a producer that bulk path looks at."""
    names = {part: dict.fromkeys(inside) for part, inside in bulk._INSIDE.items()}
    names["_accumulator"]["config"] = {"message_version": 2, "compression_attrs": 0} | changes.pop("config", {})
    for part, gone in changes.items():
        del names[part][gone]
    return SimpleNamespace(**{part: SimpleNamespace(**inside) for part, inside in names.items()})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        *(
            ({part: name}, f"has no KafkaProducer.{part}.{name}")
            for part, inside in bulk._INSIDE.items()
            for name in inside
            if name != "config"
        ),
        ({"config": {"message_version": 1}}, "older than Kafka 0.11"),
        ({"config": {"compression_attrs": 5}}, "compression 5 is not known"),
    ],
)
def test_each_private_part_is_looked_for(changes: dict[str, Any], reason: str) -> None:
    found = bulk.obstacle(likeness(**changes))
    assert reason in found
    assert bool(found) == bool(reason)


@pytest.mark.parametrize(
    ("target", "name", "value", "reason"),
    [
        ("kafka.record.memory_records.MemoryRecordsBuilder", "seal", None, r"expects seal\(\) of a record batch"),
        ("mbframework_kafka.bulk", "_INSIDE_A_BATCH", ("drained", "colour"), "has no ProducerBatch.colour"),
        ("mbframework_kafka.bulk", "_sample_agrees", lambda: False, "encodes a record batch otherwise"),
    ],
)
def test_a_library_that_differs_is_noticed(
    target: str, name: str, value: Any, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{target}.{name}", value, raising=False)
    bulk._library_differs.cache_clear()
    try:
        assert re.search(reason, bulk.obstacle(likeness()))
    finally:
        bulk._library_differs.cache_clear()
