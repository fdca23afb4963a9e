"""One hot path, again and again, for a profiler to look at: ``python -m tests.bench.hot PATH SECONDS DIRECTORY``.

``open`` is the other way about: it profiles itself, as each opening is the first thing that a process does, and prints
what cProfile found as JSON.
"""

from __future__ import annotations

import cProfile
import json
import logging
import os
import pstats
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mbframework import MessageBuffer
from mbframework.bench import write_case
from mbframework.bench.write_case import Case
from mbframework.files import Files
from mbframework.verify import check_lane

VALUE = bytes(100)
CASES = {
    "write": Case("spool"), "write_many": Case("spool", many=True), "live": Case("live"),
}  # fmt: skip
_MESSAGES = 400_000
_BACKLOG = 3_000_000


def fill(folder: str) -> Path:
    """A buffer with a backlog of some hundred megabytes."""
    path = Path(folder, "buffer")
    with MessageBuffer(path, "fake:", mode="always", close_timeout=0) as buffer:
        buffer.pause()
        for _ in range(0, _BACKLOG, 1000):
            buffer.write_many("bench", [VALUE] * 1000)
    return path


@contextmanager
def _watched() -> Iterator[None]:
    """What stands in it is what perf looks at, where that has given descriptors to tell it so."""
    control, answers = (int(each) for each in os.environ.get("PERF_CONTROL", "-1,-1").split(","))
    if control < 0:
        yield
        return
    for word in (b"enable\n", b"disable\n"):
        os.write(control, word)
        # Not before it does.
        os.read(answers, 16)
        if word == b"enable\n":
            yield


def _write(folder: str, case: Case) -> None:
    """Messages, without what goes before and comes after."""
    with write_case._work(case, folder, VALUE) as (works, settle, burst):
        for _ in range(0, _MESSAGES, min(burst, _MESSAGES)):
            with _watched():
                write_case._loop(works[0], min(burst, _MESSAGES) // works[0][3])
            settle()


def verify(path: Path) -> None:
    """Check every byte."""
    assert not check_lane(Files(), str(path / "main"), "main").error


def open_once(path: str) -> dict[str, float]:
    """Open a backlog and write a message: seconds by module; what is called in C counts where it is called."""
    profiler = cProfile.Profile()
    profiler.enable()
    buffer = MessageBuffer(path, "fake:", mode="always", close_timeout=0)
    buffer.write("bench", VALUE)
    profiler.disable()
    stats = pstats.Stats(profiler).stats  # type: ignore[attr-defined]  # typeshed does not list it
    found: dict[str, float] = {}

    def add(file: str, own: float) -> None:
        found[_module(file)] = found.get(_module(file), 0.0) + own

    for (file, _, _), (_, _, own, _, callers) in stats.items():
        if file != "~":
            add(file, own)
        for (caller, _, _), (_, _, part, _) in callers.items() if file == "~" else ():
            add(caller, part)
    return found


def _module(file: str) -> str:
    """As a reader of the sources calls it."""
    path = Path(file)
    if "mbframework" in path.parts:
        return f"{path.parent.name}/{path.name}"
    if file.startswith("<frozen importlib"):
        return "importing modules"
    if "metadata" in path.parts or "email" in path.parts or path.name == "pathlib.py":
        return "looking for providers that are installed (importlib.metadata)"
    if path.name == "threading.py":
        return "starting threads"
    return "the standard library, all else"


def main(what: str, seconds: float, directory: str) -> None:
    """Do it."""
    logging.disable(logging.CRITICAL)
    if what == "open":
        print(json.dumps(open_once(directory)), flush=True)
        # As killed: nothing is closed, so that the next opening recovers.
        os._exit(0)
    with tempfile.TemporaryDirectory(prefix="mb-bench-", dir=directory) as folder:
        path = fill(folder) if what == "verify" else Path()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if what == "verify":
                with _watched():
                    verify(path)
                continue
            with tempfile.TemporaryDirectory(dir=folder) as each:
                _write(each, CASES[what])


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[3])
