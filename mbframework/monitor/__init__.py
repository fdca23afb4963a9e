"""Looking at a buffer from outside: its directory is all it takes, of a running program as of a dead one.

``Monitor(directory).look()`` gives a :class:`View`; see docs/monitoring.md.
"""

from mbframework.monitor.monitor import Monitor
from mbframework.monitor.view import (
    Event,
    LaneView,
    Level,
    Point,
    Rates,
    SegmentRow,
    SegmentState,
    SegmentTable,
    Verdict,
    VerdictKind,
    View,
)

__all__ = [
    "Event",
    "LaneView",
    "Level",
    "Monitor",
    "Point",
    "Rates",
    "SegmentRow",
    "SegmentState",
    "SegmentTable",
    "Verdict",
    "VerdictKind",
    "View",
]
