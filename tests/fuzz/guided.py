"""Fuzzing guided by coverage, with atheris: inputs that reach new lines are kept and varied.

The bytes that atheris varies are the chance from which a target makes its input. Needs ``pip install atheris``, which
is there for Linux on x86 and some versions of Python only.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from random import Random
from types import FunctionType

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


def run(targets: list[Target], arguments: list[str]) -> None:
    """Until something is found, or atheris's own ``arguments`` end it. Does not return."""
    import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]

    for function in _functions():
        atheris.instrument_func(function)
    by_share = [target for target in targets for _ in range(target.share)]

    def look(data: bytes) -> None:
        chance = ByteChance(data)
        target = by_share[chance.randrange(len(by_share))]
        found = judge(target, target.make(chance))
        if found is not None:
            print(found.text, file=sys.stderr)
            raise RuntimeError(found.why)

    atheris.Setup(["python -m tests.fuzz", *arguments], look)
    atheris.Fuzz()
