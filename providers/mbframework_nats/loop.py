"""An event loop that others on its thread do not see while it waits.

asyncio keeps for each thread of the system which loop runs on it, and lets no other run meanwhile. gevent makes
greenlets of threads: several share one thread, and each that waits gives way to the others. So while this loop waits
for the network, the thread has what it had before: another link's loop, one of the program's, or none.

Threads: the one that runs it; there, any number of greenlets, each with a loop of its own.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
from asyncio import events
from collections.abc import Awaitable, Generator
from typing import Any, TypeVar

_T = TypeVar("_T")


class Loop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        #: What the thread has while this loop does not run on it, or what this loop had: the other of the two.
        self._running: asyncio.AbstractEventLoop | None = None
        self._hooks: tuple[Any, Any] = (None, None)
        # Not the class as it was when we were imported: gevent may have put its own in its place since.
        selector = selectors.DefaultSelector()
        wait = selector.select

        def select(timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            self._swap()
            try:
                return wait(timeout)
            finally:
                self._swap()

        # The only place in which a loop waits.
        selector.select = select  # type: ignore[method-assign]
        super().__init__(selector)

    def run_until_complete(self, future: Generator[Any, None, _T] | Awaitable[_T]) -> _T:
        self._swap()
        try:
            return super().run_until_complete(future)
        finally:
            self._swap()

    def _swap(self) -> None:
        """Exchange what asyncio keeps for the thread with what is kept here."""
        running, hooks = events._get_running_loop(), sys.get_asyncgen_hooks()  # noqa: SLF001 - made for event loops
        events._set_running_loop(self._running)  # noqa: SLF001
        sys.set_asyncgen_hooks(*self._hooks)
        self._running, self._hooks = running, (hooks.firstiter, hooks.finalizer)
