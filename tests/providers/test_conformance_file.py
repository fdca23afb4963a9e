"""The contract, kept by the provider ``file``."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from mbframework_file.line import decode

from mbframework.testing.conformance import Arrived, ProviderContract

pytest_plugins = ["mbframework.testing.conformance"]


class TestFile(ProviderContract):
    partitions = (0, 3)

    @pytest.fixture(autouse=True)
    def destination(self, tmp_path: Path) -> Iterator[None]:
        self.folder = tmp_path / "there"
        self.away = tmp_path / "away"
        self.folder.mkdir()
        self.file = self.folder / "out.jsonl"
        yield
        self.bring_up()

    def url(self) -> str:
        return f"file://{self.file}"

    def unusable_url(self) -> str:
        return f"file://{self.folder}/no/such/folder/out.jsonl"

    def arrived(self) -> list[Arrived]:
        if not self.file.exists():
            return []
        with self.file.open("rb") as lines:
            messages = [decode(line) for line in lines]
        return [Arrived(m.value, m.topic, m.key, m.headers, m.timestamp, m.partition) for m in messages]

    def take_down(self) -> None:
        """As where a device is not mounted."""
        self.folder.rename(self.away)

    def bring_up(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        if self.away.exists():
            self.away.rename(self.folder)

    def fail_after(self, count: int) -> None:
        """As where a device is full: the kernel takes some bytes of a line, and then no more."""
        room = (self.file.stat().st_size if self.file.exists() else 0) + count * 150 + 7
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
