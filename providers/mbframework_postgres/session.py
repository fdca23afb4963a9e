"""One connection to PostgreSQL, on which no call hangs.

Each ends with the answer, the time-out, the end of the buffer or ``close()``.

Threads: the sender's; what ends the waits may be set from any.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import pq
from psycopg.abc import RV, PQGen
from psycopg.conninfo import make_conninfo
from psycopg.waiting import Ready, Wait

from mbframework.errors import ConfigurationError
from mbframework_postgres import PostgresOptions

#: Seconds between looks at whether to go on waiting.
_LOOK_S = 0.1
_PORT = 5432

_OURS = {
    "client_encoding": "UTF-8, it cannot be set",
    "connect_timeout": "connect_timeout",
    "dbname": "the path of the URL",
    "host": "the host of the URL, or socket",
    "password": "password",
    "sslcert": "tls_cert",
    "sslkey": "tls_key",
    "sslpassword": "tls_key_password",
    "sslrootcert": "tls_ca",
    "user": "username",
}


class Session(psycopg.Connection[tuple[Any, ...]]):
    """A connection each of whose waits lasts at most ``timeout`` seconds, and ends when ``give_up()`` says so."""

    timeout = 30.0
    give_up: Callable[[], bool] = staticmethod(lambda: False)

    def wait(self, gen: PQGen[RV], interval: float = _LOOK_S, timeout: float | None = None) -> RV:
        """What psycopg calls wherever it waits for the server."""
        deadline = time.monotonic() + self.timeout
        try:
            wanted = next(gen)
            while True:
                reads, writes = _ready(self.pgconn.socket, reads=bool(wanted & Wait.R), writes=bool(wanted & Wait.W))
                if reads or writes:
                    wanted = gen.send((Ready.R if reads else Ready.NONE) | (Ready.W if writes else Ready.NONE))
                elif self.give_up():
                    raise psycopg.OperationalError("the buffer is closing, and PostgreSQL has not answered yet")
                elif time.monotonic() > deadline:
                    raise psycopg.OperationalError(f"PostgreSQL has not answered within {self.timeout:g} s")
        except StopIteration as end:
            result: RV = end.value
            return result

    def lost(self) -> bool:
        """Whether the server has ended the connection, as far as the kernel knows."""
        if self.closed:
            return True
        try:
            if any(_ready(self.pgconn.socket, reads=True, writes=False, timeout=0)):
                # Nothing was asked: a notice, or the end.
                self.pgconn.consume_input()
        except psycopg.OperationalError:
            return True
        return self.pgconn.status != pq.ConnStatus.OK


def places(options: PostgresOptions) -> list[tuple[str, str]]:
    """Host and port of each place to connect to; the host of a unix socket is its folder."""
    if options.socket:
        return [(options.socket, str(options.client.get("port", _PORT)))]
    found = []
    for host in options.hosts:
        name, _, port = host.rpartition(":")
        if port.isdigit() and not (host.startswith("[") and host.endswith("]")):
            found.append((name.strip("[]"), port))
        else:
            found.append((host.strip("[]"), str(_PORT)))
    return found


def parameters(options: PostgresOptions) -> dict[str, str]:
    """The parameters of libpq, but for host and port."""
    chosen = {
        "application_name": "mbframework",
        "dbname": options.database.removeprefix("/"),
        "user": options.username,
        "password": options.password,
        # A standby is passed over where there is a choice; where there is none it says so itself.
        "target_session_attrs": "read-write" if len(options.hosts) > 1 else "any",
        **{name: value for name, value in options.client.items() if name != "port"},
        # libpq's code works in bytes; ours counts on UTF-8.
        "client_encoding": "UTF8",
    }
    if options.tls:
        chosen |= {
            "sslmode": "verify-full" if options.tls_verify else "require",
            "sslrootcert": (options.tls_ca or "system") if options.tls_verify else None,
            "sslcert": options.tls_cert,
            "sslkey": options.tls_key,
            "sslpassword": options.tls_key_password,
        }
    return {name: value for name, value in chosen.items() if value}


def check_parameters(options: PostgresOptions) -> None:
    """:raises ConfigurationError: libpq has no such parameter."""
    for name, value in options.client.items():
        if name in _OURS:
            raise ConfigurationError(f"provider 'postgres': use {_OURS[name]}", option=f"client.{name}")
        try:
            make_conninfo("", **{name: value})
        except psycopg.ProgrammingError:
            # Its text may quote the value.
            raise ConfigurationError(
                f"provider 'postgres': libpq has no connection parameter {name!r}; see its documentation",
                option=f"client.{name}",
            ) from None


def connect(place: tuple[str, str], options: PostgresOptions, give_up: Callable[[], bool]) -> Session:
    """Connect to one place.

    :raises ConnectionError: it failed; what libpq says.
    """
    host, port = place
    info = make_conninfo("", host=host, port=port, **parameters(options))
    # By hand, since psycopg's own connect() cannot be interrupted from within.
    link = pq.PGconn.connect_start(info.encode())
    deadline = time.monotonic() + options.connect_timeout
    try:
        while link.status != pq.ConnStatus.BAD:
            status = link.connect_poll()
            if status == pq.PollingStatus.OK:
                link.nonblocking = 1
                session = Session(link)
                session.autocommit = True
                # Poolers that stand in between know nothing of prepared statements.
                session.prepare_threshold = None
                session.timeout = options.timeout
                session.give_up = give_up
                return session
            if status == pq.PollingStatus.FAILED:
                break
            writing = status == pq.PollingStatus.WRITING
            while not any(_ready(link.socket, reads=not writing, writes=writing)):
                if give_up():
                    raise ConnectionError("the buffer is closing, and PostgreSQL has not answered yet")
                if time.monotonic() > deadline:
                    raise ConnectionError("no answer within connect_timeout")
        raise ConnectionError(link.get_error_message())
    except BaseException:
        link.finish()
        raise


def _ready(descriptor: int, *, reads: bool, writes: bool, timeout: float = _LOOK_S) -> tuple[bool, bool]:
    """Which of the two can be done; an error counts as both."""
    poll = select.poll()  # select() takes no descriptor above 1023
    poll.register(descriptor, (select.POLLIN if reads else 0) | (select.POLLOUT if writes else 0))
    events = sum(flags for _, flags in poll.poll(timeout * 1000))
    broken = bool(events & (select.POLLERR | select.POLLHUP | select.POLLNVAL))
    return reads and (broken or bool(events & select.POLLIN)), writes and (broken or bool(events & select.POLLOUT))
