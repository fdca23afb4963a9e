"""Declarations that break a rule: as schemes of their own, since an option cannot choose them."""

from __future__ import annotations

from dataclasses import dataclass

import kit_reference

from mbframework.plugins import ProviderType, hookimpl, option


@dataclass(frozen=True, slots=True, kw_only=True)
class Silent(kit_reference.Options):
    retries: int = option(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bare(kit_reference.Options):
    token: str = option("", help="what lets us in")


class Plugin:
    """One entry point: what pluggy looks at is the object's hook."""

    def __init__(self, name: str, options: type) -> None:
        self.name, self.options = name, options

    @hookimpl
    def mbframework_provider(self) -> ProviderType:
        return ProviderType(
            api=1, name=self.name, options=self.options, factory=kit_reference.make, summary="declared wrongly"
        )


silent = Plugin("silent", Silent)
bare = Plugin("bare", Bare)
