"""How long one call may wait, and what becomes of it when that is over.

Promises: the time counts from the first wait of the call, whatever it waits for and however often it goes on in
between. One object for one call; one thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeAlias

from mbframework.errors import BufferFull
from mbframework.wakeup import Broadcast, Wakeup

#: Whether a call may wait; an event: until it is set.
Wait: TypeAlias = "bool | threading.Event"
#: Seconds after which a waiter looks for itself.
_LOOK = 0.05


class WouldWait(Exception):
    """The write would have to wait, and the caller asked it not to; ``accepted`` as for NotAccepted."""

    accepted: range = range(0)


class Obstacle(Exception):
    """What a write must wait for; ``gate`` opens when it may be gone."""

    def __init__(self, reason: str, gate: Wakeup) -> None:
        super().__init__(reason)
        self.reason = reason
        self.gate = gate


class Patience:
    """See the module. ``timeout`` is in seconds, None for no limit; ``clock`` gives nanoseconds."""

    def __init__(self, wait: Wait, timeout: float | None, clock: Callable[[], int]) -> None:
        self._wait = wait
        self._timeout = timeout
        self._clock = clock
        self._begun = clock()

    def spend(self, obstacle: Obstacle, changes: Broadcast) -> None:
        """Wait until something changes, or a moment. Without any lock.

        :raises WouldWait: the caller wants no waiting, or no more of it.
        :raises BufferFull: the time is over.
        """
        wait, timeout = self._wait, self._timeout
        if wait is not True and (wait is False or wait.is_set()):
            raise WouldWait(obstacle.reason)
        moment = _LOOK
        if timeout is not None:
            left = timeout - (self._clock() - self._begun) / 1e9
            if left <= 0:
                raise BufferFull(f"waited {timeout:g} s (block_timeout): {obstacle.reason}")
            moment = min(_LOOK, left)
        if not obstacle.gate.wait(moment):
            changes.leave(obstacle.gate)
