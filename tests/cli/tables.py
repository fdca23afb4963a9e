"""What ``sqlite:`` stored, and waiting for what other processes do."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path


def values(database: Path) -> list[bytes]:
    """The values in the order of their delivery; none where the file or its table is not there yet."""
    if not database.exists():
        return []
    with closing(sqlite3.connect(database, timeout=10)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE name = 'messages'").fetchall()
        return [value for (value,) in connection.execute("SELECT value FROM messages ORDER BY id")] if tables else []


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)  # another process's doings cannot be awaited
