"""How a program with a screen leaves, whatever becomes of its terminal and of the screen library.

Promises
--------
- SIGINT, SIGTERM and SIGHUP ask the screen to end in good order. Where that has not come about after
  :data:`PATIENCE_S` seconds, or the terminal was closed (with a signal or without), the process ends itself: the screen
  library would wait for ever for what it writes to be taken.
- What was handed over to be cleared away is cleared away then, too, and a terminal that is still there is restored.
- A signal interrupts nothing: its handler writes a byte into a pipe, and a thread of this module does the rest.

:class:`Departure` is entered and left on the main thread.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from mbtui.terminal import Terminal

if TYPE_CHECKING:
    from textual.app import App

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: How long the screen may take to end.
PATIENCE_S = 2.0
#: Seconds between two looks at the terminal: always, and while the screen is to end.
_LOOK_S, _LOOK_LEAVING_S = 1.0, 0.05


class Departure:
    """Inside, signals are noted: ``number`` is the first one's, 0 without any. Only inside of :meth:`watched` there is
    something that they end."""

    def __init__(self) -> None:
        self.number = 0
        self._terminal = Terminal()
        self._read = self._write = -1
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        for number in SIGNALS:
            self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        os.close(self._write)
        os.close(self._read)

    def _note(self, number: int, frame: FrameType | None) -> None:
        # A terminal that is closed lets a stopped program go on; the screen library would begin anew.
        signal.signal(signal.SIGCONT, signal.SIG_DFL)
        self.number = self.number or number
        with suppress(BlockingIOError):
            os.write(self._write, b"!")

    @contextmanager
    def watched(self, leave: Callable[[], object], clear: Callable[[], object] = lambda: None) -> Iterator[None]:
        """For as long as the screen stands.

        :param leave: asks it to end; called on a thread of its own.
        :param clear: what must not be left undone where the process ends itself; called on the same thread.
        """
        ended, end = os.pipe()
        thread = threading.Thread(target=self._watch, args=(ended, leave, clear), name="mbtui-departure", daemon=True)
        thread.start()
        try:
            yield
        finally:
            os.close(end)
            thread.join()
            os.close(ended)

    def _watch(self, ended: int, leave: Callable[[], object], clear: Callable[[], object]) -> None:
        waited_for = [ended, self._read]
        while True:
            ready, _, _ = select.select(waited_for, [], [], _LOOK_S)
            if ended in ready:
                return
            if ready or self._terminal.gone:
                break
        leave()
        deadline = time.monotonic() + PATIENCE_S
        while not self._terminal.gone and time.monotonic() < deadline:
            if select.select([ended], [], [], _LOOK_LEAVING_S)[0]:
                return
        try:
            self._terminal.restore()
            clear()
        finally:
            os._exit(128 + (self.number or signal.SIGHUP))


async def departing(app: App[Any], departure: Departure, clear: Callable[[], object] = lambda: None) -> None:
    """The screen, until it is quit or a signal comes; one that came before it began counts, too."""
    loop = asyncio.get_running_loop()
    with departure.watched(lambda: loop.call_soon_threadsafe(app.exit), clear):
        if not departure.number:
            await app.run_async()
