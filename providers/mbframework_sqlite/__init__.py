"""The provider ``sqlite``: messages and position in one transaction of a database file; no server needed.

This module only declares; the provider is in :mod:`mbframework_sqlite.provider`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mbframework.plugins import ProviderType, hookimpl, option
from mbframework_sqlite.schema import check_path, check_table

if TYPE_CHECKING:
    from mbframework_sqlite.provider import SQLiteProvider


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a URL ``sqlite:…`` may say."""

    path: str = option(help="the database file; made where it does not exist", part="path")
    table: str = option("messages", help="the table for the messages; made where it does not exist")
    synchronous: Literal["extra", "full", "normal", "off"] = option(
        "full", help="when SQLite syncs to the device; below 'full' a power loss may lose delivered messages"
    )
    busy_timeout: float = option(5.0, help="how long to wait for another program's write lock", unit="s")

    def __post_init__(self) -> None:
        check_path(self.path)
        check_table(self.table)
        # The provider is made later, by a thread; the program may be in another directory by then.
        object.__setattr__(self, "path", os.path.abspath(self.path))


def _make(options: Options) -> SQLiteProvider:
    from mbframework_sqlite.provider import SQLiteProvider

    return SQLiteProvider(
        options.path, table=options.table, synchronous=options.synchronous, busy_timeout=options.busy_timeout
    )


@hookimpl
def mbframework_provider() -> ProviderType:
    """The provider that this plugin brings."""
    return ProviderType(
        api=1,
        name="sqlite",
        options=Options,
        factory=_make,
        extra="sqlite",
        summary="a SQLite database file; exactly once, without a server",
    )
