"""A program that is killed while several of its threads write and it forks in the middle of their writes.

Promises
--------
- A message names its stream, one writing thread of one process, and its number therein, counted from 0 without a gap.
- What was accepted is reported after the call has returned, by one system call that no kill can tear; so a kill leaves
  at most one call of each thread unreported. So is each opening of a lane, with the accounts that it found there,
  before the first write to it; and that a child is about to end itself without a word to its buffer.
- When standard input ends it stops writing, waits for its children, closes the buffer, and exits with 0.

``python -m tests.torture.kills_writer JSON``: the fields of :class:`Assignment`.

A line of the reports is ``o OWNER LANE ACCEPTED LOST NEXT``, ``w STREAM NUMBER SEQUENCE COUNT``, ``x LANE MS``, or
``f WORDS`` of a child that failed. The owner of a stream is its number, rounded down to tens.
"""

from __future__ import annotations

import json
import logging
import os
import random
import select
import signal
import sys
import threading
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mbframework import MessageBuffer, SenderStuck
from tests.torture.writer import key_of, value_of

#: The most messages in one call of the provider: few, so that "at most one batch again" says something.
BATCH = 500
#: Messages of one ``write_many()``, which every process's first thread uses; the others write one at a time.
PORTION = 20
#: So many streams belong to one owner, and so many owners to one process: itself and the children that it forks.
STREAMS, OWNERS = 10, 100
#: Of every buffer: small segments, so that they change under way, and short waits, so that much happens.
OPTIONS: dict[str, Any] = {
    "batch_messages": BATCH, "segment_size": "256KiB", "total_size": "1GiB", "retry_wait": 0.02, "retry_wait_max": 1.0,
    "live_after": 0.5, "live_wait": 1.0, "catch_up": "full", "status_interval": 0.5, "close_timeout": 45.0,
    "max_lanes": 500, "adopt_after": 1.0,
}  # fmt: skip
_PACE_S = 0.005
_log = logging.getLogger("kills")
_CHILD_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What a process is told. ``url`` empty: it only writes. ``first``: its first stream; ``rate``: messages per second
    of all its threads together; ``forks``: per second; ``fd``: where the reports go; ``options`` of the buffer beside
    :data:`OPTIONS`."""

    directory: str
    url: str
    mode: str
    topic: str
    first: int
    threads: int
    rate: float
    forks: float
    seed: int
    fd: int
    options: Mapping[str, Any]


def owner_of(stream: int) -> int:
    """Which process's opening of a lane a stream belongs to."""
    return stream - stream % STREAMS


def portion_of(stream: int) -> int:
    """How many messages one call of this stream writes."""
    return 1 if stream % STREAMS else PORTION


class Program:
    """See the module."""

    def __init__(self, told: Assignment) -> None:
        self._told = told
        self._chance = random.Random(told.seed)
        self._stop = threading.Event()
        self._children: list[int] = []
        self._buffer = MessageBuffer(told.directory, told.url or None, mode=told.mode, **{**OPTIONS, **told.options})

    def run(self) -> None:
        """Write until standard input ends."""
        told = self._told
        self._tell_opening(told.first)
        threads = [
            threading.Thread(target=self._write, args=(told.first + number, told.rate / told.threads))
            for number in range(told.threads)
        ]
        for thread in threads:
            thread.start()
        while not select.select([sys.stdin], [], [], self._chance.expovariate(told.forks) if told.forks else 1.0)[0]:
            if told.forks and len(self._children) < OWNERS - 1:
                self._fork(told.first + (len(self._children) + 1) * STREAMS)
        self._stop.set()
        for thread in threads:
            thread.join()
        for child in self._children:
            os.waitpid(child, 0)
        self._buffer.close()

    def _report(self, *words: object) -> None:
        os.write(self._told.fd, (" ".join(map(str, words)) + "\n").encode())

    def _tell_opening(self, owner: int) -> None:
        found = self._buffer.status()
        lost = found.lost_live + found.lost_linger
        self._report("o", owner, found.name, found.accepted, lost, self._buffer.running_lane().next)

    def _write(self, stream: int, rate: float) -> None:
        """One stream, until told to stop."""
        begun, number, count = time.monotonic(), 0, portion_of(stream)
        while not self._stop.wait(_PACE_S):
            due = int((time.monotonic() - begun) * rate)
            while number + count <= due and not self._stop.is_set():
                self._report("w", stream, number, self._put(stream, number, count), count)
                number += count

    def _put(self, stream: int, number: int, count: int) -> int:
        """Write messages; the sequence of the first."""
        topic, numbers = self._told.topic, range(number, number + count)
        if count == 1:
            return self._buffer.write(topic, value_of(stream, number), key_of(number))
        values, keys = [value_of(stream, each) for each in numbers], [key_of(each) for each in numbers]
        return self._buffer.write_many(topic, values, keys=keys).start

    def _fork(self, owner: int) -> None:
        """A child that writes for a moment, and ends in one of three ways."""
        end, seconds = self._chance.choice(("close", "leave", "kill")), self._chance.uniform(0.0, _CHILD_S)
        child = os.fork()
        if child:
            self._children.append(child)
            return
        # The parent's may be locked by a thread that is not here.
        self._stop = threading.Event()
        try:
            # The first use gives it a lane of its own.
            lane = self._buffer.lane
            self._tell_opening(owner)
            if end == "kill":
                threading.Thread(target=self._kill_itself, args=(lane, seconds), daemon=True).start()
                seconds = 60.0
            timer = threading.Timer(seconds, self._stop.set)
            timer.daemon = True
            timer.start()
            # Another stream than the first of its owner: it writes one at a time.
            self._write(owner + 1, self._told.rate / self._told.threads)
            if end != "close" or not self._close():
                self._report("x", lane, time.time() * 1000)
            os._exit(0)
        except BaseException as error:  # noqa: BLE001  (nothing of the parent's may run here)
            _log.exception("a child failed")
            self._report("f", f"child {os.getpid()}: {error!r}"[:1000].replace("\n", " "))
            os._exit(1)

    def _close(self) -> bool:
        """Whether the provider has let go in time. Where the broker was away all the while it may have a batch in hand,
        which is kept, and sent again."""
        try:
            self._buffer.close()
        except SenderStuck:
            return False
        return True

    def _kill_itself(self, lane: str, seconds: float) -> None:
        time.sleep(seconds)
        self._report("x", lane, time.time() * 1000)
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    # Newer releases of Python warn of forks beside threads, which are the point here.
    warnings.simplefilter("ignore", DeprecationWarning)
    logging.basicConfig(format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("mbframework").setLevel(logging.INFO)
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    Program(Assignment(**json.loads(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
