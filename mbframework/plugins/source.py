"""Where a lane's provider comes from: a URL, an object, or a factory.

:func:`resolve` checks all that can be checked without connecting, so that a
mistake is told before anything exists on disk. :meth:`ProviderSource.create`
then makes one provider per lane.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from mbframework.errors import BrokenPlugin, ConfigurationError, MessageBufferError, ProviderError
from mbframework.plugins.options import describe_options, parse_options, secret_values
from mbframework.plugins.registry import PROVIDERS, ProviderType, distribution_of, find, load, wrong_release
from mbframework.plugins.secret import looks_secret, scrub
from mbframework.plugins.url import ProviderURL, parse_url
from mbframework.provider import Context, Provider

#: What a buffer takes as its provider; None: it only writes.
ProviderArgument = str | Provider | Callable[[Context], Provider] | None


#: Held while a provider is made, which imports its module. A fork waits for it: the child would inherit the lock of a
#: half-imported module, and wait for a thread that it does not have.
CREATING = threading.RLock()


class ProviderSource:
    """Makes providers, one per lane.

    ``name`` is the URL's scheme, or the name of the object's or factory's type; ``display`` is the URL with
    its secrets masked, or the same name. ``shareable``: more than one lane may ask for a provider.
    """

    def __init__(
        self,
        name: str,
        display: str,
        make: Callable[[Context], Provider],
        *,
        secrets: tuple[str, ...] = (),
        shareable: bool = True,
    ) -> None:
        self.name = name
        self.display = display
        self._make = make
        self._secrets = secrets
        self.shareable = shareable

    def __repr__(self) -> str:
        return f"<ProviderSource {self.display}>"

    def create(self, context: Context) -> Provider:
        """A provider for the lane of ``context``, not yet opened.

        :raises ConfigurationError: a provider object is asked for a second lane.
        :raises BrokenPlugin: the plugin's factory failed, or made something else.
        :raises ProviderError: the caller's factory did.
        """
        with CREATING:
            return self._make(context)

    def scrub(self, text: str) -> str:
        """``text`` without the secrets of this source: for errors of client libraries, which may quote them."""
        return scrub(text, self._secrets)


def resolve(provider: ProviderArgument, options: Mapping[str, object] | None = None) -> ProviderSource | None:
    """What the caller gave as provider, checked. ``options`` add to those of a URL. Opens no connection.

    :raises ConfigurationError: a malformed URL, a wrong option, options without a URL, or something else
        than a URL, a Provider, a callable or None.
    :raises PluginError: the plugin is unknown, broken, or lacks its client library.
    """
    if isinstance(provider, str):
        return resolve_url(provider, options)
    if options:
        raise ConfigurationError(
            "provider_options: options go with a provider URL, and none is given; expected one, or no options"
            " (a provider object or a factory has its own)",
            option="provider_options",
        )
    if provider is None:
        return None
    if isinstance(provider, Provider):
        return _from_object(provider)
    if callable(provider):
        return _from_factory(provider)
    raise ConfigurationError(
        f"the provider is of type {type(provider).__name__!r}; expected a URL such as 'kafka://host:9092', a Provider,"
        " a callable that takes a Context and returns a Provider, or None",
        option="provider",
    )


def resolve_url(text: str, options: Mapping[str, object] | None = None) -> ProviderSource:
    """:func:`resolve` for a URL only, with the same errors."""
    url = parse_url(text)
    name = url.scheme
    provider_type = load(name)
    parsed = parse_options(name, provider_type.options, url=url, mapping=options, own_prefix=provider_type.own_prefix)
    secrets = secret_values(parsed)

    def make(_: Context) -> Provider:
        try:
            return _demand_provider(provider_type.factory(parsed))
        except MessageBufferError:
            raise
        except Exception as error:  # noqa: BLE001 - the plugin's own code; undeclared imports fail here
            said = f"{type(error).__name__}: {error}"
            entry = find(PROVIDERS, name)
            asked = wrong_release(entry)
            if not asked:
                brought = distribution_of(entry)
                asked = f"look at it with mb providers {name}; mend or reinstall {brought}, or what that imports"
            text = f"{scrub(said, secrets)}; {asked}"
            raise BrokenPlugin(f"provider {name!r} cannot be made: {text}", plugin=name) from (
                error if text.startswith(said) else None
            )

    return ProviderSource(name, _display(url, provider_type), make, secrets=secrets)


def _display(url: ProviderURL, provider_type: ProviderType) -> str:
    """The URL with what the plugin declares a secret masked, and what looks like one where it declares nothing."""
    infos = {info.name: info for info in describe_options(url.scheme, provider_type.options)}
    prefix = provider_type.own_prefix

    def secret(name: str) -> bool:
        info = infos.get(name.removeprefix(prefix)) if name.startswith(prefix) else None
        if info is not None:
            return info.secret
        return looks_secret(name) or any(i.secret for i in infos.values() if name.startswith(f"{prefix}{i.name}."))

    return url.masked(secret, parts=frozenset(info.part for info in infos.values() if info.secret and info.part))


def _from_object(provider: Provider) -> ProviderSource:
    name = type(provider).__name__
    served: list[str] = []

    def make(context: Context) -> Provider:
        if served:
            raise ConfigurationError(
                f"one provider object serves one lane: this {name} already serves lane {served[0]!r};"
                f" for lane {context.lane!r}, too, give a provider URL or a factory",
                option="provider",
            )
        served.append(context.lane)
        return provider

    return ProviderSource(name, name, make, shareable=False)


def _from_factory(factory: Callable[[Context], Any]) -> ProviderSource:
    name = getattr(factory, "__name__", type(factory).__name__)

    def make(context: Context) -> Provider:
        try:
            return _demand_provider(factory(context))
        except MessageBufferError:
            raise
        except Exception as error:  # the caller's own code: it is named, and its error chained
            raise ProviderError(
                f"the provider factory {name!r} failed: {type(error).__name__}: {error}", provider=name
            ) from error

    return ProviderSource(name, name, make)


def _demand_provider(made: object) -> Provider:
    if not isinstance(made, Provider):
        raise TypeError(f"it returned {type(made).__name__!r}; expected a mbframework.provider.Provider")
    return made
