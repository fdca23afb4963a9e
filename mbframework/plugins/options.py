"""The typed options of a provider: declared once, for URLs, mappings, help and docs.

A provider declares a frozen dataclass whose fields are made by :func:`option`.
What a user gives arrives as text from a URL, or as Python values from a
mapping; :func:`parse_options` turns both into the declared types, and refuses
what it does not understand: the error names the provider, the option, what was
expected and the nearest match. The value of an option flagged ``secret`` is in
no error, ``repr()`` or display.

Everything here is a pure function, but for reading a secret from where it is
kept (:mod:`mbframework.plugins.secret`).
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field
from typing import Any, Literal, TypeVar, overload

from mbframework.errors import BrokenPlugin, ConfigurationError
from mbframework.plugins.secret import MASK, looks_secret, read_secret, scrub
from mbframework.plugins.url import ProviderURL, decode_item
from mbframework.plugins.values import Mismatch, convert, describe, nearest

T = TypeVar("T")

#: The part of a URL that an option is taken from; "" for ``?name=value``.
Part = Literal["", "scheme", "username", "password", "hosts", "path", "client", "query"]

_METADATA = "mbframework.option"


@dataclass(frozen=True, slots=True)
class _Declared:
    """What :func:`option` keeps in the metadata of a field."""

    help: str = ""
    unit: str = ""
    part: Part = ""
    secret: bool = False


@overload
def option(default: T, *, help: str = ..., unit: str = ..., part: Part = ..., secret: bool = ...) -> T: ...
@overload
def option(
    *, factory: Callable[[], T], help: str = ..., unit: str = ..., part: Part = ..., secret: bool = ...
) -> T: ...
@overload
def option(*, help: str = ..., unit: str = ..., part: Part = ..., secret: bool = ...) -> Any: ...
def option(
    default: Any = MISSING,
    *,
    factory: Any = MISSING,
    help: str = "",
    unit: str = "",
    part: Part = "",
    secret: bool = False,
) -> Any:
    """Declare one option: a field of a dataclass. Without ``default`` and ``factory`` it must be given.

    The field's annotation may be ``str``, ``int``, ``float``, ``bool``, an ``Enum`` (by value), a
    ``Literal``, ``tuple[X, ...]`` (separated by commas in a URL), ``Mapping[str, X]`` (only with
    ``part="client"``), ``object`` (as given), and unions of these with each other and None.

    :param unit: shown in help. With ``"bytes"`` an int is also written ``"64MiB"``, with ``"s"`` a float
        ``"250ms"``; other units are only words.
    :param part: where the URL holds it. ``hosts``: all hosts, with their ports; ``path``: decoded, with its
        leading slash; ``client``: every ``client.<name>=``; ``scheme``: the scheme that was used, for plugins
        that serve several; ``query``: what belongs to an HTTP endpoint, as written, see
        ``ProviderType.own_prefix``.
        All but ``scheme`` and ``query`` may also be given by their name.
    :param secret: its value is never shown, and may be ``env:NAME`` or ``file:/path``.
    """
    return dataclasses.field(
        **({} if default is MISSING else {"default": default}),
        **({} if factory is MISSING else {"default_factory": factory}),
        # Client options and endpoint queries carry passwords under names that only the client knows.
        repr=not secret and part not in ("client", "query", "password"),
        metadata={_METADATA: _Declared(help, unit, part, secret or part == "password")},
    )


@dataclass(frozen=True, slots=True)
class OptionInfo:
    """One declared option, for help and docs. ``type`` is a description in words; ``default`` is None where
    the option must be given (``required``), and masked where it is a secret."""

    name: str
    type: str
    default: object
    required: bool
    unit: str
    secret: bool
    help: str
    part: Part
    kind: Any = field(repr=False, compare=False)


def describe_options(provider: str, declared: type) -> list[OptionInfo]:
    """The options that the dataclass ``declared`` declares, in its order.

    :raises BrokenPlugin: it is not a dataclass, or has a type that no option may have.
    """
    if not (isinstance(declared, type) and dataclasses.is_dataclass(declared)):
        raise BrokenPlugin(f"provider {provider!r}: its options must be a dataclass, not {declared!r}", plugin=provider)
    try:
        kinds = typing.get_type_hints(declared)
        return [_describe_field(f, kinds[f.name]) for f in dataclasses.fields(declared) if f.init]
    except Exception as error:  # evaluates the plugin's annotations and default factories, which may raise anything
        message = f"provider {provider!r}: its options are wrongly declared: {error}"
        raise BrokenPlugin(message, plugin=provider) from error


def parse_options(
    provider: str,
    declared: type,
    *,
    url: ProviderURL | None = None,
    mapping: Mapping[str, object] | None = None,
    own_prefix: str = "",
) -> Any:
    """An instance of ``declared`` from a URL and from a mapping; an option may be in one of them only.

    :raises ConfigurationError: an unknown, repeated, missing or wrong option; it names provider and option.
    :raises BrokenPlugin: the declaration itself is wrong.
    """
    infos = {info.name: info for info in describe_options(provider, declared)}
    given = _given_in_url(provider, infos, url, own_prefix) if url else {}
    for name, value in _flat(provider, infos, mapping or {}):
        if name in given:
            raise ConfigurationError(
                f"provider {provider!r}: option {name!r} is given in the URL and beside it; give it once", option=name
            )
        given[name] = value
    values: dict[str, Any] = {}
    secrets: list[str] = []
    for name, value in given.items():
        info, key = _declared_for(provider, infos, name)
        secret = info.secret or (bool(key) and looks_secret(key))
        if secret:
            value = read_secret(provider, name, value)
            secrets += [] if value is None else [str(value)]
        try:
            converted = convert(value, info.kind, info.unit)
        except Mismatch as mismatch:
            # "from None": what it was raised from may quote a secret.
            raise _wrong_value(provider, name, None if secret else value, mismatch) from None
        if key:
            values.setdefault(info.name, {})[key] = converted
        else:
            values[info.name] = converted
    for info in infos.values():
        if info.required and info.name not in values:
            raise ConfigurationError(
                f"provider {provider!r} needs option {info.name!r}: {info.type}{_where(info)}", option=info.name
            )
    return _make(provider, declared, values, secrets)


def secret_values(options: object) -> tuple[str, ...]:
    """Every secret that an instance of an options class holds, for :func:`scrub`."""
    found: list[str] = []
    for f in dataclasses.fields(options):  # type: ignore[arg-type]
        declared: _Declared = f.metadata.get(_METADATA, _Declared())
        value = getattr(options, f.name)
        if declared.part == "client" and isinstance(value, Mapping):
            found += [str(v) for k, v in value.items() if declared.secret or looks_secret(k)]
        elif declared.secret and value is not None:
            found.append(str(value))
    return tuple(found)


def _describe_field(f: dataclasses.Field[Any], kind: Any) -> OptionInfo:
    declared: _Declared = f.metadata.get(_METADATA, _Declared())
    default = f.default_factory() if f.default_factory is not MISSING else f.default
    required = default is MISSING
    if required:
        default = None
    elif declared.secret and default not in (None, ""):
        default = MASK
    if declared.part == "client":
        if typing.get_origin(kind) not in (Mapping, dict):
            raise TypeError(f"{f.name!r} takes the client's options and must be a Mapping[str, X]")
        kind = typing.get_args(kind)[1]
    return OptionInfo(
        name=f.name,
        type=describe(kind, declared.unit),
        default=default,
        required=required,
        unit=declared.unit,
        secret=declared.secret,
        help=declared.help,
        part=declared.part,
        kind=kind,
    )


def _given_in_url(
    provider: str, infos: Mapping[str, OptionInfo], url: ProviderURL, own_prefix: str
) -> dict[str, object]:
    """What the URL gives, by option; client options as ``client.<name>``."""
    parts: dict[str, str | None] = {
        "scheme": url.scheme,
        "username": url.username,
        "password": url.password,
        "hosts": ",".join(url.hosts) or None,
        "path": (url.raw_path if own_prefix else url.path) or None,
    }
    ours = [item for item in url.items if item.startswith(own_prefix)]
    parts["query"] = "&".join(item for item in url.items if not item.startswith(own_prefix)) or None
    given: dict[str, object] = {}
    for info in infos.values():
        text = parts.pop(info.part, None)
        if text is not None:
            given[info.name] = text
    for part in ("username", "password", "hosts", "path", "query"):
        # A lone slash after the host says nothing.
        if parts.get(part) and (part, parts[part]) != ("path", "/"):
            raise ConfigurationError(
                f"provider {provider!r} takes no {_PARTS[part]}{_instead(provider, infos)}", option="provider"
            )
    for number, item in enumerate(ours, 1):
        name, value = decode_item(item, url.scheme, number)
        name = name.removeprefix(own_prefix)
        info, key = _declared_for(provider, infos, name, own_prefix)
        if info.part in ("scheme", "query") or (info.part == "client" and not key):
            raise ConfigurationError(
                f"provider {provider!r}: option {name!r} cannot be given so{_where(info)}", option=name
            )
        if name in given:
            raise ConfigurationError(f"provider {provider!r}: option {name!r} is given twice", option=name)
        given[name] = value
    return given


def _flat(
    provider: str, infos: Mapping[str, OptionInfo], mapping: Mapping[str, object]
) -> Iterable[tuple[str, object]]:
    """The mapping's items; a mapping of client options as ``client.<name>``."""
    for name, value in mapping.items():
        info, key = _declared_for(provider, infos, name)
        if info.part == "client" and not key:
            if not isinstance(value, Mapping):
                raise ConfigurationError(
                    f"provider {provider!r}: option {name!r} must be a mapping of names to values", option=name
                )
            yield from ((f"{name}.{inner}", _plain_text(v) if info.kind is str else v) for inner, v in value.items())
        else:
            yield name, _plain_text(value) if key and info.kind is str else value


def _plain_text(value: object) -> object:
    """A number or a bool as a URL would write it, since configuration files write ``acks = 1``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _declared_for(
    provider: str, infos: Mapping[str, OptionInfo], name: str, own_prefix: str = ""
) -> tuple[OptionInfo, str]:
    """The option of that name, and for a client option its name without the prefix, else ""."""
    if name in infos:
        return infos[name], ""
    outer, _, inner = name.partition(".")
    if inner and outer in infos and infos[outer].part == "client":
        return infos[outer], inner
    meant = nearest(name, infos)
    hint = f"; did you mean {own_prefix + meant!r}?" if meant else "."
    raise ConfigurationError(
        f"provider {provider!r} has no option {own_prefix + name!r}{hint} It takes {', '.join(infos) or 'none'}",
        option=name,
    )


def _make(provider: str, declared: type, values: Mapping[str, Any], secrets: Iterable[str]) -> Any:
    try:
        return declared(**values)
    except ValueError as error:
        said = str(error)
        text = scrub(said, secrets)
        name = getattr(error, "option", "")
        where = f"option {name!r}: " if name and name not in text else ""
        raise ConfigurationError(f"provider {provider!r}: {where}{text}", option=name) from (
            error if text == said else None
        )
    except Exception as error:  # noqa: BLE001 - a plugin's own code: whatever else it raises is its fault
        raise BrokenPlugin(
            f"provider {provider!r} failed to check its options: {type(error).__name__}: {scrub(str(error), secrets)}",
            plugin=provider,
        ) from (error if not secrets else None)


def _wrong_value(provider: str, name: str, value: object, mismatch: Mismatch) -> ConfigurationError:
    shown = "the value given is wrong" if value is None else f"{value!r} is wrong"
    hint = f"; did you mean {mismatch.nearest!r}?" if mismatch.nearest and value is not None else ""
    return ConfigurationError(
        f"provider {provider!r}: option {name!r}: {shown}; expected {mismatch.expected}{hint}", option=name
    )


_PARTS = {
    "username": "user name",
    "password": "password",
    "hosts": "host",
    "path": "path",
    "query": "options without its prefix",
}


def _instead(provider: str, infos: Mapping[str, OptionInfo]) -> str:
    parts = {info.part for info in infos.values()}
    if "path" in parts and "hosts" not in parts:
        return f"; a relative path is written '{provider}:file', an absolute one '{provider}:///folder/file'"
    return f"; its options are {', '.join(infos)}" if infos else ""


def _where(info: OptionInfo) -> str:
    places = {
        "": f"; write ?{info.name}=… in its URL",
        "client": f"; write {info.name}.<name>=<value>",
        "scheme": "; it is the scheme of the URL",
        "query": "; it is the rest of the URL's query",
        "path": "; it is the path of the URL",
        "hosts": "; it stands after '//' in the URL",
    }
    return places.get(info.part, f"; it stands before the '@' of the URL, or is given as {info.name}=…")
