"""What was accepted against what arrived: the judgement over a topic, free of processes and brokers.

Promises
--------
- Every message of the topic is accounted for: it is the first of its kind, a repeat, out of order, or unknown.
- A message may be missing only from the window that the accounts counted as lost at the end of a life.
- The repeats that follow one fault must be one range, no longer than a batch.

Memory: one byte a message.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Stay(NamedTuple):
    """One life of the writer, as its ledger and the accounts have it: of ``accepted`` messages the last ``lost`` were
    counted as lost when it was killed."""

    accepted: int
    lost: int


class Fault(NamedTuple):
    """Something that was done; ``at`` is milliseconds since 1970."""

    at: float
    what: str


class Arrived(NamedTuple):
    """A message of the topic; ``at`` is when the broker appended it, milliseconds since 1970."""

    partition: int
    at: float
    life: int
    number: int


@dataclass
class Finding:
    """What the topic holds. ``breaches`` is empty where everything is as promised."""

    topic: int = 0
    unique: int = 0
    missing: int = 0
    lost: int = 0
    repeated: int = 0
    #: Messages repeated, by the fault before.
    repeats: dict[str, int] = field(default_factory=dict)
    out_of_order: int = 0
    breaches: list[str] = field(default_factory=list)


def judge(stays: Sequence[Stay], arrived: Iterable[Arrived], faults: Sequence[Fault], batch: int, one: bool) -> Finding:
    """Judge a topic, whose messages come in the order of each partition.

    :param faults: in the order of their times.
    :param batch: the most messages that one call of the provider takes.
    :param one: whether there is one partition; repeats then are a range without holes.
    """
    finding = Finding(lost=sum(stay.lost for stay in stays))
    # The place of a life's first message among all.
    offsets = [sum(stay.accepted for stay in stays[:life]) for life in range(len(stays))]
    seen = [bytearray(stay.accepted) for stay in stays]
    highest: dict[int, int] = {}
    again: dict[int, Counter[int]] = {}
    unknown = 0
    for partition, at, life, number in arrived:
        finding.topic += 1
        if life >= len(stays) or number >= stays[life].accepted:
            unknown += 1
            continue
        place = offsets[life] + number
        if seen[life][number]:
            finding.repeated += 1
            fault = max((i for i, each in enumerate(faults) if each.at <= at), default=-1)
            again.setdefault(fault, Counter())[place] += 1
            continue
        seen[life][number] = 1
        finding.unique += 1
        if place < highest.get(partition, -1):
            finding.out_of_order += 1
        highest[partition] = max(place, highest.get(partition, -1))
    if unknown:
        finding.breaches.append(f"{unknown} messages arrived that were never accepted")
    if finding.out_of_order:
        finding.breaches.append(f"{finding.out_of_order} messages arrived after later ones")
    _judge_missing(finding, stays, seen)
    _judge_repeats(finding, again, faults, batch, one)
    return finding


def _judge_missing(finding: Finding, stays: Sequence[Stay], seen: Sequence[bytearray]) -> None:
    for life, (stay, marks) in enumerate(zip(stays, seen, strict=True)):
        window = stay.accepted - stay.lost
        gone = marks.count(0, 0, window)
        finding.missing += marks.count(0)
        if gone:
            finding.breaches.append(
                f"{gone} messages of life {life} are missing, the first {marks.index(0)} of {stay.accepted}, and not "
                f"among the last {stay.lost}, which are counted as lost"
            )


def _judge_repeats(
    finding: Finding, again: dict[int, Counter[int]], faults: Sequence[Fault], batch: int, one: bool
) -> None:
    for fault, places in sorted(again.items()):
        name = f"{faults[fault].what} (#{fault + 1})" if fault >= 0 else "no fault at all"
        finding.repeats[name] = places.total()
        first, last = min(places), max(places)
        if fault < 0:
            finding.breaches.append(f"{places.total()} messages are repeated before any fault")
        elif last - first >= batch:
            finding.breaches.append(f"after {name} repeats span {last - first + 1} messages; a batch has {batch}")
        elif one and last - first + 1 != len(places):
            finding.breaches.append(f"after {name} {len(places)} messages are repeated, in more than one range")
