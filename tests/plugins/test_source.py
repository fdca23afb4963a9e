from __future__ import annotations

import pytest

from mbframework.errors import BrokenPlugin, ConfigurationError, PluginError, ProviderError, UnknownProvider
from mbframework.message import Batch
from mbframework.plugins.source import ProviderSource, resolve
from mbframework.provider import Context, Provider
from tests.plugins.conftest import GOOD, Install


class Own(Provider):
    def __init__(self, context: Context | None = None) -> None:
        self.lane = context.lane if context else ""

    def send(self, batch: Batch) -> None:
        raise NotImplementedError


def context(lane: str = "main") -> Context:
    return Context(buffer_id="0" * 32, lane=lane, run=bytes(16))


def source_of(*arguments: object) -> ProviderSource:
    source = resolve(*arguments)  # type: ignore[arg-type]
    assert source is not None
    return source


def test_a_url_makes_one_provider_for_each_lane(install: Install) -> None:
    install("a-queue", GOOD, providers="queue")
    source = source_of("queue://u:hunter2@h:1/?rate=2", {"token": "hunter3", "client": {"a": "b"}})
    first, second = source.create(context("one")), source.create(context("two"))
    assert first is not second
    options = first.options  # type: ignore[attr-defined]
    assert (options.hosts, options.password, options.token, options.rate) == (("h:1",), "hunter2", "hunter3", 2.0)
    assert source.name == "queue"
    assert source.display == "queue://u:***@h:1/?rate=2"
    assert source.scrub("401: hunter2, hunter3") == "401: ***, ***"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("queue://h?token=hunter2&rate=2", "queue://h?token=***&rate=2"),
        ("queue://h?client.sasl_password=hunter2&client.a=b", "queue://h?client.sasl_password=***&client.a=b"),
        ("queue://h?password=hunter2", "queue://h?password=***"),
    ],
)
def test_the_display_masks_what_the_plugin_declares_and_what_goes_to_its_client(
    install: Install, url: str, shown: str
) -> None:
    install("a-queue", GOOD, providers="queue")
    source = source_of(url)
    assert source.display == shown
    assert source.scrub("said hunter2") == "said ***"
    assert "hunter2" not in repr(source.create(context()).options)  # type: ignore[attr-defined]


def test_a_secret_user_name_is_masked(install: Install) -> None:
    install("a-queue", GOOD.replace('part="username"', 'part="username", secret=True'), providers="queue")
    assert source_of("queue://hunter2@h").display == "queue://***@h"


def test_a_url_is_checked_at_once(install: Install) -> None:
    install("a-queue", GOOD, providers="queue")
    for url in ("queue://h?rate=fast", "queue://h:0", "no url"):
        with pytest.raises(ConfigurationError):
            resolve(url)
    with pytest.raises(UnknownProvider):
        resolve("quue://h")


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("__import__('nothing_of_that_name')", "ModuleNotFoundError"),
        ("{}[options.password]", r"KeyError: '\*\*\*'"),
        ("42", "returned 'int'"),
    ],
)
def test_a_factory_that_fails_is_the_plugins_fault(install: Install, factory: str, words: str) -> None:
    install("a-queue", GOOD.replace("factory=Queue", f"factory=lambda options: {factory}"), providers="queue")
    source = source_of("queue://u:hunter2@h")
    with pytest.raises(PluginError, match=words) as caught:
        source.create(context())
    assert isinstance(caught.value, BrokenPlugin)
    assert caught.value.plugin == "queue"
    assert "hunter2" not in f"{caught.value!r} {caught.value.__cause__!r}"
    if "returned" not in words:
        assert "mend or reinstall a-queue" in str(caught.value)


def test_an_object_serves_one_lane() -> None:
    provider = Own()
    source = source_of(provider)
    assert (source.name, source.display) == ("Own", "Own")
    assert source.create(context("one")) is provider
    with pytest.raises(ConfigurationError, match="already serves lane 'one'; for lane 'two'"):
        source.create(context("two"))


def test_a_factory_is_called_for_each_lane() -> None:
    source = source_of(Own)
    assert [source.create(context(lane)).lane for lane in "ab"] == ["a", "b"]  # type: ignore[attr-defined]


def test_a_factory_of_the_caller_that_fails_is_named() -> None:
    def make_queue(_: Context) -> Provider:
        raise OSError("no route")

    with pytest.raises(ProviderError, match="factory 'make_queue' failed: OSError: no route") as caught:
        source_of(make_queue).create(context())
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(ProviderError, match="returned 'int'"):
        source_of(lambda _: 42).create(context())


def test_none_writes_only_and_anything_else_is_refused() -> None:
    assert resolve(None) is None
    with pytest.raises(ConfigurationError, match="of type 'int'; expected a URL"):
        source_of(42)
    for provider in (None, Own(), Own):
        with pytest.raises(ConfigurationError, match="options go with a provider URL"):
            resolve(provider, {"rate": 1})
