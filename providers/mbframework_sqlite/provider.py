"""Messages into a SQLite database, each batch and its position in one transaction: exactly once.

A batch is there as a whole or not at all, and :meth:`SQLiteProvider.committed`
says up to where, so that neither a kill nor a retry repeats a message. A repeat
that comes all the same meets a unique index and is passed over; another message
under a sequence that is taken is refused aloud, since it means that a copied
buffer directory is in use.

Threads: the sender's thread opens and sends; ``close()`` may come from another
one, and never closes the connection under a statement that runs.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import repeat
from typing import Literal

from mbframework.errors import ProviderUnusable, SendFailed
from mbframework.message import Batch, Position, unpack_headers
from mbframework.provider import Context, Health, Provider
from mbframework_sqlite import schema

Row = tuple[object, ...]

#: Primary result codes after which trying again may help; all others need a person.
_RETRIED = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PROTOCOL,
    }
)
_ADVICE = {
    sqlite3.SQLITE_BUSY: "another program holds its write lock; keep transactions short, or raise busy_timeout",
    sqlite3.SQLITE_CANTOPEN: "create its folder, and let this user write there",
    sqlite3.SQLITE_CORRUPT: "move it away, or restore it",
    sqlite3.SQLITE_FULL: "make room on its device",
    sqlite3.SQLITE_NOTADB: "the file is something else; give another path",
    sqlite3.SQLITE_READONLY: "let this user write to the file and its folder",
}
_LONGEST_PAUSE_S = 0.05


class SQLiteProvider(Provider):
    """One lane's connection to a database file, which other lanes and programs may use as well.

    :param path: the file; a relative one counts from the working directory of this moment.
    :param busy_timeout: how long a batch waits for the write lock, in seconds.
    :raises ConfigurationError: a path or table name that cannot be used.
    """

    # "Do not open an SQLite database connection, then fork(2)": https://sqlite.org/howtocorrupt.html, 2.6.
    fork_safe = False
    position_tells = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        table: str = "messages",
        synchronous: Literal["extra", "full", "normal", "off"] = "full",
        busy_timeout: float = 5.0,
    ) -> None:
        schema.check_path(os.fspath(path))
        schema.check_table(table)
        self.path = os.path.abspath(path)
        self.table = table
        # Not "normal", which is usual with WAL: the lane's own seek may reach the device before SQLite's log does.
        # A power loss would then take back messages which the lane, its seek ahead, never sends again.
        self.synchronous = synchronous
        self.busy_timeout = busy_timeout
        self._insert = schema.INSERT.format(table=table)
        self._connection: sqlite3.Connection | None = None
        self._context = Context(buffer_id="", lane="", run=b"")
        self._file: tuple[int, int] | None = None
        self._destination = ""
        self._journal_mode = ""
        # Held while a statement may run; whoever holds it may close the connection.
        self._using = threading.Lock()
        self._closing = threading.Event()

    def __repr__(self) -> str:
        return f"<SQLiteProvider {self.path} table {self.table}>"

    def open(self, context: Context) -> None:
        self._context = context
        self._closing.clear()
        with self._using, self._errors():
            self._disconnect()
            try:
                self._connect()
            except BaseException:
                self._disconnect()
                raise

    def send(self, batch: Batch) -> None:
        if not batch:
            return
        with self._connected() as connection:
            self._check_file()
            rows = self._rows(batch)
            self._patiently(connection, "BEGIN IMMEDIATE")
            try:
                inserted = connection.executemany(self._insert, rows).rowcount
                if inserted != len(batch):
                    self._check_repeats(connection, batch)
                connection.execute(schema.STORE_POSITION, (*self._lane(), *batch.position))
                self._patiently(connection, "COMMIT")
            except sqlite3.IntegrityError as error:
                # A constraint or trigger that somebody added to the table refuses some of the messages.
                raise self._rejections(connection, batch, error) from error
            finally:
                _roll_back(connection)

    def committed(self) -> Position | None:
        with self._connected() as connection:
            row = connection.execute(schema.POSITION, self._lane()).fetchone()
        return None if row is None else Position(int(row[0]), bytes(row[1]))

    def destination(self) -> str:
        return self._destination

    def describe(self) -> Mapping[str, str]:
        return {
            "file": self.path,
            "table": self.table,
            "sqlite": sqlite3.sqlite_version,
            "journal_mode": self._journal_mode,
            "synchronous": self.synchronous,
        }

    def check(self) -> Health:
        if os.path.exists(self.path):
            return super().check()
        # Looking must not make the file.
        folder = os.path.dirname(self.path)
        if os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK):
            return Health(True, f"{self.path} does not exist yet; it can be made")
        return Health(False, f"{self.path} does not exist; create {folder}, and let this user write there")

    def close(self, timeout: float) -> None:
        self._closing.set()
        if not self._using.acquire(timeout=max(0.05, timeout)):
            # A statement runs on another thread. Closing now would pull the connection from under it: it is
            # told to end, and that thread closes as it leaves.
            connection = self._connection
            if connection is not None:
                connection.interrupt()
            return
        try:
            self._disconnect()
        finally:
            self._using.release()

    def _connect(self) -> None:
        """Open, make what is missing, and refuse what is not ours. The caller holds ``_using``."""
        # The waiting is ours, so that it ends when the buffer closes: SQLite's own cannot be interrupted.
        self._connection = connection = sqlite3.connect(
            self.path, timeout=0, isolation_level=None, check_same_thread=False
        )
        (self._journal_mode,) = self._patiently(connection, "PRAGMA journal_mode = WAL").fetchone()
        connection.execute(f"PRAGMA synchronous = {self.synchronous}")
        self._patiently(connection, "BEGIN IMMEDIATE")
        try:
            for statement in schema.CREATE.format(table=self.table).split(";\n"):
                connection.execute(statement)
            connection.execute(schema.REMEMBER, ("schema", str(schema.SCHEMA)))
            connection.execute(schema.REMEMBER, ("id", secrets.token_hex(16)))
            (found,) = connection.execute(schema.RECALL, ("schema",)).fetchone()
            if found != str(schema.SCHEMA):
                raise ProviderUnusable(
                    f"{self.path} has the layout {found} of mbframework's tables, this release knows {schema.SCHEMA};"
                    " use the release that made it, or another file",
                    provider="sqlite",
                )
            (identity,) = connection.execute(schema.RECALL, ("id",)).fetchone()
            self._check_table(connection)
            self._patiently(connection, "COMMIT")
        finally:
            _roll_back(connection)
        self._destination = f"sqlite:{identity}"
        # Headers grow by a third in their column; the other limits of SQLite are out of reach.
        self.max_message_bytes = connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH) // 2
        self._file = _identity(self.path)

    def _check_table(self, connection: sqlite3.Connection) -> None:
        """Refuse a table of that name that is not ours, before a message is there to be sent."""
        try:
            connection.execute(f"EXPLAIN {self._insert}", (None,) * 10)
        except sqlite3.OperationalError as error:
            raise ProviderUnusable(
                f"the table {self.table!r} in {self.path} is not one of mbframework's ({error});"
                " name another with table=…, or rename it",
                provider="sqlite",
            ) from error

    def _check_file(self) -> None:
        """What goes into a database that was deleted or replaced under its program is lost to everybody."""
        if _identity(self.path) != self._file:
            raise ProviderUnusable(
                f"{self.path} was moved, deleted or replaced while it was open; put it back, or restart the buffer",
                provider="sqlite",
            )

    def _rows(self, batch: Batch) -> Iterator[Row]:
        headers = [None if not block else schema.encode_headers(unpack_headers(block)) for block in batch.header_blocks]
        buffer_id, lane = self._lane()
        return zip(
            repeat(buffer_id),
            repeat(lane),
            batch.sequences,
            batch.topics,
            batch.keys,
            batch.values,
            headers,
            batch.timestamps,
            batch.partitions,
            batch.accepted,
            strict=False,
        )

    def _check_repeats(self, connection: sqlite3.Connection, batch: Batch) -> None:
        """Some sequences were there already: by the same messages, or must the lane stop?"""
        same = schema.SAME.format(table=self.table)
        for message in batch:
            row = connection.execute(
                same, (message.topic, message.key, message.value, *self._lane(), message.sequence)
            ).fetchone()
            if row == (0,):
                raise ProviderUnusable(
                    f"another message with sequence {message.sequence} of this buffer's lane is in {self.path} already:"
                    " the buffer's directory seems to be an older copy; give the copy a new identity",
                    provider="sqlite",
                )

    def _rejections(self, connection: sqlite3.Connection, batch: Batch, error: sqlite3.IntegrityError) -> SendFailed:
        """Which messages the table refuses. Nothing stays: their place in the position would let a kill lose them."""
        rejected: dict[int, str] = {}
        _roll_back(connection)
        for index, row in enumerate(self._rows(batch)):
            if not connection.in_transaction:  # at first, and after a trigger's RAISE(ROLLBACK)
                self._patiently(connection, "BEGIN IMMEDIATE")
            try:
                connection.execute(self._insert, row)
            except sqlite3.IntegrityError as refusal:
                rejected[index] = f"refused by table {self.table!r}: {refusal}"
        return SendFailed(
            f"the table {self.table!r} in {self.path} refuses {len(rejected)} of {len(batch)} messages: {error}",
            rejected=rejected,
            provider="sqlite",
        )

    def _patiently(self, connection: sqlite3.Connection, statement: str) -> sqlite3.Cursor:
        """Run a statement that may find the database locked; wait up to ``busy_timeout``, or until the buffer stops."""
        give_up = time.monotonic() + self.busy_timeout
        pause = 0.001
        while True:
            try:
                return connection.execute(statement)
            except sqlite3.OperationalError as error:
                left = give_up - time.monotonic()
                if _primary_code(error) != sqlite3.SQLITE_BUSY or left <= 0 or self._closing.is_set():
                    raise
                if self._context.stopping.wait(min(pause, left)):
                    raise
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _lane(self) -> tuple[str, str]:
        return self._context.buffer_id, self._context.lane

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with self._using:
            try:
                if self._connection is None or self._closing.is_set():
                    raise SendFailed(f"{self.path} is not open; call open() first", provider="sqlite")
                with self._errors():
                    yield self._connection
            finally:
                if self._closing.is_set():
                    self._disconnect()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """SQLite's errors as ours, with the next step."""
        try:
            yield
        except sqlite3.Error as error:
            code = _primary_code(error)
            advice = _ADVICE.get(code, "see https://sqlite.org/rescode.html")
            kind = SendFailed if code in _RETRIED else ProviderUnusable
            raise kind(f"{self.path}: {error}; {advice}", provider="sqlite") from error

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _primary_code(error: sqlite3.Error) -> int:
    # Errors of the module itself, as "cannot operate on a closed database", have no code.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE) & 0xFF


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
