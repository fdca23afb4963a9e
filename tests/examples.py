"""How many examples Hypothesis tries: all that a test asks for with ``MBFRAMEWORK_TEST_EXAMPLES=long``, as ``make
torture`` does, else a fifth of them.

None of them has a deadline, and none is too slow: a machine that is busy breaks nothing.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

LONG = os.environ.get("MBFRAMEWORK_TEST_EXAMPLES") == "long"
_SHARE = 5


def examples(count: int) -> settings:
    """``@examples(count)`` in place of ``@settings(max_examples=count)``."""
    return settings(max_examples=_tried(count))


def load() -> None:
    """What holds for a test that asks for nothing."""
    settings.register_profile(
        "tests",
        parent=settings.default,
        deadline=None,
        max_examples=_tried(200),
        suppress_health_check=[*settings.default.suppress_health_check, HealthCheck.too_slow],
    )
    settings.load_profile("tests")


def _tried(count: int) -> int:
    return count if LONG else max(1, count // _SHARE)
