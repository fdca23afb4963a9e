"""How a long-running command is stopped: SIGINT or SIGTERM once ends it properly, a second time at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """Inside, the first signal asks for the end instead of being it; afterwards the former handlers are back.

    ``number`` is the signal that arrived (0: none yet), and ``fileno()`` becomes readable with it. ``then`` is called
    as well, in the main thread, between any two steps of it: it must not wait for a lock which that thread may hold.
    Entered and left by the main thread.
    """

    def __init__(self, then: Callable[[], object] = bool) -> None:
        self.number = 0
        self._then = then

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        # By C, at once: what Python's handler writes would come too late for who has gone to wait since.
        self._former_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._former = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._former_fd)
        os.close(self._read)
        os.close(self._write)

    def fileno(self) -> int:
        """For ``select``."""
        return self._read

    def _handle(self, number: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        self.number = number
        self._then()
