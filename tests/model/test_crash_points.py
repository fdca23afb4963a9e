"""Every crash point of short histories: no stop, wherever it comes, breaks a promise.

``MBFRAMEWORK_TEST_MODEL=long`` takes many more parts of what was not synced at each of them.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.model.explore import PATTERNS, Explorer
from tests.model.scripts import SCRIPTS, Script
from tests.model.world import World

LONG = os.environ.get("MBFRAMEWORK_TEST_MODEL") == "long"


@pytest.mark.timeout(3600 if LONG else 120)
@pytest.mark.parametrize(("script", "options"), SCRIPTS, ids=[script.__name__ for script, _ in SCRIPTS])
def test_every_stop_keeps_the_promises(script: Script, options: dict[str, Any]) -> None:
    explorer = Explorer(mixtures=60, patterns=PATTERNS) if LONG else Explorer(mixtures=1, patterns=PATTERNS[:1])
    explorer.run(World.begin(1, **options), script)
    print(f"{script.__name__}: {explorer.points:,} distinct crash points at {explorer.calls:,} calls")
    assert explorer.points > explorer.calls
