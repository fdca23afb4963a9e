"""``mb status --watch``: on a terminal, in a pipe, as JSON, and across a directory that goes and comes."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mbframework import MessageBuffer
from mbframework.cli.watch import frame_of
from tests.cli.conftest import MB, Run, Start, environment


def test_one_line_of_json_for_each_look(start: Start, tmp_path: Path) -> None:
    with MessageBuffer(tmp_path / "outbox", "fault:?inner=fake:&outage=0s+1h", close_timeout=0) as buffer:
        process = start("status", "outbox", "--json", "--watch", "100ms")
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert (first["schema"], first["lanes"][0]["accepted"]) == (1, 0)
        buffer.write_many("t", [b"x"] * 7)
        found = first
        while not (found["lanes"][0]["accepted"] == 7 and found["lanes"][0]["rates"]["in"]):
            found = json.loads(process.stdout.readline())
        assert found["at"] > first["at"]
        assert found["lanes"][0]["verdict"].keys() == {"kind", "text", "seconds"}
    shutil.move(tmp_path / "outbox", tmp_path / "elsewhere")
    while "error" not in (found := json.loads(process.stdout.readline())):
        pass
    assert "cannot be read: No such file or directory" in found["error"]
    shutil.move(tmp_path / "elsewhere", tmp_path / "outbox")
    while "lanes" not in (found := json.loads(process.stdout.readline())):
        pass
    assert found["lanes"][0]["accepted"] == 7
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")


def test_one_report_for_each_look_where_there_is_no_terminal(start: Start, tmp_path: Path) -> None:
    MessageBuffer(tmp_path / "outbox").close()
    process = start("status", "outbox", "--watch", "0.1", env={"FORCE_COLOR": "1"})
    assert process.stdout is not None
    seen = b""
    while seen.count(b"nothing was lost") < 3:
        seen += process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"\x1b[H" not in seen
    lines = seen.decode().splitlines()
    assert lines[0].endswith("Z")
    assert lines[0][:2] == "20"
    assert sum("outlook       closed, nothing waits" in each for each in lines) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing", "--watch"], "is not a directory"),
        ([".", "--watch"], "is not a buffer"),
        (["outbox", "--watch", "0"], "expected a time from 100ms to 1d"),
        (["outbox", "--watch", "2d"], "expected a time from 100ms to 1d"),
        (["outbox", "--watch=soon"], "--watch: 'soon'"),
        (["--watch", "outbox"], "Missing argument 'DIR'"),
    ],
)
def test_a_mistake_is_status_2(mb: Run, tmp_path: Path, arguments: list[str], said: str) -> None:
    MessageBuffer(tmp_path / "outbox").close()
    done = mb("status", *arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert said in done.stderr.decode().splitlines()[-1]


def test_a_reader_that_goes_away_ends_it(start: Start, tmp_path: Path) -> None:
    MessageBuffer(tmp_path / "outbox").close()
    process = start("status", "outbox", "--watch", "0.1")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) in (0, 1)
    assert process.stderr is not None
    assert process.stderr.read() == b""


class Terminal:
    """What a program has sent to the terminal that it runs on."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.sent = b""

    def wait_for(self, text: bytes, *, after: int = 0) -> int:
        """Where ``text`` stands; read until it does."""
        deadline = time.monotonic() + 20
        while (at := self.sent.find(text, after)) < 0:
            assert time.monotonic() < deadline, self.sent[-3000:]
            if select.select([self._fd], [], [], 0.2)[0]:
                self.sent += os.read(self._fd, 65_536)
        return at

    def type(self, keys: bytes) -> None:
        os.write(self._fd, keys)


@contextmanager
def on_a_terminal(
    folder: Path, *arguments: str, env: dict[str, str]
) -> Iterator[tuple[Terminal, subprocess.Popen[bytes]]]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*MB, *arguments], cwd=folder, env=environment({"TERM": "xterm", "LINES": "14", "COLUMNS": "60"} | env),
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        yield Terminal(ours), process
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.parametrize("colours", [True, False])
def test_a_terminal_is_drawn_over(tmp_path: Path, colours: bool) -> None:
    with MessageBuffer(tmp_path / "outbox", "fault:?inner=fake:&outage=0s+1h", close_timeout=0) as buffer:
        buffer.write("t", "1")
        env = {} if colours else {"NO_COLOR": "1"}
        with on_a_terminal(tmp_path, "status", "outbox", "--watch", "0.2", env=env) as (terminal, process):
            at = terminal.wait_for(b"\x1b[J\x1b[?7h")
            first = terminal.sent[:at]
            assert first.startswith(b"\r\n" * 13 + b"\x1b[H\x1b[?7l20")
            assert first.count(b"\x1b[H") == 1
            assert (b"\x1b[1m" in first) is colours
            assert b"every 200ms; Ctrl-C ends it\x1b[K\r\n" in first
            assert first.count(b"\r\n", first.index(b"\x1b[H")) <= 13
            (tmp_path / "outbox").rename(tmp_path / "elsewhere")
            gone = terminal.wait_for(b"cannot be read: No such file", after=at)
            (tmp_path / "elsewhere").rename(tmp_path / "outbox")
            terminal.wait_for(b"buffering", after=gone)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
            assert terminal.wait_for(b"\r\x1b[K", after=gone)
            assert b"Traceback" not in terminal.sent
            # The screen is not scrolled after the first time.
            assert b"\r\n\r\n\r\n" not in terminal.sent[at:]


def test_a_dumb_terminal_gets_reports(tmp_path: Path) -> None:
    MessageBuffer(tmp_path / "outbox").close()
    with on_a_terminal(tmp_path, "status", "outbox", "--watch", "0.1", env={"TERM": "dumb"}) as (terminal, _):
        second = terminal.wait_for(b"nothing was lost", after=terminal.wait_for(b"nothing was lost") + 1)
        assert b"\x1b[H" not in terminal.sent[:second]


def test_a_frame_fits_and_ends_where_it_begins() -> None:
    lines = [f"\x1b[31mline {number}\x1b[0m" for number in range(10)]
    frame = frame_of(lines, 24, colours=True)
    assert frame.startswith("\x1b[H\x1b[?7l\x1b[31mline 0")
    assert frame.endswith("line 9\x1b[0m\x1b[K\n\x1b[J\x1b[?7h")
    assert "\x1b[31m" not in frame_of(lines, 24, colours=False)
    for rows in range(1, 12):
        text = frame_of(lines, rows, colours=False)
        assert text.count("\n") == min(10, max(1, rows - 1))
    assert "line 2\x1b[K\n… 7 more lines" in frame_of(lines, 5, colours=False)
