"""A picture of what was measured, as the text of an SVG: bars for the write path, and for the way into Kafka. Pure.

Its letters are grey, which a light and a dark page show alike.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from mbframework.bench.figures import number
from mbframework.bench.report import Report

_WIDTH, _LABEL, _ROW, _BAR, _GAP = 860, 340, 22, 15, 46
_OURS, _OTHERS, _TEXT = "#2f81f7", "#9aa4b2", "#6e7781"


@dataclass(frozen=True)
class Bar:
    """``value`` in messages per second; ``ours``: of mbframework."""

    label: str
    value: float
    ours: bool


def drawn(reports: Sequence[Report]) -> str:
    """The picture; charts of what was not measured are left out."""
    charts = [
        ("write() to disk, 100 bytes, messages a second, safe from kill -9", _written(reports)),
        ("From disk into Kafka, 100 bytes, messages a second", _sent(reports)),
    ]
    parts: list[str] = []
    top = 8
    for title, bars in charts:
        if bars:
            chart, top = _chart(title, bars, top)
            parts += chart
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{top}" viewBox="0 0 {_WIDTH} {top}"'
        ' font-family="system-ui, sans-serif" font-size="12.5">'
    )
    return "\n".join([head, *parts, "</svg>\n"])


def _rows(reports: Sequence[Report], name: str) -> list[dict[str, Any]]:
    """The numbers of a benchmark's first table."""
    return next((report.tables[0].raw for report in reports if report.name == name and report.tables), [])


def _written(reports: Sequence[Report]) -> list[Bar]:
    """Each queue once, at its fastest that survives a kill, and our two paths."""
    fastest: dict[str, Bar] = {}
    for row in _rows(reports, "peers"):
        ours, survives = row["name"].startswith("write()"), row["lost"] in (0, None)
        bar = Bar(row["name"], 1e9 / statistics.median(row["samples"]), ours)
        key = row["name"] if ours else row["name"].partition(":")[0]
        if survives and (key not in fastest or fastest[key].value < bar.value):
            fastest[key] = bar
    return sorted(fastest.values(), key=lambda bar: -bar.value)


def _sent(reports: Sequence[Report]) -> list[Bar]:
    """The plain cases, without keys and headers."""
    bars = [
        Bar(row["case"], statistics.median(row["pace"]), row["case"].startswith("buffer"))
        for row in _rows(reports, "kafka")
        if not row["case"].startswith("keys")
    ]
    return sorted(bars, key=lambda bar: -bar.value)


def _chart(title: str, bars: list[Bar], top: int) -> tuple[list[str], int]:
    """Its lines, and where the next one begins."""
    most = max(bar.value for bar in bars)
    parts = [f'<text x="8" y="{top + 16}" font-weight="600" fill="{_TEXT}">{escape(title)}</text>']
    at = top + 30
    for bar in bars:
        # A hairline at least, so that nothing looks like nothing.
        width = max(1.0, (_WIDTH - _LABEL - 100) * bar.value / most)
        middle = at + _BAR - 3
        weight = ' font-weight="600"' if bar.ours else ""
        colour = _OURS if bar.ours else _OTHERS
        parts += [
            f'<text x="{_LABEL - 8}" y="{middle}" text-anchor="end" fill="{_TEXT}"{weight}>{escape(bar.label)}</text>',
            f'<rect x="{_LABEL}" y="{at}" width="{width:.1f}" height="{_BAR}" rx="2" fill="{colour}"/>',
            f'<text x="{_LABEL + width + 6:.1f}" y="{middle}" fill="{_TEXT}"{weight}>{_short(bar.value)}</text>',
        ]
        at += _ROW
    return parts, at + _GAP - _ROW


def _short(value: float) -> str:
    """Messages per second in thousands or millions."""
    return f"{number(value / 1e6)} M" if value >= 1e6 else f"{number(value / 1e3)} K" if value >= 1e3 else number(value)
