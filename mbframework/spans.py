"""Sets of whole numbers as spans: sorted pairs (first, end) of half-open ranges that neither meet nor overlap.

Pure. What is called ``spans`` below is such a list.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

Span: TypeAlias = "tuple[int, int]"


def spans_of(numbers: Iterable[int]) -> list[Span]:
    """The numbers, in any order, as spans; a ``range`` may be as long as it likes."""
    if isinstance(numbers, range) and numbers.step == 1:
        return [(numbers.start, numbers.stop)] if numbers else []
    return joined((number, number + 1) for number in numbers)


def joined(pairs: Iterable[Span]) -> list[Span]:
    """Any pairs (first, end), in any order, as spans; empty ones are left out."""
    result: list[Span] = []
    for first, end in sorted(pairs):
        if first >= end:
            continue
        if result and first <= result[-1][1]:
            result[-1] = result[-1][0], max(end, result[-1][1])
        else:
            result.append((first, end))
    return result


def common(one: Sequence[Span], other: Sequence[Span]) -> list[Span]:
    """What lies in both."""
    result: list[Span] = []
    i = j = 0
    while i < len(one) and j < len(other):
        first, end = max(one[i][0], other[j][0]), min(one[i][1], other[j][1])
        if first < end:
            result.append((first, end))
        if one[i][1] <= other[j][1]:
            i += 1
        else:
            j += 1
    return result


def without(spans: Sequence[Span], gone: Sequence[Span]) -> list[Span]:
    """What lies in ``spans`` and not in ``gone``."""
    result: list[Span] = []
    j = 0
    for first, end in spans:
        while j < len(gone) and gone[j][1] <= first:
            j += 1
        k = j
        while k < len(gone) and gone[k][0] < end:
            if first < gone[k][0]:
                result.append((first, gone[k][0]))
            first = max(first, gone[k][1])
            k += 1
        if first < end:
            result.append((first, end))
    return result


def count(spans: Iterable[Span]) -> int:
    """How many numbers."""
    return sum(end - first for first, end in spans)
