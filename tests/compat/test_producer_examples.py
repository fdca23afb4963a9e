"""kafka-python's own examples for its producer, with the import changed and a directory named; and what its
documentation says of each method, held against both."""

from __future__ import annotations

import inspect
import json
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import kafka
import pytest
from kafka.errors import IllegalStateError as OriginalIllegalStateError
from kafka.producer.future import FutureRecordMetadata as OriginalFuture
from kafka.producer.future import RecordMetadata as OriginalMetadata
from kafka.serializer import DefaultSerializer, JsonSerializer
from mbframework_fake.provider import FakeProvider

from mbframework import compat
from mbframework.compat import KafkaError, KafkaProducer, KafkaTimeoutError, UnsupportedOperation
from mbframework.testing.kafka import KafkaBroker
from tests.compat.rig import WAIT_S, fates
from tests.engine.rig import FAST

log = logging.getLogger(__name__)


class Arrived(NamedTuple):
    """A message as a consumer sees it."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


class Place(NamedTuple):
    """Where the examples send to, and how to read what arrived."""

    arguments: dict[str, Any]
    topic: Callable[[], str]
    arrived: Callable[[str], list[Arrived]]


def fake_place() -> Place:
    name = uuid.uuid4().hex

    def arrived(topic: str) -> list[Arrived]:
        return [
            Arrived(message.key, message.value, [(name, value or b"") for name, value in message.headers])
            for message in FakeProvider.store(name).messages
            if message.topic == topic
        ]

    return Place({"provider": f"fake://{name}"}, lambda: "foobar", arrived)


def file_place(path: Path) -> Place:
    def arrived(topic: str) -> list[Arrived]:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [
            Arrived(
                None if line["key"] is None else line["key"].encode(),
                None if line["value"] is None else line["value"].encode(),
                [(name, value.encode()) for name, value in line["headers"]],
            )
            for line in lines
            if line["topic"] == topic
        ]

    return Place({"provider": f"file:{path}"}, lambda: "foobar", arrived)


def kafka_place(broker: KafkaBroker, make_topic: Callable[[], str]) -> Place:
    def arrived(topic: str) -> list[Arrived]:
        return [Arrived(record.key, record.value, list(record.headers)) for record in broker.read_all(topic)]

    return Place({"bootstrap_servers": broker.bootstrap}, make_topic, arrived)


@pytest.fixture(params=["fake", "file", "kafka"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "fake":
        return fake_place()
    if request.param == "file":
        return file_place(tmp_path / "arrived.jsonl")
    return kafka_place(request.getfixturevalue("kafka_broker"), request.getfixturevalue("kafka_topic"))


@pytest.fixture
def make(place: Place, tmp_path: Path) -> Iterator[Callable[..., KafkaProducer]]:
    """``KafkaProducer`` as the examples call it; the place and the directory are added."""
    made: list[KafkaProducer] = []

    def producer(**arguments: Any) -> KafkaProducer:
        if made:
            # A file has one writer.
            made[-1].close()
        kafkas = {} if "provider" in place.arguments else arguments
        serializers = {name: value for name, value in arguments.items() if name.endswith("_serializer")}
        made.append(
            KafkaProducer(
                buffer_directory=tmp_path / f"outbox-{len(made)}",
                **FAST | {"close_timeout": WAIT_S} | kafkas | serializers | place.arguments,
            )
        )
        return made[-1]

    yield producer
    if made:
        made[-1].close()


def test_the_examples_of_its_readme(place: Place, make: Callable[..., KafkaProducer]) -> None:
    # Fire and forget.
    foobar = place.topic()
    producer = make()
    for _ in range(100):
        producer.send(foobar, b"some_message_bytes")
    # The status of one message.
    future = producer.send(foobar, b"another_message")
    result = future.get(timeout=60)
    assert (result.topic, result.serialized_value_size) == (foobar, 15)
    # Block until all are delivered.
    producer.flush()
    # A key.
    producer.send(foobar, key=b"foo", value=b"bar")
    # Headers.
    producer.send(foobar, value=b"c29tZSBzZWNyZXQ=", headers=[("content-encoding", b"base64")])
    producer.flush()
    assert sorted(place.arrived(foobar), key=repr) == sorted(
        [
            *[Arrived(None, b"some_message_bytes", [])] * 100,
            Arrived(None, b"another_message", []),
            Arrived(b"foo", b"bar", []),
            Arrived(None, b"c29tZSBzZWNyZXQ=", [("content-encoding", b"base64")]),
        ],
        key=repr,
    )
    assert producer.metrics()["producer-metrics"]["record-send-total"] == 103


def test_its_serializers_and_compression(place: Place, make: Callable[..., KafkaProducer]) -> None:
    topic = place.topic()
    make(value_serializer=JsonSerializer()).send(topic, {"foo": "bar"}).get(WAIT_S)
    make(key_serializer=DefaultSerializer()).send(topic, key="ping", value=b"1234").get(WAIT_S)
    # As before kafka-python 3.0.
    make(value_serializer=lambda v: json.dumps(v).encode("utf-8")).send(topic, ["x"]).get(WAIT_S)
    producer = make(compression_type="gzip")
    for i in range(1000):
        producer.send(topic, b"msg %d" % i)
    producer.flush()
    found = place.arrived(topic)
    assert {(each.key, each.value) for each in found[:3]} == {
        (None, b'{"foo": "bar"}'),
        (b"ping", b"1234"),
        (None, b'["x"]'),
    }
    assert {each.value for each in found[3:]} == {b"msg %d" % i for i in range(1000)}


def test_its_example_of_callbacks(place: Place, make: Callable[..., KafkaProducer]) -> None:
    producer = make()
    topic = place.topic()
    succeeded: list[tuple[str, int, int]] = []
    failed: list[BaseException] = []

    def on_send_success(record_metadata: compat.RecordMetadata) -> None:
        succeeded.append((record_metadata.topic, record_metadata.partition, record_metadata.offset))

    def on_send_error(excp: BaseException) -> None:
        failed.append(excp)

    producer.send(topic, b"raw_bytes").add_callback(on_send_success).add_errback(on_send_error)
    producer.flush()
    assert succeeded == [(topic, -1, -1)]
    assert not failed
    try:
        producer.send(topic, b"again").get(timeout=60)
    except KafkaError:
        log.exception("its example does so")
        raise


def test_a_tombstone_for_a_key(place: Place, make: Callable[..., KafkaProducer]) -> None:
    topic = place.topic()
    metadata = make().send(topic, key=b"gone").get(WAIT_S)
    assert (metadata.serialized_key_size, metadata.serialized_value_size) == (4, -1)
    assert place.arrived(topic) == [Arrived(b"gone", None, [])]


def test_a_broker_that_is_killed_costs_no_message_and_no_future(
    kafka_control: KafkaBroker, kafka_topic: Callable[[], str], tmp_path: Path, promised: Callable[[float], float]
) -> None:
    topic = kafka_topic()
    with KafkaProducer(
        bootstrap_servers=kafka_control.bootstrap, buffer_directory=tmp_path / "outbox", close_timeout=60,
        retry_wait_max="0.5s",
    ) as producer:  # fmt: skip
        futures = [producer.send(topic, b"%d" % i, key=b"k") for i in range(500)]
        futures[0].get(60)
        kafka_control.kill()
        begun = time.monotonic()
        futures += [producer.send(topic, b"%d" % i, key=b"k") for i in range(500, 1500)]
        assert time.monotonic() - begun < promised(5), "send() does not wait for a broker that is away"
        kafka_control.restart()
        producer.flush(60)
        assert fates(futures) == {"delivered": 1500}
    values = [int(record.value or b"") for record in kafka_control.read_all(topic)]
    assert list(dict.fromkeys(values)) == list(range(1500))


def test_the_program_of_the_page(
    kafka_broker: KafkaBroker, kafka_topic: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = kafka_topic()
    text = (Path(__file__).parents[2] / "docs" / "compat.md").read_text()
    program = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[0]
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(
        program.replace('["k1:9092", "k2:9092"]', repr(kafka_broker.bootstrap)).replace('"orders"', repr(topic)), names
    )
    assert names["metadata"].topic == topic
    assert [record.value for record in kafka_broker.read_all(topic)] == [b"value"]


def test_the_page_names_every_outcome() -> None:
    text = (Path(__file__).parents[2] / "docs" / "compat.md").read_text().partition("## What became of a message")[2]
    named = re.findall(r"^\| `(\w+)` \| ", text.partition("The first six")[0], re.MULTILINE)
    outcomes = {
        name
        for name in compat.__all__
        if issubclass(getattr(compat, name), compat.NotDelivered | compat.OutcomeUnknown)
    }
    assert set(named) == outcomes - {"NotDelivered"}
    assert [issubclass(getattr(compat, name), compat.NotDelivered) for name in named] == [True] * 6 + [False] * 2


# ---- against the original


def parameters(function: Callable[..., object]) -> list[tuple[str, object]]:
    return [(each.name, each.default) for each in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize(
    "name",
    [
        "send", "partitions_for", "bootstrap_connected", "init_transactions", "begin_transaction",
        "send_offsets_to_transaction", "commit_transaction", "abort_transaction", "flush", "metrics",
    ],
)  # fmt: skip
def test_methods_take_what_the_original_takes(name: str) -> None:
    assert parameters(getattr(KafkaProducer, name)) == parameters(getattr(kafka.KafkaProducer, name))


def test_nothing_public_is_missing() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    inner = {"DEFAULT_CONFIG", "DEPRECATED_CONFIGS", "max_usable_produce_magic"}
    assert public(kafka.KafkaProducer) - inner <= public(KafkaProducer)
    assert public(OriginalFuture) - {"args", "rebind", "error_on_callbacks"} <= public(compat.FutureRecordMetadata)
    assert compat.RecordMetadata._fields[:-1] == OriginalMetadata._fields


BAD_CALLS: list[dict[str, Any]] = [
    {"topic": 5, "value": b"x"},
    {"topic": "", "value": b"x"},
    {"topic": "no spaces", "value": b"x"},
    {"topic": "x" * 250, "value": b"x"},
    {"value": None},
    {"value": "text"},
    {"value": b"x", "key": 5},
    {"value": b"x", "headers": {"a": b"b"}},
    {"value": b"x", "headers": [("a", "text")]},
    {"value": b"x", "headers": [["a", b"list"]]},
    {"value": b"x", "partition": -1},
    {"value": b"x", "partition": "1"},
    {"value": b"x", "timestamp_ms": 1.5},
    {"value": b"x", "timestamp_ms": "now"},
    {"value": bytes(1_048_576)},
]


def test_bad_calls_raise_what_the_original_raises(
    kafka_broker: KafkaBroker, kafka_topic: Callable[[], str], tmp_path: Path
) -> None:
    topic = kafka_topic()

    def raised(producer: Any) -> list[str]:
        found = []
        for call in BAD_CALLS:
            with pytest.raises(Exception) as caught:
                producer.send(**{"topic": topic} | call)
            found.append(type(caught.value).__name__)
        return found

    original = kafka.KafkaProducer(bootstrap_servers=kafka_broker.bootstrap)
    try:
        expected = raised(original)
    finally:
        original.close()
    with KafkaProducer(bootstrap_servers=kafka_broker.bootstrap, buffer_directory=tmp_path / "outbox") as ours:
        assert raised(ours) == expected
        assert ours.buffer.status().accepted == 0
    with pytest.raises(compat.IllegalStateError):
        ours.send(topic, b"x")
    with pytest.raises(OriginalIllegalStateError):
        original.send(topic, b"x")
    ours.close()


def test_what_a_buffer_cannot_says_what_to_do(tmp_path: Path) -> None:
    with KafkaProducer(buffer_directory=tmp_path / "outbox", provider="fake:") as producer:
        with pytest.raises(UnsupportedOperation, match="exactly-once"):
            producer.init_transactions()
        with pytest.raises(UnsupportedOperation, match="KafkaAdminClient"):
            producer.partitions_for("foobar")


def test_a_full_buffer_is_a_timeout(tmp_path: Path) -> None:
    with KafkaProducer(
        buffer_directory=tmp_path / "outbox", provider="fake:", mode="always", on_full="block", max_block_ms=50,
        segment_size="64KiB", total_size="256KiB", min_free=0, close_timeout=0,
    ) as producer:  # fmt: skip
        producer.buffer.pause()
        with pytest.raises(KafkaTimeoutError, match="block_timeout"):
            for _ in range(400):
                producer.send("orders", bytes(1000))
