"""One measurement of ``mb bench read``: all messages of a lane by the buffer's own reader, or what it is compared with.

Run as a process of its own (:mod:`mbframework.bench.worker`), whose environment chooses the path.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from mbframework import speedups
from mbframework.bench.worker import MeasurementFailed, serve
from mbframework.files import Files
from mbframework.spool import frame, layout, segment_header
from mbframework.spool.reader import Gap, SpoolReader
from mbframework.units import MiB


def reader(lane: str, messages: int) -> int:
    """By the buffer's reader, in batches of the usual size; how many messages."""
    spool = SpoolReader(Files(), lane)
    position, ordinal, hint, end = 1, 0, (0, 0), messages + 1
    try:
        while found := spool.read(position, ordinal, until=end, max_messages=10_000, max_bytes=MiB, hint=hint):
            if isinstance(found, Gap):
                break
            hint = found.segment, found.offset
            position, ordinal = found.end, ordinal + len(found)
    finally:
        spool.close()
    return ordinal


def by_frame(lane: str, messages: int) -> int:
    """One frame after the other, each with all of its checks."""
    del messages
    count = 0
    for path in _segments(lane):
        raw = path.read_bytes()
        header = segment_header.unpack(raw[:256])
        offset = layout.FIRST_FRAME
        while header is not None:
            found = frame.read_header(raw, offset, header.salt)
            columns = None if found is None else frame.decode(raw, offset, header.salt, found)
            if found is None or columns is None:
                break
            count += columns.count
            offset = frame.next_offset(offset, found.length)
    return count


def file(lane: str, messages: int) -> int:
    """Only the bytes of the files, a MiB at a time."""
    for path in _segments(lane):
        fd = os.open(path, os.O_RDONLY)
        try:
            while os.read(fd, MiB):
                pass
        finally:
            os.close(fd)
    return messages


def _segments(lane: str) -> list[Path]:
    return sorted(Path(lane).glob("*.seg"))


def _obey(order: dict[str, Any]) -> Any:
    """µs of processor time a message, or why there is no extension."""
    if order["what"] == "path":
        return speedups.why_plain
    begun = time.thread_time()
    found = {"reader": reader, "by_frame": by_frame, "file": file}[order["what"]](order["lane"], order["messages"])
    spent = time.thread_time() - begun
    if found != order["messages"]:
        raise MeasurementFailed(f"{order['what']}: {found:,} of {order['messages']:,} messages were read")
    return spent / order["messages"] * 1e6


if __name__ == "__main__":
    serve(_obey)
