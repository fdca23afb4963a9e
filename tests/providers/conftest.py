"""Fixtures: providers that a URL makes, and a broker for the contract of both Kafka providers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from mbframework.provider import Provider
from mbframework.testing.conformance import ProviderContract, lifecycle
from tests.kafka_fixture import require_kafka
from tests.providers.batches import context
from tests.providers.kafka_contract import LinedBroker
from tests.providers.made import New, create

LONG = os.environ.get("MBFRAMEWORK_TEST_KIT") == "long"
#: The one rule that waits until a provider gives up; every other one must hold before.
_GIVES_UP = "test_a_frozen_destination_loses_nothing"


@pytest.fixture(autouse=True)
def unhurried(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the contract gives a provider so many seconds for is ``promised`` within them; and two kills are enough,
    but with ``MBFRAMEWORK_TEST_KIT=long``."""
    rule = request.instance
    if not isinstance(rule, ProviderContract):
        return
    # Not an argument: then all of these would be for `make torture`.
    promised: Callable[[float], float] = request.getfixturevalue("promised")
    for name in ("stopping_timeout", "parting_timeout", "answer_timeout", "recovery_timeout"):
        seconds = getattr(rule, name)
        monkeypatch.setattr(rule, name, max(seconds, promised(seconds)))
    monkeypatch.setattr(lifecycle, "_SLACK_S", promised(lifecycle._SLACK_S))
    if not LONG:
        monkeypatch.setattr(rule, "kills", min(rule.kills, 2))
    if hasattr(rule, "patience") and request.node.originalname != _GIVES_UP:
        monkeypatch.setattr(rule, "patience", "60s")


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
        yield broker
