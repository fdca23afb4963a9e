"""RabbitMQ's errors as ours: is it tried again, or must a person act? Pure functions."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator

from pika import exceptions

from mbframework.errors import ProviderUnusable, SendFailed

#: Only a person can change these: what helps, by the code with which the broker closes a channel or a connection.
_BLOCKED = {
    403: "check user name and password; the user needs the right to write to the exchange, and to configure and read"
    " queues that are declared",
    404: "create it, or correct the options exchange and declare",
    405: "another program uses the queue for itself alone; give it another name, or set a prefix",
    406: "the queue exists with other settings; set declare to its type, or to no",
    530: "create the virtual host, or grant this user the access to it",
}
_TOO_LARGE = re.compile(r"message size \d+ is larger than configured max size (\d+)")


class NoAnswer(exceptions.AMQPError):  # type: ignore[misc]  # pika comes without types
    """The broker is connected and silent, or the wait was cut short; the text says why."""

    def __str__(self) -> str:
        return str(self.args[0])


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and all that it was made of: pika wraps the attempts at one host."""
    yield error
    nested: list[object] = [*getattr(error, "exceptions", ()), getattr(error, "exception", None), *error.args]
    nested.append(error.__cause__)
    for one in nested:
        if isinstance(one, BaseException):
            yield from causes(one)


def code(error: BaseException) -> int:
    """The broker's code for it; 0 where it gave none."""
    closed = exceptions.ConnectionClosedByBroker, exceptions.ChannelClosedByBroker
    for cause in causes(error):
        if isinstance(cause, closed):
            return int(cause.reply_code)
        # Of these pika keeps only the text of what the broker said.
        if isinstance(cause, (exceptions.ProbableAuthenticationError, exceptions.ProbableAccessDeniedError)):
            found = re.search(r"ConnectionClosedByBroker: \((\d+)\)", str(cause))
            return int(found[1]) if found else 0
    return 0


def largest(error: BaseException) -> int | None:
    """Where a message was too large: the bytes that the broker takes."""
    found = _TOO_LARGE.search(str(error))
    return int(found[1]) if found else None


def translate(error: BaseException, where: str) -> SendFailed | ProviderUnusable:
    """An error of pika with the next step."""
    for cause in causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ProviderUnusable(
                f"{where}: its certificate was refused: {cause.verify_message}; check tls_ca and the host name",
                provider="rabbitmq",
            )
    said = f"{where}: {words(error)}"
    if (size := largest(error)) is not None:
        return SendFailed(f"{said}; messages of more than {size} bytes are rejected from now on", provider="rabbitmq")
    number = code(error)
    # 541 and 530 also come from a virtual host that has not started yet, which is said in words only.
    if number in _BLOCKED and "is down" not in said:
        return ProviderUnusable(f"{said}; {_BLOCKED[number]}", provider="rabbitmq")
    return SendFailed(said, provider="rabbitmq")


def words(error: BaseException) -> str:
    """What happened, in one line: the broker's own words where there are any."""
    innermost = error
    for innermost in causes(error):
        if isinstance(innermost, (exceptions.ConnectionClosedByBroker, exceptions.ChannelClosedByBroker)):
            return f"{innermost.reply_code} {innermost.reply_text}"
    if isinstance(innermost, exceptions.AMQPHeartbeatTimeout):
        return "no heartbeat from the broker"
    quoted = re.search(r"ConnectionClosedByBroker: \((\d+)\) ['\"](.*?)['\"]", str(innermost))
    if quoted:
        return f"{quoted[1]} {quoted[2]}"
    return str(innermost) or type(innermost).__name__
