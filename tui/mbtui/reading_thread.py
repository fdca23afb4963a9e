"""One thread for calls that wait for a disk, beside the event loop.

Promises: one call at a time, in order; the event loop never waits. ``close`` does not wait either: what runs comes to
its end, what waits is forgotten. Created, used and closed on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


class ReadingThread:
    """See the module. The thread begins with the first call."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mbtui-read")

    async def run(self, call: Callable[[], Result]) -> Result:
        """What ``call`` returns or raises. Raises CancelledError once it is closed."""
        try:
            waiting = asyncio.get_running_loop().run_in_executor(self._executor, call)
        except RuntimeError:
            # Closed: who asks is about to end as well.
            raise asyncio.CancelledError from None
        return await waiting

    def close(self) -> None:
        """Let the thread go."""
        self._executor.shutdown(wait=False, cancel_futures=True)
