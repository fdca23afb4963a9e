"""The provider ``postgres`` on a real server: what becomes of a message, tables, rights, and what is refused how."""

from __future__ import annotations

import itertools
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psycopg
import pytest
from hypothesis import given
from mbframework_postgres.faults import is_refusal, translate
from mbframework_postgres.schema import decode_headers

from mbframework.errors import ProviderUnusable, SendFailed
from mbframework.message import Message, Position
from mbframework.testing.http import HttpServer
from mbframework.testing.postgres import PostgresServer
from tests.examples import examples
from tests.providers.batches import RUN, any_messages, batch_of, make_batch
from tests.providers.certificates import Certificates, make_certificates
from tests.providers.made import New, why_refused
from tests.providers.provider_pages import documented_examples

Execute = Callable[..., list[tuple[object, ...]]]
ONE = Message(1, "orders", b"value", b"key", (), None, None, 1_700_000_000_000_000_000)


@pytest.fixture
def url(postgres_server: PostgresServer, postgres_schema: str) -> str:
    """Of a table of this test's own."""
    return f"{postgres_server.url}?table={postgres_schema}.messages"


@pytest.fixture
def execute(postgres_server: PostgresServer, postgres_schema: str) -> Iterator[Execute]:
    """Runs a statement in this test's schema."""
    with psycopg.connect(postgres_server.dsn, autocommit=True) as connection:
        connection.execute(f"SET search_path TO {postgres_schema}")

        def run(statement: str, values: Sequence[object] | None = None) -> list[tuple[object, ...]]:
            cursor = connection.execute(statement, values)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

        yield run


def stored(execute: Execute, table: str = "messages") -> list[Message]:
    columns = "sequence, topic, value, key, headers, timestamp, partition, accepted"
    return [
        Message(*row[:4], decode_headers(row[4]), *row[5:])  # type: ignore[arg-type]
        for row in execute(f"SELECT {columns} FROM {table} ORDER BY id")
    ]


def test_any_message_comes_back_as_it_was(
    postgres_server: PostgresServer, url: str, new: New, execute: Execute
) -> None:
    """But for a topic with a NUL, which PostgreSQL has no text for: it is rejected, and the others arrive."""
    numbers = itertools.count()

    @examples(60)
    @given(any_messages)
    def check(messages: list[Message]) -> None:
        table = f"t{next(numbers)}"
        provider = new(url.replace("messages", table), table)
        impossible = [index for index, message in enumerate(messages) if "\0" in message.topic]
        kept = [message for message in messages if "\0" not in message.topic]
        if impossible:
            with pytest.raises(SendFailed) as failed:
                provider.send(batch_of(messages))
            assert sorted(failed.value.rejected) == impossible
        if kept:
            provider.send(batch_of(kept))
        assert stored(execute, table) == kept
        provider.close(1)

    check()


def test_lanes_keep_positions_of_their_own(url: str, new: New) -> None:
    one, two = new(url, "one"), new(url, "two")
    one.send(make_batch(1, 3))
    two.send(make_batch(1, 5))
    assert (one.committed(), two.committed()) == (Position(4, RUN), Position(6, RUN))
    assert new(url, "one").committed() == Position(4, RUN)
    assert new(url, "three").committed() is None
    assert one.destination() == two.destination()


def test_lanes_that_open_and_write_at_once(url: str, new: New, execute: Execute) -> None:
    failures: list[Exception] = []

    def work(lane: str) -> None:
        try:
            provider = new(url, lane)
            for first in range(1, 1_000, 100):
                provider.send(make_batch(first, 100))
        except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
            failures.append(error)

    threads = [threading.Thread(target=work, args=(f"lane-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    rows = execute("SELECT lane, array_agg(sequence ORDER BY id) FROM messages GROUP BY lane")
    assert [sequences for _, sequences in rows] == [list(range(1, 1_001))] * 4


@pytest.mark.parametrize(
    "refusing",
    [
        "ALTER TABLE messages ADD CHECK (sequence % 40 <> 0)",
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN IF new.sequence % 40 = 0 THEN RAISE EXCEPTION 'by forty'; END IF; RETURN new; END $$;
        CREATE CONSTRAINT TRIGGER late AFTER INSERT ON messages DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION refuse()
        """,
    ],
    ids=["check", "at the end of the transaction"],
)
def test_refused_messages_are_found_and_nothing_of_their_batch_stays(
    url: str, new: New, execute: Execute, refusing: str
) -> None:
    provider = new(url)
    execute(refusing)
    batch = make_batch(1, 100)
    with pytest.raises(SendFailed, match="refuses 2 of 100 messages") as failed:
        provider.send(batch)
    assert sorted(failed.value.rejected) == [39, 79]
    assert failed.value.undelivered is None
    assert not failed.value.uncertain
    assert stored(execute) == []
    assert provider.committed() is None
    provider.send(batch_of([message for message in batch if message.sequence % 40]))
    assert [message.sequence for message in stored(execute)] == [n for n in range(1, 101) if n % 40]


def test_of_messages_that_exclude_each_other_the_first_is_kept(url: str, new: New, execute: Execute) -> None:
    provider = new(url)
    execute("ALTER TABLE messages ADD UNIQUE (key)")
    keys = [b"a", b"b", b"a", b"c", b"b", b"d"]
    messages = [ONE._replace(sequence=n, key=key) for n, key in enumerate(keys, 1)]
    with pytest.raises(SendFailed) as failed:
        provider.send(batch_of(messages))
    assert sorted(failed.value.rejected) == [2, 4]
    assert "duplicate key value" in failed.value.rejected[2]


def test_a_fault_of_the_table_rejects_nothing(url: str, new: New, execute: Execute) -> None:
    provider = new(url)
    execute("ALTER TABLE messages ADD COLUMN tenant text NOT NULL")
    with pytest.raises(ProviderUnusable, match='null value in column "tenant".*needs a default'):
        provider.send(make_batch(1, 10))
    execute("ALTER TABLE messages ALTER COLUMN tenant SET DEFAULT 'us'")
    provider.send(make_batch(1, 10))
    assert len(stored(execute)) == 10


def test_a_copied_directory_is_refused_aloud(url: str, new: New, execute: Execute) -> None:
    """The position is gone, and the table has other messages with the same sequences."""
    new(url).send(make_batch(1, 10))
    execute("DELETE FROM mbframework_position")
    with pytest.raises(ProviderUnusable, match="older copy; give the copy a new identity"):
        new(url).send(make_batch(5, 10))
    assert len(stored(execute)) == 10


def test_rows_that_a_consumer_deletes_do_not_come_again(url: str, new: New, execute: Execute) -> None:
    provider = new(url)
    provider.send(make_batch(1, 10))
    execute("DELETE FROM messages")
    assert new(url).committed() == Position(11, RUN)
    provider.send(make_batch(11, 1))
    assert [message.sequence for message in stored(execute)] == [11]


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("CREATE TABLE messages (id int, body text)", 'column "buffer" does not exist'),
        (
            """
            CREATE TABLE messages (buffer uuid, lane text, sequence int8, topic text, key text, value bytea,
                headers json, timestamp int8, partition int4, accepted int8)
            """,
            "column 'key' is text, not bytea",
        ),
    ],
)
def test_a_table_that_is_not_ours_is_refused(url: str, new: New, execute: Execute, statement: str, words: str) -> None:
    execute(statement)
    with pytest.raises(ProviderUnusable, match=f"{words}.*name another with table="):
        new(url)
    new(url.replace("messages", "outgoing")).send(make_batch(1, 2))
    assert len(stored(execute, "outgoing")) == 2


def test_another_layout_is_refused(url: str, new: New, execute: Execute) -> None:
    new(url)
    execute("UPDATE mbframework_meta SET value = '99' WHERE name = 'schema'")
    with pytest.raises(ProviderUnusable, match="layout 99"):
        new(url)


def test_what_only_a_person_can_change_blocks(
    postgres_server: PostgresServer, postgres_schema: str, url: str, new: New, execute: Execute
) -> None:
    role = f"w_{postgres_schema}"
    place = f"127.0.0.1:{postgres_server.port}"
    theirs = url.replace("mb@", f"{role}@")
    with pytest.raises(ProviderUnusable, match='role ".*" does not exist; create it'):
        new(theirs)
    with pytest.raises(ProviderUnusable, match='database "missing" does not exist'):
        new(f"postgres://mb@{place}/missing")
    with pytest.raises(ProviderUnusable, match="schema .*nowhere.* does not exist; create the schema"):
        new(f"postgres://mb@{place}/postgres?table=nowhere.messages")
    execute(f"CREATE ROLE {role} LOGIN")
    with pytest.raises(ProviderUnusable, match="permission denied for schema"):
        new(theirs)
    new(url)
    execute(f"GRANT USAGE ON SCHEMA {postgres_schema} TO {role}")
    # The rights that the documentation names.
    execute(f"GRANT SELECT, INSERT ON messages TO {role}")
    execute(f"GRANT SELECT ON mbframework_meta TO {role}")
    with pytest.raises(ProviderUnusable, match="permission denied for table mbframework_position; grant"):
        new(theirs)
    execute(f"GRANT SELECT, INSERT, UPDATE ON mbframework_position TO {role}")
    provider = new(theirs)
    provider.send(make_batch(1, 10))
    execute(f"REVOKE INSERT ON messages FROM {role}")
    with pytest.raises(ProviderUnusable, match="permission denied for table messages; grant INSERT"):
        provider.send(make_batch(11, 10))
    execute(f"GRANT INSERT ON messages TO {role}")
    provider.send(make_batch(11, 10))
    assert len(stored(execute)) == 20


def test_a_database_that_takes_no_writes_is_tried_again(
    postgres_server: PostgresServer, url: str, new: New, execute: Execute
) -> None:
    new(url)
    provider = new(url + "&client.options=-c%20default_transaction_read_only%3Don")
    with pytest.raises(SendFailed, match="it takes no writes: a standby"):
        provider.send(make_batch(1, 1))
    # Where there is a choice it is passed over.
    several = url.replace(f":{postgres_server.port}/", f":{postgres_server.port},127.0.0.1:{postgres_server.port}/")
    with pytest.raises(SendFailed, match="session is read-only"):
        new(several + "&client.options=-c%20default_transaction_read_only%3Don")
    new(several).send(make_batch(1, 1))
    assert len(stored(execute)) == 1


class Told(psycopg.Error):
    """An error with a code of our choice; PostgreSQL's own are hard to provoke."""

    def __init__(self, code: str) -> None:
        super().__init__(f"code {code}")
        self.sqlstate = code


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("40001", SendFailed, ""),
        ("40P01", SendFailed, ""),
        ("53100", SendFailed, "make room on its device"),
        ("53300", SendFailed, "too many connections"),
        ("57P01", SendFailed, ""),
        ("58030", SendFailed, "see its log"),
        ("XX000", SendFailed, "see its log"),
        ("28P01", ProviderUnusable, "pg_hba.conf"),
        ("3D000", ProviderUnusable, "create the database"),
        ("22P04", ProviderUnusable, "columns"),
        ("0A000", ProviderUnusable, "SQLSTATE 0A000"),
    ],
)
def test_errors_that_are_hard_to_provoke(code: str, kind: type[Exception], words: str) -> None:
    told = translate(Told(code), "host:5432")
    assert type(told) is kind
    assert words in str(told)
    assert not is_refusal(Told(code))


def test_who_does_not_answer_as_postgres(new: New, promised: Callable[[float], float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(SendFailed, match="no answer within connect_timeout"):
            new(f"postgres://127.0.0.1:{port}/db?connect_timeout=300ms")
        assert time.monotonic() - began < promised(2)
    with pytest.raises(SendFailed, match=f"127.0.0.1.*{port}.*refused"):
        new(f"postgres://127.0.0.1:{port}/db")


def test_a_unix_socket(postgres_server: PostgresServer, postgres_schema: str, new: New, execute: Execute) -> None:
    place = f"socket={postgres_server.data}&client.port={postgres_server.port}"
    new(f"postgres://mb@/postgres?{place}&table={postgres_schema}.messages").send(make_batch(1, 3))
    assert len(stored(execute)) == 3


# ---- TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def postgres_tls(postgres_server: PostgresServer, certificates: Certificates) -> Iterator[PostgresServer]:
    """A PostgreSQL that takes connections with TLS and a password only; with a certificate, the role ``cert`` too."""

    class Secured(PostgresServer):
        def prepare(self) -> None:
            super().prepare()
            for name, file in (("server.crt", certificates.server), ("server.key", certificates.server_key)):
                self._own(name, file.read_text())
            self._own("root.crt", certificates.authority.read_text())
            self._own(
                "pg_hba.conf",
                "local all mb trust\n"
                "hostssl all mb 127.0.0.1/32 trust clientcert=verify-full\n"
                "hostssl all asked 127.0.0.1/32 scram-sha-256\n",
            )

        def _own(self, name: str, text: str) -> None:
            path = self.data / "db" / name
            path.write_text(text)
            path.chmod(0o600)
            if self.user is not None:
                import os

                os.chown(path, *self.user)

    settings = {"ssl": "on", "ssl_ca_file": "'root.crt'"}
    with Secured(settings) as server:
        with psycopg.connect(
            f"host={server.data} port={server.port} user=mb dbname=postgres", autocommit=True
        ) as admin:
            admin.execute("CREATE ROLE asked LOGIN PASSWORD 'pass:w/rd'")
            admin.execute("GRANT ALL ON SCHEMA public TO asked")
        yield server


def test_tls_checks_both_sides(
    postgres_tls: PostgresServer, certificates: Certificates, new: New, caplog: pytest.LogCaptureFixture
) -> None:
    place = f"127.0.0.1:{postgres_tls.port}/postgres"
    asked = f"postgres://asked:pass%3Aw%2Frd@{place}"
    provider = new(f"{asked}?tls=true&tls_ca={certificates.authority}")
    provider.send(make_batch(1, 3000, size=100))
    assert provider.describe()["security"] == "tls on"
    with pytest.raises(ProviderUnusable, match="certificate verify failed; check tls_ca"):
        new(f"{asked}?tls=true&tls_ca={certificates.stranger}")
    with pytest.raises(ProviderUnusable, match="password authentication failed.*; check role and password") as refused:
        new(f"postgres://asked:wrong-one@{place}?tls=true&tls_ca={certificates.authority}")
    assert "wrong-one" not in str(refused.value)
    with pytest.raises(ProviderUnusable, match="no password supplied; give a password"):
        new(f"postgres://asked@{place}?tls=true&tls_ca={certificates.authority}")
    with pytest.raises(ProviderUnusable, match="does it ask for TLS"):
        new(f"{asked}?client.sslmode=disable")
    with pytest.raises(ProviderUnusable, match="certificate"):
        new(f"postgres://mb@{place}?tls=true&tls_ca={certificates.authority}&table=other")
    ours = f"tls_cert={certificates.client}&tls_key={certificates.client_key}"
    new(f"postgres://mb@{place}?tls=true&tls_ca={certificates.authority}&{ours}&table=other")
    caplog.set_level(logging.WARNING)
    assert new(f"{asked}?tls=true&tls_verify=false").describe()["security"] == "tls on, not verified"
    assert "certificate is not checked" in caplog.text


def test_a_port_that_begins_with_tls(certificates: Certificates, new: New) -> None:
    pair = (str(certificates.server), str(certificates.server_key))
    with HttpServer(certificate=pair) as server, pytest.raises(SendFailed, match="client.sslnegotiation=direct"):
        new(f"postgres://mb@127.0.0.1:{server.port}/postgres")


def test_a_server_without_tls_is_no_server_with_tls(postgres_server: PostgresServer, new: New) -> None:
    with pytest.raises(ProviderUnusable, match="does not support SSL.*; leave tls out"):
        new(f"{postgres_server.url}?tls=true&tls_verify=false")


# ---- options


@pytest.mark.parametrize(
    ("url", "option"),
    [
        ("postgres:", "hosts"),
        ("postgres:///db", "hosts"),
        ("postgres://h/db/more", "database"),
        ("postgres://h/db?socket=/run/postgresql", "socket"),
        ("postgres:///db?socket=run", "socket"),
        ("postgres://h/db?tls_ca=/x", "tls_ca"),
        ("postgres://h/db?tls=true&tls_cert=/x", "tls_key"),
        ("postgres://h/db?timeout=0", "timeout"),
        ("postgres://h/db?synchronous_commit=off", "synchronous_commit"),
        ("postgres://h/db?table=a.b.c", "table"),
        ("postgres://h/db?table=a%22%3B%20DROP%20TABLE%20x", "table"),
        ("postgres://h/db?table=mbframework_position", "table"),
        ("postgres://h/db?table=1st", "table"),
        ("postgres://h/db?client.speed=high", "client.speed"),
        ("postgres://h/db?client.sslrootcert=/x", "client.sslrootcert"),
        (f"postgres://h/db?table={'a' * 64}", "table"),
    ],
)
def test_a_wrong_url_is_refused(url: str, option: str) -> None:
    why_refused(url, option)


def test_the_documented_example_works(
    postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with psycopg.connect(postgres_server.dsn, autocommit=True) as connection:
        connection.execute("CREATE ROLE app SUPERUSER LOGIN")
        connection.execute("CREATE DATABASE app OWNER app")
    for example in documented_examples("postgres"):
        exec(example.replace("127.0.0.1:5432", f"127.0.0.1:{postgres_server.port}"), {})
