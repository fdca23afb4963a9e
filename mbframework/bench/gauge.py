"""Memory and disk while something runs.

Memory is RssAnon: heap, stacks and whatever else is this process's alone. RssFile, which is shown beside it, holds the
pages of mapped files: those of the active segment belong to the page cache, the system drops them when it likes, and
they would be there just the same if the segment were written with pwrite().
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Most:
    """The highest values seen, in bytes."""

    anon: int = 0
    file: int = 0
    segments: int = 0
    directory: int = 0
    samples: int = 0

    def look(self, lane: str) -> None:
        """One more sample; ``lane`` is a lane's directory."""
        memory = resident()
        segments, everything = on_disk(lane)
        self.anon = max(self.anon, memory["RssAnon"])
        self.file = max(self.file, memory["RssFile"])
        self.segments = max(self.segments, segments)
        self.directory = max(self.directory, everything)
        self.samples += 1


def resident() -> dict[str, int]:
    """RssAnon and RssFile of this process, in bytes."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return {
        name: int(kilobytes) * 1024 for name, kilobytes in re.findall(r"^(Rss\w+):\s*(\d+) kB$", text, re.MULTILINE)
    }


def on_disk(lane: str) -> tuple[int, int]:
    """Bytes that a lane's segments, and all of its files, take on the device: whole blocks, where ``total_size`` counts
    the sizes of files."""
    segments = everything = 0
    with os.scandir(lane) as entries:
        for entry in entries:
            try:
                size = entry.stat(follow_symlinks=False).st_blocks * 512
            except FileNotFoundError:
                continue
            everything += size
            if entry.name.endswith((".seg", ".prep")):
                segments += size
    return segments, everything


@contextmanager
def watched(lane: str, interval: float = 0.02) -> Iterator[Most]:
    """Look every ``interval`` seconds; the result fills while the block runs."""
    most, stop = Most(), threading.Event()

    def run() -> None:
        while not stop.wait(interval):
            most.look(lane)

    thread = threading.Thread(target=run, name="bench-gauge")
    thread.start()
    try:
        yield most
    finally:
        stop.set()
        thread.join()
        most.look(lane)
