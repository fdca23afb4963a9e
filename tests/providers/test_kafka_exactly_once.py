"""The Kafka providers exactly once: commits that nobody answers, two programs on one lane, refusals, rights."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mbframework_confluent.transactions as by_confluent
import mbframework_kafka.transactions as by_kafka
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbframework.errors import ConfigurationError, ProviderUnusable, SendFailed
from mbframework.message import NO_TIMESTAMP, Batch, Position
from mbframework.provider import Context, Provider
from tests.kafka_fixture import require_kafka
from tests.providers.kafka_batches import make_batch
from tests.providers.kafka_kinds import CONFLUENT, KAFKA, Kind, by_scheme, kind
from tests.providers.kafka_proxied import PASSWORD, USER, ProxiedBroker
from tests.providers.kafka_proxy import END_TXN, Moment, ProduceProxy

__all__ = ["kind"]

RUN = b"r" * 16
PLACE = "positions"


@pytest.fixture(scope="module")
def kafka_proxied() -> Iterator[tuple[ProxiedBroker, ProduceProxy]]:
    """A broker with a proxy in front of it, and a guarded door."""
    require_kafka()
    with ProduceProxy() as proxy, ProxiedBroker(proxy) as broker:
        broker.create_topic(PLACE)
        yield broker, proxy


class Bench:
    """One topic, and lanes of one buffer; providers that are made are closed at the end."""

    def __init__(self, broker: ProxiedBroker, proxy: ProduceProxy) -> None:
        self.broker, self.proxy = broker, proxy
        self.topic = f"exactly-{uuid.uuid4().hex}"
        self.buffer_id = uuid.uuid4().hex
        self.broker.create_topic(self.topic)
        self._made: list[Provider] = []

    def make(self, kind: Kind, **options: Any) -> Provider:
        made = kind.make(self.broker.proxied, **{"delivery": "exactly-once", "position_topic": PLACE, **options})
        self._made.append(made)
        return made

    def context(self) -> Context:
        return Context(buffer_id=self.buffer_id, lane="main", run=RUN)

    def opened(self, kind: Kind, **options: Any) -> Provider:
        made = self.make(kind, **options)
        made.open(self.context())
        return made

    def batch(self, first: int, count: int, **columns: Any) -> Batch:
        """Messages ``first`` to ``first + count - 1``, by their sequences."""
        batch = make_batch(self.topic, [b"%d" % n for n in range(first, first + count)], **columns)
        batch.sequences, batch.position = range(first, first + count), Position(first + count, RUN)
        return batch

    def visible(self) -> list[int]:
        """What a consumer finds that leaves out what was not committed."""
        return [int(record.value or b"") for record in self.broker.read_all(self.topic, "read_committed")]

    def close(self) -> None:
        for made in self._made:
            made.close(5)


@pytest.fixture
def bench(kafka_proxied: tuple[ProxiedBroker, ProduceProxy]) -> Iterator[Bench]:
    """See there; afterwards nothing is held up any more."""
    made = Bench(*kafka_proxied)
    through = made.proxy.meet
    yield made
    made.proxy.meet = through
    made.close()


def persist(provider: Provider, batch: Batch, timeout: float = 60.0) -> None:
    """Send it again and again, as a lane does."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            provider.send(batch)
        except SendFailed:
            if time.monotonic() > deadline:
                raise
        else:
            return


@pytest.mark.parametrize("moment", [Moment.ASKED, Moment.ANSWERED])
@by_scheme
def test_a_commit_without_an_answer(kind: Kind, moment: Moment, bench: Bench) -> None:
    """It was made or it was not: the position says so, and the batch is there once in either case."""
    provider = bench.opened(kind, send_timeout=1.0)
    persist(provider, bench.batch(1, 3))

    def cut(key: int, now: Moment) -> None:
        if key == END_TXN and now is moment:
            raise ConnectionAbortedError

    before, bench.proxy.meet = bench.proxy.meet, cut
    with pytest.raises(SendFailed, match="acknowledge them within 1 s") as caught:
        provider.send(bench.batch(4, 3))
    assert caught.value.uncertain
    assert not caught.value.rejected
    assert provider.committed() == Position(4, RUN)
    bench.proxy.meet = before
    persist(provider, bench.batch(4, 5))
    assert provider.committed() == Position(9, RUN)
    assert bench.visible() == list(range(1, 9))


@by_scheme
def test_a_commit_that_takes_for_ever_is_closed(kind: Kind, bench: Bench, promised: Callable[[float], float]) -> None:
    """close() returns, and send() ends as uncertain."""
    provider = bench.opened(kind)
    held, go_on = threading.Event(), threading.Event()

    def hold(key: int, now: Moment) -> None:
        if key == END_TXN and now is Moment.ASKED:
            held.set()
            go_on.wait(120)

    bench.proxy.meet = hold
    try:
        with ThreadPoolExecutor(1) as sender:
            stuck = sender.submit(provider.send, bench.batch(1, 3))
            assert held.wait(60)
            began = time.monotonic()
            provider.close(1.0)
            error = stuck.exception(60)
        assert time.monotonic() - began < promised(4)
        assert isinstance(error, SendFailed)
        assert error.uncertain
    finally:
        go_on.set()


@by_scheme
def test_a_zombie_does_not_deliver(kind: Kind, bench: Bench) -> None:
    """What it has begun stays invisible, also when its commit comes late; it is told why, and stops nobody."""
    zombie, heir = bench.opened(kind), bench.make(kind)
    zombie.send(bench.batch(1, 2))
    held, go_on = threading.Event(), threading.Event()
    first = threading.Semaphore(1)

    def hold(key: int, now: Moment) -> None:
        if key == END_TXN and now is Moment.ASKED and first.acquire(blocking=False):
            held.set()
            go_on.wait(30)

    bench.proxy.meet = hold
    with ThreadPoolExecutor(1) as sender:
        late = sender.submit(zombie.send, bench.batch(3, 2))
        try:
            assert held.wait(60)
            heir.open(bench.context())
            assert heir.committed() == Position(3, RUN)
            another_run = bench.batch(3, 4)
            another_run.position = Position(7, b"h" * 16)
            heir.send(another_run)
        finally:
            go_on.set()
        with pytest.raises(SendFailed, match="transactional id 'mbframework.*' was taken from us"):
            late.result(60)
    with pytest.raises(ProviderUnusable, match="another program has delivered messages .* up to sequence 6"):
        zombie.send(bench.batch(3, 2))
    # The zombie did not take the transactional id back when it looked.
    heir.send(bench.batch(7, 1))
    assert bench.visible() == list(range(1, 8))


@by_scheme
def test_whoever_is_fenced_without_cause_goes_on(kind: Kind, bench: Bench) -> None:
    """Somebody has opened the lane and delivered nothing, or a transaction has taken too long."""
    provider = bench.opened(kind)
    provider.send(bench.batch(1, 2))
    bench.opened(kind).close(5)
    with pytest.raises(SendFailed, match="was taken from us"):
        provider.send(bench.batch(3, 2))
    provider.send(bench.batch(3, 2))
    assert bench.visible() == [1, 2, 3, 4]


def test_a_refused_message_undoes_its_batch(kind: Kind, bench: Bench) -> None:
    """Kafka does not take it for its timestamp, and names it or not: it is found, and the position stays."""
    provider = bench.opened(kind)
    provider.send(bench.batch(1, 1))
    future = (time.time_ns() // 10**9 + 10 * 86_400) * 10**9
    times = [NO_TIMESTAMP] * 9
    times[4] = future
    with pytest.raises(SendFailed) as caught:
        provider.send(bench.batch(2, 9, timestamps=times))
    assert set(caught.value.rejected) == {4}
    assert caught.value.undelivered == [0, 1, 2, 3, 5, 6, 7, 8]
    assert provider.committed() == Position(2, RUN)
    assert bench.visible() == [1]
    provider.send(bench.batch(2, 9))
    assert bench.visible() == list(range(1, 11))


def test_a_message_to_a_topic_of_kafkas_own_is_found(kind: Kind, bench: Bench) -> None:
    """In a transaction the broker says only that a right is missing."""
    provider = bench.opened(kind)
    batch = bench.batch(1, 3)
    batch.topics = [bench.topic, "__consumer_offsets", bench.topic]
    with pytest.raises(SendFailed) as caught:
        provider.send(batch)
    assert (set(caught.value.rejected), caught.value.undelivered) == ({1}, [0, 2])
    assert bench.visible() == []


def test_a_lowered_limit_costs_nothing(kind: Kind, bench: Bench) -> None:
    """Record batches above the topic's limit are made smaller, and the one message above it is found."""
    from tests.providers.kafka_batches import alter

    alter(bench.broker, bench.topic, "max.message.bytes", "20000")
    provider = bench.opened(kind)
    batch = bench.batch(1, 40)
    batch.values = [b"%d" % n + b" " * 2_000 for n in range(1, 41)]
    provider.send(batch)
    assert bench.visible() == list(range(1, 41))
    large = bench.batch(41, 3)
    large.values = [b"41", b"42" + b" " * 50_000, b"43"]
    with pytest.raises(SendFailed) as caught:
        provider.send(large)
    assert set(caught.value.rejected) == {1}
    assert bench.visible() == list(range(1, 41))


def test_one_scheme_follows_the_other(bench: Bench) -> None:
    """They keep the position in the same place."""
    at = 1
    for one in (KAFKA, CONFLUENT, KAFKA):
        provider = bench.opened(one)
        assert provider.committed() == (Position(at, RUN) if at > 1 else None)
        provider.send(bench.batch(at, 2))
        provider.close(5)
        at += 2
    assert bench.visible() == [1, 2, 3, 4, 5, 6]


@by_scheme
def test_a_position_that_kafka_forgot(kind: Kind, bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Kafka forgets offsets after a week without a commit: it goes on where it was, and says so."""
    from kafka.admin import KafkaAdminClient

    provider = bench.opened(kind)
    provider.send(bench.batch(1, 2))
    provider._drop()  # type: ignore[attr-defined]
    admin = KafkaAdminClient(bootstrap_servers=bench.broker.bootstrap)
    try:
        admin.delete_groups([f"mbframework.{bench.buffer_id}.main"])
    finally:
        admin.close()
    with caplog.at_level(logging.WARNING, "mbframework"):
        provider.send(bench.batch(3, 2))
    assert "the position of this lane is gone" in caplog.text
    assert bench.visible() == [1, 2, 3, 4]
    assert provider.committed() == Position(5, RUN)


@by_scheme
def test_an_offset_of_somebody_else(kind: Kind, bench: Bench) -> None:
    from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition

    group = f"mbframework.{bench.buffer_id}.main"
    consumer = KafkaConsumer(bootstrap_servers=bench.broker.bootstrap, group_id=group, enable_auto_commit=False)
    try:
        place = TopicPartition(PLACE, 0)
        consumer.assign([place])
        consumer.commit({place: OffsetAndMetadata(7, "theirs", -1)})
    finally:
        consumer.close()
    with pytest.raises(ProviderUnusable, match="'theirs'.*choose another transaction_prefix"):
        bench.opened(kind)


#: What the docs ask for: on the transactional id, on the group, for positions, for messages.
RIGHTS = {
    "transactional id": ("TRANSACTIONAL_ID", "{prefix}.", "WRITE"),
    "consumer group": ("GROUP", "{prefix}.", "READ"),
    "position": ("TOPIC", "{prefix}-positions", "READ"),
    "topic": ("TOPIC", "{prefix}-orders", "WRITE"),
}
MISSING = {
    "transactional id": "grant Write and Describe on the transactional id",
    "consumer group": "grant Read on the consumer group",
    "position": "grant Read on the topic|grant Write and Describe on the topic|does not exist",
    "topic": "grant Write and Describe on the topic",
}


@pytest.mark.parametrize("missing", [*MISSING, "nothing"])
@by_scheme
def test_the_rights_that_it_takes(kind: Kind, missing: str, bench: Bench) -> None:
    """Those of the docs are enough, and of each that is missing it is said which."""
    prefix = f"{kind.scheme}-{missing.replace(' ', '-')}"
    topic = f"{prefix}-orders"
    for name in (topic, f"{prefix}-positions"):
        bench.broker.create_topic(name)
    rights = [right for what, right in RIGHTS.items() if what != missing]
    bench.broker.grant(*((resource, name.format(prefix=prefix), operation) for resource, name, operation in rights))
    provider = kind.make(
        bench.broker.guarded, username=USER, password=PASSWORD, delivery="exactly-once", create_topics=False,
        transaction_prefix=prefix, position_topic=f"{prefix}-positions",
    )  # fmt: skip
    batch = make_batch(topic, [b"1"])
    batch.sequences, batch.position = range(1, 2), Position(2, RUN)

    def deliver() -> None:
        provider.open(bench.context())
        provider.send(batch)

    try:
        if missing == "nothing":
            deliver()
            assert provider.committed() == Position(2, RUN)
            return
        with pytest.raises(ProviderUnusable, match=MISSING[missing]):
            deliver()
        assert provider.committed() is None
    finally:
        provider.close(5)


@by_scheme
def test_read_is_what_positions_take(kind: Kind, bench: Bench) -> None:
    """Who may see the position topic, and not read it, is told that Read is missing."""
    prefix = f"{kind.scheme}-described"
    for name in (f"{prefix}-orders", f"{prefix}-positions"):
        bench.broker.create_topic(name)
    rights = [("TOPIC", f"{prefix}-positions", "DESCRIBE")]
    rights += [right for what, right in RIGHTS.items() if what != "position"]
    bench.broker.grant(*((resource, name.format(prefix=prefix), operation) for resource, name, operation in rights))
    provider = kind.make(
        bench.broker.guarded, username=USER, password=PASSWORD, delivery="exactly-once", create_topics=False,
        transaction_prefix=prefix, position_topic=f"{prefix}-positions",
    )  # fmt: skip
    batch = make_batch(f"{prefix}-orders", [b"1"])
    batch.sequences, batch.position = range(1, 2), Position(2, RUN)
    try:
        provider.open(bench.context())
        with pytest.raises(ProviderUnusable, match=f"grant Read on the topic '{prefix}-positions'"):
            provider.send(batch)
    finally:
        provider.close(5)


@by_scheme
@pytest.mark.parametrize(
    ("options", "option", "words"),
    [
        ({"acks": "1"}, "acks", "needs acks=all"),
        ({"position_topic": "no topic"}, "position_topic", "topic"),
    ],
)
def test_options_that_do_not_go_together(kind: Kind, options: dict[str, Any], option: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        kind.make("127.0.0.1:1", delivery="exactly-once", **options)
    assert caught.value.option == option


@pytest.mark.parametrize(
    ("kind", "name"), [(KAFKA, "enable_idempotence"), (CONFLUENT, "enable.idempotence")], ids=["kafka", "confluent"]
)
def test_transactions_need_idempotence(kind: Kind, name: str) -> None:
    with pytest.raises(ConfigurationError, match="exactly-once needs it"):
        kind.make("127.0.0.1:1", delivery="exactly-once", client={name: "false"})


@given(position=st.builds(Position, st.integers(0, (1 << 63) - 1), st.binary(min_size=16, max_size=16)))
def test_a_position_comes_back(position: Position) -> None:
    """By whichever of the two it was stored."""
    metadata = by_kafka.to_metadata(position)
    assert by_confluent.to_metadata(position) == metadata
    assert by_kafka.to_position(position.sequence, metadata) == position
    assert by_confluent.to_position(position.sequence, metadata) == position


@pytest.mark.parametrize("read", [by_kafka, by_confluent], ids=["kafka", "confluent"])
@given(metadata=st.text(max_size=40) | st.text("0123456789abcdef ", max_size=34).map("mb1 ".__add__))
def test_metadata_of_any_kind(read: Any, metadata: str) -> None:
    """It is a position of ours, or said to be none."""
    try:
        found = read.to_position(1, metadata)
    except read.ForeignOffset:
        return
    assert found is not None
    assert len(found.run) == 16
