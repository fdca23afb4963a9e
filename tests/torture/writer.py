"""The program that is killed: it writes numbered messages at a steady pace, and reports each once it is accepted.

Promises
--------
- A message names the life of the writer that wrote it and its number therein, counted from 0 without a gap.
- The report (number, sequence, nanoseconds that ``write()`` took) goes out after ``write()`` has returned, by one
  system call that no kill can tear: a kill -9 leaves at most one accepted message unreported.
- When standard input ends it stops writing, delivers what waits, closes the buffer, and exits with 0.

``python -m tests.torture.writer JSON``: the fields of :class:`Assignment`. One thread beside the buffer's own.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Any

from mbframework import MessageBuffer

#: Number, sequence, nanoseconds.
REPORT = Struct("<QQQ")
#: Bytes of a message's value.
VALUE_SIZE = 100
KEYS = 64
_PACE_S = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What one life of the writer is told; ``rate`` is messages per second, ``fd`` where the reports go."""

    directory: str
    url: str
    topic: str
    life: int
    rate: float
    fd: int
    flush_timeout: float
    options: Mapping[str, Any]


def value_of(life: int, number: int) -> bytes:
    """The value of a message: who it is, then bytes that follow from that."""
    name = b"%d:%d:" % (life, number)
    return (name * (VALUE_SIZE // len(name) + 1))[:VALUE_SIZE]


def key_of(number: int) -> bytes:
    """The key of a message."""
    return b"%d" % (number % KEYS)


def identify(key: bytes | None, value: bytes | None) -> tuple[int, int]:
    """Life and number of a message that was read back. Raises ValueError where a single byte is not as written."""
    parts = (value or b"").split(b":", 2)
    if len(parts) == 3 and parts[0].isdigit() and parts[1].isdigit():
        life, number = int(parts[0]), int(parts[1])
        if value == value_of(life, number) and key == key_of(number):
            return life, number
    raise ValueError(f"not what was written: key {key!r}, value {value!r}")


def write_until_told(buffer: MessageBuffer, told: Assignment) -> None:
    """Write at the pace until standard input ends."""
    begun, number = time.monotonic(), 0
    while not select.select([sys.stdin], [], [], _PACE_S)[0]:
        due = int((time.monotonic() - begun) * told.rate)
        while number < due:
            value, key = value_of(told.life, number), key_of(number)
            before = time.perf_counter_ns()
            sequence = buffer.write(told.topic, value, key)
            took = time.perf_counter_ns() - before
            os.write(told.fd, REPORT.pack(number, sequence, took))
            number += 1


def main() -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("mbframework").setLevel(logging.INFO)
    # It reports each failed attempt to connect as an error; the lane tells the same once.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    told = Assignment(**json.loads(sys.argv[1]))
    buffer = MessageBuffer(told.directory, told.url, mode="buffer", share=False, **told.options)
    write_until_told(buffer, told)
    buffer.flush(told.flush_timeout)
    buffer.close()


if __name__ == "__main__":
    main()
