"""A lane at work: its locks, files and threads, from opening to closing.

Promises
--------
- Opening either gives a working lane or leaves everything as it was; recovery happens before the first write.
- After a fork the child's copy lets go of descriptors and touches no lock of the parent.

``MessageBuffer`` is the face of this class; nobody else uses it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from mbframework import clerk, pause
from mbframework.accounts import floor_ahead
from mbframework.acknowledged import Acknowledged
from mbframework.admission import MEMORY_ONLY
from mbframework.budget import Budget
from mbframework.deadletters import DeadLetters
from mbframework.directory import Directory
from mbframework.errors import BufferClosed, BufferFull, FlushTimeout, MessageBufferError, ModeError, UnsupportedFormat
from mbframework.events import EventLog
from mbframework.files import Files
from mbframework.history import SENDER_FILE, WRITER_FILE, Ring
from mbframework.housekeeper import Housekeeper
from mbframework.lane import Lane
from mbframework.ledger import Ledger
from mbframework.linger import LingerClock
from mbframework.lockfile import LockFile
from mbframework.narrator import Narrator, sent
from mbframework.observers import ObserverHub
from mbframework.outlet import Outlet
from mbframework.place import Place
from mbframework.provider import Context
from mbframework.reporter import Reporter
from mbframework.sender import Sender
from mbframework.shutdown import Shutdown
from mbframework.speedups import Lock
from mbframework.spool import layout, recovery
from mbframework.spool.headfile import HeadFile
from mbframework.spool.prepared import NoSpace
from mbframework.spool.reader import SpoolReader
from mbframework.spool.recovery import Recovered
from mbframework.spool.runs import Runs
from mbframework.spool.seek import SeekSlot
from mbframework.spool.segment import Segment
from mbframework.spool.survey import read_seek
from mbframework.spool.writer import Identity, Limits, SpoolWriter
from mbframework.state import sender_of

if TYPE_CHECKING:
    from mbframework.adoption import Adoption
    from mbframework.config import Config
    from mbframework.plugins.source import ProviderSource

_log = logging.getLogger("mbframework")
#: How long closing waits for the lanes of others that were sent here.
_PARTING_S = 5.0
_LOST_IN_MEMORY = "accepted in memory and not acknowledged when the process was killed: they may have arrived"


class Engine:
    """See the module."""

    def __init__(
        self, files: Files, config: Config, source: ProviderSource | None, directory: Directory, name: str,
        writer_lock: LockFile, sender_lock: LockFile | None, hub: ObserverHub | None, budget: Budget | None = None,
    ) -> None:  # fmt: skip
        begun_at = files.boot_ns()
        self.files = files
        self.config = config
        self.source = source
        self.directory = directory
        self.name = name
        self.path = directory.lane_path(name)
        self.writer_lock = writer_lock
        self.sender_lock = sender_lock
        self.hub = hub
        #: Bytes on disk that it shares with other lanes.
        self.budget = budget
        #: Sends lanes that other processes left; set before start().
        self.adoption: Adoption | None = None
        self.shutdown = Shutdown(self)
        self.narrator = Narrator(self)
        run, boot_id = files.random(16), files.boot_id()
        begun = recovery.recover(files, self.path, buffer_id=directory.buffer_id, run=run, boot_id=boot_id)
        self.place = Place(files, self.path, directory.buffer_id)
        self.runs = Runs(files, self.path)
        self.runs.add(run, begun.head.next)
        with ExitStack() as undo:
            undo.callback(self.place.leave)
            self._build(begun, run, boot_id, undo)
            undo.pop_all()
        seconds = (files.boot_ns() - begun_at) / 1e9
        self._tell_opening(begun, seconds)

    def _build(self, begun: Recovered, run: bytes, boot_id: bytes, undo: ExitStack) -> None:
        files, config, source = self.files, self.config, self.source
        mapped = self.directory.mapped
        identity = Identity(self.directory.buffer_id, run, boot_id, self.name)
        segments = [Segment.of(found) for found in begun.segments]
        resident = sum(segment.size for segment in segments)
        total = config.total_size
        reserve = 3 * config.segment_size
        if not config.shrink and resident + reserve > total and resident > total // 2:
            # Opening takes nothing away. But a program that is started again and again must not have more each time.
            ceiling = total + reserve
            total = max(total, resident + reserve if resident > ceiling else min(resident + reserve, ceiling))
            if total > config.total_size:
                _log.warning(
                    "lane %s holds %d bytes, more than total_size=%d allows: it is kept until it is delivered "
                    "(shrink=True would prune it)", self.name, resident, config.total_size,
                )  # fmt: skip
        min_free = config.min_free
        if segments and not config.shrink:
            spare = max(0, files.free_bytes(self.path) - reserve)
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
        lock = Lock()
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
                undo.callback(ledger.slots.close)
                self.ledger = ledger
        head_file = HeadFile.begin(
            files, self.path, begun.head, begun.head_slot, exists=begun.head_exists, mapped=mapped
        )
        undo.callback(head_file.close)
        self.lane = Lane(
            files=files, config=config, spool=spool, head_file=head_file, lock=lock, sends=source is not None
        )
        if self.budget is not None:
            wake = self.lane.chores.set if config.on_full == "prune" else None
            spool.share = self.budget.join(
                self.name, resident, reserve, limits.total_size, shrink=config.shrink, wake=wake
            )
        self.lane.on_hand_over = self._handed_over
        #: What had been settled when the lane last left live (-1: never), and why it left.
        self.settled_at_leaving, self.why_left = -1, ""
        self._seen_seek = begun.seek.next
        #: The seek's generation by which the process that sent the lane was found gone; see _sent_elsewhere().
        self._left_behind = -1
        self._told_of_newer = False
        scrub: Callable[[str], str] = source.scrub if source is not None else str
        self.writer_events = EventLog(
            files, os.path.join(self.path, layout.WRITER_EVENTS_FILE), directory=self.directory.path, lane=self.name,
            hub=self.hub, scrub=scrub,
        )  # fmt: skip
        self.sender_events = EventLog(
            files, os.path.join(self.path, layout.SENDER_EVENTS_FILE), directory=self.directory.path, lane=self.name,
            hub=self.hub, scrub=scrub,
        )  # fmt: skip
        self.sender: Sender | None = None
        self.outlet: Outlet | None = None
        if source is not None and self.ledger is not None:
            self._build_sender(source, self.ledger, identity)
        ledger_of_housekeeper = self.ledger
        self.housekeeper = Housekeeper(
            files=files, directory=self.path, config=config, lane=self.lane, ledger=ledger_of_housekeeper,
            events=self.writer_events, unsynced=begun.unsynced, settled=self.settled, pruned=self.pruned,
            in_hand=self.in_hand, place=self.place,
        )  # fmt: skip
        # Whoever reads the writer's first never meets a state whose reason is still to come.
        sections: dict[str, Callable[[], dict[str, Any]]] = {}
        logs = [self.writer_events]
        if self.sender is not None:
            sections[os.path.join(self.path, layout.SENDER_STATUS_FILE)] = self.narrator.sender_section
            logs.append(self.sender_events)
        sections[os.path.join(self.path, layout.WRITER_STATUS_FILE)] = self.narrator.writer_section
        #: Appends what lingers in time.
        self.linger = LingerClock(self.lane) if config.linger else None
        mode = config.status_file_mode
        history: dict[Ring, Callable[[], Sequence[int]]] = {
            Ring(files, self.path, WRITER_FILE, mode): self.narrator.written
        }
        if self.sender is not None and self.ledger is not None:
            history[Ring(files, self.path, SENDER_FILE, mode)] = partial(sent, self.sender, self.ledger)
        self.control = clerk.of_engine(self)
        self.reporter = Reporter(
            files=files, interval=config.status_interval, state=self.narrator.state, sections=sections, events=logs,
            heartbeat=self._heartbeat, attend=self.control.attend,
            accepted=lambda: self.lane.accepted, history=history, mode=mode,
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
            place=self.place,
        )  # fmt: skip
        ledger.hold()
        ledger.apply_floor(lane.head.slot.floor, lane.head.slot.floor_ordinal)
        context = Context(
            buffer_id=identity.buffer_id.hex(), lane=self.name, run=identity.run,
            logger=logging.getLogger(f"mbframework.provider.{source.name}"),
        )  # fmt: skip
        self.sender = Sender(
            files=files, config=config, source=source, context=context, outlet=self.outlet, lane=lane,
            events=self.sender_events, known_run=self.runs.knows,
            destination=lambda: lane.head.slot.destination, bind=self._bind,
            acknowledged=Acknowledged.read(files, self.path, context.buffer_id),
            intake=lambda: self.reporter.intake(), notify=lambda: self.reporter.notify(),
            barred=self.directory.barred, ended=self.shutdown.parting.ended,
            paused=pause.read(files, self.path) is not None,
        )  # fmt: skip

    def start(self) -> None:
        """Start the threads.

        :raises MessageBufferError: the system, or an interpreter that is about to end, gives no more of them.
        """
        self.control.open()
        self.reporter.report()
        try:
            self.housekeeper.start()
            if self.linger is not None:
                self.linger.start()
            if self.sender is not None:
                self.sender.start()
            self.reporter.start()
            if self.adoption is not None:
                self.adoption.start()
        except RuntimeError as error:
            self.close(0.0)
            raise MessageBufferError(
                f"{self.directory.path} cannot be opened: {error}; raise the limit of threads, or open the buffer "
                "before the main thread ends"
            ) from error

    # ---- what the threads ask

    def settled(self) -> int:
        """One past what is settled, as far as this process can tell without a lock."""
        if self.ledger is not None:
            return self.ledger.next
        slot = self.seek()
        if slot is not None:
            self._seen_seek = max(self._seen_seek, slot.next)
        return self._seen_seek

    def pruned(self) -> int:
        """Messages that were pruned, as far as this process can tell, without those that a sender has in hand and its
        provider may yet take."""
        lane = self.lane
        if self.ledger is not None:
            with self.ledger.lock, lane.lock:
                return self.ledger.slot.pruned + self.ledger.outlook(lane.flight_spilled).get("pruned", 0)
        slot = self.seek()
        if slot is None:
            return 0
        return slot.pruned + self.pruned_ahead(slot)

    def pruned_ahead(self, slot: SeekSlot) -> int:
        """Of what is pruned, those messages of which the process that sends, and stored ``slot``, has not said so."""
        lane = self.lane
        with lane.lock:
            top = lane.head.slot
            spooled = max(0, lane.spool.ordinal - slot.ordinal - slot.settled)
        sending = slot.batch_end <= slot.next or top.floor <= slot.floor_applied or self._sent_elsewhere(slot)
        return floor_ahead(slot, top.floor, top.floor_ordinal, spooled, sending=sending)

    def in_hand(self, begin: int, end: int) -> int:
        """How many messages with ordinals from ``begin`` on and below ``end`` a sender has in hand."""
        lane, ledger = self.lane, self.ledger
        if ledger is not None:
            with ledger.lock, lane.lock:
                flight, at = ledger.flight, ledger.ordinal
                if flight is not None:
                    spilled = lane.flight_spilled if flight.in_memory else len(flight.marks)
                    return flight.marks[max(0, begin - at) : max(0, min(spilled, end - at))].count("")
                slot = replace(ledger.slot, batch_end=ledger.slot.batch_end if ledger.held else 0)
        else:
            stored = self.seek()
            if stored is None or not self._sent_elsewhere(stored):
                return 0
            slot = stored
        return max(0, min(slot.ordinal + slot.batch_end - slot.next, end) - max(slot.ordinal, begin))

    def _sent_elsewhere(self, slot: SeekSlot) -> bool:
        """Whether there still is a process that has in hand what ``slot`` names. Whoever takes its place says so in
        the next slot: that its lock is free is asked for but once."""
        if slot.generation != self._left_behind and not sender_of(self.files, self.path).held:
            self._left_behind = slot.generation
        return slot.generation != self._left_behind

    def seek(self) -> SeekSlot | None:
        """What the process that sends has stored; None also where that is of a newer release, so that it is not known
        here what it has settled. Raises OSError."""
        try:
            return read_seek(self.files, self.path)
        except UnsupportedFormat as error:
            if not self._told_of_newer:
                _log.warning("lane %s is sent by a newer release, and it is not known here what: %s", self.name, error)
            self._told_of_newer = True
            return None

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
            self.settled_at_leaving, self.why_left = self.ledger.settled, reason
        # At once: after a kill the head tells whether what was in memory had been live or lingered.
        self._heartbeat()
        self.writer_events.tell("hand-over", before=before, after=after, reason=reason)
        self.reporter.notify()

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
        if self.lane.aside:
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
        remaining = self.narrator.status().resident_messages
        state, reason = self.narrator.state()
        return FlushTimeout(
            f"{remaining:,} messages are not delivered after {timeout} s; the lane is {state}"
            + (f": {reason}" if reason else ""),
            remaining=remaining,
        )

    def _nothing_waits(self) -> bool:
        """Sequences may have been skipped since the last message, so the seek alone does not tell."""
        ledger, lane = self.ledger, self.lane
        if ledger is None:
            slot = self.seek()
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
        pause.lift(self.files, self.path)

    def purge(self) -> int:
        """Remove everything that waits, but for the batch that the provider has, or may have, in hand; how many
        messages.

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
            used = lane.spool.used() / max(1, lane.spool.most()) if lane.spool.segments else 0.0
            if self.budget is not None:
                used = max(used, self.budget.held() / self.budget.total)
            if lane.full:
                return 1.0
            if lane.live:
                used = max(used, len(lane.channel.items) / lane.limits.channel_messages)
                used = max(used, lane.channel.bytes / lane.limits.channel_bytes)
        return min(1.0, used)

    def senders(self) -> list[Sender]:
        """Who calls providers here."""
        own = [] if self.sender is None else [self.sender]
        return own + (self.adoption.senders() if self.adoption is not None else [])

    # ---- closing

    def close(self, timeout: float) -> None:
        """Deliver for ``timeout`` seconds, then keep what is left; see :class:`~mbframework.shutdown.Shutdown`.

        :raises Undelivered: modes that keep nothing on disk, or no room there: what is left is on the error.
        :raises SenderStuck: the provider has not returned; everything is kept.
        """
        if self.adoption is not None:
            self.adoption.stop()
        try:
            self.shutdown.run(timeout)
        finally:
            if self.adoption is not None:
                self.adoption.join(_PARTING_S)

    @property
    def closed(self) -> bool:
        """Nothing is done here any more."""
        return self.shutdown.done

    def forget(self) -> None:
        """In a forked child: no lock of the parent is touched, and none of its descriptors kept.

        Nor is any lock of this process: the thread that held it at the fork is not here to release it.
        """
        self.shutdown.done = True
        self.place.leave()
        self.writer_lock.forget()
        if self.sender_lock is not None:
            self.sender_lock.forget()
        self.lane.spool.forget()
        self.lane.head.forget()
        if self.ledger is not None:
            self.ledger.slots.forget()
        if self.outlet is not None:
            self.outlet.dead.forget()
            self.outlet.close()
        if self.adoption is not None:
            self.adoption.forget()

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
