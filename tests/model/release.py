"""``write DIR FIRST COUNT [OPTION=VALUE …]`` ``drain DIR OUT SECONDS``, ``status DIR``: some release at work.

It is a process of its own, since two releases do not fit into one; which it is the path of the package says. ``write``
ends without closing, as by a kill.
"""

from __future__ import annotations

import logging
import os
import sys
import threading

from mbframework import MessageBuffer, Sidecar, read_status
from mbframework.config import Config
from mbframework.plugins.source import resolve_url


def write(directory: str, first: str, count: str, *options: str) -> None:
    """Numbered messages, of which each is on the device."""
    named = dict(option.split("=") for option in options)
    buffer = MessageBuffer(directory, None, segment_size="64KiB", total_size="16MiB", lock_timeout=0.0, **named)
    for number in range(int(first), int(first) + int(count)):
        buffer.write("t", f"{number} ".encode().ljust(9000, b"."))
    buffer.sync()
    os._exit(0)


def drain(directory: str, out: str, seconds: str) -> None:
    """Send until nothing is left, or for so many seconds where that is not 0."""
    config = Config(directory=directory, close_timeout=1.0, retry_wait_max=0.2)
    sidecar = Sidecar(config, resolve_url(f"file:{out}", None))
    if float(seconds):
        threading.Timer(float(seconds), sidecar.stop).start()
    print(sidecar.run(until_empty=not float(seconds)))


def status(directory: str) -> None:
    """The accounts of each lane."""
    for lane in read_status(directory).lanes:
        print(lane.name, lane.accepted, lane.delivered, lane.lost, lane.resident_messages)


if __name__ == "__main__":
    logging.basicConfig()
    {"write": write, "drain": drain, "status": status}[sys.argv[1]](*sys.argv[2:])  # type: ignore[operator]
