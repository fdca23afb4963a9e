"""The dashboard's end by a signal, with its terminal in any state: it comes, and the terminal is as it was."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mbframework import MessageBuffer


class OnTerminal:
    """``mbtui`` on a terminal of its own, which is read only when the test says so."""

    def __init__(self, *arguments: str) -> None:
        self.leader, self.follower = pty.openpty()
        termios.tcsetwinsize(self.leader, (40, 120))
        self.before = termios.tcgetattr(self.follower)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mbtui", *arguments],
            stdin=self.follower,
            stdout=self.follower,
            stderr=self.follower,
            env={**os.environ, "TERM": "xterm-256color"},
            start_new_session=True,
            # One system call, and no thread runs here: the terminal becomes the controlling one.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
        )

    def shows(self, words: bytes, seconds: float = 60.0) -> None:
        seen, deadline = b"", time.monotonic() + seconds
        while words not in seen:
            assert select.select([self.leader], [], [], max(0.0, deadline - time.monotonic()))[0], seen[-2000:]
            seen += os.read(self.leader, 65536)

    def rest(self) -> bytes:
        """What it still sends, until it has ended."""
        seen = b""
        while self.process.poll() is None or select.select([self.leader], [], [], 0)[0]:
            if select.select([self.leader], [], [], 0.1)[0]:
                seen += os.read(self.leader, 65536)
        return seen

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for fd in (self.leader, self.follower):
            with suppress(OSError):
                os.close(fd)


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[OnTerminal]:
    MessageBuffer(tmp_path / "b", None, mode="always").close()
    made = OnTerminal(str(tmp_path / "b"))
    try:
        made.shows(b"SEGMENTS")
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_the_terminal_is_as_it_was(number: signal.Signals, shown: OnTerminal) -> None:
    shown.process.send_signal(number)
    told = shown.rest()
    assert shown.process.returncode == 128 + number
    assert b"\x1b[?1049l" in told
    assert b"\x1b[?25h" in told
    assert b"Traceback" not in told
    assert termios.tcgetattr(shown.follower) == shown.before


def test_a_terminal_that_takes_nothing_does_not_hold_it(shown: OnTerminal) -> None:
    # Nobody reads: what the changing sizes make it draw is more than the terminal holds.
    deadline, rows = time.monotonic() + 60.0, 30
    while select.select([], [shown.follower], [], 0)[1]:
        assert time.monotonic() < deadline
        rows = 70 - rows
        termios.tcsetwinsize(shown.leader, (rows, 120))
        time.sleep(0.05)
    shown.process.send_signal(signal.SIGTERM)
    assert shown.process.wait(60) == 128 + signal.SIGTERM
    assert termios.tcgetattr(shown.follower) == shown.before


def test_a_terminal_that_is_closed_ends_it_even_without_a_signal(tmp_path: Path) -> None:
    MessageBuffer(tmp_path / "b", None, mode="always").close()
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "mbtui", str(tmp_path / "b")]
    environ = {**os.environ, "TERM": "xterm-256color"}
    # Not its controlling terminal: nothing is sent when that is closed.
    with subprocess.Popen(
        command, stdin=follower, stdout=follower, stderr=follower, env=environ, start_new_session=True
    ) as process:
        os.close(follower)
        try:
            seen = b""
            while b"SEGMENTS" not in seen:
                seen += os.read(leader, 65536)
            os.close(leader)
            process.wait(60)
        finally:
            process.kill()
