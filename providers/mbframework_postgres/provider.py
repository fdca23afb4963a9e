"""The PostgreSQL provider.

Promises:

- Exactly once: a batch and the lane's position are stored in one transaction, which is made only where the position is
  the expected one, so that an attempt without an answer is never repeated.
- Ordering domain: the lane. The column ``id`` rises in the order of delivery within a lane.
- ``send()`` returns when the transaction is committed, as durably as ``synchronous_commit`` says.
- A message that the table refuses is found by halving the batch, and rejected alone; nothing of its batch stays.
- After a lost connection the next ``send()`` makes a new one, to the first of the hosts that is a primary.

Threads: the sender's. ``close()`` from another while ``send()`` runs makes it fail soon after, and it closes.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import repeat
from typing import Any

import psycopg

from mbframework.errors import MessageBufferError, ProviderUnusable, SendFailed
from mbframework.fence import Fence
from mbframework.message import NO_PARTITION, NO_TIMESTAMP, Batch, Position, unpack_headers
from mbframework.plugins.occupancy import Occupancy
from mbframework.plugins.tls import warn_unverified
from mbframework.provider import Context, Provider
from mbframework_postgres import PostgresOptions, schema
from mbframework_postgres.faults import first_hint, is_refusal, reason, translate, translate_connection
from mbframework_postgres.session import Session, check_parameters, connect, places

Row = tuple[object, ...]

#: A row has at most 1 GB on the wire, and headers grow by a third.
_LARGEST = 512 << 20
#: Refused messages that are looked for in one batch; the others are found when it is sent again.
_MOST_REFUSALS = 100


class PostgresProvider(Provider):
    """Delivers a lane to PostgreSQL; see the module.

    :raises ConfigurationError: libpq has no parameter of a name given as ``client.<name>``; nothing was connected.
    """

    max_message_bytes = _LARGEST

    position_tells = True

    def __init__(self, options: PostgresOptions) -> None:
        check_parameters(options)
        self._options = options
        self._statements = {
            name: getattr(schema, name).format(**schema.names(options.table))
            for name in ("RECALL", "LOOK", "COPY", "POSITION", "FIRST_POSITION", "NEXT_POSITION")
        }
        self._begin = (
            "BEGIN ISOLATION LEVEL READ COMMITTED;"
            f" SET LOCAL synchronous_commit = {options.synchronous_commit};"
            f" SET LOCAL lock_timeout = {round(options.lock_timeout * 1000)}"
        )
        self._context = Context(buffer_id="0" * 32, lane="", run=b"\0" * 16)
        self._session: Session | None = None
        self._place = ""
        self._fence = Fence()
        self._destination = ""
        self._facts: dict[str, str] = {}
        # Held while the session may be in use; whoever holds it may close the session.
        self._occupancy = Occupancy(self._drop, "postgres", "PostgreSQL")

    # -- opening and closing -------------------------------------------------------------------

    def open(self, context: Context) -> None:
        self._context = context
        self._occupancy.open()
        warn_unverified(self._options, "postgres", context.logger)
        with self._occupancy.held():
            self._drop()
            session = self._connected()
            with self._errors():
                self._fence.read(self._stored(session))

    def committed(self) -> Position | None:
        return self._fence.expected

    def destination(self) -> str:
        """The id that the schema of our tables was given."""
        return self._destination

    def describe(self) -> Mapping[str, str]:
        return self._facts

    def idle(self) -> None:
        """Notice that the connection has ended, and mend it."""
        with self._occupancy.held():
            if self._session is not None and self._session.lost():
                self._drop()
            self._connected()

    def close(self, timeout: float) -> None:
        self._occupancy.close(timeout)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """psycopg's errors as ours. A session after an error is one of unknown state, and is not used again."""
        try:
            yield
        except psycopg.Error as error:
            self._drop()
            raise translate(error, self._place) from error

    def _give_up(self) -> bool:
        return self._context.stopping.is_set() or self._occupancy.closed.is_set()

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _connected(self) -> Session:
        if self._session is not None:
            return self._session
        reasons = []
        blocked: ProviderUnusable | None = None
        for place in places(self._options):
            where = ":".join(place)
            try:
                self._session = connect(place, self._options, self._give_up)
            except (ConnectionError, psycopg.Error) as error:
                told = translate_connection(str(error), where)
                if isinstance(told, ProviderUnusable):
                    blocked = told
                reasons.append(str(told))
                continue
            self._place = where
            with self._errors():
                self._look_around(self._session)
            return self._session
        if blocked is not None:
            raise blocked
        text = "; ".join(reasons)
        raise SendFailed(
            f"PostgreSQL cannot be reached: {text}{'' if self._facts else first_hint(text)}", provider="postgres"
        )

    def _look_around(self, session: Session) -> None:
        """Make what is missing, and refuse what is not ours."""
        names = schema.names(self._options.table)
        (missing,) = _one(session, schema.MISSING, tuple(names.values()))
        if missing:
            session.execute(self._begin)
            for statement in schema.CREATE:
                session.execute(statement.format(**names))
            session.execute("COMMIT")
        facts = dict(session.execute(self._statements["RECALL"]).fetchall())
        if facts.get("schema") != str(schema.SCHEMA):
            raise ProviderUnusable(
                f"{self._place}: mbframework's tables have the layout {facts.get('schema')}, this release knows"
                f" {schema.SCHEMA}; use the release that made them, or another schema (table=schema.table)",
                provider="postgres",
            )
        self._check_table(session)
        self._destination = f"postgres:{facts['id']}"
        tls = ("on" if self._options.tls_verify else "on, not verified") if self._options.tls else "not asked for"
        self._facts = {
            "client": f"psycopg {psycopg.__version__} ({psycopg.pq.__impl__})",
            "server": session.info.parameter_status("server_version") or "unknown",
            "table": self._options.table,
            "synchronous_commit": self._options.synchronous_commit,
            "security": f"tls {tls}",
        }

    def _check_table(self, session: Session) -> None:
        """Refuse a table of that name that is not ours, before a message is there to be sent."""
        why = ""
        try:
            columns = session.execute(self._statements["LOOK"]).description or ()
        except psycopg.errors.UndefinedColumn as error:
            why = error.diag.message_primary or ""
        else:
            for column, (name, kind) in zip(columns, schema.COLUMNS.items(), strict=True):
                if column.type_code != psycopg.adapters.types[kind].oid:
                    why = f"column {name!r} is {column.type_display}, not {kind}"
        if why:
            raise ProviderUnusable(
                f"{self._place}: the table {self._options.table!r} is not one of mbframework's ({why}); name another"
                " with table=…, or rename it",
                provider="postgres",
            )

    def _stored(self, session: Session) -> Position | None:
        row = session.execute(self._statements["POSITION"], self._lane()).fetchone()
        return None if row is None else Position(row[0], bytes(row[1]))

    def _lane(self) -> tuple[uuid.UUID, str]:
        return uuid.UUID(self._context.buffer_id), self._context.lane

    # -- sending -------------------------------------------------------------------------------

    def send(self, batch: Batch) -> None:
        """Deliver the batch, as a whole or not at all.

        :raises SendFailed: ``rejected`` where the table refuses messages; ``uncertain`` where the answer did not come.
        :raises ProviderUnusable: a person must act, or somebody else delivers for this lane.
        """
        with self._occupancy.held():
            while (start := self._fence.start(batch.sequences)) < len(batch):
                session = self._connected()
                try:
                    found = self._store(session, batch, start)
                except psycopg.Error as error:
                    raise self._failed(session, batch, start, error) from error
                if found is not batch.position:
                    context = self._context
                    self._fence.meet(found, batch.sequences[start], context.logger, "postgres", context.went_back)

    def _store(self, session: Session, batch: Batch, start: int) -> Position | None:
        """One transaction. The batch's own position: it is stored; else the one found, and nothing was."""
        session.execute(self._begin)
        if not self._move(session, batch.position):
            found = self._stored(session)
            session.execute("ROLLBACK")
            return found
        self._copy(session, self._rows(batch)[start:])
        self._fence.attempt(batch.position)
        session.execute("COMMIT")
        self._fence.stored(batch.position)
        return batch.position

    def _move(self, session: Session, position: Position) -> bool:
        """Store the position in place of the expected one; False: another one is there."""
        expected = self._fence.expected
        if expected is None:
            cursor = session.execute(self._statements["FIRST_POSITION"], (*position, *self._lane()))
        else:
            cursor = session.execute(self._statements["NEXT_POSITION"], (*position, *self._lane(), *expected))
        return cursor.rowcount == 1

    def _copy(self, session: Session, rows: list[Row]) -> None:
        with session.cursor() as cursor, cursor.copy(self._statements["COPY"]) as copy:
            copy.set_types(list(schema.COLUMNS.values()))
            for row in rows:
                copy.write_row(row)

    def _rows(self, batch: Batch) -> list[Row]:
        buffer, lane = self._lane()
        return list(
            zip(
                repeat(buffer, len(batch)),
                repeat(lane),
                batch.sequences,
                batch.topics,
                batch.keys,
                batch.values,
                [schema.encode_headers(unpack_headers(block)) if block else None for block in batch.header_blocks],
                [None if time == NO_TIMESTAMP else time for time in batch.timestamps],
                [None if partition == NO_PARTITION else partition for partition in batch.partitions],
                batch.accepted,
                strict=False,
            )
        )

    def _failed(self, session: Session, batch: Batch, start: int, error: psycopg.Error) -> MessageBufferError:
        """What went wrong; where it is a message's fault, which ones."""
        if not is_refusal(error):
            self._drop()
            # Without a code the answer did not come, which matters once COMMIT was sent.
            uncertain = not error.sqlstate and self._fence.attempted(batch.position)
            return translate(error, self._place, uncertain=uncertain)
        with self._errors():
            session.execute("ROLLBACK")
            rejected = self._search(session, self._rows(batch), start)
        if not rejected:
            return SendFailed(
                f"{self._place}: {reason(error)}, but none of the messages is refused alone", provider="postgres"
            )
        return SendFailed(
            f"{self._place}: the table {self._options.table!r} refuses {len(rejected)} of {len(batch)} messages:"
            f" {next(iter(rejected.values()))}",
            rejected=rejected,
            provider="postgres",
        )

    def _search(self, session: Session, rows: list[Row], start: int) -> dict[int, str]:
        """Which rows the table refuses, and why. Nothing stays."""
        session.execute(self._begin)
        # A constraint may be checked at the end of the transaction only.
        session.execute("SET CONSTRAINTS ALL IMMEDIATE")
        rejected: dict[int, str] = {}
        ranges = [(start, len(rows))]
        while ranges and len(rejected) < _MOST_REFUSALS:
            first, last = ranges.pop()
            session.execute("SAVEPOINT search")
            try:
                self._copy(session, rows[first:last])
            except psycopg.Error as error:
                if not is_refusal(error):
                    raise
                session.execute("ROLLBACK TO search")
                if last - first == 1:
                    rejected[first] = reason(error)
                else:
                    middle = (first + last) // 2
                    # The first half comes next: what is refused for what stands before it must find it there.
                    ranges += [(middle, last), (first, middle)]
            session.execute("RELEASE search")
        session.execute("ROLLBACK")
        return rejected


def _one(session: Session, statement: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
    row = session.execute(statement, values).fetchone()
    assert row is not None
    return row
