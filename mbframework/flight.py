"""A batch on its way to the provider, and what became of each of its messages.

Promises: the messages have no gap in their sequences, so that a place in the batch and a sequence say the same. What
is settled stays settled.

``marks`` changes under the ledger's lock; the messages themselves never change.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mbframework.message import NO_PARTITION, Batch, Position
from mbframework.spool.reader import Acceptance, Run

_OPEN = ""


class Flight:
    """A batch on its way to the provider: messages without a gap in their sequences, and what became of each.

    ``in_memory`` as long as no segment holds it: then its settled messages are counted when all are.
    """

    def __init__(self, run: Run, *, in_memory: bool) -> None:
        self.run = run
        self.first = run.first
        self.end = run.end
        self.in_memory = in_memory
        #: Per message: the account by which it left, or "".
        self.marks: list[str] = [_OPEN] * len(run)
        self.open = len(run)
        #: Rejected messages that could not be set aside, and behind which others of their domain arrived.
        self.overtaken: set[int] = set()

    def mark(self, indices: Iterable[int], account: str) -> int:
        """Settle messages; those already settled stay what they are. Returns how many were not."""
        marks = self.marks
        if self.open == len(marks) and indices == range(self.open):
            # As nearly every batch ends: all of it, at once.
            self.marks = [account] * self.open
            changed, self.open = self.open, 0
            return changed
        changed = 0
        for index in indices:
            if not marks[index]:
                marks[index] = account
                changed += 1
        self.open -= changed
        return changed

    def note_overtaken(self, rejected: Iterable[int], arrived: Iterable[int]) -> None:
        """Of these rejected messages some wait among the others: where the provider takes one after all, it comes
        behind whatever of its domain has arrived."""
        last: dict[tuple[str, int, bytes | None], int] = {}
        for index in arrived:
            last[self.domain(index)] = index
        self.overtaken.update(
            index for index in rejected if not self.marks[index] and last.get(self.domain(index), -1) > index
        )

    def remaining(self) -> Sequence[int]:
        """Indices not yet settled."""
        if self.open == len(self.marks):
            return range(self.open)
        return [index for index, mark in enumerate(self.marks) if not mark]

    def batch(self, indices: Sequence[int]) -> Batch:
        """The messages at ``indices`` as the provider sees them.

        Its position is in front of whatever is open behind the last of them: who stores it must not believe to have
        more.
        """
        run = self.run
        position = Position(run.first + self._open_behind(indices[-1] if len(indices) else -1), run.run)
        if len(indices) == len(run):
            return Batch(
                sequences=range(run.first, run.end),
                topics=run.topics,
                keys=run.keys,
                values=run.values,
                header_blocks=run.header_blocks,
                timestamps=run.timestamps,
                partitions=run.partitions,
                accepted=run.accepted,
                position=position,
            )
        return Batch(
            sequences=[run.first + index for index in indices],
            topics=[run.topics[index] for index in indices],
            keys=[run.keys[index] for index in indices],
            values=[run.values[index] for index in indices],
            header_blocks=[run.header_blocks[index] for index in indices],
            timestamps=[run.timestamps[index] for index in indices],
            partitions=[run.partitions[index] for index in indices],
            accepted=[run.accepted[index] for index in indices],
            position=position,
        )

    def _open_behind(self, index: int) -> int:
        """The first index behind this one that is not settled; one past the last where there is none."""
        marks = self.marks
        return next((each for each in range(index + 1, len(marks)) if not marks[each]), len(marks))

    def domain(self, index: int) -> tuple[str, int, bytes | None]:
        """What the core knows of the ordering domain of a message: topic and partition, else topic and key."""
        run = self.run
        partition = run.partitions[index]
        return run.topics[index], partition, run.keys[index] if partition == NO_PARTITION else None

    def acceptances(self) -> Sequence[Acceptance]:
        """When the messages were accepted, front to back."""
        return self.run.acceptances
