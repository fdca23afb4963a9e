"""How a lane is closed: deliver what can be delivered, keep the rest, let go of everything.

Promises
--------
- What waits is kept also where an interrupt (Ctrl-C) cuts the attempt to deliver short.
- The directory is left such that the next opening knows everything; what a stuck provider holds is kept, and its
  sender's lock with it until the provider returns.
- It happens once: a call from another thread waits for the first one, one that interrupts it (a signal handler)
  returns at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from mbframework.admission import MEMORY_ONLY
from mbframework.errors import FlushTimeout, SenderStuck, Undelivered
from mbframework.message import Message
from mbframework.parting import Parting
from mbframework.spool import head
from mbframework.spool.prepared import NoSpace

if TYPE_CHECKING:
    from mbframework.engine import Engine

_log = logging.getLogger("mbframework")
_STOP_GRACE = 2.0
#: Attempts in a row that find no room for anything in memory, with a round of housekeeping after each.
_SPILL_TRIES = 4
#: How long the housekeeper has for accepting what handlers and finalisers wrote.
_NESTED_NS = 10**9


class Shutdown:
    """See the module. ``begun`` and ``done`` may be read by any thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._running = threading.RLock()
        #: Its end is what the sender's thread calls last.
        self.parting = Parting(self._let_go_of_sender)
        self.begun = False
        self.done = False

    def run(self, timeout: float) -> None:
        """Try to deliver for ``timeout`` seconds, then keep what is left.

        :raises Undelivered: modes that keep nothing on disk, or no room there: what is left is on the error.
        :raises SenderStuck: the provider has not returned; everything is kept.
        """
        with self._running:
            if self.begun:
                return
            self.begun = True
            engine = self._engine
            lane = engine.lane
            self._accept_nested()
            with lane.lock:
                lane.closed = "the buffer is closed; open it anew to write"
                lane.reconsider()
                lane.changed.notify_all()
            deadline = engine.files.boot_ns() + int(timeout * 1e9)
            stuck = False
            try:
                self._deliver_rest(timeout)
            finally:
                try:
                    stuck = not self._stop_sender(deadline)
                    if engine.linger is not None:
                        engine.linger.stop(10.0)
                    engine.housekeeper.stop(10.0)
                    left = self._keep_rest()
                    self._close_files(stuck)
                finally:
                    self.done = True
            if left:
                why = f"mode {lane.mode!r} keeps nothing on disk" if lane.mode in MEMORY_ONLY else lane.full
                raise Undelivered(
                    f"{len(left):,} messages were accepted and not delivered ({why}); they are on this error's "
                    ".messages" + ("; the provider's send() has not returned, so some may yet arrive" if stuck else ""),
                    messages=left,
                )
            if stuck:
                raise SenderStuck(
                    f"the provider's send() has not returned within {timeout:g} s; what it holds is on disk and will "
                    "be sent again"
                )

    def _accept_nested(self) -> None:
        """Give the housekeeper a moment to accept what handlers and finalisers wrote."""
        engine, pause = self._engine, threading.Event()
        lane = engine.lane
        until = engine.files.boot_ns() + _NESTED_NS
        while lane.aside and engine.files.boot_ns() < until and engine.housekeeper.thread.is_alive():
            lane.chores.set()
            pause.wait(0.001)

    def _deliver_rest(self, timeout: float) -> None:
        engine, sender = self._engine, self._engine.sender
        if sender is None or sender.paused or not sender.thread.is_alive() or timeout <= 0:
            return
        try:
            engine.flush(timeout)
        except FlushTimeout as error:
            if engine.lane.mode in MEMORY_ONLY:
                return
            if engine.files.exists(engine.path):
                _log.warning(
                    "closed with %d undelivered messages; they are kept in %s: open it again, or run "
                    "mb drain %s", error.remaining, engine.path, engine.directory.path,
                )  # fmt: skip
            else:
                _log.error(
                    "closed with %d undelivered messages; %s, where they were kept, is not there: put the directory "
                    "back, or they are lost", error.remaining, engine.path,
                )  # fmt: skip

    def _stop_sender(self, deadline: int) -> bool:
        engine = self._engine
        sender, outlet, ledger = engine.sender, engine.outlet, engine.ledger
        if sender is None or outlet is None or ledger is None:
            return True
        sender.stop()
        if not sender.thread.is_alive():
            return True
        left = max(_STOP_GRACE, (deadline - engine.files.boot_ns()) / 1e9)
        if sender.finished.wait(left):
            # It touches nothing here any more; its provider may want a moment to disconnect.
            sender.thread.join(_STOP_GRACE)
            return True
        with ledger.lock, engine.lane.lock:
            outlet.epoch += 1
        return False

    def _keep_rest(self) -> list[Message]:
        """Memory goes to disk, or back to the caller, whatever the device makes of the accounts."""
        lane, ledger = self._engine.lane, self._engine.ledger
        if lane.mode not in MEMORY_ONLY and self._spill_rest():
            return []
        if ledger is None:
            with lane.lock:
                gathered = lane.take_gathered()
            return [] if gathered is None else list(gathered.batch(gathered.remaining()))
        with ledger.lock, lane.lock:
            left: list[Message] = []
            flight = ledger.flight
            if flight is not None and flight.in_memory:
                indices = flight.remaining()
                left.extend(flight.batch(indices))
                flight.mark(indices, "returned")
                ordinal = lane.end_flight(flight, ledger.ordinal)
                self._attempt(partial(ledger.land, flight, ordinal))
            elif flight is not None:
                self._attempt(partial(ledger.abandon, flight))
            rest = lane.take_memory(1 << 30, 1 << 60) if lane.live else lane.take_gathered()
            if rest is not None:
                left.extend(rest.batch(rest.remaining()))
                lane.end_flight(rest, ledger.ordinal)
                if ledger.ordinal < lane.spool.ordinal:
                    # A backlog that another mode left lies in front of them: the seek cannot pass them, so a kill
                    # from here on would count them again. The head can, in one store.
                    slot = lane.head.slot
                    slot.returned += len(rest.marks)
                    slot.run_first = rest.end
                    self._attempt(lane.publish_head)
                    for watcher in ledger.watchers:
                        watcher.settled(rest.first, rest.end, "returned", "")
                else:
                    self._attempt(partial(ledger.advance, rest.end, ledger.ordinal, "returned", len(rest.marks)))
            return left

    def _spill_rest(self) -> bool:
        """Memory goes to disk; False where there is no room, or the device fails."""
        engine = self._engine
        lane, ledger = engine.lane, engine.ledger
        vain, least, why = 0, lane.memory_messages() + 1, ""
        while vain < _SPILL_TRIES:
            try:
                with ledger.lock if ledger is not None else lane.lock, lane.lock:
                    if lane.memory_messages():
                        engine.place.check_device()
                    lane.flush_gathered()
                    if lane.memory_messages():
                        lane.leave_live("closing")
                return True
            except NoSpace as no_space:
                lane.full = why = no_space.reason
                left = lane.memory_messages()
                vain, least = (0, left) if left < least else (vain + 1, least)
                # Its thread has ended; what makes room must run all the same.
                engine.housekeeper.round()
            except OSError as error:
                lane.full = f"the device failed: {error}"
                _log.error("closing lane %s: the device failed: %s", engine.name, error)
                return False
        lane.full = why
        return False

    def _close_files(self, stuck: bool) -> None:
        engine = self._engine
        lane, outlet = engine.lane, engine.outlet
        with lane.lock:
            lane.spool.retire()
        engine.housekeeper.round()
        if outlet is not None and not stuck:
            self._attempt(outlet.dead.close)
            outlet.close()
        # Before the last word is in the head: its heartbeat would say that the lane is open.
        engine.reporter.stop(5.0)
        self._attempt(self._sync_all)
        engine.writer_events.tell("closed", state=engine.reporter.current)
        engine.reporter.report(closed=True)
        if engine.hub is not None:
            engine.hub.close(1.0)
        if lane.spool.share is not None:
            lane.spool.share.leave()
        self._attempt(lane.spool.close)
        lane.head.close()
        if engine.ledger is not None:
            self._attempt(engine.ledger.close)
        engine.place.leave()
        engine.writer_lock.release()
        self.parting.closed(engine.sender.finished if engine.sender is not None and stuck else None)

    def _let_go_of_sender(self) -> None:
        engine = self._engine
        if engine.outlet is not None:
            self._attempt(engine.outlet.dead.close)
            engine.outlet.close()
        if engine.sender_lock is not None:
            engine.sender_lock.release()

    def _sync_all(self) -> None:
        engine = self._engine
        if engine.ledger is not None:
            engine.ledger.sync()
        if engine.config.fsync != "never":
            engine.lane.sync_spool()
        engine.lane.publish_head(flags=head.CLEAN, sync=True)

    def _attempt(self, act: Callable[[], None]) -> None:
        """Whatever the device refuses at the end, the locks are let go of; the next opening recovers."""
        try:
            act()
        except OSError as error:
            _log.error("closing lane %s: the device failed: %s", self._engine.name, error)
