"""How long ``send()`` may wait."""

from __future__ import annotations

import time
from threading import Event

from mbframework_confluent.outcome import NotAcknowledged

#: Seconds that acknowledgements have left to come once the buffer is closing.
_STOPPING_GRACE_S = 2.0


class Patience:
    """``timeout_s`` from now on, less once the buffer is ``stopping``, none once the provider is ``closed``."""

    def __init__(self, timeout_s: float, stopping: Event, closed: Event) -> None:
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._stopping = stopping
        self._hurried = False
        self._closed = closed

    def left(self) -> float:
        """Seconds; 0.0 when there are none."""
        if self._closed.is_set():
            return 0.0
        now = time.monotonic()
        if self._stopping.is_set() and not self._hurried:
            self._hurried = True
            self._deadline = min(self._deadline, now + _STOPPING_GRACE_S)
        return max(0.0, self._deadline - now)

    def at_most(self, timeout_s: float) -> Patience:
        """One that ends with this one, or earlier: ``timeout_s`` from now on."""
        return Patience(min(timeout_s, self.left()), self._stopping, self._closed)

    def error(self) -> NotAcknowledged:
        """Why the wait ended."""
        if self._closed.is_set():
            return NotAcknowledged("closed before the broker acknowledged them")
        within = "before the buffer closed" if self._hurried else f"within {self._timeout_s:g} s"
        return NotAcknowledged(f"the broker did not acknowledge them {within}")
