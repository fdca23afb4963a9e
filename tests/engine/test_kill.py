"""kill -9: what the table of guarantees promises, counted; restarts; positions; other destinations; copies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from mbframework_fake.broker import FakeBroker
from mbframework_fake.provider import FakeProvider

from mbframework import MessageBuffer, read_status
from mbframework.message import Position
from tests.engine.rig import (
    FAST,
    SMALL,
    accounts,
    at_rest,
    eventually,
    from_directory,
    in_state,
    numbers,
    padded,
    program,
)

LIVE = """
from mbframework_fake.provider import FakeProvider
provider = FakeProvider()
buffer = MessageBuffer(sys.argv[1], provider, **FAST | {"live_wait": 60})
while buffer.status().state != "live":
    time.sleep(0.005)
for number in range(100):
    buffer.write("t", str(number))
buffer.flush(60)
provider.stick()
for number in range(100, 140):
    buffer.write("t", str(number))
while not provider.stuck:
    time.sleep(0.005)
print(len(provider.messages), flush=True)
time.sleep(60)
"""


def test_live_a_kill_costs_exactly_what_was_not_acknowledged(tmp_path: Path) -> None:
    with program(LIVE, tmp_path / "b") as child:
        assert child.line() == "100"
        child.kill()
    (dead,) = read_status(tmp_path / "b").lanes
    assert (dead.state, dead.accepted, dead.delivered, dead.lost_live, dead.resident) == ("dead", 140, 100, 40, 0)
    assert dead.balanced
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        assert accounts(buffer.status()) == accounts(dead)
        # The numbers of what was lost are not given again.
        assert buffer.write("t", "140") > 140
        buffer.flush(60)
        assert at_rest(buffer) == at_rest(buffer) | {"accepted": 141, "delivered": 101, "lost": 40}
    assert numbers(provider.messages) == [140]


PURGED = """
from mbframework_fake.provider import FakeProvider
provider = FakeProvider()
provider.stick()
buffer = MessageBuffer(sys.argv[1], provider, mode="always", batch_messages=5, **FAST)
buffer.write_many("t", map(str, range(30)))
while not provider.stuck:
    time.sleep(0.001)
print(buffer.purge(), flush=True)
time.sleep(60)
"""


def test_what_was_purged_does_not_come_back(tmp_path: Path) -> None:
    with program(PURGED, tmp_path / "b") as child:
        purged = int(child.line())
        child.kill()
    assert 25 <= purged < 30
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        buffer.write("t", "30")
        buffer.flush(60)
        assert numbers(provider.messages) == [30]
        counts = at_rest(buffer)
        assert (counts["accepted"], counts["delivered"], counts["pruned"] + counts["purged"]) == (31, 1, 30)


BUFFERING = """
from mbframework_fake.provider import FakeProvider
provider = FakeProvider()
provider.down()
buffer = MessageBuffer(sys.argv[1], provider, **FAST | SMALL | {"total_size": "64MiB"})
for number in range(5000):
    buffer.write("t", f"{number} ".ljust(100))
print("written", flush=True)
time.sleep(60)
"""


def test_buffering_a_kill_costs_nothing(tmp_path: Path) -> None:
    with program(BUFFERING, tmp_path / "b") as child:
        child.line()
        child.kill()
    (dead,) = read_status(tmp_path / "b").lanes
    assert (dead.state, dead.accepted, dead.resident, dead.lost) == ("dead", 5000, 5000, 0)
    assert dead.oldest_age_s is not None
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        buffer.write("t", "5000")
        buffer.flush(60)
        assert numbers(provider.messages) == list(range(5001))
        assert at_rest(buffer)["lost"] == 0


def test_in_the_middle_of_a_write_a_kill_costs_at_most_that_one(tmp_path: Path) -> None:
    text = """
from mbframework_fake.provider import FakeProvider
provider = FakeProvider()
provider.down()
buffer = MessageBuffer(sys.argv[1], provider, segment_size="64KiB", total_size="1GiB", **FAST)
report = open(sys.argv[2], "wb", buffering=0)
for number in range(10_000_000):
    buffer.write("t", str(number))
    os.pwrite(report.fileno(), str(number).zfill(12).encode(), 0)
    if number == 2000:
        print("under way", flush=True)
"""
    for attempt in range(3):
        with program(text, tmp_path / f"{attempt}", tmp_path / "last") as child:
            child.line()
            child.kill()
        last = int((tmp_path / "last").read_bytes())
        provider = FakeProvider()
        with MessageBuffer(tmp_path / f"{attempt}", provider, **FAST) as buffer:
            buffer.flush(60)
            at_rest(buffer)
        got = numbers(provider.messages)
        assert got == list(range(len(got)))
        assert last <= len(got) - 1 <= last + 1


DRAINING = """
from mbframework_sqlite.provider import SQLiteProvider
buffer = MessageBuffer(sys.argv[1], sys.argv[2], mode="always", batch_messages=7, **FAST)
print("begun", flush=True)
for number in range(int(sys.argv[3]), 10_000_000):
    buffer.write("t", str(number))
    if number % 50 == 0:
        print(number, flush=True)
        time.sleep(0.001)
"""


@pytest.mark.parametrize("exactly", [True, False])
def test_a_kill_while_sending_repeats_at_most_one_batch(tmp_path: Path, exactly: bool) -> None:
    """With a provider that keeps the position (SQLite) nothing at all."""
    import sqlite3

    url = f"sqlite://{tmp_path}/out.db" if exactly else f"file://{tmp_path}/out.jsonl"
    begin, kills = 0, 3
    for _ in range(kills):
        with program(DRAINING, tmp_path / "b", url, begin) as child:
            assert child.line() == "begun"
            for _ in range(15):
                begin = int(child.line())
            child.kill()
        # It may have written a few more than it said; the next run begins well beyond.
        begin += 10_000
    with MessageBuffer(tmp_path / "b", url, **FAST) as buffer:
        buffer.flush(60)
        status = at_rest(buffer)
        assert (status["lost"], status["resident_messages"]) == (0, 0)
    if exactly:
        with sqlite3.connect(tmp_path / "out.db") as database:
            tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type='table'")]
            table = next(name for name in tables if "position" not in name and "sqlite" not in name)
            got = [int(value) for (value,) in database.execute(f"SELECT value FROM {table} ORDER BY rowid")]
        database.close()
        assert got == sorted(set(got))
    else:
        got = [int(json.loads(line)["value"]) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert len(got) - len(set(got)) <= kills * 7
        assert list(dict.fromkeys(got)) == sorted(set(got))
    assert len(set(got)) == status["accepted"]


def test_a_position_that_is_ahead_wins(tmp_path: Path) -> None:
    """As after a kill between the broker's commit and the seek's store."""
    broker = FakeBroker(keep_position=True)
    with MessageBuffer(tmp_path / "b", FakeProvider(broker), mode="always", **FAST) as buffer:
        buffer.write_many("t", map(str, range(10)))
        buffer.flush(60)
        provider_position = broker.positions[next(iter(broker.positions))]
        buffer.pause()
        buffer.write_many("t", map(str, range(10, 30)))
    ((key, before),) = broker.positions.items()
    assert before == provider_position
    broker._positions[key] = Position(before.sequence + 12, before.run)
    with MessageBuffer(tmp_path / "b", FakeProvider(broker), **FAST) as buffer:
        buffer.flush(60)
        assert numbers(broker.messages) == [*range(10), *range(22, 30)]
        assert at_rest(buffer)["delivered"] == 30


def test_a_position_from_elsewhere_blocks_and_skips_nothing(tmp_path: Path) -> None:
    broker = FakeBroker(keep_position=True)
    with MessageBuffer(tmp_path / "b", FakeProvider(broker), **FAST) as buffer:
        buffer.write("t", "0")
        buffer.flush(60)
    ((key, position),) = broker.positions.items()
    broker._positions[key] = Position(position.sequence + 1000, b"x" * 16)
    with MessageBuffer(tmp_path / "b", FakeProvider(broker), **FAST) as buffer:
        buffer.write("t", "1")
        in_state(buffer, "blocked")
        assert "PositionFromElsewhere" in str(buffer.status().last_error)
        assert buffer.status().resident == 1
        broker._positions[key] = position
        buffer.flush(60)
        assert numbers(broker.messages) == [0, 1]


def test_a_backlog_for_another_destination_blocks_until_told(tmp_path: Path) -> None:
    first, second = FakeBroker("first"), FakeBroker("second")
    with MessageBuffer(tmp_path / "b", FakeProvider(first), **FAST) as buffer:
        buffer.write("t", "0")
        buffer.flush(60)
        first.down()
        buffer.write("t", "1")
    with MessageBuffer(tmp_path / "b", FakeProvider(second), **FAST) as buffer:
        in_state(buffer, "blocked")
        assert "another destination" in str(buffer.status().last_error)
        assert "rebind=True" in buffer.status().state_reason
        buffer.write("t", "2")
        assert buffer.status().resident == 2
    assert second.count == 0
    with MessageBuffer(tmp_path / "b", FakeProvider(second), rebind=True, **FAST) as buffer:
        buffer.flush(60)
    assert numbers(second.messages) == [1, 2]
    # Without a backlog there is nothing to ask about.
    first.up()
    with MessageBuffer(tmp_path / "b", FakeProvider(first), **FAST) as buffer:
        buffer.write("t", "3")
        buffer.flush(60)
    assert numbers(first.messages) == [0, 3]


@pytest.mark.parametrize("identity", ["adopt", "new-identity"])
def test_a_copied_directory_sends_nothing_until_told(tmp_path: Path, identity: str) -> None:
    provider = FakeProvider()
    provider.down()
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        buffer.write_many("t", map(str, range(5)))
    shutil.copytree(tmp_path / "b", tmp_path / "copy")
    there = FakeProvider()
    with MessageBuffer(tmp_path / "copy", there, **FAST) as buffer:
        in_state(buffer, "blocked")
        assert "identity='adopt'" in buffer.status().state_reason
        buffer.write("t", "5")
        assert buffer.status().resident == 6
    assert there.count == 0
    there = FakeProvider()
    with MessageBuffer(tmp_path / "copy", there, identity=identity, **FAST) as buffer:
        buffer.flush(60)
        at_rest(buffer)
    assert numbers(there.messages) == list(range(6))


def test_a_dead_lanes_status_says_so_and_its_files_are_enough(tmp_path: Path) -> None:
    with program(BUFFERING, tmp_path / "b") as child:
        child.line()
        eventually(lambda: read_status(tmp_path / "b").lanes[0].state == "buffering", "its state")
        child.kill()
    lane = tmp_path / "b/main"
    for narration in lane.glob("status.*"):
        narration.write_text("{ torn")
    (dead,) = read_status(tmp_path / "b").lanes
    assert (dead.state, dead.mode, dead.accepted, dead.resident) == ("dead", "unknown", 5000, 5000)
    for narration in (*lane.glob("status.*"), *lane.glob("events.*")):
        narration.unlink()
    assert accounts(read_status(tmp_path / "b").lanes[0]) == accounts(dead)


def test_many_restarts_keep_the_accounts(tmp_path: Path) -> None:
    written = 0
    broker = FakeBroker()
    for round_ in range(12):
        with MessageBuffer(tmp_path / "b", FakeProvider(broker), **FAST | SMALL | {"close_timeout": 0}) as buffer:
            if round_ % 3 == 0:
                broker.down()
            elif round_ % 3 == 1:
                broker.up()
            for _ in range(30):
                buffer.write("t", padded(written, 300))
                written += 1
            if round_ % 4 == 3:
                broker.up()
                buffer.flush(60)
            at_rest(buffer)
    broker.up()
    with MessageBuffer(tmp_path / "b", FakeProvider(broker), **FAST) as buffer:
        buffer.flush(60)
        assert at_rest(buffer)["accepted"] == written
        pruned = buffer.status().pruned
        assert from_directory(buffer).delivered == written - pruned
    got = numbers(broker.messages)
    assert got == sorted(set(got))
    assert len(got) == written - pruned
