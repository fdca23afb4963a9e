"""A real PostgreSQL for tests and benchmarks, on 127.0.0.1 with a database of its own.

See :mod:`mbframework.testing.server` for what can be done to it. Its superuser is ``mb``, without a password. Where the
tests run as root, which PostgreSQL refuses, it runs as the user ``postgres``. This module imports no client library.

``python -m mbframework.testing.postgres`` runs a server in the foreground and prints its URL.
"""

from __future__ import annotations

import os
import pwd
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mbframework.testing.server import Server, ServerError, run_in_foreground

_INSTALL = "run: apt-get install -y postgresql"


class PostgresServer(Server):
    """One PostgreSQL.

    :param settings: lines of ``postgresql.conf``, added to ours or in their place; a value is written as it is.
    """

    name = "PostgreSQL"

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._settings = settings or {}
        if os.geteuid() == 0:
            entry = pwd.getpwnam("postgres")
            self.user = entry.pw_uid, entry.pw_gid

    @classmethod
    def available(cls) -> str | None:
        if _binaries() is None:
            return f"no PostgreSQL server (initdb); {_INSTALL}"
        if os.geteuid() == 0:
            try:
                pwd.getpwnam("postgres")
            except KeyError:
                return f"no user 'postgres', as whom PostgreSQL would run; {_INSTALL}"
        return None

    @property
    def url(self) -> str:
        return f"postgres://mb@127.0.0.1:{self.port}/postgres"

    @property
    def dsn(self) -> str:
        """What client libraries take."""
        return f"postgresql://mb@127.0.0.1:{self.port}/postgres"

    def prepare(self) -> None:
        self.run(
            self._binary("initdb"),
            *("-D", str(self.data / "db"), "-U", "mb", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"),
        )
        settings = {
            "listen_addresses": "'127.0.0.1'",
            "port": str(self.port),
            "unix_socket_directories": f"'{self.data}'",
            # A machine for tests has little shared memory.
            "shared_buffers": "16MB",
            "dynamic_shared_memory_type": "mmap",
            **self._settings,
        }
        with open(self.data / "db" / "postgresql.conf", "a", encoding="utf-8") as file:
            file.writelines(f"{name} = {value}\n" for name, value in settings.items())

    def command(self) -> Sequence[str]:
        return self._binary("postgres"), "-D", str(self.data / "db")

    def answers(self) -> bool:
        try:
            self.run(self._binary("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port), "-t", "1")
        except ServerError:
            return False
        return True

    def _binary(self, name: str) -> str:
        folder = _binaries()
        if folder is None:
            raise ServerError(f"no PostgreSQL server (initdb); {_INSTALL}")
        return str(folder / name)


def _binaries() -> Path | None:
    """The folder of the newest server's programs: Debian keeps them beside the path."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((path.parent for path in versions), key=lambda path: float(path.parent.name), default=None)


if __name__ == "__main__":
    sys.exit(run_in_foreground(PostgresServer()))
