"""One configuration option: its default, what it takes, and what it means, declared once.

:class:`mbframework.config.Config` declares each of its fields with one of the
functions below (:func:`size`, :func:`time`, …). What they put into the field's
metadata is an :class:`Option`; keyword arguments, files, environment and the
reference in the documentation all read that one declaration.

``Option.parse`` takes a value as a source gives it (a number, a bool, or a text
from the environment), returns it in base units, and is idempotent. Pure
functions: any thread may call them.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import Field, dataclass, field
from datetime import date
from datetime import time as clock
from typing import Any, TypeVar

from mbframework.errors import ConfigurationError
from mbframework.units import MAX_SIZE, MAX_TIME, format_size, format_time, parse_number, parse_size, parse_time, quoted

T = TypeVar("T")

#: At most 100 characters, so that the names of further lanes (``main.1``) fit into a segment's header.
LANE_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}", re.ASCII)
#: Entries of a buffer's directory that are not lanes.
_NOT_LANES = frozenset({"dead", "buffer.json"})

#: Levels of lists and tables in a value; below what Python's own functions can follow.
_DEEPEST = 100
#: Binary digits of a number; beyond, Python refuses to write it in decimal ones.
_LONGEST = 4096
#: Octal digits that were written as a decimal number.
_DECIMAL_MODES = frozenset({700, 750, 770, 2700, 2750, 2770})
#: What cannot be an object with hooks.
_PLAIN = (bool, int, float, bytes, list, tuple, Mapping, date, clock)
_FLAGS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True, slots=True)
class Option:
    """What is known of a field beside its name, type and default.

    ``parse(value, name)`` raises ConfigurationError; ``show(value)`` writes a value as a user
    would; ``expected`` says in words what is taken.
    """

    group: str
    help: str
    expected: str
    parse: Callable[[Any, str], object]
    show: Callable[[Any], str]


def option_of(declared: Field[Any]) -> Option:
    """The option behind a field of Config."""
    option: Option = declared.metadata["option"]
    return option


def refused(name: str, value: object, expected: str) -> ConfigurationError:
    """The error for a value that was understood and is not taken, or was not understood."""
    return ConfigurationError(f"{name}: {quoted(value)}: {expected}", option=name)


def unprintable(value: object) -> str:
    """What is wrong with a value that cannot even be shown, or ""."""
    level: list[object] = [value]
    seen: set[int] = set()
    for _ in range(_DEEPEST):
        below: list[object] = []
        for each in level:
            if isinstance(each, int) and each.bit_length() > _LONGEST:
                return "a number with too many digits"
            inner = each.values() if isinstance(each, Mapping) else each if isinstance(each, list | tuple) else ()
            # One that is in itself is known, and Python shows it.
            if inner and id(each) not in seen:
                seen.add(id(each))
                below += inner
        if not below:
            return ""
        level = below
    return f"lists or tables more than {_DEEPEST} levels deep"


def nearest(word: str, words: Collection[str], *, prefix: str = "") -> str:
    """``"; did you mean 'x'?"`` for the word closest to what was written, or "".

    ``prefix`` stands before each of them and is no part of the likeness.
    """
    spellings = {candidate.lower().replace("-", "_"): candidate for candidate in words}
    written = word.lower().replace("-", "_").removeprefix(prefix.lower())
    close = difflib.get_close_matches(written, spellings, n=1)
    return f"; did you mean {prefix + spellings[close[0]]!r}?" if close else ""


def size(default: T, group: str, about: str, *, least: int = 0, most: int = MAX_SIZE) -> T:
    """A size in bytes."""

    def parse(value: Any, name: str) -> int:
        parsed = parse_size(value, name=name, within=within)
        if not least <= parsed <= most:
            raise refused(name, value, f"expected {expected}")
        return parsed

    expected = _range("a size", _exact_size(least), _exact_size(most) if most < MAX_SIZE else "")
    within = f"expected {expected}" if least or most < MAX_SIZE else ""
    return _declare(default, group, about, expected, parse, _exact_size)


def time(default: T, group: str, about: str, *, least: float = 0.0, most: float = MAX_TIME) -> T:
    """A time in seconds."""

    def parse(value: Any, name: str) -> float:
        parsed = parse_time(value, name=name, within=within)
        if not least <= parsed <= most:
            raise refused(name, value, f"expected {expected}")
        return parsed

    expected = _range("a time", _exact_time(least), _exact_time(most) if most < MAX_TIME else "")
    within = f"expected {expected}" if least or most < MAX_TIME else ""
    return _declare(default, group, about, expected, parse, _exact_time)


def count(default: T, group: str, about: str, *, least: int = 1, most: int = 1_000_000_000) -> T:
    """A whole number."""

    def parse(value: Any, name: str) -> int:
        if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,19}\s*", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise refused(name, value, f"expected {expected}")
        return value

    expected = _range("a whole number", f"{least:,}", f"{most:,}" if most < 1_000_000_000 else "")
    return _declare(default, group, about, expected, parse, str)


def rate(default: T, group: str, about: str) -> T:
    """Messages per second, above zero."""

    def parse(value: Any, name: str) -> float:
        parsed = parse_number(value, name=name, expected=f"expected {expected}")
        if not 0.001 <= parsed <= 1e12:
            raise refused(name, value, f"expected {expected}")
        return parsed

    expected = "messages per second, 0.001 or more"
    return _declare(default, group, about, expected, parse, "{:g}".format)


def flag(default: bool, group: str, about: str) -> bool:
    """True or false; from the environment also yes, no, on, off, 1, 0."""

    def parse(value: Any, name: str) -> bool:
        parsed = _FLAGS.get(value.strip().lower()) if isinstance(value, str) else value
        if not isinstance(parsed, bool):
            hint = nearest(value, _FLAGS) if isinstance(value, str) else ""
            raise refused(name, value, f"expected {expected}{hint}")
        return parsed

    expected = "true or false"
    return _declare(default, group, about, expected, parse, lambda value: str(value).lower())


def choice(default: T, group: str, about: str, values: Iterable[str]) -> T:
    """One of a few words."""
    words = tuple(values)

    def parse(value: Any, name: str) -> str:
        if not isinstance(value, str) or value not in words:
            hint = nearest(value, words) if isinstance(value, str) else ""
            raise refused(name, value, f"expected {expected}{hint}")
        return value

    expected = f"one of {', '.join(words)}"
    return _declare(default, group, about, expected, parse, str)


def file_mode(default: int, group: str, about: str) -> int:
    """Permission bits of a directory, as an octal number or text."""

    def parse(value: Any, name: str) -> int:
        bits = value
        if isinstance(value, str) and re.fullmatch(r"(0o)?[0-7]{3,5}", value.strip(), re.ASCII):
            bits = int(value, 8)
        # A decimal 700 has other bits than an octal one: the owner's are then incomplete, and it is caught here.
        if isinstance(bits, bool) or not isinstance(bits, int) or bits & ~0o7777 or bits & 0o700 != 0o700:
            hint = f"; did you mean 0o{value}?" if isinstance(value, int) and value in _DECIMAL_MODES else ""
            raise refused(name, value, f"expected {expected}{hint}")
        if bits & 0o002:
            raise refused(name, value, "expected a directory that others may not write into, such as 0o700 or 0o2770")
        return bits

    expected = "octal permission bits with all rights for the owner, such as 0o700 or 0o2770"
    return _declare(default, group, about, expected, parse, "0o{:o}".format)


def lane_name(default: str, group: str, about: str) -> str:
    """The name of a lane, which is also that of its directory."""

    def parse(value: Any, name: str) -> str:
        if not isinstance(value, str) or not LANE_NAME.fullmatch(value):
            raise refused(name, value, f"expected {expected}")
        if value in _NOT_LANES:
            raise refused(name, value, "that name is taken by the buffer itself; expected another")
        return value

    expected = "1 to 100 of a-z, 0-9, '_', '.', '-', the first a letter or a digit"
    return _declare(default, group, about, expected, parse, str)


def names(group: str, about: str) -> tuple[object, ...]:
    """Names of installed plugins, or objects."""

    def parse(value: Any, name: str) -> tuple[object, ...]:
        if _is_none(value):
            return ()
        given = value.split(",") if isinstance(value, str) else value
        if not isinstance(given, list | tuple):
            raise refused(name, value, f"expected {expected}")
        named = [each.strip() if isinstance(each, str) else each for each in given]
        # What a file can hold beside names is no observer.
        if any(each is None or each == "" or isinstance(each, _PLAIN) for each in named):
            raise refused(name, value, f"expected {expected}")
        return tuple(named)

    def show(value: Any) -> str:
        return ", ".join(map(str, value)) or "none"

    expected = "a list of names or objects (in the environment, names separated by commas), or none"
    return _declare((), group, about, expected, parse, show)


def url(group: str, about: str) -> str | None:
    """A URL. It may hold a password: it is neither shown in errors nor in ``repr()``."""

    def parse(value: Any, name: str) -> str:
        if not isinstance(value, str) or not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", value):
            raise ConfigurationError(f"{name}: expected {expected}; the value is not shown here", option=name)
        return value

    expected = "a URL such as kafka://host:9092 or sqlite:out.db"
    return _declare(None, group, about, expected, parse, str, secret=True)


def table(group: str, about: str) -> Mapping[str, object]:
    """Names and values that are checked elsewhere; they may hold a password and are not shown either."""

    def parse(value: Any, name: str) -> Mapping[str, object]:
        wrong = ConfigurationError(f"{name}: expected {expected}; the value is not shown here", option=name)
        if _is_none(value):
            return {}
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise wrong from None
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise wrong
        if why := unprintable(value):
            raise ConfigurationError(f"{name}: {why}; expected {expected}", option=name)
        return dict(value)

    expected = "a table of names and values (in the environment, a JSON object), or none"
    option = Option(group, about, expected, parse, lambda value: "not shown" if value else "none")
    return field(default_factory=dict, metadata={"option": option}, repr=False, hash=False)


def path(group: str, about: str) -> str | None:
    """A path."""

    def parse(value: Any, name: str) -> str:
        given = os.fspath(value) if isinstance(value, str | os.PathLike) else None
        if not isinstance(given, str) or not given.strip() or "\0" in given:
            raise refused(name, value, f"expected {expected}")
        try:
            os.fsencode(given)
        except UnicodeEncodeError:
            # Half a character, as some JSON writes it.
            raise refused(name, value, f"expected {expected}") from None
        return given

    expected = "a path"
    return _declare(None, group, about, expected, parse, str)


def _declare(
    default: T,
    group: str,
    about: str,
    expected: str,
    parse: Callable[[Any, str], object],
    show: Callable[[Any], str],
    *,
    secret: bool = False,
) -> T:
    """A dataclass field; where its default is None, None and the text ``"none"`` are taken as well."""

    def parse_printable(value: Any, name: str) -> object:
        if why := unprintable(value):
            raise ConfigurationError(f"{name}: {why}; expected {expected}", option=name)
        return parse(value, name)

    if default is None:
        option = Option(group, about, f"{expected}; or none", _or_none(parse_printable), _show_or_none(show))
    else:
        option = Option(group, about, expected, parse_printable, show)
    return field(default=default, metadata={"option": option}, repr=not secret)


def _or_none(parse: Callable[[Any, str], object]) -> Callable[[Any, str], object]:
    return lambda value, name: None if _is_none(value) else parse(value, name)


def _show_or_none(show: Callable[[Any], str]) -> Callable[[Any], str]:
    return lambda value: "none" if value is None else show(value)


def _is_none(value: object) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() == "none")


def _exact_size(value: int) -> str:
    return format_size(value, exact=True)


def _exact_time(value: float) -> str:
    return format_time(value, exact=True)


def _range(what: str, least: str, most: str) -> str:
    if most:
        return f"{what} from {least} to {most}"
    return what if least in {"0B", "0s"} else f"{what} of {least} or more"
