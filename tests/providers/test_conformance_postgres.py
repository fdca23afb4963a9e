"""The contract, kept by the provider ``postgres``, against a real server."""

from __future__ import annotations

import psycopg
import pytest
from mbframework_postgres.schema import decode_headers

from mbframework.message import Message
from mbframework.testing.conformance import Arrived, ProviderContract
from mbframework.testing.postgres import PostgresServer

pytest_plugins = ["mbframework.testing.conformance"]


class TestPostgres(ProviderContract):
    patience = "1s"
    keeps_position = True
    partitions = (0, 3)

    @pytest.fixture(autouse=True)
    def destination(self, postgres_control: PostgresServer, postgres_schema: str) -> None:
        self.server = postgres_control
        self.schema = postgres_schema

    def url(self) -> str:
        # The server asks for no password, and takes any.
        place = f"mb:hush-hush@127.0.0.1:{self.server.port}/postgres"
        return f"postgres://{place}?table={self.schema}.messages&timeout={self.patience}&lock_timeout=1s"

    def unusable_url(self) -> str:
        return f"postgres://mb:hush-hush@127.0.0.1:{self.server.port}/missing?table={self.schema}.messages"

    def arrived(self) -> list[Arrived]:
        columns = "value, topic, key, headers, timestamp, partition"
        with psycopg.connect(self.server.dsn) as connection:
            if connection.execute("SELECT to_regclass(%s)", (f"{self.schema}.messages",)).fetchone() == (None,):
                return []
            rows = connection.execute(f"SELECT {columns} FROM {self.schema}.messages ORDER BY id").fetchall()
        return [
            Arrived(value, topic, key, decode_headers(headers), timestamp, partition)
            for value, topic, key, headers, timestamp, partition in rows
        ]

    def take_down(self) -> None:
        self.server.kill()

    def bring_up(self) -> None:
        self.server.ensure_running()
        with psycopg.connect(self.server.dsn, autocommit=True) as connection:
            connection.execute(f"DROP TRIGGER IF EXISTS failing ON {self.schema}.messages")

    def freeze(self) -> None:
        self.server.freeze()

    def thaw(self) -> None:
        self.server.thaw()

    def fail_after(self, count: int) -> None:
        """A trigger that reports a deadlock at the message after so many."""
        self._trigger(
            "failing",
            f"IF new.sequence > {count} THEN RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '40P01'; END IF",
        )

    def make_rejected(self, message: Message) -> Message:
        with self.opened("schema"):
            self._trigger("refusing", "IF new.value = '\\x00' THEN RAISE EXCEPTION 'a zero'; END IF")
        return message._replace(value=b"\0")

    def _trigger(self, name: str, body: str) -> None:
        with psycopg.connect(self.server.dsn, autocommit=True) as connection:
            connection.execute(
                f"CREATE OR REPLACE FUNCTION {self.schema}.{name}() RETURNS trigger LANGUAGE plpgsql AS"
                f" $$ BEGIN {body}; RETURN new; END $$"
            )
            connection.execute(
                f"CREATE OR REPLACE TRIGGER {name} BEFORE INSERT ON {self.schema}.messages"
                f" FOR EACH ROW EXECUTE FUNCTION {self.schema}.{name}()"
            )
