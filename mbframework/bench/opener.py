"""A writing process that can be killed (:mod:`mbframework.bench.worker`), with one order.

It opens the buffer, answers how long that took, writes until the backlog has ``backlog`` bytes, answers once more, and
then writes on until it is killed or its standard input ends, on which it closes the buffer.
"""

from __future__ import annotations

import json
import logging
import select
import sys
import time
from typing import Any

from mbframework import MessageBuffer
from mbframework.bench.gauge import resident
from mbframework.files import Files

#: Values of one call of write_many().
_MANY = 1000


def main(order: dict[str, Any]) -> None:
    """Obey ``order``: directory, provider, options, backlog (bytes), value (bytes), boot (0: the true one),
    full_speed."""
    if order["boot"]:
        _pretend_boot(order["boot"])
    value = bytes(order["value"])
    worked = time.process_time_ns()
    call = time.perf_counter_ns()
    buffer = MessageBuffer(order["directory"], order["provider"], close_timeout=0, **order["options"])
    opened = time.perf_counter_ns()
    buffer.write("bench", value)
    written = time.perf_counter_ns()
    worked = time.process_time_ns() - worked
    status = buffer.status()
    _say(
        open_ms=(opened - call) / 1e6,
        write_ms=(written - opened) / 1e6,
        cpu_ms=worked / 1e6,
        resident=status.resident_messages,
        disk_bytes=status.disk_bytes,
        segments=status.segments,
        balanced=status.balanced,
        anon=resident()["RssAnon"],
    )
    while buffer.status().disk_bytes < order["backlog"]:
        buffer.write_many("bench", [value] * _MANY)
    _say(accepted=buffer.status().accepted)
    # Gently, about 20,000 messages a second; or as fast as it goes.
    pause = 0.0 if order["full_speed"] else 0.005
    while not select.select([sys.stdin], [], [], pause)[0]:
        for _ in range(100):
            buffer.write("bench", value)
    buffer.close()


def _pretend_boot(number: int) -> None:
    """Recovery then trusts only what was synced, whatever the page cache holds."""
    Files.boot_id = lambda self: b"pretended boot%2d" % number  # type: ignore[method-assign]  # noqa: ARG005


def _say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    # Errors are shown, the log is not: outages are the point.
    logging.disable(logging.CRITICAL)
    main(json.loads(sys.stdin.readline()))
