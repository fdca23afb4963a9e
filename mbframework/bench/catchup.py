"""``catchup``: messages per second, and CPU time per message, from a backlog on disk to a provider that does nothing
but take what it is given; and where that time goes.

A backlog is written while the buffer is paused. Before it is sent, the same files are read by the buffer's own reader
alone, and frame by frame with each of its checks, which is what the reader's short way past frames of one message must
equal. Then the buffer is resumed, until the last message is acknowledged. Rounds of all cases are interleaved.

Then how smooth ``max_rate`` is: messages in each tenth of a second, of those that the limit allows.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mbframework import MessageBuffer
from mbframework.bench.figures import median_and_spread, percentile
from mbframework.bench.report import Report
from mbframework.bench.setting import setting
from mbframework.bench.worker import MeasurementFailed
from mbframework.files import Files
from mbframework.message import Batch
from mbframework.provider import Provider
from mbframework.spool import frame, layout, segment_header
from mbframework.spool.reader import Gap, SpoolReader
from mbframework.units import MiB, parse_size

_SLICE_S = 0.1
_FIRST = 2  # of the backlog: one message goes before, so that the lane is connected and warm


@dataclass(frozen=True)
class Case:
    """``many``: messages of a frame. ``rich``: with a key and headers. ``waits``: seconds of each send()."""

    name: str
    many: int
    rich: bool = False
    waits: float = 0.0


CASES = (
    Case("frames of 1,000", 1000),
    Case("frames of 10", 10),
    Case("frames of 1", 1),
    Case("frames of 1, key and headers", 1, rich=True),
    Case("frames of 1,000, send() waits 5 ms", 1000, waits=0.005),
    Case("frames of 1, send() waits 5 ms", 1, waits=0.005),
)


@dataclass
class Samples:
    """Per message: µs of time and of CPU through the whole buffer (all threads), of CPU by the sender's thread alone;
    µs of CPU of bare reading, and of reading frame by frame. ``batches`` of a drain; ``idle``: the part of the time in
    which no send() was under way."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    sender: list[float] = field(default_factory=list)
    read: list[float] = field(default_factory=list)
    by_frame: list[float] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)


class Taker(Provider):
    """Takes batches, after a wait in which other threads may run, and notes the time that it takes about it."""

    def __init__(self, waits: float) -> None:
        self.waits = waits
        self.batches = self.taken = 0
        self.inside = 0.0
        #: CPU time of the sender's thread when the latest batch came.
        self.cpu = 0.0

    def send(self, batch: Batch) -> None:
        begun = time.perf_counter()
        self.cpu = time.thread_time()
        self.taken += len(batch)
        self.batches += 1
        if self.waits:
            time.sleep(self.waits)
        self.inside += time.perf_counter() - begun


@dataclass(frozen=True)
class Settings:
    """The options of ``catchup``."""

    rounds: int = setting(5, "Rounds.")
    messages: int = setting(300_000, "Messages of one backlog.")
    value: str = setting("100", "Bytes of a value.")
    only: str = setting("", "Only the cases whose names contain this.")
    rate: int = setting(20_000, "max_rate, messages per second.")
    seconds: float = setting(5.0, "How long that rate is watched.")


def run(settings: Settings, directory: str) -> Report:
    """Measure all cases."""
    cases = [case for case in CASES if settings.only in case.name]
    found = {case.name: Samples() for case in cases}
    for _ in range(settings.rounds):
        for case in cases:
            with tempfile.TemporaryDirectory(prefix="mb-bench-", dir=directory) as folder:
                _measure(case, folder, bytes(parse_size(settings.value)), settings.messages, found[case.name])
    report = Report("catchup")
    rounds = f"median (lowest … highest) of {settings.rounds} interleaved rounds"
    whole = report.table(
        f"Through the whole buffer, {settings.value}-byte value: {rounds}",
        "", "messages/s", "µs of CPU a message", "of it the sender's", "messages a batch", "no send() under way",
    )  # fmt: skip
    reading = report.table(
        f"Reading alone, µs of CPU a message: {rounds}",
        "", "the reader", "frame by frame", "× frame by frame", "of the sender's CPU",
    )  # fmt: skip
    for case in cases:
        samples = found[case.name]
        facts: dict[str, Any] = {"case": case.name, "samples": samples}
        whole.add(
            case.name,
            median_and_spread([1e6 / each for each in samples.wall], 0),
            median_and_spread(samples.cpu, 2),
            median_and_spread(samples.sender, 2),
            f"{settings.messages / statistics.median(samples.batches):,.0f}",
            f"{statistics.median(samples.idle):.0%}",
            **facts,
        )
        read, by_frame = statistics.median(samples.read), statistics.median(samples.by_frame)
        reading.add(
            case.name, median_and_spread(samples.read, 2), median_and_spread(samples.by_frame, 2),
            f"{by_frame / read:.1f}", f"{read / statistics.median(samples.sender):.0%}", **facts,
        )  # fmt: skip
    _smoothness(report, settings, directory)
    report.remarks.append(
        "× frame by frame: how many times as fast as checking and decoding one frame after the other from files that "
        "are in memory; more is better."
    )
    return report


def _measure(case: Case, folder: str, value: bytes, messages: int, samples: Samples) -> None:
    provider = Taker(case.waits)
    directory = os.path.join(folder, "buffer")
    with MessageBuffer(directory, provider, mode="always", catch_up="full", total_size="4GB") as buffer:
        buffer.write("topic", value)
        buffer.flush(60)
        buffer.pause()
        _write(buffer, case, value, messages)
        buffer.sync()
        lane = os.path.join(directory, buffer.lane)
        samples.read.append(_cost(lambda: _read(lane, messages), messages))
        samples.by_frame.append(_cost(lambda: _by_frame(lane), messages))
        batches, inside, sender = provider.batches, provider.inside, provider.cpu
        begun, cpu = time.perf_counter(), time.process_time()
        buffer.resume()
        buffer.flush(600)
        spent = time.perf_counter() - begun
        samples.wall.append(spent / messages * 1e6)
        samples.cpu.append((time.process_time() - cpu) / messages * 1e6)
        samples.sender.append((provider.cpu - sender) / messages * 1e6)
        samples.batches.append(provider.batches - batches)
        samples.idle.append(max(0.0, 1 - (provider.inside - inside) / spent))
    if provider.taken != messages + _FIRST - 1:
        raise MeasurementFailed(f"{provider.taken:,} messages arrived of {messages + _FIRST - 1:,}")


class Noter(Provider):
    """Takes batches, and notes when how many came. ``full`` when it has ``wanted``."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self.came: list[tuple[float, int]] = []
        self.full = threading.Event()

    def send(self, batch: Batch) -> None:
        self.came.append((time.perf_counter(), len(batch)))
        self._wanted -= len(batch)
        if self._wanted <= 0:
            self.full.set()


def _smoothness(report: Report, settings: Settings, directory: str) -> None:
    wanted = max(1, int(settings.rate * settings.seconds))
    provider = Noter(wanted)
    with tempfile.TemporaryDirectory(prefix="mb-bench-", dir=directory) as folder:
        with MessageBuffer(
            os.path.join(folder, "buffer"), provider, mode="always", catch_up="full", max_rate=settings.rate,
            close_timeout=0,
        ) as buffer:  # fmt: skip
            for _ in range(0, wanted, 1000):
                buffer.write_many("topic", [bytes(parse_size(settings.value))] * 1000)
            if not provider.full.wait(10 * settings.seconds + 30):
                raise MeasurementFailed(f"max_rate={settings.rate:,}: {wanted:,} messages took over ten times too long")
    shares = [100 * count / (settings.rate * _SLICE_S) for count in sliced(provider.came, _SLICE_S)]
    table = report.table(
        f"max_rate={settings.rate:,}: messages in each tenth of a second, % of what it allows",
        "", "median", "p1", "p99", "most", "over all",
    )  # fmt: skip
    ordered = sorted(shares)
    figures = [statistics.median(shares), *(percentile(ordered, share) for share in (0.01, 0.99, 1.0))]
    figures.append(statistics.fmean(shares))
    table.add("messages", *(f"{figure:.0f}" for figure in figures), shares=shares)


def sliced(came: Sequence[tuple[float, int]], seconds: float) -> list[int]:
    """How many came in each whole slice of time from the first on; the last, which is not whole, is left out."""
    begun = came[0][0]
    counts = [0] * (int((came[-1][0] - begun) / seconds) + 1)
    for moment, count in came:
        counts[int((moment - begun) / seconds)] += count
    return counts[:-1] or counts


def _write(buffer: MessageBuffer, case: Case, value: bytes, messages: int) -> None:
    key = b"key-0001" if case.rich else None
    headers = [("content-type", b"application/json"), ("trace", b"0123456789abcdef")] if case.rich else None
    if case.many == 1:
        for _ in range(messages):
            buffer.write("topic", value, key=key, headers=headers)
        return
    for first in range(0, messages, case.many):
        buffer.write_many("topic", [value] * min(case.many, messages - first))


def _cost(call: Callable[[], None], messages: int) -> float:
    """µs of this thread's CPU time per message."""
    begun = time.thread_time()
    call()
    return (time.thread_time() - begun) / messages * 1e6


def _read(lane: str, messages: int) -> None:
    """By the buffer's reader, in batches of the usual size."""
    reader = SpoolReader(Files(), lane)
    position, ordinal, hint, end = 1, 0, (0, 0), messages + _FIRST
    try:
        while position < end:
            found = reader.read(position, ordinal, until=end, max_messages=10_000, max_bytes=MiB, hint=hint)
            if found is None:
                raise MeasurementFailed(f"nothing to read at sequence {position:,}")
            if isinstance(found, Gap):
                position, ordinal = found.next, found.ordinal
                continue
            hint = found.segment, found.offset
            position, ordinal = found.end, ordinal + len(found)
    finally:
        reader.close()


def _by_frame(lane: str) -> None:
    """One frame after the other."""
    for path in sorted(Path(lane).glob("*.seg")):
        raw = path.read_bytes()
        header = segment_header.unpack(raw[:256])
        offset = layout.FIRST_FRAME
        while header is not None:
            found = frame.read_header(raw, offset, header.salt)
            if found is None:
                break
            frame.decode(raw, offset, header.salt, found)
            offset = frame.next_offset(offset, found.length)
