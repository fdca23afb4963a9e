"""``python -m tests.fuzz --inputs 1000000 --seed 1``: fuzz everything that reads a buffer's directory.

The last line is the verdict; the exit status is 1 where something was found, and 2 where it cannot begin. What was
found is kept as files that ``python -m tests.fuzz --again FILE`` looks at once more; put one into ``tests/fuzz/corpus``
when it is mended.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz import corpus, guided, runner
from tests.fuzz.judging import judge
from tests.fuzz.targets import ALL, BY_NAME, GROUPS

_TELL_EVERY_S = 30.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--inputs", type=int, default=100_000, help="how many (default: 100,000)")
    parser.add_argument("--seconds", type=float, help="stop after so long, however many there were")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--target", action="append", choices=list(BY_NAME), help="only these (may be repeated)")
    parser.add_argument("--findings", type=Path, help="where inputs that find something are kept")
    parser.add_argument("--again", type=Path, nargs="+", metavar="FILE", help="look at these inputs and at no other")
    parser.add_argument(
        "--atheris",
        action="store_true",
        help="guided by coverage, each group of targets until something is found; more arguments are atheris's",
    )
    given, rest = parser.parse_known_args()
    targets = given.target or list(BY_NAME)
    if rest and not given.atheris:
        parser.error(f"unknown: {' '.join(rest)}")
    if given.again:
        return _again(given.again)
    if given.atheris and importlib.util.find_spec("atheris") is None:
        print("atheris is not installed: pip install atheris", file=sys.stderr)
        return 2
    findings = given.findings or Path(tempfile.mkdtemp(prefix="mbframework-fuzz-"))
    findings.mkdir(parents=True, exist_ok=True)
    if given.atheris:
        arguments = [f"-seed={given.seed}", *(each for each in rest if each != "--")]
        well = [guided.watch(group, findings, arguments) for group in ([given.target] if given.target else GROUPS)]
        if all(well) and given.findings is None:
            findings.rmdir()
        return 0 if all(well) else 1
    begun = told = time.monotonic()
    total = runner.Result()
    for total, new in runner.run(
        targets, findings, inputs=given.inputs, seed=given.seed, processes=given.processes, seconds=given.seconds
    ):
        for found in new:
            print(f"{found.target}: {found.why}\n{found.text}", file=sys.stderr)
        if time.monotonic() - told > _TELL_EVERY_S:
            told = time.monotonic()
            print(f"{total.inputs:,} inputs, {total.inputs / (told - begun):,.0f}/s", file=sys.stderr, flush=True)
    took = time.monotonic() - begun
    counts = ", ".join(f"{target.name} {total.counts[target.name]:,}" for target in ALL if target.name in total.counts)
    verdict = f"{'FAIL' if total.findings else 'PASS'} seed {given.seed}: {total.inputs:,} inputs in {took:,.0f} s"
    valid = f"of them {total.resealed / max(1, total.inputs):.1%} with valid CRCs"
    print(f"{verdict}, {total.inputs / took:,.0f}/s, {valid}; {len(total.findings)} findings; {counts}")
    if total.findings:
        print(f"kept in {findings}", file=sys.stderr)
    elif given.findings is None:
        findings.rmdir()
    return 1 if total.findings else 0


def _again(paths: list[Path]) -> int:
    bad = 0
    for path in paths:
        name, kept = corpus.from_text(path.read_text())
        found = judge(BY_NAME[name], kept, memory=True)
        bad += found is not None
        print(f"{path}: {'well' if found is None else found.text}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
