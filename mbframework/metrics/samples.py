"""From what was read of buffers to samples. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mbframework.config import MODES
from mbframework.metrics import catalogue
from mbframework.metrics.catalogue import METRICS, REASONS, Metric
from mbframework.printable import printable
from mbframework.status import STATES, LaneStatus


@dataclass(frozen=True, slots=True)
class LaneReading:
    """One lane. ``limit``: total_size in bytes; ``retries``: since its sender opened it. None: not known."""

    status: LaneStatus
    limit: int | None = None
    retries: int | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read of a directory; ``error``: why nothing could be, "" where something was; ``problems``: what could
    not, in words."""

    directory: str
    lanes: tuple[LaneReading, ...] = ()
    problems: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """A number, and the values of its metric's labels in their order: text without control characters."""

    labels: tuple[str, ...]
    value: float


def samples_of(readings: Iterable[Reading]) -> dict[Metric, list[Sample]]:
    """The samples of every metric. Of two readings of one lane, or of one directory, the first counts."""
    found: dict[Metric, dict[tuple[str, ...], float]] = {metric: {} for metric in METRICS}
    for reading in readings:
        # A name that is not text would end a whole scrape.
        directory = printable(reading.directory)
        found[catalogue.UP].setdefault((directory,), 0.0 if reading.error else 1.0)
        if not reading.error:
            found[catalogue.PROBLEMS].setdefault((directory,), float(len(reading.problems)))
        for lane in reading.lanes:
            name = directory, printable(lane.status.name)
            if name not in found[catalogue.BUFFER_MESSAGES]:
                for metric, more, value in _of_lane(lane):
                    if value is not None:
                        found[metric][*name, *more] = float(value)
    return {metric: [Sample(labels, value) for labels, value in each.items()] for metric, each in found.items()}


def _of_lane(lane: LaneReading) -> Iterator[tuple[Metric, tuple[str, ...], float | None]]:
    status = lane.status
    yield catalogue.BUFFER_MESSAGES, (), status.resident
    yield catalogue.BUFFER_BYTES, (), status.resident_bytes
    yield catalogue.BUFFER_LIMIT_BYTES, (), lane.limit
    # None of what waits: it is in memory only, and its age is known to its process alone.
    yield catalogue.OLDEST, (), status.oldest_age_s if status.resident else 0.0
    yield catalogue.ACCEPTED, (), status.accepted
    yield catalogue.DELIVERED, (), status.delivered
    for reason in REASONS:
        yield catalogue.DISCARDED, (reason,), getattr(status, reason)
    yield catalogue.DEAD_LETTERS, (), status.dead_letters
    yield catalogue.RETRIES, (), lane.retries
    yield catalogue.FAILURES, (), status.failures
    yield catalogue.LAST_ERROR, (), status.last_error_at
    for state in STATES:
        yield catalogue.STATE, (state,), state == status.state
    yield catalogue.STATE_SINCE, (), status.state_since
    for mode in MODES:
        yield catalogue.MODE, (mode,), mode == status.mode
