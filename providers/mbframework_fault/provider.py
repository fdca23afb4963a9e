"""A provider in front of another: faults before a send, in its middle and after it.

- *before*: nothing arrives; *partial*: the first messages of the batch arrive, and
  the error says so; *uncertain*: all arrive, and the error says that none is known
  to have; *stuck*: the send hangs, then goes on.
- Rejections are decided by the message's sequence, so that a retry meets the same
  verdict. Where one is rejected nothing of the batch is sent, as a provider that
  keeps its position with the messages must do.
- With a seed, a lane's faults depend on nothing but the seed, the lane's name and
  the number of its sends.

Everything else is passed on: position, destination, limits, idle, close.

Threads: the sender's sends; the controls may be called from any.
"""

from __future__ import annotations

import random
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from mbframework.errors import ProviderError, SendFailed
from mbframework.message import Batch, Position
from mbframework.plugins.source import ProviderSource
from mbframework.provider import Context, Health, Provider
from mbframework.testing.outages import Outages
from mbframework_fault import Plan

#: What can happen to a send.
Fault = Literal["before", "partial", "uncertain", "stuck"]


class FaultProvider(Provider):
    """Any provider, made unreliable.

    :param inner: the provider behind, or where it comes from, as :func:`mbframework.plugins.source.resolve_url` tells.
    :param plan: the faults that come by themselves; None: only those that the controls ask for.
    """

    def __init__(self, inner: Provider | ProviderSource, plan: Plan | None = None) -> None:
        self.plan = plan or Plan()
        self._source = inner if isinstance(inner, ProviderSource) else None
        self._inner = None if isinstance(inner, ProviderSource) else inner
        self.seed = random.randrange(1 << 32) if self.plan.seed is None else self.plan.seed
        self._random = random.Random()
        self._sends = 0
        self._salt = 0
        self._outages = Outages.parse(self.plan.outage, self.plan.outage_every)
        self._opened_at: float | None = None
        self._context = Context(buffer_id="", lane="", run=b"")
        self._down = False
        self._latency, self._jitter = self.plan.latency, self.plan.jitter
        self._injected: deque[tuple[Fault, Exception | None]] = deque()
        self._released = threading.Event()
        self._released.set()
        self._let_go = self._released
        #: Set while a send hangs.
        self.hanging = threading.Event()
        #: Faults that came, by kind; "rejected" counts messages.
        self.counts: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<FaultProvider in front of {self._source.display if self._source else repr(self._inner)}>"

    # The provider behind, with faults.

    @property
    def fork_safe(self) -> bool:  # type: ignore[override]  # read only, where the base has a plain attribute
        """As the provider behind."""
        return self._inner is None or self._inner.fork_safe

    def open(self, context: Context) -> None:
        if self._opened_at is None:
            self._opened_at = time.monotonic()
            self._salt = zlib.crc32(f"{self.seed} {context.lane}".encode())
        self._context = context
        self._check_reachable()
        if self._inner is None and self._source is not None:
            self._inner = self._source.create(context)
        inner = self._behind()
        with self._scrubbed():
            inner.open(context)
        self.max_message_bytes = inner.max_message_bytes
        self.position_tells = inner.position_tells

    def send(self, batch: Batch) -> None:
        inner = self._behind()
        if not batch:
            return
        fault, error = self._next_fault()
        self._delay(stuck=fault == "stuck")
        self._check_reachable()
        try:
            self._reject(batch)
            if fault == "before":
                self._fail("before", error, len(batch))
            if fault == "partial":
                arrives = self._random.randrange(len(batch))
                if arrives:
                    self._send_first(inner, batch, arrives)
                self._fail("partial", error, len(batch), arrives)
            with self._scrubbed():
                inner.send(batch)
            if fault == "uncertain":
                self._fail("uncertain", error, len(batch))
        finally:
            self.max_message_bytes = inner.max_message_bytes

    def idle(self) -> None:
        self._check_reachable()
        with self._scrubbed():
            self._behind().idle()

    def committed(self) -> Position | None:
        return self._behind().committed()

    def destination(self) -> str:
        return self._behind().destination()

    def describe(self) -> Mapping[str, str]:
        faults = ", ".join(f"{kind} {count}" for kind, count in sorted(self.counts.items())) or "none so far"
        behind = self._source.display if self._source else type(self._inner).__name__
        inner = self._inner.describe() if self._inner else {}
        return {**inner, "inner": behind, "seed": str(self.seed), "faults": faults}

    def check(self) -> Health:
        if self._inner is None and self._source is not None:
            return self._source.create(Context(buffer_id="0" * 32, lane="check", run=b"\0" * 16)).check()
        return self._behind().check()

    def close(self, timeout: float) -> None:
        if self._inner is not None:
            self._inner.close(timeout)

    # Controls.

    def down(self) -> None:
        """Be out of reach until :meth:`up`."""
        self._down = True

    def up(self) -> None:
        """Be within reach again. Outages of the plan go on."""
        self._down = False

    def inject_error(self, fault: Fault = "before", n: int = 1, *, error: Exception | None = None) -> None:
        """Let the next ``n`` sends have this fault, before any that the plan has for them.

        :param error: raised in place of a SendFailed; not with ``"stuck"``.
        """
        self._injected.extend([(fault, error)] * n)

    def set_delay(self, latency: float, jitter: float = 0.0) -> None:
        """Time added to each send from now on, in seconds, and up to so much more at random."""
        self._latency, self._jitter = latency, jitter

    def stick(self) -> None:
        """Let sends hang, the stopping of the buffer notwithstanding, until :meth:`release`."""
        self._released.clear()

    def release(self) -> None:
        """Let a send that hangs go on, whatever made it hang."""
        self._released.set()
        self._let_go.set()

    def _behind(self) -> Provider:
        if self._inner is None:
            raise SendFailed("the provider behind is not open; call open() first", provider="fault")
        return self._inner

    @contextmanager
    def _scrubbed(self) -> Iterator[None]:
        """Whoever made this provider knows the secrets of its own URL, and not those of the one behind."""
        try:
            yield
        except Exception as error:  # client libraries raise what they like, and quote what they were given
            said = str(error)
            text = self._source.scrub(said) if self._source else said
            if text == said:
                raise
            if isinstance(error, ProviderError):
                error.args = (text,)
                raise error from None
            raise SendFailed(f"{type(error).__name__}: {text}", provider="fault") from None

    def _next_fault(self) -> tuple[Fault | None, Exception | None]:
        # Anew for each send: neither what is injected nor what an earlier send drew shifts the plan, and lanes with
        # one seed differ from each other.
        self._sends += 1
        self._random.seed(f"{self.seed} {self._context.lane} {self._sends}")
        drawn = self._random.random()
        if self._injected:
            return self._injected.popleft()
        plan = self.plan
        rates: tuple[tuple[Fault, float], ...] = (
            ("before", plan.error_rate),
            ("partial", plan.partial_rate),
            ("uncertain", plan.uncertain_rate),
            ("stuck", plan.stuck_rate),
        )
        for fault, rate in rates:
            if drawn < rate:
                return fault, None
            drawn -= rate
        return None, None

    def _delay(self, *, stuck: bool) -> None:
        seconds = self._latency + self._random.uniform(0.0, self._jitter)
        if seconds > 0 and self._context.stopping.wait(seconds):
            raise SendFailed("the buffer stops", provider="fault")
        if stuck:
            self._hang(threading.Event(), self.plan.stuck)
        if not self._released.is_set():
            self._hang(self._released, None)

    def _hang(self, until: threading.Event, seconds: float | None) -> None:
        """Hang, the stopping of the buffer notwithstanding: a client library that hangs does not look at it either."""
        self._count("stuck")
        self._let_go = until
        self.hanging.set()
        until.wait(seconds)
        self.hanging.clear()

    def _check_reachable(self) -> None:
        since = 0.0 if self._opened_at is None else time.monotonic() - self._opened_at
        if self._down or self._outages.away(since):
            self._count("outage")
            raise SendFailed("injected: the provider is out of reach", provider="fault")

    def _reject(self, batch: Batch) -> None:
        rate = self.plan.reject_rate
        if not rate:
            return
        limit = rate * (1 << 32)
        rejected = {
            index: "injected rejection"
            for index, sequence in enumerate(batch.sequences)
            if zlib.crc32(b"%d" % sequence, self._salt) < limit
        }
        if rejected:
            self._count("rejected", len(rejected))
            raise SendFailed("injected: messages are rejected", rejected=rejected, provider="fault")

    def _send_first(self, inner: Provider, batch: Batch, count: int) -> None:
        try:
            with self._scrubbed():
                inner.send(_first(batch, count))
        except SendFailed as error:
            # The provider behind knows nothing of the messages that were held back.
            missing = [i for i in range(count) if i not in error.rejected]
            missing = missing if error.undelivered is None else list(error.undelivered)
            raise SendFailed(
                str(error),
                undelivered=[*missing, *range(count, len(batch))],
                rejected=error.rejected,
                uncertain=error.uncertain,
                retry_after=error.retry_after,
                provider=error.provider,
            ) from error

    def _fail(self, fault: Fault, error: Exception | None, total: int, arrived: int = 0) -> None:
        self._count(fault)
        if error is not None:
            raise error
        raise SendFailed(
            f"injected: {fault} of {total} messages, {arrived} acknowledged",
            undelivered=range(arrived, total),
            uncertain=fault == "uncertain",
            provider="fault",
        )

    def _count(self, what: str, n: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + n


def _first(batch: Batch, count: int) -> Batch:
    """The first ``count`` messages, at least one, with the position that belongs to them."""
    return Batch(
        sequences=batch.sequences[:count],
        topics=batch.topics[:count],
        keys=batch.keys[:count],
        values=batch.values[:count],
        header_blocks=batch.header_blocks[:count],
        timestamps=batch.timestamps[:count],
        partitions=batch.partitions[:count],
        accepted=batch.accepted[:count],
        position=Position(batch.sequences[count - 1] + 1, batch.position.run),
    )
