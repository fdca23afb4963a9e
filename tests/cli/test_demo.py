"""``mb demo``: the whole of it on SQLite and on a real Kafka, how it ends early, and that its check finds faults."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from mbframework.cli.demo.verdict import Note, judge
from mbframework.status import LaneStatus, SeekPosition
from mbframework.testing.kafka import KafkaBroker
from tests.cli.conftest import Done, Run, Start
from tests.cli.tables import until, values


def outcome(done: Done) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    assert (found["lost"], found["out_of_order"], found["problems"], found["ok"]) == (0, 0, [], True)
    assert found["delivered"] == found["written"] + found["unacknowledged"] + found["repeated"]
    assert found["written"] >= 1_200
    assert found["waiting_at_kill"] > 0
    # In this order, whatever was seen in between.
    states = iter(found["states"])
    assert all(state in states for state in ("live", "buffering", "dead", "buffering", "live")), found["states"]
    return found


def test_the_whole_of_it_on_sqlite(mb: Run, tmp_path: Path) -> None:
    done = mb("demo", "--messages", "1200", "--json", "--provider", "sqlite:seen.db", env={"TMPDIR": str(tmp_path)})
    found = outcome(done)
    assert (found["repeated"], found["provider"]) == (0, "sqlite:seen.db")
    # Not by its own account alone.
    arrived = values(tmp_path / "seen.db")
    assert len(arrived) == found["delivered"]
    assert arrived == sorted(set(arrived), key=lambda value: [int(part) for part in value.split(b".")])
    narrated = done.stderr.decode()
    steps = ["1. Live", "2. Outage", "3. kill -9", "4. Restart", "5. The provider is back", "6. Live again", "7. Check"]
    assert [narrated.index(f"\n{step}") for step in steps] == sorted(narrated.index(f"\n{step}") for step in steps)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("mb-demo")] == []


def test_the_whole_of_it_on_a_real_kafka(mb: Run, kafka_broker: KafkaBroker) -> None:
    url = f"kafka://{kafka_broker.bootstrap}?compression=gzip&linger=5ms"
    found = outcome(mb("demo", "--messages", "1200", "--json", "--provider", url))
    assert found["provider"] == url


def writers_lock(folder: Path) -> Path:
    """Of the demo's writer, when that is at work."""
    until(lambda: any(path.stat().st_size for path in folder.glob("mb-demo-*/ledger")))
    (lock,) = folder.glob("mb-demo-*/outbox/main/writer.lock")
    return lock


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_behind(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    process = start("demo", "--keep", env={"TMPDIR": str(tmp_path)})
    writer = json.loads(writers_lock(tmp_path).read_text())["pid"]
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number
    with pytest.raises(ProcessLookupError):
        os.kill(writer, 0)


def test_a_kill_of_the_demo_ends_its_writer(start: Start, tmp_path: Path) -> None:
    process = start("demo", env={"TMPDIR": str(tmp_path)})
    lock = writers_lock(tmp_path)
    process.kill()
    process.wait()
    # It closes its buffer as it ends, which empties the lock file.
    until(lambda: lock.read_text() == "")


def account(**changes: int) -> LaneStatus:
    counts = {"accepted": 4, "delivered": 4, "pruned": 0, "expired": 0, "dead": 0, "purged": 0, "lost": 0} | changes
    return LaneStatus(
        name="main", mode="buffer", state="dead", resident_messages=0, resident_bytes=0, segments=0,
        oldest_age_s=None, last_error=None, seek=SeekPosition(1, 5, 128), **counts,
    )  # fmt: skip


LEDGER = [Note(message, 3) for message in ("1.0", "1.1", "2.0", "2.1")]
WRITTEN = [note.message for note in LEDGER]


def test_a_check_finds_nothing_where_nothing_is_wrong() -> None:
    verdict = judge(LEDGER, WRITTEN, account(), kills=1, once=True)
    assert (verdict.ok, verdict.written, verdict.delivered, verdict.median_write_us) == (True, 4, 4, 3)
    # The kill fell between an acceptance and its note.
    late = judge(LEDGER, ["1.0", "1.1", "1.2", "2.0", "2.1"], account(accepted=5, delivered=5), kills=1, once=True)
    assert (late.ok, late.unacknowledged, late.lost) == (True, 1, 0)


@pytest.mark.parametrize(
    ("delivered", "lane", "counts", "said"),
    [
        (["1.0", "2.0", "2.1"], account(), (0, 1, 0), "did not arrive: 1.1"),
        (["1.0", "2.0", "1.1", "2.1"], account(), (0, 0, 1), "behind later ones"),
        (["1.0", "1.1", "1.1", "2.0", "2.1"], account(), (1, 0, 0), "arrived again"),
        ([*WRITTEN, "2.2", "2.3"], account(accepted=6, delivered=6), (0, 0, 0), "nobody acknowledged: 2.2, 2.3"),
        (WRITTEN, account(lost=1), (0, 0, 0), "own account says 1 lost"),
        (WRITTEN, account(delivered=3), (0, 0, 0), "own account says 3 delivered"),
    ],
)
def test_a_check_finds_each_fault(
    delivered: list[str], lane: LaneStatus, counts: tuple[int, int, int], said: str
) -> None:
    verdict = judge(LEDGER, delivered, lane, kills=1, once=True)
    assert not verdict.ok
    assert (verdict.repeated, verdict.lost, verdict.out_of_order) == counts
    assert any(said in problem for problem in verdict.problems), verdict.problems


def test_repeats_are_allowed_where_the_provider_does_not_exclude_them() -> None:
    verdict = judge(LEDGER, ["1.0", "1.1", "1.0", "1.1", "2.0", "2.1"], account(), kills=1, once=False)
    assert (verdict.ok, verdict.repeated, verdict.out_of_order) == (True, 2, 0)
