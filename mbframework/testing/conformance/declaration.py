"""Rules on what is declared: options with words, secrets that stay secret, no client library before it is needed.

They need ``url()``, since a URL is what options and secrets are in.
"""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import traceback
from importlib.metadata import packages_distributions
from typing import NamedTuple

import pytest

from mbframework.plugins.options import OptionInfo, describe_options, parse_options
from mbframework.plugins.registry import PROVIDERS, ProviderType, find, load
from mbframework.plugins.source import ProviderSource, resolve_url
from mbframework.plugins.url import parse_url
from mbframework.testing.conformance.failure import raised
from mbframework.testing.conformance.hooks import Hooks
from mbframework.testing.conformance.letters import batch_of, numbered
from mbframework.testing.conformance.processes import environment
from mbframework.testing.conformance.rules import Rules, shut

#: Names that say so; mbframework.plugins.secret.looks_secret() errs towards more, and knows no exception.
_SECRET = re.compile(r"(pass(word|phrase|wd)?|pwd|secret|token|credentials?|api_?key)$", re.IGNORECASE)
#: Shorter ones may stand in a text by chance.
_SHORTEST = 4
_IMPORT = "import importlib.metadata, sys\n[e] = importlib.metadata.entry_points(group=sys.argv[1], name=sys.argv[2])\n"
_IMPORT += "e.load()\nprint(*sorted({name.partition('.')[0] for name in sys.modules}))"


#: What mbframework itself imports.
_ALWAYS_THERE = frozenset({"mbframework", "click", "pluggy"})


class Declared(NamedTuple):
    """What the author's URL leads to."""

    scheme: str
    type: ProviderType
    infos: list[OptionInfo]
    source: ProviderSource
    secrets: tuple[str, ...]
    options: object


class DeclarationRules(Rules):
    """See the module."""

    def test_every_option_has_words(self) -> None:
        """Help for every option, and a summary for the provider."""
        declared = self._declared(self.url())
        silent = [info.name for info in declared.infos if not info.help.strip()]
        assert not silent, f"no help for {', '.join(silent)}; write option(…, help=…)"
        assert declared.type.summary.strip(), "the provider has no summary; write ProviderType(…, summary=…)"

    def test_options_that_sound_secret_are_secret(self) -> None:
        """Declared with ``secret=True``, or named in ``public_options``."""
        infos = self._declared(self.url()).infos
        # What "client." options are named is not ours to say; looks_secret() masks them by name.
        bare = [i.name for i in infos if _SECRET.search(i.name) and not i.secret and i.name not in self.public_options]
        assert not bare, f"not secret: {', '.join(bare)}; write option(…, secret=True), or name it in public_options"

    def test_no_secret_is_told(self, caplog: pytest.LogCaptureFixture) -> None:
        """In texts, facts, the destination and the log."""
        declared = self._declared(self.url())
        secrets = self._need_secrets(declared)
        with caplog.at_level(logging.DEBUG):
            provider = declared.source.create(self.context())
            texts = {"the provider before open()": f"{provider!r} {provider}"}
            try:
                provider.open(self.context())
                provider.send(batch_of(numbered(1, 1, self.topic)))
                texts["describe()"] = repr(dict(provider.describe()))
                texts["destination()"] = repr(provider.destination())
                texts["the provider"] = f"{provider!r} {provider}"
            finally:
                shut(provider)
        texts["the options"] = repr(declared.options)
        texts["the source"] = f"{declared.source!r} {declared.source.display}"
        texts["check()"] = repr(declared.source.create(self.context()).check())
        texts["the log"] = caplog.text
        _assert_silent(texts, secrets)

    def test_no_error_tells_a_secret(self, caplog: pytest.LogCaptureFixture) -> None:
        """Neither its text, nor what it was raised from."""
        self.need(
            self.can(Hooks.take_down) or self.can(Hooks.unusable_url),
            "needs take_down() and bring_up(), or unusable_url()",
        )
        texts: dict[str, str] = {}
        secrets: list[str] = []
        with caplog.at_level(logging.DEBUG):
            if self.can(Hooks.take_down):
                declared = self._declared(self.url())
                secrets += declared.secrets
                self.take_down()
                try:
                    texts["an error while it was down"] = self._errors_of(declared.source)
                finally:
                    self.bring_up()
            if self.can(Hooks.unusable_url):
                declared = self._declared(self.unusable_url())
                secrets += declared.secrets
                texts["the error of unusable_url()"] = self._errors_of(declared.source)
        self.need(secrets, "the URLs hold no secret; put one into url() or unusable_url()")
        texts["the log"] = caplog.text
        _assert_silent(texts, tuple(secrets))

    def test_declaring_imports_no_client(self) -> None:
        """The plugin's module does not import what the provider requires."""
        declared = self._declared(self.url())
        required = {name_of(requirement) for requirement in declared.type.requires}
        self.need(required, "the provider requires no client library")
        entry = find(PROVIDERS, declared.scheme)
        answer = subprocess.run(
            [sys.executable, "-c", _IMPORT, PROVIDERS, entry.name],
            check=True, capture_output=True, text=True, timeout=60, env=environment(),
        )  # fmt: skip
        owners = packages_distributions()
        imported = {
            module
            for module in answer.stdout.split()
            if {name_of(owner) for owner in owners.get(module, ())} & (required - _ALWAYS_THERE)
        }
        assert not imported, (
            f"{entry.value} imports {', '.join(sorted(imported))}; import it in the factory, so that listing providers"
            " works without it"
        )

    def _declared(self, text: str) -> Declared:
        url = parse_url(text)
        provider_type = load(url.scheme)
        options = parse_options(url.scheme, provider_type.options, url=url, own_prefix=provider_type.own_prefix)
        infos = describe_options(url.scheme, provider_type.options)
        return Declared(url.scheme, provider_type, infos, resolve_url(text), tuple(self.secrets(text)), options)

    def _need_secrets(self, declared: Declared) -> tuple[str, ...]:
        self.need(any(info.secret for info in declared.infos), "the provider declares no secret option")
        secrets = tuple(secret for secret in declared.secrets if len(secret) >= _SHORTEST)
        self.need(secrets, f"url() holds no secret of {_SHORTEST} characters or more; put one into it")
        return secrets

    def _errors_of(self, source: ProviderSource) -> str:
        provider = source.create(self.context())
        batch = batch_of(numbered(1, 1, self.topic))
        try:
            errors = [raised(lambda: provider.open(self.context())), raised(lambda: provider.send(batch))]
        finally:
            shut(provider)
        return "\n".join(said for error in errors if error for said in traceback.format_exception(error))


def name_of(requirement: str) -> str:
    """The distribution that a requirement names, as indexes spell it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;]", requirement.strip(), maxsplit=1)[0]).lower()


def _assert_silent(texts: dict[str, str], secrets: tuple[str, ...]) -> None:
    # Which secret it is would be one more place to read it.
    told = [where for where, text in texts.items() if any(len(s) >= _SHORTEST and s in text for s in secrets)]
    assert not told, f"a secret stands in {' and in '.join(told)}; it must be in no text"
