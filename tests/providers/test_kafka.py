"""The Kafka providers against a real broker that is well: what arrives, where, and what is refused."""

from __future__ import annotations

import gc
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mbframework import RoutedBuffer
from mbframework.errors import ProviderUnusable, SendFailed
from mbframework.message import NO_TIMESTAMP, pack_headers
from mbframework.provider import Context, Provider
from mbframework.testing.kafka import KafkaBroker
from mbframework.testing.kafka_admin import KafkaAdmin
from tests.providers.kafka_batches import NewTopic, make_batch
from tests.providers.kafka_kinds import Kind, by_scheme, kind
from tests.providers.provider_pages import documented_examples

__all__ = ["kind"]

MS = 1_000_000


@pytest.fixture
def provider(kafka_broker: KafkaBroker, kind: Kind) -> Iterator[Provider]:
    """A provider that is open."""
    made = kind.make(kafka_broker.bootstrap)
    made.open(Context(buffer_id="0" * 32, lane="0", run=b"\0" * 16))
    yield made
    made.close(5)


def test_everything_of_a_message_survives(provider: Provider, kafka_broker: KafkaBroker, kafka_topic: NewTopic) -> None:
    topic = kafka_topic(partitions=3)
    headers = [("trace", b"1"), ("trace", b"2"), ("none", None), ("empty", b""), ("ünïcode", b"\xff")]
    at = 1_700_000_000_123 * MS
    provider.send(
        make_batch(
            topic,
            [b"plain", b"", None, b"with headers", None, b"timed"],
            keys=[None, b"", b"tombstone", b"k", None, None],
            header_blocks=[None, None, None, pack_headers(headers), pack_headers([("only", None)]), None],
            timestamps=[NO_TIMESTAMP] * 5 + [at + 999_999],
            partitions=[1] * 6,
        )
    )
    records = kafka_broker.read_all(topic)
    assert [(r.partition, r.key, r.value, r.headers) for r in records] == [
        (1, None, b"plain", ()),
        (1, b"", b"", ()),
        (1, b"tombstone", None, ()),
        (1, b"k", b"with headers", tuple(headers)),
        (1, None, None, (("only", None),)),
        (1, None, b"timed", ()),
    ]
    assert records[5].timestamp == at // MS
    assert abs(records[0].timestamp - time.time() * 1000) < 60_000


def test_keys_go_where_every_kafka_client_puts_them(
    provider: Provider, kafka_broker: KafkaBroker, kafka_topic: NewTopic
) -> None:
    from kafka import KafkaProducer

    topic, reference = kafka_topic(partitions=7), kafka_topic(partitions=7)
    keys = [random.randbytes(length) for length in range(150)]
    provider.send(make_batch(topic, keys, keys=keys))
    producer = KafkaProducer(bootstrap_servers=kafka_broker.bootstrap)
    for key in keys:
        producer.send(reference, key=key, value=key)
    producer.flush()
    producer.close()
    ours = {r.key: r.partition for r in kafka_broker.read_all(topic)}
    assert ours == {r.key: r.partition for r in kafka_broker.read_all(reference)}
    assert len(set(ours.values())) == 7


def test_messages_without_key_share_a_partition_per_batch_and_use_all(
    provider: Provider, kafka_broker: KafkaBroker, kafka_topic: NewTopic
) -> None:
    topic = kafka_topic(partitions=3)
    for number in range(30):
        provider.send(make_batch(topic, [b"%d" % number] * 5))
    placed: dict[bytes | None, set[int]] = {}
    for record in kafka_broker.read_all(topic):
        placed.setdefault(record.value, set()).add(record.partition)
    assert [len(partitions) for partitions in placed.values()] == [1] * 30
    assert set().union(*placed.values()) == {0, 1, 2}


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_compression(compression: Any, kind: Kind, kafka_broker: KafkaBroker, kafka_topic: NewTopic) -> None:
    topic = kafka_topic()
    values = [b"compress me %d" % i * 20 for i in range(2_000)]
    provider = kind.make(kafka_broker.bootstrap, compression=compression)
    try:
        provider.send(make_batch(topic, values))
    finally:
        provider.close(5)
    assert [r.value for r in kafka_broker.read_all(topic)] == values


def test_an_empty_batch_is_delivered(provider: Provider) -> None:
    provider.send(make_batch("unused", []))


def test_oversized_messages_are_rejected_alone(kind: Kind, kafka_broker: KafkaBroker, kafka_topic: NewTopic) -> None:
    """Once by our own limit, once by the topic's, which only the broker knows; the producer survives both."""
    topic = kafka_topic(config={"max.message.bytes": "20000"})
    provider = kind.make(kafka_broker.bootstrap, max_request_size=200_000)
    values = [b"%d" % i for i in range(500)]
    for index in (3, 77, 499):
        values[index] = b"x" * 50_000
    values[200] = b"y" * 300_000
    try:
        with pytest.raises(SendFailed) as caught:
            provider.send(make_batch(topic, values))
        assert sorted(caught.value.rejected) == [3, 77, 200, 499], str(caught.value)
        assert "200000" not in caught.value.rejected[3]
        assert "max_request_size" in caught.value.rejected[200]
        assert caught.value.undelivered == ()
        provider.send(make_batch(topic, [b"after"]))
    finally:
        provider.close(5)
    expected = [v for i, v in enumerate(values) if i not in caught.value.rejected]
    assert [r.value for r in kafka_broker.read_all(topic)] == [*expected, b"after"]


def test_the_largest_message_passes_and_one_byte_more_is_rejected(
    provider: Provider, kafka_broker: KafkaBroker, kafka_topic: NewTopic
) -> None:
    topic = kafka_topic()
    limit = provider.max_message_bytes
    assert limit is not None
    headers = pack_headers([(f"h{i}", b"v") for i in range(1_000)])
    provider.send(make_batch(topic, [b"v" * (limit - len(headers) - 1)], keys=[b"k"], header_blocks=[headers]))
    with pytest.raises(SendFailed) as caught:
        provider.send(make_batch(topic, [b"v" * (limit + 1), b"next"]))
    assert list(caught.value.rejected) == [0]
    assert [len(r.value or b"") for r in kafka_broker.read_all(topic)] == [limit - len(headers) - 1, 4]


def test_invalid_records_are_rejected_alone(
    provider: Provider, kafka_broker: KafkaBroker, kafka_topic: NewTopic
) -> None:
    """A compacted topic takes no message without a key."""
    compacted, other = kafka_topic(config={"cleanup.policy": "compact"}), kafka_topic()
    topics = [compacted, other] * 50
    keys = [b"%d" % i for i in range(100)]
    values = [b"v%d" % i for i in range(100)]
    with_key: list[bytes | None] = [*keys]
    with_key[40] = with_key[81] = None
    with pytest.raises(SendFailed) as caught:
        provider.send(make_batch(topics, values, keys=with_key))
    assert sorted(caught.value.rejected) == [40]
    assert caught.value.undelivered == ()
    assert [r.value for r in kafka_broker.read_all(compacted)] == [values[i] for i in range(0, 100, 2) if i != 40]
    assert [r.value for r in kafka_broker.read_all(other)] == values[1::2]


def test_wrong_topics_and_partitions_are_rejected_alone(
    provider: Provider, kafka_broker: KafkaBroker, kafka_topic: NewTopic
) -> None:
    topic = kafka_topic(partitions=2)
    with pytest.raises(SendFailed) as caught:
        provider.send(
            make_batch([topic, "no spaces, please", topic, topic], [b"1", b"2", b"3", b"4"], partitions=[0, -1, 9, 1])
        )
    assert sorted(caught.value.rejected) == [1, 2]
    assert "partition 9" in caught.value.rejected[2]
    assert [r.value for r in kafka_broker.read_all(topic)] == [b"1", b"4"]


def test_a_topic_that_is_kafkas_own_is_refused_for_its_messages_alone(
    provider: Provider, kafka_broker: KafkaBroker, kafka_topic: NewTopic
) -> None:
    """The broker alone says so, to each record batch. What the client gave up with it may arrive twice."""
    topic = kafka_topic()
    values = [b"%d" % i for i in range(12)]
    deadline = time.monotonic() + 60
    while True:
        with pytest.raises(SendFailed) as caught:
            provider.send(make_batch([topic, "__consumer_offsets", topic] * 4, values))
        if caught.value.rejected:
            break
        # A broker that is busy with making the topic.
        assert time.monotonic() < deadline, str(caught.value)
        time.sleep(0.05)  # the engine's retry wait
    assert sorted(caught.value.rejected) == [1, 4, 7, 10], str(caught.value)
    assert "__consumer_offsets" in caught.value.rejected[4]
    assert caught.value.undelivered == ()
    provider.send(make_batch(topic, [b"after"]))
    kept = [value for i, value in enumerate(values) if i % 3 != 1]
    assert list(dict.fromkeys(r.value for r in kafka_broker.read_all(topic))) == [*kept, b"after"]


def test_a_grown_topic_is_noticed(provider: Provider, kafka_broker: KafkaBroker, kafka_topic: NewTopic) -> None:
    topic = kafka_topic()
    provider.send(make_batch(topic, [b"1"], partitions=[0]))
    with KafkaAdmin(kafka_broker.bootstrap) as admin:
        admin.grow(topic, 3)
    provider.send(make_batch(topic, [b"2"], partitions=[2]))
    assert [(r.partition, r.value) for r in kafka_broker.read_all(topic)] == [(0, b"1"), (2, b"2")]


@by_scheme
def test_keys_move_to_added_partitions_as_soon_as_the_client_looks_again(
    kind: Kind, kafka_broker: KafkaBroker, kafka_topic: NewTopic
) -> None:
    """How soon is an option of the client library."""
    topic = kafka_topic()
    keys = [b"%d" % number for number in range(50)]
    name = "metadata_max_age_ms" if kind.scheme == "kafka" else "topic.metadata.refresh.interval.ms"
    provider = kind.make(kafka_broker.bootstrap, client={name: "200"})
    try:
        provider.send(make_batch(topic, keys, keys=keys))
        with KafkaAdmin(kafka_broker.bootstrap) as admin:
            admin.grow(topic, 3)
        deadline = time.monotonic() + 60
        while len({record.partition for record in kafka_broker.read_all(topic)}) < 3:
            assert time.monotonic() < deadline
            provider.send(make_batch(topic, keys, keys=keys))
    finally:
        provider.close(5)


@by_scheme
@pytest.mark.parametrize("beside", [True, False], ids=["beside-another", "alone"])
def test_an_unknown_topic_blocks_and_rejects_nothing(
    beside: bool, kind: Kind, kafka_broker: KafkaBroker, kafka_topic: NewTopic
) -> None:
    """kafka-python tells it differently where a lane has no other topic, as nearly all have none."""
    known = kafka_topic()
    provider = kind.make(kafka_broker.bootstrap, create_topics=False, connect_timeout=1)
    try:
        for _ in range(3):
            with pytest.raises(ProviderUnusable, match="'nowhere' does not exist.*kafka-topics.sh"):
                provider.send(make_batch([known, "nowhere"] if beside else "nowhere", [b"1", b"2"]))
    finally:
        provider.close(5)
    assert kafka_broker.read_all(known) == []


def test_an_unknown_topic_holds_up_its_lane_and_no_other(
    kafka_broker: KafkaBroker, kafka_topic: NewTopic, tmp_path: Path
) -> None:
    """It goes on by itself, in order and with nothing buried, once the topic is there."""
    known, missing = kafka_topic(), f"test-{uuid.uuid4().hex}"
    url = f"kafka://{kafka_broker.bootstrap}?create_topics=false&connect_timeout=1s"
    with RoutedBuffer(tmp_path / "b", url, lanes={"other": {"topics": missing}}, retry_wait_max=0.3) as buffer:
        buffer.write_many(missing, [b"1", b"2"])
        deadline = time.monotonic() + 30
        while (blocked := buffer.status()["other"]).state != "blocked":
            assert time.monotonic() < deadline, blocked
            time.sleep(0.02)  # a state can only be looked at
        buffer.write_many(known, [b"3", b"4"])
        buffer.lanes["main"].flush(30)
        assert f"topic '{missing}' does not exist" in blocked.state_reason
        assert "give it a lane of its own" in blocked.state_reason
        assert (blocked.dead, blocked.resident_messages) == (0, 2)
        kafka_broker.create_topic(missing)
        buffer.flush(30)
    assert [record.value for record in kafka_broker.read_all(missing)] == [b"1", b"2"]
    assert [record.value for record in kafka_broker.read_all(known)] == [b"3", b"4"]


def test_what_the_status_shows(provider: Provider, kafka_broker: KafkaBroker, kind: Kind) -> None:
    facts = provider.describe()
    assert facts["path"] == kind.path
    assert facts["client"].startswith(kind.client)
    assert provider.destination() == facts["cluster"] != ""
    assert provider.check().ok


#: What gunicorn does with --preload and workers of gevent: to import, fork and patch, in this order.
_PATCHED_AFTER_THE_FORK = """
import os, sys
from mbframework import MessageBuffer

with MessageBuffer(sys.argv[1], sys.argv[2], mode="always") as buffer:
    buffer.write(sys.argv[3], b"master")
    buffer.flush(20)
    worker = os.fork()
    if not worker:
        import gevent.hub, gevent.monkey
        gevent.monkey.patch_all()
        gevent.hub.reinit()
        buffer.write(sys.argv[3], b"worker")
        buffer.flush(20)
        buffer.close(5)
        os._exit(0)
    sys.exit(os.waitpid(worker, 0)[1])
"""


def test_workers_that_gevent_patches_after_the_fork(
    kafka_broker: KafkaBroker, kafka_topic: NewTopic, tmp_path: Path
) -> None:
    topic = kafka_topic()
    command = [sys.executable, "-W", "ignore", "-c", _PATCHED_AFTER_THE_FORK, str(tmp_path / "b")]
    subprocess.run([*command, f"kafka://{kafka_broker.bootstrap}", topic], timeout=60, check=True)
    assert sorted(record.value or b"" for record in kafka_broker.read_all(topic)) == [b"master", b"worker"]


@by_scheme
def test_the_documented_example_works(
    kind: Kind, kafka_broker: KafkaBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # The others show options, which URLs and mappings of elsewhere have.
    for example in documented_examples(kind.scheme)[:2]:
        assert "127.0.0.1:9092" in example
        topic = f"temperature-{kind.scheme}"
        exec(example.replace("127.0.0.1:9092", kafka_broker.bootstrap).replace("temperature", topic), {})


@by_scheme
def test_a_lane_leaves_nothing_behind(
    kind: Kind, kafka_broker: KafkaBroker, kafka_topic: NewTopic, promised: Callable[[float], float]
) -> None:
    """Also after a failed open; the fixture of all tests looks for threads and sockets."""
    provider = kind.make(kafka_broker.bootstrap)
    context = Context(buffer_id="0" * 32, lane="0", run=b"\0" * 16)
    provider.open(context)
    provider.send(make_batch(kafka_topic(), [b"1"]))
    provider.close(5)
    provider.close(5)
    nobody = kind.make("127.0.0.1:1", connect_timeout=0.5)
    started = time.monotonic()
    with pytest.raises(SendFailed, match="127.0.0.1:1.*Connection refused"):
        nobody.open(context)
    assert time.monotonic() - started < promised(3)
    nobody.close(5)
    gc.collect()
