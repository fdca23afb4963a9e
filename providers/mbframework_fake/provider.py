"""A lane's connection to a fake broker, and the broker's controls at hand for tests.

Threads: the sender's opens and sends; everything else may be called from any.
Waits end when the buffer stops, but for those of :meth:`FakeProvider.stick`,
which stands for a client library that never returns.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mbframework.errors import SendFailed
from mbframework.message import Batch, Message, Position
from mbframework.provider import Context, Provider
from mbframework.testing.outages import Outages
from mbframework_fake.broker import FakeBroker, RejectWhen

if TYPE_CHECKING:
    from mbframework_fake import Options

#: How soon, in seconds, a wait notices that the broker went away.
_LOOK_S = 0.02

_stores: dict[str, FakeBroker] = {}
_stores_lock = threading.Lock()


class FakeProvider(Provider):
    """A provider that delivers into memory.

    ``FakeProvider(rate=5000, latency=0.01)`` has a broker of its own, made with the keywords of
    :class:`FakeBroker`; ``FakeProvider(broker)`` shares one with other lanes.
    """

    def __init__(
        self,
        broker: FakeBroker | None = None,
        *,
        rate: float | None = None,
        latency: float = 0.0,
        jitter: float = 0.0,
        outages: Outages | None = None,
        keep: int | None = None,
        keep_position: bool = False,
        max_message_bytes: int | None = None,
    ) -> None:
        self.broker = broker or FakeBroker(
            rate=rate,
            latency=latency,
            jitter=jitter,
            outages=outages,
            keep=keep,
            keep_position=keep_position,
            max_message_bytes=max_message_bytes,
        )
        self.max_message_bytes = self.broker.max_message_bytes
        self._context = Context(buffer_id="", lane="", run=b"")
        self._closed = True

    @classmethod
    def from_options(cls, options: Options) -> FakeProvider:
        """What a URL asks for: the broker of that name, or one of its own."""
        broker = cls.store(options.name) if options.name else FakeBroker()
        broker.configure(options)
        return cls(broker)

    @staticmethod
    def store(name: str) -> FakeBroker:
        """The broker that ``fake://name`` delivers to; it lives as long as the process. May be asked for early."""
        with _stores_lock:
            if name not in _stores:
                _stores[name] = FakeBroker(name)
            return _stores[name]

    def __repr__(self) -> str:
        return f"<FakeProvider of {self.broker!r}>"

    def open(self, context: Context) -> None:
        self.broker.connect()
        self._context = context
        self._closed = False

    def send(self, batch: Batch) -> None:
        if self._closed:
            raise SendFailed("the fake provider is not open; call open() first", provider="fake")
        broker = self.broker
        if not batch:
            return
        failure = broker.begin_send()
        self._wait(broker.latency(), 0, len(batch), {})
        if failure is None:
            self._deliver(batch, len(batch), broker.rejections(batch))
            return
        arrives = failure.after if failure.after is not None else len(batch) if failure.uncertain else 0
        if broker.keep_position and arrives < len(batch):
            arrives = 0
        self._deliver(batch, min(arrives, len(batch)), {})
        if failure.error is not None:
            raise failure.error
        raise SendFailed(
            "the fake broker was told to fail",
            undelivered=range(0 if failure.uncertain else arrives, len(batch)),
            uncertain=failure.uncertain,
            provider="fake",
        )

    def idle(self) -> None:
        self.broker.check_up()

    def committed(self) -> Position | None:
        return self.broker.positions.get((self._context.buffer_id, self._context.lane))

    def destination(self) -> str:
        return f"fake:{self.broker.name}" if self.broker.name else ""

    def describe(self) -> Mapping[str, str]:
        return {"broker": self.broker.name or "in memory", "arrived": str(self.broker.count)}

    def close(self, timeout: float) -> None:
        self._closed = True

    def _deliver(self, batch: Batch, stop: int, rejected: Mapping[int, str]) -> None:
        """The messages before ``stop`` arrive, at the broker's pace; or fail with those that did not."""
        broker = self.broker
        if rejected and broker.keep_position:
            # Nothing stays: a position beyond a rejected message would let a kill lose it before it is set aside.
            raise SendFailed("the fake broker rejects messages", rejected=rejected, provider="fake")
        portion = broker.portion() or max(1, stop)
        for start in range(0, stop, portion):
            end = min(start + portion, stop)
            self._wait(broker.reserve(end - start), start, len(batch), rejected)
            if broker.keep_position:
                broker.store(self._context.buffer_id, self._context.lane, batch)
            else:
                broker.add(batch, start, end, rejected)
        if rejected:
            raise SendFailed("the fake broker rejects messages", undelivered=(), rejected=rejected, provider="fake")

    def _wait(self, seconds: float, arrived: int, total: int, rejected: Mapping[int, str]) -> None:
        """Wait; fail when the broker goes away or the buffer stops. Messages before ``arrived`` have arrived."""
        until = time.monotonic() + seconds
        stopping = self._context.stopping
        settled = {index: why for index, why in rejected.items() if index < arrived}
        while True:
            try:
                self.broker.check_up()
            except SendFailed as away:
                raise self._cut_short(str(away), arrived, total, settled) from None
            left = until - time.monotonic()
            if left <= 0:
                return
            if stopping.wait(min(left, _LOOK_S)):
                raise self._cut_short("the buffer stops", arrived, total, settled)

    def _cut_short(self, why: str, arrived: int, total: int, rejected: Mapping[int, str]) -> SendFailed:
        return SendFailed(why, undelivered=range(arrived, total), rejected=rejected, provider="fake")

    # The broker's controls; they act on all lanes that share it.

    @property
    def messages(self) -> list[Message]:
        """See :attr:`FakeBroker.messages`; and so on."""
        return self.broker.messages

    @property
    def count(self) -> int:
        return self.broker.count

    @property
    def attempts(self) -> int:
        return self.broker.attempts

    @property
    def stuck(self) -> int:
        return self.broker.stuck

    @property
    def positions(self) -> dict[tuple[str, str], Position]:
        return self.broker.positions

    def wait_for(self, count: int, timeout: float) -> list[Message]:
        return self.broker.wait_for(count, timeout)

    def wait_until(self, condition: Callable[[], bool], timeout: float, what: str = "the condition") -> None:
        self.broker.wait_until(condition, timeout, what)

    def clear(self) -> None:
        self.broker.clear()

    def down(self) -> None:
        self.broker.down()

    def up(self) -> None:
        self.broker.up()

    def fail_next(
        self, n: int = 1, *, after: int | None = None, uncertain: bool = False, error: Exception | None = None
    ) -> None:
        self.broker.fail_next(n, after=after, uncertain=uncertain, error=error)

    def reject_when(self, condition: RejectWhen | None) -> None:
        self.broker.reject_when(condition)

    def stick(self) -> None:
        self.broker.stick()

    def release(self) -> None:
        self.broker.release()

    def set_latency(self, latency: float, jitter: float | None = None) -> None:
        self.broker.set_latency(latency, jitter)

    def set_rate(self, rate: float | None) -> None:
        self.broker.set_rate(rate)
