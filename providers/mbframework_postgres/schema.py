"""The tables, and the statements that the provider runs on them.

::

    messages                  one row a message (the option ``table`` names it)
        id                    rises within a lane in the order of delivery
        buffer, lane, sequence    who wrote it; unique together
        topic                 text
        key, value            bytea or NULL; NULL is None, empty is b""
        headers               NULL for none, else JSON: [["name", "base64 of the value" or null], …]
        timestamp             the caller's, nanoseconds since 1970, or NULL
        partition             the caller's, or NULL
        accepted              when write() took it, nanoseconds since 1970
    mbframework_position      buffer, lane → sequence, run: all below ``sequence`` is settled
    mbframework_meta          name → value: ``schema`` (this layout's number), ``id`` (random, of this schema)

The two others lie in the schema of the first. Pure functions and constants.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence

from mbframework.errors import ConfigurationError
from mbframework.message import Header

#: The number of this layout, in ``mbframework_meta``.
SCHEMA = 1

_WORD = r"[A-Za-z_][A-Za-z0-9_]{0,62}"
_TABLE = re.compile(rf"(?:({_WORD})\.)?((?!mbframework_){_WORD})", re.IGNORECASE)

#: The columns that are written, and their types, in the order of a row.
COLUMNS = {
    "buffer": "uuid",
    "lane": "text",
    "sequence": "int8",
    "topic": "text",
    "key": "bytea",
    "value": "bytea",
    "headers": "json",
    "timestamp": "int8",
    "partition": "int4",
    "accepted": "int8",
}
_NAMES = ", ".join(f'"{name}"' for name in COLUMNS)

#: One after the other, in a transaction; other tables are left alone. The lock is one of our own, since two that make
#: the same table at once fail.
CREATE = (
    "SELECT pg_advisory_xact_lock(7738137468)",
    """
    CREATE TABLE IF NOT EXISTS {table} (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        "buffer" uuid NOT NULL,
        "lane" text NOT NULL,
        "sequence" bigint NOT NULL,
        "topic" text NOT NULL,
        "key" bytea,
        "value" bytea,
        "headers" json,
        "timestamp" bigint,
        "partition" integer,
        "accepted" bigint NOT NULL,
        UNIQUE ("buffer", "lane", "sequence")
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS {position} (
        buffer uuid NOT NULL,
        lane text NOT NULL,
        sequence bigint NOT NULL,
        run bytea NOT NULL,
        PRIMARY KEY (buffer, lane)
    )
    """,
    "CREATE TABLE IF NOT EXISTS {meta} (name text PRIMARY KEY, value text NOT NULL)",
    f"""
    INSERT INTO {{meta}} VALUES ('schema', '{SCHEMA}'), ('id', replace(gen_random_uuid()::text, '-', ''))
    ON CONFLICT (name) DO NOTHING
    """,  # noqa: S608 - a constant, and a name that check_table() has seen
)
MISSING = "SELECT to_regclass(%s) IS NULL OR to_regclass(%s) IS NULL OR to_regclass(%s) IS NULL"
RECALL = "SELECT name, value FROM {meta}"
#: What the columns are; no row is read.
LOOK = f"SELECT {_NAMES} FROM {{table}} LIMIT 0"  # noqa: S608 - constants, and a name that check_table() has seen
COPY = f"COPY {{table}} ({_NAMES}) FROM STDIN (FORMAT binary)"

POSITION = "SELECT sequence, run FROM {position} WHERE buffer = %s AND lane = %s"
#: Both change one row where the position is the expected one, else none; they wait for whoever is changing it.
FIRST_POSITION = """
INSERT INTO {position} (sequence, run, buffer, lane) VALUES (%s, %s, %s, %s) ON CONFLICT (buffer, lane) DO NOTHING
"""
NEXT_POSITION = """
UPDATE {position} SET sequence = %s, run = %s WHERE buffer = %s AND lane = %s AND sequence = %s AND run = %s
"""


def names(table: str) -> dict[str, str]:
    """The quoted names of the tables, to be inserted into the statements."""
    match = _TABLE.fullmatch(table)
    assert match is not None  # check_table() has seen it
    schema = f'"{match[1]}".' if match[1] else ""
    return {
        "table": f'{schema}"{match[2]}"',
        "position": f"{schema}mbframework_position",
        "meta": f"{schema}mbframework_meta",
    }


def check_table(name: str) -> None:
    """Refuse a table name that is not made of plain words: it becomes part of statements.

    :raises ConfigurationError: what was expected.
    """
    if not _TABLE.fullmatch(name):
        raise ConfigurationError(
            f"table {name!r} is not a usable name; expected 'table' or 'schema.table', each of up to 63 letters, digits"
            " and '_', the first no digit, the table without 'mbframework_' in front",
            option="table",
        )


def encode_headers(headers: Sequence[Header]) -> list[list[str | None]]:
    """Headers for the column ``headers``, before they are JSON; order, duplicates and None survive."""
    return [[name, None if value is None else base64.b64encode(value).decode()] for name, value in headers]


def decode_headers(content: Sequence[Sequence[str | None]] | None) -> tuple[Header, ...]:
    """The reverse, of what psycopg makes of the column; for programs that read the table."""
    return tuple((str(name), None if value is None else base64.b64decode(value)) for name, value in content or ())
