"""In small: what a message costs does not depend on how much there is. In full: ``python -m tests.torture.scale``."""

from __future__ import annotations

from pathlib import Path

import pytest

from mbframework.units import MiB
from tests.torture import scale

_PLAN = scale.Plan(
    backlog=20 * MiB, segments=20, messages=100_000, volume=10 * MiB, rounds=1, lanes=(1, 8), threads=(1, 8),
    tasks=(1, 400), sizes=(10, 100, 1_000, 10_000_000), of_a_lane=10_000, rest_s=0.5,
)  # fmt: skip
#: With so few messages what is done once weighs much; what grows with the square of them would be far beyond this.
_LIMIT = 10.0
#: Processes take a second each to begin: only in full.
_SHORT = [name for name in scale.WHAT if name != "processes"]


@pytest.mark.parametrize("name", _SHORT)
def test_the_cost_of_a_message_is_flat(tmp_path: Path, name: str) -> None:
    found = scale.measure(_PLAN, str(tmp_path), [name])
    assert len(found) >= 2
    assert all(each.row.write > 0 for each in found)
    assert max(each.times for each in found if not each.row.limit) < _LIMIT, found
    table = scale.reported(found, _LIMIT).tables[0]
    assert [row[0] for row in table.rows] == [each.row.what for each in found]


def test_what_costs_more_than_its_own_limit_or_than_the_first_is_too_much() -> None:
    flat, steep, dear = scale.Row("a", 1, 1.0), scale.Row("a", 9, 3.0), scale.Row("b", 9, 3.0, limit=2.9)
    found = [scale.Found(flat, 1.0), scale.Found(steep, steep.times(flat)), scale.Found(dear, 1.0)]
    assert [each.too_much(2.0) for each in found] == [False, True, True]
    assert scale.reported(found, 2.0).remarks == ["BREACH: 2 of 3 rows cost more than is allowed"]
