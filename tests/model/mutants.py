"""``python -m tests.model.mutants``: the engine with a small change, and whether the tests see it.

Promises: each change of ``mutations.txt`` is made in a copy of the package, in a folder of its own, and is a bug; the
tests of its area run against that copy, in plain Python, since that is what is changed. A table says which test saw it
first. The exit status is 1 where fewer than ``--least`` percent were seen, and 2 where tests cannot run, or a quick one
fails in the copy as it is.
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
import time
from collections.abc import Iterator, Sequence
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
    "hand-over": (_PLAYED, _GAPS, "tests/engine/test_hand_over.py", "tests/engine/test_interrupts.py",
                  f"{_STOPS} -k 'hand_over or sync_while or linger or nothing'", "tests/engine/test_control.py",
                  "tests/engine/test_modes.py", _RANDOM),
    "spool": (_GAPS, "tests/spool/test_slots.py", "tests/spool/test_writer.py", "tests/spool/test_reader.py",
              f"{_STOPS} -k 'always or sync_fails or power or not_mapped'",
              "tests/spool/test_recovery.py", "tests/engine/test_limits.py", _RANDOM),
    "recovery": ("tests/spool/test_survey.py", f"{_STOPS} -k 'killed or power or nothing or prune or rejected'",
                 "tests/spool/test_recovery.py", "tests/engine/test_kill.py", _RANDOM),
    "accounts": (_PLAYED, _GAPS, f"{_STOPS} -k 'half or prune or purge or expired or memory'",
                 "tests/engine/test_limits.py", "tests/engine/test_control.py", "tests/spool/test_recovery.py",
                 "tests/engine/test_kill.py", _RANDOM),
}  # fmt: skip
#: Hold in a copy that is well.
QUICK = (_PLAYED, "tests/spool/test_slots.py", "tests/engine/test_hand_over.py")
#: Seconds for all tests of a mutant: one that goes on for ever is seen as well. So many that a busy machine is not
#: taken for that; each test has a limit of its own.
_LIMIT_S = 7200.0


class Mutation(NamedTuple):
    """One change of a file below the package."""

    area: str
    file: str
    what: str
    before: str
    after: str


def mutations(text: str) -> Iterator[Mutation]:
    """Those of the list: ``== area: file: what``, then whole lines: "-" goes, "+" comes, " " stays."""
    for part in re.split(r"^== ", text, flags=re.MULTILINE)[1:]:
        title, *lines = part.rstrip("\n").split("\n")
        area, file, what = title.split(": ", 2)
        before, after = ("".join(f"{line[1:]}\n" for line in lines if line[:1] in (" ", sign)) for sign in "-+")
        yield Mutation(area, file, what, before, after)


def changed(mutation: Mutation) -> str:
    """The file with the change.

    :raises ValueError: what is to be changed does not stand there exactly once.
    """
    text = "\n" + (ROOT / "mbframework" / mutation.file).read_text()
    if (found := text.count("\n" + mutation.before)) != 1:
        raise ValueError(f"{mutation.file}: {mutation.what}: {mutation.before!r} stands there {found} times, not once")
    return text.replace("\n" + mutation.before, "\n" + mutation.after)[1:]


def make_copy(folder: Path) -> None:
    """What the tests need of the project."""
    for name in ("mbframework", "providers", "tui", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)


def run_tests(folder: Path, tests: Sequence[str]) -> str:
    """The first of the tests that fails in the copy; "" where all hold."""
    parts = os.pathsep.join(str(folder / each) for each in ("", "providers", "tui"))
    environment = os.environ | {speedups.VARIABLE: "off", "PYTHONPATH": parts, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "--no-header",
        "--timeout=1200",
        "-p",
        "no:cacheprovider",
        "--basetemp",
    ]
    begun = time.monotonic()
    for each in tests:
        try:
            done = subprocess.run(
                [*command, str(folder / "tmp"), *shlex.split(each)], cwd=folder, env=environment,
                capture_output=True, text=True, check=False, timeout=max(1.0, _LIMIT_S - (time.monotonic() - begun)),
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"{each} (it does not end)"
        if done.returncode not in (0, 1):
            # Not a test that failed, but tests that do not run.
            print(done.stdout + done.stderr, file=sys.stderr)
            raise SystemExit(2)
        if done.returncode:
            found = re.search(r"^(?:FAILED|ERROR) (\S.*?)(?: - .*)?$", done.stdout, flags=re.MULTILINE)
            return found[1] if found else f"{each}: {(done.stdout + done.stderr)[-300:]}"
    return ""


def run_changed(folder: Path, mutation: Mutation, text: str) -> str:
    """The same with a change in the copy, which is taken back."""
    path = folder / "mbframework" / mutation.file
    well = path.read_text()
    path.write_text(text)
    try:
        return run_tests(folder, TESTS[mutation.area])
    finally:
        path.write_text(well)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.model.mutants", description=__doc__.partition("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--only", default="", help="those whose area, file or words have this in them")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--least", type=float, default=90.0, help="percent that must be seen (90)")
    asked = parser.parse_args()
    chosen = [each for each in mutations(LIST.read_text()) if asked.only in f"{each.area} {each.file} {each.what}"]
    texts = [changed(each) for each in chosen]
    begun, folders = time.monotonic(), queue.SimpleQueue[Path]()
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(asked.processes) as pool:
        for number in range(asked.processes):
            make_copy(Path(name) / str(number))
            folders.put(Path(name) / str(number))
        if by := run_tests(Path(name) / "0", QUICK):
            print(f"{by} fails in a copy without a change", file=sys.stderr)
            return 2

        def look(mutation: Mutation, text: str) -> bool:
            folder, at = folders.get(), time.monotonic()
            by = run_changed(folder, mutation, text)
            folders.put(folder)
            how = f"killed by {by}" if by else "SURVIVED"
            seconds = time.monotonic() - at
            print(f"{mutation.area:9}  {mutation.file}: {mutation.what}: {how} ({seconds:.0f} s)", flush=True)
            return bool(by)

        seen = sum(pool.map(look, chosen, texts))
    share = 100 * seen / len(chosen) if chosen else 100.0
    print(f"{seen} of {len(chosen)} mutants killed ({share:.0f} %) in {time.monotonic() - begun:,.0f} s")
    return int(share < asked.least)


if __name__ == "__main__":
    sys.exit(main())
