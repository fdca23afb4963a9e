"""For providers that store a lane's position together with its messages: which messages are there already?

The provider stores ``batch.position`` in the transaction of the batch, on condition that the position there is the one
that it expects. A :class:`Fence` remembers that expectation and judges what is found in its place, so that

- an attempt without an answer, which may be stored now, later or never, is neither repeated nor lost;
- two programs that deliver for one lane (a copied directory) stop each other, and do not mix;
- a destination that lost what it had acknowledged is said to have done so, and goes on.

No I/O. Threads: the provider's.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Sequence

from mbframework.errors import ProviderUnusable
from mbframework.message import Position


class Fence:
    """The position of one lane, as far as its provider knows it. ``expected`` is what should be stored there."""

    def __init__(self) -> None:
        self.expected: Position | None = None
        self._attempts: list[Position] = []

    def read(self, found: Position | None) -> None:
        """The destination was asked. An attempt of ours may be under way all the same: on a connection that was closed,
        the network may still have it."""
        self.expected = found

    def start(self, sequences: Sequence[int]) -> int:
        """The index of the first of these sequences that is not there already."""
        return 0 if self.expected is None else bisect_left(sequences, self.expected.sequence)

    def attempt(self, position: Position) -> None:
        """A transaction that stores this position is about to be sent."""
        self._attempts.append(position)

    def attempted(self, position: Position) -> bool:
        """Whether a transaction with this position may have been stored without an answer."""
        return position in self._attempts

    def stored(self, position: Position) -> None:
        """The destination said that it stored it."""
        self.expected = position
        self._attempts.clear()

    def meet(
        self,
        found: Position | None,
        first: int,
        logger: logging.Logger,
        provider: str,
        went_back: Callable[[int, int], None] | None = None,
    ) -> None:
        """Another position than the expected one is stored; nothing was sent. Afterwards it is the expected one.

        :param first: the sequence of the first message that was to be sent.
        :param went_back: that of the context; without it only the log tells of a position that went back.
        :raises ProviderUnusable: somebody else moved it beyond that message.
        """
        if found is not None and found.sequence > first and found not in self._attempts:
            raise ProviderUnusable(
                f"another program has delivered messages of this buffer's lane up to sequence {found.sequence - 1},"
                f" this one is at {first}: a copy of the buffer's directory seems to be in use; stop one of the two",
                provider=provider,
            )
        was = 0 if self.expected is None else self.expected.sequence
        now = 0 if found is None else found.sequence
        if now < was and went_back is not None:
            went_back(was, now)
        elif now < was:
            logger.error(
                "%s has lost what it had acknowledged: its position of this lane went back from sequence %d to %d",
                *(provider, was, now),
            )
        self.expected = found
