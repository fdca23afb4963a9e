"""The page of each provider in the documentation: its URLs are understood, its table has every option.

The examples are run by the tests of each provider, since they need its server.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from mbframework.plugins.options import describe_options
from mbframework.plugins.registry import load
from mbframework.plugins.source import resolve
from tests.providers.batches import documented_urls
from tests.providers.provider_pages import documented_options

#: What the URLs of a page begin with.
_SCHEMES = {
    "confluent": ["confluent"],
    "http": ["http", "https"],
    "kafka": ["kafka"],
    "mqtt": ["mqtt", "mqtts"],
    "nats": ["nats"],
    "postgres": ["postgres"],
    "rabbitmq": ["rabbitmq", "amqps"],
    "redis": ["redis", "rediss"],
}


def _shown() -> list[str]:
    return [url for page, schemes in _SCHEMES.items() for scheme in schemes for url in documented_urls(page, scheme)]


@pytest.mark.parametrize("url", sorted(set(_shown())))
def test_every_url_is_understood(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOOK_SECRET", "API_KEY", "NATS_TOKEN"):
        monkeypatch.setenv(name, "x")
    # Secrets that are in files are read at once.
    for place in ("/run/secrets/token", "/etc/nats/app.seed"):
        (tmp_path / Path(place).name).write_text("x")
        url = url.replace(place, f"{tmp_path}/{Path(place).name}")
    assert resolve(url) is not None


# The pages of the two Kafka providers tell their options as they tell of what these are for.
@pytest.mark.parametrize("page", sorted(_SCHEMES.keys() - {"kafka", "confluent"}))
def test_every_option_is_in_the_table(page: str) -> None:
    assert documented_options(page) == [info.name for info in describe_options(page, load(page).options)]
