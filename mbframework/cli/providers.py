"""``mb providers``: which providers are installed, what options they take, and whether one answers.

What was asked for goes to stdout, errors to stderr. Texts of plugins and
brokers are somebody else's: what could steer a terminal is escaped.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

import click

from mbframework.cli.terminal import printable
from mbframework.errors import ConfigurationError, MessageBufferError, PluginError
from mbframework.plugins.options import OptionInfo
from mbframework.plugins.registry import ProviderInfo, describe, describe_all
from mbframework.plugins.source import ProviderSource, resolve_url
from mbframework.provider import Context, Health


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--check", "url", metavar="URL", help="Connect to this provider, say how it is, and disconnect.")
def providers(name: str | None, url: str | None, as_json: bool) -> None:
    """List the installed providers, or one of them with its options."""
    if url is not None and name is not None:
        raise click.UsageError("give a NAME, or --check URL, not both")
    if url is not None:
        try:
            source = resolve_url(url)
        except (ConfigurationError, PluginError) as error:
            error.args = (f"--check: {error}",)
            raise
        _check(source, as_json)
    elif name is not None:
        _show([describe(name)], _details, as_json)
    else:
        _show(describe_all(), _overview, as_json)


def _show(
    infos: Sequence[ProviderInfo], lines: Callable[[Sequence[ProviderInfo]], Iterator[str]], as_json: bool
) -> None:
    if as_json:
        found = {"schema": 1, "providers": [_as_object(info) for info in infos]}
        click.echo(json.dumps(found, indent=2, default=_plain))
        return
    for line in lines(infos):
        click.echo(printable(line))


def _overview(infos: Sequence[ProviderInfo]) -> Iterator[str]:
    width = max((len(info.name) for info in infos), default=0)
    for info in infos:
        yield f"{info.name:{width}}  {_state(info):8}  {info.error or info.summary}"


def _details(infos: Sequence[ProviderInfo]) -> Iterator[str]:
    for info in infos:
        yield f"{info.name}: {info.summary}" if info.summary else info.name
        written = f", for plugin interface {info.api}" if info.api else ""
        yield f"  from {info.distribution} {info.version}{written}; {_state(info)}"
        if info.error:
            yield f"  {info.error}"
        for option in info.options:
            yield ""
            yield f"  {option.name}{_place(option)}: {option.type}{_default(option)}"
            if option.help:
                yield f"      {option.help}"


def _state(info: ProviderInfo) -> str:
    return "unusable" if info.error else "ok"


def _place(option: OptionInfo) -> str:
    notes = [f"the URL's {option.part}" if option.part else "", option.unit, "secret" if option.secret else ""]
    text = ", ".join(note for note in notes if note)
    return f" ({text})" if text else ""


def _default(option: OptionInfo) -> str:
    if option.required:
        return "; required"
    default = _plain(option.default)
    return "" if default in ("None", "", "()", "{}") else f"; default {default}"


def _as_object(info: ProviderInfo) -> dict[str, Any]:
    described = {f.name: getattr(info, f.name) for f in dataclasses.fields(info)}
    described["status"] = _state(info)
    described["options"] = [
        {f.name: getattr(option, f.name) for f in dataclasses.fields(option) if f.name != "kind"}
        for option in info.options
    ]
    return described


def _plain(value: object) -> object:
    return value.value if isinstance(value, Enum) else str(value)


def _check(source: ProviderSource, as_json: bool) -> None:
    """Print the provider's health; exit status 1 where it is not well."""
    health = _health(source)
    facts: Mapping[str, str] = {key: source.scrub(value) for key, value in health.facts.items()}
    detail = source.scrub(health.detail)
    if as_json:
        found = {"schema": 1, "provider": source.display, "ok": health.ok, "detail": detail, "facts": facts}
        click.echo(json.dumps(found, indent=2))
    else:
        click.echo(printable(f"{'ok' if health.ok else 'failed'}  {source.display}  {detail}"))
        for key, value in facts.items():
            click.echo(printable(f"    {key}: {value}"))
    if not health.ok:
        raise click.exceptions.Exit(1)


def _health(source: ProviderSource) -> Health:
    provider = source.create(Context(buffer_id="0" * 32, lane="check", run=bytes(16)))
    try:
        return provider.check()
    except MessageBufferError as error:
        return Health(False, str(error))
    except Exception as error:  # noqa: BLE001 - the provider's own code: whatever it raises is the answer
        return Health(False, f"{type(error).__name__}: {error}")
