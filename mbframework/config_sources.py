"""Where a configuration may stand: a mapping, a TOML file, the environment, the original's JSON file.

Each reader returns a :class:`Layer`: raw values by option, and how that source
calls them, so that an error names what the user has to look at. A reader
refuses names that it does not know and leaves the values to
:class:`mbframework.config.Config`. Nothing is created, and no value is logged.

The readers keep no state: any thread may call them.
"""

from __future__ import annotations

import json
import logging
import os
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from mbframework.config_option import nearest
from mbframework.errors import ConfigurationError
from mbframework.units import MAX_SIZE, parse_number, parse_size, parse_time

logger = logging.getLogger("mbframework.config")

#: The source's name for options passed in code; errors then name the option alone.
KEYWORDS = "keyword arguments"

#: Variables with the prefix that are not options: this project's other ones (a final ``*`` stands for any rest),
#: and what Kubernetes sets in every pod where a service is called ``mbframework``.
OTHER_VARIABLES = ("CONFIG", "DIRS", "EXTENSION", "TEST_*", "SERVICE_HOST", "SERVICE_PORT*", "PORT", "PORT_*")

_TABLES = ("tool.mbframework", "mbframework")
_ALL = "; all options: python -m mbframework.config_reference"

_TOO_DEEP = "lists or tables too deep in each other; expected options, most of them a number or a text"

#: Bytes of a configuration file: a device that never ends is found out, too.
_LARGEST = 1 << 20

#: The original's key → the option here, "" for none.
_ORIGINAL = {
    "file_max_time": "segment_age",
    "file_max_size": "segment_size",
    "total_size": "total_size",
    "buffer_dir": "directory",
    "prune_frequency": "",
}


@dataclass(frozen=True, slots=True)
class Layer:
    """Raw values by option, from one source; ``names`` says what the source calls an option."""

    values: Mapping[str, object]
    source: str = KEYWORDS
    names: Mapping[str, str] = field(default_factory=dict)

    def label(self, option: str) -> str:
        """The option as an error should name it, such as ``outbox.toml: segment_size``."""
        name = self.names.get(option, option)
        return name if self.source == KEYWORDS else f"{self.source}: {name}"


def from_mapping(
    mapping: Mapping[str, object],
    known: Collection[str],
    *,
    source: str = KEYWORDS,
    names: Mapping[str, str] | None = None,
) -> Layer:
    """Options by their own names; ``names`` says what errors about their values call them.

    :raises ConfigurationError: a name is not known; the nearest one is named.
    """
    for key in mapping:
        if not isinstance(key, str):
            raise ConfigurationError(f"the name of an option is {type(key).__name__}; expected text")
        if key not in known:
            where = "" if source == KEYWORDS else f"{source}: "
            raise ConfigurationError(f"{where}unknown option {key!r}{nearest(key, known) or _ALL}", option=key)
    return Layer(dict(mapping), source, names or {})


def from_file(path: str | os.PathLike[str], known: Collection[str], *, section: str | None = None) -> Layer:
    """A TOML file, or with the suffix ``.json`` one of the original library."""
    path = _checked(path)
    if path.lower().endswith(".json"):
        return from_json(path)
    return from_toml(path, known, section=section)


def from_toml(path: str | os.PathLike[str], known: Collection[str], *, section: str | None = None) -> Layer:
    """The table ``section`` (dotted), else ``[tool.mbframework]`` or ``[mbframework]``, else the top level.

    :raises ConfigurationError: the file cannot be read, is not TOML, has no such table, or a name is not known.
    """
    path = _checked(path)
    text = _read(path)
    if section is not None and not isinstance(section, str):
        raise ConfigurationError(f"section: {type(section).__name__}; expected the name of a table", option="section")
    try:
        document = tomllib.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{path}: not TOML: {error}") from None
    except RecursionError:
        raise ConfigurationError(f"{path}: {_TOO_DEEP}") from None
    if section is not None:
        table = _table(document, section)
        if table is None:
            raise ConfigurationError(f"{path}: no table [{section}]; add it, or name the one that holds the options")
        return from_mapping(table, known, source=f"{path}: [{section}]")
    found = [name for name in _TABLES if _table(document, name) is not None]
    if len(found) > 1:
        raise ConfigurationError(f"{path}: both [{found[0]}] and [{found[1]}]; expected one of them, or section=…")
    if found:
        return from_mapping(_table(document, found[0]) or {}, known, source=f"{path}: [{found[0]}]")
    for key, value in document.items():
        if key not in known and isinstance(value, dict):
            tables = " or ".join(f"[{name}]" for name in _TABLES)
            raise ConfigurationError(
                f"{path}: unknown table [{key}]{nearest(key, known)}; expected the options in {tables}, "
                "or at the top level of a file of their own",
                option=key,
            )
    return from_mapping(document, known, source=str(path))


def from_env(environ: Mapping[str, str], known: Collection[str], *, prefix: str) -> Layer:
    """Variables such as ``MBFRAMEWORK_SEGMENT_SIZE``; an empty one counts as not set.

    :raises ConfigurationError: a variable with the prefix is neither an option nor one of OTHER_VARIABLES.
    """
    names = {option: prefix + option.upper() for option in known}
    options = {name: option for option, name in names.items()}
    values: dict[str, object] = {}
    for variable, value in environ.items():
        if variable in options:
            if value.strip():
                values[options[variable]] = value
        elif variable.startswith(prefix) and not _is_other(variable.removeprefix(prefix)):
            hint = nearest(variable, [option.upper() for option in known], prefix=prefix)
            raise ConfigurationError(f"environment: unknown variable {variable!r}{hint or _ALL}", option=variable)
    return Layer(values, "environment", names)


def file_named_in(environ: Mapping[str, str], prefix: str) -> str | None:
    """The configuration file that ``MBFRAMEWORK_CONFIG`` names, or None."""
    return environ.get(f"{prefix}CONFIG", "").strip() or None


def from_json(path: str | os.PathLike[str]) -> Layer:
    """The configuration file of the Go library ``messagebuffer``.

    ===================  ==========================================================================
    its key              here
    ===================  ==========================================================================
    ``file_max_time``    ``segment_age``: a number of seconds; a text such as "10m" is taken too
    ``file_max_size``    ``segment_size``: a number of MB (1,000,000 bytes), or a text such as "2MB"
    ``total_size``       ``total_size``: likewise
    ``buffer_dir``       ``directory``
    ``prune_frequency``  minutes; nothing here: pruning happens as soon as it must. Logged at INFO
    ===================  ==========================================================================

    As in Go, case does not matter in keys. Unlike there, an unknown key is an error: the file
    never held provider settings, and they belong into the provider's URL.

    :raises ConfigurationError: the file cannot be read, is not a JSON object, has an unknown key,
        a key twice, or a value that is not a number or a text with a unit.
    """
    path = _checked(path)
    text = _read(path)
    try:
        document = json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, path))
    except ConfigurationError:  # a ValueError too, from _unique
        raise
    except ValueError as error:
        raise ConfigurationError(f"{path}: not JSON: {error}") from None
    except RecursionError:
        raise ConfigurationError(f"{path}: {_TOO_DEEP}") from None
    if not isinstance(document, dict):
        raise ConfigurationError(f'{path}: expected a JSON object such as {{"buffer_dir": "/var/spool/outbox"}}')
    values: dict[str, object] = {}
    for key, value in document.items():
        if key not in _ORIGINAL:
            raise ConfigurationError(
                f"{path}: unknown key {key!r}{nearest(key, _ORIGINAL)}; expected one of {', '.join(_ORIGINAL)}; "
                "provider settings go into the provider's URL, and options of this library into a TOML file",
                option=key,
            )
        try:
            values |= _original(key, value)
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}: {error}", option=key) from None
    if "prune_frequency" in document:
        logger.info("%s: prune_frequency is not needed: segments are pruned as soon as total_size is reached", path)
    return Layer(values, str(path), {option: key for key, option in _ORIGINAL.items() if option})


def _original(key: str, value: Any) -> dict[str, object]:
    """One key of the original's file as options, in base units."""
    match key:
        case "file_max_time":
            return {"segment_age": parse_time(value, name=key)}
        case "file_max_size" | "total_size":
            return {_ORIGINAL[key]: _megabytes(value, key)}
        case "prune_frequency":
            parse_number(value, name=key, expected="expected a number of minutes")
            return {}
        case _:
            return {_ORIGINAL[key]: value}


def _megabytes(value: Any, name: str) -> int:
    if isinstance(value, str) and value.strip()[-1:].isalpha():
        return parse_size(value, name=name)
    expected = "expected a number of MB, or a text with a unit such as '64MiB'"
    megabytes = min(parse_number(value, name=name, expected=expected), MAX_SIZE)
    return parse_size(round(megabytes * 1_000_000), name=name)


def _unique(pairs: list[tuple[str, Any]], path: str) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key.lower() in table:
            raise ConfigurationError(f"{path}: {key!r} stands there twice; expected it once", option=key)
        table[key.lower()] = value
    return table


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot read the configuration file: {error.strerror}") from error
    except ValueError:
        # A NUL in it.
        raise ConfigurationError(f"{path!r}: expected the path of a configuration file", option="config") from None
    if len(content) > _LARGEST:
        raise ConfigurationError(f"{path}: more than 1MiB; expected the text of a configuration")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not UTF-8 at byte {error.start}; expected a text file") from None


def _checked(path: object) -> str:
    """A path as text. :raises ConfigurationError: it is none."""
    given = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(given, str):
        raise ConfigurationError(f"the configuration file is {type(path).__name__}; expected a path", option="config")
    if not given:
        raise ConfigurationError("the path of the configuration file is empty; expected a TOML file", option="config")
    return given


def _table(document: Mapping[str, Any], dotted: str) -> Mapping[str, Any] | None:
    table: Any = document
    for part in dotted.split("."):
        table = table.get(part) if isinstance(table, dict) else None
    return table if isinstance(table, dict) else None


def _is_other(name: str) -> bool:
    return any(name == other or (other[-1] == "*" and name.startswith(other[:-1])) for other in OTHER_VARIABLES)
