"""How far a lane's destination has acknowledged its messages, and how many of them it has lost since.

A provider that keeps its position is asked for it whenever it is opened, and finds it whenever it stores the next one.
One that has gone back says that the destination accepted messages, and forgot them.

Promises
--------
- What is remembered is never more than what was acknowledged: after a kill less, by what the status file had not told.
- It counts for the same buffer and the same URL of the provider only: another one may keep its position elsewhere.
- Nothing leaves an account: what was acknowledged stays delivered, and is not sent again.

Kept in the sender's status file, so that the directory tells it, and the next program knows it. Pure but for
:meth:`Acknowledged.read`. Threads: the sender's; read by any.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from mbframework import narration
from mbframework.files import Files
from mbframework.spool import layout


@dataclass(slots=True)
class Acknowledged:
    """Of the lane of a buffer (its id, 32 hex digits), by the provider (its URL, secrets masked): one past the last
    sequence that is there as far as is known, and how many messages were there and are not any more, at most."""

    buffer: str
    provider: str = ""
    next: int = 0
    lost: int = 0

    @classmethod
    def read(cls, files: Files, lane_path: str, buffer: str) -> Acknowledged:
        """What the sender before has told; nothing where it told nothing, or of another buffer."""
        told, _ = narration.read(files, os.path.join(lane_path, layout.SENDER_STATUS_FILE))
        table = told.get("acknowledged", {})
        if table.get("buffer") != buffer:
            return cls(buffer)
        return cls(buffer, table.get("provider", ""), table.get("next", 0), table.get("lost", 0))

    def section(self) -> dict[str, Any]:
        """For the status file."""
        return {"buffer": self.buffer, "provider": self.provider, "next": self.next, "lost": self.lost}

    def at(self, provider: str) -> int:
        """What is remembered of this provider. 0: nothing."""
        return self.next if provider == self.provider else 0

    def reached(self, provider: str, sequence: int) -> None:
        """Everything below is there."""
        self.provider, self.next = provider, sequence

    def went_back(self, before: int, after: int, delivered: int) -> int:
        """The position was before ``before`` and is now ``after``, 0 where there is none; how many messages of the
        ``delivered`` ones that concerns, at most."""
        count = max(0, min(before - max(after, 1), delivered - self.lost))
        self.next = after
        self.lost += count
        return count


def words(provider: str, before: int, after: int, count: int) -> str:
    """What happened, and what to do, for the log, the events and the status."""
    messages = f"{count:,} delivered message{'' if count == 1 else 's'}"
    return (
        f"{provider} has lost what it had acknowledged: its position of this lane went back from sequence {before} to"
        f" {after}; up to {messages} may be gone there. They are not sent again, and the lane goes on behind them: look"
        " at how the server keeps its data (persistence, replicas, a restored backup), and write them again from where"
        " they came"
    )
