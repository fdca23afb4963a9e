"""A lane at work: its locks, files and threads, from opening to closing.

Promises
--------
- Opening either gives a working lane or leaves everything as it was; recovery happens before the first write.
- Closing leaves the directory such that the next opening knows everything; what a stuck provider holds is kept.
- After a fork the child's copy lets go of descriptors and touches no lock of the parent.

``MessageBuffer`` is the face of this class; nobody else uses it.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mbframework.deadletters import DeadLetters
from mbframework.directory import Directory
from mbframework.errors import (
    BufferClosed,
    BufferFull,
    FlushTimeout,
    ModeError,
    SenderStuck,
    Undelivered,
)
from mbframework.events import EventLog
from mbframework.files import Files
from mbframework.housekeeper import Housekeeper
from mbframework.lane import MEMORY_ONLY, Lane
from mbframework.ledger import Ledger
from mbframework.lockfile import LockFile
from mbframework.message import Message
from mbframework.observers import ObserverHub
from mbframework.outlet import Outlet
from mbframework.provider import Context
from mbframework.reporter import Reporter
from mbframework.sender import Sender
from mbframework.spool import head, layout, recovery
from mbframework.spool.headfile import HeadFile
from mbframework.spool.reader import SpoolReader
from mbframework.spool.recovery import Recovered
from mbframework.spool.runs import Runs
from mbframework.spool.writer import Identity, Limits, NoSpace, Segment, SpoolWriter
from mbframework.status import LaneStatus, SeekPosition

if TYPE_CHECKING:
    from mbframework.config import Config
    from mbframework.plugins.source import ProviderSource

_log = logging.getLogger("mbframework")
_STOP_GRACE = 2.0
_LOST_IN_MEMORY = "accepted in memory and not acknowledged when the process was killed: they may have arrived"
#: Attempts of close() to find room for what is in memory, with a round of housekeeping after each.
_SPILL_TRIES = 4
#: How long close() waits for the housekeeper to accept what handlers and finalisers wrote.
_NESTED_NS = 10**9


class Engine:
    """See the module."""

    def __init__(
        self, files: Files, config: Config, source: ProviderSource | None, directory: Directory, name: str,
        writer_lock: LockFile, sender_lock: LockFile | None, hub: ObserverHub | None,
    ) -> None:  # fmt: skip
        begun_at = files.boot_ns()
        self.files = files
        self.config = config
        self.source = source
        self.directory = directory
        self.name = name
        self.path = directory.lane_path(name)
        self._writer_lock = writer_lock
        self._sender_lock = sender_lock
        self._hub = hub
        self._closing = threading.RLock()
        self._begun_closing = False
        self._ending = threading.Lock()
        #: close() has given up on the sender, whose thread lets go of what it holds itself.
        self._abandoned = False
        self.closed = False
        run, boot_id = files.random(16), files.boot_id()
        begun = recovery.recover(files, self.path, buffer_id=directory.buffer_id, run=run, boot_id=boot_id)
        self.runs = Runs(files, self.path)
        self.runs.add(run, begun.head.next)
        self._build(begun, run, boot_id)
        seconds = (files.boot_ns() - begun_at) / 1e9
        self._tell_opening(begun, seconds)

    def _build(self, begun: Recovered, run: bytes, boot_id: bytes) -> None:
        files, config, source = self.files, self.config, self.source
        mapped = self.directory.mapped
        identity = Identity(self.directory.buffer_id, run, boot_id, self.name)
        segments = [Segment.of(found) for found in begun.segments]
        resident = sum(segment.size for segment in segments)
        total = config.total_size
        if not config.shrink and resident + 3 * config.segment_size > total and resident > total // 2:
            total = max(total, resident + 3 * config.segment_size)
            if total > config.total_size:
                _log.warning(
                    "lane %s holds %d bytes, more than total_size=%d allows: it is kept until it is delivered "
                    "(shrink=True would prune it)", self.name, resident, config.total_size,
                )  # fmt: skip
        min_free = config.min_free
        if segments and not config.shrink:
            spare = max(0, files.free_bytes(self.path) - 3 * config.segment_size)
            if spare < min_free:
                # Half of it, since others write to the device as well.
                min_free = spare // 2
                _log.warning(
                    "lane %s has a backlog, and the device has less than min_free=%d bytes left: nothing is pruned "
                    "for that before the device has no more than %d bytes left (shrink=True would prune it now)",
                    self.name, config.min_free, min_free,
                )  # fmt: skip
        limits = Limits(
            segment_size=config.segment_size,
            segment_age_ns=int(config.segment_age * 1e9),
            total_size=total,
            max_segments=max(config.max_segments, len(segments) + 2),
            min_free=min_free,
        )
        lock = threading.RLock()
        spool = SpoolWriter(
            files=files, directory=self.path, identity=identity, limits=limits, lock=lock, mapped=mapped,
            end=begun.end, ordinal=begun.head.ordinal, segments=segments,
        )  # fmt: skip
        seek_file_missing = not begun.seek_exists
        self.ledger: Ledger | None = None
        if source is not None or seek_file_missing:
            ledger = Ledger.open(files, self.path, begun.seek, begun.seek_slot, exists=begun.seek_exists)
            if source is None:
                ledger.close()
            else:
                self.ledger = ledger
        head_file = HeadFile.begin(
            files, self.path, begun.head, begun.head_slot, exists=begun.head_exists, mapped=mapped
        )
        self.lane = Lane(
            files=files, config=config, spool=spool, head_file=head_file, lock=lock, sends=source is not None
        )
        self.lane.on_hand_over = self._handed_over
        #: What had been settled when the lane last left live (-1: never), and why it left.
        self._settled_at_leaving, self._why_left = -1, ""
        self._seen_seek = begun.seek.next
        scrub: Callable[[str], str] = source.scrub if source is not None else str
        self.writer_events = EventLog(
            files, os.path.join(self.path, layout.WRITER_EVENTS_FILE), directory=self.directory.path, lane=self.name,
            hub=self._hub, scrub=scrub,
        )  # fmt: skip
        self.sender_events = EventLog(
            files, os.path.join(self.path, layout.SENDER_EVENTS_FILE), directory=self.directory.path, lane=self.name,
            hub=self._hub, scrub=scrub,
        )  # fmt: skip
        self.sender: Sender | None = None
        self.outlet: Outlet | None = None
        if source is not None and self.ledger is not None:
            self._build_sender(source, self.ledger, identity)
        ledger_of_housekeeper = self.ledger
        self.housekeeper = Housekeeper(
            files=files, directory=self.path, config=config, lane=self.lane, ledger=ledger_of_housekeeper,
            events=self.writer_events, unsynced=begun.unsynced, settled=self.settled,
        )  # fmt: skip
        sections: dict[str, Callable[[], dict[str, Any]]] = {
            os.path.join(self.path, layout.WRITER_STATUS_FILE): self._writer_section
        }
        logs = [self.writer_events]
        if self.sender is not None:
            sections[os.path.join(self.path, layout.SENDER_STATUS_FILE)] = self._sender_section
            logs.append(self.sender_events)
        self.reporter = Reporter(
            files=files, interval=config.status_interval, state=self.state, sections=sections, events=logs,
            heartbeat=self._heartbeat, accepted=lambda: self.lane.accepted, mode=0o600 | (config.dir_mode & 0o040),
        )  # fmt: skip

    def _build_sender(self, source: ProviderSource, ledger: Ledger, identity: Identity) -> None:
        files, config, lane = self.files, self.config, self.lane
        dead = DeadLetters(
            files, self.directory.dead_path(self.name), identity=identity, total_size=config.dead_total_size,
            dir_mode=config.dir_mode, mapped=self.directory.mapped,
        )  # fmt: skip
        self.outlet = Outlet(
            files=files, config=config, ledger=ledger, lane=lane, reader=SpoolReader(files, self.path), dead=dead,
            events=self.sender_events, tail=lambda: lane.spool.end,
            refresh_floor=lambda: ledger.apply_floor(lane.head.slot.floor, lane.head.slot.floor_ordinal),
        )  # fmt: skip
        ledger.apply_floor(lane.head.slot.floor, lane.head.slot.floor_ordinal)
        context = Context(
            buffer_id=identity.buffer_id.hex(), lane=self.name, run=identity.run,
            logger=logging.getLogger(f"mbframework.provider.{source.name}"),
        )  # fmt: skip
        self.sender = Sender(
            files=files, config=config, source=source, context=context, outlet=self.outlet, lane=lane,
            events=self.sender_events, known_run=self.runs.knows,
            destination=lambda: lane.head.slot.destination, bind=self._bind,
            intake=lambda: self.reporter.intake(), notify=lambda: self.reporter.notify(),
            barred=self.directory.barred, ended=self._let_go,
        )  # fmt: skip

    def start(self) -> None:
        """Start the threads."""
        self.reporter.report()
        self.housekeeper.start()
        if self.sender is not None:
            self.sender.start()
        self.reporter.start()

    # ---- what the threads ask

    def settled(self) -> int:
        """One past what is settled, as far as this process can tell without a lock."""
        if self.ledger is not None:
            return self.ledger.next
        slot = recovery.read_seek(self.files, self.path)
        if slot is not None:
            self._seen_seek = max(self._seen_seek, slot.next)
        return self._seen_seek

    def _bind(self, fingerprint: bytes) -> None:
        with self.lane.lock:
            self.lane.head.slot.destination = fingerprint
        self.lane.publish_head(sync=True)

    def _heartbeat(self) -> None:
        try:
            self.lane.publish_head()
        except OSError as error:
            self.housekeeper.note_error(error)

    def _handed_over(self, before: str, after: str, reason: str) -> None:
        reason = self.writer_events.scrub(reason)
        if before == "live" and self.ledger is not None:
            self._settled_at_leaving, self._why_left = self.ledger.settled, reason
        # At once: after a kill the head tells whether what was in memory had been live or lingered.
        self._heartbeat()
        self.writer_events.tell("hand-over", before=before, after=after, reason=reason)
        self.reporter.notify()

    def state(self) -> tuple[str, str]:
        """(state, reason) as this process sees it."""
        lane, sender, outlet = self.lane, self.sender, self.outlet
        if lane.disk_error:
            return "disk-error", lane.disk_error
        if sender is None or outlet is None:
            return "buffering", "this process only writes"
        if outlet.blocked:
            return "blocked", outlet.blocked
        if lane.full and self.config.on_full != "prune":
            return "blocked", lane.full
        if sender.paused:
            return "paused", "paused by request"
        trouble = sender.trouble.text if sender.trouble.count else ""
        if not sender.up:
            return "buffering", trouble or "the provider is being opened"
        if lane.live:
            return "live", ""
        recently = self.files.boot_ns() - outlet.empty_at < self.config.live_wait * 1e9
        if lane.mode == "always" and outlet.empty_at and (recently or not lane.waiting(self.settled())):
            return "live", ""
        if self.ledger is not None and self.ledger.settled == self._settled_at_leaving:
            # It was up when it did not keep up; since then it has not acknowledged anything.
            return "buffering", self._why_left
        return "draining", sender.trouble.text and f"after: {sender.trouble.text}"

    # ---- what the buffer asks

    def flush(self, timeout: float | None) -> None:
        """:raises FlushTimeout: not everything accepted before the call is settled by then."""
        ledger = self.ledger
        target = self.flush_target()
        deadline = None if timeout is None else self.files.boot_ns() + int(timeout * 1e9)
        waiter = threading.Event()
        while not target or not self.flushed(target):
            left = 0.05 if deadline is None else (deadline - self.files.boot_ns()) / 1e9
            if left <= 0:
                raise self.flush_timeout(timeout)
            if ledger is None or not target:
                waiter.wait(min(left, 0.05 if target else 0.001))
                target = target or self.flush_target()
                continue
            with ledger.lock:
                if ledger.next < target:
                    ledger.lock.wait(min(left, 0.05))

    def flush_target(self) -> int:
        """One past the last sequence accepted so far; 0 while what handlers and finalisers wrote is being accepted."""
        if self.lane.put_aside():
            self.lane.chores.set()
            return 0
        self._append_gathered()
        if self.lane.sleeping:
            self.lane.wake.set()
        return self.lane.next

    def flushed(self, target: int) -> bool:
        """Whether everything below ``target`` is settled.

        :raises BufferClosed: it is not, and the buffer was closed meanwhile.
        """
        if self.settled() >= target or self._nothing_waits():
            return True
        if self.closed:
            raise BufferClosed("the buffer was closed before everything was delivered; open it anew")
        return False

    def flush_timeout(self, timeout: float | None) -> FlushTimeout:
        """The error of a flush() that waited so many seconds."""
        remaining = self.status().resident_messages
        state, reason = self.state()
        return FlushTimeout(
            f"{remaining:,} messages are not delivered after {timeout} s; the lane is {state}"
            + (f": {reason}" if reason else ""),
            remaining=remaining,
        )

    def _nothing_waits(self) -> bool:
        """Sequences may have been skipped since the last message, so the seek alone does not tell."""
        ledger, lane = self.ledger, self.lane
        if ledger is None:
            slot = recovery.read_seek(self.files, self.path)
            with lane.lock:
                return slot is not None and slot.ordinal >= lane.spool.ordinal and not lane.memory_messages()
        with ledger.lock, lane.lock:
            return ledger.flight is None and ledger.ordinal >= lane.spool.ordinal and not lane.memory_messages()

    def sync(self) -> None:
        """Everything accepted so far is delivered, or on the device. Raises ModeError, OSError."""
        lane, ledger = self.lane, self.ledger
        if lane.mode in MEMORY_ONLY:
            raise ModeError(f"mode {lane.mode!r} keeps nothing on disk: use flush(), or another mode")
        try:
            if ledger is not None:
                with ledger.lock, lane.lock:
                    lane.flush_gathered()
                    if lane.live and lane.memory_messages():
                        lane.leave_live("sync() was asked for")
            else:
                with lane.lock:
                    lane.flush_gathered()
        except NoSpace as no_space:
            lane.chores.set()
            raise BufferFull(f"what is in memory cannot be put on disk: {no_space.reason}") from no_space
        self.housekeeper.sync_recovered()
        lane.sync_spool()
        if ledger is not None:
            ledger.sync()

    def set_mode(self, mode: str) -> None:
        """:raises ModeError: not now."""
        lane, ledger = self.lane, self.ledger
        if mode == lane.mode:
            return
        if ledger is None:
            raise ModeError(f"this buffer only writes, which is mode 'always'; {mode!r} needs a provider")
        with ledger.lock, lane.lock:
            before = lane.mode
            try:
                lane.flush_gathered()
                lane.check_mode(mode, max(0, lane.spool.ordinal - ledger.ordinal))
                if mode in MEMORY_ONLY:
                    if not lane.live:
                        lane.enter_live(f"mode {mode}")
                elif mode == "always" or lane.provider_error is not None or self._paused():
                    lane.leave_live(f"mode {mode}")
            except NoSpace as no_space:
                lane.chores.set()
                raise ModeError(f"what is in memory cannot be put on disk: {no_space.reason}") from no_space
            lane.mode = mode
            lane.reconsider()
            lane.changed.notify_all()
        lane.publish_head()
        self.writer_events.tell("mode", before=before, after=mode)
        if self.sender is not None:
            self.sender.interrupt()
        self.reporter.notify()

    def _paused(self) -> bool:
        return self.sender is not None and self.sender.paused

    def _accept_nested(self) -> None:
        """Give the housekeeper a moment to accept what handlers and finalisers wrote."""
        lane, pause = self.lane, threading.Event()
        until = self.files.boot_ns() + _NESTED_NS
        while lane.put_aside() and self.files.boot_ns() < until and self.housekeeper.thread.is_alive():
            lane.chores.set()
            pause.wait(0.001)

    def _append_gathered(self) -> None:
        """What lingers goes to disk, where the sender finds it; with no room there it goes on waiting."""
        try:
            with self.lane.lock:
                self.lane.flush_gathered()
        except (NoSpace, OSError) as error:
            _log.debug("lane %s: what lingers cannot be appended yet: %s", self.name, error)
            self.lane.chores.set()

    def pause(self) -> None:
        """Send nothing until :meth:`resume`; writes go on, to disk where the mode allows."""
        if self.sender is None or self.ledger is None:
            raise ModeError("this buffer only writes: pause the process that sends")
        with self.ledger.lock, self.lane.lock:
            self.sender.paused = True
            if self.lane.mode not in MEMORY_ONLY:
                self.lane.leave_live_if_possible("paused")
        self.reporter.notify()

    def resume(self) -> None:
        """Send again, at once."""
        if self.sender is None:
            raise ModeError("this buffer only writes: resume the process that sends")
        self.sender.paused = False
        self.sender.interrupt()
        self.reporter.notify()

    def purge(self) -> int:
        """Remove everything that waits, but for the batch that the provider has in hand; how many messages.

        They do not come back. A kill before that batch is answered counts them as pruned.
        """
        ledger, lane = self.ledger, self.lane
        if ledger is None:
            raise ModeError("this buffer only writes: purge in the process that sends")
        with ledger.lock, lane.lock:
            extra = lane.drop_memory()
            lane.spool.retire()
            known = ledger.slot.purged + ledger.outlook(lane.flight_spilled).get("purged", 0)
            ledger.advance(lane.next, lane.spool.ordinal, "purged", extra)
            number = ledger.slot.purged + ledger.outlook(lane.flight_spilled).get("purged", 0) - known
            lane.changed.notify_all()
            if not lane.live:
                # What is on disk must not come back if the process is killed before the flight lands.
                slot = lane.head.slot
                slot.floor, slot.floor_ordinal = lane.spool.end, lane.spool.ordinal
        lane.publish_head(sync=True)
        ledger.sync()
        lane.chores.set()
        self.writer_events.tell("purge", messages=number)
        return number

    def pressure(self) -> float:
        """How full the buffer is, from 0 to 1: disk against its limit, memory against its own."""
        lane = self.lane
        with lane.lock:
            used = lane.spool.used() / lane.spool.limits.total_size if lane.spool.segments else 0.0
            if lane.full:
                return 1.0
            if lane.live:
                used = max(used, len(lane.channel.items) / lane.limits.channel_messages)
                used = max(used, lane.channel.bytes / lane.limits.channel_bytes)
        return min(1.0, used)

    # ---- closing

    def close(self, timeout: float) -> None:
        """Try to deliver for ``timeout`` seconds, then keep what is left.

        What waits is kept also where an interrupt (Ctrl-C) cuts the attempt short. A call from another thread waits
        for the first one; one that interrupts it (a signal handler) returns at once.

        :raises Undelivered: modes that keep nothing on disk, or no room there: what is left is on the error.
        :raises SenderStuck: the provider has not returned; everything is kept.
        """
        with self._closing:
            if self._begun_closing:
                return
            self._begun_closing = True
            lane = self.lane
            self._accept_nested()
            with lane.lock:
                lane.closed = "the buffer is closed; open it anew to write"
                lane.reconsider()
                lane.changed.notify_all()
            deadline = self.files.boot_ns() + int(timeout * 1e9)
            stuck = False
            try:
                self._deliver_rest(timeout)
            finally:
                try:
                    stuck = not self._stop_sender(deadline)
                    self.housekeeper.stop(10.0)
                    left = self._keep_rest()
                    self._close_files(stuck)
                finally:
                    self.closed = True
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

    def _deliver_rest(self, timeout: float) -> None:
        sender = self.sender
        if sender is None or sender.paused or not sender.thread.is_alive() or timeout <= 0:
            return
        try:
            self.flush(timeout)
        except FlushTimeout as error:
            if self.lane.mode not in MEMORY_ONLY:
                _log.warning(
                    "closed with %d undelivered messages; they are kept in %s: open it again, or run "
                    "mb drain %s", error.remaining, self.path, self.directory.path,
                )  # fmt: skip

    def _stop_sender(self, deadline: int) -> bool:
        sender, outlet, ledger = self.sender, self.outlet, self.ledger
        if sender is None or outlet is None or ledger is None:
            return True
        sender.stop()
        if not sender.thread.is_alive():
            return True
        left = max(_STOP_GRACE, (deadline - self.files.boot_ns()) / 1e9)
        sender.finished.wait(left)
        with self._ending:
            self._abandoned = not sender.finished.is_set()
        if not self._abandoned:
            # It touches nothing here any more; its provider may want a moment to disconnect.
            sender.thread.join(_STOP_GRACE)
            return True
        with ledger.lock, self.lane.lock:
            outlet.epoch += 1
        return False

    def _keep_rest(self) -> list[Message]:
        """Memory goes to disk, or back to the caller."""
        lane, ledger = self.lane, self.ledger
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
                ledger.land(flight, lane.end_flight(flight, ledger.ordinal))
            elif flight is not None:
                ledger.abandon(flight)
            rest = lane.take_memory(1 << 30, 1 << 60) if lane.live else lane.take_gathered()
            if rest is not None:
                left.extend(rest.batch(rest.remaining()))
                lane.end_flight(rest, ledger.ordinal)
                # A backlog that another mode left lies in front of them, and stays there.
                passed = ledger.next if ledger.ordinal < lane.spool.ordinal else rest.end
                ledger.advance(passed, ledger.ordinal, "returned", len(rest.marks))
            return left

    def _spill_rest(self) -> bool:
        """Memory goes to disk; False where there is no room, or the device fails."""
        lane = self.lane
        for _ in range(_SPILL_TRIES):
            try:
                with self.ledger.lock if self.ledger is not None else lane.lock, lane.lock:
                    lane.flush_gathered()
                    if lane.memory_messages():
                        lane.leave_live("closing")
                return True
            except NoSpace as no_space:
                lane.full = no_space.reason
                # Its thread has ended; what makes room must run all the same.
                self.housekeeper.round()
            except OSError as error:
                lane.full = f"the device failed: {error}"
                _log.error("closing lane %s: the device failed: %s", self.name, error)
                return False
        return False

    def _close_files(self, stuck: bool) -> None:
        lane = self.lane
        with lane.lock:
            lane.spool.retire()
        self.housekeeper.round()
        if self.outlet is not None and not stuck:
            self._attempt(self.outlet.dead.close)
            self.outlet.close()
        # Before the last word is in the head: its heartbeat would say that the lane is open.
        self.reporter.stop(5.0)
        self._attempt(self._sync_all)
        self.writer_events.tell("closed", state=self.reporter.current)
        self.reporter.report(closed=True)
        if self._hub is not None:
            self._hub.close(1.0)
        self._attempt(lane.spool.close)
        lane.head.close()
        if self.ledger is not None:
            self._attempt(self.ledger.close)
        self._writer_lock.release()
        if self._sender_lock is not None and not stuck:
            self._sender_lock.release()

    def _sync_all(self) -> None:
        if self.ledger is not None:
            self.ledger.sync()
        if self.config.fsync != "never":
            self.lane.sync_spool()
        self.lane.publish_head(flags=head.CLEAN, sync=True)

    def _attempt(self, act: Callable[[], None]) -> None:
        """Whatever the device refuses at the end, the locks are let go of; the next opening recovers."""
        try:
            act()
        except OSError as error:
            _log.error("closing lane %s: the device failed: %s", self.name, error)

    def _let_go(self) -> None:
        """The end of a sender that close() did not wait for. The sender's thread."""
        with self._ending:
            abandoned = self._abandoned
        if abandoned and self.outlet is not None and self._sender_lock is not None:
            self.outlet.dead.close()
            self.outlet.close()
            self._sender_lock.release()

    def forget(self) -> None:
        """In a forked child: no lock of the parent is touched, and none of its descriptors kept.

        Nor is any lock of this process: the thread that held it at the fork is not here to release it.
        """
        self.closed = True
        self._writer_lock.forget()
        if self._sender_lock is not None:
            self._sender_lock.forget()
        self.lane.spool.forget()
        self.lane.head.forget()
        if self.ledger is not None:
            self.ledger.slots.forget()
        if self.outlet is not None:
            self.outlet.dead.forget()
            self.outlet.close()

    # ---- status

    def status(self) -> LaneStatus:
        """The lane as this process knows it."""
        lane, ledger = self.lane, self.ledger
        if ledger is None:
            from mbframework.status import read_lane

            return read_lane(self.files, self.path, self.name)
        with ledger.lock, lane.lock:
            slot = ledger.slot
            bits = slot.settled
            in_memory = lane.memory_messages()
            ahead = lane.settled_in_memory()
            spooled = max(0, lane.spool.ordinal - ledger.ordinal - bits)
            top = lane.head.slot
            marks = lane.flight.marks if lane.flight is not None and lane.flight.in_memory else []
            extra = {name: marks.count(name) for name in ("delivered", "expired", "dead")} if ahead else {}
            pending = ledger.outlook(lane.flight_spilled)
            flight = ledger.flight
            lost_disk, returned = slot.lost, slot.returned
            used = sum(segment.size for segment in lane.spool.segments)
            counts: dict[str, Any] = {
                "accepted": lane.accepted,
                "delivered": slot.delivered + extra.get("delivered", 0),
                "pruned": slot.pruned + pending.get("pruned", 0),
                "expired": slot.expired + extra.get("expired", 0),
                "dead": slot.dead + extra.get("dead", 0),
                "purged": slot.purged + pending.get("purged", 0),
                "lost_live": top.lost_live,
                "lost_linger": top.lost_linger,
                "resident_messages": spooled + in_memory - ahead - pending.get("spooled", 0),
            }
            seek = SeekPosition(slot.segment, slot.next, slot.offset)
            oldest = flight.acceptances()[0] if flight is not None else None
            channel_oldest = lane.channel.oldest if lane.live and lane.channel.items else None
            memory_bytes = lane.channel.bytes + lane.flight_bytes if lane.live else 0
            tail = lane.spool.tail()
            closed_sizes = [
                segment.size for segment in lane.spool.segments if segment.end is not None and segment.end > slot.next
            ]
        sender = self.sender
        trouble = sender.trouble if sender is not None else None
        age = None
        if counts["resident_messages"]:
            if oldest is not None and self.outlet is not None:
                age = self.outlet.age_ns(oldest) / 1e9
            elif channel_oldest is not None:
                age = (self.files.boot_ns() - channel_oldest) / 1e9
            else:
                from mbframework.status import oldest_on_disk

                age = oldest_on_disk(self.files, self.path, slot)
        state, reason = self.state()
        return LaneStatus(
            name=self.name, mode=lane.mode, state=state, state_since=self.reporter.since or None, state_reason=reason,
            lost=top.lost_live + top.lost_linger + lost_disk + returned, lost_disk=lost_disk, returned=returned,
            resident_bytes=(sum(closed_sizes) + tail if spooled else 0) + memory_bytes, disk_bytes=used,
            segments=len(lane.spool.segments), oldest_age_s=age,
            last_error=(self.outlet.blocked if self.outlet else "") or (trouble.text if trouble else "") or None,
            last_error_at=trouble.last / 1e9 if trouble and trouble.last else None,
            failures=trouble.count if trouble else 0,
            retry_at=trouble.retry_at / 1e9 if trouble and trouble.retry_at else None,
            seek=seek, provider=self.source.display if self.source else "", heartbeat_age_s=0.0,
            writer_pid=os.getpid(), sender_pid=os.getpid() if sender else None,
            order_violations=self.outlet.order_violations if self.outlet else 0,
            facts=sender.facts if sender else {}, **counts,
        )  # fmt: skip

    def _common(self) -> dict[str, Any]:
        state, _ = self.state()
        return {
            "schema": 1,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "boot_id": self.files.boot_id().hex(),
            "heartbeat_boot_ns": self.files.boot_ns(),
            "heartbeat": self.files.wall_ns() / 1e9,
            "state": state,
            "lane": self.name,
        }

    def _writer_section(self) -> dict[str, Any]:
        lane = self.lane
        counters = lane.spool.counters
        return self._common() | {
            "mode": lane.mode,
            "sends": lane.sends,
            "live": lane.live,
            "epoch": lane.head.slot.epoch,
            "accepted": lane.accepted,
            "live_accepted": lane.live_accepted,
            "spooled": lane.spool.ordinal,
            "inline_prepared": counters.inline_prepared,
            "sealed": counters.sealed,
            "disk_error": lane.disk_error,
            "full": lane.full,
            "limits": {
                "total_size": lane.spool.limits.total_size,
                "segment_size": lane.spool.limits.segment_size,
                "max_segments": lane.spool.limits.max_segments,
            },
            "file_system": self.directory.file_system,
            "mapped": self.directory.mapped,
            "events_dropped": self.writer_events.dropped,
        }

    def _sender_section(self) -> dict[str, Any]:
        sender, outlet = self.sender, self.outlet
        if sender is None or outlet is None:
            return self._common()
        trouble = asdict(sender.trouble)
        for name in ("began", "last", "retry_at"):
            trouble[name] /= 1e9
        return self._common() | {
            "provider": sender.source.display,
            "up": sender.up,
            "paused": sender.paused,
            "blocked": outlet.blocked,
            "trouble": trouble,
            "traffic": asdict(sender.traffic),
            "order_violations": outlet.order_violations,
            "facts": dict(sender.facts),
            "observer_events_dropped": self._hub.dropped if self._hub is not None else 0,
        }

    def _tell_opening(self, begun: Recovered, seconds: float) -> None:
        self.writer_events.tell("opened", lane=self.name, next=begun.head.next, pid=os.getpid())
        for note in begun.notes:
            level = logging.INFO if note.startswith("sealed") else logging.WARNING
            _log.log(level, "lane %s: recovery: %s", self.name, note)
        if begun.lost:
            self.writer_events.tell("lost", first=-1, last=-1, messages=begun.lost, reason=_LOST_IN_MEMORY)
            self.writer_events.observe(
                "lost", first_sequence=-1, last_sequence=-1, messages=begun.lost, reason=_LOST_IN_MEMORY
            )
        backlog = max(0, begun.head.ordinal - begun.seek.ordinal - begun.seek.settled)
        if not begun.notes and not backlog:
            return
        size = sum(found.size for found in begun.segments)
        self.writer_events.tell(
            "recovered", notes=begun.notes, messages=backlog, bytes=size, lost=begun.lost, seconds=round(seconds, 4)
        )
        self.writer_events.observe(
            "recovered", messages=backlog, size=size, segments=len(begun.segments), seconds=seconds,
            reason="; ".join(begun.notes) or "closed in order",
        )  # fmt: skip
