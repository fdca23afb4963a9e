"""Syncs that several writers share: who comes while one is under way waits for the next, and for no other.

Promise: :meth:`GroupSync.reach` returns only when what it was asked for is on the device.

Any thread, without the lane's lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from mbframework.errors import DurabilityError


class GroupSync:
    """``end`` tells one past the last spooled sequence, ``sync`` puts all of the spool on the device."""

    def __init__(self, durable: int, end: Callable[[], int], sync: Callable[[], None]) -> None:
        self._changed = threading.Condition(threading.Lock())
        #: One past the last sequence on the device, and whether a thread is extending that.
        self._durable = durable
        self._syncing = False
        self._end = end
        self._sync = sync

    def reach(self, sequence: int) -> None:
        """Return when ``sequence`` is on the device, if it is on disk at all.

        :raises DurabilityError: that is not known.
        """
        with self._changed:
            while self._syncing and sequence >= self._durable:
                self._changed.wait()
            if sequence < self._durable:
                return
            self._syncing = True
        end = 0
        try:
            reached = self._end()
            # What lies behind it is in memory, on its way to the provider.
            if sequence < reached:
                self._sync()
            end = reached
        except OSError as error:
            raise DurabilityError(
                f"message {sequence} is accepted but not known to be on the device ({error}): do not write it again",
                sequence=sequence,
            ) from error
        finally:
            with self._changed:
                self._syncing = False
                self._durable = max(self._durable, end)
                self._changed.notify_all()
