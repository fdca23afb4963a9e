"""The provider ``fault``: stands in front of another provider and makes it fail, reproducibly.

This module only declares; the provider is in :mod:`mbframework_fault.provider`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbframework.errors import ConfigurationError, PluginError
from mbframework.plugins import ProviderType, hookimpl, option
from mbframework.testing.outages import Outages

if TYPE_CHECKING:
    from mbframework_fault.provider import FaultProvider

_RATES = ("error_rate", "partial_rate", "uncertain_rate", "stuck_rate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which faults come, and how often. Rates are shares from 0 to 1, of sends where nothing else is said."""

    error_rate: float = option(0.0, help="sends that fail before anything arrives", unit="share")
    partial_rate: float = option(0.0, help="sends that fail after the first part of the batch arrived", unit="share")
    uncertain_rate: float = option(0.0, help="sends that arrive and are reported as failed", unit="share")
    stuck_rate: float = option(0.0, help="sends that hang, then go on", unit="share")
    stuck: float = option(30.0, help="how long these hang, the stopping of the buffer notwithstanding", unit="s")
    reject_rate: float = option(0.0, help="messages that are rejected; a retry meets the same verdict", unit="share")
    latency: float = option(0.0, help="time added to each send", unit="s")
    jitter: float = option(0.0, help="up to so much more, at random", unit="s")
    outage: tuple[str, ...] = option((), help="outages as start+length, counted from the first open, as 5s+10s")
    outage_every: float = option(0.0, help="the outages come again in every period of this length; 0: once", unit="s")
    seed: int | None = option(None, help="the same seed and the same sends give the same faults; none: any")

    def __post_init__(self) -> None:
        for name in (*_RATES, "reject_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; expected a share from 0 to 1", option=name)
        if sum(getattr(self, name) for name in _RATES) > 1:
            raise ConfigurationError(
                f"{', '.join(_RATES)} together are more than 1; one send has one fault", option="error_rate"
            )
        Outages.parse(self.outage, self.outage_every)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(Plan):
    """What a URL ``fault:…`` may say."""

    inner: str = option(help="the URL of the provider behind; in it write & as %26 and % as %25", secret=True)

    def __post_init__(self) -> None:
        # Not super(): a dataclass with slots is made anew, and super() would look for the old one.
        Plan.__post_init__(self)
        from mbframework.plugins.source import resolve_url

        try:
            resolve_url(self.inner)
        except PluginError as error:
            raise ConfigurationError(str(error), option="inner") from error


def _make(options: Options) -> FaultProvider:
    from mbframework.plugins.source import resolve_url
    from mbframework_fault.provider import FaultProvider

    return FaultProvider(resolve_url(options.inner), options)


@hookimpl
def mbframework_provider() -> ProviderType:
    """The provider that this plugin brings."""
    return ProviderType(
        api=1,
        name="fault",
        options=Options,
        factory=_make,
        extra="fault",
        summary="stands in front of another provider and makes it fail",
    )
