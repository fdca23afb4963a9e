"""The provider ``file``: one JSON object a line, appended to a file.

This module only declares; the provider is in :mod:`mbframework_file.provider`,
and :func:`mbframework_file.line.decode` reads a line back.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbframework.errors import ConfigurationError
from mbframework.plugins import ProviderType, hookimpl, option

if TYPE_CHECKING:
    from mbframework_file.provider import FileProvider


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a URL ``file:…`` may say."""

    path: str = option(help="the file; made where it does not exist; '{lane}' stands for the lane's name", part="path")
    fsync: bool = option(True, help="sync each batch to the device before it counts as delivered")

    def __post_init__(self) -> None:
        if not self.path or self.path.endswith("/") or "\0" in self.path:
            raise ConfigurationError(
                f"path {self.path!r} names no file; write 'file:out.jsonl' or 'file:///folder/out.jsonl'", option="path"
            )
        # The provider is made later, by a thread; the program may be in another directory by then.
        object.__setattr__(self, "path", os.path.abspath(self.path))


def _make(options: Options) -> FileProvider:
    from mbframework_file.provider import FileProvider

    return FileProvider(options.path, fsync=options.fsync)


@hookimpl
def mbframework_provider() -> ProviderType:
    """The provider that this plugin brings."""
    return ProviderType(
        api=1,
        name="file",
        options=Options,
        factory=_make,
        extra="file",
        summary="JSON lines, appended to a file",
    )
