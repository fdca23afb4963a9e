"""One measurement of ``mb bench write``: so many messages by write() or write_many(), or what these are compared with.

Run as a process of its own (:mod:`mbframework.bench.worker`), whose environment chooses the write path.
"""

from __future__ import annotations

import cProfile
import mmap
import os
import pstats
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mbframework import MessageBuffer, speedups
from mbframework.bench.tally import TallyProvider
from mbframework.bench.worker import serve
from mbframework.config import Mode
from mbframework.units import MiB

_MANY = 1000
_MAPPED = 8 * MiB
#: What one thread does: a call that writes, its two arguments, and how many messages each call takes.
Work = tuple[Callable[[Any, Any], object], Any, Any, int]
#: Nanoseconds that went by, and of the processor.
Spent = tuple[float, float]


@dataclass(frozen=True)
class Case:
    """``kind``: live, spool (the provider is away), sending (to disk, while the provider takes all), file (one
    os.write() each), map (copied into a mapped file), list."""

    kind: str
    many: bool = False
    threads: int = 1


def measure(case: Case, folder: str, value: bytes, messages: int) -> Spent:
    """Per message."""
    with _work(case, folder, value) as (works, settle, burst):
        spent = work = done = 0
        while done < messages:
            calls = max(1, min(burst, messages) // (works[0][3] * len(works)))
            part = _together(works, calls)
            spent, work = spent + part[0], work + part[1]
            done += calls * works[0][3] * len(works)
            settle()
        return spent / done, work / done


def _together(works: list[Work], calls: int) -> tuple[int, int]:
    """All threads make so many calls each; nanoseconds from the first call to the last return, and what the
    threads worked together."""
    if len(works) == 1:
        return _loop(works[0], calls)
    ready, worked = threading.Barrier(len(works) + 1), [0] * len(works)

    def body(number: int) -> None:
        ready.wait()
        worked[number] = _loop(works[number], calls)[1]

    threads = [threading.Thread(target=body, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    ready.wait()
    begun = time.perf_counter_ns()
    for thread in threads:
        thread.join()
    return time.perf_counter_ns() - begun, sum(worked)


def _loop(work: Work, calls: int) -> tuple[int, int]:
    call, first, second, _ = work
    begun, worked = time.perf_counter_ns(), time.thread_time_ns()
    for _ in range(calls):
        call(first, second)
    return time.perf_counter_ns() - begun, time.thread_time_ns() - worked


@contextmanager
def _work(case: Case, folder: str, value: bytes) -> Iterator[tuple[list[Work], Callable[[], object], int]]:
    """What the threads call, what brings everything to rest between bursts, and how long a burst may be."""
    if case.kind == "list":
        kept: list[bytes] = []
        yield [(list.append, kept, value, 1)], kept.clear, 1 << 30
    elif case.kind == "map":
        with open(os.path.join(folder, "map"), "w+b") as file:
            file.write(bytes(_MAPPED))
            file.flush()
            with mmap.mmap(file.fileno(), _MAPPED) as mapped:
                for offset in range(0, _MAPPED, mmap.PAGESIZE):
                    mapped[offset] = 1
                yield [(mmap.mmap.write, mapped, value, 1)], lambda: mapped.seek(0), _MAPPED // max(1, len(value))
    elif case.kind == "file":
        fd = os.open(os.path.join(folder, "file"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            yield [(os.write, fd, value, 1)] * case.threads, _nothing, 1 << 30
        finally:
            os.close(fd)
    else:
        provider = TallyProvider(numbered=False)
        mode: Mode = "buffer" if case.kind == "live" else "always"
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


def profile(case: Case, folder: str, value: bytes, messages: int) -> list[tuple[str, float, int]]:
    """Where the time goes: functions, their own shares (0 to 1) and calls, the largest first."""
    gatherer = cProfile.Profile()
    with _work(case, folder, value) as (works, settle, burst):
        for _ in range(max(1, messages // min(burst, messages))):
            gatherer.enable()
            _loop(works[0], max(1, min(burst, messages) // works[0][3]))
            gatherer.disable()
            settle()
    stats = pstats.Stats(gatherer).stats  # type: ignore[attr-defined]  # typeshed does not list it
    total = sum(own for _, _, own, _, _ in stats.values())
    found = []
    for (path, line, name), (_, calls, own, _, _) in sorted(stats.items(), key=lambda item: -item[1][2])[:14]:
        found.append((f"{os.path.basename(path)}:{line} {name}" if line else name, own / total, calls))
    return found


def _nothing() -> None:
    """Nothing has to come to rest."""


def _obey(order: dict[str, Any]) -> Any:
    """Measure or profile one case, or say which path is in use."""
    if order["what"] == "path":
        return speedups.why_plain
    case, value = Case(**order["case"]), bytes(order["value"])
    with tempfile.TemporaryDirectory(prefix="mb-bench-", dir=order["directory"]) as folder:
        return {"measure": measure, "profile": profile}[order["what"]](case, folder, value, order["messages"])


if __name__ == "__main__":
    serve(_obey)
