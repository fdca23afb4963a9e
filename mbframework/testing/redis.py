"""A real Redis for tests and benchmarks: ``redis-server`` on 127.0.0.1, with an append-only file.

What was acknowledged outlives a kill -9: with any other ``appendfsync`` than ``always`` Redis may acknowledge, while
the device is busy, what it has not given to the file yet. See :mod:`mbframework.testing.server` for what can
be done to it. This module imports no client library.

``python -m mbframework.testing.redis`` runs a server in the foreground and prints its URL.
"""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Sequence

from mbframework.testing.server import Server, run_in_foreground


class RedisServer(Server):
    """One Redis.

    :param arguments: further ones of its command line, such as ``("--requirepass", "secret")``; they come last, and so
        replace ours.
    """

    name = "Redis"

    def __init__(self, *arguments: str) -> None:
        super().__init__()
        self._arguments = arguments

    @classmethod
    def available(cls) -> str | None:
        return None if shutil.which("redis-server") else "no redis-server; run: apt-get install -y redis-server"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def unix_socket(self) -> str:
        """The path of its unix socket."""
        return str(self.data / "redis.sock")

    def command(self) -> Sequence[str]:
        return (
            "redis-server",
            *("--bind", "127.0.0.1", "--port", str(self.port), "--unixsocket", self.unix_socket),
            *("--dir", str(self.data), "--appendonly", "yes", "--save", "", "--daemonize", "no"),
            *("--appendfsync", "always"),
            *self._arguments,
        )

    def answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1)
                connection.connect(self.unix_socket)
                connection.sendall(b"PING\r\n")
                answer = connection.recv(100)
        except OSError:
            return False
        # Where it asks for a password first, it is up as well.
        return answer.startswith((b"+PONG", b"-NOAUTH", b"-NOPERM"))


if __name__ == "__main__":
    sys.exit(run_in_foreground(RedisServer()))
