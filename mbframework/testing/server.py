"""A server of the tests as a process of ours: started, killed, frozen and brought back on the same port and data.

Promises:

- The server listens on 127.0.0.1 only, keeps its data in a temporary folder that ``stop()`` removes (or in one that was
  named, which stays), and takes clients when ``start()`` returns.
- :meth:`Server.kill` and :meth:`Server.freeze` reach its child processes as well.
- No server outlives this process, however this process ends (Linux; elsewhere: however it ends but by SIGKILL).
- A server that refuses to run as root runs as another user.

A subclass says how the server is made and started, and when it answers. A server's methods may be called from any
thread, one at a time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Self

from mbframework.testing.kafka_probe import free_ports

# Becomes another user where that is asked for, asks Linux to kill the process when the thread that started it ends (a
# change of user would undo that), then becomes the server. A launcher rather than preexec_fn, which is not safe in a
# process with threads.
_LAUNCHER = """
import ctypes, os, sys
parent, user, group = map(int, sys.argv[1:4])
if user >= 0:
    os.setgroups([])
    os.setgid(group)
    os.setuid(user)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
    if os.getppid() != parent:
        sys.exit("the process that started this server has ended")
os.execvp(sys.argv[4], sys.argv[4:])
"""


class ServerError(RuntimeError):
    """The server cannot be had, does not come up, or is not running; the text says the next step."""


class Server(ABC):
    """One server. As a context manager it is started on entry and stopped on exit.

    :param data: a folder for data and log, which is kept; None: a temporary one, removed by :meth:`stop`.
    """

    #: What it is called in errors.
    name = "the server"
    #: User and group ids that it runs as; None: ours.
    user: tuple[int, int] | None = None

    def __init__(self, data: Path | None = None) -> None:
        (self.port,) = free_ports(1)
        self._data = data
        self._keeps_data = data is not None
        self._prepared = False
        self._process: subprocess.Popen[bytes] | None = None
        # Starts the server and lives until stop(): the server is killed when the thread that started it ends.
        self._keeper: ThreadPoolExecutor | None = None

    @classmethod
    @abstractmethod
    def available(cls) -> str | None:
        """None where the server can be started here, else why not and the command that mends it."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """The command line that runs the server in the foreground."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it takes clients now; returns within about a second."""

    def prepare(self) -> None:  # noqa: B027 - most servers need nothing
        """Make what the first start needs in :attr:`data`."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Its provider URL."""

    @property
    def data(self) -> Path:
        """The folder of the server's data and its ``server.log``."""
        if self._data is None:
            self._data = Path(tempfile.mkdtemp(prefix="mbframework-server-"))
            if self.user is not None:
                os.chown(self._data, *self.user)
        return self._data

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        return self._running().pid

    def start(self, timeout: float = 60.0) -> Self:
        """Start the server and wait until it takes clients, at most ``timeout`` seconds.

        :raises ServerError: it does not come up; the last lines of its log are in the text.
        """
        if self._process is not None:
            raise ServerError(f"{self.name} is running already; stop() or kill() it first")
        if reason := self.available():
            raise ServerError(reason)
        if self._keeper is None:
            self._keeper = ThreadPoolExecutor(1, "test-server-keeper")
        deadline = time.monotonic() + timeout
        if not self._prepared:
            try:
                self.prepare()
            except BaseException:
                self.stop()
                raise
            self._prepared = True
        self._process = self._launch()
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = (self.data / "server.log").read_bytes()[-2000:].decode(errors="replace")
                self.stop()
                raise ServerError(f"{self.name} did not come up within {timeout:g} s; its log ends:\n{tail}")
            time.sleep(0.02)  # a listening socket cannot be awaited
        return self

    def kill(self) -> None:
        """Kill -9, its children too: nothing is flushed, clients see their connections reset. The data stays."""
        process = self._running()
        children = _children(process.pid)
        process.send_signal(signal.SIGKILL)
        _signal(children, signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 5
        while any(map(_lives, children)) and time.monotonic() < deadline:
            time.sleep(0.002)  # they are not our children, which could be awaited
        self._process = None

    def shut_down(self, timeout: float = 15.0) -> None:
        """End it in order (SIGTERM), with all it has on disk; it is killed where that takes longer than ``timeout``
        seconds. :meth:`start` goes on there."""
        process = self._running()
        self.thaw()
        process.terminate()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def restart(self, timeout: float = 60.0) -> None:
        """Start again on the same port and data, killing the server first where it still runs."""
        if self._process is not None:
            self.kill()
        self.start(timeout)

    def ensure_running(self, timeout: float = 60.0) -> None:
        """Thaw the server, or start it again where it was killed; does nothing to a running one."""
        if self._process is not None and self._process.poll() is None:
            self.thaw()
        else:
            self._process = None
            self.start(timeout)

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, the kernel still accepts new ones, nothing is answered."""
        process = self._running()
        process.send_signal(signal.SIGSTOP)
        _signal(_children(process.pid), signal.SIGSTOP)
        # A thread that is at work stops a little later than the call returns.
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self) -> None:
        """SIGCONT: the end of :meth:`freeze`."""
        process = self._running()
        _signal(_children(process.pid), signal.SIGCONT)
        process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End the server, and remove its data unless the caller named the folder. May be called twice."""
        if self._process is not None:
            if self._keeps_data:
                self.shut_down()
            else:
                self.kill()
        if self._keeper is not None:
            self._keeper.shutdown()
            self._keeper = None
        if self._data is not None and not self._keeps_data:
            shutil.rmtree(self._data, ignore_errors=True)
            self._data, self._prepared = None, False

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def run(self, *command: str) -> str:
        """Run a tool as the server's user, in the folder of its data; what it printed.

        :raises ServerError: it failed; what it said is in the text.
        """
        user, group = self.user or (None, None)
        done = subprocess.run(
            command, cwd=self.data, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            check=False, user=user, group=group, extra_groups=None if user is None else [],
        )  # fmt: skip
        said = done.stdout.decode(errors="replace")
        if done.returncode != 0:
            raise ServerError(f"{' '.join(command)} failed:\n{said[-2000:]}")
        return said

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ServerError(f"{self.name} is not running; start() it first")
        return self._process

    def _launch(self) -> subprocess.Popen[bytes]:
        assert self._keeper is not None
        user, group = self.user or (-1, -1)
        command = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), str(user), str(group)]
        return self._keeper.submit(self._open, [*command, *self.command()]).result()

    def _open(self, command: list[str]) -> subprocess.Popen[bytes]:
        with open(self.data / "server.log", "ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.data, start_new_session=True
            )


def run_in_foreground(server: Server) -> int:
    """Run a server until SIGINT or SIGTERM, for demos; print its URL. The exit status of the process."""
    arrived = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: arrived.set())
    try:
        with server:
            print(server.url, flush=True)
            arrived.wait()
    except ServerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _children(pid: int) -> list[int]:
    """The child processes; none where the system does not tell."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _lives(pid: int) -> bool:
    """Whether the process still holds what it had open; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
