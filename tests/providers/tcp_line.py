"""A line to a real server that can be cut and mended in a moment, where a restart of the server takes seconds."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from types import TracebackType
from typing import Self


class TcpLine:
    """Listens on :attr:`port` of 127.0.0.1 and passes bytes on to the server at ``target``, both ways.

    Cut, it closes all connections, and new ones are refused. One thread, from entry to exit.

    :param port: where to listen; 0: at a free one.
    """

    def __init__(self, target: int, port: int = 0) -> None:
        self._target = target
        self._listener: socket.socket | None = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self._peers: dict[socket.socket, socket.socket] = {}
        self._clients: set[socket.socket] = set()
        #: Bytes that clients may still send; None: any number.
        self._left: int | None = None
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._up = True
        self._done = threading.Condition()
        self._over = False
        self._thread = threading.Thread(target=self._run, name="test-tcp-line")

    def __enter__(self) -> Self:
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread.start()
        self._look()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        self._wake.send(b"!")
        self._thread.join()
        self._wake.close()
        self._woken.close()
        self._selector.close()

    def cut(self) -> None:
        """Close all connections, and refuse new ones; return when that is done."""
        self._up = False
        self._look()

    def cut_after(self, count: int) -> None:
        """Cut it once so many more bytes have been passed on to the server."""
        self._left = count

    def mend(self) -> None:
        """Take connections again."""
        self._left = None
        self._up = True
        self._look()

    def _look(self) -> None:
        with self._done:
            self._wake.send(b"!")
            self._done.wait(5)

    def _run(self) -> None:
        self._listen()
        while not self._over:
            for key, _ in self._selector.select():
                source = key.fileobj
                assert isinstance(source, socket.socket)
                if source is self._woken:
                    source.recv(100)
                    self._listen() if self._up else self._hang_up()
                    with self._done:
                        self._done.notify_all()
                elif source is self._listener:
                    self._accept(source.accept()[0])
                elif source in self._peers:
                    self._pass_on(source)
        self._hang_up()

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port))
        if self._listener not in self._selector.get_map():
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _accept(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._target), 5)
        except OSError:
            client.close()
            return
        self._clients.add(client)
        for one, other in ((client, server), (server, client)):
            self._peers[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _pass_on(self, source: socket.socket) -> None:
        try:
            data = source.recv(1 << 16)
            over = False
            if self._left is not None and source in self._clients:
                over, data = len(data) >= self._left, data[: self._left]
                self._left -= len(data)
            if data:
                self._peers[source].settimeout(10)
                self._peers[source].sendall(data)
            if over:
                self._up = False
                self._hang_up()
            if data or over:
                return
        except OSError:
            pass
        self._end(source)

    def _end(self, source: socket.socket) -> None:
        for one in (source, self._peers.pop(source)):
            self._peers.pop(one, None)
            self._clients.discard(one)
            self._selector.unregister(one)
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _hang_up(self) -> None:
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None
        while self._peers:
            self._end(next(iter(self._peers)))
