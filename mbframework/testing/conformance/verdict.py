"""What became of numbered messages: lost, strange, repeated or out of order. Pure functions, in words for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

_MOST_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Findings:
    """Sequences, in the order in which they were found; ``strange``: values that were never sent."""

    missing: tuple[int, ...]
    strange: tuple[bytes | None, ...]
    repeated: tuple[int, ...]
    #: (the earlier one that came late, the later one that was in front of it)
    overtaken: tuple[tuple[int, int], ...]


def examine(
    sent: Mapping[bytes | None, int],
    arrived: Sequence[bytes | None],
    domain: Callable[[int], Hashable],
) -> Findings:
    """Compare what was sent (value → sequence) with the values that arrived, in the order of arrival.

    Order is judged by the first arrival of each message, within its ordering domain.
    """
    seen: Counter[int] = Counter()
    latest: dict[Hashable, int] = {}
    strange: list[bytes | None] = []
    overtaken: list[tuple[int, int]] = []
    for value in arrived:
        sequence = sent.get(value)
        if sequence is None:
            strange.append(value)
            continue
        seen[sequence] += 1
        if seen[sequence] > 1:
            continue
        of = domain(sequence)
        before = latest.get(of, sequence)
        if before > sequence:
            overtaken.append((sequence, before))
        latest[of] = max(before, sequence)
    return Findings(
        missing=tuple(sequence for sequence in sorted(sent.values()) if sequence not in seen),
        strange=tuple(strange),
        repeated=tuple(sequence for sequence, times in sorted(seen.items()) if times > 1),
        overtaken=tuple(overtaken),
    )


def in_words(findings: Findings, *, may_repeat: Collection[int] = (), may_lack: Collection[int] = ()) -> str:
    """What is wrong; "" where nothing is."""
    said = []
    if missing := [sequence for sequence in findings.missing if sequence not in may_lack]:
        said.append(f"did not arrive: {listed(missing)}")
    if findings.strange:
        said.append(f"arrived and was never sent: {listed(findings.strange)}")
    if repeated := [sequence for sequence in findings.repeated if sequence not in may_repeat]:
        said.append(f"arrived more than once: {listed(repeated)}")
    if findings.overtaken:
        late = [f"{sequence} after {before}" for sequence, before in findings.overtaken]
        said.append(f"out of order: {listed(late)}")
    return "; ".join(said)


def not_a_suffix(undelivered: Collection[int], sequences: Sequence[int], domain: Callable[[int], Hashable]) -> str:
    """Why the undelivered sequences of a batch are no suffix within each ordering domain; "" where they are."""
    failed: dict[Hashable, int] = {}
    for sequence in sequences:
        of = domain(sequence)
        if sequence in undelivered:
            failed.setdefault(of, sequence)
        elif of in failed:
            return f"message {sequence} counts as delivered, behind message {failed[of]} of its domain, which does not"
    return ""


def listed(things: Iterable[object]) -> str:
    """The first few of them."""
    every = [repr(thing) if isinstance(thing, bytes) else str(thing) for thing in things]
    more = f" and {len(every) - _MOST_SHOWN} more" if len(every) > _MOST_SHOWN else ""
    return ", ".join(every[:_MOST_SHOWN]) + more
