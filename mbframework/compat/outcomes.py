"""What became of the messages whose futures somebody holds.

Promises
--------
- The lane's ledger is listened to: a future is settled by the account in which its message is counted, live or from
  disk alike, and only once it is counted there.
- Neither the sender nor a writer waits for a callback: those run on one daemon thread, ``mbframework-outcomes``, in the
  order in which messages left. It starts with the first future that somebody may wait for.
- At most ``limit`` messages are followed at a time. The future of one more fails with ``OutcomeUnknown``; its message
  is accepted all the same.
- A future that nobody holds and that has no callback is not followed.

Locks: the ledger's before ours; with ours held nothing else is called.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple
from weakref import WeakValueDictionary

from mbframework.compat.future import FutureRecordMetadata

#: Runs of sequences whose outcome is remembered for a future that is about to be made.
_REMEMBERED = 4096


class _Run(NamedTuple):
    first: int
    end: int
    account: str
    reason: str


class Outcomes:
    """A :class:`~mbframework.ledger.Watcher` of one opening of a lane. Any thread may call its methods."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.pid = os.getpid()
        # A signal handler may send, and a collector may run, wherever this lock is held.
        self._lock = threading.Condition(threading.RLock())
        self._followed: WeakValueDictionary[int, FutureRecordMetadata] = WeakValueDictionary()
        #: Those with a callback, which must not be forgotten.
        self._held: dict[int, FutureRecordMetadata] = {}
        self._settled: deque[tuple[FutureRecordMetadata, str, str]] = deque()
        self._in_hand = 0
        #: What left lately: a message may be delivered before write() has returned its sequence.
        self._recent: deque[_Run] = deque(maxlen=_REMEMBERED)
        #: One past the last sequence that left, and one past what left and is not remembered.
        self._reached = self._forgotten = 0
        self._closed = False
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """Futures that are not done, or whose callbacks have not run."""
        with self._lock:
            return len(self._followed) + len(self._settled) + self._in_hand

    def follow(self, sequence: int, future: FutureRecordMetadata) -> None:
        """Settle the future when its message, which was just accepted, leaves."""
        future.follow(sequence, self)
        with self._lock:
            account, reason = self._known(sequence)
            if not account:
                if len(self._followed) + len(self._settled) + self._in_hand >= self._limit:
                    account, reason = "unknown", f"{self._limit:,} messages are followed already (max_futures)"
                elif not self._running():
                    account, reason = "unknown", "the interpreter gives no more threads"
                else:
                    self._followed[sequence] = future
                    return
        future.settle(account, reason)

    def hold(self, future: FutureRecordMetadata) -> None:
        """The future has got a callback: keep it, whoever lets go of it."""
        with self._lock:
            if self._followed.get(future.sequence) is future:
                self._held[future.sequence] = future

    def settled(self, first: int, end: int, account: str, reason: str) -> None:
        with self._lock:
            self._remember(_Run(first, end, account, reason))
            for sequence in self._between(first, end):
                future = self._followed.pop(sequence, None)
                self._held.pop(sequence, None)
                if future is not None:
                    self._settled.append((future, account, reason))
            if self._settled:
                self._lock.notify_all()

    def closed(self) -> None:
        with self._lock:
            self._closed = True
            for sequence in sorted(self._followed.keys()):
                future = self._followed.pop(sequence, None)
                if future is not None:
                    self._settled.append((future, "kept", ""))
            self._held.clear()
            self._lock.notify_all()

    def drain(self, timeout: float | None) -> bool:
        """Wait until the futures of all that has left are done and their callbacks have returned; False where they are
        not within ``timeout`` seconds. From a callback it returns at once."""
        if threading.current_thread() is self._thread:
            return True
        with self._lock:
            return self._lock.wait_for(lambda: not self._settled and not self._in_hand, timeout)

    def join(self, timeout: float | None) -> bool:
        """After :meth:`closed`: wait for the last callback; False where one has not returned."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout)
        return not thread.is_alive()

    # ---- with the lock held

    def _known(self, sequence: int) -> tuple[str, str]:
        """What already became of a message; ("", "") where it waits."""
        if sequence < self._reached:
            for run in self._recent:
                if run.first <= sequence < run.end:
                    return run.account, run.reason
            if sequence < self._forgotten:
                return "unknown", "too much has left since"
        return ("kept", "") if self._closed else ("", "")

    def _remember(self, run: _Run) -> None:
        last = self._recent[-1] if self._recent else None
        if last is not None and last.end == run.first and (last.account, last.reason) == (run.account, run.reason):
            self._recent[-1] = last._replace(end=run.end)
        else:
            if len(self._recent) == _REMEMBERED:
                self._forgotten = max(self._forgotten, self._recent[0].end)
            self._recent.append(run)
        self._reached = max(self._reached, run.end)

    def _between(self, first: int, end: int) -> Iterable[int]:
        """The sequences in question: no more than are followed, however long the run."""
        if end - first <= len(self._followed):
            return range(first, end)
        return sorted(sequence for sequence in list(self._followed.keys()) if first <= sequence < end)

    def _running(self) -> bool:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="mbframework-outcomes", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return False
            self._thread = thread
        return True

    # ---- the thread

    def _run(self) -> None:
        while True:
            with self._lock:
                self._in_hand = 0
                self._lock.notify_all()
                self._lock.wait_for(lambda: self._settled or self._closed)
                if not self._settled:
                    return
                batch, self._settled = self._settled, deque()
                self._in_hand = len(batch)
            for future, account, reason in batch:
                future.settle(account, reason)
            # Nothing is kept alive while there is nothing to do.
            del batch, future
