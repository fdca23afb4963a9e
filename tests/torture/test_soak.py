"""A short soak, and the proof of its judge."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.soak import SLACK, Look, Options, Run, growth


def test_days_pass_and_nothing_grows(tmp_path: Path) -> None:
    report = Run(Options(weeks=3 / 7, messages=12_000, outages=2), tmp_path).go()
    assert not report.breaches, report.line()
    assert report.days == 3
    assert report.rolls > 50
    assert report.outages == 6


STEADY = [Look(100 << 20, 20, 5, 15, 1 << 20)] * 9


def test_what_wavers_does_not_grow() -> None:
    assert not growth(STEADY)
    assert not growth([Look(1, 1, 1, 1, 1), *STEADY])


@pytest.mark.parametrize("which", range(4))
def test_what_grows_is_found(which: int) -> None:
    more = [*STEADY[-1]]
    more[which] += SLACK[which] + 1
    (found,) = growth([*STEADY[:-1], Look(*more)])
    assert found.startswith(f"{Look._fields[which]} grew from")
