"""The thread that keeps a lane's files in order, so that no write has to.

Promises
--------
- Makes the next segment ready before it is needed, seals what is full or old, and removes what is delivered: a
  delivered segment only after the seek, at or beyond its end, is on the device.
- Prunes at the limits: the floor is on the device before anything is counted or removed.
- Syncs head, seek and spool at the interval that the policy asks for.
- A device that fails, or is not the one that was opened any more, puts the lane in DISK-ERROR and is tried again each
  second; a full one applies the policy.

One round at a time, on its own thread, or on that of ``close()`` after it has ended.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from mbframework.errors import UnsupportedFormat
from mbframework.events import EventLog
from mbframework.files import Files, is_broken, is_full
from mbframework.lane import Lane
from mbframework.ledger import Ledger
from mbframework.place import Place
from mbframework.spool import recovery, retention
from mbframework.spool.prepared import NoSpace, SharedFull
from mbframework.spool.segment import Segment
from mbframework.spool.survey import Found

if TYPE_CHECKING:
    from mbframework.config import Config

_log = logging.getLogger("mbframework.housekeeper")
_TICK = 0.25
#: Failures that are remembered so that they are said once.
_FAILURES = 20


class Housekeeper:
    """See the module. ``ledger`` is None in a process that only writes."""

    def __init__(
        self,
        *,
        files: Files,
        directory: str,
        config: Config,
        lane: Lane,
        ledger: Ledger | None,
        events: EventLog,
        unsynced: list[Found],
        settled: Callable[[], int],
        pruned: Callable[[], int],
        in_hand: Callable[[int, int], int],
        place: Place,
    ) -> None:
        self._files = files
        self._directory = directory
        self._config = config
        self._lane = lane
        self._ledger = ledger
        self._events = events
        self._place = place
        self._unsynced = unsynced
        #: One past what is settled as far as this process knows.
        self._settled = settled
        #: Messages pruned as far as this process knows, without those that a provider may yet take.
        self._pruned = pruned
        #: How many messages of these ordinals, from the first and below the second, the sender has in hand.
        self._in_hand = in_hand
        self._synced_at = 0
        self._delivered_at: dict[int, int] = {}
        self._stopping = False
        #: Pruned messages of which an event has told.
        self._told_pruned = 0
        self._telling = threading.Lock()
        self._newly_pruned()
        #: Looks for room in a row that found none; with two, a lane that prunes has nothing to prune.
        self.in_vain = 0
        #: What failed last, so that it is logged once.
        self._failures: set[str] = set()
        self.thread = threading.Thread(target=self._run, name="mbframework-housekeeper", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self.thread.start()

    def stop(self, timeout: float | None) -> bool:
        """Ask the thread to end and wait for it; whether it has."""
        self._stopping = True
        self._lane.chores.set()
        if self.thread.is_alive() and self.thread is not threading.current_thread():
            self.thread.join(timeout)
        return not self.thread.is_alive()

    def _run(self) -> None:
        while not self._stopping:
            self.round()
            self._lane.chores.wait(_TICK)

    def round(self) -> None:
        """Everything that is due; what fails keeps nothing else from being done."""
        if not self._do(self._place.check_device):
            return
        if self._lane.disk_error and not self._do(self._probe):
            return
        chores = (
            self._lane.watch, self._name_flight, self._grant, self._finish_recovered, self._retire_old, self._seal,
            self._remove_delivered, self._give, self._prepare, self._tell_late, self._sync,
        )  # fmt: skip
        well = [self._do(chore) for chore in chores]
        if all(well):
            self._note_well()

    def _do(self, chore: Callable[[], None]) -> bool:
        """Whether the device did what was asked of it; a full one does."""
        try:
            self._lane.aside.accept()
            chore()
        except NoSpace as no_space:
            self._note_full(no_space.reason)
        except OSError as error:
            if not is_full(error):
                self.note_error(error)
                return False
            self._note_full(f"the device is full: {error.strerror}")
        except Exception:  # noqa: BLE001  (a defect here must not end the thread: writing goes on, the log tells)
            _log.exception("housekeeping failed")
        return True

    def _probe(self) -> None:
        self._lane.publish_head(sync=True)

    def _name_flight(self) -> None:
        if self._ledger is not None:
            self._ledger.name_flight()

    def _grant(self) -> None:
        self._lane.grant(recovery.GRANT)

    # ---- the next segment

    def _prepare(self) -> None:
        lane = self._lane
        if lane.closed and not lane.memory_messages():
            return
        if lane.spool.share is not None:
            lane.spool.share.awaiting = False
        # A write that finds no room from here on wants another look: this one does not answer it.
        was_full = lane.full
        try:
            self._make_space()
            if lane.spool.prepared is None:
                lane.spool.prepare()
        except (NoSpace, OSError):
            if lane.spool.share is None or not lane.spool.share.awaiting:
                lane.vain_searches += 1
                self.in_vain += 1
            raise
        finally:
            with lane.lock:
                if lane.spool.share is not None:
                    # What was claimed and not taken is there for the others.
                    lane.spool.share.note(lane.spool.used())
                lane.space_searches += 1
                lane.changed.notify_all()
        self.in_vain = 0
        if was_full:
            with lane.lock:
                lane.full = ""
                lane.reconsider()
                lane.changed.notify_all()
            self._events.tell("room", reason="there is room again")

    def _make_space(self) -> None:
        """Free what the next segment needs, and no more: what is pruned is lost. Raises NoSpace."""
        spool = self._lane.spool
        size = spool.next_size if spool.prepared is None else 0
        if self._lane.full:
            size = max(size, spool.limits.segment_size)
        # With the next one at hand, min_free is kept by pruning all the same.
        prunes = self._config.on_full == "prune"
        share = spool.share
        while size or prunes:
            try:
                with self._lane.lock:
                    spool.check_room(size)
            except NoSpace as no_space:
                if isinstance(no_space, SharedFull) and share is not None:
                    if share.ask(size):
                        continue
                    if share.awaiting:
                        raise
                if not prunes or not self._prune(size, no_space.reason):
                    raise
            else:
                return

    def _give(self) -> None:
        """Another lane wants room, and this one holds more."""
        share = self._lane.spool.share
        if share is None or not share.wanted:
            return
        try:
            self._prune(0, f"the total_size of {share.budget.total} bytes, which the lanes share, is reached")
        finally:
            with self._lane.lock:
                share.note(self._lane.spool.used())
            share.answer()

    def _prune(self, size: int, reason: str) -> bool:
        """Remove the oldest segments; False where none may go."""
        lane = self._lane
        spool = lane.spool
        with lane.lock:
            over = max(1, spool.used() + size - spool.limits.total_size)
            if spool.share is not None:
                over = max(over, spool.share.missing(size), spool.share.wanted)
            many = len(spool.segments) + 1 - spool.limits.max_segments
            victims = retention.prunable(spool.segments, over, max(1, many))
            if not victims:
                return False
            keep = spool.segments[len(victims)]
            slot = lane.head.slot
            slot.floor, slot.floor_ordinal = keep.first, keep.ordinal
        position = self._settled()
        lane.publish_head(sync=True)
        if self._ledger is not None:
            self._ledger.apply_floor(keep.first, keep.ordinal)
        in_hand = self._in_hand(victims[0].ordinal, keep.ordinal)
        undelivered = self._newly_pruned(keep.ordinal - victims[0].ordinal)
        size_gone = sum(victim.size for victim in victims)
        self._remove(victims, truncate=True)
        first = max(position, victims[0].first)
        if undelivered:
            _log.warning(
                "pruned %d undelivered messages (sequences %d to %d): %s", undelivered, first, keep.first - 1, reason
            )
        self._events.tell(
            "prune", segments=len(victims), first=victims[0].first, last=keep.first - 1, bytes=size_gone,
            messages=keep.ordinal - victims[0].ordinal, undelivered=undelivered, in_hand=in_hand, reason=reason,
        )  # fmt: skip
        if undelivered:
            self._events.observe(
                "pruned", first_sequence=first, last_sequence=keep.first - 1, messages=undelivered, size=size_gone,
                reason=reason,
            )  # fmt: skip
        return True

    def _newly_pruned(self, most: int | None = None) -> int:
        """Messages pruned of which nobody was told yet, ``most`` at a time, without those that a provider may yet take.
        Any thread of ours."""
        with self._telling:
            # A sender in another process may take a batch before it sees the floor: then it was told too early.
            number = max(0, self._pruned() - self._told_pruned)
            number = number if most is None else min(number, most)
            self._told_pruned += number
            return number

    def _tell_late(self) -> None:
        """What was in the sender's hand when its segment went, and came back undelivered, or has nobody any more."""
        late = self._newly_pruned()
        if late:
            reason = "the sender had them in hand when their segments were pruned"
            self._events.tell(
                "prune", segments=0, first=-1, last=-1, bytes=0, messages=late, undelivered=late, in_hand=0,
                reason=reason,
            )  # fmt: skip
            self._events.observe("pruned", first_sequence=-1, last_sequence=-1, messages=late, size=0, reason=reason)

    # ---- what has ended

    def _finish_recovered(self) -> None:
        """One in each round, since it may take a second and the next segment is wanted meanwhile; all when closing."""
        lane = self._lane
        while self._unsynced:
            found = self._unsynced[0]
            with lane.lock:
                segment = next((each for each in lane.spool.segments if each.first == found.header.first), None)
            if segment is not None:
                try:
                    recovery.finish_seal(self._files, self._directory, found)
                except UnsupportedFormat as error:
                    # The sender stops there as well, and says so.
                    _log.error("segment %s cannot be sealed: %s", found.entry.name, error)
                else:
                    with lane.lock:
                        segment.name, segment.size = found.entry.name, found.size
            self._unsynced.pop(0)
            if not lane.closed:
                lane.chores.set()
                return

    def sync_recovered(self) -> None:
        """What an earlier opening left is on the device. Any thread. Raises OSError."""
        if self._unsynced:
            recovery.sync_recovered(self._files, self._directory, self._unsynced)

    def _retire_old(self) -> None:
        lane = self._lane
        with lane.lock:
            active = lane.spool.active
            if active is not None and self._files.boot_ns() - active.created > self._config.segment_age * 1e9:
                lane.spool.retire()

    def _seal(self) -> None:
        until = 0
        if self._ledger is not None and not self._config.retain_delivered and self._lane.spool.retired:
            with self._lane.lock:
                end = max((each.segment.end or 0 for each in self._lane.spool.retired), default=0)
            if self._ledger.next >= end:
                self._ledger.sync()
            until = self._ledger.synced_next
        for segment in self._lane.spool.seal_retired(until):
            last = (segment.end or segment.first) - 1
            self._events.tell("seal", segment=segment.first, last=last, bytes=segment.size)
            self._events.observe(
                "segment_sealed", segment=segment.first, first_sequence=segment.first, last_sequence=last,
                messages=last - segment.first + 1, size=segment.size,
            )  # fmt: skip

    def _remove_delivered(self) -> None:
        lane, ledger = self._lane, self._ledger
        if ledger is None:
            self._forget_removed()
            return
        with lane.lock:
            done = retention.delivered(lane.spool.segments, ledger.next)
        if not done:
            return
        if self._config.retain_delivered:
            now = self._files.boot_ns()
            limit = self._config.retain_delivered * 1e9
            done = [each for each in done if now - self._delivered_at.setdefault(each.first, now) >= limit]
            if not done:
                return
        if (done[-1].end or 0) > ledger.synced_next:
            ledger.sync()
        done = [each for each in done if (each.end or 0) <= ledger.synced_next]
        if done:
            self._remove(done)
            self._events.tell(
                "removed", segments=len(done), first=done[0].first, last=(done[-1].end or 1) - 1,
                bytes=sum(each.size for each in done),
            )  # fmt: skip

    def _forget_removed(self) -> None:
        """Another process sends, and removes what it has delivered."""
        lane = self._lane
        with lane.lock:
            done = retention.delivered(lane.spool.segments, self._settled())
        for segment in done:
            try:
                self._files.stat(os.path.join(self._directory, segment.name))
            except FileNotFoundError:
                with lane.lock:
                    lane.spool.remove(segment)

    def _remove(self, segments: list[Segment], *, truncate: bool = False) -> None:
        for segment in segments:
            path = os.path.join(self._directory, segment.name)
            with contextlib.suppress(FileNotFoundError):
                if truncate:
                    # A reader's open descriptor would keep the space.
                    fd = self._files.open(path)
                    try:
                        self._files.truncate(fd, 0)
                    finally:
                        self._files.close(fd)
                self._files.unlink(path)
            with self._lane.lock:
                self._lane.spool.remove(segment)
                self._lane.changed.notify_all()
            self._delivered_at.pop(segment.first, None)
        self._files.sync_directory(self._directory)

    # ---- durability

    def _sync(self) -> None:
        config = self._config
        if config.fsync == "never":
            return
        now = self._files.boot_ns()
        if now - self._synced_at < config.fsync_interval * 1e9:
            return
        self._lane.sync_spool()
        if self._ledger is not None:
            self._ledger.sync()
        self._synced_at = now

    # ---- trouble

    def _note_full(self, reason: str) -> None:
        lane = self._lane
        news = not lane.full
        with lane.lock:
            # Only a write that finds no room makes the lane full; here it is merely known that the next one may.
            if lane.full:
                lane.full = reason
            lane.changed.notify_all()
        if news:
            _log.debug("no room for another segment: %s", reason)

    def note_error(self, error: OSError) -> None:
        """A device that fails puts the lane in DISK-ERROR. Any thread."""
        lane = self._lane
        news = not lane.disk_error
        if not is_broken(error):
            # Several chores fail in turn: each says so once.
            if str(error) not in self._failures:
                _log.warning("housekeeping failed and is tried again: %s", error)
            if len(self._failures) < _FAILURES:
                self._failures.add(str(error))
            return
        with lane.lock:
            lane.disk_error = str(error)
            lane.reconsider()
            lane.changed.notify_all()
        if news:
            _log.error("the device under the buffer is broken: %s; nothing is accepted until it works again", error)
            self._events.tell("disk-error", reason=str(error))

    def _note_well(self) -> None:
        lane = self._lane
        self._failures.clear()
        if not lane.disk_error:
            return
        with lane.lock:
            lane.disk_error = ""
            lane.reconsider()
            lane.changed.notify_all()
        self._events.tell("disk-well", reason="the device works again")
