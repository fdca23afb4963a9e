"""How long a provider's call may still wait: less once the buffer is closing, not at all once the provider is closed.

For providers whose client has a time-out of its own to be given. One thread.
"""

from __future__ import annotations

import time
from threading import Event

#: Seconds that acknowledgements have left to come once the buffer is closing.
STOPPING_GRACE_S = 2.0


class Deadline:
    """``timeout_s`` from now on, less once the buffer is ``stopping``, none once the provider is ``closed``."""

    def __init__(self, timeout_s: float, stopping: Event, closed: Event) -> None:
        self._timeout_s = timeout_s
        self._closed = closed
        #: The buffer's closing has shortened it.
        self._hurried = False
        self._deadline = time.monotonic() + timeout_s
        self._stopping = stopping

    def left(self) -> float:
        """Seconds; 0.0 when there are none."""
        if self._closed.is_set():
            return 0.0
        now = time.monotonic()
        if self._stopping.is_set() and not self._hurried:
            self._hurried = True
            self._deadline = min(self._deadline, now + STOPPING_GRACE_S)
        return max(0.0, self._deadline - now)

    def why(self) -> str:
        """What its end means for messages that were handed to a broker."""
        if self._closed.is_set():
            return "closed before the broker acknowledged them"
        within = "before the buffer closed" if self._hurried else f"within {self._timeout_s:g} s"
        return f"the broker did not acknowledge them {within}"

    def at_most(self, timeout_s: float) -> Deadline:
        """One that ends with this one, or earlier: ``timeout_s`` from now on."""
        return Deadline(min(timeout_s, self.left()), self._stopping, self._closed)
