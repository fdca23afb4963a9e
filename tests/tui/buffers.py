"""Real buffers for the screens that show messages: written with a clock that stands, so that pictures stay the same."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mbframework import Batch, MessageBuffer, Provider, SendFailed
from mbframework.files import Files


class Clock(Files):
    """Both clocks stand until a test moves them; 2023-11-14 22:13:20 UTC."""

    def __init__(self) -> None:
        self.ns = 0

    def boot_ns(self) -> int:
        return 10**12 + self.ns

    def wall_ns(self) -> int:
        return 1_700_000_000 * 10**9 + self.ns


class HeldFiles(Files):
    """Reads of segments wait while it is held, and fail while it has an error."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.error: OSError | None = None

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        assert self.go.wait(60)
        if self.error is not None:
            raise self.error
        return super().pread(fd, size, offset)


def buffer(home: Path, clock: Files, provider: Provider | None = None, **options: Any) -> MessageBuffer:
    """A buffer in ``home``/orders whose times come from ``clock``."""

    class Timed(MessageBuffer):
        @staticmethod
        def _make_files() -> Files:
            return clock

    defaults: dict[str, Any] = {"mode": "always", "fsync": "never", "retry_wait": 0.01, "retry_wait_max": 0.01}
    return Timed(home / "orders", provider, **(defaults | options))


def written(home: Path, values: Iterable[bytes | None], *, step_ns: int = 1_500_000, **options: Any) -> Path:
    """The lane of a closed buffer with these values, some milliseconds apart, their keys counted."""
    clock = Clock()
    with buffer(home, clock, **options) as made:
        for number, value in enumerate(values):
            clock.ns += step_ns
            made.write("orders" if number % 3 else "payments", value, key=b"user-%d" % number)
    return home / "orders" / "main"


def segments(lane: Path) -> list[int]:
    """The first sequences of the lane's segments."""
    return sorted(int(path.name[1:-4]) for path in lane.glob("*.seg"))


class TakesSome(Provider):
    """Delivers the messages at these places of the first batch, and refuses all others, for now or for good."""

    def __init__(self, taken: Iterable[int] = (), rejected: Iterable[int] = (), reason: str = "") -> None:
        self.taken, self.rejected, self.reason = frozenset(taken), frozenset(rejected), reason
        self.asked = threading.Event()
        self.sent: list[bytes | None] = []
        self._first = True

    def send(self, batch: Batch) -> None:
        first, self._first = self._first, False
        if not first:
            self.asked.set()
            raise SendFailed("the broker is gone")
        rejected = dict.fromkeys(self.rejected, self.reason)
        left = [place for place in range(len(batch)) if place not in self.taken and place not in rejected]
        self.sent += [batch.values[place] for place in sorted(self.taken)]
        raise SendFailed("some of it", undelivered=left, rejected=rejected)
