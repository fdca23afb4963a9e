"""A real MQTT broker for tests and benchmarks: ``mosquitto`` on 127.0.0.1, with persistence.

Mosquitto keeps messages in memory and writes them to its database when it ends (:meth:`MosquittoServer.shut_down`), and
now and then before: a kill -9 loses what it had acknowledged since, sessions and subscriptions too. See
:mod:`mbframework.testing.server` for what else can be done to it. This module imports no client library.

``python -m mbframework.testing.mqtt`` runs a server in the foreground and prints its URL.
"""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mbframework.testing.server import Server, ServerError, run_in_foreground

# CONNECT of MQTT 3.1.1 without a client id, which a broker may refuse, but answers.
_HELLO = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x0a\x00\x00"
_CONNACK = b"\x20"


class MosquittoServer(Server):
    """One Mosquitto. Without ``users`` everybody may connect.

    :param settings: lines of ``mosquitto.conf``, added behind ours.
    :param users: passwords by user names.
    :param data: a folder for its data, which is kept; None: a temporary one.
    """

    name = "Mosquitto"

    def __init__(
        self, settings: Sequence[str] = (), users: Mapping[str, str] | None = None, data: Path | None = None
    ) -> None:
        super().__init__(data)
        self._settings = settings
        self._users = users or {}

    @classmethod
    def available(cls) -> str | None:
        return None if _program() else "no MQTT server (mosquitto); run: apt-get install -y mosquitto"

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        # Before its settings: it hashes the passwords in place.
        if self._users:
            file = self.data / "passwords"
            file.write_text("".join(f"{name}:{password}\n" for name, password in self._users.items()))
            file.chmod(0o600)
            self.run("mosquitto_passwd", "-U", str(file))
        lines = [
            # As whom it was started: as root it would become another user, who may not enter this folder.
            *("user root", f"listener {self.port} 127.0.0.1"),
            *("persistence true", f"persistence_location {self.data}/"),
            # What subscribers have not fetched waits, all of it.
            *("max_queued_messages 0", "max_queued_bytes 0", "max_inflight_messages 1000"),
            *([f"password_file {self.data}/passwords"] if self._users else []),
            f"allow_anonymous {'false' if self._users else 'true'}",
            *("log_dest stderr", "log_type error", "log_type warning"),
            *self._settings,
        ]
        (self.data / "mosquitto.conf").write_text("".join(f"{line}\n" for line in lines))

    def command(self) -> Sequence[str]:
        program = _program()
        if program is None:
            raise ServerError("no MQTT server (mosquitto); run: apt-get install -y mosquitto")
        return (program, "-c", str(self.data / "mosquitto.conf"))

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.settimeout(1)
                connection.sendall(_HELLO)
                return connection.recv(1) == _CONNACK
        except OSError:
            return False


def _program() -> str | None:
    """Debian keeps it where ordinary users do not look."""
    found = shutil.which("mosquitto")
    own = Path("/usr/sbin/mosquitto")
    return found or (str(own) if own.exists() else None)


if __name__ == "__main__":
    sys.exit(run_in_foreground(MosquittoServer()))
