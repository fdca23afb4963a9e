"""The contract, kept by the provider ``fault`` in front of ``sqlite``, while no fault is asked for."""

from __future__ import annotations

from urllib.parse import quote

from mbframework_fault.provider import FaultProvider

from mbframework.plugins.source import resolve_url
from mbframework.provider import Provider
from tests.providers import test_conformance_sqlite

pytest_plugins = ["mbframework.testing.conformance"]


class TestFault(test_conformance_sqlite.TestSqlite):
    made: FaultProvider | None = None

    def url(self) -> str:
        return f"fault:?inner={quote(super().url(), safe='')}"

    def unusable_url(self) -> str:
        return f"fault:?inner={quote(super().unusable_url(), safe='')}"

    def secrets(self, url: str) -> tuple[str, ...]:
        # The URL behind is masked on its own terms, and a file's path is no secret.
        return ()

    def make(self) -> Provider:
        made = resolve_url(self.url()).create(self.context())
        assert isinstance(made, FaultProvider)
        self.made = made
        return made

    def fail_after(self, count: int) -> None:
        assert self.made is not None
        self.made.inject_error("partial")
