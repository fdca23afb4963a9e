"""The broker behind the provider ``fake``: what arrived, and what it does to those who send.

Lanes that share a broker deliver into one list. Every method may be called from
any thread; those that set something act on the sends that are under way as well,
where that makes sense (``down``, ``release``).
"""

from __future__ import annotations

import random
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbframework.errors import SendFailed
from mbframework.message import Batch, Message, Position
from mbframework.testing.outages import Outages

if TYPE_CHECKING:
    from mbframework_fake import Options

#: Says of a message why it is rejected, or True; anything falsy takes it.
RejectWhen = Callable[[Message], str | bool | None]


@dataclass(frozen=True, slots=True)
class Failure:
    """One failing send: ``after`` messages arrive, then it fails; see :meth:`FakeBroker.fail_next`."""

    after: int | None
    uncertain: bool
    error: Exception | None


class FakeBroker:
    """A broker in memory.

    :param name: shown as destination; "" is none.
    :param rate: messages per second, for all lanes together; None: any.
    :param latency: seconds until a batch is acknowledged; ``jitter`` adds up to so much, at random.
    :param keep: how many of the latest messages stay in memory; None: all.
    :param keep_position: keep each lane's position with its messages. A batch then arrives whole or not at all.
    :param max_message_bytes: told to the buffer, which refuses larger messages; None: any.
    """

    def __init__(
        self,
        name: str = "",
        *,
        rate: float | None = None,
        latency: float = 0.0,
        jitter: float = 0.0,
        outages: Outages | None = None,
        keep: int | None = None,
        keep_position: bool = False,
        max_message_bytes: int | None = None,
    ) -> None:
        self.name = name
        self.jitter = jitter
        self.keep_position = keep_position
        self.max_message_bytes = max_message_bytes
        self._latency = latency
        self._rate = rate
        self._outages = outages or Outages()
        self._changed = threading.Condition()
        self._messages: deque[Message] = deque(maxlen=keep)
        self._positions: dict[tuple[str, str], Position] = {}
        self._count = 0
        self._attempts = 0
        self._stuck = 0
        self._opened_at: float | None = None
        self._free_at = 0.0
        self._down = False
        self._released = threading.Event()
        self._released.set()
        self._failures: deque[Failure] = deque()
        self._reject_when: RejectWhen | None = None
        self._configured = False

    def __repr__(self) -> str:
        return f"<FakeBroker {self.name or 'without a name'}: {self.count} messages>"

    # What arrived.

    @property
    def messages(self) -> list[Message]:
        """What arrived, in order; with ``keep``, the latest of it."""
        with self._changed:
            return list(self._messages)

    @property
    def count(self) -> int:
        """How many messages arrived, kept or not."""
        with self._changed:
            return self._count

    @property
    def positions(self) -> dict[tuple[str, str], Position]:
        """(buffer id, lane) → the position that came with the last batch, with ``keep_position``."""
        with self._changed:
            return dict(self._positions)

    @property
    def attempts(self) -> int:
        """How many sends were tried, failed ones included."""
        with self._changed:
            return self._attempts

    @property
    def stuck(self) -> int:
        """How many sends hang at this moment."""
        with self._changed:
            return self._stuck

    def wait_for(self, count: int, timeout: float) -> list[Message]:
        """Wait up to ``timeout`` seconds until ``count`` messages have arrived, and return what is kept of them.

        :raises TimeoutError: it says how many arrived.
        """
        self.wait_until(lambda: self._count >= count, timeout, f"{count} messages")
        return self.messages

    def wait_until(self, condition: Callable[[], bool], timeout: float, what: str = "the condition") -> None:
        """Wait up to ``timeout`` seconds until ``condition()``, asked whenever something changes here, holds.

        :raises TimeoutError: it says what arrived until then.
        """
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                raise TimeoutError(
                    f"{what} did not come about within {timeout:g} s:"
                    f" {self._count} messages arrived in {self._attempts} sends"
                )

    def clear(self) -> None:
        """Forget what arrived and the positions; settings stay."""
        with self._changed:
            self._messages.clear()
            self._positions.clear()
            self._count = self._attempts = 0

    # What it does to those who send.

    def down(self) -> None:
        """Be away until :meth:`up`: opening and sending fail."""
        with self._changed:
            self._down = True
            self._changed.notify_all()

    def up(self) -> None:
        """Be back. Outages on a schedule go on."""
        with self._changed:
            self._down = False
            self._changed.notify_all()

    def fail_next(
        self, n: int = 1, *, after: int | None = None, uncertain: bool = False, error: Exception | None = None
    ) -> None:
        """Let the next ``n`` sends fail.

        :param after: so many messages of the batch arrive all the same, those that would be rejected included (none
            with ``keep_position``, which keeps a batch whole). None: none of them, or all where ``uncertain``.
        :param uncertain: the error does not tell that they arrived.
        :param error: raised instead of a SendFailed.
        """
        with self._changed:
            self._failures.extend([Failure(after, uncertain, error)] * n)

    def reject_when(self, condition: RejectWhen | None) -> None:
        """Reject messages of which ``condition`` gives a reason or True; None: take all."""
        with self._changed:
            self._reject_when = condition

    def stick(self) -> None:
        """Let sends hang, the stopping of the buffer notwithstanding, until :meth:`release`."""
        self._released.clear()

    def release(self) -> None:
        """Let sends that hang go on; their messages arrive then."""
        self._released.set()

    def set_latency(self, latency: float, jitter: float | None = None) -> None:
        """From the next send on, in seconds; ``jitter`` None: as it is."""
        with self._changed:
            self._latency = latency
            self.jitter = self.jitter if jitter is None else jitter

    def set_rate(self, rate: float | None) -> None:
        """Messages per second, from the next send on; None: any."""
        with self._changed:
            self._rate = rate
            self._free_at = 0.0

    # For the provider.

    def configure(self, options: Options) -> None:
        """Take the settings of a URL. The first that names this broker decides; the next lanes find them made."""
        with self._changed:
            if self._configured:
                return
            self._configured = True
            self.jitter = options.jitter
            self.keep_position = options.keep_position
            self.max_message_bytes = options.max_message_bytes or None
            self._latency = options.latency
            self._rate = options.rate or None
            self._outages = Outages.parse(options.outage, options.outage_every)
            self._messages = deque(self._messages, maxlen=options.keep)
            self._reject_when = self._reject_when or _rejection(options.reject.encode(), options.reject_every)

    def connect(self) -> None:
        """:raises SendFailed: the broker is away."""
        with self._changed:
            if self._opened_at is None:
                self._opened_at = time.monotonic()
        self.check_up()

    def check_up(self) -> None:
        """:raises SendFailed: the broker is away."""
        with self._changed:
            down = self._down
            since = 0.0 if self._opened_at is None else time.monotonic() - self._opened_at
        if down or self._outages.away(since):
            raise SendFailed("the fake broker is away; call up(), or wait for its outage to end", provider="fake")

    def begin_send(self) -> Failure | None:
        """Count an attempt, hang if told so, and tell how it is to fail."""
        with self._changed:
            self._attempts += 1
            failure = self._failures.popleft() if self._failures else None
            self._changed.notify_all()
        if not self._released.is_set():
            self._hang()
        return failure

    def _hang(self) -> None:
        with self._changed:
            self._stuck += 1
            self._changed.notify_all()
        self._released.wait()
        with self._changed:
            self._stuck -= 1
            self._changed.notify_all()

    def latency(self) -> float:
        """The latency of one send, in seconds."""
        with self._changed:
            return self._latency + random.uniform(0.0, self.jitter)

    def reserve(self, count: int) -> float:
        """Claim the time that ``count`` messages take at the broker's rate: seconds to wait before they are there."""
        with self._changed:
            if not self._rate:
                return 0.0
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + count / self._rate
            return self._free_at - now

    def portion(self) -> int | None:
        """How many messages arrive together: some 50 ms' worth; None: all."""
        with self._changed:
            if not self._rate or self.keep_position:
                return None
            return max(1, int(self._rate * 0.05))

    def rejections(self, batch: Batch) -> dict[int, str]:
        """Which messages of the batch are rejected, and why."""
        condition = self._reject_when
        if condition is None:
            return {}
        verdicts = ((index, condition(message)) for index, message in enumerate(batch))
        return {index: verdict if isinstance(verdict, str) else "rejected" for index, verdict in verdicts if verdict}

    def add(self, batch: Batch, start: int, stop: int, rejected: Mapping[int, str]) -> None:
        """Messages of the batch arrive: those from ``start`` to before ``stop`` that are not rejected."""
        indices = [i for i in range(start, stop) if i not in rejected] if rejected else range(start, stop)
        with self._changed:
            keep = self._messages.maxlen
            wanted = indices if keep is None else indices[max(0, len(indices) - keep) :]
            self._messages.extend(batch[i] for i in wanted)
            self._count += len(indices)
            self._changed.notify_all()

    def store(self, buffer_id: str, lane: str, batch: Batch) -> None:
        """The whole batch and its position arrive, in one step; what is below the lane's position is passed over."""
        with self._changed:
            known = self._positions.get((buffer_id, lane))
            start = 0 if known is None else bisect_left(batch.sequences, known.sequence)
            self.add(batch, start, len(batch), {})
            if known is None or known.sequence <= batch.position.sequence:
                self._positions[buffer_id, lane] = batch.position


def _rejection(text: bytes, every: int) -> RejectWhen | None:
    if not text and not every:
        return None

    def rejects(message: Message) -> str | None:
        if text and message.value is not None and text in message.value:
            return f"its value contains {text.decode()!r}"
        # By sequence, so that a retry of a message meets the same verdict.
        if every and message.sequence % every == 0:
            return f"every message number {every} is rejected"
        return None

    return rejects
