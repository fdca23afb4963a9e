"""The books that are kept outside the buffer, one for each life of the writer, by the process that supervises it.

Promises
--------
- Every report that left the writer is counted, however the writer ended: what it put into the pipe outlives it.
- Numbers rise by one from 0, sequences by one within a life, and never fall from one life to the next; anything else
  is among the ``faults``.

A life's thread reads the pipe; whoever started it may read the counts at any time, and has them whole after ``end()``.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path

from tests.torture.writer import REPORT, Assignment

_ROOT = Path(__file__).parents[2]
_PIPE_BYTES = 1 << 20


class Life:
    """One life of the writer and its ledger. ``floor``: the greatest sequence of earlier lives."""

    def __init__(self, assignment: Assignment, log: Path, floor: int) -> None:
        self.number = assignment.life
        self.reported = 0
        self.first_sequence = 0
        self.last_sequence = floor
        self.slowest_ns = 0
        self.faults: list[str] = []
        #: Set with the first report, and when the writer has ended.
        self.begun = threading.Event()
        self._reader, fd = os.pipe()
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        told = json.dumps(asdict(replace(assignment, fd=fd)))
        try:
            with log.open("ab") as errors:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "tests.torture.writer", told],
                    stdin=subprocess.PIPE, stdout=errors, stderr=errors, pass_fds=(fd,), cwd=_ROOT,
                )  # fmt: skip
        except BaseException:
            os.close(self._reader)
            raise
        finally:
            os.close(fd)
        self._thread = threading.Thread(target=self._read, name=f"ledger-{self.number}", daemon=True)
        self._thread.start()

    def alive(self) -> bool:
        """Whether the writer runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill -9; returns when the ledger is complete."""
        self._process.send_signal(signal.SIGKILL)
        self._ended()

    def end(self, timeout: float) -> int:
        """Let the writer deliver and close; its exit status. It is killed where it takes longer than ``timeout``."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
        return self._ended()

    def _ended(self) -> int:
        status = self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._thread.join()
        return status

    def _read(self) -> None:
        rest = b""
        while data := os.read(self._reader, 1 << 16):
            data = rest + data
            whole = len(data) - len(data) % REPORT.size
            for number, sequence, took in REPORT.iter_unpack(data[:whole]):
                self._count(number, sequence, took)
            rest = data[whole:]
            self.begun.set()
        if rest:
            self.faults.append(f"life {self.number}: a report was torn")
        os.close(self._reader)
        self.begun.set()

    def _count(self, number: int, sequence: int, took: int) -> None:
        if number != self.reported:
            self.faults.append(f"life {self.number}: message {number} was reported after {self.reported - 1}")
        expected = self.last_sequence + 1
        if sequence < expected or (self.reported and sequence != expected):
            self.faults.append(f"life {self.number}: message {number} got sequence {sequence}; expected {expected}")
        if not self.reported:
            self.first_sequence = sequence
        self.last_sequence = sequence
        self.reported = number + 1
        self.slowest_ns = max(self.slowest_ns, took)
