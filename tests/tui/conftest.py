"""What holds for every test of the screens: it is in UTC, and the surroundings say nothing of colours."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def plain_surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The same time of day and the same colours everywhere."""
    with monkeypatch.context() as changed:
        changed.setenv("TZ", "UTC")
        for name in ("NO_COLOR", "TEXTUAL", "COLORTERM"):
            changed.delenv(name, raising=False)
        time.tzset()
        yield
    time.tzset()
