"""``mb tail``: the last messages on disk, what is appended, and nothing that could steer a terminal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from mbframework import MessageBuffer
from tests.cli.conftest import Run, Start


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    with MessageBuffer(tmp_path / "outbox") as buffer:
        for number in range(30):
            buffer.write("t", b"value %d" % number, key=b"k")
    return tmp_path / "outbox"


def test_the_last_ten(mb: Run, outbox: Path) -> None:
    done = mb("tail", "outbox")
    assert done.returncode == 0
    lines = done.stdout.decode().splitlines()
    assert [line.split("  ")[0] for line in lines] == [str(number) for number in range(21, 31)]
    assert lines[-1].endswith("  t  k  10B  value 29")
    facts = [json.loads(line) for line in mb("tail", "outbox", "-n", "2", "--json").stdout.splitlines()]
    assert [each["value"] for each in facts] == ["value 28", "value 29"]
    assert len(mb("tail", "outbox", "-n", "1000").stdout.splitlines()) == 30
    assert mb("tail", "outbox", "-n", "0").stdout == b""


def test_hostile_messages_stay_in_their_line(mb: Run, tmp_path: Path) -> None:
    with MessageBuffer(tmp_path / "outbox", segment_size="64MiB") as buffer:
        buffer.write("to\x1b[31mpic\n", "\x1b]0;title\x07\r\n[bold]x[/bold]\x9b31m\u202e", key=b"\x00\xff\xfe")
        buffer.write("t", None)
        buffer.write("t", b"", key=b"")
        buffer.write("t", b"\xff" * (15 << 20))
        buffer.write("t", "ä" * 10_000)
    done = mb("tail", "outbox", env={"COLUMNS": "100"})
    assert done.returncode == 0
    lines = done.stdout.decode().splitlines()
    assert len(lines) == 5
    assert all(line.isprintable() for line in lines)
    assert "to\\x1b[31mpic\\n" in lines[0]
    assert "[bold]x[/bold]" in lines[0]
    assert lines[1].endswith("(none)")
    assert lines[2].endswith('""')
    assert lines[3].endswith("…")
    assert "0xffff" in lines[3]
    assert "ääää" in lines[4]
    as_json = mb("tail", "outbox", "--json").stdout
    assert as_json.isascii()
    assert len(json.loads(as_json.splitlines()[3])["value_base64"]) == 20 << 20


def test_what_is_appended_is_followed_across_restarts(start: Start, outbox: Path) -> None:
    process = start("tail", "outbox", "-f", "-n", "1", "--json", bufsize=0)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["value"] == "value 29"
    for value in (b"one", b"two", b"three"):
        with MessageBuffer(outbox) as buffer:
            buffer.write("t", value)
            buffer.sync()
            assert json.loads(process.stdout.readline())["value"] == value.decode()
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"while the buffer is live" in told
    assert b"came and went" not in told


def test_what_went_unseen_is_told(start: Start, outbox: Path) -> None:
    process = start("tail", "outbox", "-f", "-n", "1", bufsize=0)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGSTOP)
    with MessageBuffer(outbox, segment_size="64KiB", total_size="1MiB") as buffer:
        for _ in range(900):
            buffer.write("t", b"x" * 100)
    with MessageBuffer(outbox, "fake://") as buffer:
        buffer.flush(60)
    with MessageBuffer(outbox) as buffer:
        buffer.write("t", b"last")
    process.send_signal(signal.SIGCONT)
    line = b""
    while not line.rstrip().endswith(b"last"):
        line = process.stdout.readline()
    process.terminate()
    _, told = process.communicate(timeout=60)
    assert b"messages came and went between two looks" in told


def test_the_end_of_a_directory_and_of_a_reader_end_it(start: Start, outbox: Path) -> None:
    process = start("tail", "outbox", "-f", "-n", "1", bufsize=0)
    assert process.stdout is not None
    process.stdout.readline()
    shutil.rmtree(outbox)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"is gone" in told


def test_a_reader_that_goes_away(start: Start, outbox: Path) -> None:
    process = start("tail", "outbox", "-f", "-n", "1", bufsize=0)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    with MessageBuffer(outbox) as buffer:
        buffer.write("t", b"more")
    process.wait(60)
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()


def test_a_reader_that_goes_away_from_a_quiet_buffer(start: Start, outbox: Path) -> None:
    process = start("tail", "outbox", "-f", "-n", "1", bufsize=0)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 1
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()


def test_what_is_missing_at_the_end_is_told(mb: Run, outbox: Path) -> None:
    assert mb("tail", "outbox").stderr == b""
    (segment,) = (outbox / "main").glob("P*.seg")
    segment.unlink()
    os.mkfifo(segment)
    done = mb("tail", "outbox")
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr == b"30 messages from 1 on cannot be read: missing or unreadable segments\n"


def test_mistakes(mb: Run, outbox: Path) -> None:
    for arguments in (["missing"], ["."], ["outbox", "--lane", "other"]):
        done: subprocess.CompletedProcess[bytes] = mb("tail", *arguments)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
