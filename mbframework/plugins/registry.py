"""Providers by name: found through entry points, imported one at a time, checked before use.

Any installed distribution brings a provider by an entry point in the group
``mbframework.providers``: its name is the URL scheme, its value a module, or
an object in a module, that implements the hook ``mbframework_provider``.
The providers that come with mbframework are found in the same way.

A plugin says for which version of the plugin interface it was written: by
``MBFRAMEWORK_API = 1`` in the module that its entry point names, which is looked
at before anything of it is called, and a provider by ``ProviderType.api`` too.
Versions from OLDEST_API on are taken; those that are not the newest with a
DeprecationWarning.

- :func:`names` imports nothing; :func:`load` imports the one plugin asked for.
- Each plugin gets a pluggy ``PluginManager`` of its own, and is remembered only
  after every check passed: a broken plugin leaves nothing behind and cannot
  reach another.
- What goes wrong is a ``PluginError`` that names the plugin; the cause is chained.

Any thread may call these functions. Two threads that load the same plugin at
once do the work twice, with the same result.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from importlib.metadata import version as installed_version
from typing import Any

import pluggy

from mbframework.errors import BrokenPlugin, MissingRequirement, PluginApiMismatch, PluginError, UnknownProvider
from mbframework.plugins import hookspecs
from mbframework.plugins.options import OptionInfo, describe_options
from mbframework.plugins.requirement import unmet
from mbframework.plugins.values import nearest
from mbframework.provider import API_VERSION, Provider

PROVIDERS = "mbframework.providers"

#: The oldest version of the plugin interface that is still taken.
OLDEST_API = 1
#: What a plugin's module calls the version that it was written for.
_STATED = "MBFRAMEWORK_API"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderType:
    """What the hook ``mbframework_provider`` returns: one kind of provider, not yet made.

    :param api: the version of the plugin interface that the plugin was written for, an integer; write
        the number itself and not ``API_VERSION``, which changes with the installed release.
    :param name: the provider's name, for people; the URL scheme is the name of the entry point.
    :param options: a dataclass, its fields made with :func:`mbframework.plugins.option`.
    :param factory: makes one provider from an instance of ``options``, called once per lane. It may import
        the client library; the plugin's module must not.
    :param requires: what must be installed beyond the plugin itself, as ``"name>=1.2,<2"``.
    :param extra: the extra of mbframework that installs it; only for providers that come with mbframework.
    :param summary: one line.
    :param own_prefix: for plugins whose URL is an HTTP endpoint: options of ours are then written
        ``<own_prefix><name>``, as ``mb.timeout``; path and query are passed on as they are written.
    """

    api: int
    name: str
    options: type
    factory: Callable[[Any], Provider]
    requires: tuple[str, ...] = ()
    extra: str = ""
    summary: str = ""
    own_prefix: str = ""

    def __post_init__(self) -> None:
        texts = (self.name, self.extra, self.summary, self.own_prefix)
        if not (all(isinstance(text, str) for text in texts) and callable(self.factory)):
            raise TypeError("name, extra, summary and own_prefix must be texts, factory callable")
        if not (isinstance(self.requires, tuple) and all(isinstance(one, str) for one in self.requires)):
            raise TypeError(f"requires must be a tuple of texts, not {self.requires!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderInfo:
    """One provider as :func:`describe_all` found it. ``error`` is "" where it can be used.

    ``distribution`` and ``version`` name the installed package that brings it. ``api``: the version of the plugin
    interface that it was written for; 0 where that is not known.
    """

    name: str
    distribution: str = ""
    version: str = ""
    summary: str = ""
    requires: tuple[str, ...] = ()
    options: tuple[OptionInfo, ...] = ()
    error: str = ""
    api: int = 0


_loaded: dict[tuple[str, str, str], ProviderType] = {}


def names() -> list[str]:
    """The names (URL schemes) of all installed providers, sorted. Imports none of them."""
    return sorted(entry_points(group=PROVIDERS).names)


def load(name: str) -> ProviderType:
    """The provider type of that name, imported if it was not yet, and ready for use.

    :raises UnknownProvider: no installed distribution brings it.
    :raises PluginError: two distributions bring it.
    :raises BrokenPlugin: it cannot be imported or registered.
    :raises PluginApiMismatch: it was written for another version of the plugin interface.
    :raises MissingRequirement: the client library is not installed; ``.command`` installs it.
    """
    entry = find(PROVIDERS, name)
    provider_type = _load(entry)
    check_requirements(name, provider_type)
    return provider_type


def describe_all() -> list[ProviderInfo]:
    """Every installed provider, with its options or with what is wrong with it. Imports them all; none raises."""
    infos = []
    for name in names():
        try:
            infos.append(describe(name))
        except PluginError as error:
            infos.append(ProviderInfo(name=name, error=str(error)))
    return infos


def describe(name: str) -> ProviderInfo:
    """One installed provider, with its options or with what is wrong with it.

    :raises UnknownProvider: no installed distribution brings it.
    :raises PluginError: two distributions bring it.
    """
    entry = find(PROVIDERS, name)
    info = ProviderInfo(name=name)
    if entry.dist:
        info = replace(info, distribution=entry.dist.name, version=entry.dist.version)
    try:
        provider_type = _load(entry)
        info = replace(
            info,
            summary=provider_type.summary,
            api=provider_type.api,
            requires=provider_type.requires,
            options=tuple(describe_options(name, provider_type.options)),
        )
        check_requirements(name, provider_type)
    except PluginError as error:
        info = replace(info, error=str(error))
    return info


def find(group: str, name: str) -> EntryPoint:
    """The one entry point of that name. :raises UnknownProvider, PluginError: there is none, or more than one."""
    every = entry_points(group=group)
    found = list(every.select(name=name))
    if not found:
        meant = nearest(name, every.names)
        hint = f"; did you mean {meant!r}?" if meant else "."
        installed = ", ".join(sorted(every.names)) or "none"
        what = "provider" if group == PROVIDERS else "observer"
        raise UnknownProvider(f"no {what} is named {name!r}{hint} Installed: {installed}", plugin=name)
    if len(found) > 1:
        owners = " and ".join(sorted({f"{distribution_of(entry)} ({entry.value})" for entry in found}))
        raise PluginError(f"{name!r} is brought by {owners}; uninstall all but one", plugin=name)
    return found[0]


def distribution_of(entry: EntryPoint) -> str:
    """The name and version of the distribution that brings the entry point."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"


def import_plugin(entry: EntryPoint) -> object:
    """Import what an entry point names.

    :raises BrokenPlugin: whatever it raised is chained.
    :raises PluginApiMismatch: it was written for another version of the plugin interface, or its distribution asks for
        another release.
    """
    try:
        plugin: object = entry.load()
    except (Exception, SystemExit) as error:  # the plugin's own code, which must not harm the others
        raise _failure(entry, "cannot be imported", error) from error
    # Not by getattr(): a module may have code for that.
    stated = getattr(sys.modules.get(entry.module), "__dict__", {}).get(_STATED)
    if stated is not None:
        _check_api(entry, stated, f"it states {_STATED} = {stated!r}")
    return plugin


def register(manager: pluggy.PluginManager, plugin: object, name: str) -> None:
    """Register a plugin with pluggy. :raises BrokenPlugin: a hook that does not exist, or wrong arguments."""
    try:
        manager.register(plugin, name)
        manager.check_pending()
    except Exception as error:  # pluggy reads every attribute of the plugin, which may raise anything
        why = " ".join(str(error).split())
        raise BrokenPlugin(f"plugin {name!r} does not fit the hooks of mbframework: {why}", plugin=name) from error


def check_requirements(name: str, provider_type: ProviderType) -> None:
    """:raises MissingRequirement: something that the plugin declares is not installed, or in a wrong version."""
    for requirement in provider_type.requires:
        try:
            why = unmet(requirement)
        except ValueError as error:
            raise BrokenPlugin(f"plugin {name!r}: {error}", plugin=name) from error
        if why:
            wanted = f"mbframework[{provider_type.extra}]" if provider_type.extra else requirement
            command = f"pip install '{wanted}'"
            why = f"which {why}" if why == "is not installed" else f"but {why}"
            # Extras of the requirement matter to pip, not to the reader.
            needs = re.sub(r"\[.*?\]", "", requirement)
            raise MissingRequirement(
                f"provider {name!r} needs {needs}, {why}; run: {command}", plugin=name, command=command
            )


def _load(entry: EntryPoint) -> ProviderType:
    key = (entry.name, entry.value, distribution_of(entry))
    if key not in _loaded:
        manager = pluggy.PluginManager("mbframework")
        manager.add_hookspecs(hookspecs)
        register(manager, import_plugin(entry), entry.name)
        try:
            provider_type = manager.hook.mbframework_provider()
        except (Exception, SystemExit) as error:  # the plugin's own code, as above
            raise _failure(entry, "failed in mbframework_provider()", error) from error
        _check(entry, provider_type)
        _loaded[key] = provider_type
    return _loaded[key]


def _check(entry: EntryPoint, provider_type: object) -> None:
    """The version first: nothing else means the same in another one."""
    if provider_type is None:
        raise BrokenPlugin(
            f"plugin {entry.name!r} ({distribution_of(entry)}) has no mbframework_provider() that is marked with"
            " mbframework.plugins.hookimpl and returns a ProviderType",
            plugin=entry.name,
        )
    if isinstance(api := getattr(provider_type, "api", None), int):
        _check_api(entry, api, "")
    if not isinstance(provider_type, ProviderType) or not isinstance(api, int):
        raise BrokenPlugin(
            f"plugin {entry.name!r} ({distribution_of(entry)}): mbframework_provider() returned {provider_type!r};"
            " expected a ProviderType with an integer api",
            plugin=entry.name,
        )
    describe_options(entry.name, provider_type.options)


def _check_api(entry: EntryPoint, api: object, said: str) -> None:
    """:raises PluginApiMismatch: not a version that this release takes. :raises BrokenPlugin: not a version at all."""
    who = f"plugin {entry.name!r} ({distribution_of(entry)})"
    if not isinstance(api, int):
        raise BrokenPlugin(f"{who}: {said}; expected an integer", plugin=entry.name)
    written = f"{who} was written for version {api} of the plugin interface"
    if api > API_VERSION:
        raise PluginApiMismatch(
            f"{written}, newer than version {API_VERSION}, which this mbframework ({installed_version('mbframework')})"
            " has; upgrade mbframework: pip install --upgrade mbframework",
            plugin=entry.name,
        )
    if api < OLDEST_API:
        command = f": pip install --upgrade {entry.dist.name}" if entry.dist else ""
        raise PluginApiMismatch(
            f"{written}, older than version {OLDEST_API}, the oldest that this mbframework"
            f" ({installed_version('mbframework')}) takes; upgrade the plugin{command}",
            plugin=entry.name,
        )
    if api < API_VERSION:
        warnings.warn(
            f"{written}; version {API_VERSION} is there, and a later release will take no other: upgrade the plugin",
            DeprecationWarning,
            stacklevel=2,
        )


def wrong_release(entry: EntryPoint) -> str:
    """Which release of mbframework the plugin's distribution asks for, where that is not installed; else ""."""
    if entry.dist is None:
        return ""
    for line in entry.dist.requires or ():
        requirement, _, marker = line.partition(";")
        if marker or not re.match(r"mbframework(?![\w.-])", requirement):
            continue
        # A requirement that only pip understands tells nothing here.
        with suppress(ValueError):
            if why := unmet(requirement):
                wanted = requirement.strip()
                return (
                    f"it asks for {wanted}, but {why}; run: pip install --upgrade '{wanted}', or install a release of"
                    f" {entry.dist.name} that goes with it"
                )
    return ""


def _failure(entry: EntryPoint, what: str, error: BaseException) -> PluginError:
    text = f"plugin {entry.name!r} ({distribution_of(entry)}) {what}: {type(error).__name__}: {error}"
    if asked := wrong_release(entry):
        return PluginApiMismatch(f"{text}; {asked}", plugin=entry.name)
    if (isinstance(error, ImportError) and "mbframework.plugins" in str(error)) or (
        isinstance(error, TypeError) and "ProviderType.__init__" in str(error)
    ):
        text += f"; it may be written for another release than this one, which has plugin interface {API_VERSION}"
    return BrokenPlugin(text, plugin=entry.name)
