"""What became of a run of messages that were published one after another. Pure; one thread.

RabbitMQ numbers what a channel publishes, and confirms by number: one message, or all up to it. A message that no queue
takes is returned, without its number, and confirmed all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from enum import IntEnum


class Fate(IntEnum):
    """Of one message."""

    OPEN = 0  # nothing is known yet
    STORED = 1
    REFUSED = 2  # by a queue: it is full, or has failed
    RETURNED = 3  # no queue wants it


class Confirms:
    """``count`` messages, of which the first has the number ``first``; told apart by their index from 0."""

    def __init__(self, first: int, count: int) -> None:
        self.fates = [Fate.OPEN] * count
        #: How many are open.
        self.open = count
        self._first = first
        # All before this index are settled.
        self._low = 0

    def confirm(self, number: int, *, multiple: bool, stored: bool) -> None:
        """An answer has come, for one message or for all up to it. Numbers of other runs are passed over."""
        fate = Fate.STORED if stored else Fate.REFUSED
        last = number - self._first
        for index in range(self._low if multiple else max(0, last), min(last + 1, len(self.fates))):
            if self.fates[index] is Fate.OPEN:
                self.fates[index] = fate
                self.open -= 1
        while self._low < len(self.fates) and self.fates[self._low] is not Fate.OPEN:
            self._low += 1

    def returned(self, index: int) -> None:
        """A message has come back; its confirmation comes later and changes nothing."""
        if self.fates[index] is Fate.OPEN:
            self.open -= 1
        self.fates[index] = Fate.RETURNED

    def undelivered(self, domain: Callable[[int], Hashable]) -> list[int]:
        """The indices that are not stored and, of the same domain, all behind one of these."""
        broken: set[Hashable] = set()
        left = []
        for index, fate in enumerate(self.fates):
            if fate is not Fate.STORED:
                broken.add(domain(index))
            elif not broken or domain(index) not in broken:
                continue
            left.append(index)
        return left
