"""Fixtures: providers that a URL makes, and a broker for the contract of both Kafka providers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mbframework.provider import Provider
from tests.kafka_fixture import require_kafka
from tests.providers.batches import context
from tests.providers.kafka_contract import LinedBroker
from tests.providers.made import New, create


@pytest.fixture
def new() -> Iterator[New]:
    """Makes and opens providers; they are closed after the test."""
    made: list[Provider] = []

    def make(url: str, lane: str = "main") -> Provider:
        provider = create(url, lane)
        made.append(provider)
        provider.open(context(lane))
        return provider

    yield make
    for provider in made:
        provider.close(1)


@pytest.fixture(scope="session")
def kafka_on_a_line() -> Iterator[LinedBroker]:
    """For both providers, one after the other; it may be killed."""
    require_kafka()
    broker = LinedBroker()
    if not broker.controllable:
        pytest.skip("this test needs a broker of its own; unset MBFRAMEWORK_TEST_KAFKA")
    with broker:
        broker.create_topic("mbframework-positions")
        yield broker
