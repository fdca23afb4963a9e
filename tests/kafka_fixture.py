"""The fixture ``kafka_broker``: one real Apache Kafka for the whole run.

Without a broker its tests are skipped; the reason names the command that enables them.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping

import pytest

from mbframework.testing.kafka import BrokerError, KafkaBroker
from mbframework.testing.kafka_jars import jars


def pytest_configure(config: pytest.Config) -> None:
    """kafka-python reads its schemas with functions that Python 3.11 and 3.12 call deprecated."""
    config.addinivalue_line("filterwarnings", "ignore:(read_text|open_text) is deprecated:DeprecationWarning")


def require_kafka() -> None:
    """Skip the test where no broker can be had."""
    reason = KafkaBroker.available()
    try:
        if reason is None and KafkaBroker().controllable:
            jars()
    except BrokerError as error:
        reason = str(error)
    if reason is not None:
        pytest.skip(f"no Kafka broker: {reason}")


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[KafkaBroker]:
    """A running broker with a plain listener, shared by all tests: each uses topics of its own.

    A test that kills or freezes it leaves it running, and asks for ``kafka_control`` instead.
    """
    require_kafka()
    with KafkaBroker() as broker:
        yield broker


@pytest.fixture
def kafka_control(kafka_broker: KafkaBroker) -> Iterator[KafkaBroker]:
    """The same broker for a test that kills or freezes it; it runs again afterwards, however the test ended."""
    if not kafka_broker.controllable:
        pytest.skip("this test kills the broker, which is not ours; unset MBFRAMEWORK_TEST_KAFKA")
    yield kafka_broker
    kafka_broker.ensure_running()


@pytest.fixture
def kafka_topic(kafka_broker: KafkaBroker) -> Callable[..., str]:
    """Makes a topic with a name of its own: ``kafka_topic(partitions=1, config=None) -> name``."""

    def create(partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        name = f"test-{uuid.uuid4().hex}"
        kafka_broker.create_topic(name, partitions, config)
        return name

    return create
