"""What benchmarks have found, as Markdown, and put into pages that ask for it. Pure.

A page asks with a line ``<!-- mb bench: NAME -->``; what follows, up to ``<!-- /mb bench -->``, is replaced. NAME is

- ``budgets``: every budget and what was measured of it; ``speed``: what a reader wants to know first of it;
- ``machine``: what all of it was measured on;
- the name of a benchmark: all of its tables and remarks; with a number behind it, one of its tables: ``write 1``; with
  a word, of its first table the rows that begin with that and a colon: ``providers redis``.

What other commands measure stands between ``<!-- measured: NAME -->`` and ``<!-- /measured -->``, by the same names.
Each of them knows its own results alone, and leaves those of others as they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mbframework.bench.budget import BY_NAME, HEADLINES
from mbframework.bench.figures import number
from mbframework.bench.report import Report, Table, budget_table

BENCH, ELSEWHERE = "mb bench", "measured"
_ASKED = r"^(<!-- {by}: ([^\n]+) -->\n)(.*?)^(<!-- /{by} -->)$"


def markdown(table: Table) -> str:
    """A table, the first column to the left, without its title."""
    rule = ["---", *["---:"] * (len(table.headings) - 1)]
    lines = [table.headings, rule, *table.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def filled(page: str, reports: Sequence[Report], by: str = BENCH) -> str:
    """The page with what it asks for.

    :param by: who measured it: ``BENCH``, or ``ELSEWHERE``.
    :raises ValueError: it asks for what was not measured, or for nothing.
    """
    asked = re.compile(_ASKED.format(by=by), re.DOTALL | re.MULTILINE)
    if not asked.search(page):
        raise ValueError(f"there is no <!-- {by}: NAME --> … <!-- /{by} --> on this page")
    ours = {"machine", *(report.name for report in reports)}
    if by == ELSEWHERE and not any(found[2].partition(" ")[0] in ours for found in asked.finditer(page)):
        raise ValueError(f"it asks for nothing of {', '.join(report.name for report in reports)}")

    def put(found: re.Match[str]) -> str:
        if by == ELSEWHERE and found[2].partition(" ")[0] not in ours:
            return found[0]
        return f"{found[1]}\n{_answer(found[2], reports)}\n\n{found[4]}"

    return asked.sub(put, page)


def whole(reports: Sequence[Report]) -> str:
    """Everything, for a look."""
    parts = [machine(reports), _budgets(reports)]
    for report in reports:
        parts += [f"## mb bench {report.name}", _tables(report)]
    return "\n\n".join(parts)


def machine(reports: Sequence[Report]) -> str:
    """What all of it was measured on; where that differs between benchmarks, each is told by its name."""
    told: dict[str, dict[str, list[str]]] = {}
    for report in reports:
        for fact, value in report.machine.items():
            told.setdefault(fact, {}).setdefault(value, []).append(report.name)
    lines = []
    for fact, values in told.items():
        if fact == "load":
            # Of the later ones it is what the ones before have left.
            lines.append(f"- load before the first benchmark: {next(iter(values))}")
            continue
        text = "; ".join(value if len(values) == 1 else f"{value} ({', '.join(of)})" for value, of in values.items())
        lines.append(f"- {fact}: {text}")
    return "\n".join(lines)


def _budgets(reports: Sequence[Report]) -> str:
    return markdown(budget_table([each for report in reports for each in report.measured], everything=True))


def _speed(reports: Sequence[Report]) -> str:
    """What was measured of the first questions; what was not is left out."""
    found = {each.name: each for report in reports for each in report.measured if not each.missing}
    table = Table("", ["", "measured", "against", "demanded"])
    for budget in (BY_NAME[name] for name in HEADLINES if name in found):
        each = found[budget.name]
        verdict = budget.verdict(each.value)
        demanded = budget.demanded if verdict == "met" else f"{budget.demanded}: {verdict}"
        what = f"{number(each.value)} {budget.unit}"
        table.add(budget.what, what, each.note or budget.baseline, demanded)
    return markdown(table)


def _answer(name: str, reports: Sequence[Report]) -> str:
    if name == "budgets":
        return _budgets(reports)
    if name == "speed":
        return _speed(reports)
    if name == "machine":
        return machine(reports)
    bench, _, number = name.partition(" ")
    report = next((each for each in reports if each.name == bench), None)
    if report is None:
        raise ValueError(f"it asks for {name!r}, of which there is no result; measure {bench}")
    if not number:
        return _tables(report)
    if not number.isdecimal():
        first = report.tables[0]
        rows = [row for row in first.rows if row[0].startswith(f"{number}: ")]
        if not rows:
            raise ValueError(f"it asks for {name!r}, and {bench} has nothing of {number}; measure it")
        return f"{first.title}:\n\n{markdown(Table('', first.headings, rows))}"
    if not 0 < int(number) <= len(report.tables):
        raise ValueError(f"it asks for {name!r}; {bench} has the tables 1 to {len(report.tables)}")
    table = report.tables[int(number) - 1]
    return f"{table.title}:\n\n{markdown(table)}"


def _tables(report: Report) -> str:
    parts = [f"{table.title}:\n\n{markdown(table)}" for table in report.tables]
    return "\n\n".join([*parts, *report.remarks])
