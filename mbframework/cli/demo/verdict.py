"""What was written against what arrived.

Pure. A message is ``run.number``: the run of the writer that wrote it, and how many that run had written before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, NamedTuple

from mbframework.status import LaneStatus


class Note(NamedTuple):
    """A line of the writer's ledger: this message was accepted, and ``write()`` took so many microseconds."""

    message: str
    microseconds: float


@dataclass(slots=True)
class Verdict:
    """Counts of messages. ``lost``: acknowledged and not delivered; ``repeated``: deliveries beyond the first;
    ``unacknowledged``: delivered, though their writer was killed before it could note them.
    """

    written: int
    delivered: int
    repeated: int
    lost: int
    out_of_order: int
    unacknowledged: int
    waiting_at_kill: int = 0
    median_write_us: float = 0.0
    slowest_write_ms: float = 0.0
    states: list[str] = field(default_factory=list)
    provider: str = ""
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether all is as it was promised."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"schema": 1} | asdict(self) | {"ok": self.ok}


def judge(ledger: Sequence[Note], delivered: Sequence[str], lane: LaneStatus, *, kills: int, once: bool) -> Verdict:
    """Compare them, and with the buffer's own account; ``once``: the provider promises no repeats."""
    written = {note.message for note in ledger}
    first = list(dict.fromkeys(delivered))
    arrived = set(first)
    verdict = Verdict(
        written=len(ledger),
        delivered=len(delivered),
        repeated=len(delivered) - len(first),
        lost=len(written - arrived),
        out_of_order=_out_of_order(first),
        unacknowledged=len(arrived - written),
        median_write_us=median(note.microseconds for note in ledger) if ledger else 0.0,
        slowest_write_ms=max((note.microseconds for note in ledger), default=0) / 1000,
    )
    problems = verdict.problems
    if not ledger:
        problems.append("nothing was written")
    if verdict.lost:
        problems.append(f"{verdict.lost:,} messages were acknowledged and did not arrive: {_some(written - arrived)}")
    if verdict.out_of_order:
        problems.append(f"{verdict.out_of_order:,} messages arrived behind later ones")
    if verdict.repeated and once:
        problems.append(f"{verdict.repeated:,} messages arrived again, which this provider promises not to let happen")
    if verdict.unacknowledged > kills:
        # A kill can fall between an acceptance and its note, but there is one thread to be killed.
        problems.append(
            f"{verdict.unacknowledged:,} messages arrived that nobody acknowledged: {_some(arrived - written)}"
        )
    problems.extend(_accounts(verdict, lane))
    return verdict


def _accounts(verdict: Verdict, lane: LaneStatus) -> list[str]:
    """Where the buffer's own account differs."""
    expected = {
        "accepted": verdict.written + verdict.unacknowledged,
        "delivered": verdict.written + verdict.unacknowledged - verdict.lost,
        "resident": 0,
        "lost": 0,
        "pruned": 0,
    }
    found = {name: getattr(lane, name) for name in expected}
    return [
        f"the buffer's own account says {found[name]:,} {name}, and {count:,} were expected"
        for name, count in expected.items()
        if found[name] != count
    ]


def _out_of_order(messages: Sequence[str]) -> int:
    count, last = 0, (0, -1)
    for message in messages:
        run, _, number = message.partition(".")
        place = int(run), int(number)
        if place < last:
            count += 1
        else:
            last = place
    return count


def _some(messages: set[str]) -> str:
    shown = sorted(messages, key=lambda message: [int(part) for part in message.split(".")])[:3]
    return ", ".join(shown) + (", …" if len(messages) > len(shown) else "")
