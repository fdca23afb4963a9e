"""Who is in a provider's connection: one thread uses it, and another one may close the provider at any moment.

``close()`` must return within its time-out although a ``send()`` is stuck, and whoever leaves the connection last must
take it apart. Every method is for any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock

from mbframework.errors import SendFailed

#: Seconds that close() waits at least: whoever is in it has been told to leave.
_LEAST_S = 0.05


class Occupancy:
    """Of one connection, or what a provider has in the place of one.

    ``closed`` is set before the first :meth:`open` and from :meth:`close` on; what waits in the connection must end
    soon after that.

    :param drop: takes the connection apart, if there is one; called with the connection held.
    :param provider: the provider's name, and ``to``: what it connects to; both for the error.
    """

    def __init__(self, drop: Callable[[], None], provider: str, to: str) -> None:
        self.closed = Event()
        self.closed.set()
        self._drop, self._provider, self._to = drop, provider, to
        self._lock = Lock()

    def open(self) -> None:
        """From here on it may be held."""
        self.closed.clear()

    @contextmanager
    def held(self) -> Iterator[None]:
        """For the one thread that is in the connection.

        :raises SendFailed: it is closed.
        """
        with self._lock:
            try:
                if self.closed.is_set():
                    raise SendFailed(f"not connected to {self._to}; call open() first", provider=self._provider)
                yield
            finally:
                # Whoever closed it meanwhile may not have waited.
                if self.closed.is_set():
                    self._drop()

    def close(
        self,
        timeout: float,
        *,
        interrupt: Callable[[], None] | None = None,
        drop: Callable[[], None] | None = None,
        least: float = _LEAST_S,
    ) -> None:
        """Take the connection apart, now or, where another thread is in it, as that one leaves.

        :param timeout: seconds to wait for the other one, ``least`` at any rate.
        :param interrupt: makes a call in the connection end.
        :param drop: what to do instead of the usual, with a farewell perhaps.
        """
        self.closed.set()
        if interrupt is not None:
            interrupt()
        if self._lock.acquire(timeout=max(least, timeout)):
            try:
                (drop or self._drop)()
            finally:
                self._lock.release()
