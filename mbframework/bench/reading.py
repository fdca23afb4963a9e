"""``read``: what it costs to read a backlog from disk, in C and in plain Python, by the buffer's own reader: checked,
decoded, and in columns, as a provider gets it.

Compared with checking and decoding one frame after the other, and with reading the bytes of the files alone. They are
in memory. Rounds are interleaved.
"""

from __future__ import annotations

import os
import statistics
from contextlib import ExitStack
from dataclasses import dataclass
from tempfile import TemporaryDirectory

from mbframework import MessageBuffer, speedups
from mbframework.bench.backlog import Frames
from mbframework.bench.figures import median_and_spread, number, ratios
from mbframework.bench.report import Report
from mbframework.bench.setting import setting
from mbframework.bench.worker import Worker
from mbframework.units import parse_size

PLAIN, COMPILED = "plain Python", "in C"
BACKLOGS = (Frames(1000), Frames(10), Frames(1), Frames(1, rich=True))


@dataclass(frozen=True)
class Settings:
    """The options of ``read``."""

    rounds: int = setting(5, "Rounds.")
    messages: int = setting(200_000, "Messages of one backlog.")
    value: str = setting("100", "Bytes of a value.")
    only: str = setting("", "Only the backlogs whose names contain this.")


def run(settings: Settings, directory: str) -> Report:
    """Measure all backlogs on both paths."""
    report = Report("read")
    value, backlogs = bytes(parse_size(settings.value)), [each for each in BACKLOGS if settings.only in str(each)]
    with ExitStack() as stack:
        # Ours, and removed by us: a worker may be killed in the middle.
        folder = stack.enter_context(TemporaryDirectory(prefix="mb-bench-", dir=directory))
        paths = {PLAIN: stack.enter_context(Worker("reading_case", **{speedups.VARIABLE: "off"}))}
        compiled = stack.enter_context(Worker("reading_case", **{speedups.VARIABLE: "auto"}))
        if why := compiled.ask(what="path"):
            report.remarks.append(f"not measured: the extension in C: {why}")
        else:
            paths[COMPILED] = compiled
        lanes = {each: _written(each, os.path.join(folder, str(each)), value, settings.messages) for each in backlogs}
        costs: dict[tuple[Frames, str, str], list[float]] = {}
        for _ in range(settings.rounds):
            for backlog, lane in lanes.items():
                for path, worker in paths.items():
                    for what in ("reader", "by_frame", "file"):
                        spent = worker.ask(what=what, lane=lane, messages=settings.messages)
                        costs.setdefault((backlog, path, what), []).append(spent)
    table = report.table(
        f"µs of processor time a message, {settings.value}-byte value: median (lowest … highest) of {settings.rounds}"
        " interleaved rounds",
        "", "the reader", "frame by frame", "the bytes alone", "× frame by frame", "messages/s, one core",
    )  # fmt: skip
    for backlog in backlogs:
        for path in paths:
            ours, frames, files = (costs[backlog, path, what] for what in ("reader", "by_frame", "file"))
            once = ratios(frames, ours)
            table.add(
                f"{path}: {backlog}", *(median_and_spread(each, 2) for each in (ours, frames, files)),
                number(statistics.median(once)), f"{1e6 / statistics.median(ours):,.0f}",
                backlog=str(backlog), path=path, reader=ours, by_frame=frames, file=files, ratio=once,
            )  # fmt: skip
    report.remarks.append("× frame by frame: how many times as fast; more is better.")
    return report


def _written(backlog: Frames, directory: str, value: bytes, messages: int) -> str:
    """The folder of a lane that holds it."""
    with MessageBuffer(directory, total_size="4GB") as buffer:
        backlog.write(buffer, value, messages)
        return os.path.join(directory, buffer.lane)
