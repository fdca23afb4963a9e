"""What these tests read back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.tables import values


@pytest.fixture
def values_of() -> Callable[[Path], list[bytes]]:
    """The values that ``sqlite:`` stored, in order."""
    return values
