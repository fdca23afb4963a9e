"""URLs as users of a broker write them elsewhere: other names of a provider, and those that mean TLS."""

from __future__ import annotations

from typing import Any

import pytest

from mbframework.plugins.options import parse_options
from mbframework.plugins.registry import load
from mbframework.plugins.url import parse_url


@pytest.mark.parametrize(
    ("url", "provider", "tls"),
    [
        ("redis://h/2", "redis", False),
        ("rediss://h/2", "redis", True),
        ("mqtt://h", "mqtt", False),
        ("mqtts://h?tls_verify=false", "mqtt", True),
        ("rabbitmq://h/shop", "rabbitmq", False),
        ("amqp://h/shop", "rabbitmq", False),
        ("amqps://h/shop", "rabbitmq", True),
        ("postgres://h/db", "postgres", False),
        ("postgresql://h/db", "postgres", False),
    ],
)
def test_a_scheme_names_its_provider_and_turns_tls_on(url: str, provider: str, tls: bool) -> None:
    parsed = parse_url(url)
    declared = load(parsed.scheme)
    options: Any = parse_options(parsed.scheme, declared.options, url=parsed)
    assert (declared.name, options.tls) == (provider, tls)
