"""What is said of a pause where the state of the lane does not say it. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from mbframework.status import LaneStatus


def consequence(lane: LaneStatus) -> str:
    """Such as "since 2026-03-14 20:23:05 UTC: the next program will not send"; "" where the lane is not paused."""
    if not lane.paused:
        return ""
    at = lane.paused_since
    since = "an unknown time" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
    nobody = lane.state == "dead" or lane.sender in ("killed", "none")
    what = "the next program will not send" if nobody else "nothing is sent"
    return f"since {since}: {what}"
