"""The fixture ``postgres_server``: one real PostgreSQL for the whole run.

Without one its tests are skipped; the reason names the command that enables them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from mbframework.testing.postgres import PostgresServer


def require_postgres() -> None:
    """Skip the test where no PostgreSQL can be had."""
    if reason := PostgresServer.available():
        pytest.skip(f"no PostgreSQL server: {reason}")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A running PostgreSQL, shared by all tests: each uses a schema of its own.

    A test that kills or freezes it asks for ``postgres_control`` instead.
    """
    require_postgres()
    with PostgresServer() as server:
        yield server


@pytest.fixture
def postgres_control(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """The same PostgreSQL for a test that kills or freezes it; it runs again afterwards, however the test ended."""
    yield postgres_server
    postgres_server.ensure_running()


@pytest.fixture
def postgres_schema(postgres_server: PostgresServer) -> str:
    """A new schema."""
    import psycopg

    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_server.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    return name
