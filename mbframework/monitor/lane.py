"""One lane, watched: its status, read again when something changed, and what the looks before it tell.

Promises
--------
- The accounts are those of :func:`mbframework.status.read_lane`. They are read again when the head, the seek, a status
  file, a name in the directory, a process or the age of the last sign of life has changed, and else kept; where reading
  takes long, no more than a fifth of the time is spent on it.
- A process of another boot (another machine, a container with a clock of its own) is alive while its heartbeat's number
  changes, by this monitor's clock.

One thread.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mbframework.dropped import is_dropped
from mbframework.errors import UnsupportedFormat
from mbframework.files import Files
from mbframework.history import SENDER_FILE, WRITER_FILE, Past
from mbframework.history import read as read_ring
from mbframework.monitor.events import EventFiles
from mbframework.monitor.history import SECOND, Course, Now, Series, course_of
from mbframework.monitor.segments import SegmentFiles
from mbframework.monitor.verdict import Circumstances, judge
from mbframework.monitor.view import LaneView, Rates, Verdict
from mbframework.spool import head, layout, seek
from mbframework.state import SENDING_STATES, STATES, Sending, patience
from mbframework.status import LaneStatus, read_lane, read_narration

#: Seconds over which the rates that are shown, and those that are judged, are taken.
_SHOWN_S = 5.0
_JUDGED_S = 20.0
#: Seconds after which a lane that pruned is taken to have stopped doing so.
_PRUNING_S = 60.0
#: The share of the time that reading the status may take, where that takes long.
_SHARE = 0.2
_LONG_NS = SECOND // 20


class LaneWatch:
    """See the module. ``path`` is the lane's directory."""

    def __init__(self, files: Files, path: str, name: str) -> None:
        self._files = files
        self._path = path
        self._name = name
        self.events = EventFiles(files, path, name)
        self._segments = SegmentFiles(files, path)
        self._key: object = None
        self._status: LaneStatus | None = None
        self._problems: list[str] = []
        self._read_at = self._read_took = 0
        self._accepted, self._delivered, self._left = Series(), Series(), Series()
        self._accepted_bytes, self._delivered_bytes = Series(), Series()
        self._course: Course | None = None
        #: Why a ring could not be read.
        self._forgotten: list[str] = []
        self._state = ""
        self._state_at = 0
        self._gone: int | None = None
        self._gone_at: int | None = None
        self._pruned: int | None = None
        self._pruned_at: int | None = None
        self._verdict: Verdict | None = None
        #: The last heartbeat of another boot, and when it last changed.
        self._beat: object = None
        self._beat_at: int | None = None

    def look(self, problems: list[str]) -> LaneView:
        """The lane now; what cannot be read of it is added to ``problems``.

        :raises UnsupportedFormat: a newer release wrote it.
        :raises OSError: it cannot be read.
        """
        files = self._files
        writer = read_narration(files, os.path.join(self._path, layout.WRITER_STATUS_FILE))
        sender = read_narration(files, os.path.join(self._path, layout.SENDER_STATUS_FILE))
        now = Now(files.boot_ns(), files.wall_ns(), files.boot_id())
        status = self._heard(self._current(writer, sender, now), writer, sender, now)
        if self._course is None:
            self._course = self._remembered(now)
        problems.extend(self._problems + self._forgotten)
        self._count(status, writer, sender, now)
        self._course.add(now, status.accepted, status.delivered, status.resident)
        limits = _dictionary(writer.get("limits"))
        total_size, shared = (_positive(limits.get(name)) for name in ("total_size", "shared_total_size"))
        if shared is not None:
            # What the other lanes hold is not to be had.
            others = max(0, (_positive(limits.get("shared_used")) or 0) - status.disk_bytes)
            total_size = max(1, min(total_size or shared, shared - others))
        prunes = self.events.prunes()
        self._verdict = judge(
            self._circumstances(status, writer, total_size, prunes, now), self._verdict.kind if self._verdict else None
        )
        return LaneView(
            name=self._name,
            status=status,
            total_size=total_size,
            segment_size=_positive(limits.get("segment_size")),
            max_segments=_positive(limits.get("max_segments")),
            incoming=_rates(self._accepted, self._accepted_bytes, now.boot_ns),
            outgoing=_rates(self._delivered, self._delivered_bytes, now.boot_ns),
            history=self._course.points(now),
            verdict=self._verdict,
            prunes=prunes,
            segments=self._segments.table(self._position(), sending=status.state in SENDING_STATES),
        )

    # ---- the status

    def _current(self, writer: Mapping[str, Any], sender: Mapping[str, Any], now: Now) -> LaneStatus:
        """The status, read anew where something has changed."""
        key = self._evidence(writer, sender, now)
        known = self._status
        elapsed = now.boot_ns - self._read_at
        if known is not None and (key == self._key or elapsed * _SHARE < self._read_took > _LONG_NS):
            return _older(known, elapsed / SECOND)
        self._status, self._problems = None, []
        self._status = read_lane(self._files, self._path, self._name, self._problems)
        self._key, self._read_at = key, self._files.boot_ns()
        self._read_took = self._read_at - now.boot_ns
        return self._status

    def _evidence(self, writer: Mapping[str, Any], sender: Mapping[str, Any], now: Now) -> object:
        """What the status depends on; different where that may have changed."""
        files = self._files
        tellers = []
        for told in (writer, sender):
            pid, beat = told.get("pid"), told.get("heartbeat_boot_ns")
            alive = isinstance(pid, int) and 0 < pid < 1 << 31 and files.process_exists(pid)
            silent = not isinstance(beat, int) or now.boot_ns - beat > patience(told) * SECOND
            tellers.append((alive, silent, repr(told)))
        changed = files.stat(self._path).st_mtime_ns
        # A name may change twice in what a directory's clock takes for one instant.
        recent = now.boot_ns if abs(now.wall_ns - changed) < SECOND else 0
        # The status has instants in it as this clock counts them.
        ahead = (now.wall_ns - now.boot_ns) // SECOND
        return (
            tellers,
            changed,
            recent,
            ahead,
            self._letters(),
            self._content(layout.HEAD_FILE, head.HEAD_FILE_SIZE),
            self._content(layout.SEEK_FILE, seek.SEEK_FILE_SIZE),
            self._lock(layout.WRITER_LOCK_FILE),
            self._lock(layout.SENDER_LOCK_FILE),
        )

    def _letters(self) -> object:
        """What is different where dead letters came or went; their process is heard of otherwise, while it lives."""
        letters = layout.dead_path(self._path)
        try:
            changed = self._files.stat(letters).st_mtime_ns
            dropped = [name for name in self._files.list(letters) if is_dropped(name)]
            return changed, [self._files.stat(os.path.join(letters, name)).st_size for name in dropped]
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _content(self, name: str, size: int) -> bytes:
        try:
            fd = self._files.open(os.path.join(self._path, name), write=False)
        except FileNotFoundError:
            return b""
        try:
            return self._files.pread(fd, size, 0)
        finally:
            self._files.close(fd)

    def _lock(self, name: str) -> object:
        """Whoever takes a lock writes to it."""
        try:
            info = self._files.stat(os.path.join(self._path, name))
        except FileNotFoundError:
            return None
        return info.st_ino, info.st_mtime_ns, info.st_size

    def _position(self) -> seek.SeekSlot | None:
        return seek.newest(self._content(layout.SEEK_FILE, seek.SEEK_FILE_SIZE))[0]

    def _heard(self, status: LaneStatus, writer: Mapping[str, Any], sender: Mapping[str, Any], now: Now) -> LaneStatus:
        """The status, with what a process of another boot says while it goes on saying it."""
        foreign = [
            told
            for told in (writer, sender)
            if told and not told.get("closed") and told.get("boot_id") != now.boot_id.hex()
        ]
        if status.heartbeat_age_s is not None or not foreign:
            self._beat = self._beat_at = None
            return status
        beat = [(told.get("boot_id"), told.get("heartbeat_boot_ns")) for told in foreign]
        if self._beat is not None and beat != self._beat:
            self._beat_at = now.boot_ns
        self._beat = beat
        if self._beat_at is None:
            return status
        age = (now.boot_ns - self._beat_at) / SECOND
        told = foreign[0].get("state")
        if age > patience(foreign[0]) or told not in STATES:
            return replace(status, state="stale", heartbeat_age_s=age)
        # The lock of a process on another machine need not be visible.
        sending: Sending = "alive" if sender in foreign else status.sender
        paused = status.paused or (sender in foreign and sender.get("paused", False))
        return replace(status, state=str(told), heartbeat_age_s=age, sender=sending, paused=paused)

    # ---- the past

    def _remembered(self, now: Now) -> Course:
        """What the engine's rings tell a monitor that has just begun."""
        pasts: list[Past | None] = []
        for name in (WRITER_FILE, SENDER_FILE):
            try:
                pasts.append(read_ring(self._files, os.path.join(self._path, name), name))
            except (UnsupportedFormat, OSError) as error:
                self._forgotten.append(f"lane {self._name}: the history in {name} cannot be read: {error}")
                pasts.append(None)
        counters = ((self._accepted, self._accepted_bytes), (self._delivered, self._delivered_bytes))
        for past, (messages, sizes) in zip(pasts, counters, strict=True):
            for record in past.records if past is not None and past.boot_id == now.boot_id else ():
                if past is not None and record.run == past.run and record.boot_ns <= now.boot_ns:
                    messages.add(record.boot_ns, record.counters[0])
                    sizes.add(record.boot_ns, record.counters[1], record.run)
                    if messages is self._delivered:
                        self._left.add(record.boot_ns, record.counters[0], record.run)
        written, sent = pasts
        return Course(course_of(written, sent, now))

    def _count(self, status: LaneStatus, writer: Mapping[str, Any], sender: Mapping[str, Any], now: Now) -> None:
        at = now.boot_ns
        left = status.delivered + status.expired + status.dead + status.purged
        self._accepted.add(at, status.accepted)
        self._delivered.add(at, status.delivered)
        self._left.add(at, left)
        for told, series, size in (
            (writer, self._accepted_bytes, writer.get("accepted_bytes")),
            (sender, self._delivered_bytes, _dictionary(sender.get("traffic")).get("bytes")),
        ):
            beat, number = _count_of(told.get("heartbeat_boot_ns")), _count_of(size)
            if beat is not None and number is not None and told.get("boot_id") == now.boot_id.hex() and beat <= at:
                series.add(beat, number, (told.get("pid"), told.get("epoch")))
        since = status.state_since
        if since is not None and since <= now.wall_ns / SECOND:
            self._state_at = max(0, at - int((now.wall_ns / SECOND - since) * SECOND))
        elif status.state != self._state:
            self._state_at = at if self._state else 0
        self._state = status.state
        if self._gone is None or left != self._gone or not status.resident:
            # Of what was before the first look, the sender may tell.
            self._gone_at = at if self._gone is not None or not status.resident else self._last_delivery(sender, now)
            self._gone = left
        if self._pruned is not None and status.pruned > self._pruned:
            self._pruned_at = at
        self._pruned = status.pruned

    @staticmethod
    def _last_delivery(sender: Mapping[str, Any], now: Now) -> int | None:
        """When a message was last delivered, by the boot-time clock; None where that is not told."""
        traffic = _dictionary(sender.get("traffic"))
        at, last = _positive(traffic.get("last_delivered_boot_ns")), traffic.get("last_delivered")
        if at is not None and sender.get("boot_id") == now.boot_id.hex():
            return at if at <= now.boot_ns else None
        if isinstance(last, bool) or not isinstance(last, (int, float)) or not 0 < last <= now.wall_ns / SECOND:
            return None
        return now.boot_ns - (now.wall_ns - int(last * SECOND))

    # ---- the verdict

    def _circumstances(
        self, status: LaneStatus, writer: Mapping[str, Any], total_size: int | None, prunes: int, now: Now
    ) -> Circumstances:
        at = now.boot_ns
        policy = writer.get("on_full")
        silent = (at - self._gone_at) / SECOND if self._gone_at is not None else None
        if silent is None and status.state_since is not None and status.state in ("buffering", "draining"):
            silent = max(0.0, now.wall_ns / SECOND - status.state_since)
        if silent is not None and status.oldest_age_s is not None:
            # Nothing can have been held up for longer than the oldest has waited.
            silent = min(silent, status.oldest_age_s)
        pruning = self._pruned_at is not None and at - self._pruned_at < _PRUNING_S * SECOND
        return Circumstances(
            state=status.state,
            reason=status.state_reason
            or (status.last_error or "" if status.state in ("blocked", "disk-error") else ""),
            resident=status.resident,
            resident_bytes=status.resident_bytes,
            incoming=self._accepted.rate(at, _JUDGED_S),
            # What went out in another state says nothing of this one.
            outgoing=self._left.rate(at, _JUDGED_S, self._state_at),
            silent_s=silent,
            heartbeat_age_s=status.heartbeat_age_s,
            room=self._room(status, total_size),
            prunes=policy == "prune" if isinstance(policy, str) else (True if prunes else None),
            pruning=pruning,
            clean=status.clean,
        )

    def _room(self, status: LaneStatus, total_size: int | None) -> int | None:
        if total_size is None:
            return None
        room = total_size - status.disk_bytes
        try:
            return min(room, self._files.free_bytes(self._path))
        except OSError:
            return room


def _rates(messages: Series, sizes: Series, now_ns: int) -> Rates | None:
    rate = messages.rate(now_ns, _SHOWN_S)
    if rate is None:
        return None
    size = sizes.rate(now_ns, _SHOWN_S)
    return Rates(rate, 0.0 if size is None and not rate else size)


def _older(status: LaneStatus, by: float) -> LaneStatus:
    """A status that still holds, ``by`` seconds later."""
    beat, oldest = status.heartbeat_age_s, status.oldest_age_s
    return replace(
        status,
        heartbeat_age_s=None if beat is None else beat + by,
        oldest_age_s=None if oldest is None else oldest + by,
    )


def _dictionary(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _count_of(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < layout.U64_LIMIT:
        return None
    return value


def _positive(value: object) -> int | None:
    return _count_of(value) or None
