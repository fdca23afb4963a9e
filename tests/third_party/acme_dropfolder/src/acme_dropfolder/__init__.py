"""The provider ``drop``: messages as files in a folder."""

from __future__ import annotations

from dataclasses import dataclass

from mbframework.plugins import ProviderType, hookimpl, option
from mbframework.provider import Provider

MBFRAMEWORK_API = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    path: str = option(help="The folder, which must exist.", part="path")
    suffix: str = option(".msg", help="How the names of files end.")


def make(options: Options) -> Provider:
    from acme_dropfolder.provider import DropFolder

    return DropFolder(options)


@hookimpl
def mbframework_provider() -> ProviderType:
    return ProviderType(
        api=MBFRAMEWORK_API, name="drop folder", options=Options, factory=make, summary="messages as files in a folder"
    )
