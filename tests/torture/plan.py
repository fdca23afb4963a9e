"""When what is done to whom: a timetable that follows from the seed alone.

The run is cut into as many slots as the broker has outages, one in each, with quiet time before and after. A kill of
the writer hits live state while all is well; live state just after the broker was killed, where what is in memory is
really lost; an outage; or the draining after it. Of two kills one hits live state and one does not.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

#: Seconds after a broker was killed at which the lane is still live: less than ``live_wait``.
UNNOTICED_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a run is. Times are seconds, ``rate`` messages per second, ``live_share`` the part of all messages that
    must never have been on disk. ``freeze`` 0: the broker is not frozen. ``timed``: whether it is a breach, too, what a
    machine that is busy is slow at."""

    seconds: float = 300.0
    rate: float = 3000.0
    broker_kills: int = 3
    freeze: float = 20.0
    writer_kills: int = 2
    partitions: int = 1
    seed: int = 0
    send_timeout: float = 8.0
    live_share: float = 0.5
    timed: bool = True

    def __post_init__(self) -> None:
        if self.freeze and self.freeze < self.send_timeout + 2:
            raise ValueError(f"freeze={self.freeze:g}: expected 0, or send_timeout + 2 s at least: send() must fail")
        if self.writer_kills and not self.broker_kills:
            raise ValueError("writer_kills: expected broker_kills of at least 1 as well; some of them hit its outage")


class Step(NamedTuple):
    """``at`` seconds after the first message, or as soon after that as the lane is in ``state``, if one is named."""

    at: float
    what: str
    state: str = ""


def plan(options: Options) -> list[Step]:
    """The timetable, in order."""
    draw = random.Random(options.seed)
    outages = ["kill"] * options.broker_kills + ["freeze"] * bool(options.freeze)
    draw.shuffle(outages)
    slot = options.seconds / max(1, len(outages))
    targets = _targets(draw, outages, options.writer_kills)
    steps = []
    for number, outage in enumerate(outages):
        start = number * slot
        begin = start + slot * draw.uniform(0.15, 0.3)
        length = options.freeze if outage == "freeze" else slot * draw.uniform(0.1, 0.2)
        down, up = ("freeze", "thaw") if outage == "freeze" else ("kill", "restart")
        steps += [Step(begin, f"{down} broker"), Step(begin + length, f"{up} broker")]
        for moment in targets.get(number, ()):
            steps.append(_KILLS[moment](start + slot * 0.1, begin, begin + length))
    # The sort is stable: what waits for "draining" comes after the restart of the same moment.
    return sorted(steps, key=lambda step: step.at)


#: The kill of the writer by what it hits, from a quiet moment and the begin and the end of an outage.
_KILLS: dict[str, Callable[[float, float, float], Step]] = {
    "live": lambda quiet, begin, end: Step(quiet, "kill writer", "live"),
    "unacknowledged": lambda quiet, begin, end: Step(begin + UNNOTICED_S, "kill writer"),
    "buffering": lambda quiet, begin, end: Step((begin + end) / 2, "kill writer", "buffering"),
    "draining": lambda quiet, begin, end: Step(end, "kill writer", "draining"),
}


def _targets(draw: random.Random, outages: list[str], kills: int) -> dict[int, list[str]]:
    """By slot, what kills of the writer are to hit."""
    moments = [draw.choice(["live", "unacknowledged"]), draw.choice(["buffering", "draining"])]
    moments += [draw.choice(list(_KILLS)) for _ in range(kills - 2)]
    draw.shuffle(moments)
    down = [number for number, outage in enumerate(outages) if outage == "kill"]
    targets: dict[int, list[str]] = {}
    for moment in moments[:kills]:
        targets.setdefault(draw.choice(range(len(outages)) if moment == "live" else down), []).append(moment)
    return targets
