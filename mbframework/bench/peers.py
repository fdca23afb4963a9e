"""``peers``: write() of a message beside other Python queues on disk, each with its fastest setting that survives a
kill -9, and beside SQLite and one os.write() a message.

Which settings survive is found out: a process puts numbered messages and notes outside of the queue how many calls had
returned; it is killed; a fresh process must find all of these in the queue, in order. A setting that lost any is shown,
and does not count. Rounds of all are interleaved.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from mbframework.bench.figures import median_and_spread, number, ratios
from mbframework.bench.peer import OURS, SETTINGS, Setting, returned
from mbframework.bench.report import Report
from mbframework.bench.setting import setting
from mbframework.bench.tally import number_of
from mbframework.bench.worker import MeasurementFailed, Worker
from mbframework.bench.write_case import Case
from mbframework.bench.writing import COMPILED, PLAIN, measure, workers
from mbframework.units import parse_size

_PATIENCE_S = 20.0


@dataclass(frozen=True)
class Settings:
    """The options of ``peers``."""

    rounds: int = setting(5, "Rounds.")
    messages: int = setting(5_000, "Messages of one measurement of another queue; ours get sixteen times as many.")
    seconds: float = setting(0.5, "Seconds after which a slow queue has put enough.")
    value: str = setting("100", "Bytes of a value.")
    kills: int = setting(2, "Kills of each setting.")
    after: int = setting(300, "Messages before a kill, at least.")
    only: str = setting("", "Only the queues whose names contain this.")


@dataclass
class Fate:
    """Of all kills of one setting together: calls that had returned, and messages that were not there afterwards."""

    kills: int = 0
    put: int = 0
    lost: int = 0
    why: str = ""

    @property
    def survived(self) -> bool:
        """Whether all that was put was there."""
        return self.kills > 0 and not self.lost and not self.why

    @property
    def text(self) -> str:
        """For people."""
        if self.why:
            return f"NO: {self.why}"
        return f"yes, {self.put:,} of {self.put:,}" if self.survived else f"NO, lost {self.lost:,} of {self.put:,}"


def run(settings: Settings, directory: str) -> Report:
    """Kill, then measure."""
    size = parse_size(settings.value)
    report = Report("peers")
    chosen = [each for each in SETTINGS if settings.only in each.name and not each.missing]
    fates = {each.name: _suffer(each, settings, size, directory) for each in chosen}
    fates |= {"write()": _suffer(OURS, settings, size, directory)}
    times: dict[str, list[float]] = {each.name: [] for each in chosen}
    with ExitStack() as stack:
        # Ours, and removed by us: a worker may be killed in the middle.
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="mb-bench-", dir=directory))
        ways, why_plain = workers(stack)
        ours = {f"write(), {path}": (way, Case("spool")) for path, way in ways.items()}
        ours["os.write() to a file"] = (ways[PLAIN], Case("file"))
        times = {name: [] for name in ours} | times
        peer = stack.enter_context(Worker("peer"))
        for _ in range(settings.rounds):
            for name, (way, case) in ours.items():
                times[name].append(measure(way, case, directory, size, 16 * settings.messages)[0])
            for each in chosen:
                times[each.name].append(
                    peer.ask(
                        what="measure", name=each.name, directory=directory, value=size,
                        messages=settings.messages, seconds=settings.seconds,
                    )
                )  # fmt: skip
    _table(report, settings, times, fates)
    _budgets(report, chosen, times, fates, why_plain)
    for package in dict.fromkeys(each.package for each in SETTINGS if each.missing and settings.only in each.name):
        report.remarks.append(next(each.missing for each in SETTINGS if each.package == package))
    return report


def _table(report: Report, settings: Settings, times: dict[str, list[float]], fates: dict[str, Fate]) -> None:
    table = report.table(
        f"ns per message, {settings.value}-byte value: median (lowest … highest) of {settings.rounds} interleaved"
        " rounds",
        "", "ns per message", "messages/s", "× as long as write()", "survives kill -9",
    )  # fmt: skip
    plain = times[f"write(), {PLAIN}"]
    for name, spent in times.items():
        fate = fates.get("write()" if name.startswith("write()") else name)
        table.add(
            name, median_and_spread(spent, 0), f"{1e9 / statistics.median(spent):,.0f}",
            number(statistics.median(ratios(spent, plain))), fate.text if fate else "",
            name=name, samples=spent, put=fate.put if fate else None, lost=fate.lost if fate else None,
        )  # fmt: skip
    report.remarks.append(
        f"survives kill -9: of the messages whose call had returned when the process was killed, in {settings.kills}"
        " kills of each; what was lost does not count as a rival. × as long as write(): in plain Python."
    )


def _budgets(
    report: Report, chosen: list[Setting], times: dict[str, list[float]], fates: dict[str, Fate], why_plain: str
) -> None:
    # SQLite by itself is no queue; it stands in the table for comparison.
    rivals = [each.name for each in chosen if fates[each.name].survived and each.module != "sqlite3"]
    if not rivals:
        for budget in ("peers", "peers-c"):
            report.missing(budget, "no other queue is installed; run: pip install 'mbframework[bench]'")
        return
    best = min(rivals, key=lambda name: statistics.median(times[name]))
    note = f"the best other queue, {best}"
    report.found("peers", ratios(times[best], times[f"write(), {PLAIN}"]), note)
    if why_plain:
        report.missing("peers-c", f"no extension: {why_plain}")
    else:
        report.found("peers-c", ratios(times[best], times[f"write(), {COMPILED}"]), note)


# -- what a kill leaves ------------------------------------------------------------------------------------------------


def _suffer(each: Setting, settings: Settings, size: int, directory: str) -> Fate:
    fate = Fate()
    for _ in range(settings.kills):
        with tempfile.TemporaryDirectory(prefix="mb-bench-", dir=directory) as folder:
            note = os.path.join(folder, "note")
            Path(note).write_bytes(bytes(4096))
            _kill_while_writing(each, settings, size, folder, note)
            fate.kills += 1
            fate.put += returned(note)
            try:
                fate.lost += _lost(each, folder, returned(note))
            except Exception as error:  # noqa: BLE001 - whatever another's queue says to what a kill has left
                fate.why = f"{type(error).__name__}: {error}"
    return fate


def _kill_while_writing(each: Setting, settings: Settings, size: int, folder: str, note: str) -> None:
    worker = Worker("peer")
    with worker:
        worker.tell(what="put", name=each.name, folder=folder, note=note, value=size)
        end = time.monotonic() + _PATIENCE_S
        while returned(note) < settings.after:
            if time.monotonic() > end or worker.ended:
                raise MeasurementFailed(f"{each.name}: no {settings.after} messages within {_PATIENCE_S:g} s")
            time.sleep(0.002)
        worker.kill()


def _lost(each: Setting, folder: str, put: int) -> int:
    """How many of the first ``put`` messages are not in the queue, or not in their place."""
    queue = each.open(folder)
    try:
        found = {number_of(value): place for place, value in enumerate(queue.take())}
    finally:
        queue.close()
    return sum(found.get(number) != number for number in range(put))
