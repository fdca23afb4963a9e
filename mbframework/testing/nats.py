"""A real NATS for tests and benchmarks: ``nats-server`` on 127.0.0.1, with JetStream on disk.

What JetStream acknowledged outlives a kill -9. See :mod:`mbframework.testing.server` for what can be done to it. This
module imports no client library.

``python -m mbframework.testing.nats`` runs a server in the foreground and prints its address.
"""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Sequence

from mbframework.testing.server import Server, run_in_foreground


class NatsServer(Server):
    """One NATS.

    :param settings: further lines of its configuration file.
    :param jetstream: False for one without.
    """

    name = "NATS"

    def __init__(self, settings: str = "", *, jetstream: bool = True) -> None:
        super().__init__()
        self._settings = settings
        self._jetstream = jetstream

    @classmethod
    def available(cls) -> str | None:
        return None if shutil.which("nats-server") else "no nats-server; run: apt-get install -y nats-server"

    @property
    def url(self) -> str:
        """Its address; a provider's URL has the stream behind it."""
        return f"nats://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        self.configure(self._settings)

    def configure(self, settings: str) -> None:
        """Replace the further settings; the next start reads them."""
        lines = [f"listen: 127.0.0.1:{self.port}", settings]
        if self._jetstream:
            lines.append(f'jetstream {{ store_dir: "{self.data}" }}')
        (self.data / "nats.conf").write_text("\n".join(lines) + "\n")

    def command(self) -> Sequence[str]:
        return "nats-server", "-c", str(self.data / "nats.conf")

    def answers(self) -> bool:
        # JetStream has read its streams before the server listens.
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.settimeout(1)
                return connection.recv(100).startswith(b"INFO")
        except OSError:
            return False


if __name__ == "__main__":
    sys.exit(run_in_foreground(NatsServer()))
