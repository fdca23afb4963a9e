"""What a broker suffers during one turn of a benchmark: it is frozen, killed, cannot be reached, and comes back.

Promise: whatever ends a turn, the broker's port is free again. One thread.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from mbframework.testing.kafka import HOST, KafkaBroker


@dataclass(frozen=True)
class Moment:
    """From ``at`` (share of the whole time, 0 to 1) on the broker is in ``phase``; ``action``: a method of Faults."""

    at: float
    phase: str
    action: str = ""


#: The start comes last: it takes as long as it takes, and what is shorter for it is the time after it.
PLAN = (
    Moment(0.00, "up"),
    Moment(0.15, "frozen", "freeze"),
    Moment(0.30, "back", "thaw"),
    Moment(0.45, "killed", "kill"),
    Moment(0.55, "unreachable", "occupy"),
    Moment(0.65, "back", "restart"),
)


class Faults:
    """What can be done to a broker."""

    def __init__(self, broker: KafkaBroker) -> None:
        self._broker = broker
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._held.close()

    def kill(self) -> None:
        """SIGKILL: connections are reset, and refused from then on."""
        self._broker.kill()

    def occupy(self) -> None:
        """Nobody answers at the port of a killed broker any more: who connects waits, as where a network is down."""
        listener = self._held.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, self._broker.port))
        # It has room for a single connection that nobody accepts; further ones get no answer from the kernel.
        listener.listen(0)
        self._held.enter_context(socket.create_connection((HOST, self._broker.port)))

    def restart(self) -> None:
        """On the same port and data; returns when it takes messages."""
        self._held.close()
        self._broker.restart()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, and nothing is answered."""
        self._broker.freeze()

    def thaw(self) -> None:
        """The end of it."""
        self._broker.thaw()


@dataclass(frozen=True)
class Course:
    """How a turn went: ``starts``, in seconds since its beginning, and the phase from each on."""

    starts: Sequence[float]
    phases: Sequence[str]

    def phase(self, seconds: float) -> str:
        """The one at that time."""
        return self.phases[max(0, bisect_right(self.starts, seconds) - 1)]

    def __str__(self) -> str:
        return ", ".join(f"{at:.1f} s {phase}" for at, phase in zip(self.starts, self.phases, strict=True))


def suffer(broker: KafkaBroker, seconds: float, plan: Sequence[Moment] = PLAN) -> Course:
    """Follow the plan; how it went. Where an action takes longer than planned, what comes after it is late."""
    begun, waiter = time.monotonic(), threading.Event()
    starts: list[float] = []
    with Faults(broker) as faults:
        for moment in plan:
            waiter.wait(max(0.0, begun + moment.at * seconds - time.monotonic()))
            starts.append(time.monotonic() - begun)
            if moment.action:
                getattr(faults, moment.action)()
        waiter.wait(max(0.0, begun + seconds - time.monotonic()))
    return Course(starts, [moment.phase for moment in plan])
