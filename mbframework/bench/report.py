"""What a benchmark found: tables, figures beside their budgets, remarks; for people, as JSON, and read back from it.

``schema`` 1 of the JSON: ``name``, ``machine`` (facts by name), ``settings``, ``measured`` (by the names of
:mod:`mbframework.bench.budget`), ``tables`` (``rows`` as printed, ``raw`` as numbers), ``remarks``.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mbframework.bench.budget import BUDGETS, BY_NAME, Measured
from mbframework.bench.figures import number

SCHEMA = 1


@dataclass
class Table:
    """Rows under headings; ``raw`` holds the same as numbers."""

    title: str
    headings: list[str]
    rows: list[list[str]] = field(default_factory=list)
    raw: list[dict[str, Any]] = field(default_factory=list)

    def add(self, *cells: object, **raw: Any) -> None:
        """One row, and the numbers behind it."""
        self.rows.append([str(cell) for cell in cells])
        self.raw.append(raw)

    def text(self) -> str:
        """The first column to the left, the others to the right."""
        lines = [self.headings, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.headings))]
        rule = "  ".join("-" * width for width in widths)
        drawn = [
            "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in columns)
            for line in lines
            for columns in [list(enumerate(zip(line, widths, strict=True)))]
        ]
        return "\n".join([self.title, drawn[0].rstrip(), rule, *(line.rstrip() for line in drawn[1:])])


@dataclass
class Report:
    """Everything that one run found. ``machine`` and ``settings`` are filled in when it has ended."""

    name: str
    tables: list[Table] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    machine: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def table(self, title: str, *headings: str) -> Table:
        """A new table."""
        self.tables.append(Table(title, list(headings)))
        return self.tables[-1]

    def found(self, budget: str, samples: Iterable[float], note: str = "") -> None:
        """What was measured of a budget, a sample a round."""
        self.measured.append(Measured(BY_NAME[budget].name, tuple(samples), note=note))

    def missing(self, budget: str, why: str) -> None:
        """A budget that cannot be measured here."""
        self.measured.append(Measured(BY_NAME[budget].name, missing=why))

    def text(self) -> str:
        """For people."""
        machine = [f"{name}: {value}" for name, value in self.machine.items()]
        budgets = [budget_table(self.measured).text()] if self.measured else []
        tables = [each.text() for each in self.tables]
        return "\n\n".join(["\n".join(machine), *budgets, *tables, "\n".join(self.remarks)]).strip()

    def json(self) -> str:
        """For programs."""
        return json.dumps({"schema": SCHEMA} | asdict(self), indent=1, ensure_ascii=False, default=str)

    @classmethod
    def load(cls, text: str) -> Report:
        """What :meth:`json` has written.

        :raises ValueError: it is something else.
        """
        try:
            content = json.loads(text)
            if content.pop("schema") != SCHEMA:
                raise ValueError("written by another release")
            content["tables"] = [Table(**table) for table in content["tables"]]
            content["measured"] = [Measured(**each) for each in content["measured"]]
            return cls(**content)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"no report of `mb bench --json` ({error})") from error


def budget_table(measured: Sequence[Measured], *, everything: bool = False) -> Table:
    """All that was measured beside what is demanded of it, in the order of the budgets; with ``everything`` also those
    that nothing was measured of."""
    found = {each.name: each for each in measured}
    table = Table("What is demanded, and what was measured", ["", "against", "measured", "spread", "budget", ""])
    for budget in BUDGETS:
        each = found.get(budget.name)
        if each is None and not everything:
            continue
        measure = spread = verdict = ""
        if each is None:
            verdict = f"not measured; run: mb bench {budget.bench}"
        elif each.missing:
            verdict = f"not measured: {each.missing}"
        else:
            measure, verdict = f"{number(each.value)} {budget.unit}", budget.verdict(each.value)
            if len(each.samples) > 1:
                spread = f"{number(min(each.samples))} … {number(max(each.samples))}"
        baseline = each.note if each is not None and each.note else budget.baseline
        value = None if each is None or each.missing else statistics.median(each.samples)
        table.add(
            budget.what, baseline, measure, spread, budget.demanded, verdict,
            name=budget.name, value=value, limit=budget.limit,
        )  # fmt: skip
    return table
