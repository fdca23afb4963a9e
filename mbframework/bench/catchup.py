"""``catchup``: messages per second, and CPU time per message, from a backlog on disk to a provider that does nothing
but take what it is given; and where that time goes.

A backlog is written while the buffer is paused, which is then resumed, until the last message is acknowledged. Rounds
of all cases are interleaved. What of it is reading, ``mb bench read`` tells.

Then how smooth ``max_rate`` is: messages in each tenth of a second, of those that the limit allows.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from mbframework import MessageBuffer
from mbframework.bench.backlog import Frames
from mbframework.bench.figures import median_and_spread, percentile
from mbframework.bench.report import Report
from mbframework.bench.setting import setting
from mbframework.bench.worker import MeasurementFailed
from mbframework.message import Batch
from mbframework.provider import Provider
from mbframework.units import parse_size

_SLICE_S = 0.1


@dataclass(frozen=True)
class Case:
    """``waits``: seconds of each send()."""

    backlog: Frames
    waits: float = 0.0

    @property
    def name(self) -> str:
        """For people."""
        return str(self.backlog) + (f", send() waits {1000 * self.waits:g} ms" if self.waits else "")


CASES = (
    Case(Frames(1000)),
    Case(Frames(10)),
    Case(Frames(1)),
    Case(Frames(1, rich=True)),
    Case(Frames(1000), waits=0.005),
    Case(Frames(1), waits=0.005),
)


@dataclass
class Samples:
    """Per message: µs of time and of CPU through the whole buffer (all threads), of CPU by the sender's thread alone.
    ``batches`` of a drain; ``idle``: the part of the time in which no send() was under way."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    sender: list[float] = field(default_factory=list)
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
    for case in cases:
        samples = found[case.name]
        whole.add(
            case.name,
            median_and_spread([1e6 / each for each in samples.wall], 0),
            median_and_spread(samples.cpu, 2),
            median_and_spread(samples.sender, 2),
            f"{settings.messages / statistics.median(samples.batches):,.0f}",
            f"{statistics.median(samples.idle):.0%}",
            case=case.name, samples=samples,
        )  # fmt: skip
    _smoothness(report, settings, directory)
    return report


def _measure(case: Case, folder: str, value: bytes, messages: int, samples: Samples) -> None:
    provider = Taker(case.waits)
    directory = os.path.join(folder, "buffer")
    with MessageBuffer(directory, provider, mode="always", catch_up="full", total_size="4GB") as buffer:
        # Connected, and past what is done once.
        buffer.write("topic", value)
        buffer.flush(60)
        buffer.pause()
        case.backlog.write(buffer, value, messages)
        buffer.sync()
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
    if provider.taken != messages + 1:
        raise MeasurementFailed(f"{provider.taken:,} messages arrived of {messages + 1:,}")


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
