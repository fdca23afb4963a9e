"""A fixture for the tests of providers that a URL makes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mbframework.provider import Provider
from tests.providers.batches import context
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
