"""``dashboard``: what ``mbtui`` costs, as a program in a pseudo-terminal of 120 by 40 beside a real engine, and what
``mb status`` takes.

First useful paint is the time from starting the program until the state and the segments stand on the terminal; key to
paint from writing a key until the row it leads to has come. ``mb status`` is the installed command, from its start to
its end. A writer that writes as fast as it can is compared in turns of half a second, while the dashboard runs and
while it is stopped (SIGSTOP), pair by pair, so that both see the same machine; one pair says little, many do. Its
processor time a message is what the dashboard does to it; its pace also has in it what else the machine does.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Self

from mbframework.bench.figures import median_and_doubt, median_and_spread, percentile
from mbframework.bench.report import Report
from mbframework.monitor import Monitor
from tests.monitor.lanes import make_lane

_TICKS = os.sysconf("SC_CLK_TCK")
_PAINTED = b"SEGMENTS "
_AWAY = "fake://?outage=0s%2B1000000s"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``dashboard``."""
    parser.add_argument("--segments", type=int, default=1000, help="segments of the backlog (default 1000)")
    parser.add_argument("--many", type=int, default=100_000, help="segments of a dead lane (default 100,000; 0: none)")
    parser.add_argument("--repeat", type=int, default=7, help="starts (default 7)")
    parser.add_argument("--pairs", type=int, default=80, help="pairs of turns of the writer (default 80)")
    parser.add_argument("--keys", type=int, default=100, help="keys pressed (default 100)")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each load is watched (default 10)")
    parser.add_argument("--rate", type=int, default=10_000, help="messages a second under load (default 10,000)")


def run(chosen: argparse.Namespace) -> Report:
    """Measure everything."""
    report = Report("dashboard")
    table = report.table("mbtui in a terminal of 120 by 40", "", "measured", "at most", "")
    with tempfile.TemporaryDirectory(prefix="mb-bench-", dir=chosen.directory) as folder:
        _with_backlog(os.path.join(folder, "backlog"), chosen, report, table)
        if chosen.many:
            _with_many(os.path.join(folder, "many"), chosen, table)
        _with_traffic(os.path.join(folder, "traffic"), chosen, table)
        _beside_the_writer(os.path.join(folder, "beside"), chosen, table)
    return report


def _with_backlog(directory: str, chosen: argparse.Namespace, report: Report, table: Any) -> None:
    # Four messages fill a segment of the smallest size.
    order = _order(directory, value=15_000, backlog=4 * chosen.segments, segment_size="64KiB", total_size="6GiB")
    with _writer(order):
        firsts = _firsts(directory)
        paints = []
        for _ in range(chosen.repeat):
            with Terminal(directory) as terminal:
                paints.append(terminal.painted)
        name = f"first useful paint, {len(firsts):,} segments, s"
        _add(table, name, median_and_spread(paints, 2), median(paints), 0.6, samples=paints)
        _status(directory, f"{len(firsts):,} segments", chosen.repeat, table)
        with Terminal(directory) as terminal:
            terminal.rest(2.0)
            _keys(terminal, firsts, chosen, "", table)
            share = terminal.busy(chosen.seconds)
            _add(table, "CPU, idle engine, % of a core", f"{share:.1f}", share, 3, share=share)
            memory = terminal.memory()
            _memory(table, f"{len(firsts):,} segments", memory)
    report.remarks.append("The figures of key to paint include the pseudo-terminal and the process that reads it.")


def _keys(terminal: Terminal, firsts: list[int], chosen: argparse.Namespace, load: str, table: Any) -> None:
    waits = sorted(terminal.keys(firsts, chosen.keys, far=not load))
    late = percentile(waits, 0.95)
    told = f"{late:.0f} (median {percentile(waits, 0.5):.0f})"
    _add(table, f"key to paint{load}, p95 of {len(waits)}, ms", told, late, 60, samples=waits)


def _with_many(directory: str, chosen: argparse.Namespace, table: Any) -> None:
    make_lane(Path(directory), chosen.many, 15)
    paints = []
    for _ in range(3):
        with Terminal(directory) as terminal:
            paints.append(terminal.painted)
            terminal.rest(2.0)
            memory = terminal.memory()
    name = f"first useful paint, {chosen.many:,} segments, s"
    _add(table, name, median_and_spread(paints, 2), median(paints), 1.5, samples=paints)
    _memory(table, f"{chosen.many:,} segments", memory)
    _status(directory, f"{chosen.many:,} segments", chosen.repeat, table)


def _memory(table: Any, what: str, memory: int) -> None:
    _add(table, f"resident memory, {what}, MiB", f"{memory / 2**20:.0f}", memory / 2**20, 120, memory=memory)


def _add(table: Any, name: str, told: str, measured: float, most: float, **samples: Any) -> None:
    """A row: what was ``measured``, as it is ``told``, beside the ``most`` that it may be."""
    table.add(name, told, f"{most:g}", "met" if measured <= most else "MISSED", **samples)


def _status(directory: str, what: str, repeat: int, table: Any) -> None:
    command = [str(Path(sys.executable).with_name("mb")), "status", directory]
    samples = []
    # The first one brings it into the page cache.
    for _ in range(1 + repeat):
        began = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        samples.append(time.perf_counter() - began)
    del samples[0]
    _add(table, f"`mb status`, {what}, s", median_and_spread(samples, 2), median(samples), 0.2, samples=samples)


def _with_traffic(directory: str, chosen: argparse.Namespace, table: Any) -> None:
    for name, provider in (("live", "fake:"), ("buffering", _AWAY)):
        backlog = 100_000 if provider == _AWAY else 0
        order = _order(
            f"{directory}-{name}", provider=provider, rate=chosen.rate, backlog=backlog, segment_size="1MiB",
            total_size="256MiB",
        )  # fmt: skip
        with _writer(order), Terminal(f"{directory}-{name}") as terminal:
            terminal.rest(2.0)
            share = terminal.busy(chosen.seconds)
            what = f"CPU, {chosen.rate:,} messages/s, {name}, % of a core"
            _add(table, what, f"{share:.1f}", share, 10, share=share)
            if backlog:
                firsts = _firsts(f"{directory}-{name}")[:10]
                _keys(terminal, firsts, chosen, f", {chosen.rate:,} messages/s, {name}", table)


def _beside_the_writer(directory: str, chosen: argparse.Namespace, table: Any) -> None:
    order = _order(directory, provider=_AWAY, slot=0.5, segment_size="4MiB", total_size="256MiB")
    with _writer(order) as writer, Terminal(directory) as terminal:
        spent, slower = [], []
        for turn in range(chosen.pairs):
            # The order changes from pair to pair, so that a drift does not count for one of them.
            turns = {stopped: _turn(writer, terminal, stopped) for stopped in ((False, True), (True, False))[turn % 2]}
            (messages, seconds), (messages_alone, seconds_alone) = turns[False], turns[True]
            spent.append(100 * (seconds / messages / (seconds_alone / messages_alone) - 1))
            slower.append(100 * (1 - messages / messages_alone))
        name = f"processor time of the writer for a message, % more (median of {len(spent)} pairs, and its bounds)"
        _add(table, name, median_and_doubt(spent), median(spent), 2, samples=spent)
        name = "pace of the writer, % less (the same pairs)"
        _add(table, name, median_and_doubt(slower), median(slower), 2, samples=slower)


def _turn(writer: subprocess.Popen[bytes], terminal: Terminal, stopped: bool) -> tuple[int, float]:
    """Messages, and the seconds of processor time that they took."""
    assert writer.stdin is not None
    assert writer.stdout is not None
    if stopped:
        os.kill(terminal.process.pid, signal.SIGSTOP)
    try:
        writer.stdin.write(b"\n")
        writer.stdin.flush()
        while not select.select([writer.stdout], [], [], 0.01)[0]:
            terminal.read(0.0)
        messages, seconds = writer.stdout.readline().split()
        return int(messages), float(seconds)
    finally:
        os.kill(terminal.process.pid, signal.SIGCONT)
        terminal.rest(0.1)


def _order(
    directory: str, *, provider: str = _AWAY, value: int = 100, backlog: int = 0, rate: int = 0, slot: float = 0.0,
    **options: str,
) -> dict[str, Any]:  # fmt: skip
    return {
        "directory": directory, "provider": provider, "value": value, "backlog": backlog, "rate": rate, "slot": slot,
        "options": {"mode": "buffer", **options},
    }  # fmt: skip


@contextmanager
def _writer(order: dict[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.watched", json.dumps(order)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline() != b"ready\n":
            sys.exit("dashboard: the writing process has ended; what it said stands above")
        yield process
        process.stdin.close()
        process.wait(30)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def _firsts(directory: str) -> list[int]:
    """The first sequence of each segment."""
    monitor = Monitor(directory)
    try:
        (lane,) = monitor.look().lanes
        return [row.first for row in lane.segments.rows(0, len(lane.segments))]
    finally:
        monitor.close()


class Terminal:
    """``mbtui`` in a pseudo-terminal. ``painted``: seconds until the first useful paint."""

    def __init__(self, directory: str) -> None:
        self._main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        environ = os.environ | {"TERM": "xterm-256color"}
        environ.pop("NO_COLOR", None)
        began = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mbtui", directory], stdin=side, stdout=side, stderr=side, env=environ,
            start_new_session=True,
        )  # fmt: skip
        os.close(side)
        self.wait_for(_PAINTED, 60.0)
        self.painted = time.perf_counter() - began

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        deadline = time.monotonic() + 10
        while self.process.poll() is None and time.monotonic() < deadline:
            self.read(0.05)
        self.process.kill()
        self.process.wait()
        os.close(self._main)

    def read(self, timeout: float) -> bytes:
        """What has come, after at most so many seconds."""
        if not select.select([self._main], [], [], timeout)[0]:
            return b""
        try:
            return os.read(self._main, 1 << 16)
        except OSError:
            # The other side has gone.
            return b""

    def wait_for(self, text: bytes, timeout: float = 5.0) -> None:
        """Read until this has come."""
        seen, deadline = b"", time.monotonic() + timeout
        while text not in seen:
            if time.monotonic() > deadline or self.process.poll() is not None:
                sys.exit(f"dashboard: mbtui did not show {text!r}; it said {seen[-500:]!r}")
            seen = seen[-4096:] + self.read(0.1)

    def rest(self, seconds: float) -> None:
        """Read and forget."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.read(left)

    def keys(self, firsts: list[int], count: int, *, far: bool) -> list[float]:
        """Milliseconds from each key to the row that it leads to; ``far``: the last of them is the last there is."""
        os.write(self._main, b"g")
        self.rest(0.5)
        waits, row = [], 0
        for number in range(count):
            # Down most of the time; now and then to the other end.
            key, row = (b"j", row + 1) if number % 10 or row > 5 or not far else (b"G", len(firsts) - 1)
            if row >= len(firsts):
                key, row = b"g", 0
            began = time.perf_counter()
            os.write(self._main, key)
            self.wait_for(f"{firsts[row]:,}".encode())
            waits.append(1000 * (time.perf_counter() - began))
            self.rest(0.03)
        return waits

    def busy(self, seconds: float) -> float:
        """Percent of a core, all threads together."""
        before = self._cpu()
        began = time.monotonic()
        self.rest(seconds)
        return 100 * (self._cpu() - before) / (time.monotonic() - began)

    def _cpu(self) -> float:
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory(self) -> int:
        """Resident bytes."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS"))
