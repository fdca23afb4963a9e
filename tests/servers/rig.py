"""What these tests share: a server as a process group that never outlives a test, its load, and the account."""

from __future__ import annotations

import http.client
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import pytest

from mbframework import read_status
from mbframework.testing.kafka_probe import free_ports
from tests.engine.rig import eventually

HERE = Path(__file__).parent


def require(*modules: str) -> None:
    """Skip the test where one of these is not installed; with ``CI=true``, fail it."""
    for module in modules:
        if find_spec(module) is None:
            miss = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
            miss(f"{module} is not installed; run: pip install 'mbframework[dev]'")


class Served:
    """One server, its buffer and its destination, all below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outbox = folder / "outbox"
        self.destination = folder / "arrived.db"
        (self.port,) = free_ports(1)
        self.accepted: list[int] = []
        #: The processes that served since the last one was killed.
        self.serving: set[int] = set()
        self.killed: set[int] = set()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def slow(self, latency: str) -> str:
        """The URL of the destination by a slow way: something waits in memory at any moment."""
        inner = quote(f"sqlite://{self.destination}?synchronous=off", safe="")
        return f"fault://?inner={inner}&latency={latency}"

    @contextmanager
    def run(self, *command: str, env: Mapping[str, str] | None = None) -> Iterator[Served]:
        """``python -m command``. At the end nothing of it is left, however the test ended."""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MBFRAMEWORK_")},
            "OUTBOX": str(self.outbox),
            "DESTINATION": f"sqlite://{self.destination}?synchronous=off",
            "PYTHONPATH": str(HERE),
            # gunicorn keeps a socket there.
            "HOME": str(self.folder),
            **(env or {}),
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=log,
                # All that it starts is in this group.
                start_new_session=True,
            )
        try:
            yield self
        finally:
            group, self.process = self.process, None
            try:
                os.killpg(group.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            group.wait()

    def get(self, path: str = "") -> int:
        """What the server answers: the process that served. Raises OSError or HTTPException where it does not."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request("GET", f"/{path}")
            answer = connection.getresponse()
            if answer.status != 200:
                raise ConnectionError(f"status {answer.status}")
            return int(answer.read())

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            return bool(self.get())
        except (OSError, http.client.HTTPException):
            return False

    @contextmanager
    def load(self, clients: int = 4) -> Iterator[None]:
        """Inside, so many clients write numbers; those that were answered for are ``accepted``."""
        numbers, stop, lock = iter(range(1_000_000)), threading.Event(), threading.Lock()

        def ask() -> None:
            while not stop.is_set():
                with lock:
                    number = next(numbers)
                try:
                    pid = self.get(str(number))
                except (OSError, http.client.HTTPException):
                    # A worker was killed: nobody knows of this one.
                    continue
                with lock:
                    self.accepted.append(number)
                    self.serving.add(pid)

        threads = [threading.Thread(target=ask) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def more(self, count: int, workers: int) -> None:
        """Wait until so many more were accepted, and so many processes serve: each has a lane then."""
        goal = len(self.accepted) + count
        eventually(
            lambda: len(self.accepted) >= goal and len(self.serving - self.killed) >= workers,
            f"{goal} by {workers} workers",
            40,
        )

    def kill_a_worker(self) -> None:
        """kill -9 of whichever answers."""
        pid = self.get()
        self.killed.add(pid)
        assert self.process is not None
        assert pid != self.process.pid
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not _runs(pid), f"the end of {pid}")
        self.serving.clear()

    def terminate(self, timeout: float = 40) -> None:
        """SIGTERM, and wait until it is gone by itself."""
        assert self.process is not None
        self.process.terminate()
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it does not end: {self.log.read_text()}")

    def ended(self, timeout: float = 60) -> None:
        """Wait until it has ended by itself, as it should."""
        assert self.process is not None
        assert self.process.wait(timeout) == 0, self.log.read_text()

    def arrived(self) -> list[int]:
        with closing(sqlite3.connect(self.destination)) as database:
            return [int(value) for (value,) in database.execute("SELECT value FROM messages ORDER BY id")]

    def account(self, *, lanes: int) -> None:
        """All that was accepted arrived, nothing arrived twice, nothing waits; no more lanes than that."""
        arrived = self.arrived()
        assert len(arrived) == len(set(arrived)), "something arrived twice"
        found = read_status(self.outbox).lanes
        missing = set(self.accepted) - set(arrived)
        where = [(lane.name, lane.accepted, lane.delivered, lane.last_error) for lane in found]
        assert not missing, f"of {len(self.accepted)} are missing {len(missing)}; lanes: {where}"
        assert all(lane.balanced and (lane.resident, lane.lost, lane.pruned) == (0, 0, 0) for lane in found), found
        assert sum(lane.delivered for lane in found) == len(arrived)
        assert len(found) <= lanes, [lane.name for lane in found]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def tail(path: Path, words: Sequence[str]) -> list[str]:
    """The lines of a log that have one of these words."""
    return [line for line in path.read_text().splitlines() if any(word in line for word in words)]
