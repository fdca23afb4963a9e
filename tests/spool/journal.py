"""``python -m tests.spool.journal SEED``: what a program's writes do to a disk, store for store, as one line of JSON.

The disk is simulated, so that clock, salts and ids are the same each time: whichever path did the work (the variable
``MBFRAMEWORK_EXTENSION`` chooses), the line must be the same, but for ``lane_calls``: how many of the calls came to the
lane in Python.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Callable
from typing import Any

from mbframework import speedups
from mbframework.lane import Lane
from tests.model.byhand import ByHand
from tests.model.disk import SimulatedDisk

_TOPICS = ["orders", "clicks", "é", "t" * 300]
_KEYS = [None, b"", b"key", bytes(200)]
_HEADERS = [None, None, None, [], [("name", b"value"), ("none", None)]]


class Journal(SimulatedDisk):
    """A disk that remembers every store, in order."""

    lends = False

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.stores = hashlib.sha256()
        self.count = 0

    def boot_ns(self) -> int:
        # It does not matter how often a path asks for the time.
        return self.now

    def store(self, number: int, offset: int, data: bytes) -> None:
        self.stores.update(b"%d %d %d " % (number, offset, len(data)) + data)
        self.count += 1
        super().store(number, offset, data)


def main(seed: int) -> None:
    """Write this and that."""
    chance, disk, calls = random.Random(seed), Journal(seed), 0

    def counted(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            return method(*args, **named)

        return call

    Lane.write, Lane.write_many = counted(Lane.write), counted(Lane.write_many)  # type: ignore[method-assign]
    by_hand = ByHand(disk, None, mode="always", segment_size="128KiB", total_size="1GiB")
    buffer = by_hand.buffer
    answers: list[object] = []
    for number in range(400):
        topic = chance.choice(_TOPICS)
        if chance.random() < 0.8:
            size = chance.choice([0, 1, 7, 8, 100, 5000, 20_000])
            value: Any = chance.choice([None, "text", bytearray(b"copied"), *[b"%d " % number + bytes(size)] * 9])
            more: dict[str, Any] = {"key": chance.choice(_KEYS), "headers": chance.choice(_HEADERS)}
            if chance.random() < 0.2:
                more |= {"partition": chance.choice([None, 0, 7]), "timestamp": chance.choice([None, -5, 1 << 62])}
            if chance.random() < 0.5:
                answers.append(buffer.write(topic, value, **more))
            else:
                answers.append(buffer.write(topic, value, more["key"], more["headers"]))
        else:
            count = chance.choice([0, 1, 2, 10, 300, 5000])
            values: Any = [chance.choice([None, b"", b"v%d" % i]) for i in range(count)]
            values = chance.choice([values, tuple(values), iter(values)])
            keys = chance.choice([None, [b"k"] * count, [None] * count])
            found = buffer.write_many(topic, values, keys)
            # Of no messages there is no first sequence.
            answers.append((found.start, found.stop) if found else 0)
        if chance.random() < 0.1:
            by_hand.keep_house()
        disk.let_pass(0.001)
    by_hand.keep_house()
    status = buffer.status()
    buffer.close()
    facts = {
        "stores": disk.stores.hexdigest(), "count": disk.count, "answers": answers,
        "accounts": [status.accepted, status.resident_messages, status.segments, status.balanced],
    }  # fmt: skip
    print(json.dumps(facts | {"lane_calls": calls, "compiled": speedups.compiled is not None}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
