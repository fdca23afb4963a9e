"""TLS for providers: what the options ``tls`` and ``tls_…`` mean, the same for each of them.

Off unless ``tls`` is true; when it is on, the server's certificate and host name are verified unless ``tls_verify`` is
false, which is said in the log and in the provider's facts. Functions without a state, for any thread.
"""

from __future__ import annotations

import ssl
from logging import Logger
from typing import Protocol

from mbframework.errors import ConfigurationError

#: In the system's words, where no connection came about.
_NOBODY = (
    "refused", "not known", "name resolution", "No address", "No route", "unreachable", "No such file",
)  # fmt: skip


class TlsFiles(Protocol):
    """The options that name files and say whether to verify; all files are PEM."""

    @property
    def tls_ca(self) -> str | None: ...
    @property
    def tls_cert(self) -> str | None: ...
    @property
    def tls_key(self) -> str | None: ...
    @property
    def tls_key_password(self) -> str | None: ...
    @property
    def tls_verify(self) -> bool: ...


class TlsOptions(TlsFiles, Protocol):
    """And the one that turns it on."""

    @property
    def tls(self) -> bool: ...


def check_tls(options: TlsOptions) -> None:
    """:raises ConfigurationError: a file is given, but TLS is off."""
    for name in ("tls_ca", "tls_cert", "tls_key", "tls_key_password"):
        if getattr(options, name) is not None and not options.tls:
            raise ConfigurationError(f"{name} is given, but tls is off; add tls=true", option=name)


def tls_context(options: TlsFiles, provider: str) -> ssl.SSLContext:
    """A client's context, for TLS that is on.

    :param provider: the provider's name, for the error.
    :raises ConfigurationError: a file cannot be used.
    """
    where = ("tls_ca", options.tls_ca)
    try:
        context = ssl.create_default_context(cafile=options.tls_ca)
        if options.tls_cert is not None:
            where = ("tls_cert", options.tls_cert)
            # A password of "" rather than None: OpenSSL must not ask for it on the terminal.
            context.load_cert_chain(options.tls_cert, options.tls_key, options.tls_key_password or "")
    except OSError as error:
        reason = error.strerror or error
        raise ConfigurationError(
            f"provider {provider!r}: option {where[0]!r}: {where[1]!r} cannot be used: {reason}; expected a PEM file",
            option=where[0],
        ) from error
    if not options.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def warn_unverified(options: TlsOptions, provider: str, logger: Logger) -> None:
    """Say in the log that TLS is on and nothing is verified, where that is so."""
    if options.tls and not options.tls_verify:
        logger.warning("%s: tls_verify=false: the server's certificate is not checked", provider)


def reached(said: str) -> bool:
    """Whether a connection that failed, as the words of ``said`` have it, came about at first."""
    return not any(words in said for words in _NOBODY)


def tls_hint(options: TlsOptions, said: str, secure: str = "", *, met: bool = False, scheme_alone: bool = False) -> str:
    """The next step where a server was reached and did not begin to talk: one side speaks TLS, and the other does not?

    :param said: what happened, in words; "" comes of those which say that nobody was reached.
    :param secure: the scheme that turns TLS on, such as "mqtts", where the provider has one.
    :param met: it has talked to us before, so that it is something else: "".
    :param scheme_alone: there is no option that turns TLS on.
    """
    if met or not reached(said):
        return ""
    if not options.tls:
        return f" (does it expect TLS? then {f'give {secure}:' if scheme_alone else 'add tls=true'})"
    named = f"the s of {secure}:" if secure else ""
    ways = [named] if scheme_alone else ["tls=true", *([named] if named else [])]
    return f" (is it a port without TLS? then give the one with TLS, or leave out {', or '.join(ways)})"


def tls_fact(options: TlsOptions) -> str:
    """What ``describe()`` says of it: ``"tls on"``, ``"tls on, not verified"`` or ``"tls off"``."""
    if not options.tls:
        return "tls off"
    return "tls on" if options.tls_verify else "tls on, not verified"
