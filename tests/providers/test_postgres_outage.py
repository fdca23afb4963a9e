"""The provider ``postgres`` in a real buffer, with a real server: exactly once, whatever is killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from mbframework_postgres.provider import PostgresProvider

from mbframework.errors import ProviderUnusable, SendFailed
from mbframework.message import Position
from mbframework.testing.postgres import PostgresServer
from tests.providers import exactly_once, made
from tests.providers.batches import RUN, make_batch
from tests.providers.connections import mended_between_sends, waits_end


def url_of(server: PostgresServer, schema: str, query: str = "timeout=1s") -> str:
    return f"{server.url}?table={schema}.messages&{query}"


def opened(server: PostgresServer, schema: str, query: str = "timeout=1s") -> PostgresProvider:
    return made.opened(url_of(server, schema, query))


def numbers(server: PostgresServer, schema: str) -> list[int]:
    with psycopg.connect(server.dsn) as connection:
        rows = connection.execute(f"SELECT value FROM {schema}.messages ORDER BY id").fetchall()
    return [int(value) for (value,) in rows]


def test_outages_among_50_000_messages(postgres_control: PostgresServer, postgres_schema: str, tmp_path: Path) -> None:
    url = url_of(postgres_control, postgres_schema, "timeout=500ms")
    exactly_once.outages_among_50_000(tmp_path / "b", url, postgres_control)
    assert numbers(postgres_control, postgres_schema) == list(range(50_000))


def test_a_position_ahead_of_the_seek_wins(
    postgres_server: PostgresServer, postgres_schema: str, tmp_path: Path
) -> None:
    count = exactly_once.kills_between_commit_and_seek(tmp_path / "b", url_of(postgres_server, postgres_schema), 6)
    assert numbers(postgres_server, postgres_schema) == list(range(count))


def test_writers_and_server_are_killed(postgres_control: PostgresServer, postgres_schema: str, tmp_path: Path) -> None:
    url = url_of(postgres_control, postgres_schema)
    accepted = exactly_once.kills_of_writers(tmp_path / "b", url, 4, postgres_control.restart)
    found = numbers(postgres_control, postgres_schema)
    assert found == sorted(set(found))
    assert set(accepted) <= set(found)


def test_an_attempt_without_an_answer_is_stored_once(postgres_control: PostgresServer, postgres_schema: str) -> None:
    """The server has the batch, and commits it or not when it goes on; it comes again, cut otherwise."""
    provider = opened(postgres_control, postgres_schema, "timeout=300ms")
    provider.send(make_batch(1, 10))
    # The server stops with the commit in its socket.
    session = provider._session
    assert session is not None
    execute = session.execute

    def freeze_before_commit(query: str, *more: object) -> object:
        if query == "COMMIT":
            postgres_control.freeze()
        return execute(query, *more)  # type: ignore[call-overload]

    session.execute = freeze_before_commit  # type: ignore[method-assign, assignment]
    with pytest.raises(SendFailed, match=r"has not answered within 0\.3 s") as failed:
        provider.send(make_batch(11, 2000))
    assert failed.value.uncertain
    postgres_control.thaw()
    for first in range(11, 2011, 100):
        provider.send(make_batch(first, 100))
    provider.send(make_batch(2011, 10))
    assert numbers(postgres_control, postgres_schema) == list(range(1, 2021))
    assert provider.committed() == Position(2021, RUN)
    provider.close(1)


def test_another_program_on_the_same_lane_is_told(postgres_server: PostgresServer, postgres_schema: str) -> None:
    one, two = (opened(postgres_server, postgres_schema) for _ in range(2))
    one.send(make_batch(1, 10))
    with pytest.raises(ProviderUnusable, match="up to sequence 10, this one is at 1: a copy"):
        two.send(make_batch(1, 5))
    two.close(1)
    one.send(make_batch(11, 10))
    one.close(1)
    assert numbers(postgres_server, postgres_schema) == list(range(1, 21))


def test_tables_that_were_dropped_are_made_again(
    postgres_server: PostgresServer, postgres_schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    provider = opened(postgres_server, postgres_schema)
    provider.send(make_batch(1, 10))
    with psycopg.connect(postgres_server.dsn, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA {postgres_schema} CASCADE")
        connection.execute(f"CREATE SCHEMA {postgres_schema}")
    with pytest.raises(SendFailed, match="made again with the next connection"):
        provider.send(make_batch(11, 10))
    provider.send(make_batch(11, 10))
    assert numbers(postgres_server, postgres_schema) == list(range(11, 21))
    assert "postgres has lost what it had acknowledged" in caplog.text
    provider.close(1)


def test_a_lost_connection_is_noticed_and_mended_between_sends(
    postgres_control: PostgresServer, postgres_schema: str
) -> None:
    provider = opened(postgres_control, postgres_schema)
    mended_between_sends(provider, postgres_control.kill, postgres_control.restart)
    assert numbers(postgres_control, postgres_schema) == list(range(1, 21))


@pytest.mark.parametrize("how", ["stopping", "close"])
def test_a_wait_ends_when_the_buffer_stops_or_closes(
    postgres_control: PostgresServer, postgres_schema: str, how: str, promised: Callable[[float], float]
) -> None:
    waits_end(url_of(postgres_control, postgres_schema, "timeout=300s"), postgres_control, how, promised(4))
    postgres_control.thaw()


def test_a_locked_position_is_waited_for_then_fails_and_then_works(
    postgres_server: PostgresServer, postgres_schema: str
) -> None:
    provider = opened(postgres_server, postgres_schema, "lock_timeout=100ms")
    provider.send(make_batch(1, 3))
    with psycopg.connect(postgres_server.dsn) as other:
        other.execute(f"SELECT * FROM {postgres_schema}.mbframework_position FOR UPDATE")
        with pytest.raises(SendFailed, match="another transaction holds a lock") as failed:
            provider.send(make_batch(4, 3))
        assert not failed.value.uncertain
    provider.send(make_batch(4, 3))
    assert numbers(postgres_server, postgres_schema) == list(range(1, 7))
    provider.close(1)
