"""A real HTTP endpoint for tests and benchmarks: a process on 127.0.0.1 that stores what arrives, and answers then.

What it answered with 2xx is on the device, and outlives a kill -9. See :mod:`mbframework.testing.server` for what can
be done to it, and :class:`mbframework.testing.http_endpoint.Manner` for how it may be told to behave. This module
imports no client library.

``python -m mbframework.testing.http`` runs an endpoint in the foreground and prints its URL.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import sys
from collections.abc import Sequence

from mbframework.testing import http_endpoint
from mbframework.testing.http_endpoint import Manner, Stored
from mbframework.testing.server import Server, run_in_foreground


class HttpServer(Server):
    """One endpoint, which takes requests at every path.

    :param drop_repeats: a request whose ``Idempotency-Key`` is known is answered like the first, and not stored.
    :param sync: on the device before the answer; without, what it has stored outlives a kill, and no power loss.
    :param certificate: PEM files of its certificate and key: then it speaks TLS.
    :param authority: PEM file of the authority whose certificate clients must show.
    """

    name = "the HTTP endpoint"

    def __init__(
        self,
        *,
        drop_repeats: bool = False,
        sync: bool = True,
        certificate: tuple[str, str] | None = None,
        authority: str | None = None,
    ) -> None:
        super().__init__()
        self._drop_repeats = drop_repeats
        self._sync = sync
        self._certificate = certificate
        self._authority = authority

    @classmethod
    def available(cls) -> str | None:
        return None

    @property
    def url(self) -> str:
        return f"{'https' if self._certificate else 'http'}://127.0.0.1:{self.port}/inbox"

    def command(self) -> Sequence[str]:
        arguments = ["--port", str(self.port), "--data", str(self.data)]
        arguments += ["--drop-repeats"] * self._drop_repeats + ["--no-sync"] * (not self._sync)
        if self._certificate is not None:
            arguments += ["--certificate", *self._certificate]
        if self._authority is not None:
            arguments += ["--authority", self._authority]
        return (sys.executable, "-m", http_endpoint.__name__, *arguments)

    def answers(self) -> bool:
        # It listens when it has read what it had stored.
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1):
                return True
        except OSError:
            return False

    def behave(self, manner: Manner | None = None) -> None:
        """From the next request on; None: as at first. Counts begin anew."""
        draft = self.data / "manner.new"
        draft.write_text(json.dumps(dataclasses.asdict(manner or Manner())))
        os.replace(draft, self.data / http_endpoint.MANNER)

    def stored(self) -> list[Stored]:
        """Every request that was stored, in order; also of a server that does not run."""
        return http_endpoint.read(self.data / http_endpoint.STORE)

    def forget(self) -> None:
        """Throw away what was stored, and behave as at first. The server must not have a request under way."""
        (self.data / http_endpoint.STORE).unlink(missing_ok=True)
        self.behave()


if __name__ == "__main__":
    sys.exit(run_in_foreground(HttpServer()))
