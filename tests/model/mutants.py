"""``python -m tests.model.mutants``: the engine with a small change, and whether the tests see it.

Promises: each change of ``mutations.txt`` is made in a copy of the project, in a folder of its own, and is a bug; the
tests run against that copy, in plain Python, since that is what is changed: first the one that the list names, then
those of its area. Killed means that a test fails, or does not end, with the change, and holds in the same hour without
it, then in a third of the time at most where it did not end. A line tells of each what saw it. The exit status is 1
where fewer than ``--least`` percent were seen, and 2 where tests cannot run.
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from mbframework import speedups

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("mutations.txt")
_PLAYED = "tests/model/test_planted.py::test_without_a_bug_it_is_well"
_STOPS = "tests/model/test_crash_points.py"
_GAPS = "tests/model/test_gaps.py"
_RANDOM = "tests/model/test_histories.py"
#: Of each area, the quickest first. Tests that plant bugs are not among them: they need the text as it is.
TESTS: dict[str, tuple[str, ...]] = {
    "hand-over": (f"{_PLAYED} {_GAPS} tests/engine/test_hand_over.py",
                  f"{_STOPS} -k 'hand_over or sync_while or linger or nothing_on_disk'",
                  "tests/engine/test_control.py tests/engine/test_modes.py tests/engine/test_interrupts.py", _RANDOM),
    "spool": (f"{_GAPS} tests/spool/test_slots.py tests/spool/test_writer.py tests/spool/test_segment_header.py",
              f"{_STOPS} -k 'always or sync_fails or power or not_mapped'",
              "tests/spool/test_reader.py tests/spool/test_bad_pages.py", "tests/model/test_damage.py",
              "tests/spool/test_recovery.py", "tests/engine/test_limits.py", _RANDOM),
    "recovery": (f"tests/spool/test_survey.py {_PLAYED} {_GAPS}", "tests/spool/test_bad_pages.py",
                 f"{_STOPS} -k 'killed or power or nothing_on_disk or prune or rejected'", "tests/engine/test_kill.py",
                 "tests/spool/test_recovery.py", _RANDOM),
    "accounts": (f"tests/test_ledger.py {_PLAYED} {_GAPS}",
                 f"{_STOPS} -k 'half or prune or purge or expired or memory'", "tests/engine/test_limits.py",
                 "tests/engine/test_control.py", "tests/engine/test_kill.py", "tests/spool/test_recovery.py", _RANDOM),
}  # fmt: skip
#: Seconds for the tests of one line.
_LIMIT_S = 1800.0


class Failed(NamedTuple):
    """The first of some tests that failed, as pytest takes it. ``within`` is None, or of one that did not end a third
    of the seconds after which it was given up."""

    test: str
    within: float | None


class Mutation(NamedTuple):
    """One change of a file below the package; ``by`` is the test that is asked first, "" where none is named."""

    area: str
    file: str
    what: str
    by: str
    before: str
    after: str


def mutations(text: str) -> Iterator[Mutation]:
    """Those of the list: ``== area: file: what``, ``@ test``, then whole lines: "-" goes, "+" comes, " " stays."""
    for part in re.split(r"^== ", text, flags=re.MULTILINE)[1:]:
        title, *lines = part.rstrip("\n").split("\n")
        area, file, what = title.split(": ", 2)
        by = "".join(line[2:] for line in lines if line[:1] == "@")
        before, after = ("".join(f"{line[1:]}\n" for line in lines if line[:1] in (" ", sign)) for sign in "-+")
        yield Mutation(area, file, what, by, before, after)


def changed(mutation: Mutation) -> str:
    """The file with the change.

    :raises ValueError: what is to be changed does not stand there exactly once.
    """
    text = "\n" + (ROOT / "mbframework" / mutation.file).read_text()
    if (found := text.count("\n" + mutation.before)) != 1:
        raise ValueError(f"{mutation.file}: {mutation.what}: {mutation.before!r} stands there {found} times, not once")
    return text.replace("\n" + mutation.before, "\n" + mutation.after)[1:]


class Copy:
    """A copy of what the tests need of the project. One thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("mbframework", "providers", "tui", "tests"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)

    def run(self, tests: str, limit: float) -> Failed | None:
        """The first of the tests that fails here; None where all hold.

        :raises SystemExit: they do not run."""
        folder = self._folder
        parts = os.pathsep.join(str(folder / each) for each in ("", "providers", "tui"))
        environment = os.environ | {speedups.VARIABLE: "off", "PYTHONPATH": parts, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", f"--timeout={limit:.0f}",
                   "-p", "no:cacheprovider", "-p", "tests.model.unshrunk", "--basetemp", str(folder / "tmp"),
                   *shlex.split(tests)]  # fmt: skip
        begun = time.monotonic()
        try:
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=limit + 60
            )
        except subprocess.TimeoutExpired:
            return Failed(tests, limit / 3)
        if done.returncode not in (0, 1):
            # Not a test that failed, but tests that do not run.
            print(done.stdout + done.stderr, file=sys.stderr)
            raise SystemExit(2)
        if not done.returncode:
            return None
        found = re.search(r"^(?:FAILED|ERROR) (\S.*?)(?: - .*)?$", done.stdout, flags=re.MULTILINE)
        within = (time.monotonic() - begun) / 3 if "from pytest-timeout" in done.stdout else None
        return Failed(shlex.quote(found[1]) if found else tests, within)

    def run_changed(self, mutation: Mutation, text: str, well: Well) -> Failed | None:
        """What fails with a change, which is taken back afterwards, and holds without it; None: nothing."""
        path = self._folder / "mbframework" / mutation.file
        before = path.read_text()
        path.write_text(text)
        try:
            for tests in filter(None, (mutation.by, *TESTS[mutation.area])):
                if (failed := self.run(tests, _LIMIT_S)) and well.holds(failed):
                    return failed
            return None
        finally:
            path.write_text(before)


class Well:
    """A copy without a change: what fails here proves nothing. Any thread."""

    def __init__(self, folder: Path) -> None:
        self._copy = Copy(folder)
        self._lock = threading.Lock()
        self._known: dict[Failed, bool] = {}

    def holds(self, failed: Failed) -> bool:
        """Whether these tests hold here."""
        with self._lock:
            if failed not in self._known:
                self._known[failed] = self._copy.run(failed.test, failed.within or _LIMIT_S) is None
            return self._known[failed]


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.model.mutants", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default="", help="those whose area, file or words have this in them")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--least", type=float, default=90.0, help="percent that must be seen (90)")
    asked = parser.parse_args()
    chosen = [each for each in mutations(LIST.read_text()) if asked.only in f"{each.area} {each.file} {each.what}"]
    if not chosen:
        parser.error(f"no change has {asked.only!r} in its area, file or words; {LIST.name} lists them")
    texts = [changed(each) for each in chosen]
    begun, copies = time.monotonic(), queue.SimpleQueue[Copy]()
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(asked.processes) as pool:
        for number in range(asked.processes):
            copies.put(Copy(Path(name) / str(number)))
        well = Well(Path(name) / "well")

        def look(mutation: Mutation, text: str) -> bool:
            copy, at = copies.get(), time.monotonic()
            try:
                by = copy.run_changed(mutation, text, well)
            finally:
                copies.put(copy)
            how = f"killed by {by.test}{' (it does not end)' if by.within else ''}" if by else "SURVIVED"
            seconds = time.monotonic() - at
            print(f"{mutation.area:9}  {mutation.file}: {mutation.what}: {how} ({seconds:.0f} s)", flush=True)
            return by is not None

        seen = sum(pool.map(look, chosen, texts))
    share = 100 * seen / len(chosen)
    verdict = "PASS" if share >= asked.least else "FAIL"
    print(f"{verdict}: {seen} of {len(chosen)} mutants killed ({share:.0f} %) in {time.monotonic() - begun:,.0f} s")
    return int(share < asked.least)


if __name__ == "__main__":
    sys.exit(main())
