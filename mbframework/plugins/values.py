"""Values of options: from what a user gave, text or a Python value, to the declared type.

Understood types: ``str``, ``int``, ``float``, ``bool``, ``Enum`` (by value),
``Literal``, ``tuple[X, ...]`` (separated by commas in a text), ``object`` (as
it is), None, and unions of these, tried in their order. Everything here is a
pure function and raises nothing but :class:`Mismatch` for a wrong value, and
``TypeError`` for a type that is not in this list.
"""

from __future__ import annotations

import difflib
import math
import re
import types
import typing
from collections.abc import Iterable
from enum import Enum
from typing import Any, Literal

from mbframework.units import parse_size, parse_time

#: What Python takes beside that (1_000, ٣, inf) is a slip of the pen.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_BOOLEANS = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False, "1": True, "0": False}
_NONE = type(None)


class Mismatch(ValueError):
    """The value is not what the type takes; ``expected`` says what is, in words, ``nearest`` what may be meant."""

    def __init__(self, expected: str, nearest: str = "") -> None:
        super().__init__(expected)
        self.expected = expected
        self.nearest = nearest


def describe(kind: Any, unit: str = "") -> str:
    """The type in words, such as ``"a size such as 4096 or '64MiB'"``. TypeError where it is not understood."""
    alternatives = _alternatives(kind)
    if len(alternatives) > 1:
        return " or ".join(describe(one, unit) for one in alternatives if one is not _NONE)
    if kind in (int, float) and unit == "bytes":
        return "a size such as 4096 or '64MiB'"
    if kind in (int, float) and unit == "s":
        return "a time such as 0.5, '250ms' or '10s'"
    if kind in _WORDS:
        return _WORDS[kind]
    if _is_list(kind):
        return f"{describe(typing.get_args(kind)[0], unit)}, or several separated by commas"
    choices = _choices(kind)
    if not choices:
        raise TypeError(f"no option may have the type {kind!r}")
    return f"one of {', '.join(choices)}"


def convert(value: object, kind: Any, unit: str = "") -> Any:
    """``value`` as ``kind``. :raises Mismatch: it cannot be; nothing of the value is in the error."""
    alternatives = _alternatives(kind)
    for one in alternatives:
        try:
            return _convert_one(value, one, unit)
        # The parsers of sizes and times quote the value, which may be a secret: describe what was expected instead.
        except (ValueError, TypeError, OverflowError):
            continue
    choices = [choice for one in alternatives for choice in _choices(one)]
    raise Mismatch(describe(kind, unit), nearest(str(value), choices))


def nearest(text: str, choices: Iterable[str]) -> str:
    """The choice that was probably meant, or ""."""
    lower = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(text.lower(), lower, n=1)
    return lower[found[0]] if found else ""


_WORDS: dict[Any, str] = {
    _NONE: "nothing",
    bool: "true or false",
    float: "a number",
    int: "a whole number",
    object: "anything",
    str: "text",
}


def _alternatives(kind: Any) -> tuple[Any, ...]:
    if kind is Any:
        return (object,)
    return typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)


def _is_list(kind: Any) -> bool:
    return typing.get_origin(kind) is tuple and len(typing.get_args(kind)) == 2 and typing.get_args(kind)[1] is ...


def _choices(kind: Any) -> list[str]:
    return [str(choice.value if isinstance(choice, Enum) else choice) for choice in _members(kind)]


def _members(kind: Any) -> tuple[Any, ...]:
    if typing.get_origin(kind) is Literal:
        return typing.get_args(kind)
    return tuple(kind) if isinstance(kind, type) and issubclass(kind, Enum) else ()


def _convert_one(value: object, kind: Any, unit: str) -> Any:
    if kind is object:
        return value
    if kind is _NONE:
        return _demand(value, value is None)
    if kind is bool:
        return (
            _BOOLEANS[value.lower()]
            if isinstance(value, str) and value.lower() in _BOOLEANS
            else _demand(value, isinstance(value, bool))
        )
    if kind is int or kind is float:
        return _number(value, kind, unit)
    if kind is str:
        return _demand(value, isinstance(value, str))
    if _is_list(kind):
        return tuple(_convert_one(item, typing.get_args(kind)[0], unit) for item in _items(value))
    for member in _members(kind):
        plain = member.value if isinstance(member, Enum) else member
        # 1 is True and 1.0 in Python: only the very type will do, or the text of it; and a whole number for its text,
        # since configuration files write acks = 1.
        text = str(value) if type(value) is int else value
        if member is value or (type(plain) is type(value) and plain == value) or str(plain) == text:
            return member
    raise ValueError("none of the choices")


def _number(value: object, kind: type[int | float], unit: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError("not a number")
    if unit == "bytes":
        return kind(parse_size(value))
    if isinstance(value, str) and unit != "s" and not _NUMBER.fullmatch(value.strip()):
        raise ValueError("not a number as people write it")
    number = parse_time(value) if unit == "s" else kind(value)
    if not math.isfinite(number) or (kind is int and not isinstance(value, str) and number != value):
        raise ValueError("not a number, or not a whole one")
    if kind is int and number != int(number):
        raise ValueError("not a whole number")
    return kind(number)


def _items(value: object) -> Iterable[object]:
    if isinstance(value, str):
        return [item.strip() for item in value.split(",")] if value.strip() else []
    if isinstance(value, list | tuple):
        return value
    raise TypeError("not a list")


def _demand(value: object, holds: bool) -> object:
    if not holds:
        raise TypeError("another type")
    return value
