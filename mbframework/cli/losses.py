"""What a lane, or its destination, has lost lately, by the lane's event files.

Promises: reads at most the last 64 MiB of each file, and only lines that can be of interest are taken apart. A wall
clock that was set hides nothing of what was told since the machine started. A lower bound: of a lane with many events
the older ones are gone, and a kill takes those of the last second.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from mbframework.files import Files
from mbframework.monitor.events import lines_from_end, parse
from mbframework.monitor.history import Now
from mbframework.spool import layout

#: By kind of event: the account of LaneStatus, and where the line has the number of messages ("": it is one).
_TOLD = {
    "prune": ("pruned", "undelivered"),
    "expired": ("expired", "messages"),
    "dead": ("dead", ""),
    "lost": ("lost", "messages"),
    "acknowledged-lost": ("acknowledged_lost", "messages"),
}
ACCOUNTS = tuple(account for account, _ in _TOLD.values())
_MARKS = {b'"kind": "%s"' % kind.encode(): kind for kind in _TOLD}


def lost_since(files: Files, lane_path: str, since: float) -> Mapping[str, int]:
    """Messages by account, of the events from ``since`` (seconds since 1970) on."""
    found = dict.fromkeys(ACCOUNTS, 0)
    now = Now(files.boot_ns(), files.wall_ns(), files.boot_id())
    for name in (layout.WRITER_EVENTS_FILE, layout.SENDER_EVENTS_FILE):
        for path in (os.path.join(lane_path, name), os.path.join(lane_path, f"{name}.1")):
            _add(files, path, since, now, found)
    return found


def _add(files: Files, path: str, since: float, now: Now, found: dict[str, int]) -> None:
    try:
        fd = files.open(path, write=False)
    except OSError:
        # It is not there: nothing was told.
        return
    try:
        for line in lines_from_end(files, fd, files.fstat(fd).st_size):
            if not any(mark in line for mark in _MARKS):
                continue
            event = parse(line, "", now)
            if event is None or event.at < since or event.kind not in _TOLD:
                continue
            account, number = _TOLD[event.kind]
            count = event.facts.get(number) if number else 1
            if isinstance(count, int) and 0 < count < layout.U64_LIMIT:
                found[account] += count
    except OSError:
        return
    finally:
        files.close(fd)
