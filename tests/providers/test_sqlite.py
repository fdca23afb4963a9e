"""The provider ``sqlite`` on real database files: round trip, exactly once, kills, locks, full disks, refusals."""

from __future__ import annotations

import itertools
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from mbframework_sqlite.provider import SQLiteProvider
from mbframework_sqlite.schema import decode_headers

from mbframework import MessageBuffer, read_status
from mbframework.errors import ConfigurationError, ProviderUnusable, SendFailed
from mbframework.message import Message, Position
from mbframework.plugins.source import resolve
from mbframework.status import LaneStatus
from tests.examples import examples
from tests.providers.batches import ROOT, RUN, any_messages, batch_of, context, documented_urls, make_batch
from tests.providers.provider_pages import documented_examples

New = Callable[..., SQLiteProvider]


@pytest.fixture
def new(tmp_path: Path) -> Iterator[New]:
    """Makes and opens providers of one file; they are closed after the test."""
    made: list[SQLiteProvider] = []

    def make(lane: str = "main", **options: object) -> SQLiteProvider:
        provider = SQLiteProvider(tmp_path / "out.db", **options)  # type: ignore[arg-type]
        made.append(provider)
        provider.open(context(lane))
        return provider

    yield make
    for provider in made:
        provider.close(1)


def stored(path: str | Path, table: str = "messages") -> list[Message]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            f"SELECT sequence, topic, value, key, headers, timestamp, partition, accepted FROM {table} ORDER BY id"
        ).fetchall()
    return [Message(*row[:4], decode_headers(row[4]), *row[5:]) for row in rows]


def test_a_file_that_was_removed_is_told(tmp_path: Path) -> None:
    """Whoever names another file knows that it is empty."""
    directory, file = tmp_path / "b", tmp_path / "out.db"

    def write(path: Path) -> LaneStatus:
        with MessageBuffer(directory, f"sqlite:{path}") as buffer:
            buffer.write_many("t", [b"1"] * 10)
            buffer.flush(60)
            return buffer.status()

    assert [write(file).acknowledged_lost for _ in range(2)] == [0, 0]
    for left in tmp_path.glob("out.db*"):
        left.unlink()
    status = write(file)
    assert (status.delivered, status.acknowledged_lost, status.balanced) == (30, 20, True)
    assert "sqlite has lost what it had acknowledged" in (status.last_error or "")
    assert "went back from sequence 21 to 0; up to 20 delivered messages" in (status.last_error or "")
    assert write(tmp_path / "other.db").acknowledged_lost == write(tmp_path / "other.db").acknowledged_lost == 20
    [kept] = read_status(directory).lanes
    assert (kept.delivered, kept.acknowledged_lost, kept.balanced) == (50, 20, True)


def test_any_message_comes_back_as_it_was(tmp_path: Path) -> None:
    numbers = itertools.count()

    @examples(60)
    @given(any_messages)
    def check(messages: list[Message]) -> None:
        path = tmp_path / f"{next(numbers)}.db"
        provider = SQLiteProvider(path, synchronous="off")
        provider.open(context())
        try:
            provider.send(batch_of(messages))
            assert provider.committed() == Position(messages[-1].sequence + 1, RUN)
        finally:
            provider.close(1)
        assert stored(path) == messages

    check()


def test_a_repeat_never_appears_and_another_message_is_never_swallowed(new: New) -> None:
    provider = new()
    provider.send(make_batch(1, 10))
    provider.send(make_batch(6, 10))
    assert [m.sequence for m in stored(provider.path)] == list(range(1, 16))
    # In portions, after answers that were lost: the position tells of all that is there.
    provider.send(make_batch(6, 3))
    assert provider.committed() == Position(16, RUN)
    clash = [m._replace(value=b"of a copied directory") for m in make_batch(15, 3)]
    with pytest.raises(ProviderUnusable, match="sequence 15 .* copy"):
        provider.send(batch_of(clash))
    assert len(stored(provider.path)) == 15
    assert provider.committed() == Position(16, RUN)


def test_lanes_and_buffers_keep_positions_of_their_own(new: New) -> None:
    one, two = new("one"), new("two")
    one.send(make_batch(1, 3))
    two.send(make_batch(1, 5, run=b"s" * 16))
    assert one.committed() == Position(4, RUN)
    assert two.committed() == Position(6, b"s" * 16)
    assert new("three").committed() is None


def test_lanes_that_write_at_once_wait_for_each_other(new: New) -> None:
    lanes = [new(name, busy_timeout=60) for name in ("one", "two", "three")]

    def send(provider: SQLiteProvider) -> None:
        for first in range(1, 1_000, 50):
            provider.send(make_batch(first, 50))

    threads = [threading.Thread(target=send, args=(provider,)) for provider in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for provider in lanes:
        assert provider.committed() == Position(1_001, RUN)
    assert len(stored(lanes[0].path)) == 3_000


def test_the_destination_is_of_the_file_and_lasts(new: New, tmp_path: Path) -> None:
    first = new().destination()
    assert new("two", table="others").destination() == first
    other = SQLiteProvider(tmp_path / "other.db")
    other.open(context())
    assert other.destination() != first
    other.close(1)
    os.rename(tmp_path / "other.db", tmp_path / "moved.db")
    moved = SQLiteProvider(tmp_path / "moved.db")
    moved.open(context())
    assert moved.destination() == other.destination()
    moved.close(1)


CHILD = """
import random, sys
from mbframework.message import Position
from mbframework_sqlite.provider import SQLiteProvider
from tests.providers.batches import context, make_batch

provider = SQLiteProvider(sys.argv[1])
provider.open(context())
at = (provider.committed() or Position(1, b"")).sequence
while True:
    count = random.randint(1, 300)
    provider.send(make_batch(at, count))
    at += count
    print(at, flush=True)
"""


def test_after_kill_9_the_position_tells_exactly_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "out.db"
    chance = random.Random(7)
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
        ) as child:
            assert child.stdout is not None
            acknowledged = [int(child.stdout.readline()) for _ in range(chance.randint(1, 25))][-1]
            # Not at a line's end but anywhere in the batches that follow.
            threading.Event().wait(chance.random() * 0.02)
            child.send_signal(signal.SIGKILL)
        provider = SQLiteProvider(path)
        provider.open(context())
        position = provider.committed()
        provider.close(1)
        assert position is not None
        assert position.sequence >= acknowledged
        assert [m.sequence for m in stored(path)] == list(range(1, position.sequence))


def test_a_locked_database_is_waited_for_then_fails_and_then_works(new: New) -> None:
    provider = new(busy_timeout=0.1)
    with closing(sqlite3.connect(provider.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SendFailed, match="locked; another program holds its write lock"):
            provider.send(make_batch(1, 3))
        other.execute("ROLLBACK")
    provider.send(make_batch(1, 3))
    assert provider.committed() == Position(4, RUN)


@pytest.mark.parametrize("how", ["stopping", "close"])
def test_waiting_for_a_lock_ends_when_the_buffer_stops_or_closes(tmp_path: Path, how: str) -> None:
    provider = SQLiteProvider(tmp_path / "out.db", busy_timeout=600)
    told = context()
    provider.open(told)
    failures: list[Exception] = []

    def send() -> None:
        try:
            provider.send(make_batch(1, 3))
        except SendFailed as error:
            failures.append(error)

    with closing(sqlite3.connect(provider.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        sender = threading.Thread(target=send)
        sender.start()
        if how == "stopping":
            told.stopping.set()
        else:
            provider.close(0)
        sender.join(60)
        assert not sender.is_alive()
    assert len(failures) == 1
    provider.close(1)
    provider.close(1)
    with pytest.raises(SendFailed, match="not open"):
        provider.send(make_batch(1, 3))
    assert stored(provider.path) == []


def test_a_full_device_fails_the_batch_as_a_whole_and_recovers(new: New) -> None:
    provider = new()
    provider.send(make_batch(1, 3))
    connection = provider._connection
    assert connection is not None
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(SendFailed, match="full; make room"):
        provider.send(make_batch(4, 50, size=4_000))
    assert provider.committed() == Position(4, RUN)
    assert len(stored(provider.path)) == 3
    connection.execute("PRAGMA max_page_count = 1000000")
    provider.send(make_batch(4, 50, size=4_000))
    assert len(stored(provider.path)) == 53


LIMITED = """
import resource, sys
from mbframework.errors import SendFailed
from mbframework_sqlite.provider import SQLiteProvider
from tests.providers.batches import context, make_batch

provider = SQLiteProvider(sys.argv[1])
provider.open(context())
provider.send(make_batch(1, 3))
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
try:
    provider.send(make_batch(4, 200, size=4_000))
except SendFailed as error:
    print("failed:", error)
assert provider.committed().sequence == 4
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
provider.send(make_batch(4, 200, size=4_000))
provider.close(1)
"""


def test_a_write_that_the_system_refuses_leaves_nothing_and_succeeds_later(tmp_path: Path) -> None:
    path = tmp_path / "out.db"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("failed:")
    assert [m.sequence for m in stored(path)] == list(range(1, 204))


def test_what_the_table_refuses_is_rejected_and_nothing_of_its_batch_stays(new: New) -> None:
    provider = new()
    with closing(sqlite3.connect(provider.path)) as other:
        other.execute(
            "CREATE TRIGGER picky BEFORE INSERT ON messages WHEN new.sequence % 4 = 0"
            " BEGIN SELECT RAISE(ROLLBACK, 'not by four'); END"
        )
    with pytest.raises(SendFailed) as failed:
        provider.send(make_batch(1, 9))
    assert failed.value.rejected == {
        3: "refused by table 'messages': not by four",
        7: "refused by table 'messages': not by four",
    }
    assert failed.value.undelivered is None
    assert stored(provider.path) == []
    assert provider.committed() is None
    provider.send(batch_of([m for m in make_batch(1, 9) if m.sequence % 4]))
    assert [m.sequence for m in stored(provider.path)] == [1, 2, 3, 5, 6, 7, 9]


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to look into. " * 100)
    before = path.read_bytes()
    with pytest.raises(ProviderUnusable, match="not a database; the file is something else"):
        SQLiteProvider(path).open(context())
    assert path.read_bytes() == before


def test_a_table_or_layout_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as app:
        app.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, body TEXT)")
        app.commit()
    with pytest.raises(ProviderUnusable, match=r"'messages' .* is not one of mbframework's .*table="):
        SQLiteProvider(path).open(context())
    provider = SQLiteProvider(path, table="outgoing")
    provider.open(context())
    provider.send(make_batch(1, 2))
    provider.close(1)
    assert len(stored(path, "outgoing")) == 2
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("UPDATE mbframework_meta SET value = '99' WHERE name = 'schema'")
        newer.commit()
    with pytest.raises(ProviderUnusable, match="layout 99"):
        provider.open(context())


def test_a_folder_that_does_not_exist_is_named_with_the_next_step(tmp_path: Path) -> None:
    provider = SQLiteProvider(tmp_path / "missing" / "out.db")
    with pytest.raises(ProviderUnusable, match="missing/out.db: .*; create its folder"):
        provider.open(context())
    health = provider.check()
    assert not health.ok
    assert "missing" in health.detail


def test_looking_makes_no_file(tmp_path: Path) -> None:
    assert SQLiteProvider(tmp_path / "out.db").check().ok
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_is_deleted_under_its_program_takes_nothing_more(new: New) -> None:
    provider = new()
    provider.send(make_batch(1, 2))
    os.rename(provider.path, provider.path + ".moved")
    with pytest.raises(ProviderUnusable, match="moved, deleted or replaced"):
        provider.send(make_batch(3, 2))
    os.rename(provider.path + ".moved", provider.path)
    provider.send(make_batch(3, 2))
    assert len(stored(provider.path)) == 4


@pytest.mark.parametrize("name", ['m"; DROP TABLE x; --', "", "1st", "sqlite_x", "MBFRAMEWORK_meta", "a" * 64, "ä"])
def test_a_table_name_that_is_no_plain_word_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        SQLiteProvider(tmp_path / "out.db", table=name)
    assert refused.value.option == "table"


@pytest.mark.parametrize("url", ["sqlite::memory:", "sqlite:", "sqlite:///tmp/", "sqlite:x.db?table=a b"])
def test_a_wrong_url_is_refused_before_anything_is_made(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError):
        resolve(url)
    assert list(tmp_path.iterdir()) == []


def test_full_sync_is_the_default_and_is_in_force(new: New) -> None:
    connection = new()._connection
    assert connection is not None
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_documented_examples_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for program in documented_examples("sqlite"):
        exec(program, {})
    assert "(1, 'orders', b'42', b'value')" in capsys.readouterr().out


@pytest.mark.parametrize("url", documented_urls("sqlite", "sqlite"))
def test_every_documented_url_works(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "var/lib/app").mkdir(parents=True)
    source = resolve(url.replace("sqlite:///var", f"sqlite://{tmp_path}/var"))
    assert source is not None
    provider = source.create(context())
    provider.open(context())
    provider.send(make_batch(1, 2))
    assert provider.committed() == Position(3, RUN)
    provider.close(1)
