"""``check``: how fast ``mb verify`` reads a backlog, beside reading the same files and beside their CRC-32 alone; and
how much of a backlog ``mb peek`` reads to show one message.

``mb verify`` is the installed command, from its start to its end. For a peek every byte that is read from segments is
counted, in backlogs of two sizes, for messages at the beginning, in the middle and at the end.
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
from zlib import crc32

from mbframework import MessageBuffer
from mbframework.bench.figures import median_and_spread, number
from mbframework.bench.report import Report
from mbframework.bench.setting import setting
from mbframework.bench.tally import TallyProvider
from mbframework.bench.worker import MeasurementFailed
from mbframework.browse import Entry, LaneBrowser
from mbframework.files import Files
from mbframework.units import MiB, format_size, parse_size

_MANY = 1000


@dataclass(frozen=True)
class Settings:
    """The options of ``check``."""

    backlog: str = setting("1GB", "Bytes of backlog.")
    value: str = setting("100", "Bytes of a value, for mb verify.")
    peeked: str = setting("10000", "Bytes of a value, for mb peek.")
    rounds: int = setting(5, "Rounds.")


class CountingFiles(Files):
    """Files that count what is read of segments: how often, and how many bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = self.bytes = 0

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        data = super().pread(fd, size, offset)
        self.reads += 1
        self.bytes += len(data)
        return data


def run(settings: Settings, directory: str) -> Report:
    """Measure both."""
    report = Report("check")
    backlog = parse_size(settings.backlog)
    with tempfile.TemporaryDirectory(prefix="mb-bench-", dir=directory) as folder:
        buffer = _write(os.path.join(folder, "buffer"), backlog, parse_size(settings.value), _MANY)
        _verify(report, settings, buffer)
    table = report.table(
        f"One message of {settings.peeked} bytes, each in a frame of its own, shown out of a backlog",
        "", "bytes read", "reads", "of the backlog", "ms",
    )  # fmt: skip
    for size in (backlog // 50, backlog):
        with tempfile.TemporaryDirectory(prefix="mb-bench-", dir=directory) as folder:
            buffer = _write(os.path.join(folder, "buffer"), size, parse_size(settings.peeked), 1)
            lane = next(path for path in buffer.iterdir() if path.is_dir())
            end = LaneBrowser(str(lane)).end
            read = []
            for place, at in (("first", 1), ("middle", end // 2), ("last", end - 1)):
                files = CountingFiles()
                begun = time.perf_counter()
                (entry,) = LaneBrowser(str(lane), files).page(at, 1)
                spent = 1e3 * (time.perf_counter() - begun)
                if not isinstance(entry, Entry):
                    raise MeasurementFailed(f"the message {at:,} of {end - 1:,} cannot be read: {entry.why}")
                read.append(files.bytes)
                table.add(
                    f"{format_size(size)}, the {place}", f"{files.bytes:,}", f"{files.reads:,}",
                    f"{files.bytes / size:.4%}", f"{spent:.2f}", backlog=size, place=place, read=files.bytes,
                )  # fmt: skip
    # Of the larger one.
    report.found("peek", [100 * max(read) / backlog], f"the whole backlog, {settings.backlog}")
    return report


def _write(directory: str, backlog: int, value: int, many: int) -> Path:
    """A closed buffer that nothing was sent of."""
    provider = TallyProvider(numbered=False)
    provider.away.set()
    content = bytes(value)
    with MessageBuffer(
        directory, provider, mode="always", close_timeout=0, total_size=max(4 * backlog, 64 * MiB)
    ) as buffer:  # fmt: skip
        for _ in range(max(1, backlog // (value * many))):
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
    done = subprocess.run(
        [sys.executable, "-m", "mbframework", "verify", str(buffer)], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode or "intact" not in done.stdout:
        raise MeasurementFailed(f"mb verify: {done.stdout[-300:]}")


def _read(buffer: Path, use: Callable[[bytes], int]) -> None:
    for path in buffer.rglob("*.seg"):
        with open(path, "rb", buffering=0) as file:
            while data := file.read(MiB):
                use(data)
