"""Requirements of a plugin, such as ``"kafka-python[lz4]>=3.0.12,<3.1"``: is one met by what is installed?

A small part of what pip understands, so that mbframework itself needs no
further package: names, extras (which are not checked), and the comparisons
``== != >= <= > < ~=`` on release numbers. A pre-release counts as older than
its release, for ``<`` too it is not below it. No markers, no ``*``, no URLs.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*(.*)")
_CLAUSE = re.compile(r"\s*(==|!=|>=|<=|~=|>|<)\s*(\d+(?:\.\d+)*)\s*")
_VERSION = re.compile(r"v?(?:\d+!)?(\d+(?:\.\d+)*)(.*)", re.DOTALL)
_EARLIER = re.compile(r"[._-]?(?:a|b|c|rc|alpha|beta|pre|preview|dev)", re.IGNORECASE)


def unmet(requirement: str) -> str | None:
    """None where the requirement is met, else why it is not: ``"is not installed"`` or ``"2.3.1 is installed"``.

    :raises ValueError: the requirement cannot be understood.
    """
    match = _REQUIREMENT.fullmatch(requirement)
    if match is None:
        raise ValueError(f"requirement {requirement!r} is not name>=version")
    name, clauses = match[1], match[2]
    wanted: list[tuple[str, str]] = []
    for clause in clauses.split(",") if clauses else ():
        found = _CLAUSE.fullmatch(clause)
        if found is None:
            raise ValueError(f"requirement {requirement!r}: cannot compare {clause.strip()!r}")
        wanted.append((found[1], found[2]))
    try:
        installed = version(name)
    except PackageNotFoundError:
        return "is not installed"
    return None if all(_holds(installed, how, than) for how, than in wanted) else f"{installed} is installed"


def _holds(installed: str, how: str, than: str) -> bool:
    match = _VERSION.match(installed)
    if match is None:
        return False
    have, want = _numbers(match[1]), _numbers(than)
    length = max(len(have), len(want))
    have += (0,) * (length - len(have))
    padded = want + (0,) * (length - len(want))
    earlier = _EARLIER.match(match[2]) is not None
    at_least = have > padded or (have == padded and not earlier)
    if how == "~=":
        return at_least and have[: len(want) - 1] == want[:-1]
    return {
        "==": have == padded and not earlier,
        "!=": have != padded or earlier,
        ">=": at_least,
        ">": have > padded,
        "<=": have < padded or have == padded,
        "<": have < padded,
    }[how]


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))
