"""``python -m tests.torture.scale``: what a message costs does not depend on how much there is.

One thing grows at a time: the backlog, lanes, writing threads, writing processes with a sidecar, tasks of asyncio, the
size of a message. Told is processor time, page faults included, so that other load on the machine hardly shows: of the
thread that writes a message, and of the whole process that sends it; the smallest of some rounds, and how many times
the first row's it is. Nothing is taken off: what a lane costs is part of what its messages do, and stands once more by
itself, in rows that have limits of their own. All messages must arrive. Ends with status 1 where a row is above its
limit: for messages ``--limit`` times the first row's.

Without ``--full`` it is over in some minutes; with it the backlog has 10 GB and 1,000 segments.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mbframework import AsyncMessageBuffer, MessageBuffer
from mbframework.bench.machine import facts
from mbframework.bench.report import Report
from mbframework.config import Config
from mbframework.message import Batch
from mbframework.plugins.source import resolve
from mbframework.provider import Provider
from mbframework.sidecar import Sidecar
from mbframework.units import MiB
from tests.bench import printed

_PATIENCE_S = 1800.0
_ALWAYS: dict[str, Any] = {"mode": "always", "catch_up": "full", "min_free": 0, "close_timeout": 0}
#: Under this many bytes a message costs what a message costs, above it what its bytes do.
_SMALL = 100
#: µs from which on parts of one say nothing.
_DIGITS = 100.0
#: What lanes cost beside their messages, each, and how many µs of processor time that may be.
_ONE_LANE, _ONE_LANE_US = "a lane, with one message", 100_000.0
_AT_REST, _AT_REST_US = "a lane at rest, a second", 10_000.0
#: What lanes do by the clock, while their messages are sent, grows with the number of lanes.
_MORE_FOR_LANES = 1.5


@dataclass(frozen=True)
class Plan:
    """``backlog`` and ``volume`` (of each size) in bytes; ``messages`` of each of the others, but for ``of_a_lane``."""

    backlog: int = 200 * MiB
    segments: int = 50
    messages: int = 400_000
    of_a_lane: int = 200_000
    rest_s: float = 5.0
    volume: int = 120 * MiB
    rounds: int = 2
    lanes: tuple[int, ...] = (1, 10, 100)
    threads: tuple[int, ...] = (1, 4, 16)
    processes: tuple[int, ...] = (1, 2, 4)
    tasks: tuple[int, ...] = (1, 100, 10_000)
    sizes: tuple[int, ...] = (10, 100, 1_000, 100_000, 1_000_000, 10_000_000)


FULL = Plan(backlog=10_000 * MiB, segments=1000, messages=4_000_000, of_a_lane=1_000_000, volume=1000 * MiB, rounds=3)


@dataclass(frozen=True)
class Row:
    """Of one thing that grows, at one size: µs of processor time per message (of sizes above 100 bytes: per KB), or,
    where there is a ``limit`` in µs, of something else, all of it under ``write``. ``more``: how much more than others
    a row of a message may cost."""

    what: str
    size: int
    write: float
    send: float = 0.0
    limit: float = 0.0
    more: float = 1.0

    def times(self, first: Row) -> float:
        """How many times the cost of the ``first``; the worse of both, where both are told."""
        return max(self.write / first.write, self.send / first.send if first.send else 0.0)


@dataclass(frozen=True)
class Found:
    """A row, and how many times the first of its kind it costs."""

    row: Row
    times: float

    def too_much(self, limit: float) -> bool:
        """Whether it is above its own limit, or, where it has none, above so many times the first."""
        return self.row.write > self.row.limit if self.row.limit else self.times > limit * self.row.more


class Taker(Provider):
    """Takes what it is given, and says when ``expected`` messages were taken. ``marks``: processor time of the process
    by the number of messages taken."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self.all = threading.Event()
        self.marks: list[tuple[int, float]] = [(0, 0.0)]

    def expect(self, more: int) -> None:
        """As many messages more are to be taken."""
        self._expected += more
        self.all.clear()

    def send(self, batch: Batch) -> None:
        taken = self.marks[-1][0] + len(batch)
        self.marks.append((taken, time.process_time()))
        if taken >= self._expected:
            self.all.set()


def backlog(plan: Plan, folder: str) -> Iterator[Row]:
    """The first, the middle and the last tenth of a backlog, as it is written and as it is sent."""
    value, many = bytes(1000), 1000
    calls = max(10, plan.backlog // (len(value) * many)) // 10 * 10
    taker = Taker(calls * many)
    size = max(MiB, plan.backlog // plan.segments)
    written: list[float] = []
    with MessageBuffer(
        folder, taker, segment_size=size, total_size=4 * size + 2 * plan.backlog, **_ALWAYS
    ) as buffer:  # fmt: skip
        buffer.pause()
        for _ in range(10):
            begun = time.thread_time()
            for _ in range(calls // 10):
                buffer.write_many("topic", [value] * many)
            written.append((time.thread_time() - begun) / (calls // 10 * many) * 1e6)
        segments = buffer.status().segments
        taker.marks = [(0, time.process_time())]
        buffer.resume()
        _wait(taker)
    sent = [_spent(taker.marks, part * calls * many // 10, (part + 1) * calls * many // 10) for part in range(10)]
    for part in (0, 4, 9):
        yield Row("backlog, segments", (part + 1) * segments // 10, written[part], sent[part])


def _spent(marks: list[tuple[int, float]], start: int, stop: int) -> float:
    """µs a message from one number of messages taken to another."""
    inside = [mark for mark in marks if start <= mark[0] <= stop]
    (first, begun), (last, ended) = inside[0], inside[-1]
    return (ended - begun) / max(1, last - first) * 1e6


def lanes(plan: Plan, folder: str) -> Iterator[Row]:
    """Messages that go to many lanes by turns, as many to each however many there are; what it costs to open a lane and
    bring one message through it; and what a lane costs that rests."""
    once: list[Row] = []
    resting: list[Row] = []
    for count in plan.lanes:
        takers = [Taker(1) for _ in range(count)]
        begun = time.process_time()
        with ExitStack() as stack:
            buffers = [
                stack.enter_context(
                    MessageBuffer(os.path.join(folder, str(count)), taker, max_lanes=max(plan.lanes), **_ALWAYS)
                )
                for taker in takers
            ]
            _by_turns(buffers, takers, 1)
            once.append(Row(_ONE_LANE, count, (time.process_time() - begun) / count * 1e6, limit=_ONE_LANE_US))
            for taker in takers:
                taker.expect(plan.of_a_lane)
            write, send = _by_turns(buffers, takers, plan.of_a_lane)
            begun = time.process_time()
            threading.Event().wait(plan.rest_s)
            rest = (time.process_time() - begun) / plan.rest_s / count
            resting.append(Row(_AT_REST, count, rest * 1e6, limit=_AT_REST_US))
        messages = plan.of_a_lane * count
        yield Row("lanes", count, write / messages * 1e6, send / messages * 1e6, more=_MORE_FOR_LANES)
    yield from once + resting


def _by_turns(buffers: list[MessageBuffer], takers: list[Taker], each: int) -> tuple[float, float]:
    """Seconds of processor time: of the writing thread, and of sending."""
    for buffer in buffers:
        buffer.pause()
    begun = time.thread_time()
    for _ in range(each):
        for buffer in buffers:
            buffer.write("topic", b"value of a message")
    write = time.thread_time() - begun
    begun = time.process_time()
    for buffer in buffers:
        buffer.resume()
    for taker in takers:
        _wait(taker)
    return write, time.process_time() - begun


def threads(plan: Plan, folder: str) -> Iterator[Row]:
    """Threads that write into one lane."""
    for count in plan.threads:
        each = plan.messages // count
        worked: list[float] = []
        ready = threading.Barrier(count)

        def body(buffer: MessageBuffer, each: int, ready: threading.Barrier, worked: list[float]) -> None:
            ready.wait()
            begun = time.thread_time()
            for _ in range(each):
                buffer.write("topic", b"value of a message")
            worked.append(time.thread_time() - begun)

        with MessageBuffer(os.path.join(folder, str(count)), **_ALWAYS) as buffer:
            crowd = [threading.Thread(target=body, args=(buffer, each, ready, worked)) for _ in range(count)]
            for thread in crowd:
                thread.start()
            for thread in crowd:
                thread.join()
            _accepted(buffer, each * count)
        yield Row("writing threads", count, sum(worked) / (each * count) * 1e6, 0.0)


def processes(plan: Plan, folder: str) -> Iterator[Row]:
    """Processes that write, each into a lane of its own, while this one sends all of them."""
    for count in plan.processes:
        each = plan.messages // count
        directory = os.path.join(folder, str(count))
        with MessageBuffer(directory, **_ALWAYS):
            pass  # so that there is one for the sidecar
        takers: list[Taker] = []

        def made(context: object, each: int = each, takers: list[Taker] = takers) -> Taker:
            takers.append(Taker(each))
            return takers[-1]

        sidecar = Sidecar(Config.layered(directory=directory, catch_up="full"), resolve(made, {}))
        sending = threading.Thread(target=sidecar.run)
        sending.start()
        try:
            begun = time.process_time()
            command = [sys.executable, "-m", "tests.torture.scale", "--writer", directory, "--messages", str(each)]
            started = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=_ROOT) for _ in range(count)]
            told = [float(process.communicate(timeout=_PATIENCE_S)[0]) for process in started]
            deadline = time.monotonic() + _PATIENCE_S
            pause = threading.Event()
            while sum(taker.marks[-1][0] for taker in takers) < each * count:
                if time.monotonic() > deadline:
                    raise SystemExit(f"scale: not all messages of {count} processes arrived")
                pause.wait(0.01)
            send = time.process_time() - begun
        finally:
            sidecar.stop()
            sending.join()
        yield Row("writing processes", count, sum(told) / (each * count) * 1e6, send / (each * count) * 1e6)


def write_in_a_process(directory: str, messages: int) -> None:
    """Into whichever lane is free; prints the seconds of processor time."""
    with MessageBuffer(directory, **_ALWAYS) as buffer:
        begun = time.thread_time()
        for _ in range(messages):
            buffer.write("topic", b"value of a message")
        print(time.thread_time() - begun)


def tasks(plan: Plan, folder: str) -> Iterator[Row]:
    """Tasks of asyncio that write by turns."""
    for count in plan.tasks:
        each = max(1, plan.messages // 10 // count)
        spent = asyncio.run(_with_tasks(os.path.join(folder, str(count)), count, each))
        yield Row("tasks of asyncio", count, spent / (each * count) * 1e6, 0.0)


async def _with_tasks(folder: str, count: int, each: int) -> float:
    async def writer(buffer: AsyncMessageBuffer) -> None:
        for _ in range(each):
            await buffer.write("topic", b"value of a message")
            await asyncio.sleep(0)

    async with AsyncMessageBuffer(folder, **_ALWAYS) as buffer:
        begun = time.thread_time()
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(writer(buffer))
        spent = time.thread_time() - begun
        _accepted(buffer.buffer, each * count)
    return spent


def sizes(plan: Plan, folder: str) -> Iterator[Row]:
    """Messages of many sizes: small ones per message, large ones per KB."""
    for size in plan.sizes:
        count = max(5, min(plan.messages, plan.volume // size))
        value, taker = bytes(size), Taker(count)
        with MessageBuffer(
            os.path.join(folder, str(size)), taker, segment_size=64 * MiB, total_size=2 * plan.volume + 512 * MiB,
            **_ALWAYS,
        ) as buffer:  # fmt: skip
            buffer.pause()
            begun = time.thread_time()
            for _ in range(count):
                buffer.write("topic", value)
            write = time.thread_time() - begun
            begun = time.process_time()
            buffer.resume()
            _wait(taker)
            send = time.process_time() - begun
        units = count if size <= _SMALL else count * size / 1000
        yield Row("bytes, per KB" if size > _SMALL else "bytes", size, write / units * 1e6, send / units * 1e6)


_ROOT = Path(__file__).parents[2]
WHAT: dict[str, Callable[[Plan, str], Iterator[Row]]] = {
    "backlog": backlog, "lanes": lanes, "threads": threads, "processes": processes, "tasks": tasks, "sizes": sizes,
}  # fmt: skip


def _wait(taker: Taker) -> None:
    if not taker.all.wait(_PATIENCE_S):
        raise SystemExit(f"scale: only {taker.marks[-1][0]:,} messages arrived")


def _accepted(buffer: MessageBuffer, messages: int) -> None:
    if (accepted := buffer.status().accepted) != messages:
        raise SystemExit(f"scale: {accepted:,} messages were accepted, not {messages:,}")


def measure(plan: Plan, directory: str, names: list[str]) -> list[Found]:
    """Each row, best of all rounds."""
    found: list[Found] = []
    for name in names:
        best: list[Row] = []
        for _ in range(1 if name == "backlog" else plan.rounds):
            with tempfile.TemporaryDirectory(prefix="mb-scale-", dir=directory) as folder:
                rows = list(WHAT[name](plan, folder))
            best = best or rows
            best = [
                replace(a, write=min(a.write, b.write), send=min(a.send, b.send))
                for a, b in zip(best, rows, strict=True)
            ]
        firsts: dict[str, Row] = {}
        found += [Found(row, row.times(firsts.setdefault(row.what, row))) for row in best]
    return found


def reported(found: list[Found], limit: float) -> Report:
    """As a table, and whether something costs too much."""
    report = Report("scale")
    table = report.table(
        "µs of processor time: of the thread that writes a message, and of the process that sends it; of lanes by"
        " themselves all of it together",
        "", "how many", "write", "send", "× the least of it", "allowed", "",
    )  # fmt: skip
    for each in found:
        row = each.row
        table.add(
            row.what, f"{row.size:,}", f"{row.write:,.3f}" if row.write < _DIGITS else f"{row.write:,.0f}",
            f"{row.send:,.3f}" if row.send else "", f"{each.times:.2f}",
            f"{row.limit:,.0f} µs" if row.limit else f"{limit * row.more:g} ×",
            "too much" if each.too_much(limit) else "", **asdict(row), times=each.times,
        )  # fmt: skip
    bad = sum(each.too_much(limit) for each in found)
    verdict = "BREACH" if bad else "PASS"
    report.remarks.append(f"{verdict}: {bad} of {len(found)} rows cost more than is allowed")
    return report


def main() -> int:
    """Measure and print; whether something was not flat."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.scale", description=__doc__)
    parser.add_argument("--full", action="store_true", help="10 GB, 1,000 segments, millions of messages")
    parser.add_argument("--only", choices=WHAT, action="append", help="only this; may be given more than once")
    parser.add_argument("--limit", type=float, default=2.0, help="times the first row's cost (default 2)")
    parser.add_argument("--directory", default=tempfile.gettempdir(), help="where buffers are made (%(default)s)")
    printed.add_arguments(parser)
    parser.add_argument("--writer", help=argparse.SUPPRESS)
    parser.add_argument("--messages", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.writer:
        write_in_a_process(chosen.writer, chosen.messages)
        return 0
    machine = facts(chosen.directory)
    found = measure(FULL if chosen.full else Plan(), chosen.directory, chosen.only or list(WHAT))
    report = reported(found, chosen.limit)
    report.machine = machine
    printed.show(report, chosen)
    return any(each.too_much(chosen.limit) for each in found)


if __name__ == "__main__":
    sys.exit(main())
