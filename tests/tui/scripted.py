"""A buffer that exists only as values: the same picture on every machine, at every time of day."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mbframework.monitor import Event, LaneView, Point, Rates, SegmentRow, Verdict, View
from mbframework.status import LaneStatus, SeekPosition

#: 2026-03-14 20:23:05 UTC.
NOW = 1_773_519_785.0
MIB = 1 << 20
PER_SEGMENT = 300_777


@dataclass
class Rows:
    """Segments as a list; ``reads`` counts the rows asked for."""

    table: list[SegmentRow]
    reads: int = 0

    def __len__(self) -> int:
        return len(self.table)

    def rows(self, start: int, stop: int) -> list[SegmentRow]:
        found = self.table[start:stop]
        self.reads += len(found)
        return found

    def index_of(self, sequence: int) -> int | None:
        place = bisect.bisect_right(self.table, sequence, key=lambda row: row.first)
        return place - 1 if place else None


def segments(count: int = 23, *, done: float = 0.611) -> Rows:
    """A drained segment, one that is being sent, sealed ones, and the one that is being filled."""
    table = []
    for at in range(count):
        first = 12_000_001 + at * PER_SEGMENT
        state, share = ("sealed", 0.0)
        if at == 0:
            state, share = "drained", 1.0
        elif at == 1:
            state, share = "draining", done
        elif at == count - 1:
            state = "filling"
        messages = PER_SEGMENT if at < count - 1 else 104_200
        size = 64 * MIB if at < count - 1 else 23 * MIB
        oldest = NOW - (count - at) * 150.0
        table.append(
            SegmentRow(
                first=first,
                name=f"P{first:020}.seg",
                state=state,  # type: ignore[arg-type]
                size=size,
                messages=messages,
                seek=round(size * share),
                done=share,
                left=round(messages * (1 - share)),
                oldest=oldest,
                age_s=NOW - oldest,
            )
        )
    return Rows(table)


def history(seconds: int = 600) -> tuple[Point, ...]:
    """An outage that began ten minutes ago and ended six minutes ago."""
    points = []
    resident = 0.0
    for at in range(seconds, 0, -1):
        accepted = 1_800 + 500 * math.sin(at / 13) + 200 * math.sin(at / 3)
        delivered = 0.0 if at > 372 else 2_600 + 300 * math.sin(at / 7)
        resident = max(0.0, resident + accepted - delivered)
        points.append(Point(at=NOW - at + 1, accepted=accepted, delivered=delivered, resident=round(resident)))
    return tuple(points)


def status(**changes: Any) -> LaneStatus:
    """A lane that drains."""
    known = LaneStatus(
        name="main",
        mode="buffer",
        state="draining",
        state_since=NOW - 374.0,
        accepted=18_204_551,
        delivered=11_971_020,
        pruned=120_422,
        expired=0,
        dead=3,
        purged=0,
        lost=0,
        resident_messages=6_113_106,
        resident_bytes=1_331 * MIB,
        disk_bytes=1_431 * MIB,
        segments=23,
        oldest_age_s=3_302.0,
        last_error="BrokerUnavailable: no broker answers at k1:9092",
        last_error_at=NOW - 380.0,
        failures=0,
        seek=SeekPosition(12_300_778, 12_484_553, 41_000_000),
        provider="kafka://k1:9092",
        heartbeat_age_s=0.4,
        writer_pid=4242,
        sender_pid=4242,
    )
    return replace(known, **changes)


def lane(name: str = "main", *, rows: Rows | None = None, verdict: Verdict | None = None, **changes: Any) -> LaneView:
    """A lane, seen; what is in ``changes`` goes into its status."""
    rows = segments() if rows is None else rows
    return LaneView(
        name=name,
        status=status(name=name, segments=len(rows), **changes),
        total_size=2_048 * MIB,
        segment_size=64 * MIB,
        max_segments=None,
        incoming=Rates(1_812.4, 404_480.0),
        outgoing=Rates(2_605.0, 580_608.0),
        history=history(),
        verdict=verdict or Verdict("draining", "draining, ETA 2h8m", 7_700.0),
        prunes=3,
        segments=rows,
    )


def buffering(name: str = "main", **changes: Any) -> LaneView:
    """The same in the middle of the outage."""
    found = lane(
        name,
        verdict=Verdict("growing", "growing, full in 41m", 2_460.0),
        **{
            "state": "buffering",
            "state_since": NOW - 404.0,
            "state_reason": "BrokerUnavailable: no broker answers at k1:9092",
            "failures": 9,
            "failing_since": NOW - 404.0,
            "last_error_at": NOW - 1.2,
            "retry_at": NOW + 4.0,
        }
        | changes,
    )
    return replace(found, outgoing=Rates(0.0, 0.0))


def live(name: str = "main", **changes: Any) -> LaneView:
    """A lane where all is well, and nothing was ever lost."""
    found = lane(
        name,
        rows=Rows(
            [replace(segments(2).table[1], state="filling", size=8_192, messages=0, seek=8_192, done=1.0, left=0)]
        ),
        verdict=Verdict("keeping-up", "keeping up"),
        **{
            "state": "live",
            "state_since": NOW - 86_400 * 2.1,
            "pruned": 0,
            "dead": 0,
            "delivered": 18_204_551,
            "resident_messages": 0,
            "resident_bytes": 0,
            "oldest_age_s": None,
            "last_error": None,
            "last_error_at": None,
        }
        | changes,
    )
    return replace(found, outgoing=found.incoming, prunes=0)


def view(*lanes: LaneView, directory: str = "/var/lib/mb/orders", **changes: Any) -> View:
    """A directory, seen."""
    return View(directory=directory, at=NOW, id="0" * 32, lanes=lanes or (lane(),), **changes)


EVENTS = (
    Event(NOW - 790, "main", "opened", "info", "opened by pid 4242, next sequence 11,000,001"),
    Event(NOW - 780, "main", "state", "info", "live"),
    Event(NOW - 716, "main", "failure", "error", "BrokerUnavailable: no broker answers at k1:9092"),
    Event(NOW - 716, "main", "hand-over", "warning", "live → buffering: BrokerUnavailable"),
    Event(NOW - 600, "main", "seal", "info", "segment 12,000,001, 64MiB"),
    Event(NOW - 464, "main", "prune", "error", "1 segment, 64MiB, 300,777 messages, 120,422 UNDELIVERED"),
    Event(NOW - 374, "main", "provider-back", "info", "answers after 342 failures in a row"),
    Event(NOW - 374, "main", "state", "info", "buffering → draining: probe ok after 5m42s"),
    Event(NOW - 120, "main", "dead", "warning", "sequence 12,301,440 of topic orders: RecordTooLarge"),
    Event(NOW - 30, "main", "removed", "info", "1 delivered segment"),
)


@dataclass
class ScriptedSource:
    """A source whose views are changed by the test."""

    views: tuple[View, ...]
    told: Sequence[Event] = EVENTS
    looks: int = 0
    closed: bool = False
    broken: list[BaseException] = field(default_factory=list)

    def look(self) -> tuple[View, ...]:
        self.looks += 1
        if self.broken:
            raise self.broken.pop()
        return self.views

    def events(self, directory: str, lane: str) -> list[Event]:
        return [replace(event, lane=lane) for event in self.told]

    def close(self) -> None:
        self.closed = True
