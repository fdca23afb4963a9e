"""What ``write()`` costs at least, in nanoseconds: each thing that it cannot do without, by itself, and their sum,
beside one ``os.write()`` and beside ``write()`` as a whole. In C the loop and the call are timed; of what else cannot
be left out perf has told the share.

Rounds of everything are interleaved. Of a loop that does something, what the empty loop takes is taken away.
"""

from __future__ import annotations

import argparse
import mmap
import operator
import os
import statistics
import struct
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from zlib import crc32

from mbframework import speedups
from mbframework.bench.figures import median_and_spread
from mbframework.bench.report import Report
from mbframework.bench.write_case import Case
from mbframework.bench.writing import COMPILED, PLAIN, workers
from tests.bench.hot import VALUE

_CALLS = 50_000
_TOPIC = b"topic"
#: Header and columns of a frame: marker, length, sequence, time of acceptance, count, flags, length of the topic, CRC.
_PREFIX = struct.Struct("<4sIQqIHHI")
_MAPPED = 1 << 23
Timed = Callable[[range], object]
_PLAIN = (
    "an empty method with these arguments", "the clock", "two checksums", "pack_into() of the header",
    "taking a lock and letting it go", "storing the frame",
)  # fmt: skip
KERNEL = "the kernel: new pages, interruptions"
#: Of the profile of write() in C.
_IN_C = {
    "the clock (share of the samples)": ("the clock (vdso)", "mb_now"),
    "two checksums (share)": ("mb_crc_by_folding", "mb_crc_by_table"),
    "the kernel: new pages, interruptions (share)": (KERNEL,),
}


class Empty:
    """As the buffer's ``write()``, and does nothing; the body in C is one of the standard library."""

    def write(
        self, topic: str, value: bytes, key: bytes | None = None, headers: object = None, partition: int | None = None,
        timestamp: int | None = None,
    ) -> None:  # fmt: skip
        """Nothing."""


def _loop(calls: range) -> None:
    for _ in calls:
        pass


def _call(calls: range) -> None:
    write = Empty().write
    for _ in calls:
        write("topic", VALUE)


def _call_in_c(calls: range) -> None:
    write = operator.is_
    for _ in calls:
        write("topic", VALUE)


def _clock(calls: range) -> None:
    now = partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME)
    for _ in calls:
        now()


def _checksums(calls: range) -> None:
    body, prefix = _TOPIC + bytes(4) + VALUE, bytes(36)
    for _ in calls:
        crc32(body, 7)
        crc32(prefix, 7)


def _pack(calls: range) -> None:
    into, pack_into = bytearray(64), _PREFIX.pack_into
    for number in calls:
        pack_into(into, 0, b"MBF1", 149, number, number, 1, 0, 5, 7)


def _lock(calls: range) -> None:
    lock = threading.Lock()
    for _ in calls:
        with lock:
            pass


def _store(mapped: mmap.mmap, data: bytes) -> Timed:
    def timed(calls: range) -> None:
        size, at = len(data), 0
        for _ in calls:
            mapped[at : at + size] = data
            at += size

    return timed


def _write(fd: int) -> Timed:
    def timed(calls: range) -> None:
        write = os.write
        for _ in calls:
            write(fd, VALUE)

    return timed


def add_to(report: Report, chosen: argparse.Namespace, shares: Counter[str]) -> None:
    """Two tables: in plain Python, and in C, where ``shares`` are samples of ``write()`` by what they were in."""
    frame = bytes(152)
    with (
        ExitStack() as stack,
        tempfile.TemporaryDirectory(prefix="mb-bench-", dir=chosen.directory) as folder,
        open(os.path.join(folder, "map"), "w+b") as file,
        open(os.path.join(folder, "file"), "ab", buffering=0) as written,
    ):
        file.truncate(_MAPPED)
        with mmap.mmap(file.fileno(), _MAPPED) as mapped:
            timed: dict[str, Timed] = {
                "the loop": _loop,
                "an empty method with these arguments": _call,
                "an empty function in C": _call_in_c,
                "the clock": _clock,
                "two checksums": _checksums,
                "pack_into() of the header": _pack,
                "taking a lock and letting it go": _lock,
                "storing the frame": _store(mapped, frame),
                "os.write()": _write(written.fileno()),
            }
            spent: dict[str, list[float]] = {name: [] for name in timed}
            paths, _ = workers(stack)
            order = {"case": asdict(Case("spool")), "directory": folder, "value": len(VALUE), "messages": _CALLS}
            for turn in range(chosen.rounds + 1):
                for path, worker in paths.items():
                    taken = worker.ask(what="measure", **order)[1]
                    if turn:
                        spent.setdefault(path, []).append(taken)
                for name, each in timed.items():
                    calls = range(_CALLS)
                    begun = time.thread_time_ns()
                    each(calls)
                    if turn:
                        spent[name].append((time.thread_time_ns() - begun) / _CALLS)
    _tell(report, spent, shares)


def _tell(report: Report, spent: dict[str, list[float]], shares: Counter[str]) -> None:
    loops, base = spent["the loop"], spent["os.write()"]

    def alone(name: str) -> list[float]:
        return [max(0.0, each - loop) for each, loop in zip(spent[name], loops, strict=True)]

    plain = {"the loop": loops} | {name: alone(name) for name in _PLAIN}
    _add(report, "in plain Python", plain, base, spent[PLAIN])
    if COMPILED not in spent or not shares:
        report.remarks.append(f"not measured, the least in C: {speedups.why_plain or 'perf is not installed'}")
        return
    compiled = {"the loop": loops, "an empty function in C": alone("an empty function in C")}
    for name, parts in _IN_C.items():
        share = sum(shares[part] for part in parts) / shares.total()
        compiled[name] = [share * each for each in spent[COMPILED]]
    _add(report, "in C", compiled, base, spent[COMPILED])


def _add(report: Report, path: str, parts: dict[str, list[float]], base: list[float], whole: list[float]) -> None:
    table = report.table(
        f"What write() cannot leave out, {path}: ns of the processor, median (lowest … highest)", "", "ns",
        "× os.write()",
    )  # fmt: skip
    together = [sum(each) for each in zip(*parts.values(), strict=True)]
    for name, taken in (parts | {"together": together, "write() as a whole": whole, "os.write()": base}).items():
        ratio = statistics.median(each / one for each, one in zip(taken, base, strict=True))
        table.add(name, median_and_spread(taken, 0), f"{ratio:.2f}", name=name, ns=taken)
