"""The tables, and the statements that the provider runs on them.

::

    messages                  one row a message (the option ``table`` names it)
        id                    rises in the order of delivery
        buffer, lane, sequence    who wrote it; unique together
        topic                 text
        key, value            blob or NULL; NULL is None, an empty blob is b""
        headers               NULL for none, else JSON: [["name", "base64 of the value" or null], …]
        timestamp             the caller's, nanoseconds since 1970, or NULL
        partition             the caller's, or NULL
        accepted              when write() took it, nanoseconds since 1970
    mbframework_position      buffer_id, lane → sequence, run: all below ``sequence`` is settled
    mbframework_meta          name → value: ``schema`` (this layout's number), ``id`` (random, of this file)
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence

from mbframework.errors import ConfigurationError
from mbframework.message import NO_PARTITION, NO_TIMESTAMP, Header

#: The number of this layout, in ``mbframework_meta``.
SCHEMA = 1

_TABLE = re.compile(r"(?!(?:sqlite|mbframework)_)[A-Za-z_][A-Za-z0-9_]{0,62}", re.IGNORECASE)

#: The transaction that makes what is missing. Other tables of the database are left alone.
CREATE = """
CREATE TABLE IF NOT EXISTS "{table}" (
    id INTEGER PRIMARY KEY,
    buffer TEXT NOT NULL,
    lane TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    topic TEXT NOT NULL,
    key BLOB,
    value BLOB,
    headers TEXT,
    timestamp INTEGER,
    partition INTEGER,
    accepted INTEGER NOT NULL,
    UNIQUE (buffer, lane, sequence)
);
CREATE TABLE IF NOT EXISTS mbframework_position (
    buffer_id TEXT NOT NULL,
    lane TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    run BLOB NOT NULL,
    PRIMARY KEY (buffer_id, lane)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS mbframework_meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""

REMEMBER = "INSERT INTO mbframework_meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING"
RECALL = "SELECT value FROM mbframework_meta WHERE name = ?"

# Only the repeat of a sequence is passed over: "INSERT OR IGNORE" would also swallow rows that break any other
# constraint. What a column of numbers says for "none given" becomes NULL here, since SQLite does it faster.
INSERT = f"""
INSERT INTO "{{table}}" (buffer, lane, sequence, topic, key, value, headers, timestamp, partition, accepted)
VALUES (?, ?, ?, ?, ?, ?, ?, nullif(?, {NO_TIMESTAMP}), nullif(?, {NO_PARTITION}), ?)
ON CONFLICT (buffer, lane, sequence) DO NOTHING
"""  # noqa: S608 - the two inserted are constants, and the table's name is checked by check_table()

#: 1 where the message that holds this sequence is the same, 0 where it is another.
SAME = """
SELECT topic IS ? AND key IS ? AND value IS ? FROM "{table}" WHERE buffer = ? AND lane = ? AND sequence = ?
"""

# The repeat of a part of what is there moves nothing back.
STORE_POSITION = """
INSERT INTO mbframework_position (buffer_id, lane, sequence, run) VALUES (?, ?, ?, ?)
ON CONFLICT (buffer_id, lane) DO UPDATE SET sequence = excluded.sequence, run = excluded.run
WHERE excluded.sequence > sequence OR excluded.run <> run
"""
POSITION = "SELECT sequence, run FROM mbframework_position WHERE buffer_id = ? AND lane = ?"


def check_table(name: str) -> None:
    """Refuse a table name that is not a plain word: it becomes part of statements.

    :raises ConfigurationError: what was expected.
    """
    if not _TABLE.fullmatch(name):
        raise ConfigurationError(
            f"table {name!r} is not a usable name; expected up to 63 letters, digits and '_', the first no digit,"
            " and neither 'sqlite_' nor 'mbframework_' in front",
            option="table",
        )


def check_path(path: str) -> None:
    """Refuse what cannot be a database file.

    :raises ConfigurationError: what was expected.
    """
    if path == ":memory:":
        raise ConfigurationError(
            "a database in memory is gone with the program; give a file, or use 'fake://' in tests", option="path"
        )
    if not path or path.endswith("/") or "\0" in path:
        raise ConfigurationError(
            f"path {path!r} names no file; write 'sqlite:file.db' or 'sqlite:///folder/file.db'", option="path"
        )


def encode_headers(headers: Sequence[Header]) -> str:
    """Headers for the column ``headers``; order, duplicates and None survive."""
    return json.dumps(
        [[name, None if value is None else base64.b64encode(value).decode()] for name, value in headers],
        ensure_ascii=False,
    )


def decode_headers(text: str | None) -> tuple[Header, ...]:
    """What :func:`encode_headers` encoded; for programs that read the table."""
    if text is None:
        return ()
    return tuple((name, None if value is None else base64.b64decode(value)) for name, value in json.loads(text))
