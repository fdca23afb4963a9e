"""``write``: nanoseconds per message of write() and write_many(), live and to disk, with one and with four threads.

Rounds of all cases are interleaved, so that what disturbs the machine disturbs all of them. Compared with one
os.write() per message, and with a loop that appends to a list, which is what a loop costs at least. Beside the time
that went by stands the processor time of the writing threads, system calls and page faults included: on a machine that
has other things to do, that is the one to look at.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mbframework import MessageBuffer, speedups
from mbframework.units import MiB, parse_size
from tests.bench.figures import median_and_spread
from tests.bench.report import Report
from tests.bench.tally import TallyProvider

_MANY = 1000
#: What one thread does: a call that writes, its two arguments, and how many messages each call takes.
Work = tuple[Callable[[Any, Any], object], Any, Any, int]
#: Nanoseconds that went by, and of the processor.
Spent = tuple[float, float]


@dataclass(frozen=True)
class Case:
    """``kind``: live, spool (the provider is away), sending (to disk, while the provider takes all), file, list."""

    name: str
    kind: str
    many: bool = False
    threads: int = 1


_KINDS = {"live": "live", "spool": "always, provider away", "sending": "always, provider up"}
_THREADS = {1: "", 4: ", 4 threads"}
CASES = (
    *(Case(f"os.write() to a file{text}", "file", threads=threads) for threads, text in _THREADS.items()),
    Case("list.append()", "list"),
    *(
        Case(f"{call}, {state}{text}", kind, many, threads)
        for call, many in (("write()", False), ("write_many(1000)", True))
        for kind, state in _KINDS.items()
        for threads, text in _THREADS.items()
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``write``."""
    parser.add_argument("--rounds", type=int, default=11, help="rounds (default 11)")
    parser.add_argument("--messages", type=int, default=80_000, help="messages of one measurement (default 80000)")
    parser.add_argument("--value", default="100", help="bytes of a value (default 100)")
    parser.add_argument("--only", help="only the cases whose names contain this, and os.write()")


def run(chosen: argparse.Namespace) -> Report:
    """Measure all cases."""
    value = bytes(parse_size(chosen.value))
    cases = [case for case in CASES if not chosen.only or chosen.only in case.name or case is CASES[0]]
    samples: dict[str, list[Spent]] = {case.name: [] for case in cases}
    for _ in range(chosen.rounds):
        for case in cases:
            with tempfile.TemporaryDirectory(prefix="mb-bench-", dir=chosen.directory) as folder:
                samples[case.name].append(_measure(case, folder, value, chosen.messages))
    report = Report("write")
    baseline, base = (statistics.median(column) for column in zip(*samples[CASES[0].name], strict=True))
    table = report.table(
        f"ns per message, {chosen.value}-byte value: median (lowest … highest) of {chosen.rounds} interleaved rounds",
        "", "ns per message", "messages/s", "× os.write()", "processor ns", "× os.write()",
    )  # fmt: skip
    for name, spent in samples.items():
        durations, works = ([*column] for column in zip(*spent, strict=True))
        median, work = statistics.median(durations), statistics.median(works)
        table.add(
            name, median_and_spread(durations, 0), f"{1e9 / median:,.0f}", f"{baseline / median:.2f}",
            median_and_spread(works, 0), f"{base / work:.2f}", case=name, samples=durations, processor=works,
        )  # fmt: skip
    for case in cases:
        if case.threads == 1 and case.kind in ("live", "spool"):
            with tempfile.TemporaryDirectory(prefix="mb-bench-", dir=chosen.directory) as folder:
                _profile(report, case, folder, value, chosen.messages)
    report.remarks.append("× os.write(): how many times as fast as one os.write() per message; more is better.")
    path = f"plain Python ({speedups.why_plain})" if speedups.why_plain else "the extension in C"
    report.remarks.append(f"the write path: {path}")
    return report


def _measure(case: Case, folder: str, value: bytes, messages: int) -> Spent:
    """Per message."""
    with _work(case, folder, value) as (works, settle, burst):
        spent = work = done = 0
        while done < messages:
            part = _together(works, min(burst, messages) // len(works))
            spent, work = spent + part[0], work + part[1]
            done += min(burst, messages)
            settle()
        return spent / done, work / done


def _together(works: list[Work], messages: int) -> tuple[int, int]:
    """All threads write so many messages each; nanoseconds from the first call to the last return, and what the
    threads worked together."""
    if len(works) == 1:
        return _loop(*works[0], messages)
    ready, worked = threading.Barrier(len(works) + 1), [0] * len(works)

    def body(number: int) -> None:
        ready.wait()
        worked[number] = _loop(*works[number], messages)[1]

    threads = [threading.Thread(target=body, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    ready.wait()
    begun = time.perf_counter_ns()
    for thread in threads:
        thread.join()
    return time.perf_counter_ns() - begun, sum(worked)


def _loop(call: Callable[[Any, Any], object], first: Any, second: Any, size: int, messages: int) -> tuple[int, int]:
    begun, worked = time.perf_counter_ns(), time.thread_time_ns()
    for _ in range(messages // size):
        call(first, second)
    return time.perf_counter_ns() - begun, time.thread_time_ns() - worked


@contextmanager
def _work(case: Case, folder: str, value: bytes) -> Iterator[tuple[list[Work], Callable[[], object], int]]:
    """What the threads call, what brings everything to rest between bursts, and how long a burst may be."""
    if case.kind == "list":
        kept: list[bytes] = []
        yield [(list.append, kept, value, 1)], kept.clear, 1 << 30
    elif case.kind == "file":
        fd = os.open(os.path.join(folder, "file"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            yield [(os.write, fd, value, 1)] * case.threads, _nothing, 1 << 30
        finally:
            os.close(fd)
    else:
        provider = TallyProvider(numbered=False)
        mode = "buffer" if case.kind == "live" else "always"
        buffer = MessageBuffer(os.path.join(folder, "buffer"), provider, mode=mode, close_timeout=0)
        work: Work = buffer.write, "topic", value, 1
        if case.many:
            work = buffer.write_many, "topic", [value] * _MANY, _MANY
        try:
            _warm_up(buffer, provider, case, value)
            # Live, a burst must fit into memory: only then are all of its messages live.
            settle, burst = (lambda: buffer.flush(30), 8000) if case.kind == "live" else (_nothing, 1 << 30)
            yield [work] * case.threads, settle, burst
        finally:
            buffer.close()


def _warm_up(buffer: MessageBuffer, provider: TallyProvider, case: Case, value: bytes) -> None:
    """Into the state to be measured: connected and live, or with a segment of the usual size ready."""
    engine = buffer._engine
    assert engine is not None
    buffer.write("topic", value)
    buffer.flush(30)
    waiter = threading.Event()
    if case.kind == "live":
        while not engine.lane.live:
            waiter.wait(0.005)
        return
    if case.kind == "spool":
        provider.away.set()
    spool = engine.lane.spool
    while (file := spool.prepared) is None or file.in_flight is not None or file.size <= MiB:
        if file is not None and file.size <= MiB and file.in_flight is None:
            # The first segment of a new lane is small: past it.
            with engine.lane.lock:
                spool.retire()
            buffer.write("topic", value)
        waiter.wait(0.005)
    with engine.lane.lock:
        spool.retire()


def _profile(report: Report, case: Case, folder: str, value: bytes, messages: int) -> None:
    profile = cProfile.Profile()
    with _work(case, folder, value) as (works, settle, burst):
        for _ in range(max(1, messages // min(burst, messages))):
            profile.enable()
            _loop(*works[0], min(burst, messages))
            profile.disable()
            settle()
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]  # typeshed does not list it
    total = sum(own for _, _, own, _, _ in stats.values())
    table = report.table(f"Where the time goes: {case.name} (cProfile, which makes calls dear)", "", "share", "calls")
    for (path, line, name), (_, calls, own, _, _) in sorted(stats.items(), key=lambda item: -item[1][2])[:14]:
        where = f"{os.path.basename(path)}:{line} {name}" if line else name
        table.add(where, f"{own / total:.1%}", f"{calls:,}", case=case.name, where=where, share=own / total)


def _nothing() -> None:
    """Nothing has to come to rest."""
