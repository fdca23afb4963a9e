"""The thread that puts on disk what ``linger`` gathers, when its time has come.

Promise: a message that was accepted with ``linger=L`` is on disk ``L`` later, also while the device is busy with a
sync, which the housekeeper waits for and this thread does not. Where there is no room, the housekeeper makes some.

One thread, and only where ``linger`` is set.
"""

from __future__ import annotations

import threading

from mbframework.lane import Lane
from mbframework.spool.prepared import NoSpace

_LONGEST_WAIT = 1.0
_RETRY_WAIT = 0.05


class LingerClock:
    """See the module."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="mbframework-linger", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Ask the thread to end, and wait for it."""
        self._stopping = True
        self._lane.gathering.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        lane = self._lane
        while not self._stopping:
            left = lane.linger_left()
            if left is None or left > 0:
                lane.gathering.wait(_LONGEST_WAIT if left is None else left)
                continue
            try:
                with lane.lock:
                    lane.flush_gathered()
            except (NoSpace, OSError):
                # The housekeeper's next round meets the same, and deals with it.
                lane.chores.set()
                lane.gathering.wait(_RETRY_WAIT)
