"""Sends as a lane does: in batches, the undelivered again and in front, until all is settled.

What a provider raises is taken as the lane takes it: anything that is not a ``SendFailed`` or ``ProviderUnusable``
counts as a failure of the whole batch, and only the rule about errors minds. After a failure ``send()`` is called
again, without an ``open()`` between, since that is what a lane does.

Threads: :class:`Courier` belongs to one; what it writes down may be read from any. :class:`Errand` is a thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from mbframework.errors import ProviderUnusable, SendFailed
from mbframework.message import Message
from mbframework.provider import Provider
from mbframework.sender import sound
from mbframework.testing.conformance.letters import batch_of, batches_of

T = TypeVar("T")

#: Seconds between two attempts.
RETRY_WAIT_S = 0.02


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one ``send()`` said, in sequences. ``error`` is as it was raised."""

    delivered: tuple[int, ...]
    undelivered: tuple[int, ...]
    rejected: dict[int, str]
    uncertain: bool = False
    error: BaseException | None = None

    @property
    def said(self) -> str:
        """The error in words."""
        return "it returned" if self.error is None else f"{type(self.error).__name__}: {self.error}"


def attempt(provider: Provider, messages: Sequence[Message]) -> Outcome:
    """One ``send()`` of at least one message."""
    sequences = [message.sequence for message in messages]
    try:
        provider.send(batch_of(messages))
    except SendFailed as error:
        heard = sound(error, len(messages))
        rejected = {sequences[index]: reason for index, reason in heard.rejected.items()}
        indices = range(len(messages)) if heard.undelivered is None else heard.undelivered
        undelivered = tuple(sequences[index] for index in sorted(indices) if sequences[index] not in rejected)
        delivered = tuple(s for s in sequences if s not in rejected and s not in set(undelivered))
        return Outcome(delivered, undelivered, rejected, heard.uncertain, error)
    except ProviderUnusable as error:
        return Outcome((), tuple(sequences), {}, error=error)
    except Exception as error:  # noqa: BLE001  (as the lane does: the rule about errors looks at it)
        return Outcome((), tuple(sequences), {}, uncertain=True, error=error)
    return Outcome(tuple(sequences), (), {})


@dataclass
class Courier:
    """Carries messages to one provider, and keeps the account."""

    provider: Provider
    delivered: list[int] = field(default_factory=list)
    rejected: dict[int, str] = field(default_factory=dict)
    #: Sequences that failed with ``uncertain``: they may arrive twice.
    doubtful: set[int] = field(default_factory=set)
    failures: list[Outcome] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._changed = threading.Condition()

    def carry(self, messages: Sequence[Message], timeout: float, *, size: int = 20) -> Courier:
        """Deliver, in batches of ``size``. :raises AssertionError: not settled within ``timeout`` seconds."""
        give_up = time.monotonic() + timeout
        for portion in batches_of(messages, size):
            left = portion
            while left:
                outcome = attempt(self.provider, left)
                self._note(outcome)
                left = [message for message in left if message.sequence in outcome.undelivered]
                if not left:
                    break
                assert time.monotonic() < give_up, (
                    f"messages {left[0].sequence} to {left[-1].sequence} were not delivered within {timeout:g} s,"
                    f" after {len(self.failures)} failures. A lane calls send() again after a failure, without open():"
                    f" is a lost connection mended there? The last: {outcome.said}"
                )
                if not (outcome.rejected or outcome.delivered):
                    time.sleep(RETRY_WAIT_S)
        return self

    def wait_until(self, condition: Callable[[Courier], bool], timeout: float, what: str) -> None:
        """Wait on another thread for what this courier wrote down. :raises AssertionError: it did not come."""
        with self._changed:
            came = self._changed.wait_for(lambda: condition(self), timeout)
        assert came, f"{what} did not come within {timeout:g} s; {len(self.delivered)} messages delivered"

    def _note(self, outcome: Outcome) -> None:
        with self._changed:
            self.delivered += outcome.delivered
            self.rejected.update(outcome.rejected)
            if outcome.error is not None:
                self.failures.append(outcome)
            if outcome.uncertain:
                self.doubtful.update(outcome.undelivered)
            self._changed.notify_all()


class Errand(threading.Thread, Generic[T]):
    """A call on a thread of its own, which may never return: the test ends all the same."""

    def __init__(self, call: Callable[[], T]) -> None:
        super().__init__(name="conformance-errand", daemon=True)
        self._call = call
        self._result: list[T] = []
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._result.append(self._call())
        except BaseException as error:  # noqa: BLE001  (it is raised again by whoever asks for the result)
            self.error = error

    def over(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for its end."""
        self.join(max(0.0, timeout))
        return not self.is_alive()

    def result(self, timeout: float, what: str) -> T:
        """What the call returned, or raised. :raises AssertionError: it has not returned by then."""
        assert self.over(timeout), f"{what} has not returned after {timeout:g} s"
        if self.error is not None:
            raise self.error
        return self._result[0]
