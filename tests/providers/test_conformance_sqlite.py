"""The contract, kept by the provider ``sqlite``."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mbframework_sqlite.schema import decode_headers

from mbframework.message import NO_PARTITION, NO_TIMESTAMP, Message
from mbframework.testing.conformance import Arrived, ProviderContract

pytest_plugins = ["mbframework.testing.conformance"]

_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode = WAL")
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""
_READ = "SELECT value, topic, key, headers, timestamp, partition FROM messages ORDER BY rowid"


class TestSqlite(ProviderContract):
    keeps_position = True
    partitions = (0, 3)

    @pytest.fixture(autouse=True)
    def destination(self, tmp_path: Path) -> Iterator[None]:
        self.folder = tmp_path
        self.file = tmp_path / "messages.db"
        self.locker: subprocess.Popen[str] | None = None
        yield
        self.bring_up()

    def url(self) -> str:
        return f"sqlite://{self.file}?busy_timeout=0.8"

    def unusable_url(self) -> str:
        (self.folder / "other.db").write_text("This is no database. " * 100)
        return f"sqlite://{self.folder}/other.db"

    def arrived(self) -> list[Arrived]:
        if not self.file.exists():
            return []
        connection = sqlite3.connect(self.file)
        try:
            rows = connection.execute(_READ).fetchall()
        finally:
            connection.close()
        return [
            Arrived(
                value,
                topic,
                key,
                decode_headers(headers),
                None if timestamp == NO_TIMESTAMP else timestamp,
                None if partition == NO_PARTITION else partition,
            )
            for value, topic, key, headers, timestamp, partition in rows
        ]

    def take_down(self) -> None:
        """Another program holds the write lock. In this process SQLite would put off closing other connections."""
        self.locker = subprocess.Popen(
            [sys.executable, "-c", _LOCK, str(self.file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.locker.stdout is not None
        assert self.locker.stdout.readline() == "locked\n"

    def bring_up(self) -> None:
        locker, self.locker = self.locker, None
        if locker is not None:
            locker.communicate()

    freeze, thaw = take_down, bring_up

    def make_rejected(self, message: Message) -> Message:
        with self.opened("schema"):
            connection = sqlite3.connect(self.file)
            connection.execute(
                "CREATE TRIGGER IF NOT EXISTS refuse BEFORE INSERT ON messages WHEN new.value = x'00'"
                " BEGIN SELECT RAISE(ABORT, 'a zero'); END"
            )
            connection.commit()
            connection.close()
        return message._replace(value=b"\0")
