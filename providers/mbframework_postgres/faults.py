"""PostgreSQL's errors as ours: tried again, for a person, or the fault of a message? Pure functions.

SQLSTATE codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

import psycopg

from mbframework.errors import ProviderUnusable, SendFailed
from mbframework_postgres.schema import COLUMNS

#: Tried again, by class or by code, and what helps in the end.
_RETRIED = {
    "08": "",
    "25006": "it takes no writes: a standby, or read only; give the primary, or several hosts",
    "40": "",
    "42P01": "a table was dropped; it is made again with the next connection",
    "53": "PostgreSQL lacks a resource; see its log",
    "53100": "make room on its device",
    "53300": "too many connections; raise max_connections, or open fewer",
    "55P03": "another transaction holds a lock; keep transactions short, or raise lock_timeout",
    "57": "",
    "58": "its operating system reports an error; see its log",
    "XX": "an internal error; see its log",
}
_ADVICE = {
    "28": "check role, password and pg_hba.conf",
    "3D": "create the database, or name another",
    "3F": "create the schema, or name another with table=schema.table",
    "42501": "grant INSERT and SELECT on the table, and SELECT, INSERT and UPDATE on mbframework_position",
    "22P03": "the table's columns are not those that the documentation names",
    "22P04": "the table's columns are not those that the documentation names",
    "23502": "a column that was added to the table needs a default",
    "23505": "another message with a sequence of this buffer's lane is in the table already: the buffer's directory"
    " seems to be an older copy; give the copy a new identity",
}
#: Classes of what is wrong with one row: its data, a constraint, a check of a view, a limit, a trigger's RAISE.
_REFUSALS = ("22", "23", "44", "54", "P0")

#: What a failed connection says that only a person can change; PostgreSQL sends no code that libpq would pass on.
_CONNECTION_BLOCKED = {
    "authentication failed": "check role and password",
    "no password supplied": "give a password",
    "no pg_hba.conf entry": "allow this host and role in pg_hba.conf; does it ask for TLS (tls=true)?",
    "certificate": "check tls_ca, tls_cert, tls_key and the host name",
    "private key": "check tls_key and tls_key_password",
    "does not support SSL": "leave tls out, or turn it on in the server",
    "does not exist": "create it, or name another",
    "permission denied for database": "grant CONNECT to the role",
    "not permitted to log in": "grant LOGIN to the role",
    "invalid connection option": "see client.<name>",
    "invalid value": "see client.<name>",
}


def is_refusal(error: psycopg.Error) -> bool:
    """Whether the error is the fault of a row, and not of the table or the server."""
    code = error.sqlstate or ""
    if code in ("22P03", "22P04"):
        return False
    if code == "23502":
        return error.diag.column_name in COLUMNS
    if code == "23505":
        return not _is_sequence(error)
    return code.startswith(_REFUSALS)


def _is_sequence(error: psycopg.Error) -> bool:
    return "(buffer, lane, sequence)" in (error.diag.message_detail or "").replace('"', "")


def translate(error: psycopg.Error, where: str, *, uncertain: bool = False) -> SendFailed | ProviderUnusable:
    """An error of psycopg with the next step."""
    code = error.sqlstate or ""
    said = f"{where}: {_text(error)}"
    if not code:
        # The connection has ended, or never was.
        if isinstance(error, psycopg.OperationalError):
            return SendFailed(said, uncertain=uncertain, provider="postgres")
        return ProviderUnusable(f"{said}; psycopg refuses it", provider="postgres")
    for key in (code, code[:2]):
        if key in _RETRIED:
            advice = _RETRIED[key]
            return SendFailed(said + (f"; {advice}" if advice else ""), uncertain=uncertain, provider="postgres")
    advice = _ADVICE.get(code) or _ADVICE.get(code[:2]) or f"SQLSTATE {code}, see PostgreSQL's list of error codes"
    return ProviderUnusable(f"{said}; {advice}", provider="postgres")


def translate_connection(said: str, where: str) -> SendFailed | ProviderUnusable:
    """What a failed connection said."""
    text = " ".join(said.split())
    for words, advice in _CONNECTION_BLOCKED.items():
        # A unix socket that is not there yet "does not exist" either, and comes when the server does.
        if words in text and "No such file" not in text:
            return ProviderUnusable(f"{where}: {text}; {advice}", provider="postgres")
    return SendFailed(f"{where}: {text}", provider="postgres")


def first_hint(said: str) -> str:
    """The next step where a server was reached and hung up, or answered something else, when it was asked for TLS."""
    if "closed the connection unexpectedly" in said or "invalid response to SSL negotiation" in said:
        return (
            " (is it PostgreSQL that listens there? where it, or what stands before it, expects TLS from the first byte"
            " on, add tls=true and client.sslnegotiation=direct)"
        )
    return ""


def reason(error: psycopg.Error) -> str:
    """Why a row was refused, for its dead letter: without the row's data."""
    return f"refused by PostgreSQL: {error.diag.message_primary or _text(error)} ({error.sqlstate})"


def _text(error: psycopg.Error) -> str:
    # The whole error quotes the row, which may be secret and is long.
    return " ".join((error.diag.message_primary or str(error)).split())
