"""Stores of ``mb bench providers``: databases, an HTTP endpoint, files; and their bare clients, used as their
documentation recommends for bulk.

Client libraries are imported by what uses them.
"""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from mbframework.bench.contender import BATCH, MANY, TOPIC, Contender
from mbframework.testing.http import HttpServer
from mbframework.testing.postgres import PostgresServer

# -- PostgreSQL --------------------------------------------------------------------------------------------------------


def _table(server: PostgresServer, place: str) -> Any:
    """A connection, and a table as the provider makes it."""
    import psycopg
    from mbframework_postgres import schema

    connection = psycopg.connect(server.dsn)
    connection.execute(schema.CREATE[1].format(table=place))
    connection.commit()
    return connection


def _rows(values: Sequence[bytes]) -> list[tuple[object, ...]]:
    buffer, now = uuid.uuid4(), time.time_ns()
    return [
        (buffer, "main", number, TOPIC, None, value, None, None, None, now) for number, value in enumerate(values, 1)
    ]


def _copy(server: PostgresServer, place: str, values: Sequence[bytes]) -> float:
    from mbframework_postgres import schema

    rows = _rows(values)
    with closing(_table(server, place)) as connection:
        begun = time.perf_counter()
        for first in range(0, len(rows), BATCH):
            with connection.cursor() as cursor, cursor.copy(schema.COPY.format(table=place)) as copy:
                copy.set_types(list(schema.COLUMNS.values()))
                for row in rows[first : first + BATCH]:
                    copy.write_row(row)
            connection.commit()
        return time.perf_counter() - begun


def _executemany(server: PostgresServer, place: str, values: Sequence[bytes]) -> float:
    rows = _rows(values)
    with closing(_table(server, place)) as connection:
        columns = "buffer, lane, sequence, topic, key, value, headers, timestamp, partition, accepted"
        statement = f"INSERT INTO {place} ({columns}) VALUES ({', '.join(['%s'] * 10)})"
        begun = time.perf_counter()
        for first in range(0, len(rows), BATCH):
            with connection.cursor() as cursor:
                cursor.executemany(statement, rows[first : first + BATCH])
            connection.commit()
        return time.perf_counter() - begun


def _count(server: PostgresServer, place: str) -> int:
    import psycopg

    with psycopg.connect(server.dsn) as connection:
        row = connection.execute(f"SELECT count(*) FROM {place}").fetchone()
        assert row is not None
        return int(row[0])


# -- HTTP --------------------------------------------------------------------------------------------------------------


def _ndjson(server: HttpServer, place: str, values: Sequence[bytes]) -> float:
    import httpx

    with httpx.Client(timeout=30) as client:
        begun = time.perf_counter()
        for first in range(0, len(values), MANY):
            lines = [json.dumps({"topic": TOPIC, "value": value.decode()}) for value in values[first : first + MANY]]
            answer = client.post(
                f"http://127.0.0.1:{server.port}/{place}",
                content="\n".join(lines),
                headers={"Content-Type": "application/x-ndjson"},
            )
            answer.raise_for_status()
        return time.perf_counter() - begun


def _posted(server: HttpServer, place: str) -> int:
    """The lines that were posted; what was counted is thrown away."""
    found = sum(request.body.strip().count(b"\n") + 1 for request in server.stored() if request.target == f"/{place}")
    server.forget()
    return found


# -- SQLite ------------------------------------------------------------------------------------------------------------


def _sqlite_executemany(folder: str, place: str, values: Sequence[bytes]) -> float:
    from mbframework_sqlite import schema

    with closing(sqlite3.connect(f"{folder}/{place}", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = full")
        connection.executescript(schema.CREATE.format(table="messages"))
        insert = schema.INSERT.format(table="messages")
        rows = [("b", "main", n, TOPIC, None, value, None, 0, 0, 0) for n, value in enumerate(values, 1)]
        begun = time.perf_counter()
        for first in range(0, len(rows), BATCH):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(insert, rows[first : first + BATCH])
            connection.execute("COMMIT")
        return time.perf_counter() - begun


def _sqlite_count(folder: str, place: str) -> int:
    with closing(sqlite3.connect(f"{folder}/{place}")) as connection:
        return int(connection.execute("SELECT count(*) FROM messages").fetchone()[0])


# -- a file ------------------------------------------------------------------------------------------------------------


def _json_lines(folder: str, place: str, values: Sequence[bytes]) -> float:
    lines = [{"topic": TOPIC, "value": value.decode()} for value in values]
    with open(f"{folder}/{place}", "ab", buffering=0) as file:
        begun = time.perf_counter()
        for first in range(0, len(lines), BATCH):
            file.write("".join(json.dumps(line) + "\n" for line in lines[first : first + BATCH]).encode())
            os.fsync(file.fileno())
        return time.perf_counter() - begun


def _lines(folder: str, place: str) -> int:
    with open(f"{folder}/{place}", "rb") as file:
        return sum(1 for _ in file)


CONTENDERS = (
    Contender(
        "postgres",
        PostgresServer.available,
        PostgresServer,
        lambda server, place: f"{server.url}?table={place}",
        _count,
        {
            "psycopg copy(), 10,000 rows a transaction": _copy,
            "psycopg executemany(), 10,000 rows a transaction": _executemany,
        },
    ),
    Contender(
        "http",
        HttpServer.available,
        HttpServer,
        lambda server, place: f"http://127.0.0.1:{server.port}/{place}?mb.body=ndjson",
        _posted,
        {"httpx, 1,000 lines of JSON a request": _ndjson},
    ),
    Contender(
        "sqlite",
        lambda: None,
        tempfile.TemporaryDirectory,
        lambda folder, place: f"sqlite://{folder}/{place}",
        _sqlite_count,
        {"sqlite3 executemany(), 10,000 rows a transaction": _sqlite_executemany},
    ),
    Contender(
        "file",
        lambda: None,
        tempfile.TemporaryDirectory,
        lambda folder, place: f"file://{folder}/{place}",
        _lines,
        {"json.dumps(), 10,000 lines a write and an fsync": _json_lines},
    ),
)
