"""What a monitor shows of a buffer: plain values, made anew by each look.

Promises: immutable but for what :class:`SegmentTable` caches; any thread may read them, and may keep them. Instants are
seconds since 1970 (UTC), durations seconds, sizes bytes, counts messages, unless a name says otherwise. No text holds a
control character; none is free of markup characters such as ``[``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from mbframework.status import LaneStatus

VerdictKind = Literal[
    "keeping-up", "idle", "draining", "growing", "stalled", "paused", "blocked", "disk-error", "stale", "dead"
]
SegmentState = Literal["drained", "draining", "next", "sealed", "filling", "damaged"]
Level = Literal["info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Rates:
    """Messages and bytes per second over the last seconds; ``size`` is None where nothing tells the bytes."""

    messages: float
    size: float | None


@dataclass(frozen=True, slots=True)
class Point:
    """One second or so of the past: messages per second accepted and delivered up to ``at``, and messages waiting
    then."""

    at: float
    accepted: float
    delivered: float
    resident: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Is it getting better or worse? ``text`` is for people, such as "draining, ETA 2h8m"; ``seconds`` the time that
    it names: until empty, until full, or since when nothing moves; None where it names none."""

    kind: VerdictKind
    text: str
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """A segment file. ``state``: ``draining`` while its messages are sent, ``next`` where delivery stands at it and the
    lane is not sending. ``seek``: the offset of delivery in the file; ``done``: 0 to 1; ``messages`` and ``left`` are
    None where they cannot be told; ``oldest``: when its first message was accepted, and ``age_s`` how long ago."""

    first: int
    name: str
    state: SegmentState
    size: int
    messages: int | None
    seek: int
    done: float
    left: int | None
    oldest: float | None
    age_s: float | None


class SegmentTable(Protocol):
    """The segment files of a lane, oldest first, as of one look."""

    def __len__(self) -> int:
        """How many files there are; reads nothing."""
        ...

    def rows(self, start: int, stop: int) -> list[SegmentRow]:
        """These rows, as a slice gives them; reads the headers of these files only, and remembers them."""
        ...

    def index_of(self, sequence: int) -> int | None:
        """The row of the segment in which a sequence lies, or would lie: the last that begins at or before it; None
        where none does. Reads nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Event:
    """A line of an event file: ``text`` for people, ``facts`` as the file has them (see docs/status.md), raw."""

    at: float
    lane: str
    kind: str
    level: Level
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneView:
    """One lane. ``total_size``, ``segment_size`` (bytes) and ``max_segments`` are the limits in force, None where no
    status file tells; ``incoming`` and ``outgoing`` are None until they are known; ``prunes``: prune events known."""

    name: str
    status: LaneStatus
    total_size: int | None
    segment_size: int | None
    max_segments: int | None
    incoming: Rates | None
    outgoing: Rates | None
    history: tuple[Point, ...]
    verdict: Verdict
    prunes: int
    segments: SegmentTable


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A buffer's directory as it was at ``at``, which is ``ahead`` seconds more than the boot clock had then: another
    number in the next view tells that the wall clock was set. ``problems``: what could not be read, in words;
    ``error``: why nothing can be shown ("" where something can)."""

    directory: str
    at: float
    ahead: float = 0.0
    id: str = ""
    lanes: tuple[LaneView, ...] = ()
    problems: tuple[str, ...] = ()
    error: str = ""
