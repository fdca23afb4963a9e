"""A real RabbitMQ for tests and benchmarks: ``rabbitmq-server`` on 127.0.0.1, a node of its own.

Its name, ports, Erlang cookie, folders and port mapper (``epmd``) are its own, so that it meets no other node of the
machine. Durable queues keep what they confirmed through a kill -9. A start takes some four seconds. See
:mod:`mbframework.testing.server` for what can be done to it. This module imports no client library.

``python -m mbframework.testing.rabbitmq`` runs a server in the foreground and prints its URL.
"""

from __future__ import annotations

import json
import shlex
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mbframework.testing.kafka_probe import free_ports
from mbframework.testing.server import Server, ServerError, run_in_foreground

_INSTALL = "run: apt-get install -y rabbitmq-server"
_HELLO = b"AMQP\x00\x00\x09\x01"

# The port mapper goes first and is a child of the server, which the shell becomes, so that both are killed together.
_SCRIPT = "setpriv --pdeathsig KILL epmd -port {epmd} -address 127.0.0.1 & exec {server}"


class RabbitUser(NamedTuple):
    """Patterns of the names that the user may configure, write and read in the virtual host ``/``."""

    password: str
    configure: str = ".*"
    write: str = ".*"
    read: str = ".*"


class RabbitServer(Server):
    """One RabbitMQ. Its administrator is ``mb`` with the password ``mb``.

    :param settings: lines of ``rabbitmq.conf``, added to ours or in their place.
    :param users: further users by their names.
    """

    name = "RabbitMQ"

    def __init__(
        self, settings: Mapping[str, str] | None = None, users: Mapping[str, RabbitUser] | None = None
    ) -> None:
        super().__init__()
        self._epmd_port, self._node_port = free_ports(2)
        self._settings = settings or {}
        self._users = {"mb": RabbitUser("mb"), **(users or {})}

    @classmethod
    def available(cls) -> str | None:
        if _program() is None:
            return f"no RabbitMQ server (rabbitmq-server); {_INSTALL}"
        for needed in ("epmd", "setpriv"):
            if shutil.which(needed) is None:
                return f"no {needed} for a RabbitMQ server; run: apt-get install -y rabbitmq-server util-linux"
        return None

    @property
    def url(self) -> str:
        return f"rabbitmq://mb:mb@127.0.0.1:{self.port}"

    def prepare(self) -> None:
        settings = {
            "listeners.tcp.default": f"127.0.0.1:{self.port}",
            "load_definitions": str(self.data / "definitions.json"),
            "log.console.level": "warning",
            # A machine for tests has little room, and nobody waits for it to have more.
            "disk_free_limit.absolute": "50MB",
            **self._settings,
        }
        lines = [f"{name} = {value}\n" for name, value in settings.items()]
        (self.data / "rabbitmq.conf").write_text("".join(lines))
        (self.data / "definitions.json").write_text(json.dumps(self._definitions()))
        (self.data / "enabled_plugins").write_text("[].\n")
        (self.data / "env.conf").write_text("".join(f"{name}={shlex.quote(v)}\n" for name, v in self._variables()))

    def command(self) -> Sequence[str]:
        program = _program()
        if program is None:
            raise ServerError(f"no RabbitMQ server (rabbitmq-server); {_INSTALL}")
        epmd = {"ERL_EPMD_PORT": str(self._epmd_port), "ERL_EPMD_ADDRESS": "127.0.0.1", "HOME": str(self.data)}
        # Read from a file, the others leave the environment as it is: there may be variables of another RabbitMQ.
        epmd["RABBITMQ_CONF_ENV_FILE"] = str(self.data / "env.conf")
        # Otherwise the server would be a child of its shell.
        epmd["RUNNING_UNDER_SYSTEMD"] = "true"
        script = _SCRIPT.format(epmd=self._epmd_port, server=shlex.quote(str(program)))
        return ("env", *(f"{name}={value}" for name, value in epmd.items()), "sh", "-c", script)

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.settimeout(1)
                connection.sendall(_HELLO)
                # A method frame: Connection.Start.
                return connection.recv(1) == b"\x01"
        except OSError:
            return False

    def _variables(self) -> list[tuple[str, str]]:
        erlang = "-kernel inet_dist_use_interface {127,0,0,1} -setcookie mb +S 2:2 +sbwt none +sbwtdcpu none"
        return [
            ("NODENAME", f"mb{self.port}@localhost"),
            ("NODE_PORT", str(self.port)),
            ("DIST_PORT", str(self._node_port)),
            ("CONFIG_FILE", str(self.data / "rabbitmq.conf")),
            ("ENABLED_PLUGINS_FILE", str(self.data / "enabled_plugins")),
            ("FEATURE_FLAGS_FILE", str(self.data / "feature_flags")),
            ("MNESIA_BASE", str(self.data / "db")),
            ("LOG_BASE", str(self.data / "log")),
            ("LOGS", "-"),
            ("PID_FILE", str(self.data / "pid")),
            ("SERVER_ADDITIONAL_ERL_ARGS", erlang),
        ]

    def _definitions(self) -> dict[str, object]:
        users = self._users.items()
        return {
            "vhosts": [{"name": "/"}],
            "users": [{"name": name, "password": user.password, "tags": "administrator"} for name, user in users],
            "permissions": [
                {"user": name, "vhost": "/", "configure": user.configure, "write": user.write, "read": user.read}
                for name, user in users
            ],
        }


def _program() -> Path | None:
    """The newest server's own script: the one on the path insists on being root or its own user."""
    own = Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server")
    found = max(own, key=lambda path: path.stat().st_mtime, default=None)
    on_path = shutil.which("rabbitmq-server")
    return found or (None if on_path is None else Path(on_path))


if __name__ == "__main__":
    sys.exit(run_in_foreground(RabbitServer()))
