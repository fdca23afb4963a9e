"""Whether a lane takes a message now, and what a write waits for where it does not.

Promises
--------
- In the modes ``buffer`` and ``always`` only a lack of room, or another thread's ``write_many`` that waits for room,
  holds a write back; the modes ``block`` and ``raise`` do what their names say.
- A wait holds no lock, is counted by the call's :class:`~mbframework.patience.Patience`, and ends when something
  changes.

Every thread that writes. Methods say where the lane's lock is held.
"""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING

from mbframework.channel import OVERHEAD
from mbframework.errors import BufferClosed, BufferFull, DiskFailed, ProviderUnavailable
from mbframework.patience import Obstacle, Patience
from mbframework.spool.prepared import NoSpace

if TYPE_CHECKING:
    from mbframework.lane import Lane

#: Modes that keep nothing on disk.
MEMORY_ONLY = ("block", "raise")


class Admission:
    """See the module."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane

    def check(self, count: int) -> None:
        """Let a write of ``count`` messages through. The lock is held.

        :raises Obstacle: not now.
        :raises NoSpace: not before there is room.
        :raises NotAccepted: not at all.
        """
        self._check_open()
        reason = self._obstacle(count)
        if reason:
            raise Obstacle(reason, self._lane.changed.gate())

    def wait(self, hindrance: Obstacle | NoSpace, patience: Patience) -> None:
        """Wait as far as the call may; returns when it is worth trying again. Without the lock.

        :raises WouldWait: the caller wants no waiting.
        :raises BufferFull: the policy, or its time-out, says so; or there is nothing left to prune.
        """
        if isinstance(hindrance, Obstacle):
            patience.spend(hindrance, self._lane.changed)
        else:
            self._wait_for_space(hindrance, patience)

    def too_much_for_memory(self, count: int, size: int) -> bool:
        """Whether so many messages at once are more than memory should take. The lock is held."""
        lane = self._lane
        if not lane.live or lane.mode in MEMORY_ONLY:
            return False
        limits = lane.limits
        return count > limits.channel_messages // 2 or size + count * OVERHEAD > limits.channel_bytes // 2

    def _check_open(self) -> None:
        lane = self._lane
        if lane.closed:
            raise BufferClosed(lane.closed)
        if lane.disk_error:
            raise DiskFailed(f"the device under the buffer is broken: {lane.disk_error}")

    def _obstacle(self, count: int) -> str:
        """Why a write must wait; "" where it need not."""
        lane = self._lane
        if lane.owner and lane.owner != get_ident():
            return "another thread's write_many() is waiting for room"
        if not lane.granted(count):
            lane.chores.set()
            return "sequences are being reserved"
        if lane.mode in MEMORY_ONLY:
            return self._obstacle_in_memory()
        if lane.full and lane.live:
            try:
                lane.leave_live("the provider does not keep up")
            except NoSpace as no_space:
                lane.full = no_space.reason
                if not self._memory_full():
                    return ""
                raise
        return ""

    def _obstacle_in_memory(self) -> str:
        lane = self._lane
        error = lane.provider_error
        full = self._memory_full()
        if lane.mode == "raise" and error is not None:
            raise ProviderUnavailable(f"the provider is down: {error}") from error
        if lane.mode == "raise" and full:
            raise BufferFull("what waits for the provider has reached channel_messages or channel_bytes")
        if error is not None:
            return f"the provider is down: {error}"
        return "the provider does not keep up" if full else ""

    def _memory_full(self) -> bool:
        lane = self._lane
        waiting = len(lane.channel.items) + (lane.flight.open if lane.flight is not None else 0)
        return (
            waiting >= lane.limits.channel_messages
            or lane.channel.bytes + lane.flight_bytes >= lane.limits.channel_bytes
        )

    def _wait_for_space(self, no_space: NoSpace, patience: Patience) -> None:
        """Follow ``on_full``."""
        lane = self._lane
        policy = lane.config.on_full
        with lane.lock:
            lane.full = no_space.reason
            lane.reconsider()
            searches = lane.vain_searches
            lane.chores.set()
        if policy == "reject":
            raise BufferFull(f"the buffer is full: {no_space.reason}")
        while True:
            with lane.lock:
                self._check_open()
                if not lane.full:
                    return
                if policy == "prune" and lane.vain_searches >= searches + 2:
                    raise BufferFull(f"the buffer is full, and this lane has nothing left to prune: {lane.full}")
                obstacle = Obstacle(lane.full, lane.changed.gate())
                lane.chores.set()
            patience.spend(obstacle, lane.changed)
