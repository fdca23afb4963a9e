"""``open``: how long a program waits for a buffer that holds a backlog, until its first write() has returned.

A process writes the backlog while the provider is down, is killed with -9 in the middle of writing, or closes in order;
then fresh processes open the directory one after the other, each of which ends as the first did.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbframework.testing.kafka_probe import free_ports
from mbframework.units import GiB, parse_size
from tests.bench.figures import median_and_spread
from tests.bench.report import Report

DEMANDED_MS = 100.0


@dataclass(frozen=True)
class Case:
    """``killed``: how the processes end; ``segments``: None for segments of the usual size, 0 for no backlog."""

    name: str
    killed: bool
    segments: int | None = None
    #: Write as fast as it goes until the end: the segments are then not yet sealed, nor synced.
    full_speed: bool = False
    another_boot: bool = False
    cold: bool = False
    kafka: bool = False


CASES = (
    Case("no backlog, closed (for comparison)", killed=False, segments=0),
    Case("closed", killed=False),
    Case("closed, 1,000 segments", killed=False, segments=1000),
    Case("kill -9", killed=True),
    Case("kill -9 at full speed", killed=True, full_speed=True),
    Case("kill -9, 1,000 segments", killed=True, segments=1000),
    Case("kill -9 at full speed, 1,000 segments", killed=True, segments=1000, full_speed=True),
    Case("kill -9, Kafka URL, nobody listens", killed=True, kafka=True),
    Case("kill -9, files not in memory", killed=True, cold=True),
    Case("kill -9, as if the machine had restarted", killed=True, another_boot=True),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``open``."""
    parser.add_argument("--backlog", default="1GB", help="bytes of backlog (default 1GB)")
    parser.add_argument("--value", default="100", help="bytes of a value (default 100)")
    parser.add_argument("--repeat", type=int, default=7, help="openings of each case (default 7)")
    parser.add_argument("--only", help="only the cases whose names contain this")


def run(chosen: argparse.Namespace) -> Report:
    """Measure every case."""
    report = Report("open")
    table = report.table(
        f"MessageBuffer(...) until the first write() has returned, with {chosen.backlog} of backlog, in ms:"
        f" median (lowest … highest) of {chosen.repeat}; demanded: at most {DEMANDED_MS:g}",
        "", "together", "MessageBuffer()", "write()", "CPU time", "segments", "messages waiting",
    )  # fmt: skip
    imports: list[float] = []
    for case in CASES:
        if chosen.only and chosen.only not in case.name:
            continue
        with tempfile.TemporaryDirectory(prefix="mb-bench-", dir=chosen.directory) as folder:
            samples = _measure(case, os.path.join(folder, "buffer"), parse_size(chosen.backlog), chosen)
        imports += [sample["import_ms"] for sample in samples]
        opened = [sample["open_ms"] for sample in samples]
        wrote = [sample["write_ms"] for sample in samples]
        both = [a + b for a, b in zip(opened, wrote, strict=True)]
        last = samples[-1]
        cpu = median_and_spread([sample["cpu_ms"] for sample in samples])
        table.add(
            case.name, median_and_spread(both), median_and_spread(opened), median_and_spread(wrote, 2), cpu,
            f"{last['segments']:,}", f"{last['resident']:,}", case=case.name, samples=samples,
        )  # fmt: skip
        if not all(sample["balanced"] for sample in samples):
            report.remarks.append(f"{case.name}: the accounts DO NOT BALANCE")
    report.remarks.append(
        f"Not counted: importing mbframework, {median_and_spread(imports)} ms. "
        "A file system that takes long to sync adds to every row, also to that of the empty buffer; on a busy machine "
        "the CPU time, that of all threads of the process together, tells more."
    )
    return report


def _measure(case: Case, directory: str, backlog: int, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    options: dict[str, Any] = {"total_size": max(4 * backlog, GiB), "mode": "buffer"}
    if case.segments:
        options["segment_size"] = max(64 * 1024, backlog // case.segments)
    order = {
        "directory": directory,
        "provider": f"kafka://127.0.0.1:{min(free_ports(1))}" if case.kafka else "fake://?outage=0s%2B1000000s",
        "options": options,
        "value": parse_size(chosen.value),
        "backlog": backlog if case.segments != 0 else 0,
        "full_speed": case.full_speed,
    }
    samples: list[dict[str, Any]] = []
    for number in range(chosen.repeat + 1):
        order["boot"] = number if case.another_boot else 0
        if case.cold and number:
            _forget_pages(Path(directory))
        with _process(order) as process:
            first, _ = _lines(process, 2)
            if number:
                samples.append(first)
            if case.killed:
                # Somewhere in the middle of its writing; long enough for a few segments at full speed.
                time.sleep(1.0 + 0.01 * number)
                process.send_signal(signal.SIGKILL)
    return samples


@contextmanager
def _process(order: dict[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.writer", json.dumps(order)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
        if process.stdin is not None:
            process.stdin.close()
        process.wait(120)
    finally:
        process.kill()
        process.wait()


def _lines(process: subprocess.Popen[bytes], count: int) -> list[dict[str, Any]]:
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(count)]
    if not all(lines):
        sys.exit("open: the writing process has ended; what it said stands above")
    return [json.loads(line) for line in lines]


def _forget_pages(directory: Path) -> None:
    """Drop what the system keeps of the buffer's files in memory; what is not synced stays there."""
    for path in directory.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            try:
                os.fsync(fd)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)
