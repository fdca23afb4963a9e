"""One connection to Redis, on which no call hangs.

Each ends with the answer, the time-out, the end of the buffer or ``close()``.

redis-py makes the connection, writes and parses. Threads: the sender's; :meth:`Link.interrupt` may come from any.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any

from redis import exceptions
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry

from mbframework.plugins.url import with_port
from mbframework_redis import RedisOptions
from mbframework_redis.entry import SCRIPT

#: Seconds between looks at whether to go on waiting.
_LOOK_S = 0.1
#: Bytes that are handed to the socket at once, so that a slow network is none that stands still.
_SLICE = 1 << 18
_PORT = 6379

Refused = exceptions.ResponseError


def places(options: RedisOptions) -> list[str]:
    """The hosts with their ports, or the path of the unix socket."""
    return [with_port(host, _PORT) for host in options.hosts] or [options.path]


class Link:
    """A connection that is authenticated and has its database chosen.

    :param give_up: says that the buffer is closing.
    :raises exceptions.RedisError: it cannot be made.
    """

    def __init__(self, place: str, options: RedisOptions, give_up: Callable[[], bool]) -> None:
        self.place = place
        self._timeout = options.timeout
        self._give_up = give_up
        self._connection = _connection(place, options)
        for name in ("driver_info", "lib_name", "lib_version"):
            # Else connect() would introduce the library, and wait. What the constructor takes differs by release.
            setattr(self._connection, name, None)
        try:
            self._connection.connect()
            # By ourselves, and not in connect(), where nothing could interrupt the wait for the answers.
            if options.password is not None:
                user = (options.username,) if options.username else ()
                self.ask("AUTH", *user, options.password, timeout=options.connect_timeout)
            if options.client_name:
                # Only a name: without the right to it all else works.
                with contextlib.suppress(exceptions.NoPermissionError):
                    self.ask("CLIENT", "SETNAME", options.client_name, timeout=options.connect_timeout)
            if options.database:
                self.ask("SELECT", options.database, timeout=options.connect_timeout)
            self.sha = self.ask("SCRIPT", "LOAD", SCRIPT, timeout=options.connect_timeout)
        except BaseException:
            self.close()
            raise

    def ask(self, *command: object, timeout: float | None = None) -> Any:
        """The answer to a command. :raises exceptions.RedisError: it is an error, or does not come."""
        self.write(self._connection.pack_command(*command))
        return self.answer(timeout)

    def write(self, packed: list[bytes]) -> None:
        """Send one or more commands that are packed already."""
        for piece in packed:
            whole = memoryview(piece)
            for at in range(0, len(whole), _SLICE):
                if self._connection._sock is None:  # noqa: SLF001 - it would silently connect anew
                    raise exceptions.ConnectionError("the connection is closed")
                self._connection.send_packed_command([whole[at : at + _SLICE]])

    def answer(self, timeout: float | None = None) -> Any:
        """The next answer."""
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        while self._connection._sock is not None:  # noqa: SLF001 - can_read() would silently connect anew
            if self._connection.can_read(timeout=_LOOK_S):
                return self._connection.read_response()
            if self._give_up():
                raise exceptions.ConnectionError("the buffer is closing, and Redis has not answered yet")
            if time.monotonic() > deadline:
                raise exceptions.TimeoutError("Redis takes connections, but does not answer")
        raise exceptions.ConnectionError("the connection is closed")

    def alive(self) -> bool:
        """Whether the connection stands, as far as the kernel knows."""
        try:
            # Nothing is asked, so that whatever is there to be read is the end of the connection.
            return self._connection._sock is not None and not self._connection.can_read(timeout=0)  # noqa: SLF001
        except exceptions.RedisError:
            return False

    def interrupt(self) -> None:
        """From any thread: cut the connection, so that a call in another thread fails now. It is still to be closed."""
        taken = self._connection._sock  # noqa: SLF001 - disconnect() would take it apart under the other thread
        if taken is not None:
            with contextlib.suppress(OSError):
                taken.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the connection, on the thread that uses it. May be called twice."""
        self._connection.disconnect()


def _connection(place: str, options: RedisOptions) -> AbstractConnection:
    common: dict[str, Any] = {
        "socket_connect_timeout": options.connect_timeout,
        "socket_timeout": options.connect_timeout,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    if not options.hosts:
        return UnixDomainSocketConnection(path=place, **common)  # type: ignore[abstract]  # its own omission
    host, _, port = place.rpartition(":")
    common |= {"host": host.strip("[]"), "port": int(port), "socket_keepalive": True}
    if not options.tls:
        return Connection(**common)
    return SSLConnection(
        ssl_ca_certs=options.tls_ca,
        ssl_certfile=options.tls_cert,
        ssl_keyfile=options.tls_key or options.tls_cert,
        ssl_password=options.tls_key_password,
        ssl_cert_reqs="required" if options.tls_verify else "none",
        ssl_check_hostname=options.tls_verify,
        **common,
    )
