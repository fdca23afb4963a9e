"""The program of the demo: a process of its own that writes to a buffer at a steady pace, and may be killed.

Its stdin is the demo: first a line of JSON (:class:`Part`), then ``down`` and ``up`` for the provider where the demo
holds its plug, at last the end, upon which it closes the buffer and ends. It ends as well when the demo does.

For each message that was accepted a line goes to the ledger, a file outside of the buffer: the message, and how many
microseconds ``write()`` took. The next message is written after that.
"""

from __future__ import annotations

import json
import os
import select
import time
from dataclasses import dataclass
from typing import Protocol, cast

from mbframework.buffer import MessageBuffer
from mbframework.plugins.source import resolve_url
from mbframework.provider import Context, Provider

TICK_S = 0.01


@dataclass(frozen=True, slots=True)
class Part:
    """What the writer is told. ``rate`` is messages per second; ``plugged`` says whether it holds the provider's plug
    (the URL's provider is then ``fault``), ``down`` whether that is out at the start."""

    directory: str
    ledger: str
    provider: str
    topic: str
    run: int
    rate: float
    plugged: bool = False
    down: bool = False
    partition: int | None = None


class Plug(Protocol):
    """What ``fault:`` can do beside being a provider."""

    def down(self) -> None:
        """Be out of reach."""

    def up(self) -> None:
        """Be within reach again."""


def main() -> None:
    """Write until stdin ends."""
    with open(0, "rb", buffering=0, closefd=False) as orders:
        part = Part(**json.loads(orders.readline()))
        provider: str | Provider = part.provider
        plug: Plug | None = None
        if part.plugged:
            provider = resolve_url(part.provider).create(Context(buffer_id="", lane="", run=b""))
            plug = cast("Plug", provider)
            if part.down:
                plug.down()
        ledger = os.open(part.ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        # As a program would have it, but for quicker retries and smaller segments: the show is short.
        with MessageBuffer(
            part.directory, provider, mode="buffer", retry_wait_max="1s", segment_size="64KiB", total_size="256MiB",
            status_interval="200ms", close_timeout="15s",
        ) as buffer:  # fmt: skip
            begun, number = time.monotonic(), 0
            while True:
                ready, _, _ = select.select([orders], [], [], TICK_S)
                if ready:
                    order = orders.readline().strip()
                    if not order:
                        break
                    if plug is not None:
                        (plug.down if order == b"down" else plug.up)()
                due = int((time.monotonic() - begun) * part.rate)
                while number < due:
                    message = b"%d.%d" % (part.run, number)
                    before = time.perf_counter_ns()
                    buffer.write(part.topic, message, partition=part.partition)
                    took = (time.perf_counter_ns() - before) / 1000
                    os.write(ledger, b"%s %.1f\n" % (message, took))
                    number += 1
        os.close(ledger)


if __name__ == "__main__":
    main()
