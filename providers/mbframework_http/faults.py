"""Requests without an answer, as our errors: is it tried again, or must a person act? Pure functions."""

from __future__ import annotations

import ssl

import httpcore

from mbframework.errors import ProviderUnusable, SendFailed
from mbframework_http.network import NO_ENCRYPTION

#: Before the first byte of a request goes out.
_UNSENT = (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.ProxyError, httpcore.UnsupportedProtocol)
#: What :func:`translate` is for.
ERRORS = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
)


def translate(error: Exception, where: str, hint: str = "") -> SendFailed | ProviderUnusable:
    """An error of httpx's transport with the next step. ``uncertain`` where the request may have arrived.

    :param hint: follows what is said of a server that was reached and did not begin to talk.
    """
    secured = _of_tls(error)
    if isinstance(secured, ssl.SSLCertVerificationError):
        return ProviderUnusable(
            f"{where}: its certificate was refused: {secured.verify_message}; check mb.tls_ca and the host name",
            provider="http",
        )
    if secured is not None and secured.reason and ("ALERT" in secured.reason or "WRONG_VERSION" in secured.reason):
        return ProviderUnusable(
            f"{where}: encryption was refused: {secured.reason.lower().replace('_', ' ')}; check that it takes https, "
            "and mb.tls_cert",
            provider="http",
        )
    if isinstance(error, httpcore.ProxyError):
        return ProviderUnusable(f"{where}: the proxy does not connect us: {error}; check mb.proxy", provider="http")
    uncertain = not isinstance(error, _UNSENT)
    if isinstance(error, httpcore.ConnectTimeout) and str(error) == NO_ENCRYPTION:
        said = f"it takes connections, but begins no encryption in time{hint}"
    elif isinstance(error, httpcore.ConnectTimeout):
        said = "it takes no connection in time"
    elif isinstance(error, httpcore.TimeoutException):
        said = "it takes connections, but does not answer in time; is it busy, or frozen? See mb.timeout"
    elif isinstance(error, httpcore.RemoteProtocolError):
        # With nothing at all, or an alert of TLS; who says something else talks without.
        silent = any(words in str(error) for words in ("without sending", r"\x15\x03"))
        said = f"it does not answer as HTTP has it: {error}{hint if silent else ''}"
    elif isinstance(error, httpcore.LocalProtocolError):
        # h11 has refused it: a header that no rule of ours has caught.
        return ProviderUnusable(f"{where}: the request cannot be made: {error}", provider="http")
    else:
        said = f"{'cannot be reached' if not uncertain else 'the connection is lost'}: {error}{hint}"
    return SendFailed(f"{where}: {said}", uncertain=uncertain, provider="http")


def _of_tls(error: BaseException | None) -> ssl.SSLError | None:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return error
        error = error.__cause__ or error.__context__
    return None
