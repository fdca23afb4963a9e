"""What a run of many short lives is, when what is done to whom, and what came of it: see tests/torture/kills.py.

Pure: a plan follows from its options alone.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.torture.verdict import Finding

#: Seconds after which a call of the provider fails by itself; the broker is frozen for longer than that.
SEND_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``kills`` of writers and sidecars, ``broker_kills`` besides, ``freezes`` of the broker, ``stops`` of processes;
    ``rate``: messages per second of each program; ``pause``: seconds between two blows, about; ``up``: seconds that
    the broker is given between two, about."""

    kills: int = 300
    broker_kills: int = 30
    freezes: int = 3
    stops: int = 40
    rate: float = 400.0
    pause: float = 0.8
    up: float = 4.0
    seed: int = 0


class Step(NamedTuple):
    """``pause`` seconds after the step before, ``kill`` or ``stop`` whom ``who``, from 0 to 1, points at."""

    pause: float
    what: str
    who: float
    #: Of a stop, seconds.
    length: float


class Blow(NamedTuple):
    """``up`` seconds after the broker took messages again, ``kill`` or ``freeze`` it for ``down`` seconds."""

    up: float
    what: str
    down: float


def plan(options: Options) -> tuple[list[Step], list[Blow]]:
    """What is done to the programs, and what to the broker. The same for the same seed."""
    draw = random.Random(options.seed)
    steps = ["kill"] * options.kills + ["stop"] * options.stops
    blows = ["kill"] * options.broker_kills + ["freeze"] * options.freezes
    draw.shuffle(steps)
    draw.shuffle(blows)

    def some(mean: float) -> float:
        return mean * draw.uniform(0.3, 1.7)

    return (
        [Step(some(options.pause), what, draw.random(), draw.uniform(0.1, 3.0)) for what in steps],
        [Blow(some(options.up), what, SEND_TIMEOUT_S + some(2.0) if what == "freeze" else some(1.0)) for what in blows],
    )


@dataclass
class Report:
    """A run's outcome; ``breaches`` is empty where every promise was kept."""

    options: Options
    seconds: float = 0.0
    #: What was done, and how often.
    done: Counter[str] = field(default_factory=Counter)
    children: int = 0
    lanes: int = 0
    openings: int = 0
    accepted: int = 0
    unreported: int = 0
    delivered: int = 0
    lost: int = 0
    pruned: int = 0
    unbalanced: int = 0
    finding: Finding = field(default_factory=Finding)
    breaches: list[str] = field(default_factory=list)

    def line(self) -> str:
        """The verdict."""
        found, done = self.finding, self.done
        return (
            f"{'BREACH' if self.breaches else 'PASS'} seed {self.options.seed}: {self.seconds:.0f} s; killed -9: "
            f"writers {done['kill writer']}×, sidecars {done['kill sidecar']}×, broker {done['kill broker']}×; "
            f"stopped: programs {done['stop writer'] + done['stop sidecar']}×, broker {done['freeze broker']}×; "
            f"forked children that ended without closing {done['child']}; {self.openings:,} openings of {self.lanes} "
            f"lanes, {self.children} of them by forked children; accepted {self.accepted:,} ({self.unreported} "
            f"unreported); by the accounts delivered {self.delivered:,}, lost {self.lost:,}, pruned "
            f"{self.pruned:,}, not balanced {self.unbalanced}; in the topics {found.unique:,}, missing "
            f"{found.missing:,}, repeated {found.repeated:,}, out of order {found.out_of_order:,}"
            + "".join(f"; BREACH: {breach}" for breach in self.breaches)
        )
