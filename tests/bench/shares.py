"""``profile``: where the time goes on each hot path, as shares; and what ``write()`` costs at least.

In plain Python: py-spy, samples of the writing thread alone, by the innermost function in Python, what it calls in C
included. In C: perf, samples of that thread by function of the extension, and by library. Opening: cProfile, in a fresh
process each, after a kill. From ``write()`` to the acknowledgement: clocks at the places between. What is not
installed is left out, with a remark.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from mbframework import speedups
from mbframework.bench.report import Report, Table
from tests.bench import floor, hot, stages

_RATE = 500
_SHOWN = 7
_COPYING = "copy_to_iter"
#: What perf names after a file.
_CALLED = {"[vdso]": "the clock (vdso)", "libc.so.6": "libc (copying)"}
_LOOPS = "_loop (", "check_lane ("


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``profile``."""
    parser.add_argument("--seconds", type=float, default=8.0, help="of each profile (default %(default)g)")
    parser.add_argument("--rounds", type=int, default=15, help="of what is timed (default %(default)s)")


def run(chosen: argparse.Namespace) -> Report:
    """Profile everything."""
    report = Report("profile")
    plain = report.table("Plain Python: samples of the writing thread by function (py-spy), % of each path", "", "%")
    compiled = report.table("In C: samples of the writing thread (perf), % of each path", "", "%")
    if (sampler := _beside("py-spy")) is None:
        report.remarks.append("no samples of plain Python: pip install py-spy")
    else:
        for what, called in (("write", "write()"), ("write_many", "write_many(1000)"), ("live", "write(), live")):
            _add(plain, called, _sampled(sampler, what, chosen))
    write_in_c: Counter[str] = Counter()
    if shutil.which("perf") is None or speedups.why_plain:
        report.remarks.append(f"no samples of the extension: {speedups.why_plain or 'perf is not installed'}")
    else:
        for what, called in (("write", "write()"), ("write_many", "write_many(1000)"), ("verify", "check_lane()")):
            found = _counted(what, chosen)
            _add(compiled, called, found)
            write_in_c = write_in_c or found
    table = report.table("Opening a backlog of 0.4 GB after a kill, and one write() (cProfile), % of the time", "", "%")
    _add(table, "open", _opened(chosen))
    stages.add_to(report, chosen)
    floor.add_to(report, chosen, write_in_c)
    return report


def _add(table: Table, path: str, found: Counter[str]) -> None:
    total = found.total()
    most = [(name, count) for name, count in found.most_common(_SHOWN) if 100 * count >= total]
    for name, count in [*most, ("everything else", total - sum(count for _, count in most))]:
        share = 100 * count / total
        table.add(f"{path}: {name}", f"{share:.0f}", path=path, part=name, share=share, samples=count)


def _beside(name: str) -> str | None:
    here = Path(sys.executable).with_name(name)
    return str(here) if here.exists() else shutil.which(name)


def _command(what: str, chosen: argparse.Namespace) -> list[str]:
    return [sys.executable, "-m", hot.__name__, what, f"{chosen.seconds:g}", chosen.directory]


def _sampled(sampler: str, what: str, chosen: argparse.Namespace) -> Counter[str]:
    """Samples in the loop that writes, by function."""
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder, "samples")
        subprocess.run(
            [sampler, "record", "-f", "raw", "-r", str(_RATE), "-o", str(told), "--", *_command(what, chosen)],
            env=os.environ | {speedups.VARIABLE: "off"}, check=True, capture_output=True,
        )  # fmt: skip
        for line in told.read_text().splitlines():
            stack, _, count = line.rpartition(" ")
            if any(each in stack for each in _LOOPS):
                name, _, place = stack.rpartition(";")[2].partition(" (")
                found[f"{os.path.basename(place).partition(':')[0]} {name}"] += int(count)
    return found


def _counted(what: str, chosen: argparse.Namespace) -> Counter[str]:
    """Samples of the main thread: functions of the extension by name, everything else by library."""
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        told, control, answers = (os.path.join(folder, name) for name in ("perf", "control", "answers"))
        os.mkfifo(control)
        os.mkfifo(answers)
        # Both ends are held, so that no opening waits for another one.
        ours = [os.open(path, os.O_RDWR) for path in (control, answers)]
        record = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "2000", "-D", "-1", "-o", told]
        record.append(f"--control=fifo:{control},{answers}")
        try:
            subprocess.run(
                [*record, "--", *_command(what, chosen)], pass_fds=ours, check=True, capture_output=True,
                env=os.environ | {"PERF_CONTROL": ",".join(map(str, ours))},
            )  # fmt: skip
        finally:
            for fd in ours:
                os.close(fd)
        script = ["perf", "script", "-i", told, "-F", "pid,tid,ip,sym,dso"]
        lines = subprocess.run(script, check=True, capture_output=True, text=True).stdout.splitlines()
    for line in lines:
        match = re.match(r"\s*(\d+)/(\d+)\s+[0-9a-f]+ (.*) \((.*)\)$", line)
        if match is None or match[1] != match[2]:
            continue
        library = os.path.basename(match[4])
        if library.startswith("_speedups"):
            found[match[3]] += 1
        elif "kernel" in library or library == "[unknown]":
            reading = _COPYING in match[3]
            found["the kernel: copying out of the page cache" if reading else floor.KERNEL] += 1
        else:
            found["the interpreter" if library.startswith("python") else _CALLED.get(library, library)] += 1
    return found


def _opened(chosen: argparse.Namespace) -> Counter[str]:
    """Microseconds by function, of all openings together."""
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="mb-bench-", dir=chosen.directory) as folder:
        path = hot.fill(folder)
        for turn in range(chosen.rounds + 1):
            command = [sys.executable, "-m", hot.__name__, "open", "0", str(path)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            if turn:
                # The one before it was killed, not closed.
                found.update({name: round(own * 1e6) for name, own in json.loads(done.stdout).items()})
    return found
