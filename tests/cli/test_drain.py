"""``mb drain``: beside a writer, after a writer, stopped, killed, and what it says where it cannot."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from mbframework import LaneStatus, MessageBuffer, read_status
from mbframework.cli import main
from mbframework.files import Files
from mbframework.lockfile import LockFile
from tests.cli.conftest import Run, Start
from tests.cli.tables import until, values

#: A provider that takes a while for each batch.
SLOW = "fault:?inner=sqlite:out.db&latency=20ms"
SMALL_BATCHES = {"MBFRAMEWORK_BATCH_MESSAGES": "100", "MBFRAMEWORK_CATCH_UP": "full"}
COUNT = 20_000
ALL = [b"%d" % number for number in range(COUNT)]


@pytest.fixture
def backlog(tmp_path: Path) -> Path:
    """A buffer whose writer has left COUNT messages and no provider."""
    with MessageBuffer(tmp_path / "outbox") as buffer:
        buffer.write_many("t", ALL)
    return tmp_path / "outbox"


def test_it_sends_what_waits_and_ends(mb: Run, backlog: Path, tmp_path: Path) -> None:
    done = mb("drain", "outbox", "--provider", "sqlite:out.db", "--until-empty")
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr.splitlines()[-1] == b"20,000 messages delivered; nothing waits"
    assert values(tmp_path / "out.db") == ALL
    lane = read_status(backlog).lanes[0]
    assert (lane.delivered, lane.resident, lane.state, lane.balanced) == (COUNT, 0, "dead", True)
    again = mb("drain", "outbox", "--until-empty", env={"MBFRAMEWORK_PROVIDER": "sqlite:out.db"})
    assert (again.returncode, again.stderr) == (0, b"nothing waits in outbox\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_behind_the_batch_in_hand(
    start: Start, mb: Run, backlog: Path, tmp_path: Path, number: signal.Signals
) -> None:
    process = start("drain", "outbox", "--provider", SLOW, env=SMALL_BATCHES)
    until(lambda: len(values(tmp_path / "out.db")) >= 300)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0
    sent = len(values(tmp_path / "out.db"))
    assert 300 <= sent < COUNT
    last = stderr.decode().splitlines()[-1]
    assert last == f"{sent:,} messages delivered; {COUNT - sent:,} wait"
    lane = read_status(backlog).lanes[0]
    assert (lane.delivered, lane.resident, lane.seek.sequence) == (sent, COUNT - sent, sent + 1)
    assert mb("drain", "outbox", "--provider", SLOW, "--until-empty").returncode == 0
    assert values(tmp_path / "out.db") == ALL


def test_a_kill_in_the_middle_costs_and_repeats_nothing(start: Start, mb: Run, backlog: Path, tmp_path: Path) -> None:
    for least in (300, 900):
        process = start("drain", "outbox", "--provider", SLOW, env=SMALL_BATCHES)
        until(lambda least=least: len(values(tmp_path / "out.db")) >= least)
        process.kill()
        process.wait()
    assert len(values(tmp_path / "out.db")) < COUNT
    done = mb("drain", "outbox", "--provider", "fault:?inner=sqlite:out.db", "--until-empty")
    assert done.returncode == 0, done.stderr
    assert values(tmp_path / "out.db") == ALL
    lane = read_status(backlog).lanes[0]
    assert (lane.accepted, lane.delivered, lane.lost, lane.balanced) == (COUNT, COUNT, 0, True)


def test_it_sends_what_another_process_writes_meanwhile(start: Start, tmp_path: Path) -> None:
    writer = start("send", "outbox", "t")
    assert writer.stdin is not None
    writer.stdin.write(b"0\n")
    writer.stdin.flush()
    until(lambda: (tmp_path / "outbox" / "main" / "seek").exists())
    sidecar = start("drain", "outbox", "--provider", "sqlite:out.db")
    for number in range(1, 50):
        writer.stdin.write(b"%d\n" % number)
        writer.stdin.flush()
        until(lambda number=number: len(values(tmp_path / "out.db")) > number)
    assert values(tmp_path / "out.db") == ALL[:50]
    until(lambda: read_status(tmp_path / "outbox").lanes[0].state == "live")
    _, said = writer.communicate(timeout=60)
    assert (writer.returncode, said) == (0, b"50 messages accepted\n")
    sidecar.terminate()
    assert sidecar.wait(60) == 0


def test_a_sidecar_that_hangs_or_dies_beside_a_writer_is_told(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mbframework.state.STALE_AFTER", 1.0)
    outbox, quick = tmp_path / "outbox", {"MBFRAMEWORK_STATUS_INTERVAL": "100ms"}
    provider = {"MBFRAMEWORK_PROVIDER": "sqlite:out.db"}

    def lane() -> LaneStatus:
        return read_status(outbox).lanes[0]

    def check(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["check", str(outbox), *arguments])
        return done.exit_code, done.stdout.partition(" | ")[0]

    writer = start("send", "outbox", "t", env=quick)

    def write(line: bytes) -> None:
        assert writer.stdin is not None
        writer.stdin.write(line)
        writer.stdin.flush()

    write(b"0\n")
    until(lambda: (outbox / "main" / "seek").exists() and lane().resident == 1)
    until(lambda: lane().state == "buffering")
    assert (lane().sender, lane().state_reason) == (
        "none",
        f"nobody sends: this process only writes; next: mb drain {outbox}",
    )
    sidecar = start("drain", "outbox", env=quick | provider)
    until(lambda: lane().sender == "alive" and lane().delivered == 1)
    sidecar.send_signal(signal.SIGSTOP)
    write(b"1\n")
    until(lambda: lane().state == "stale" and lane().resident == 1)
    hung = lane()
    assert (hung.sender, hung.retry_at, hung.writer_pid) == ("silent", None, writer.pid)
    assert hung.state_reason == f"the sender (process {sidecar.pid}) has given no sign of life"
    assert hung.heartbeat_age_s is not None
    assert hung.heartbeat_age_s >= 1
    code, said = check("--heartbeat", "1s,1m")
    assert code == 1
    assert said.startswith(f"MB WARNING - outbox: {hung.state_reason} for ")
    sidecar.send_signal(signal.SIGCONT)
    until(lambda: lane().sender == "alive" and lane().delivered == 2)
    sidecar.send_signal(signal.SIGSTOP)
    write(b"2\n")
    until(lambda: lane().resident == 1)
    sidecar.kill()
    sidecar.wait()
    begun = time.time()
    dead = lane()
    why = f"nobody sends: the sender (process {sidecar.pid}) has died; next: mb drain {outbox}"
    assert (dead.state, dead.sender, dead.state_reason) == ("buffering", "killed", why)
    # It began with the last sign of life, not when the writer began to write.
    assert dead.state_since is not None
    assert dead.state_since <= begun
    assert dead.state_since > os.stat(outbox / "buffer.json").st_mtime
    assert check() == (1, f"MB WARNING - outbox: {why}")
    assert check("--running") == (2, f"MB CRITICAL - outbox: {why}")
    sidecar = start("drain", "outbox", env=quick | provider)
    until(lambda: lane().state == "live" and lane().delivered == 3)
    assert values(tmp_path / "out.db") == ALL[:3]
    assert check("--not-live", "1ms,1m")[0] == 0
    writer.send_signal(signal.SIGSTOP)
    until(lambda: lane().state == "stale")
    hung = lane()
    assert (hung.sender, hung.state_reason) == ("alive", f"the writer (process {writer.pid}) has given no sign of life")
    assert hung.heartbeat_age_s is not None
    assert hung.heartbeat_age_s >= 1
    assert hung.state_since is not None
    assert hung.state_since < time.time() - 0.9
    code, said = check("--heartbeat", "1s,1m")
    assert code == 1
    assert said.startswith(f"MB WARNING - outbox: {hung.state_reason} for ")
    assert CliRunner().invoke(main, ["pause", str(outbox)]).exit_code == 0
    until(lambda: lane().state_reason.startswith("the sender is paused: "))
    assert (lane().state, lane().state_reason.endswith("; " + hung.state_reason)) == ("stale", True)
    assert CliRunner().invoke(main, ["resume", str(outbox)]).exit_code == 0
    until(lambda: lane().state_reason == hung.state_reason)
    sidecar.send_signal(signal.SIGSTOP)
    until(lambda: lane().sender == "silent")
    both = f"the writer (process {writer.pid}) and the sender (process {sidecar.pid}) have given no sign of life"
    assert (lane().state, lane().state_reason) == ("stale", both)
    sidecar.send_signal(signal.SIGCONT)
    writer.send_signal(signal.SIGCONT)
    until(lambda: lane().state == "live")


def test_a_lane_that_another_process_sends_is_named(mb: Run, start: Start, tmp_path: Path) -> None:
    down = "fault:?inner=sqlite:out.db&outage=0s+1h"
    with MessageBuffer(tmp_path / "outbox", down, close_timeout=0) as buffer:
        buffer.write("t", "1")
        until(lambda: buffer.status().state == "buffering")
        done = mb("drain", "outbox", "--provider", "sqlite:out.db", "--until-empty")
        assert done.returncode == 2
        assert f"lane main is being sent by process {os.getpid()} on ".encode() in done.stderr
        waiting = start("drain", "outbox", "--provider", "fault:?inner=sqlite:out.db")
        assert waiting.stderr is not None
        assert b"taken over when it ends" in waiting.stderr.readline()
    until(lambda: values(tmp_path / "out.db") == [b"1"])
    waiting.terminate()
    assert waiting.wait(60) == 0


def test_a_lane_that_a_writer_is_only_opening_is_left_for_later(mb: Run, backlog: Path, tmp_path: Path) -> None:
    (backlog / "l2").mkdir(mode=0o700)
    opening = LockFile.take(Files(), str(backlog / "l2" / "writer.lock"), 0.0)
    assert opening is not None
    try:
        done = mb("drain", "outbox", "--provider", "sqlite:out.db", "--until-empty")
    finally:
        opening.release()
    assert done.returncode == 0, done.stderr
    assert values(tmp_path / "out.db") == ALL


def test_until_empty_ends_where_only_a_person_can_go_on(mb: Run, backlog: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("this is no database, by far not, and never will be one" * 50)
    done = mb("drain", "outbox", "--until-empty", env={"MBFRAMEWORK_PROVIDER": "sqlite:notes.db"})
    assert done.returncode == 1
    told = done.stderr.decode().splitlines()
    assert told[-2] == "0 messages delivered; 20,000 wait"
    assert told[-1].startswith("lane main is blocked, 20,000 messages wait: ")
    assert "file is not a database" in told[-1]
    (tmp_path / "notes.db").unlink()
    done = mb("drain", "outbox", "--until-empty", env={"MBFRAMEWORK_PROVIDER": "sqlite:notes.db"})
    assert done.returncode == 0, done.stderr
    assert values(tmp_path / "notes.db") == ALL


def test_trouble_with_the_provider_is_told_and_costs_nothing(start: Start, backlog: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("this is no database, by far not, and never will be one" * 50)
    process = start("drain", "outbox", env={"MBFRAMEWORK_PROVIDER": "sqlite:notes.db"})
    assert process.stderr is not None
    lines = [process.stderr.readline() for _ in range(2)]
    assert all(b"file is not a database" in line for line in lines)
    assert lines[1].startswith(b"lane main is blocked: ")
    process.terminate()
    assert process.wait(60) == 0
    assert read_status(backlog).lanes[0].resident == COUNT
