"""Provider URLs: ``scheme://[user[:password]@]host[:port][,host[:port]…][/path][?name=value&…]``.

A parser of our own, since the standard library's refuses lists of hosts and
turns ``+`` in a password into a blank. What differs from other URLs:

- ``+`` is a plus and ``#`` is an ordinary character: there are no fragments.
- ``sqlite:file.db`` is a relative path, ``sqlite:///abs/file.db`` (or
  ``sqlite:/abs/file.db``) an absolute one.
- The user ends at the first ``:``, and user and password at the last ``@``
  before the first ``/`` or ``?``; a password with one of these two in it must
  write them as ``%2F`` and ``%3F``.

User, password, path, names and values are percent-decoded (UTF-8); hosts are
not. Errors and ``str()`` never show a password, nor an option whose name looks
like a secret; no error quotes a part of a URL that may be a secret in the wrong
place. Everything here is a pure function.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote, unquote_to_bytes

from mbframework.errors import ConfigurationError
from mbframework.plugins.secret import MASK, looks_secret

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+(?:%[\w.~-]+)?\]|[^\[\]:\s%]+)(?::(?P<port>[0-9]{1,5}))?")
# Control characters, and the lone surrogates by which Python carries undecodable bytes of a command line.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")

_ENCODE = "to write '/', '?', '@', '%' or ',' in a user name or password, percent-encode it"


@dataclass(frozen=True, slots=True)
class ProviderURL:
    """A parsed URL. ``str()`` and ``repr()`` mask secrets; :meth:`render` does not.

    ``username`` and ``password`` are None where the URL has none (and "" where it has an empty one).
    ``path`` is decoded and keeps its leading slash, ``raw_path`` is as written. ``items`` are the options
    as written, still encoded; :func:`decode_item` takes one apart.
    """

    scheme: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    hosts: tuple[str, ...] = ()
    path: str = ""
    raw_path: str = field(default="", repr=False)
    items: tuple[str, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        return self.masked()

    def render(self) -> str:
        """The URL as text, secrets included; parses back to an equal URL."""
        return self._text(self.username, self.password, self.raw_path, self.items)

    def masked(self, secret: Callable[[str], bool] = looks_secret, *, parts: frozenset[str] = frozenset()) -> str:
        """The URL for people and logs, with ``***`` for every secret.

        :param secret: says of the name of an option whether its value is a secret.
        :param parts: further parts to mask: ``username``, ``path``. The password always is.
        """
        username = MASK if self.username and "username" in parts else self.username
        password = MASK if self.password else self.password
        path = f"/{MASK}" if self.raw_path and "path" in parts else self.raw_path
        return self._text(username, password, path, tuple(_mask_item(item, secret) for item in self.items))

    def _text(self, username: str | None, password: str | None, path: str, items: tuple[str, ...]) -> str:
        authority = ",".join(self.hosts)
        if username is not None:
            colon = "" if password is None else f":{_quote(password)}"
            authority = f"{_quote(username)}{colon}@{authority}"
        # Without the two slashes, a path that begins with two would be read as an authority.
        slashes = "//" if authority or path.startswith("/") else ""
        query = f"?{'&'.join(items)}" if items else ""
        return f"{self.scheme}:{slashes}{authority}{path}{query}"


def parse_url(text: str) -> ProviderURL:
    """Take a provider URL apart.

    :raises ConfigurationError: what was found, without quoting it, and what was expected.
    """
    match = _SCHEME.match(text)
    if match is None:
        raise ConfigurationError(
            "a provider URL begins with the provider's name and a colon, as 'kafka://host:9092' or"
            " 'sqlite:file.db'; the text given does not",
            option="provider",
        )
    scheme = match[1].lower()
    unprintable = _UNPRINTABLE.search(text)
    if unprintable:
        raise _malformed(scheme, f"an unprintable character at position {unprintable.start()}; percent-encode it")
    rest, _, query = text[match.end() :].partition("?")
    items = tuple(query.split("&")) if query else ()
    if not rest.startswith("//"):
        return ProviderURL(scheme, path=_decode(rest, scheme, "path"), raw_path=rest, items=items)
    authority, slash, after = rest[2:].partition("/")
    raw_path = slash + after
    userinfo, at, hosts = authority.rpartition("@")
    if not at and authority and "@" in raw_path:
        # 'scheme://user:1/2@host' would otherwise show half a password as the path.
        raise _malformed(scheme, f"an '@' after the host. In a path write %40; {_ENCODE}")
    user, colon, password = userinfo.partition(":")
    return ProviderURL(
        scheme,
        username=_decode(user, scheme, "user name") if at else None,
        password=_decode(password, scheme, "password") if colon else None,
        hosts=_hosts(hosts, scheme),
        path=_decode(raw_path, scheme, "path"),
        raw_path=raw_path,
        items=items,
    )


def decode_item(item: str, scheme: str, number: int) -> tuple[str, str]:
    """The name and the value of one item of ``ProviderURL.items``; ``number`` counts from 1.

    :raises ConfigurationError: it has no ``=``, no name, or is wrongly encoded.
    """
    name, equals, value = item.partition("=")
    if not equals or not name:
        # The item is not quoted: it may be the rest of a secret with an '&' in it.
        raise _malformed(scheme, f"option number {number} is not name=value; in a value write '&' as %26")
    return _decode(name, scheme, f"name of option number {number}"), _decode(value, scheme, f"value of option {name!r}")


def with_port(host: str, port: int) -> str:
    """A host of a URL, with this port where it has none."""
    found = _HOST.fullmatch(host)
    return host if found is not None and found["port"] is not None else f"{host}:{port}"


def mask_text(text: str) -> str:
    """A display of a URL that may not even parse; never a secret in it, as far as names tell."""
    try:
        return parse_url(text).masked()
    except ConfigurationError:
        match = _SCHEME.match(text)
        return f"{match[1].lower()}:{MASK}" if match else MASK


def _hosts(text: str, scheme: str) -> tuple[str, ...]:
    if not text:
        return ()
    hosts = tuple(text.split(","))
    for number, host in enumerate(hosts, 1):
        match = _HOST.fullmatch(host)
        port = match["port"] if match else None
        if match is None or (port is not None and not 0 < int(port) < 65_536):
            raise _malformed(
                scheme,
                f"host number {number} of {len(hosts)} is not 'name:port' with a port from 1 to 65535"
                f" (IPv6 addresses stand in brackets); {_ENCODE}",
            )
    return hosts


def _decode(text: str, scheme: str, what: str) -> str:
    if _STRAY_PERCENT.search(text):
        raise _malformed(scheme, f"the {what} has a '%' without two hexadecimal digits after it; write %25 for '%'")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        # "from None": the error quotes the bytes.
        raise _malformed(scheme, f"the {what}, decoded, is not UTF-8") from None


def _quote(text: str) -> str:
    return text if text == MASK else quote(text, safe="")


def _mask_item(item: str, secret: Callable[[str], bool]) -> str:
    name, equals, value = item.partition("=")
    if not equals:
        return MASK
    plain = unquote_to_bytes(name).decode(errors="replace")
    # A value may be a URL itself, with a password of its own.
    nested = b"@" in (decoded := unquote_to_bytes(value)) and b":" in decoded
    return f"{name}={MASK}" if nested or secret(plain) else item


def _malformed(scheme: str, what: str) -> ConfigurationError:
    return ConfigurationError(f"the provider URL '{scheme}:…' is malformed: {what}", option="provider")
