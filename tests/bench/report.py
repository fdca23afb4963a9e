"""What a benchmark found: tables and remarks, for people or as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.bench.machine import facts


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
        return "\n".join([self.title, drawn[0], rule, *drawn[1:]])


@dataclass
class Report:
    """Everything that one run found."""

    name: str
    tables: list[Table] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def table(self, title: str, *headings: str) -> Table:
        """A new table."""
        self.tables.append(Table(title, list(headings)))
        return self.tables[-1]

    def text(self, directory: str) -> str:
        """For people."""
        machine = [f"{name}: {value}" for name, value in facts(directory).items()]
        return "\n\n".join(
            ["\n".join(machine), *(each.text() for each in self.tables), "\n".join(self.remarks)]
        ).strip()

    def json(self, directory: str) -> str:
        """For programs."""
        content = {"name": self.name, "machine": facts(directory)} | asdict(self)
        return json.dumps(content, indent=1, ensure_ascii=False, default=str)
