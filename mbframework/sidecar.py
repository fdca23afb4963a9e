"""Only the sending half: ``mb drain``, beside a process that only writes, or for a backlog that one left behind.

Promises
--------
- One sender a lane: a lane whose sender.lock is held elsewhere is left to its holder, and tried again.
- A lane whose writer is gone is recovered first, so that a hole left by a power loss cannot hold the backlog up.
- Between finding nothing and looking again it waits 1 ms at first and 50 ms at most.

``run`` is the caller's thread; each lane has a sender's thread of its own.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Self, TypeAlias

from mbframework import clerk, pause
from mbframework import directory as directories
from mbframework.acknowledged import Acknowledged
from mbframework.config import Config
from mbframework.deadletters import DeadLetters
from mbframework.directory import Directory
from mbframework.errors import (
    BufferLocked,
    ConfigurationError,
    DirectoryError,
    NotABuffer,
    PluginError,
    UnsupportedFormat,
)
from mbframework.events import EventLog
from mbframework.files import Files
from mbframework.history import SENDER_FILE, Ring
from mbframework.ledger import Ledger
from mbframework.lockfile import LockFile, describe, has_writer, holder
from mbframework.mending import mend, unfinished
from mbframework.narrator import heartbeat_section, sending_section, sent
from mbframework.observers import ObserverHub
from mbframework.outlet import Outlet
from mbframework.parting import Parting
from mbframework.place import Place
from mbframework.plugins.source import ProviderSource, resolve_url
from mbframework.printable import shell_word
from mbframework.provider import Context
from mbframework.reporter import Reporter
from mbframework.routing import Routing
from mbframework.sender import UNKNOWN_DESTINATION, Sender
from mbframework.spool import layout
from mbframework.spool.index import SegmentIndex
from mbframework.spool.reader import SpoolReader
from mbframework.spool.runs import Runs
from mbframework.spool.survey import Survey, glance, read_head, read_live, read_seek
from mbframework.spool.writer import Identity

_log = logging.getLogger("mbframework.sidecar")
_CHORE_INTERVAL = 0.5
#: A lane that is blocked, and of which nothing leaves, for so long is not waited for: it takes a person.
_STUCK_NS = 10 * 10**9

#: How a lane is sent.
Delivery: TypeAlias = tuple[Config, ProviderSource]


class Sidecar:
    """Sends what is in ``config.directory`` through ``source``, lane by lane, until :meth:`stop`.

    ``lanes`` says how a lane is sent that goes by its own configuration; None: not at all. ``wanted`` says whether a
    lane is to be sent; by default each that has a writer, or something that waits. ``hub`` is whom to tell, where the
    caller has one.

    :raises DirectoryError: the directory is not a buffer, or not safe.
    :raises PluginError: an observer that the configuration names cannot be used.
    """

    def __init__(
        self,
        config: Config,
        source: ProviderSource | None,
        files: Files | None = None,
        *,
        lanes: Callable[[str], Delivery | None] | None = None,
        wanted: Callable[[str], bool] | None = None,
        hub: ObserverHub | None = None,
    ) -> None:
        self._files = files or Files()
        self._config = config
        self._lanes_go = lanes or (lambda _: (config, source) if source is not None else None)
        if config.directory is None or not os.path.isdir(config.directory):
            raise NotABuffer(f"{config.directory} is not a directory; give the directory of a buffer")
        directories.read(self._files, os.path.abspath(config.directory))
        self._wanted = wanted or self._is_wanted
        self._own_hub: ObserverHub | None = None
        if hub is None and config.observers:
            with config.naming("observers"):
                hub = self._own_hub = ObserverHub(config.observers)
        self._hub = hub
        with config.naming("directory"):
            self.directory: Directory = directories.prepare(self._files, config.directory, config)
        self._stopping = threading.Event()
        self.lanes: dict[str, DrainedLane] = {}
        #: Lanes that were sent at some time, and what was settled of those that are let go of.
        self.served: set[str] = set()
        self._settled = 0
        #: Lanes that others send, by whom; and lanes that cannot be read, and why.
        self.held: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        #: Lanes of which something waits and that take a person, and why: what ``run(until_empty=True)`` did not send.
        self.blocked: dict[str, str] = {}

    @classmethod
    def from_config(cls, config: Config, files: Files | None = None) -> Self:
        """One that sends with the provider that ``config`` names, and each of its ``lanes`` with its own.

        :raises ConfigurationError: a provider is missing or wrong; the error names where that stands.
        :raises PluginError: it cannot be used; likewise.
        """
        if not config.lanes:
            return cls(config, _source_of(config), files)
        routing = Routing(config)
        ways: dict[str, Delivery] = {}
        for name, plan in routing.plans.items():
            try:
                ways[name] = (plan.config, _source_of(plan.config))
            except (ConfigurationError, PluginError) as error:
                error.args = (f"{config.label('lanes')}.{name}: {error}", *error.args[1:])
                raise
        return cls(config, None, files, lanes=lambda name: ways[plan.name] if (plan := routing.plan_of(name)) else None)

    def run(self, *, until_empty: bool = False) -> int:
        """Send; with ``until_empty`` return when nothing waits any more, but for lanes that are ``blocked``. The number
        of messages settled.

        :raises BufferLocked: ``until_empty``, and another process sends all there is.
        :raises DirectoryError: ``until_empty``, and a lane cannot be read, or nothing may be sent from a copy.
        """
        if self.directory.barred:
            if until_empty:
                raise DirectoryError(f"{self.directory.path}: {self.directory.barred}", path=self.directory.path)
            _log.error("%s: %s", self.directory.path, self.directory.barred)
        try:
            while not self._stopping.is_set():
                self._adopt_lanes(all_lanes=until_empty)
                if until_empty and not self.lanes and self.held:
                    name, who = next(iter(self.held.items()))
                    raise BufferLocked(f"lane {name} is being sent by {who}", path=self.directory.path, holder=who)
                self.tend(let_go=not until_empty)
                paused = [name for name, lane in self.lanes.items() if lane.sender.paused]
                if until_empty and paused:
                    raise DirectoryError(
                        f"lane {paused[0]} is paused: mb resume {shell_word(self.directory.path)} ends that",
                        path=self.directory.path,
                    )
                self.blocked = {name: why for name, lane in self.lanes.items() if (why := lane.stuck())}
                if until_empty and all(name in self.blocked or lane.empty() for name, lane in self.lanes.items()):
                    if self.refused:
                        raise DirectoryError("; ".join(self.refused.values()), path=self.directory.path)
                    break
                self._stopping.wait(0.02 if until_empty else _CHORE_INTERVAL)
        finally:
            settled = self._settled + sum(lane.ledger.settled for lane in self.lanes.values())
            self.close(self._config.close_timeout)
        return settled

    def adopt(self) -> None:
        """Take on the lanes that are wanted, one round of :meth:`run`: for who has a thread of its own for that."""
        self._adopt_lanes(all_lanes=False)

    def tend(self, *, let_go: bool = True) -> None:
        """Put on the device what is delivered and remove it, likewise. ``let_go``: lanes that nobody writes and of
        which nothing is left are free: who opens the buffer takes one of them."""
        for lane in self.lanes.values():
            lane.chores()
        if let_go:
            self._let_go()

    def close(self, timeout: float) -> None:
        """Let go of all lanes, giving the batch in hand of each ``timeout`` seconds."""
        for lane in self.lanes.values():
            lane.close(timeout)
        if self._own_hub is not None:
            self._own_hub.close(1.0)

    def forget(self) -> None:
        """In a forked child: as for an engine, no lock of the parent is touched, and none of its descriptors kept."""
        for lane in self.lanes.values():
            lane.forget()

    def release(self, name: str) -> None:
        """Let go of one lane."""
        lane = self.lanes[name]
        lane.close(self._config.close_timeout)
        self._settled += lane.ledger.settled
        del self.lanes[name]

    def _let_go(self) -> None:
        for name, lane in list(self.lanes.items()):
            if not lane.written() and not lane.sender.paused and lane.empty():
                self.release(name)

    def stop(self) -> None:
        """Make :meth:`run` return. Any thread, or a signal handler."""
        self._stopping.set()

    def _adopt_lanes(self, *, all_lanes: bool) -> None:
        for name in self.directory.lanes(self._files):
            if name in self.lanes:
                continue
            try:
                if all_lanes or self._wanted(name):
                    self._adopt(name)
            except (DirectoryError, UnsupportedFormat, OSError) as error:
                # One lane's trouble is its own: the others are sent.
                said = error.strerror or error if isinstance(error, OSError) else error
                why = f"lane {name} cannot be sent: {said}"
                if self.refused.get(name) != why:
                    _log.error("%s", why)
                self.refused[name] = why
            else:
                self.refused.pop(name, None)

    def _is_wanted(self, name: str) -> bool:
        """Whether a process writes to the lane, or something waits in it, or it takes mending."""
        path = self.directory.lane_path(name)
        return has_writer(self._files, path) or unfinished(self._files, path)

    def _adopt(self, name: str) -> None:
        path = self.directory.lane_path(name)
        way = self._lanes_go(name)
        if way is None:
            raise DirectoryError("the configuration has no such lane, and no provider for it", path=path)
        config, source = way
        lock_path = os.path.join(path, layout.SENDER_LOCK_FILE)
        lock = LockFile.take(self._files, lock_path, 0.0)
        if lock is None:
            self.held[name] = describe(holder(self._files, lock_path))
            return
        try:
            at_work = not self._recover(name, path)
            unnamed = not self._files.exists(os.path.join(path, layout.SEEK_FILE))
            if read_seek(self._files, path) is None or (at_work and unnamed):
                # Its writer is only opening it: nothing can wait there yet, and a seek that has no name yet is the
                # writer's to name. The next look finds it.
                lock.release()
                return
            lane = DrainedLane(self._files, config, source, self.directory, name, lock, self._hub)
        except BaseException:
            lock.release()
            raise
        self.held.pop(name, None)
        self.lanes[name] = lane
        self.served.add(name)
        lane.start()

    def _recover(self, name: str, path: str) -> bool:
        """Make good what a writer that is gone has left; a living one does that itself, and then this is False."""
        files = self._files
        lock = LockFile.take(files, os.path.join(path, layout.WRITER_LOCK_FILE), 0.0, brief=True)
        if lock is None:
            return False
        try:
            notes = mend(files, path, self.directory.buffer_id)
            if notes is not None:
                _log.info("lane %s: its writer is gone; recovered: %s", name, "; ".join(notes) or "nothing to mend")
        finally:
            lock.release()
        return True


def _source_of(config: Config) -> ProviderSource:
    if config.provider is None:
        raise ConfigurationError(
            "no provider to send to: expected one in the configuration, such as kafka://host:9092", option="provider"
        )
    with config.naming_provider():
        return resolve_url(config.provider, config.provider_options)


class DrainedLane:
    """One lane whose sender this process is."""

    def __init__(
        self, files: Files, config: Config, source: ProviderSource, directory: Directory, name: str, lock: LockFile,
        hub: ObserverHub | None,
    ) -> None:  # fmt: skip
        self._files = files
        self._hub = hub
        self._config = config
        self._lock = lock
        self._parting = Parting(self._let_go)
        self.name = name
        self.path = directory.lane_path(name)
        known = glance(files, self.path)
        if known.seek is None:
            lock.release()
            raise ConfigurationError(f"lane {name} has no seek, and its writer is at work: wait for it, or stop it")
        self.ledger = Ledger.open(files, self.path, known.seek, known.seek_slot, exists=True)
        run = known.head.run if known.head is not None else files.random(16)
        identity = Identity(directory.buffer_id, run, files.boot_id(), name)
        self.events = EventLog(
            files, os.path.join(self.path, layout.SENDER_EVENTS_FILE), directory=directory.path, lane=name,
            hub=hub, scrub=source.scrub,
        )  # fmt: skip
        self._fingerprint = known.head.destination if known.head is not None else UNKNOWN_DESTINATION
        self.ledger.hold()
        self._refresh_floor()
        dead = DeadLetters(
            files, directory.dead_path(name), identity=identity, total_size=config.dead_total_size,
            dir_mode=config.dir_mode, mapped=directory.mapped,
        )  # fmt: skip
        self._place = Place(files, self.path, directory.buffer_id)
        self._reader = SpoolReader(files, self.path)
        #: When the sender had found nothing, at the last look at whether all is settled; 0: it had not.
        self._looked_at = 0
        #: Every delivered segment below was removed; -1: not known.
        self._removed_below = -1
        #: Whether it was blocked when that was last looked at, what had been settled, and since when (boot time) so.
        self._standing = (False, 0, 0)
        self.outlet = Outlet(
            files=files, config=config, ledger=self.ledger, lane=None, reader=self._reader, dead=dead,
            events=self.events, tail=self._tail, refresh_floor=self._refresh_floor, place=self._place,
        )  # fmt: skip
        self.sender = Sender(
            files=files, config=config, source=source,
            context=Context(
                buffer_id=directory.buffer_id.hex(), lane=name, run=run,
                logger=logging.getLogger(f"mbframework.provider.{source.name}"),
            ),
            outlet=self.outlet, lane=None, events=self.events, known_run=Runs(files, self.path).knows,
            destination=lambda: self._fingerprint, bind=lambda _fingerprint: None, intake=lambda: 0.0,
            acknowledged=Acknowledged.read(files, self.path, directory.buffer_id.hex()),
            notify=lambda: self.reporter.notify(), barred=directory.barred, ended=self._parting.ended,
            paused=pause.read(files, self.path) is not None,
        )  # fmt: skip
        mode = config.status_file_mode
        self.control = clerk.of_sidecar(files, self)
        self.reporter = Reporter(
            files=files, interval=config.status_interval, state=self.state,
            sections={os.path.join(self.path, layout.SENDER_STATUS_FILE): self._section},
            events=[self.events], heartbeat=lambda: None, attend=self.control.attend, accepted=lambda: 0,
            history={Ring(files, self.path, SENDER_FILE, mode): lambda: sent(self.sender, self.ledger)},
            mode=mode,
        )  # fmt: skip

    def start(self) -> None:
        """Start sending."""
        self.control.open()
        self.events.tell("opened", lane=self.name, pid=os.getpid())
        self.sender.start()
        self.reporter.start()

    def pause(self) -> None:
        """Send nothing until :meth:`resume`. Any thread."""
        with self.ledger.lock:
            self.sender.paused = True
        self.reporter.notify()

    def resume(self) -> None:
        """Send again, at once. Any thread."""
        self.sender.paused = False
        self.sender.interrupt()
        self.reporter.notify()
        pause.lift(self._files, self.path)

    def purge(self) -> int:
        """Remove everything that is on disk, but for the batch that the provider has in hand; how many messages. What
        the writer has still in memory stays. Any thread.

        A batch that comes back undelivered goes as well. A kill before it is answered undoes the purge. What a sender
        before this one had in hand when it was killed goes, though it may have arrived: with the provider away, a purge
        that waited for its word would be undone by a kill for as long.

        :raises UnsupportedFormat: a newer release wrote the lane; nothing was changed.
        :raises OSError: the device failed.
        """
        known = glance(self._files, self.path)
        if known.unsupported:
            raise UnsupportedFormat(known.unsupported, path=self.path)
        self._refresh_floor()
        ledger = self.ledger
        with ledger.lock:
            before = ledger.slot.purged + ledger.outlook().get("purged", 0)
            ledger.release()
            ledger.advance(max(known.spool_end, ledger.next), max(known.tail_ordinal, ledger.ordinal), "purged")
            number = ledger.slot.purged + ledger.outlook().get("purged", 0) - before
        ledger.sync()
        self.events.tell("purge", messages=number)
        # What is in hand is answered soon, rather than after the present wait.
        self.sender.interrupt()
        return number

    def chores(self) -> None:
        """Apply the writer's floor, put the seek on the device, remove what is delivered."""
        try:
            self._refresh_floor()
            self._count_missing()
            self.ledger.sync()
            self._remove_delivered()
        except OSError as error:
            _log.warning("lane %s: %s; tried again", self.name, error)
        except UnsupportedFormat as error:
            # The lane's writer is of a newer release by now. The sender has come to the same, and says so.
            _log.debug("lane %s: %s", self.name, error)

    def _count_missing(self) -> None:
        """What the spool once held and no segment shows."""
        if not self.outlet.empty_at:
            return
        known = glance(self._files, self.path)
        missing = self._missing(known)
        if self._settled(known) and missing:
            self.outlet.lose_rest(missing, known.stored_end)

    def _missing(self, known: Survey) -> int:
        """Messages that were spooled and are not there; 0 with a writer at work, which counts its own end instead."""
        if known.unsupported or self.written():
            return 0
        with self.ledger.lock:
            return max(0, known.ordinal - self.ledger.ordinal - self.ledger.slot.settled)

    def _settled(self, known: Survey) -> bool:
        with self.ledger.lock:
            return self.ledger.flight is None and self.ledger.next >= known.spool_end

    def written(self) -> bool:
        """Whether a process has the lane open to write."""
        return has_writer(self._files, self.path)

    def empty(self) -> bool:
        """Whether everything that was on disk has been settled, and what is missing counted."""
        empty_at = self.outlet.empty_at
        if empty_at == self._looked_at:
            return False
        # The sender found nothing since the last look; the directory has the last word.
        self._looked_at = empty_at
        try:
            known = glance(self._files, self.path)
        except UnsupportedFormat:
            # What is there is not known, and not sent.
            return False
        return self._settled(known) and not self._missing(known)

    def stuck(self) -> str:
        """Why it takes a person, where it has been blocked for a while and nothing has left meanwhile; else "". To be
        called again and again."""
        now, blocked = self._files.boot_ns(), self.outlet.blocked
        before, settled, since = self._standing
        if (bool(blocked), self.ledger.settled) != (before, settled):
            self._standing, since = (bool(blocked), self.ledger.settled, now), now
        return blocked if now - since >= _STUCK_NS else ""

    def close(self, timeout: float) -> None:
        """Stop sending, give the batch in hand ``timeout`` seconds, let go."""
        self.sender.stop()
        finished = self.sender.finished.wait(max(timeout, 1.0))
        if finished:
            self.sender.thread.join(1.0)
        else:
            with self.ledger.lock:
                self.outlet.epoch += 1
            _log.warning("lane %s: the provider has not returned; what it holds will be sent again", self.name)
        self.chores()
        self.events.tell("closed", pid=os.getpid())
        self.reporter.stop(5.0)
        self.reporter.report(closed=True)
        self.ledger.close()
        self._parting.closed(self.sender.finished)

    def _let_go(self) -> None:
        self._place.leave()
        self.outlet.dead.close()
        self.outlet.close()
        self._lock.release()

    def forget(self) -> None:
        """In a forked child: let go of the parent's files."""
        self._place.leave()
        self._lock.forget()
        self.ledger.slots.forget()
        self.outlet.dead.forget()
        self.outlet.close()

    def state(self) -> tuple[str, str]:
        """(state, reason) as a sender without a writer sees it: live while it keeps reaching the end of the spool."""
        if self.outlet.blocked:
            return "blocked", self.outlet.blocked
        if self.sender.paused:
            stored = pause.read(self._files, self.path)
            return "paused", stored.words if stored is not None else "paused by request"
        if not self.sender.up:
            return "buffering", self.sender.trouble.text or "the provider is being opened"
        empty_at = self.outlet.empty_at
        recently = empty_at and self._files.boot_ns() - empty_at < self._config.live_wait * 1e9
        return "live" if recently else "draining", ""

    def _tail(self) -> int | None:
        """One past the last spooled sequence, where the writer's live page leads to it. What the page gives as the
        next sequence may lie farther on: messages that linger in memory have one already."""
        known = read_live(self._files, self.path)
        return self._reader.end_of_frame(known.segment, known.tail) if known is not None and known.segment else None

    def _refresh_floor(self) -> bool:
        slot = read_head(self._files, self.path)
        if slot is None:
            return False
        if slot.destination != UNKNOWN_DESTINATION:
            self._fingerprint = slot.destination
        if slot.floor <= self.ledger.slot.floor_applied:
            return False
        # Whoever applies a floor makes sure that it is on the device first.
        fd = self._files.open(os.path.join(self.path, layout.HEAD_FILE))
        try:
            self._files.datasync(fd)
        finally:
            self._files.close(fd)
        return self.ledger.apply_floor(slot.floor, slot.floor_ordinal)

    def _remove_delivered(self) -> None:
        limit = self.ledger.synced_next
        if limit == self._removed_below:
            return
        index = SegmentIndex(self._files, self.path)
        index.refresh()
        gone, last = [], 0
        # The last segment stays: where it ends, only its successor tells for certain.
        for entry, successor in pairwise(index.entries):
            if successor.first > limit:
                self._removed_below = limit
                break
            if not entry.sealed:
                break
            # What cannot be read was counted as lost; it may be worth something to who repairs.
            if index.header(entry) is not None:
                gone.append(entry)
                last = successor.first - 1
        for entry in gone:
            self._files.unlink(os.path.join(self.path, entry.name))
        if gone:
            self._files.sync_directory(self.path)
            self.events.tell("removed", segments=len(gone), first=gone[0].first, last=last)

    def _section(self) -> dict[str, Any]:
        state, reason = self.state()
        common = heartbeat_section(self._files, self.name, state, self._config.status_interval)
        return common | {"reason": reason} | sending_section(self.sender, self.outlet, self._hub)
