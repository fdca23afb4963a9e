"""Connections on which nothing hangs: each wait ends with what it waits for, the time-out, or the end of the buffer.

It is what httpx's transport (httpcore) reaches the network through. Threads: the sender's; the ends of waits
(:class:`~mbframework.deadline.Deadline`) may be told from any. The resolution of a name is the system's, and cannot be
interrupted.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import httpcore

from mbframework.deadline import Deadline

T = TypeVar("T")

#: What the error says where a connection came about, and the handshake of TLS did not end.
NO_ENCRYPTION = "no encryption in time"
#: Seconds between looks at whether to go on waiting.
_LOOK_S = 0.1


class Network(httpcore.NetworkBackend):
    """Makes connections; ``deadline`` ends whatever waits on one of them."""

    def __init__(self, deadline: Deadline, connect_timeout: float) -> None:
        self.deadline = deadline
        self.connect_timeout = connect_timeout

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """A connection to the first address of the host that takes one.

        :raises httpcore.ConnectError: there is none. :raises httpcore.ConnectTimeout: not in time.
        """
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise httpcore.ConnectError(f"the name cannot be resolved: {why}") from error
        within = self.deadline.at_most(self.connect_timeout)
        refusal: OSError | None = None
        for family, kind, protocol, _, address in addresses:
            taken = socket.socket(family, kind, protocol)
            try:
                taken.setblocking(False)
                _connect(taken, address, within)
                taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            except OSError as error:
                taken.close()
                refusal = error
            except BaseException:
                taken.close()
                raise
            else:
                return Stream(taken, self)
        raise httpcore.ConnectError(refusal.strerror if refusal else "the name has no address") from refusal


class Stream(httpcore.NetworkStream):
    """One connection, encrypted or not."""

    def __init__(self, taken: socket.socket, network: Network) -> None:
        self._socket = taken
        self._network = network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """:raises httpcore.ReadError: the connection is lost. :raises httpcore.ReadTimeout: not in time."""
        try:
            return _until(self._socket, lambda: self._socket.recv(max_bytes), select.POLLIN, self._network.deadline)
        except TimeoutError as error:
            raise httpcore.ReadTimeout("no answer in time") from error
        except OSError as error:
            raise httpcore.ReadError(_why(error)) from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """:raises httpcore.WriteError: the connection is lost. :raises httpcore.WriteTimeout: not in time."""
        left = memoryview(buffer)
        try:
            while left:
                send = partial(self._socket.send, left)
                left = left[_until(self._socket, send, select.POLLOUT, self._network.deadline) :]
        except TimeoutError as error:
            raise httpcore.WriteTimeout("the request was not taken in time") from error
        except OSError as error:
            raise httpcore.WriteError(_why(error)) from error

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """:raises httpcore.ConnectError: refused, by one of the two. :raises httpcore.ConnectTimeout: not in time."""
        try:
            secured = ssl_context.wrap_socket(
                self._socket, server_hostname=server_hostname, do_handshake_on_connect=False
            )
            # wrap_socket() has detached the plain one.
            self._socket = secured
            within = self._network.deadline.at_most(self._network.connect_timeout)
            _until(secured, secured.do_handshake, select.POLLIN, within)
        except TimeoutError as error:
            self.close()
            raise httpcore.ConnectTimeout(NO_ENCRYPTION) from error
        except (OSError, ValueError) as error:
            self.close()
            raise httpcore.ConnectError(_why(error)) from error
        return self

    def close(self) -> None:
        self._socket.close()

    def get_extra_info(self, info: str) -> Any:
        """What httpcore asks of an idle connection: whether it can be read, which is its end."""
        if info == "is_readable":
            return bool(_poll(self._socket, select.POLLIN, 0))
        return None


def _connect(taken: socket.socket, address: Any, deadline: Deadline) -> None:
    number = taken.connect_ex(address)
    if number == errno.EINPROGRESS:
        _await(taken, select.POLLOUT, deadline, httpcore.ConnectTimeout("no connection in time"))
        number = taken.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        raise OSError(number, os.strerror(number))


def _until(taken: socket.socket, call: Callable[[], T], event: int, deadline: Deadline) -> T:
    """The call's result; it is made again whenever the socket is ready for it. :raises TimeoutError: not in time."""
    while True:
        try:
            return call()
        except ssl.SSLWantReadError:
            wanted = select.POLLIN
        except ssl.SSLWantWriteError:
            wanted = select.POLLOUT
        except BlockingIOError:
            wanted = event
        _await(taken, wanted, deadline, TimeoutError())


def _await(taken: socket.socket, event: int, deadline: Deadline, late: Exception) -> None:
    while not _poll(taken, event, min(_LOOK_S, deadline.left())):
        if not deadline.left():
            raise late


def _poll(taken: socket.socket, event: int, timeout: float) -> list[tuple[int, int]]:
    if taken.fileno() < 0:
        # Closed: whoever asks finds out by reading.
        return [(-1, event)]
    poll = select.poll()
    poll.register(taken, event)
    return poll.poll(timeout * 1000)


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return getattr(error, "strerror", None) or str(error)
