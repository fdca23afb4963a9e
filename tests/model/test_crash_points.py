"""Every crash point of short histories: no stop, wherever it comes, breaks a promise.

``pytest -s`` prints how many. ``MBFRAMEWORK_TEST_MODEL=long`` runs ``python -m tests.model`` in their place: 100,000
and more, of random histories too, by the extension and by plain Python.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from mbframework import speedups
from tests.model import runner
from tests.model.explore import PATTERNS, Explorer
from tests.model.scripts import SCRIPTS, Script
from tests.model.world import World

LONG = os.environ.get("MBFRAMEWORK_TEST_MODEL") == "long"
#: One process, since the points of all are added up.
pytestmark = pytest.mark.xdist_group("crash points")
_found: dict[str, Explorer] = {}


@pytest.mark.skipif(LONG, reason="MBFRAMEWORK_TEST_MODEL=long: these stops are among very many others")
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("script", "options"), SCRIPTS, ids=[script.__name__ for script, _ in SCRIPTS])
def test_every_stop_keeps_the_promises(script: Script, options: dict[str, Any]) -> None:
    explorer = _found[script.__name__] = Explorer(mixtures=range(1), patterns=PATTERNS[:1])
    explorer.run(World.begin(1, **options), script)
    print(f"{script.__name__}: {explorer.points:,} distinct crash points at {explorer.calls:,} calls")
    assert explorer.points > explorer.calls


def test_there_are_enough_of_them() -> None:
    if LONG or len(_found) < len(SCRIPTS):
        pytest.skip("only where every script was played before")
    before = [call for each in _found.values() for call, _ in each.seen.values()]
    by_c = before.count("store by C")
    print(f"{len(before):,} distinct crash points, {before.count('store'):,} within stores by Python, {by_c:,} by C")
    assert len(before) >= 5_000
    assert by_c >= 200 or speedups.compiled is None


@pytest.mark.skipif(not LONG, reason="only with MBFRAMEWORK_TEST_MODEL=long")
@pytest.mark.timeout(3 * 3600)
def test_very_many_stops_keep_the_promises() -> None:
    begun, total = runner.clock(), runner.Result()
    for total in runner.run(100_000, seed=1, processes=2):
        assert not total.failure, total.failure
    print(f"\n{total.line(1, runner.clock() - begun)}")
    assert total.points >= 100_000
