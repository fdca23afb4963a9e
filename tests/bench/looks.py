"""``monitor``: what it takes to look at a buffer from outside: ``Monitor``, a scrape of its metrics, ``mb check``.

The lanes are dead ones of sparse segments, in the page cache, and nothing runs between two looks. ``mb check`` is the
installed command, from its start to its end. A change is that something was delivered; before it there is a rest, since
what takes long is read the more seldom.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

from mbframework import MessageBuffer
from mbframework.bench.figures import median_and_spread
from mbframework.bench.report import Report
from mbframework.metrics.prometheus import BufferCollector
from mbframework.monitor import Monitor
from tests.monitor.lanes import EACH, make_lane, move_seek

#: So many times as long as a look takes, there is rest before the next one that is to see everything.
_RESTS = 6
#: What has changed within the last second may be changing still, and is read once more.
_RECENT_S = 1.2
_SHOWN = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``monitor``."""
    parser.add_argument("--segments", default="10,1000,100000", help="segments of each lane (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=5, help="looks of each kind (default 5)")


def run(chosen: argparse.Namespace) -> Report:
    """Measure everything."""
    report = Report("monitor")
    kinds = f"ms: median (lowest … highest) of {chosen.repeat}"
    looks = report.table(
        f"A look, {kinds}", "segments on disk", "the first", "after a change", "nothing changed",
        f"{_SHOWN} rows, the first time", "again",
    )  # fmt: skip
    scrapes = report.table(
        f"A scrape of one buffer, {kinds}", "segments on disk", "the first", "after a change", "nothing changed"
    )
    commands = report.table(f"As a whole, {kinds}", "", "ms")
    for segments in map(int, chosen.segments.split(",")):
        with tempfile.TemporaryDirectory(prefix="mb-bench-", dir=chosen.directory) as folder:
            lane = make_lane(Path(folder), segments)
            found = _looks(folder, lane, segments, chosen.repeat)
            looks.add(f"{segments:,}", *map(_cell, found.values()), segments=segments, **found)
            found = _scrapes(folder, lane, chosen.repeat)
            scrapes.add(f"{segments:,}", *map(_cell, found.values()), segments=segments, **found)
            found = {"check": [_timed(lambda: _check(folder)) for _ in range(chosen.repeat)]}
            commands.add(f"`mb check`, {segments:,} segments", _cell(found["check"]), segments=segments, **found)
    with tempfile.TemporaryDirectory(prefix="mb-bench-", dir=chosen.directory) as folder:
        with MessageBuffer(os.path.join(folder, "buffer"), "fake:") as buffer:
            buffer.write("topic", b"value")
            buffer.flush(10)
            scrape = _scrape_of(buffer)
            found = {"within": [_timed(scrape) for _ in range(chosen.repeat)]}
    commands.add("a scrape of a buffer within its own program", _cell(found["within"]), **found)
    return report


def _looks(folder: str, lane: Path, segments: int, repeat: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"first": [], "changed": [], "same": [], "rows": [], "again": []}
    for turn in range(repeat):
        monitor = Monitor(folder)
        found["first"].append(_timed(monitor.look))
        _change(lane, turn, found["first"])
        found["changed"].append(_timed(monitor.look))
        time.sleep(_RECENT_S)
        (view,) = monitor.look().lanes
        found["same"].append(_timed(monitor.look))
        start = min(turn * _SHOWN, max(0, segments - _SHOWN))
        rows = partial(view.segments.rows, start, start + _SHOWN)
        found["rows"].append(_timed(rows))
        found["again"].append(_timed(rows))
        monitor.close()
    return found


def _scrapes(folder: str, lane: Path, repeat: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"first": [], "changed": [], "same": []}
    for turn in range(repeat):
        scrape = _scrape_of(folder)
        found["first"].append(_timed(scrape))
        _change(lane, repeat + turn, found["first"])
        found["changed"].append(_timed(scrape))
        time.sleep(_RECENT_S)
        scrape()
        found["same"].append(_timed(scrape))
    return found


def _scrape_of(source: str | MessageBuffer) -> Callable[[], object]:
    registry = CollectorRegistry()
    registry.register(BufferCollector(source))
    return lambda: generate_latest(registry)


def _change(lane: Path, turn: int, took: list[float]) -> None:
    """One more message is delivered, after a rest that is measured by how long a look took."""
    time.sleep(_RESTS * took[-1] / 1e3)
    move_seek(lane, 1 + turn % EACH)


def _check(folder: str) -> None:
    # That nobody has the lane is worth a warning, and an exit status of its own.
    subprocess.run(
        [str(Path(sys.executable).with_name("mb")), "check", folder], stdout=subprocess.DEVNULL, check=False
    )  # fmt: skip


def _timed(call: Callable[[], object]) -> float:
    """Milliseconds."""
    begun = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - begun)


def _cell(samples: list[float]) -> str:
    return median_and_spread(samples, 1)
