"""The connection to an endpoint: one request at a time, over a connection that is kept.

httpx's parts do the protocol. Not its client, which writes URLs into the log; redirects, cookies and the environment
are left alone. Threads: the sender's.
"""

from __future__ import annotations

import base64
import ssl
import urllib.request
from collections.abc import Sequence
from urllib.parse import SplitResult, quote, unquote, urlsplit

import httpcore
import httpx

from mbframework.deadline import Deadline
from mbframework.errors import ConfigurationError, ProviderUnusable
from mbframework.plugins.tls import tls_context, tls_fact
from mbframework_http import HttpOptions
from mbframework_http.network import Network
from mbframework_http.verdict import Answer

#: Bytes of an answer that are read; what is longer tells nothing more.
_LONGEST_ANSWER = 16 << 20
#: Seconds that an unused connection is kept.
_KEPT_S = 60.0
#: Bytes of a file with a token; beyond it is another file.
_LONGEST_TOKEN = 1 << 16
_VERSION = httpx.__version__


class Endpoint:
    """Where an options object points to. No connection is made yet.

    :raises ConfigurationError: a certificate, or the URL, cannot be used.
    """

    def __init__(self, options: HttpOptions, deadline: Deadline) -> None:
        self._options = options
        self._network = Network(deadline, options.connect_timeout)
        self._security = _security(options)
        self.origin = _origin(options)
        self._proxy = _proxy(options)
        self._pool = self._new_pool()

    @property
    def place(self) -> str:
        """For errors: where requests go, without path and query."""
        host = self._options.hosts[0]
        return f"{self._options.scheme}://{host}" + (" (by the proxy)" if self._proxy else "")

    @property
    def facts(self) -> dict[str, str]:
        """For the status."""
        proxy = "yes" if self._proxy else "no"
        return {"client": f"httpx {_VERSION}", "security": tls_fact(self._options), "proxy": proxy}

    def reach(self, deadline: Deadline) -> None:
        """Make a connection as requests do, and end it. :raises httpcore.NetworkError, httpcore.TimeoutException."""
        self._network.deadline = deadline
        if self._proxy is not None:
            place = self._proxy
            host, port = place.hostname or "", place.port or 80
        else:
            host, port = self.origin.host, self.origin.port or (443 if self._security else 80)
        stream = self._network.connect_tcp(host, port)
        try:
            if self._security is not None and self._proxy is None:
                stream.start_tls(self._security, host)
        finally:
            stream.close()

    def ask(self, topic: str, headers: Sequence[tuple[str, str]], body: bytes, deadline: Deadline) -> Answer:
        """One request and its answer.

        :raises ProviderUnusable: the file of the token cannot be read.
        :raises httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError: there is no answer.
        :raises httpcore.ProxyError: the proxy refuses to connect us.
        """
        self._network.deadline = deadline
        if topic in (".", "..") and "{topic}" in self._options.path:
            # Every server would take it for a step in the path, also where it is encoded.
            return _refused(422, f"the topic {topic!r} cannot stand in a path")
        try:
            url = self._url(topic)
        except httpx.InvalidURL as error:
            return _refused(414, f"the topic cannot stand in a URL: {error}")
        request = httpx.Request(
            self._options.method,
            url,
            headers=[("User-Agent", f"mbframework (httpx {_VERSION})"), *headers, *self._authorization()],
            content=body,
        )
        # Else httpx would take a coded answer apart, which nobody has asked for.
        request.headers["accept-encoding"] = "identity"
        answer = self._pool.handle_request(
            httpcore.Request(
                request.method,
                httpcore.URL(
                    scheme=request.url.raw_scheme, host=request.url.raw_host, port=request.url.port,
                    target=request.url.raw_path,
                ),
                headers=request.headers.raw,
                content=body,
            )
        )  # fmt: skip
        try:
            found = bytearray()
            for part in answer.iter_stream():
                found += part
                if len(found) > _LONGEST_ANSWER:
                    break
        finally:
            # Where there is more to come the connection ends with that.
            answer.close()
        named = httpx.Headers(answer.headers)
        return Answer(answer.status, {name.lower(): named[name] for name in named}, bytes(found))

    def close(self) -> None:
        """End the connection; the next request makes another."""
        self._pool.close()

    def _new_pool(self) -> httpcore.ConnectionPool:
        common = {
            "ssl_context": self._security, "max_connections": 1, "max_keepalive_connections": 1,
            "keepalive_expiry": _KEPT_S, "network_backend": self._network,
        }  # fmt: skip
        if self._proxy is None:
            return httpcore.ConnectionPool(**common)  # type: ignore[arg-type]
        user = self._proxy.username
        login = None if user is None else (unquote(user), unquote(self._proxy.password or ""))
        place = f"http://{self._proxy.hostname}:{self._proxy.port or 80}/"
        return httpcore.HTTPProxy(place, proxy_auth=login, **common)  # type: ignore[arg-type]

    def _url(self, topic: str) -> httpx.URL:
        options = self._options
        return httpx.URL(
            f"{options.scheme}://{options.hosts[0]}{_filled(options.path or '/', topic, options)}"
            + (f"?{_filled(options.query, topic, options)}" if options.query else "")
        )

    def _authorization(self) -> list[tuple[str, str]]:
        options = self._options
        if options.username is not None:
            login = f"{options.username}:{options.password}".encode()
            return [("Authorization", f"Basic {base64.b64encode(login).decode()}")]
        token = options.token if options.token_file is None else _token(options.token_file)
        return [] if token is None else [("Authorization", f"Bearer {token}")]


def _refused(status: int, why: str) -> Answer:
    """The answer to a request that no endpoint could take, and that is not sent."""
    return Answer(status, {"content-type": "text/plain"}, why.encode())


def _filled(text: str, topic: str, options: HttpOptions) -> str:
    secret = quote(options.secret or "", safe="/")
    return secret.join(part.replace("{topic}", quote(topic, safe="")) for part in text.split("{secret}"))


def _token(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            token = file.read(_LONGEST_TOKEN).strip()
    except OSError as error:
        raise ProviderUnusable(f"the token cannot be read from {path}: {error.strerror}", provider="http") from error
    except ValueError:
        # "from None": the error quotes what is in the file.
        raise ProviderUnusable(f"{path} holds no token: it is not ASCII", provider="http") from None
    if not token or not token.isprintable():
        raise ProviderUnusable(f"{path} holds no token: expected one line", provider="http")
    return token


def _origin(options: HttpOptions) -> httpx.URL:
    try:
        return httpx.URL(f"{options.scheme}://{options.hosts[0]}")
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"provider 'http': the host cannot be used: {error}", option="hosts") from None


def _security(options: HttpOptions) -> ssl.SSLContext | None:
    """:raises ConfigurationError: a file of the TLS options cannot be used."""
    return tls_context(options, "http") if options.tls else None


def _proxy(options: HttpOptions) -> SplitResult | None:
    """The proxy's URL, taken apart, or None."""
    text = options.proxy
    if text == "environment":
        # As all programs of the machine do: lower case before upper case, and NO_PROXY.
        bypassed = urllib.request.proxy_bypass(options.hosts[0])
        text = None if bypassed else urllib.request.getproxies().get(options.scheme)
    if text is None:
        return None
    found = urlsplit(text)
    try:
        port = found.port
    except ValueError:
        port = -1
    if found.scheme != "http" or not found.hostname or port == -1:
        raise ConfigurationError(
            "provider 'http': option 'proxy': expected http://host:port; the value is not shown here", option="proxy"
        )
    return found
