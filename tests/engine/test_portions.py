"""What is sent in portions arrives once and whole, also where the provider keeps the position."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from mbframework_fake.provider import FakeProvider

from mbframework import Batch, MessageBuffer, SendFailed
from tests.engine.rig import FAST, at_rest, eventually, numbers


def test_portions_do_not_hide_each_other_from_a_provider_that_keeps_the_position(tmp_path: Path) -> None:
    provider = FakeProvider(keep_position=True)
    provider.fail_next(2, after=0, uncertain=True)
    with MessageBuffer(tmp_path / "b", provider, mode="always", **FAST) as buffer:
        buffer.write_many("t", [b"%d" % number for number in range(1000)])
        buffer.flush(60)
        assert numbers(provider.messages) == list(range(1000))
        assert at_rest(buffer) == at_rest(buffer) | {"delivered": 1000, "lost": 0}


_KILLED = """
import os, sys
from mbframework import MessageBuffer, SendFailed
from mbframework_sqlite.provider import SQLiteProvider

class Slow(SQLiteProvider):
    sends = 0

    def send(self, batch):
        Slow.sends += 1
        if Slow.sends <= 2:
            raise SendFailed("no answer", uncertain=True)
        super().send(batch)
        os.kill(os.getpid(), 9)

with MessageBuffer(sys.argv[1] + "/b", lambda _: Slow(sys.argv[1] + "/o.db"), **eval(sys.argv[2])) as buffer:
    buffer.write_many("t", [b"%d" % number for number in range(1000)])
    buffer.flush(60)
"""


def test_a_kill_between_two_portions_costs_nothing(tmp_path: Path) -> None:
    options = {"mode": "always", **FAST}
    done = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path), repr(options)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    with MessageBuffer(tmp_path / "b", f"sqlite:{tmp_path}/o.db", **options) as buffer:
        buffer.flush(60)
        assert at_rest(buffer) == at_rest(buffer) | {"delivered": 1000, "lost": 0}
    with contextlib.closing(sqlite3.connect(tmp_path / "o.db")) as database:
        values = [int(value) for (value,) in database.execute("SELECT value FROM messages ORDER BY rowid")]
    assert values == list(range(1000))


def test_a_provider_that_is_opened_anew_in_the_middle_of_a_batch_tells_what_it_has(tmp_path: Path) -> None:
    """As after a fork: the batch arrived, its answer did not, and the next attempt begins with a new connection."""

    class Doubtful(FakeProvider):
        fork_safe = False
        answered = False

        def send(self, batch: Batch) -> None:
            super().send(batch)
            if not self.answered:
                self.answered = True
                raise SendFailed("no answer", uncertain=True)

    provider = Doubtful(keep_position=True)
    with MessageBuffer(
        tmp_path / "b", provider, mode="always", **FAST | {"retry_wait": 1.0, "retry_wait_max": 1.0}
    ) as b:
        b.write_many("t", [b"%d" % number for number in range(100)])
        eventually(lambda: b.status().failures, "the failure")
        sender = b._engine.sender  # type: ignore[union-attr]
        assert sender is not None
        sender.hold(60)
        sender.let_go()
        b.flush(60)
        assert numbers(provider.messages) == list(range(100))
        assert at_rest(b) == at_rest(b) | {"delivered": 100, "lost": 0}
