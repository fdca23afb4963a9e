"""Very many inputs, by several processes; and one input again.

Promises: an input follows from the seed and its number alone, whatever the number of processes. Of more than
half of them every checksum was made right again after the harm. Each finding is told once, with the input kept as a
file of the corpus's form.
"""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import multiprocessing.pool
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.fuzz import corpus
from tests.fuzz.judging import Finding, judge
from tests.fuzz.target import Target

#: Inputs that a process takes at a time, and of how many one has its memory measured.
_CHUNK = 1000
_MEASURED = 100


@dataclass(frozen=True)
class Order:
    """What a process is to do: these numbers, with these targets."""

    seed: int
    numbers: range
    targets: tuple[str, ...]
    findings: Path


@dataclass
class Result:
    """What came of it: inputs by target, how many of them were resealed, and what was found."""

    counts: Counter[str] = field(default_factory=Counter)
    resealed: int = 0
    findings: dict[str, Finding] = field(default_factory=dict)

    def add(self, other: Result) -> list[Finding]:
        """Take in another; those findings that are new."""
        self.counts += other.counts
        self.resealed += other.resealed
        new = {place: found for place, found in other.findings.items() if place not in self.findings}
        self.findings |= new
        return list(new.values())

    @property
    def inputs(self) -> int:
        return sum(self.counts.values())


def drawn(seed: int, number: int, targets: Sequence[Target]) -> tuple[Target, Random]:
    """The target of an input, and the chance that makes it."""
    chance = Random(f"{seed}:{number}")
    return chance.choices(targets, [target.share for target in targets])[0], chance


def run_one(order: Order) -> Result:
    """Carry out an order."""
    from tests.fuzz.targets import BY_NAME

    targets = [BY_NAME[name] for name in order.targets]
    result = Result()
    for number in order.numbers:
        target, chance = drawn(order.seed, number, targets)
        given = target.make(chance)
        result.counts[target.name] += 1
        result.resealed += given.resealed
        found = judge(target, given, memory=number % _MEASURED == 0)
        if found is not None and found.place not in result.findings:
            result.findings[found.place] = found
            digest = hashlib.sha256(found.place.encode()).hexdigest()[:8]
            path = order.findings / f"{target.name.replace(' ', '-')}-{digest}.txt"
            path.write_text(corpus.to_text(target.name, given, f"{found.why} (seed {order.seed}, input {number})"))
    return result


def run(
    targets: Sequence[str], findings: Path, *, inputs: int, seed: int, processes: int, seconds: float | None = None
) -> Iterator[tuple[Result, list[Finding]]]:
    """Run them; after each chunk the sum so far, and what is new of what was found."""
    findings.mkdir(parents=True, exist_ok=True)
    names, total = tuple(targets), Result()
    until = None if seconds is None else time.monotonic() + seconds
    starts = itertools.takewhile(
        lambda start: start < inputs and (until is None or time.monotonic() < until), itertools.count(0, _CHUNK)
    )
    orders = (Order(seed, range(start, min(start + _CHUNK, inputs)), names, findings) for start in starts)
    if processes <= 1:
        for order in orders:
            yield total, total.add(run_one(order))
        return
    # Not forked: what the parent has imported and opened is no concern of theirs.
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for result in _in_turn(pool, orders, 2 * processes):
            yield total, total.add(result)


def _in_turn(pool: multiprocessing.pool.Pool, orders: Iterator[Order], ahead: int) -> Iterator[Result]:
    """As Pool.imap, but no more than ``ahead`` orders are taken in advance, so that a time limit is kept."""
    waiting = [pool.apply_async(run_one, (order,)) for order in itertools.islice(orders, ahead)]
    while waiting:
        yield waiting.pop(0).get()
        waiting += [pool.apply_async(run_one, (order,)) for order in itertools.islice(orders, 1)]
