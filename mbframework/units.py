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

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction

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

_NUMBER = re.compile(r"\d{1,40}(?:\.\d{1,40})?", re.ASCII)
_SIZE = re.compile(r"(\d{1,40}(?:\.\d{1,40})?)\s*([A-Za-z]*)", re.ASCII)
_TIME = re.compile(r"(\d{1,40}(?:\.\d{1,400})?)\s*([a-z]*)\s*", re.ASCII)

_EXPECTED_SIZE = "expected bytes as a number, or a text such as '512', '64MiB' or '1.5GB'"
_EXPECTED_TIME = "expected seconds as a number, or a text such as '250ms', '10s', '1h30m' or '7d'"


def parse_size(value: str | float, *, name: str = "size") -> int:
    """A size in bytes.

    A fraction of a byte is cut off where a unit was given (``"1.1GiB"``), and
    refused where none was (``1.5``).

    :raises ConfigurationError: it names ``name``, the value and what was expected.
    """
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise _refused(name, value, _EXPECTED_SIZE)
        number, unit = Fraction(match[1]), match[2].lower()
        if unit in {"k", "m", "g", "t"}:
            decimal, binary = f"{unit.upper()}B", f"{unit.upper()}iB"
            raise _refused(name, value, f"expected '{match[1]}{decimal}' (decimal) or '{match[1]}{binary}' (binary)")
        if unit and unit not in _SIZE_UNITS:
            units = ", ".join([*_BINARY, *_DECIMAL])
            raise _refused(name, value, f"unknown unit {match[2]!r}; expected one of {units}")
        factor = _SIZE_UNITS[unit] if unit else 1
    else:
        number, factor = _number(value, name, _EXPECTED_SIZE), 1
    if factor == 1 and number.denominator != 1:
        raise _refused(name, value, "expected a whole number of bytes")
    size = int(number * factor)
    if size > MAX_SIZE:
        raise _refused(name, value, f"expected at most {MAX_SIZE} bytes")
    return size


def parse_time(value: str | float, *, name: str = "time") -> float:
    """A time in seconds. Units, largest first and each at most once: d, h, m, s, ms, us, ns.

    :raises ConfigurationError: it names ``name``, the value and what was expected.
    """
    seconds = _seconds_of_text(value, name) if isinstance(value, str) else _number(value, name, _EXPECTED_TIME)
    if seconds > MAX_TIME:
        raise _refused(name, value, f"expected at most {MAX_TIME:.0f} seconds (292 years)")
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
    return float(_number(value, name, expected))


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


def _number(value: object, name: str, expected: str) -> Fraction:
    """A plain number, exactly; what a configuration file may hold instead is refused by name."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refused(name, value, expected)
    if isinstance(value, float) and not math.isfinite(value):
        raise _refused(name, value, "expected a finite number")
    if value < 0:
        raise _refused(name, value, "expected zero or more")
    return Fraction(repr(value)) if isinstance(value, float) else Fraction(value)


def _seconds_of_text(value: str, name: str) -> Fraction:
    text = value.strip().lower().replace("µ", "u").replace("μ", "u")  # micro sign, Greek mu: Go prints the first
    units = list(_TIME_UNITS)
    total, at, last = Fraction(0), 0, -1
    while at < len(text):
        match = _TIME.match(text, at)
        if match is None:
            raise _refused(name, value, _EXPECTED_TIME)
        number, unit = Fraction(match[1]), match[2]
        if not unit and match.span() == (0, len(text)):
            return number
        if unit not in _TIME_UNITS:
            what = f"unknown unit {unit!r}" if unit else f"{match[1]!r} has no unit"
            raise _refused(name, value, f"{what}; expected one of {', '.join(units)}")
        if units.index(unit) <= last:
            raise _refused(
                name,
                value,
                "expected each unit once, the largest first, such as '1h30m'",
            )
        total, at, last = (
            total + number * _TIME_UNITS[unit],
            match.end(),
            units.index(unit),
        )
    if not text:
        raise _refused(name, value, _EXPECTED_TIME)
    return total


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
