"""Errors of NATS as ours: is it tried again, or must a person act? Pure functions."""

from __future__ import annotations

import ssl

import nats.errors
from nats.js.errors import APIError, ServiceUnavailableError

from mbframework.errors import ProviderUnusable, SendFailed
from mbframework.plugins.tls import reached
from mbframework.printable import printable
from mbframework_nats import NatsOptions

#: The message is not directly behind the one that it names: that one was not stored, or somebody else wrote.
NOT_BEHIND = 10070
#: The message is too large for the stream.
TOO_LARGE = (10054, 10097)
#: The server has an attempt of the message whose fate is open.
UNDER_WAY = 10158
NO_STREAM = 10059
OTHER_STREAM = 10060
#: Tried again: what helps in the end, by the code of the answer.
_RETRIED = {
    10008: "JetStream has no leader now",
    10009: "JetStream has no leader now",
    10023: "the server has not enough room or memory; look at its limits and its device",
    10047: "the server's storage is used up; raise its limit, or let streams drop what is old",
    10077: "the stream is full and refuses new messages; raise max_msgs or max_bytes, let consumers make room, or let"
    " it drop what is old (discard old)",
    10118: "the stream's replicas are not there",
    10158: "the server holds an earlier attempt of the same message to be under way",
}
#: Only a person can change these.
_BLOCKED = {
    10039: "JetStream is not enabled for this account; enable it, or use another account",
    10052: "correct the option 'create'",
    10065: "another stream has these subjects; correct the option 'create', or give that stream",
    10076: "JetStream is not enabled; start the server with -js, or with a jetstream block",
    10109: "the stream is sealed",
}


class Denied(Exception):
    """The server refused for want of rights; the text says what."""


class Lost(Exception):
    """The connection has ended, or nothing came in time; what is under way may still be stored."""


def translate(error: BaseException, place: str) -> SendFailed | ProviderUnusable:
    """An error of nats-py, or of the network, with the next step."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ProviderUnusable(
                f"{place}: its certificate was refused: {cause.verify_message}; check tls_ca and the host name",
                provider="nats",
            )
        cause = cause.__cause__ or cause.__context__
    said = printable(str(error) or type(error).__name__).removeprefix("nats: ")
    lower = said.lower()
    if isinstance(error, Denied):
        return ProviderUnusable(f"{place}: {said}; grant it to this user", provider="nats")
    silent = isinstance(error, ServiceUnavailableError) and error.err_code is None
    if silent or isinstance(error, nats.errors.NoRespondersError):
        return ProviderUnusable(
            f"{place}: nobody answers for JetStream; start the server with -js, enable it for this account, or check"
            " the option 'domain'",
            provider="nats",
        )
    if isinstance(error, APIError):
        code = error.err_code or 0
        said = printable(error.description or said)
        if code in _BLOCKED:
            return ProviderUnusable(f"{place}: {said} ({code}); {_BLOCKED[code]}", provider="nats")
        advice = f"; {_RETRIED[code]}" if code in _RETRIED else ""
        return SendFailed(f"{place}: {said} ({code}){advice}", provider="nats")
    if "authorization" in lower or "authentication" in lower:
        # Also "User Authentication Expired" and "Revoked".
        return ProviderUnusable(
            f"{place}: {said}; check user name and password, token, nkey or credentials", provider="nats"
        )
    return SendFailed(f"{place}: {said}", provider="nats")


def first_hint(options: NatsOptions, said: str) -> str:
    """The next step where a server was reached, and what came first was not what was expected: TLS, or its welcome?"""
    if not reached(said):
        return ""
    if options.tls_first:
        return " (does it speak before TLS begins? then leave out tls_first)"
    return f" (does it begin with TLS? then add {'' if options.tls else 'tls=true and '}tls_first=true)"
