"""In small: what a message costs does not depend on how much there is. In full: ``python -m tests.torture.scale``."""

from __future__ import annotations

from pathlib import Path

import pytest

from mbframework.units import MiB
from tests.torture import scale

_PLAN = scale.Plan(
    backlog=20 * MiB, segments=20, messages=100_000, volume=10 * MiB, rounds=1, lanes=(1, 8), threads=(1, 8),
    tasks=(1, 400), sizes=(10, 100, 1_000, 10_000_000),
)  # fmt: skip
#: With so few messages what is done once weighs much; what grows with the square of them would be far beyond this.
_LIMIT = 10.0
#: Processes take a second each to begin: only in full.
_SHORT = [name for name in scale.WHAT if name != "processes"]


@pytest.mark.parametrize("name", _SHORT)
def test_the_cost_of_a_message_is_flat(tmp_path: Path, name: str) -> None:
    found = scale.measure(_PLAN, str(tmp_path), [name])
    assert len(found) >= 2
    assert all(row.write > 0 for row, _ in found)
    assert max(times for _, times in found) < _LIMIT, found
