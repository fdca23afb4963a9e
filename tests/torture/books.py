"""The books of a directory that several processes write to, with threads and forked children, kept outside of it.

Promises
--------
- Every report that left a process is counted, however that process ended.
- Sequences of an opening of a lane follow one another without a gap, but for what a kill left unreported: one call of
  each thread at most. Anything else is among the ``faults``.
- A message that arrived is placed where its sequence stood, whichever thread wrote it, so that
  :func:`~tests.torture.verdict.judge` can judge each lane as one stream.

``read`` on one thread; everything else after it has returned.
"""

from __future__ import annotations

import os
import threading
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mbframework import LaneStatus
from tests.torture.kills_writer import STREAMS, owner_of, portion_of
from tests.torture.verdict import Arrived, Fault, Stay


@dataclass(slots=True)
class Opening:
    """A lane as a process found it, before it wrote."""

    owner: int
    lane: str
    accepted: int
    lost: int
    next: int
    #: Its number among the openings of its lane.
    life: int = 0


@dataclass
class Lane:
    """A lane's openings in their order, with what became of each, and what arrived of it."""

    openings: list[Opening] = field(default_factory=list)
    stays: list[Stay] = field(default_factory=list)
    #: Of each opening, the places that no report names.
    holes: list[list[int]] = field(default_factory=list)
    partitions: array[int] = field(default_factory=lambda: array("H"))
    times: array[float] = field(default_factory=lambda: array("d"))
    lives: array[int] = field(default_factory=lambda: array("I"))
    numbers: array[int] = field(default_factory=lambda: array("I"))
    #: The last place that was seen, by opening and partition.
    reached: dict[tuple[int, int], int] = field(default_factory=dict)

    def arrived(self) -> Iterator[Arrived]:
        """What arrived, in the order of each partition."""
        for each in zip(self.partitions, self.times, self.lives, self.numbers, strict=True):
            yield Arrived(*each)

    def add(self, partition: int, at: float, life: int, number: int) -> None:
        """One more of them."""
        self.partitions.append(partition)
        self.times.append(at)
        self.lives.append(life)
        self.numbers.append(number)


class Books:
    """See the module."""

    def __init__(self) -> None:
        self.openings: dict[int, Opening] = {}
        self.streams: dict[int, array[int]] = {}
        #: Children that ended themselves without closing.
        self.ends: list[tuple[str, Fault]] = []
        self.faults: list[str] = []
        self.unreported = 0
        self.lanes: dict[str, Lane] = {}
        self._placed: dict[tuple[int, int], int] = {}
        self._begun: dict[int, threading.Event] = {}

    def begun(self, owner: int) -> threading.Event:
        """Set once a process has told of a write."""
        return self._begun.setdefault(owner, threading.Event())

    def read(self, fd: int) -> None:
        """Read the reports until the last process that can send one has ended; closes ``fd``."""
        with os.fdopen(fd, "rb") as lines:
            for line in lines:
                words = line.split()
                try:
                    getattr(self, f"_read_{words[0].decode()}")(*words[1:])
                except (AttributeError, IndexError, KeyError, TypeError, ValueError):
                    self.faults.append(f"a report cannot be understood: {line[:200]!r}")

    def _read_o(self, owner: bytes, lane: bytes, accepted: bytes, lost: bytes, next_: bytes) -> None:
        opening = Opening(int(owner), lane.decode(), int(accepted), int(lost), int(next_))
        self.openings[opening.owner] = opening

    def _read_w(self, stream: bytes, number: bytes, sequence: bytes, count: bytes) -> None:
        name = int(stream)
        told = self.streams.setdefault(name, array("Q"))
        if int(number) != len(told):
            self.faults.append(f"stream {name}: message {int(number)} was reported after {len(told) - 1}")
        told.extend(range(int(sequence), int(sequence) + int(count)))
        self.begun(owner_of(name)).set()

    def _read_x(self, lane: bytes, at: bytes) -> None:
        self.ends.append((lane.decode(), Fault(float(at), "a child ended itself")))

    def _read_f(self, *words: bytes) -> None:
        self.faults.append(b" ".join(words).decode(errors="replace"))

    # ---- when all is over

    def close(self, last: Mapping[str, LaneStatus]) -> None:
        """Settle what each opening accepted and lost; ``last``: each lane's accounts at the end."""
        self.lanes = {name: Lane() for name in last}
        for opening in sorted(self.openings.values(), key=lambda each: each.next):
            openings = self.lanes[opening.lane].openings
            opening.life = len(openings)
            openings.append(opening)
        for name, lane in self.lanes.items():
            for here, there in zip(lane.openings, [*lane.openings[1:], None], strict=True):
                end = last[name]
                accepted = (end.accepted if there is None else there.accepted) - here.accepted
                lost = (end.lost_live + end.lost_linger if there is None else there.lost) - here.lost
                lane.stays.append(Stay(accepted, lost))
                lane.holes.append(self._holes(here, accepted))

    def _holes(self, opening: Opening, accepted: int) -> list[int]:
        """The places of an opening that nobody reported."""
        where = f"{opening.lane} from {opening.next} on, {accepted} accepted"
        if accepted < 0:
            self.faults.append(f"{where}: fewer than none")
            return []
        marks, allowed = bytearray(accepted), 0
        for stream in range(opening.owner, opening.owner + STREAMS):
            told = self.streams.get(stream)
            allowed += portion_of(stream)
            before = opening.next - 1
            for sequence in told or ():
                place = sequence - opening.next
                if sequence <= before or not 0 <= place < accepted or marks[place]:
                    self.faults.append(f"{where}: stream {stream} was given sequence {sequence} after {before}")
                    break
                marks[place] = 1
                before = sequence
        holes = [place for place, mark in enumerate(marks) if not mark] if 0 in marks else []
        if len(holes) > allowed:
            self.faults.append(f"{where}: {len(holes)} were never reported, the first {holes[0]}; at most {allowed}")
        self.unreported += len(holes)
        return holes

    def place(self, partition: int, at: float, stream: int, number: int) -> None:
        """A message arrived: put it where it belongs."""
        opening = self.openings.get(owner_of(stream))
        if opening is None:
            self.faults.append(f"stream {stream}: message {number} arrived, and nobody opened a lane for it")
            return
        lane = self.lanes[opening.lane]
        life = opening.life
        told = self.streams.get(stream, array("Q"))
        if number < len(told):
            place = told[number] - opening.next
        else:
            place = self._place_unreported(lane, life, partition, stream, number)
        lane.reached[life, partition] = max(place, lane.reached.get((life, partition), -1))
        lane.add(partition, at, life, place)

    def _place_unreported(self, lane: Lane, life: int, partition: int, stream: int, number: int) -> int:
        """The first free place behind what its partition has seen; beyond all of them where it was never accepted."""
        known = self._placed.get((stream, number))
        if known is not None:
            return known
        holes, told = lane.holes[life], self.streams.get(stream)
        behind = lane.reached.get((life, partition), -1)
        if told:
            behind = max(behind, told[-1] - lane.openings[life].next)
        free = bisect_right(holes, behind)
        place = holes.pop(free) if free < len(holes) else lane.stays[life].accepted
        self._placed[stream, number] = place
        return place
