"""The provider ``fake``: a broker in memory, for tests, demonstrations and first steps.

This module only declares; the provider is in :mod:`mbframework_fake.provider`,
the broker that it talks to in :mod:`mbframework_fake.broker`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbframework.errors import ConfigurationError
from mbframework.plugins import ProviderType, hookimpl, option
from mbframework.testing.outages import Outages

if TYPE_CHECKING:
    from mbframework_fake.provider import FakeProvider


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a URL ``fake:…`` may say."""

    name: str = option("", help="lanes that give the same name share one broker, which tests can look at", part="hosts")
    rate: float = option(0.0, help="what the broker takes at most; 0: any", unit="messages/s")
    latency: float = option(0.0, help="time until a batch is acknowledged", unit="s")
    jitter: float = option(0.0, help="up to so much more latency, at random", unit="s")
    outage: tuple[str, ...] = option((), help="outages as start+length, counted from the first open, as 5s+10s")
    outage_every: float = option(0.0, help="the outages come again in every period of this length; 0: once", unit="s")
    reject: str = option("", help="reject messages whose value contains this text")
    reject_every: int = option(0, help="reject every n-th message, by sequence; 0: none")
    max_message_bytes: int = option(0, help="the largest message that the broker takes; 0: any", unit="bytes")
    keep: int = option(10_000, help="how many of the latest messages stay in memory; the rest is only counted")
    keep_position: bool = option(False, help="keep the lane's position together with the messages: exactly once")

    def __post_init__(self) -> None:
        for name in ("rate", "reject_every", "max_message_bytes", "keep"):
            if getattr(self, name) < 0:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; expected zero or more", option=name)
        Outages.parse(self.outage, self.outage_every)


def _make(options: Options) -> FakeProvider:
    from mbframework_fake.provider import FakeProvider

    return FakeProvider.from_options(options)


@hookimpl
def mbframework_provider() -> ProviderType:
    """The provider that this plugin brings."""
    return ProviderType(
        api=1,
        name="fake",
        options=Options,
        factory=_make,
        extra="fake",
        summary="a broker in memory, with pace, latency, outages and rejections",
    )
