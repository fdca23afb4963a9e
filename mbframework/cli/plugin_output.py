"""What ``mb check`` prints: the line of a monitoring plugin, with performance data, or an object. Pure.

Promises: the line is one line, holds no control character, and one bar at most, behind which numbers stand. The names
of the numbers do not depend on what else there is in a directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from mbframework.cli.judgement import ORDER, Check, Finding, Grade, LaneCheck, Measure
from mbframework.cli.terminal import plural, printable

#: So many complaints are told, each in so many characters.
_FINDINGS = 5
_WORDS = 300


def line(grade: Grade, text: str, performance: str = "") -> str:
    """The one line: a bar parts the words from the numbers."""
    words = printable(" ".join(text.split())).replace("|", "¦")
    return f"MB {grade.name} - {words}" + (f" | {performance}" if performance else "")


def text_of(checks: Sequence[Check]) -> str:
    """What is wrong, the worst first; else how things stand."""
    names = _names([each.directory for each in checks])
    told = [(finding, names[each.directory]) for each in checks for finding in each.findings]
    for each in checks:
        told += [(finding, _place(names[each.directory], lane)) for lane in each.lanes for finding in lane.findings]
    if not told:
        return _well(checks, names)
    told.sort(key=lambda pair: -ORDER.index(pair[0].grade))
    texts = [f"{place}: {_shortened(finding.text)}" for finding, place in told[:_FINDINGS]]
    more = len(told) - len(texts)
    return "; ".join(texts) + (f"; and {more} more" if more else "")


def _well(checks: Sequence[Check], names: dict[str, str]) -> str:
    lanes = [(each, lane) for each in checks for lane in each.lanes]
    waiting = sum(lane.waiting for _, lane in lanes)
    words = f"{plural(waiting, 'message')} {'waits' if waiting == 1 else 'wait'}" if waiting else "nothing waits"
    if len(lanes) == 1 and len(checks) == 1:
        return f"{_place(names[checks[0].directory], lanes[0][1])}: {lanes[0][1].state}, {words}"
    where = names[checks[0].directory] if len(checks) == 1 else plural(len(checks), "buffer")
    return f"{where}: {plural(len(lanes), 'lane') if lanes else 'no lane yet'}, {words}"


def _shortened(text: str) -> str:
    return text if len(text) <= _WORDS else f"{text[: _WORDS - 1]}…"


def _names(directories: Iterable[str]) -> dict[str, str]:
    """What they are called: by the last part of the path, or all of it where that is ambiguous."""
    paths = list(directories)
    last = [os.path.basename(path) for path in paths]
    return {path: name if name and last.count(name) == 1 else path for path, name in zip(paths, last, strict=True)}


def _place(name: str, lane: LaneCheck) -> str:
    return name if lane.name == "main" else f"{name}/{lane.name}"


def performance_of(checks: Sequence[Check]) -> str:
    """Of the lane ``main`` of a single directory the plain names; others have the lane, and the directory, in front."""
    names = _names([each.directory for each in checks])
    parts = []
    for each in checks:
        for lane in each.lanes:
            prefix = [] if len(checks) == 1 else [names[each.directory]]
            prefix += [] if lane.name == "main" else [lane.name]
            parts += [_datum("/".join([*prefix, measure.name]), measure) for measure in lane.measures]
    return " ".join(parts)


def _datum(label: str, measure: Measure) -> str:
    """``'label'=value[unit];warning;critical;least;most``."""
    safe = printable(label).replace("'", "_").replace("=", "_").replace("|", "_")
    quoted = safe if safe.replace("-", "").replace("_", "").isalnum() else f"'{safe}'"
    if measure.value is None:
        return f"{quoted}=U"
    numbers = [measure.warning, measure.critical, None if measure.unit == "c" else 0.0, measure.limit]
    tail = ";".join("" if number is None else _number(number) for number in numbers)
    return f"{quoted}={_number(measure.value)}{measure.unit};{tail}".rstrip(";")


def _number(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")


def as_dict(checks: Sequence[Check], grade: Grade) -> dict[str, Any]:
    """For JSON."""

    def findings(found: Iterable[Finding]) -> list[dict[str, str]]:
        return [{"status": each.grade.name.lower(), "text": each.text} for each in found]

    return {
        "schema": 1,
        "status": grade.name.lower(),
        "exit": int(grade),
        "text": text_of(checks),
        "directories": [
            {
                "directory": each.directory,
                "status": each.grade.name.lower(),
                "findings": findings(each.findings),
                "lanes": [
                    {
                        "name": lane.name,
                        "state": lane.state,
                        "findings": findings(lane.findings),
                        "measures": {
                            measure.name: {
                                "value": measure.value,
                                "unit": measure.unit,
                                "warning": measure.warning,
                                "critical": measure.critical,
                                "status": measure.grade.name.lower(),
                            }
                            for measure in lane.measures
                        },
                    }
                    for lane in each.lanes
                ],
            }
            for each in checks
        ],
    }
