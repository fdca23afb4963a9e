"""What these tests share: options that make time short, a disk that fails when told to, programs to kill, a sampler."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mbframework import LaneStatus, Message, MessageBuffer, read_status
from mbframework.files import Files

#: Seconds after which something that should have happened will not.
WAIT_S = 60.0

#: Retries come at once, live is not far off, and leaving gives up soon.
FAST: dict[str, Any] = {
    "retry_wait": 0.005,
    "retry_wait_max": 0.02,
    "live_after": 0.02,
    "status_interval": 0.1,
    "close_timeout": 0.5,
    "catch_up": "full",
}
#: Small enough that a few hundred messages fill the buffer.
SMALL: dict[str, Any] = {"segment_size": "64KiB", "total_size": "256KiB", "min_free": 0}


def eventually(condition: Callable[[], object], what: str, timeout: float = WAIT_S) -> None:
    """Wait for a condition that nothing announces, such as the content of a directory."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about within {timeout:g} s"
        pause.wait(0.005)


def in_state(buffer: MessageBuffer, *states: str) -> None:
    """Wait until the lane is in one of these states."""
    eventually(lambda: buffer.status().state in states, f"state {' or '.join(states)}")


def numbers(messages: Iterable[Message]) -> list[int]:
    """What arrived, where the values are numbers followed by padding."""
    return [int((message.value or b"").split(b" ")[0]) for message in messages]


def padded(number: int, size: int) -> bytes:
    """A value of ``size`` bytes that says its number."""
    return f"{number} ".encode().ljust(size, b".")


def lane_files(buffer: MessageBuffer) -> list[str]:
    """The names of the lane's segment files; a prepared one counts only once it is in use."""
    return sorted(name for name in os.listdir(Path(buffer.directory, buffer.lane)) if name.endswith(".seg"))


def from_directory(buffer: MessageBuffer) -> LaneStatus:
    """The status of the buffer's lane as the directory alone tells it."""
    return next(lane for lane in read_status(buffer.directory).lanes if lane.name == buffer.lane)


ACCOUNTS = ("accepted", "delivered", "pruned", "expired", "dead", "purged", "lost", "resident_messages")


def accounts(status: LaneStatus) -> dict[str, int]:
    """The accounts of a status."""
    return {name: getattr(status, name) for name in ACCOUNTS}


def at_rest(buffer: MessageBuffer) -> dict[str, int]:
    """The accounts at rest: balanced, and the same from inside and from the directory."""
    status = buffer.status()
    assert status.balanced, accounts(status)
    # The head's slot is stored with the heartbeat; what is read between two of them may be a little old.
    eventually(lambda: accounts(from_directory(buffer)) == accounts(buffer.status()), "the directory's agreement")
    return accounts(buffer.status())


def events(buffer: MessageBuffer, kind: str, half: str = "writer") -> list[dict[str, Any]]:
    """The lines of one kind in the lane's event file."""
    path = Path(buffer.directory, buffer.lane, f"events.{half}.jsonl")
    lines = path.read_text().splitlines() if path.exists() else []
    return [line for line in map(json.loads, lines) if line["kind"] == kind]


@contextmanager
def sampled(buffer: MessageBuffer) -> Iterator[list[LaneStatus]]:
    """Look at the status all the time, from another thread: the accounts must balance at every moment."""
    seen: list[LaneStatus] = []
    wrong: list[LaneStatus] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.002):
            status = buffer.status()
            if not seen or seen[-1].state != status.state:
                seen.append(status)
            if not status.balanced:
                wrong.append(status)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()
    assert not wrong, f"{len(wrong)} times out of balance, first: {wrong[0]}"


class Disk(Files):
    """The disk, with as little room as ``free`` says, failing where ``error`` says so; ``calls`` counts."""

    def __init__(self) -> None:
        self.free: int | None = None
        self.error: Callable[[str], int] = lambda _call: 0
        self.calls: Counter[str] = Counter()

    def fail(self, number: int, *calls: str) -> None:
        """From now on these calls (all that change something, where none is named) fail with this errno."""
        self.error = lambda call: number if not calls or call in calls else 0

    def mend(self) -> None:
        """Work again."""
        self.error = lambda _call: 0

    def _call(self, name: str) -> None:
        self.calls[name] += 1
        number = self.error(name)
        if number:
            raise OSError(number, os.strerror(number))

    def open(self, path: str, *, create: bool = False, exclusive: bool = False, write: bool = True) -> int:
        if create:
            self._call("create")
        return super().open(path, create=create, exclusive=exclusive, write=write)

    def pwrite(self, fd: int, data: bytes, offset: int) -> None:
        self._call("pwrite")
        super().pwrite(fd, data, offset)

    def reserve(self, fd: int, size: int) -> None:
        self._call("reserve")
        super().reserve(fd, size)

    def datasync(self, fd: int) -> None:
        self._call("datasync")
        super().datasync(fd)

    def sync_directory(self, path: str) -> None:
        self._call("sync_directory")
        super().sync_directory(path)

    def truncate(self, fd: int, size: int) -> None:
        self._call("truncate")
        super().truncate(fd, size)

    def rename(self, source: str, target: str) -> None:
        self._call("rename")
        super().rename(source, target)

    def unlink(self, path: str) -> None:
        self._call("unlink")
        super().unlink(path)

    def free_bytes(self, path: str) -> int:
        return super().free_bytes(path) if self.free is None else self.free


FULL = (errno.ENOSPC, errno.EDQUOT)
BROKEN = (errno.EIO, errno.EROFS)


def buffer_on(disk: Files, directory: Path, provider: Any, **options: Any) -> MessageBuffer:
    """A buffer on such a disk."""

    class OnDisk(MessageBuffer):
        @staticmethod
        def _make_files() -> Files:
            return disk

    return OnDisk(directory, provider, **FAST | options)


class Program:
    """A Python program in a process of its own; what it prints comes line by line."""

    def __init__(self, text: str, *arguments: object) -> None:
        prelude = (
            "import os, signal, sys, threading, time\n"
            "from mbframework import *\n"
            "from tests.engine.rig import FAST, SMALL\n"
            # Where the tests run in the background it would be ignored.
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", prelude + text, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it ended with {self.process.wait()}: {self.process.stderr and self.process.stderr.read()}"
        return line.strip()

    def tell(self, line: str) -> None:
        """Give it a line to read."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send it a signal and wait for its end; its exit status."""
        self.process.send_signal(number)
        return self.end()[0]

    def end(self, timeout: float = WAIT_S) -> tuple[int, str, str]:
        """Wait for its end: exit status, the rest of its output, its errors."""
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err


@contextmanager
def program(text: str, *arguments: object) -> Iterator[Program]:
    """A program that is gone at the end, whatever happens."""
    made = Program(text, *arguments)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
        made.process.communicate()
