"""``check``: how fast ``mb verify`` reads a backlog, beside reading the same files and beside their CRC-32 alone; and
how much of a backlog ``mb peek`` reads to show one message.

Both are the installed commands, from their start to their end. Of ``mb peek`` the system counts what the process reads,
in backlogs of two sizes, for messages at the beginning, in the middle and at the end; what the same command reads where
nothing waits, Python's own files, is taken off. It maps no file, so that nothing escapes the count.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from mbframework import MessageBuffer
from mbframework.bench.figures import median_and_spread, number
from mbframework.bench.report import Report
from mbframework.bench.setting import setting
from mbframework.bench.tally import TallyProvider
from mbframework.bench.worker import MeasurementFailed
from mbframework.browse import LaneBrowser
from mbframework.units import MiB, format_size, parse_size

_MANY = 1000
_MB = (sys.executable, "-m", "mbframework")


@dataclass(frozen=True)
class Settings:
    """The options of ``check``."""

    backlog: str = setting("1GB", "Bytes of backlog.")
    value: str = setting("100", "Bytes of a value, for mb verify.")
    peeked: str = setting("10000", "Bytes of a value, for mb peek.")
    rounds: int = setting(5, "Rounds.")


class Cost(NamedTuple):
    """Of one command, in a process of its own: what it read, whatever of, and how long it took."""

    bytes: int
    reads: int
    milliseconds: float


def run(settings: Settings, directory: str) -> Report:
    """Measure both."""
    report = Report("check")
    backlog = parse_size(settings.backlog)
    with tempfile.TemporaryDirectory(prefix="mb-bench-", dir=directory) as folder:
        buffer = _write(os.path.join(folder, "buffer"), backlog, parse_size(settings.value), _MANY)
        _verify(report, settings, buffer)
    if not Path("/proc/self/io").exists():
        report.missing("peek", "nobody tells here what a process reads; Linux does, in /proc/PID/io")
        return report
    table = report.table(
        f"mb peek --at: one message of {settings.peeked} bytes, in a frame of its own, out of a backlog; what it reads"
        " beyond what it does where nothing waits",
        "", "bytes read", "reads", "of the backlog", "ms, as a whole",
    )  # fmt: skip
    value = parse_size(settings.peeked)
    for size in (backlog // 50, backlog):
        with tempfile.TemporaryDirectory(prefix="mb-bench-", dir=directory) as folder:
            nothing = _peek(_write(os.path.join(folder, "empty"), 0, value, 1), 1, found=False)
            buffer = _write(os.path.join(folder, "buffer"), size, value, 1)
            lane = next(path for path in buffer.iterdir() if path.is_dir())
            end = LaneBrowser(str(lane)).end
            read = []
            for place, at in (("first", 1), ("middle", end // 2), ("last", end - 1)):
                cost = _peek(buffer, at, found=True)
                read.append(cost.bytes - nothing.bytes)
                if read[-1] < value:
                    raise MeasurementFailed(f"mb peek has read {read[-1]} bytes to show {value}: nobody counted them")
                table.add(
                    f"{format_size(size)}, the {place}", f"{read[-1]:,}", f"{cost.reads - nothing.reads:,}",
                    f"{read[-1] / size:.4%}", f"{cost.milliseconds:.0f}", backlog=size, place=place, read=read[-1],
                )  # fmt: skip
    # Of the larger one.
    report.found("peek", [100 * max(read) / backlog], f"the whole backlog, {settings.backlog}")
    return report


def _peek(buffer: Path, at: int, *, found: bool) -> Cost:
    """What ``mb peek`` costs, which should have found something or not."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        [*_MB, "peek", str(buffer), "--at", str(at)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    with process.stderr:
        said = process.stderr.read()
    # Ended, but not yet gone: it can still be asked.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    spent = 1e3 * (time.perf_counter() - begun)
    facts = dict(line.split(": ") for line in Path(f"/proc/{process.pid}/io").read_text(encoding="ascii").splitlines())
    if process.wait() != (0 if found else 1):
        raise MeasurementFailed(f"mb peek --at {at}: {said[-300:]}")
    return Cost(int(facts["rchar"]), int(facts["syscr"]), spent)


def _write(directory: str, backlog: int, value: int, many: int) -> Path:
    """A closed buffer that nothing was sent of."""
    provider = TallyProvider(numbered=False)
    provider.away.set()
    content = bytes(value)
    with MessageBuffer(
        directory, provider, mode="always", close_timeout=0, total_size=max(4 * backlog, 64 * MiB)
    ) as buffer:  # fmt: skip
        for _ in range(backlog // (value * many)):
            if many == 1:
                buffer.write("topic", content)
            else:
                buffer.write_many("topic", [content] * many)
    return Path(directory)


def _verify(report: Report, settings: Settings, buffer: Path) -> None:
    size = sum(path.stat().st_size for path in buffer.rglob("*.seg"))
    ways: dict[str, Callable[[], None]] = {
        "mb verify": lambda: _command(buffer),
        "reading the files, a MiB at a time": lambda: _read(buffer, len),
        "reading them, and zlib.crc32()": lambda: _read(buffer, crc32),
    }
    paces: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(settings.rounds):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            paces[name].append(size / 1e6 / (time.perf_counter() - begun))
    table = report.table(
        f"{format_size(size)} of segments in memory: median (lowest … highest) of {settings.rounds} interleaved rounds",
        *("", "MB/s", "× mb verify"),
    )
    verify = statistics.median(paces["mb verify"])
    for name, pace in paces.items():
        table.add(name, median_and_spread(pace, 0), number(statistics.median(pace) / verify), name=name, pace=pace)
    report.found("verify", paces["mb verify"])


def _command(buffer: Path) -> None:
    done = subprocess.run([*_MB, "verify", str(buffer)], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode or "intact" not in done.stdout:
        raise MeasurementFailed(f"mb verify: {done.stdout[-300:]}")


def _read(buffer: Path, use: Callable[[bytes], int]) -> None:
    for path in buffer.rglob("*.seg"):
        with open(path, "rb", buffering=0) as file:
            while data := file.read(MiB):
                use(data)
