"""Bytes on disk that the lanes of a buffer share.

Promises
--------
- What the lanes hold and have claimed together is never more than ``total``.
- Who is asked to make room is the lane that holds the most, so that one lane's backlog never takes what the others
  hold below an equal part.
- A lane that never removes anything takes no more than what leaves each other lane its part: an equal one, or the
  lane's own limit where that is smaller. So every lane can always have its part, whatever the others do, and those
  that are opened later as well.
- A lane that is asked and has nothing to give is passed over; none waits for another one longer than ``PATIENCE_S``,
  and then asks again. What is given goes to the lane that asked.

Any thread. No lock but the budget's own is taken in here; a lane may hold its own when it calls.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

#: How long a lane waits until another one has made room.
PATIENCE_S = 1.0


class Budget:
    """``total`` bytes for all lanes together, of which there will be ``lanes``."""

    def __init__(self, total: int, lanes: int) -> None:
        self.total = total
        self.lanes = lanes
        self.shares: list[Share] = []
        self.changed = threading.Condition()

    def join(
        self, name: str, held: int, reserve: int, limit: int, *, shrink: bool, wake: Callable[[], None] | None
    ) -> Share:
        """The lane ``name`` comes in. It holds ``held`` bytes, wants ``reserve`` of its own to go on writing, and has a
        ``limit`` of its own.

        What is there is kept: with a backlog that does not fit, or that never prunes and leaves the others no room,
        ``total`` grows, unless ``shrink``; one that was written within ``total`` fits. ``wake`` is called where another
        lane wants room; None: this one never removes anything for others.
        """
        with self.changed:
            share = Share(self, name, wake, held, reserve, limit, keeps=wake is None)
            self.shares.append(share)
            # What was written since one of them was opened is no reason: it kept to the total.
            found = sum(each.found for each in self.shares)
            stays = sum(each.found if each.keeps else each.reserve for each in self.shares)
            if not shrink and max(found, stays) > self.total:
                self.total = max(self.total, sum(each.held + each.reserve for each in self.shares))
            return share

    def held(self) -> int:
        """Bytes that all lanes hold or have claimed."""
        with self.changed:
            return sum(each.held for each in self.shares)

    def forget(self) -> None:
        """In the child of a fork: none of the lanes is open there, and the lock may be held by a thread that is not."""
        self.changed = threading.Condition()
        self.shares = []


@dataclass(eq=False)
class Share:
    """What one lane has of it. ``held``: bytes on disk and claimed; ``wanted``: bytes that others ask for;
    ``hoped``: bytes that it has asked for, and that nobody else may take; ``awaiting``: the lane that was asked last
    has not answered yet; ``keeps``: it never removes anything; ``found``: what it held when it was opened."""

    budget: Budget
    name: str
    wake: Callable[[], None] | None
    held: int
    reserve: int
    limit: int
    keeps: bool
    wanted: int = field(default=0, init=False)
    hoped: int = field(default=0, init=False)
    awaiting: bool = field(default=False, init=False)
    found: int = field(init=False)

    def __post_init__(self) -> None:
        self.found = self.held

    def claim(self, used: int, size: int) -> bool:
        """Take ``size`` bytes more than the ``used`` ones; False where the budget has not so many."""
        budget = self.budget
        with budget.changed:
            self._set(used)
            # Where nothing is asked for, a total that was passed is nobody's to mend now.
            if size and (self._missing(size) > 0 or used + size > self._most()):
                return False
            self.held = used + size
            return True

    def note(self, used: int) -> None:
        """The lane holds ``used`` bytes, whatever it had claimed."""
        with self.budget.changed:
            self._set(used)

    def _set(self, used: int) -> None:
        if used < self.held:
            self.budget.changed.notify_all()
        self.held = used

    @property
    def part(self) -> int:
        """Bytes that this lane can always have: an equal part, or its own limit."""
        return min(self.limit, self.budget.total // self.budget.lanes)

    def most(self) -> int:
        """Bytes that this lane may hold now, by what the lanes share."""
        with self.budget.changed:
            return self._most()

    def _most(self) -> int:
        budget = self.budget
        if not self.keeps:
            return budget.total
        others = [each for each in budget.shares if each is not self]
        kept = sum(max(each.part, each.held + each.hoped if each.keeps else 0) for each in others)
        to_come = (budget.lanes - len(budget.shares)) * (budget.total // budget.lanes)
        return max(0, budget.total - kept - to_come)

    def why(self, size: int) -> str:
        """Why this lane cannot have ``size`` bytes more, who has them, and what to do."""
        budget = self.budget
        with budget.changed:
            most = self._most()
            if self.held + size > most:
                return (
                    f"a lane that never prunes leaves the others their parts: {most} bytes of the total_size of "
                    f"{budget.total} bytes, which the lanes share, are reached; raise it, or give other lanes a "
                    "smaller total_size of their own"
                )
            reason = f"the total_size of {budget.total} bytes, which the lanes share, is reached"
            largest = max(budget.shares, key=lambda each: each.held)
            if largest is self or not largest.keeps:
                return reason
            return (
                f"{reason}: lane {largest.name} holds {largest.held} bytes and never prunes; let it deliver, purge it, "
                "or raise total_size"
            )

    def missing(self, size: int) -> int:
        """Bytes that must go before ``size`` more fit."""
        with self.budget.changed:
            return max(0, self._missing(size))

    def _missing(self, size: int) -> int:
        others = sum(each.held + each.hoped for each in self.budget.shares if each is not self)
        return others + self.held + size - self.budget.total

    def ask(self, size: int) -> bool:
        """Have room made for ``size`` bytes by the lanes that hold more than this one, the largest first, one segment
        at least; whether they are claimed now. The housekeeper's thread, without the lane's lock."""
        self.awaiting = False
        with self.budget.changed:
            if self.held + size > self._most():
                return False
            self.hoped = size
            try:
                if not self._ask(size):
                    return False
                self.held += size
                return True
            finally:
                self.hoped = 0

    def _ask(self, size: int) -> bool:
        spent: set[Share] = set()
        while (missing := self._missing(size)) > 0:
            larger = [each for each in self.budget.shares if each.held > self.held and each not in spent]
            other = max(larger, key=lambda each: each.held, default=None)
            if other is None:
                return False
            wake, before = other.wake, other.held
            if wake is not None:
                other.wanted = missing
                wake()
                until = time.monotonic() + PATIENCE_S
                while other.wanted and (left := until - time.monotonic()) > 0:
                    self.budget.changed.wait(left)
                if other.wanted:
                    # Its device is slow. A smaller lane has to give nothing for that.
                    self.awaiting = True
                    return False
            if other.held >= before:
                spent.add(other)
        # A write to this lane may have claimed some while it waited.
        return self.held + size <= self._most()

    def answer(self) -> None:
        """What was wanted has been given, as far as it went."""
        with self.budget.changed:
            self.wanted = 0
            self.budget.changed.notify_all()

    def leave(self) -> None:
        """The lane is closed; what it holds on disk stays counted until the buffer is opened anew."""
        self.wake = None
