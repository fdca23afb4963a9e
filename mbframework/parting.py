"""Who lets go of what a sender holds when its lane is closed, once and last of all.

Whoever closes the lane does, unless the sender's thread has not returned from its provider: then that thread does, as
it ends. Whoever gets the sender's lock goes on at the seek that was stored last: nothing may be stored after it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Parting:
    """Of one sender. ``let_go`` is called once, by one of two threads."""

    def __init__(self, let_go: Callable[[], None]) -> None:
        self._let_go = let_go
        self._lock = threading.Lock()
        self._late = False

    def closed(self, finished: threading.Event | None) -> None:
        """The lane is closed, and nothing of it is stored any more. ``finished`` is set when the sender's thread
        touches nothing any more, before it calls :meth:`ended`; None where that is known."""
        with self._lock:
            self._late = late = finished is not None and not finished.is_set()
        if not late:
            self._let_go()

    def ended(self) -> None:
        """The last that a sender's thread calls."""
        with self._lock:
            late = self._late
        if late:
            self._let_go()
