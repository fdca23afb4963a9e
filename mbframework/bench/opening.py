"""``open``: how long a program waits for a buffer that holds a backlog, until its first write() has returned.

A process writes the backlog while the provider is down; then fresh processes open the directory one after the other.
Each is killed with -9 in the middle of writing more, or closes in order; the first of a case does not count, since it
finds what the case before has left.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbframework.bench.figures import median_and_spread
from mbframework.bench.report import Report, Table
from mbframework.bench.setting import setting
from mbframework.bench.worker import Worker
from mbframework.testing.kafka_probe import free_ports
from mbframework.units import GiB, MiB, parse_size


@dataclass(frozen=True)
class Settings:
    """The options of ``open``."""

    backlog: str = setting("10GB", "Bytes of backlog.")
    value: str = setting("1000", "Bytes of a value.")
    repeat: int = setting(7, "Openings of each case.")
    only: str = setting("", "Only the cases whose names contain this.")


@dataclass(frozen=True)
class Case:
    """``killed``: how the processes end."""

    name: str
    killed: bool = True
    #: Write as fast as it goes until the end: the segments are then not yet sealed, nor synced.
    full_speed: bool = False
    another_boot: bool = False
    cold: bool = False
    kafka: bool = False


#: By the backlog that they share: None for segments of the usual size, 0 for no backlog, or how many segments.
CASES: dict[int | None, tuple[Case, ...]] = {
    0: (Case("no backlog, closed (for comparison)", killed=False),),
    None: (
        Case("closed", killed=False),
        Case("kill -9"),
        Case("kill -9 at full speed", full_speed=True),
        Case("kill -9, Kafka URL, nobody listens", kafka=True),
        Case("kill -9, files not in memory", cold=True),
        Case("kill -9, as if the machine had restarted", another_boot=True),
    ),
    1000: (
        Case("1,000 segments, closed", killed=False),
        Case("1,000 segments, kill -9"),
        Case("1,000 segments, kill -9 at full speed", full_speed=True),
    ),
}


def run(settings: Settings, directory: str) -> Report:
    """Measure every case."""
    report = Report("open")
    table = report.table(
        f"MessageBuffer(...) until the first write() has returned, with {settings.backlog} of backlog, in ms:"
        f" median (lowest … highest) of {settings.repeat}",
        "", "together", "MessageBuffer()", "write()", "CPU time", "RssAnon, MiB", "segments", "messages waiting",
    )  # fmt: skip
    worst: list[float] = []
    empty: list[float] = []
    held: list[list[float]] = []
    for segments, cases in CASES.items():
        chosen = [case for case in cases if settings.only in case.name]
        if not chosen:
            continue
        with tempfile.TemporaryDirectory(prefix="mb-bench-", dir=directory) as folder:
            order = _order(os.path.join(folder, "buffer"), segments, settings)
            for case in chosen:
                samples = _measure(case, order, settings.repeat)
                memory = [sample["anon"] / MiB for sample in samples]
                if segments == 0:
                    empty = memory
                else:
                    held.append(memory)
                both = [sample["open_ms"] + sample["write_ms"] for sample in samples]
                if segments != 0 and (not worst or statistics.median(both) > statistics.median(worst)):
                    worst, slowest = both, case.name
                _row(table, case, samples, both)
                if not all(sample["balanced"] for sample in samples):
                    report.remarks.append(f"{case.name}: the accounts DO NOT BALANCE")
    if worst:
        report.found("open", worst, f"{settings.backlog}, the slowest case: {slowest}")
    if empty and held:
        most = max(held, key=statistics.median)
        more = [each - statistics.median(empty) for each in most]
        report.found("memory-open", more, f"the empty buffer; {settings.backlog}")
    report.remarks.append(
        f"Not counted: importing mbframework, {median_and_spread(_imports(settings.repeat))} ms. A file system that"
        " takes long to sync adds to every row, also to that of the empty buffer; on a busy machine the CPU time, that"
        " of all threads of the process together, tells more."
    )
    return report


def _imports(repeat: int) -> list[float]:
    program = "import time; begun = time.perf_counter(); import mbframework; print(time.perf_counter() - begun)"
    command = [sys.executable, "-c", program]
    return [1e3 * float(subprocess.check_output(command)) for _ in range(repeat)]


def _row(table: Table, case: Case, samples: list[dict[str, Any]], both: list[float]) -> None:
    columns = (
        both,
        [sample["open_ms"] for sample in samples],
        [sample["write_ms"] for sample in samples],
        [sample["cpu_ms"] for sample in samples],
        [sample["anon"] / MiB for sample in samples],
    )
    last = samples[-1]
    table.add(
        case.name, *map(median_and_spread, columns), f"{last['segments']:,}", f"{last['resident']:,}",
        case=case.name, samples=samples,
    )  # fmt: skip


def _order(directory: str, segments: int | None, settings: Settings) -> dict[str, Any]:
    backlog = parse_size(settings.backlog)
    options: dict[str, Any] = {"total_size": max(4 * backlog, GiB), "mode": "buffer"}
    if segments:
        options["segment_size"] = max(64 * 1024, backlog // segments)
    return {
        "directory": directory, "options": options, "value": parse_size(settings.value),
        "backlog": 0 if segments == 0 else backlog,
    }  # fmt: skip


def _measure(case: Case, order: dict[str, Any], repeat: int) -> list[dict[str, Any]]:
    provider = f"kafka://127.0.0.1:{min(free_ports(1))}" if case.kafka else "fake://?outage=0s%2B1000000s"
    order |= {"provider": provider, "full_speed": case.full_speed}
    samples: list[dict[str, Any]] = []
    for number in range(repeat + 1):
        order["boot"] = number if case.another_boot else 0
        if case.cold and number:
            _forget_pages(Path(order["directory"]))
        with Worker("opener") as process:
            first = process.ask(**order)
            process.answer()
            if not number:
                # What is measured is opening, and not how fast the device writes a backlog that has just been made.
                os.sync()
            if number:
                samples.append(first)
            if case.killed:
                # Somewhere in the middle of its writing; long enough for a few segments at full speed.
                time.sleep(1.0 + 0.01 * number)
                process.kill()
    return samples


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
