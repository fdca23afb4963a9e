"""Writes that interrupt another one of the same thread (from a signal handler, a finaliser): put aside, accepted soon.

Promises: they are accepted in the order of their calls, each once, by the housekeeper's thread, which no handler
interrupts. :meth:`PutAside.add` waits for nothing and takes no lock.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from mbframework.channel import size_of
from mbframework.errors import NotAccepted
from mbframework.patience import WouldWait
from mbframework.wakeup import Wakeup

_log = logging.getLogger("mbframework")


class PutAside:
    """The calls that wait: a method of the lane that takes ``wait``, and its arguments. ``chores`` wakes the
    housekeeper."""

    def __init__(self, chores: Wakeup) -> None:
        self._chores = chores
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, method: Callable[..., object], *arguments: object) -> None:
        """Put a call aside, and wake the housekeeper. Any thread, in the middle of anything."""
        self._calls.append((method, arguments))
        self._chores.set()

    def accept(self) -> None:
        """Make the calls, in order, as far as that goes without waiting. The housekeeper's thread."""
        while self._calls:
            method, arguments = self._calls[0]
            try:
                method(*arguments, wait=False)
            except WouldWait as refusal:
                if refusal.accepted:
                    rest = arguments[0][len(refusal.accepted) :]
                    self._calls[0] = method, (rest, sum(map(size_of, rest)))
                return
            except NotAccepted as refusal:
                # Whom it was written for has long gone on: this is the only place that can tell.
                _log.error("a message written from a signal handler or finaliser was not accepted: %s", refusal)
            self._calls.popleft()
