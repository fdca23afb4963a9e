"""The Kafka providers while the cluster lacks replicas: its trouble, not the messages'. On all paths."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mbframework.errors import SendFailed
from mbframework.provider import Context
from mbframework.testing.kafka import KafkaBroker
from tests.kafka_fixture import require_kafka
from tests.providers.kafka_batches import make_batch
from tests.providers.kafka_kinds import Kind, kind
from tests.providers.kafka_proxy import NOT_ENOUGH_REPLICAS, NOT_ENOUGH_REPLICAS_AFTER_APPEND, ProduceProxy

__all__ = ["kind"]

pytestmark = pytest.mark.xdist_group("kafka replicas")


@pytest.fixture(scope="module")
def proxied() -> Iterator[tuple[KafkaBroker, ProduceProxy]]:
    """A broker that is reached by way of a proxy only."""
    require_kafka()
    with ProduceProxy() as proxy:
        broker = KafkaBroker(properties={"advertised.listeners": f"PLAINTEXT://127.0.0.1:{proxy.port}"})
        if not broker.controllable:
            pytest.skip("this test needs a broker of its own; unset MBFRAMEWORK_TEST_KAFKA")
        with broker:
            host, _, port = broker.bootstrap.partition(":")
            proxy.start((host, int(port)))
            yield broker, proxy


@pytest.mark.parametrize("code", [NOT_ENOUGH_REPLICAS, NOT_ENOUGH_REPLICAS_AFTER_APPEND])
def test_a_missing_replica_is_waited_for(code: int, kind: Kind, proxied: tuple[KafkaBroker, ProduceProxy]) -> None:
    """The client asks again with the same sequences, so that what had been written is not written twice."""
    broker, proxy = proxied
    topic = f"replicas-{code}-{kind.scheme}-{kind.bulk}"
    broker.create_topic(topic, 2)
    values = [b"%04d" % i for i in range(1_000)]
    batch = make_batch(topic, values, partitions=[i % 2 for i in range(1_000)])
    provider = kind.make(broker.bootstrap, send_timeout=4.0)
    try:
        provider.open(Context(buffer_id="0" * 32, lane="0", run=b"\0" * 16))
        proxy.errors.extend([code] * 3)
        provider.send(batch)
        assert not proxy.errors
        proxy.errors.extend([NOT_ENOUGH_REPLICAS] * 1_000)
        with pytest.raises(SendFailed) as caught:
            provider.send(make_batch(topic, [b"later"], partitions=[0]))
        assert not caught.value.rejected
        assert caught.value.undelivered == [0]
        proxy.errors.clear()
        provider.send(make_batch(topic, [b"later"], partitions=[0]))
    finally:
        proxy.errors.clear()
        provider.close(5)
    arrived = [(r.partition, r.value) for r in broker.read_all(topic)]
    assert arrived == [*((0, v) for v in values[::2]), (0, b"later"), *((1, v) for v in values[1::2])]
