"""Which metrics there are: names, kinds, units and labels, the same for every library.

Promises: a name, once published, keeps its meaning. Counters count since the buffer was made, and do not begin again
with a new process, but for RETRIES, which count since the sender opened the lane.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Unit = Literal["", "messages", "bytes", "seconds"]


@dataclass(frozen=True, slots=True)
class Metric:
    """``name`` is that of Prometheus, where counters end in ``_total``."""

    name: str
    kind: Literal["gauge", "counter"]
    unit: Unit
    labels: tuple[str, ...]
    help: str


_LANE = ("directory", "lane")

UP = Metric("mbframework_up", "gauge", "", ("directory",), "1: the buffer's directory could be read; 0: it could not.")
PROBLEMS = Metric(
    "mbframework_problems", "gauge", "", ("directory",), "What could not be read of a directory that could be."
)
BUFFER_MESSAGES = Metric("mbframework_buffer_messages", "gauge", "messages", _LANE, "Messages that wait.")
BUFFER_BYTES = Metric(
    "mbframework_buffer_bytes", "gauge", "bytes", _LANE, "What waits takes so much, on disk and in memory."
)
BUFFER_LIMIT_BYTES = Metric(
    "mbframework_buffer_limit_bytes", "gauge", "bytes", _LANE, "total_size: beyond it on_full applies."
)
OLDEST = Metric(
    "mbframework_oldest_message_age_seconds", "gauge", "seconds", _LANE,
    "So long ago the oldest message that waits was accepted; 0: none waits.",
)  # fmt: skip
ACCEPTED = Metric("mbframework_accepted_messages_total", "counter", "messages", _LANE, "Messages that write() took.")
DELIVERED = Metric(
    "mbframework_delivered_messages_total", "counter", "messages", _LANE, "Messages that the provider acknowledged."
)
DISCARDED = Metric(
    "mbframework_discarded_messages_total", "counter", "messages", (*_LANE, "reason"),
    "Messages that left undelivered, by the account of mb status that they are in.",
)  # fmt: skip
RETRIES = Metric(
    "mbframework_retries_total", "counter", "", _LANE, "Calls of the provider that repeated one that had failed."
)
FAILURES = Metric(
    "mbframework_consecutive_failures", "gauge", "", _LANE, "Failures in a row; 0 while the provider answers."
)
DEAD_LETTERS = Metric(
    "mbframework_dead_letters", "gauge", "", _LANE, "Dead letters that are kept: neither replayed nor dropped."
)
LAST_ERROR = Metric(
    "mbframework_last_error_timestamp_seconds", "gauge", "seconds", _LANE, "When the provider last failed."
)
STATE = Metric("mbframework_state", "gauge", "", (*_LANE, "state"), "1 for the state that the lane is in, else 0.")
STATE_SINCE = Metric(
    "mbframework_state_since_timestamp_seconds", "gauge", "seconds", _LANE, "When the present state began."
)
MODE = Metric("mbframework_mode", "gauge", "", (*_LANE, "mode"), "1 for the mode in force, else 0.")

METRICS = (
    UP, PROBLEMS, BUFFER_MESSAGES, BUFFER_BYTES, BUFFER_LIMIT_BYTES, OLDEST, ACCEPTED, DELIVERED, DISCARDED,
    DEAD_LETTERS, RETRIES, FAILURES, LAST_ERROR, STATE, STATE_SINCE, MODE,
)  # fmt: skip

#: The values of ``reason``: fields of LaneStatus, which with what is delivered and what waits make up what is accepted.
REASONS = ("pruned", "expired", "dead", "purged", "lost_live", "lost_linger", "lost_disk", "returned")
