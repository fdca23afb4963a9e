"""``write``: nanoseconds per message of write() and write_many(), in C and in plain Python, live and to disk, with one
thread and with four.

Rounds of all cases are interleaved, so that what disturbs the machine disturbs all of them; a ratio is formed within a
round. Compared with one os.write() per message from the same Python, with copying into a mapped file, and with a loop
that appends to a list, which is what a loop costs at least. Beside the time that went by stands the processor time of
the writing threads, system calls and page faults included: on a machine that has other things to do, that is the one
to look at.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from tempfile import TemporaryDirectory
from typing import NamedTuple

from mbframework import speedups
from mbframework.bench.figures import median_and_spread, ratios
from mbframework.bench.report import Report
from mbframework.bench.setting import setting
from mbframework.bench.worker import Worker
from mbframework.bench.write_case import Case, Spent
from mbframework.units import parse_size

PLAIN, COMPILED = "plain Python", "in C"


@dataclass(frozen=True)
class Settings:
    """The options of ``write``."""

    rounds: int = setting(15, "Rounds.")
    messages: int = setting(80_000, "Messages of one measurement.")
    value: str = setting("100", "Bytes of a value.")
    only: str = setting("", "Only the cases whose names contain this, and os.write().")
    profile: bool = setting(False, "Show where the time goes, too.")


class Row(NamedTuple):
    """A case on a path; the path of what mbframework does not do itself is plain Python."""

    name: str
    path: str
    case: Case


_STATES = {"spool": "provider away", "sending": "provider up", "live": "live"}
_THREADS = {1: "", 4: ", 4 threads"}
_FILE = Case("file")
ROWS = (
    *(Row(f"os.write() to a file{text}", PLAIN, Case("file", threads=count)) for count, text in _THREADS.items()),
    Row("copied into a mapped file", PLAIN, Case("map")),
    Row("list.append()", PLAIN, Case("list")),
    *(
        Row(f"{path}: {'write_many(1000)' if many else 'write()'}, {state}{text}", path, Case(kind, many, count))
        for path in (PLAIN, COMPILED)
        for many in (False, True)
        for kind, state in _STATES.items()
        for count, text in _THREADS.items()
    ),
    Row("os.write() to a file, from the process in C", COMPILED, _FILE),
)
_BASE, _BASE_C = ROWS[0], ROWS[-1]


def workers(stack: ExitStack) -> tuple[dict[str, Worker], str]:
    """A process for each write path that there is, and why there is none in C."""
    found = {PLAIN: stack.enter_context(Worker("write_case", **{speedups.VARIABLE: "off"}))}
    compiled = stack.enter_context(Worker("write_case", **{speedups.VARIABLE: "auto"}))
    why: str = compiled.ask(what="path")
    return found if why else found | {COMPILED: compiled}, why


def measure(worker: Worker, case: Case, directory: str, value: int, messages: int) -> Spent:
    """Nanoseconds per message, of time and of the processor."""
    spent, work = worker.ask(
        what="measure", case=asdict(case), directory=directory, value=value, messages=messages
    )  # fmt: skip
    return spent, work


def run(settings: Settings, directory: str) -> Report:
    """Measure all cases."""
    size = parse_size(settings.value)
    report = Report("write")
    with ExitStack() as stack:
        # Ours, and removed by us: a worker may be killed in the middle.
        directory = stack.enter_context(TemporaryDirectory(prefix="mb-bench-", dir=directory))
        ways, why_plain = workers(stack)
        chosen = [
            row for row in ROWS if row.path in ways and (settings.only in row.name or row in (_BASE, _BASE_C))
        ]  # fmt: skip
        samples: dict[Row, list[Spent]] = {row: [] for row in chosen}
        for _ in range(settings.rounds):
            for row in chosen:
                samples[row].append(measure(ways[row.path], row.case, directory, size, settings.messages))
        _table(report, settings, samples)
        for row in chosen if settings.profile else ():
            if row.case.threads == 1 and row.case.kind == "spool":
                _profile(report, ways[row.path], row, directory, size, settings.messages)
    _budgets(report, {row: [time for time, _ in spent] for row, spent in samples.items()}, why_plain)
    report.remarks.append("× os.write(): how many times as fast as one os.write() per message; more is better.")
    if why_plain:
        report.remarks.append(f"not measured: the extension in C: {why_plain}")
    return report


def _table(report: Report, settings: Settings, samples: dict[Row, list[Spent]]) -> None:
    table = report.table(
        f"ns per message, {settings.value}-byte value: median (lowest … highest) of {settings.rounds} interleaved"
        " rounds",
        "", "ns per message", "messages/s", "× os.write()", "processor ns", "× os.write()",
    )  # fmt: skip
    for row, spent in samples.items():
        base = samples[_BASE if row.path == PLAIN else _BASE_C]
        times, works = ([*column] for column in zip(*spent, strict=True))
        base_times, base_works = ([*column] for column in zip(*base, strict=True))
        table.add(
            row.name, median_and_spread(times, 0), f"{1e9 / statistics.median(times):,.0f}",
            f"{statistics.median(ratios(base_times, times)):.2f}", median_and_spread(works, 0),
            f"{statistics.median(ratios(base_works, works)):.2f}", case=row.name, samples=times, processor=works,
        )  # fmt: skip


def _budgets(report: Report, times: dict[Row, list[float]], why_plain: str) -> None:
    def of(path: str, many: bool = False, threads: int = 1) -> Sequence[float] | None:
        return next(
            (spent for row, spent in times.items() if row.path == path and row.case == Case("spool", many, threads)),
            None,
        )  # fmt: skip

    base, base_c, plain = times.get(_BASE), times.get(_BASE_C), of(PLAIN)
    for budget, baseline, ours in (
        ("write", base, plain),
        ("write-threads", plain, of(PLAIN, threads=4)),
        ("write-c", base_c, of(COMPILED)),
        ("write-c-threads", of(COMPILED), of(COMPILED, threads=4)),
        ("many", plain, of(PLAIN, many=True)),
        ("many-c", plain, of(COMPILED, many=True)),
    ):
        if baseline is not None and ours is not None:
            report.found(budget, ratios(baseline, ours))
        elif why_plain and "-c" in budget:
            report.missing(budget, f"no extension: {why_plain}")


def _profile(report: Report, worker: Worker, row: Row, directory: str, size: int, messages: int) -> None:
    found = worker.ask(what="profile", case=asdict(row.case), directory=directory, value=size, messages=messages)
    table = report.table(f"Where the time goes: {row.name} (cProfile, which makes calls dear)", "", "share", "calls")
    for where, share, calls in found:
        table.add(where, f"{share:.1%}", f"{calls:,}", case=row.name, where=where, share=share)
