"""What pytest prints at its end: how many rules of the contract a provider keeps, and what was not tested, and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

import pytest

from mbframework.testing.conformance.contract import ProviderContract

_CLASS = "mbframework contract"


def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    """Note at each rule whose it is, for the summary."""
    for item in items:
        of = getattr(item, "cls", None)
        if isinstance(of, type) and issubclass(of, ProviderContract):
            item.user_properties.append((_CLASS, of.__name__))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line for each provider, and one for each reason to skip."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in ("passed", "failed", "skipped", "error"):
        for report in terminalreporter.stats.get(outcome, ()):
            name = dict(getattr(report, "user_properties", ())).get(_CLASS)
            if name is None:
                continue
            counts[name][outcome] += 1
            if outcome == "skipped" and isinstance(report.longrepr, tuple):
                reasons[name][report.longrepr[2].removeprefix("Skipped: ")] += 1
    if not counts:
        return
    terminalreporter.section("the contract of a provider")
    for name, count in counts.items():
        broken = count["failed"] + count["error"]
        terminalreporter.line(f"{name}: {count['passed']} rules kept, {broken} broken, {count['skipped']} not tested")
        for reason, times in reasons[name].items():
            terminalreporter.line(f"    {times} × {reason}")
