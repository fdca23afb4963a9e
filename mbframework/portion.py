"""How many messages go in one call of the provider, after calls that ran out of time.

Promises
--------
- What timed out as a whole, twice in a row, is sent in halves, and so on down to single messages: a batch that is too
  much for the time that it has does not time out for ever.
- With each call that succeeds it is twice as many again.

Pure; one thread.
"""

from __future__ import annotations

#: More than any batch has.
_WHOLE = 1 << 30


class Portion:
    """See the module. ``most``: messages in the next call."""

    def __init__(self) -> None:
        self.most = _WHOLE
        self._vain = 0

    def timed_out(self, count: int) -> None:
        """Nothing is known of any of the ``count`` messages."""
        self._vain += 1
        if self._vain > 1:
            self.most = max(1, min(count, self.most) // 2)

    def succeeded(self) -> None:
        """All that was sent has arrived."""
        self._vain = 0
        self.most = min(_WHOLE, 2 * self.most)
