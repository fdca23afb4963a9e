"""Sizes and times as people write them: ``"64MiB"``, ``"250ms"``, ``"1h30m"``.

Sizes are whole bytes; ``MB`` is decimal (1,000,000) and ``MiB`` binary
(1,048,576), and a bare ``M``, which could be either, is refused. Times are
seconds as a float. Plain numbers, and texts without a unit, are in these base
units. The arithmetic is exact: ``"1.1GB"`` is 1,100,000,000.

Parsing refuses what is negative, not a number, infinite, a bool, or beyond 64
bits (bytes, and nanoseconds). Formatting is for people by default (rounded to
about three digits); with ``exact=True`` it parses back to the same value.

Everything here is a pure function: any thread may call it.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

from mbframework.errors import ConfigurationError

KiB = 1 << 10
MiB = 1 << 20
GiB = 1 << 30

#: Bytes; what fits into a signed 64-bit file offset.
MAX_SIZE = (1 << 63) - 1
#: Seconds; what fits into signed 64-bit nanoseconds, about 292 years.
MAX_TIME = 9_223_372_036.0

_BINARY = {"B": 1, "KiB": KiB, "MiB": MiB, "GiB": GiB, "TiB": 1 << 40}
_DECIMAL = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZE_UNITS = {unit.lower(): factor for unit, factor in (_BINARY | _DECIMAL).items()}
_SPELLED = {unit.lower(): unit for unit in (*_BINARY, *_DECIMAL)}

# From large to small: the order in which they may follow each other in one text.
_TIME_UNITS = {
    "d": Fraction(86_400),
    "h": Fraction(3_600),
    "m": Fraction(60),
    "s": Fraction(1),
    "ms": Fraction("1e-3"),
    "us": Fraction("1e-6"),
    "ns": Fraction("1e-9"),
}

#: What people write for the units of time, for hints only.
_TIME_WORDS = {unit: unit for unit in _TIME_UNITS} | {
    "day": "d", "hour": "h", "hr": "h", "min": "m", "sec": "s", "milli": "ms", "micro": "us", "nano": "ns",
}  # fmt: skip

_NUMBER = re.compile(r"\d{1,40}(?:\.\d{1,40})?", re.ASCII)
_SIZE = re.compile(r"(\d{1,40}(?:\.\d{1,40})?)\s*([A-Za-z]*)", re.ASCII)
_TIME = re.compile(r"(\d{1,40}(?:\.\d{1,400})?)(?!\d)\s*([a-z]*)\s*", re.ASCII)
#: A negative number, or one with more digits than any size or time has: understood, and out of range.
_BEYOND = re.compile(r"(-\d+|\d{41,})(\.\d*)?\s*[A-Za-z]*", re.ASCII)

_EXPECTED_SIZE = "expected bytes as a number, or a text such as '512', '64MiB' or '1.5GB'"
_EXPECTED_TIME = "expected seconds as a number, or a text such as '250ms', '10s', '1h30m' or '7d'"


def parse_size(value: str | float, *, name: str = "size", within: str = "") -> int:
    """A size in bytes.

    A fraction of a byte is cut off where a unit was given (``"1.1GiB"``), and
    refused where none was (``1.5``).

    :param within: what an error says of a number that no size can be, such as "expected a size of 64KiB or more".
    :raises ConfigurationError: it names ``name``, the value and what was expected.
    """
    within = within or f"expected a size from 0 to {MAX_SIZE} bytes"
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise _refused(name, value, within if _BEYOND.fullmatch(value.strip()) else _EXPECTED_SIZE)
        number, unit = Fraction(match[1]), match[2].lower()
        if unit in {"k", "m", "g", "t"}:
            decimal, binary = (_SPELLED[f"{unit}{rest}"] for rest in ("b", "ib"))
            raise _refused(name, value, f"expected '{match[1]}{decimal}' (decimal) or '{match[1]}{binary}' (binary)")
        if unit and unit not in _SIZE_UNITS:
            hint = _meant(_nearest_unit(unit, _SPELLED))
            raise _refused(
                name, value, f"unknown unit {match[2]!r:.30}; expected one of {', '.join(_SPELLED.values())}{hint}"
            )
        factor = _SIZE_UNITS[unit] if unit else 1
    else:
        number, factor = _number(value, name, _EXPECTED_SIZE, within), 1
    if factor == 1 and number.denominator != 1:
        raise _refused(name, value, "expected a whole number of bytes")
    size = int(number * factor)
    if size > MAX_SIZE:
        raise _refused(name, value, within)
    return size


def parse_time(value: str | float, *, name: str = "time", within: str = "") -> float:
    """A time in seconds. Units, largest first and each at most once: d, h, m, s, ms, us, ns.

    :param within: what an error says of a number that no time can be, such as "expected a time of 100ms or more".
    :raises ConfigurationError: it names ``name``, the value and what was expected.
    """
    within = within or f"expected a time from 0 to {MAX_TIME:.0f} seconds (292 years)"
    if isinstance(value, str):
        seconds = _seconds_of_text(value, name, within)
    else:
        seconds = _number(value, name, _EXPECTED_TIME, within)
    if seconds > MAX_TIME:
        raise _refused(name, value, within)
    return float(seconds)


def parse_number(value: str | float, *, name: str, expected: str) -> float:
    """A plain finite number of zero or more, or a text that holds one.

    :raises ConfigurationError: it names ``name``, the value and ``expected``.
    """
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value.strip())
        if match is None:
            raise _refused(name, value, expected)
        return float(match[0])
    return float(_number(value, name, expected, expected))


def quoted(value: object) -> str:
    """A refused value as an error shows it: shortened; a URL or a table, which may hold a password, not at all."""
    if isinstance(value, Mapping):
        return "(a table, not shown here)"
    text = repr(value)
    if "://" in text:
        return "(a URL, not shown here)"
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"


def format_size(size: int, *, exact: bool = False) -> str:
    """A number of bytes for people, such as ``"117.7MiB"``.

    With ``exact`` it loses nothing: ``"32MiB"``, ``"1500MB"``, ``"123456789B"``.
    """
    if size < 0:
        return "-" + format_size(-size, exact=exact)
    if exact:
        # The shortest text wins, binary before decimal where both are as short.
        texts = [f"{size // f}{unit}" for unit, f in (_BINARY | _DECIMAL).items() if size % f == 0]
        return min(texts, key=len) if size else "0B"
    unit, factor = "B", 1
    for larger, larger_factor in _BINARY.items():
        # From 1023.95 on, one decimal would read 1024.0: say 1 of the next unit.
        if size >= larger_factor - larger_factor // 20_480:
            unit, factor = larger, larger_factor
    return f"{_short(size / factor, 1)}{unit}"


def format_time(seconds: float, *, exact: bool = False) -> str:
    """Seconds for people, such as ``"250ms"``, ``"3.2s"`` or ``"2d4h"`` (two units at most).

    With ``exact`` it loses nothing. ``seconds`` must be finite.
    """
    if seconds < 0:
        return "-" + format_time(-seconds, exact=exact)
    if exact:
        return _exact_time(float(seconds))
    if seconds == 0:
        return "0s"
    for unit, factor in (("us", 1e6), ("ms", 1e3)):
        if seconds * factor < 999.5:
            return f"{_short(seconds * factor, 1)}{unit}"
    if seconds < 59.95:
        return f"{_short(seconds, 1)}s"
    # Round in the smaller of the two units shown, so that 3,599.9 s is 1h and not 60m.
    step = 1 if round(seconds) < 3_600 else 60 if round(seconds / 60) < 1_440 else 3_600
    return _whole_time(round(seconds / step) * step)


def _refused(name: str, value: object, expected: str) -> ConfigurationError:
    return ConfigurationError(f"{name}: {quoted(value)}: {expected}", option=name)


def _number(value: object, name: str, expected: str, within: str) -> Fraction:
    """A plain number, exactly; what a configuration file may hold instead is refused by name."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refused(name, value, expected)
    if value < 0 or (isinstance(value, float) and not math.isfinite(value)):
        raise _refused(name, value, within)
    return Fraction(repr(value)) if isinstance(value, float) else Fraction(value)


def _seconds_of_text(value: str, name: str, within: str) -> Fraction:
    text = value.strip().lower().replace("µ", "u").replace("μ", "u")  # micro sign, Greek mu: Go prints the first
    parts: list[tuple[str, str]] = []
    at = 0
    while match := _TIME.match(text, at):
        parts.append((match[1], match[2]))
        at = match.end()
    if not parts or at < len(text):
        raise _refused(name, value, within if _BEYOND.fullmatch(text) else _EXPECTED_TIME)
    if len(parts) == 1 and not parts[0][1]:
        return Fraction(parts[0][0])
    units = list(_TIME_UNITS)
    for number, unit in parts:
        if unit not in units:
            what = f"unknown unit {unit!r:.30}" if unit else f"{number!r:.30} has no unit"
            hint = _meant(_nearest_unit(unit, _TIME_WORDS))
            raise _refused(name, value, f"{what}; expected one of {', '.join(units)}{hint}")
    places = [units.index(unit) for _, unit in parts]
    if any(later <= earlier for earlier, later in pairwise(places)):
        raise _refused(name, value, "expected each unit once, the largest first, such as '1h30m'")
    return sum((Fraction(number) * _TIME_UNITS[unit] for number, unit in parts), Fraction(0))


def _nearest_unit(unit: str, spelled: Mapping[str, str]) -> str:
    """The unit that was probably meant, or ""."""
    # "minutes" and "MBs" say what they mean at their beginning, and likeness would not find it.
    begins = [short for short in spelled if len(short) > 1 and unit.startswith(short)]
    close = [max(begins, key=len)] if begins else difflib.get_close_matches(unit, spelled, n=1)
    return spelled[close[0]] if close else ""


def _meant(unit: str) -> str:
    return f"; did you mean {unit!r}?" if unit else ""


def _short(number: float, digits: int) -> str:
    return f"{number:.{digits}f}".removesuffix("." + "0" * digits)


def _exact_time(seconds: float) -> str:
    exactly = Fraction(repr(seconds))
    if exactly.denominator == 1:
        return _whole_time(int(exactly))
    for unit in ("ms", "us"):
        number = exactly / _TIME_UNITS[unit]
        if exactly < 1 and number.denominator == 1:
            return f"{number}{unit}"
    return f"{Decimal(repr(seconds)):f}s"  # never with an exponent, which parse_time does not take


def _whole_time(seconds: int) -> str:
    text = ""
    for unit in ("d", "h", "m", "s"):
        count, seconds = divmod(seconds, int(_TIME_UNITS[unit]))
        text += f"{count}{unit}" if count else ""
    return text or "0s"
