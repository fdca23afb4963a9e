"""A writing process beside which a dashboard runs: ``python -m tests.bench.watched`` with a JSON object.

``rate`` messages a second, or, where that is 0, as fast as it goes for ``slot`` seconds after each line on standard
input, answered by a line with the number of messages and the seconds of processor time that they took, those of
all its threads. It ends with its standard input.
"""

from __future__ import annotations

import json
import logging
import select
import sys
import time
from typing import Any

from mbframework import MessageBuffer

_BURST = 100


def main(order: dict[str, Any]) -> None:
    """Obey ``order``: directory, provider, options, rate, slot, value (bytes), backlog (messages, written first)."""
    value = bytes(order["value"])
    with MessageBuffer(order["directory"], order["provider"], close_timeout=0, **order["options"]) as buffer:
        for _ in range(0, order["backlog"], 1000):
            buffer.write_many("bench", [value] * 1000)
        print("ready", flush=True)
        if order["rate"]:
            _steadily(buffer, value, order["rate"])
            return
        while sys.stdin.readline():
            count, spent, end = 0, time.process_time(), time.perf_counter() + order["slot"]
            while time.perf_counter() < end:
                for _ in range(_BURST):
                    buffer.write("bench", value)
                count += _BURST
            print(count, time.process_time() - spent, flush=True)


def _steadily(buffer: MessageBuffer, value: bytes, rate: int) -> None:
    due = time.perf_counter()
    while not select.select([sys.stdin], [], [], max(0.0, due - time.perf_counter()))[0]:
        for _ in range(_BURST):
            buffer.write("bench", value)
        due += _BURST / rate


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    main(json.loads(sys.argv[1]))
