"""How long a regular expression may take, told from how it is made.

``re`` looks at nothing else while it searches, neither at a key nor at a signal: an expression that could take hours is
not begun with. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from re import _parser  # type: ignore[attr-defined]  # the one place where Python tells what an expression is made of
from typing import Any

#: Repetitions up to this many times cost little.
_FEW = 10
MOST_REPEATS = 3
#: Steps that a search may take at worst, about a second.
_STEPS = 10**8


def reach_of(expression: str, flags: int = 0) -> int | None:
    """How many characters of a text may be searched; None: any number.

    :raises ValueError: it could take too long on a short text, too; the text says what to write instead.
    """
    repeats = _repeats(_parser.parse(expression, flags))
    if repeats > MOST_REPEATS:
        raise ValueError(f"it would take too long: {repeats} repetitions without end; at most {MOST_REPEATS} are taken")
    # Each repetition, and each place where the search may begin, goes through the text.
    return int(_STEPS ** (1 / (repeats + 1))) if repeats else None


def _repeats(tree: Any) -> int:
    """How many repetitions go through the whole text, one after the other."""
    found = 0
    for kind, content in tree:
        name = str(kind)
        inner = sum(_repeats(part) for part in _parts(content))
        if name in ("MAX_REPEAT", "MIN_REPEAT"):
            low, high, body = content
            if high <= _FEW:
                found += inner * high
                continue
            if _varies(body):
                raise ValueError(
                    "it would take too long: a repetition, or a choice of like beginnings, inside of a repetition; "
                    "let the inner one keep what it has: a++ in place of a+"
                )
            found += inner + (low != high)
        elif name == "POSSESSIVE_REPEAT":
            found += inner + 1
        else:
            found += inner
    return found


def _varies(tree: Any) -> bool:
    """Whether it may find the same text in several ways."""
    for kind, content in tree:
        name = str(kind)
        if name in ("MAX_REPEAT", "MIN_REPEAT") and content[0] != content[1]:
            return True
        if name == "BRANCH" and not _distinct(content[1]):
            return True
        if name not in ("POSSESSIVE_REPEAT", "ATOMIC_GROUP") and any(_varies(part) for part in _parts(content)):
            return True
    return False


def _distinct(choices: Any) -> bool:
    """Whether the first character tells which of them it is."""
    first = [str(choice[0][1]) if len(choice) and str(choice[0][0]) == "LITERAL" else "" for choice in choices]
    begins = {chr(int(each)).casefold() for each in first if each}
    return len(begins) == len(choices)


def _parts(content: Any) -> Iterator[Any]:
    """The expressions inside of one."""
    if isinstance(content, _parser.SubPattern):
        yield content
    elif isinstance(content, tuple | list):
        for each in content:
            yield from _parts(each)
