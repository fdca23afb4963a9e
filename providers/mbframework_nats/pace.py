"""How many messages are sent in one go: many where the stream is ours alone, few where others write between ours.

No I/O.

Careful means that each message is asked about, so that an interruption tells how far it went without looking into the
stream.
"""

from __future__ import annotations

_MOST = 1_000
_LEAST = 16


class Pace:
    """``messages``: the most in a portion."""

    def __init__(self) -> None:
        self.messages = _MOST

    @property
    def careful(self) -> bool:
        """Whether each message should be asked about, and a portion be answered before the next one is sent."""
        return self.messages < _MOST

    def well(self) -> None:
        """A portion was stored as a whole."""
        self.messages = min(_MOST, 2 * self.messages)

    def interrupted(self) -> None:
        """Somebody else's message came in between, or one of ours was refused."""
        self.messages = max(_LEAST, self.messages // 4)
