"""Providers made by a URL, as a buffer makes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mbframework.errors import ConfigurationError
from mbframework.plugins.source import resolve
from tests.providers.batches import context

#: What the fixture ``new`` is: ``new(url, lane="main")`` gives an open provider of the type that the URL names.
New = Callable[..., Any]


def create(url: str, lane: str = "main") -> Any:
    """A provider that is not open yet."""
    source = resolve(url)
    assert source is not None
    return source.create(context(lane))


def opened(url: str, lane: str = "main") -> Any:
    """A provider that the test closes itself."""
    provider = create(url, lane)
    provider.open(context(lane))
    return provider


def why_refused(url: str, option: str) -> str:
    """The words with which a URL is refused because of an option."""
    with pytest.raises(ConfigurationError) as refused:
        create(url)
    assert refused.value.option == option
    return str(refused.value)
