"""HTTP endpoints as a provider, by way of httpx: its options, and nothing that imports the client library.

``https://host/hooks/{topic}?mb.token=file:/run/secrets/token``: options of ours begin with ``mb.``, the rest of the
query belongs to the endpoint.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mbframework.errors import ConfigurationError
from mbframework.plugins import ProviderType, hookimpl, option

if TYPE_CHECKING:
    from mbframework.provider import Provider

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_HOST = re.compile(r"http://(?:[^@/]*@)?(?:\[[0-9A-Fa-f:.]+\]|[^@/:\[\]]+)(?::\d{1,5})?/?")
_PLACEHOLDER = re.compile(r"\{[^{}]*\}?|\}")
#: What makes the connection, or says who we are: not for messages to choose.
_OURS = frozenset(
    {
        *("authorization", "connection", "content-length", "expect", "host", "idempotency-key", "keep-alive"),
        *("proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOptions:
    """What ``http:`` and ``https:`` take. Times are seconds, sizes bytes."""

    scheme: str = option("http", part="scheme", help="https encrypts, and verifies the certificate and host name")
    hosts: tuple[str, ...] = option((), part="hosts", help="the endpoint's host, with its port where it needs one")
    path: str = option(
        "", part="path", help="the endpoint's path; {topic} stands for the topic, {secret} for the option secret"
    )
    query: str = option("", part="query", help="the endpoint's own query; {topic} and {secret} stand there, too")
    username: str | None = option(None, part="username", help="for basic authentication")
    password: str | None = option(None, part="password", help="of the user")
    token: str | None = option(None, secret=True, help="sent as Authorization: Bearer")
    token_file: str | None = option(
        None, help="the file of a token that changes: it is read for every request; a newline at its end is left out"
    )
    secret: str | None = option(None, secret=True, help="stands for {secret} in path and query")
    method: Literal["POST", "PUT", "PATCH"] = option("POST", help="the method of each request")
    body: Literal["raw", "json", "array", "ndjson"] = option(
        "raw",
        help="raw: a request for each message, its value the body; json: one for each, an object; array, ndjson: one"
        " for many, a JSON array or lines of JSON",
    )
    items: Literal["message", "value"] = option(
        "message", help="array and ndjson hold objects of ours (message), or the values, which are JSON already (value)"
    )
    request_messages: int = option(1000, help="messages of one request, at most, for array and ndjson")
    request_bytes: int = option(
        1 << 20, unit="bytes", help="of the body of one request for array and ndjson, at most; one larger goes alone"
    )
    content_type: str | None = option(None, help="the Content-Type, where it is not the usual one of the body")
    header: Mapping[str, str] = option(
        factory=dict, part="client", secret=True, help="further headers, as mb.header.X-Api-Key=env:API_KEY"
    )
    forward: tuple[str, ...] = option(
        (),
        help="raw and json: headers of messages that become headers of the request by their own name, as traceparent",
    )
    idempotency: str = option(
        "Idempotency-Key", help="the header of the key that is the same in every attempt; '' none"
    )
    results: str | None = option(
        None, help="the list in the endpoint's JSON answer that has one status for each message, as items"
    )
    accept: tuple[int, ...] = option((), help="further statuses that mean the messages are there, as 409 of a repeat")
    reject: tuple[int, ...] = option((), help="further statuses that mean this message will never be taken")
    tls_ca: str | None = option(None, help="file of the authorities to trust, PEM; none: the system's")
    tls_cert: str | None = option(None, help="file of our own certificate, PEM, for servers that ask for one")
    tls_key: str | None = option(None, help="file of its private key, PEM; none: it is in tls_cert")
    tls_key_password: str | None = option(None, secret=True, help="of the private key")
    tls_verify: bool = option(True, help="false accepts any certificate: whoever is in between reads along")
    proxy: str | None = option(
        None,
        secret=True,
        help="as http://user:password@proxy:3128, or environment: what HTTP_PROXY, HTTPS_PROXY, NO_PROXY say",
    )
    connect_timeout: float = option(5.0, unit="s", help="for the connection, encryption included")
    timeout: float = option(30.0, unit="s", help="for a request and its answer; then it counts as failed")
    retry_after_max: float = option(300.0, unit="s", help="the longest wait that a Retry-After is granted")

    def __post_init__(self) -> None:
        _check_place(self)
        _check_security(self)
        _check_requests(self)
        for name in ("connect_timeout", "timeout", "retry_after_max"):
            if getattr(self, name) <= 0:
                raise ConfigurationError("expected more than 0 seconds", option=name)

    @property
    def single(self) -> bool:
        """Whether each message is a request of its own."""
        return self.body in ("raw", "json")

    @property
    def tls(self) -> bool:
        """Whether requests are encrypted, which the scheme says."""
        return self.scheme == "https"


def _check_place(options: HttpOptions) -> None:
    if len(options.hosts) != 1:
        raise ConfigurationError("expected one host, as in https://host:8443/path", option="hosts")
    for part in ("path", "query"):
        for found in _PLACEHOLDER.findall(getattr(options, part)):
            if found not in ("{topic}", "{secret}"):
                raise ConfigurationError(
                    f"{found!r} stands for nothing; expected {{topic}} or {{secret}}, and %7B for a brace", option=part
                )
    wanted = "{secret}" in options.path + options.query
    if wanted and options.secret is None:
        raise ConfigurationError(
            "{secret} stands in the URL; expected mb.secret=…, env:NAME or file:/path", option="secret"
        )
    if options.secret is not None and not wanted:
        raise ConfigurationError("expected {secret} in the path or query, which it stands for", option="secret")


def _check_security(options: HttpOptions) -> None:
    if options.username is not None and options.password is None:
        raise ConfigurationError("a user name needs a password; write user:@ for an empty one", option="password")
    given = [name for name in ("username", "token", "token_file") if getattr(options, name) is not None]
    if len(given) > 1:
        raise ConfigurationError(f"it is given beside {given[0]}; expected one of them", option=given[1])
    for name in ("tls_ca", "tls_cert", "tls_key", "tls_key_password"):
        if getattr(options, name) is not None and not options.tls:
            raise ConfigurationError(f"{name} goes with https:, and the URL begins with http:", option=name)
    if options.tls_key is not None and options.tls_cert is None:
        raise ConfigurationError("a key needs its certificate; give tls_cert", option="tls_key")
    if options.proxy not in (None, "environment") and not _HOST.fullmatch(options.proxy or ""):
        # The value is not shown: it may hold a password.
        raise ConfigurationError("expected http://host:port, with user:password@ where it asks for one", option="proxy")


def _check_requests(options: HttpOptions) -> None:
    for name in ("request_messages", "request_bytes"):
        if getattr(options, name) < 1:
            raise ConfigurationError("expected 1 or more", option=name)
    for name in ("items", "results"):
        if options.single and getattr(options, name) not in ("message", None):
            raise ConfigurationError("it goes with body=array and body=ndjson", option=name)
    if options.forward and not options.single:
        raise ConfigurationError(
            "it goes with body=raw and body=json, where a request has one message", option="forward"
        )
    names = {"header": tuple(options.header), "forward": options.forward}
    if options.idempotency:
        names["idempotency"] = (options.idempotency,)
    for name, headers in names.items():
        for each in headers:
            if not _TOKEN.fullmatch(each):
                raise ConfigurationError(f"{each!r} is no name of a header", option=name)
            if name != "idempotency" and each.lower() in _OURS:
                raise ConfigurationError(f"{each} is not to be chosen here", option=name)
    for name, texts in {"header": options.header.values(), "content_type": (options.content_type or "",)}.items():
        if any(_CONTROL.search(text) or not text.isascii() for text in texts):
            raise ConfigurationError("expected printable ASCII", option=name)
    for name in ("accept", "reject"):
        for status in getattr(options, name):
            if not 300 <= status <= 599:
                raise ConfigurationError(f"{status} is no status; expected 300 to 599", option=name)
    if both := set(options.accept) & set(options.reject):
        raise ConfigurationError(f"{min(both)} is also in accept; expected it in one of them", option="reject")


def _factory(options: HttpOptions) -> Provider:
    from mbframework_http.provider import HttpProvider

    return HttpProvider(options)


@hookimpl
def mbframework_provider() -> ProviderType:
    """The hook by which the engine finds this provider."""
    return ProviderType(
        api=1,
        name="http",
        options=HttpOptions,
        factory=_factory,
        requires=("httpx>=0.27,<1",),
        extra="http",
        summary="HTTP endpoints: webhooks and bulk, by httpx",
        own_prefix="mb.",
    )
