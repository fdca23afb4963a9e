"""SIGTERM as an orderly end: all buffers are closed, then what was to be done before is done.

Promises
--------
- Nothing of a buffer is touched while the interrupted thread is in the middle of it: a handler may run between any
  two statements, also between those that hold a lock. The signal is then raised again a moment later.
- Where that thread waits inside a buffer (for room, for the provider, in ``close()``), the buffers are closed from
  another thread, which ends the wait.
- A second SIGTERM does not cut the closing short.

Handlers run in the main thread, and so does everything here but what says otherwise.
"""

from __future__ import annotations

import os
import signal
import threading
from _thread import start_new_thread
from collections.abc import Callable
from types import FrameType

#: Seconds between two looks at whether the main thread has left the buffer, and how often before it is not waited for.
_PAUSE = 0.001
_LOOKS = 5000
#: Where the main thread waits inside a buffer, holding no lock of it.
_WAITS = {
    ("mbframework.patience", "spend"),
    ("mbframework.durability", "reach"),
    ("mbframework.engine", "flush"),
    ("mbframework.shutdown", "run"),
}
#: Parts of this package that use buffers as any program does.
_CALLERS = ("mbframework.cli", "mbframework.testing")


class Termination:
    """One installed handler; ``close_all`` closes every buffer of this process, and waits for who does so already."""

    def __init__(self, close_all: Callable[[], object]) -> None:
        self._close_all = close_all
        self._former = signal.getsignal(signal.SIGTERM)
        self._looks = 0
        self._begun = False
        self._closed = False
        signal.signal(signal.SIGTERM, self.handle)

    def undo(self) -> None:
        """Put back what was there before."""
        if signal.getsignal(signal.SIGTERM) == self.handle:
            signal.signal(signal.SIGTERM, self._former)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The handler."""
        if self._closed:
            self._hand_on(number, frame)
            return
        if self._begun:
            return
        inside, waiting = _where(frame)
        if not inside:
            self._begun = True
            self._close_all()
            self._closed = True
            self._hand_on(number, frame)
        elif waiting or self._looks == _LOOKS:
            self._begun = True
            # Not through threading: the interrupted thread may hold the locks of that module.
            start_new_thread(self._close_aside, ())
        else:
            self._looks += 1
            if self._looks == 1:
                start_new_thread(self._look_again, ())

    def _look_again(self) -> None:
        """A thread: raise the signal until the handler has found a place to begin."""
        pause = threading.Event()
        while not self._begun:
            pause.wait(_PAUSE)
            _raise_in_main()

    def _close_aside(self) -> None:
        """A thread: close while the main thread waits in a buffer."""
        self._close_all()
        self._closed = True
        _raise_in_main()

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        former = self._former
        if callable(former):
            former(number, frame)
        elif former != signal.SIG_IGN:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)


def _raise_in_main() -> None:
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, signal.SIGTERM)


def _where(frame: FrameType | None) -> tuple[bool, bool]:
    """Whether the interrupted thread is in code of this package, or called by it; and whether it waits there."""
    inside = False
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if (module, frame.f_code.co_name) in _WAITS:
            return True, True
        inside = inside or (module.partition(".")[0] == "mbframework" and not module.startswith(_CALLERS))
        frame = frame.f_back
    return inside, False
