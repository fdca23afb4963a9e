"""Fuzzing guided by coverage, with atheris: inputs that reach new lines are kept and varied.

The bytes that atheris varies are the chance from which a target makes its input. Needs ``pip install atheris``, which
is there for Linux on x86 and some versions of Python only. Its loop ends the process, so that each is a child:
``python -m tests.fuzz.guided FINDINGS TARGET,TARGET ARGUMENT…``.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from types import FunctionType

from tests.fuzz import corpus
from tests.fuzz.judging import judge
from tests.fuzz.target import Target


class ByteChance(Random):
    """Chance out of given bytes; when they are used up, out of a fixed seed."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0
        super().__init__(0)

    def getrandbits(self, bits: int) -> int:
        size = (bits + 7) // 8
        raw = self._data[self._at : self._at + size]
        if len(raw) < size:
            return super().getrandbits(bits)
        self._at += size
        return int.from_bytes(raw, "little") & (1 << bits) - 1

    def random(self) -> float:
        return self.getrandbits(32) / (1 << 32)


def _functions() -> Iterator[FunctionType]:
    """Those of the engine, which are loaded already."""
    modules = [module for name, module in sys.modules.items() if name.startswith("mbframework")]
    for module in modules:
        for thing in vars(module).values():
            parts = vars(thing).values() if isinstance(thing, type) else (thing,)
            yield from (part for part in parts if isinstance(part, FunctionType) and part.__module__ == module.__name__)


def watch(targets: Sequence[str], findings: Path, arguments: Sequence[str]) -> bool:
    """Run a child with these targets; a line tells what became of it. True where nothing was found."""
    begun = time.monotonic()
    child = [sys.executable, "-m", "tests.fuzz.guided", str(findings), ",".join(targets), *arguments]
    well = subprocess.run(child, check=False).returncode == 0
    took = time.monotonic() - begun
    print(f"{'PASS' if well else 'FAIL'} guided by coverage in {took:,.0f} s: {', '.join(targets)}", flush=True)
    return well


def run(targets: Sequence[Target], findings: Path, arguments: Sequence[str]) -> None:
    """Until something is found, or atheris's own ``arguments`` end it. Does not return."""
    import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]

    for function in _functions():
        atheris.instrument_func(function)
    by_share = [target for target in targets for _ in range(target.share)]

    def look(data: bytes) -> None:
        chance = ByteChance(data)
        target = by_share[chance.randrange(len(by_share))]
        given = target.make(chance)
        found = judge(target, given)
        if found is not None:
            name = f"{target.name.replace(' ', '-')}-{hashlib.sha256(found.place.encode()).hexdigest()[:8]}.txt"
            (findings / name).write_text(corpus.to_text(target.name, given, found.why))
            print(f"{found.text}kept in {findings / name}", file=sys.stderr, flush=True)
            raise RuntimeError(found.why)

    # Long inputs from the start: a short one decides nothing but what is drawn first.
    own = ["-len_control=0", "-max_len=2048", f"-artifact_prefix={findings}/"]
    atheris.Setup(["python -m tests.fuzz", *own, *arguments], look)
    atheris.Fuzz()


if __name__ == "__main__":
    from tests.fuzz.targets import BY_NAME

    run([BY_NAME[name] for name in sys.argv[2].split(",")], Path(sys.argv[1]), sys.argv[3:])
