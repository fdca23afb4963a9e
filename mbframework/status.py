"""What a buffer's directory tells: mode, state, accounts, backlog, positions, the last error.

Promises
--------
- Reads only, needs no connection to the engine, and works on a dead engine's directory as on a running one's.
- Head, seek and segments are the authority for every count; the status files, narration by the engine, add what only
  it knows (state, errors, pace). A missing, torn or hostile status file costs just that.
- Instants are seconds since 1970 as the wall clock counts at the moment of reading: within a boot they are taken from
  the boot clock, so that the time since then is right whatever was done to the wall clock in between.
- None of the accounts is computed from the others, and none can be negative.

Neither a provider nor its client library is imported. Any thread; any process that may read the directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mbframework import directory as directories
from mbframework import narration, pause, spans
from mbframework.accounts import accounts_of
from mbframework.deadstore import DeadStore
from mbframework.errors import DirectoryError, UnsupportedFormat
from mbframework.files import Files
from mbframework.narration import instant_of
from mbframework.spool import frame, layout
from mbframework.spool.reader import Run, SpoolReader
from mbframework.spool.seek import SeekSlot
from mbframework.spool.segment_header import wall_of
from mbframework.spool.survey import Survey, glance, read_seek
from mbframework.state import STATES, Sending, halves_of, sending_of, silence, state_of

__all__ = [
    "STATES",
    "BufferStatus",
    "LaneStatus",
    "SeekPosition",
    "letters_kept",
    "oldest_on_disk",
    "read",
    "read_lane",
    "read_narration",
]

_LOOKS = 4


@dataclass(frozen=True, slots=True)
class SeekPosition:
    """Where delivery stands: the segment (its first sequence), the next sequence, the offset in the segment's file."""

    segment: int
    sequence: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneStatus:
    """One lane. Counts are messages since the buffer was made, ``…_bytes`` bytes on disk and in memory.

    ``accepted`` = ``delivered`` + ``pruned`` + ``expired`` + ``dead`` + ``purged`` + ``lost`` + ``resident``.
    ``dead`` counts every rejection; ``dead_letters`` are those that are kept now, neither replayed nor dropped (None:
    they cannot be read). ``clock_jump_s``: by how much the wall clock was set since the state began, negative where it
    was set back. ``lost`` has three sources: ``lost_live`` and ``lost_linger`` (in memory when the process was killed:
    they may have arrived), ``lost_disk`` (unreadable or gone); ``returned`` are those that ``close()`` handed back.
    ``heartbeat_age_s``: of the processes that have the lane the one that has been silent longest, else of the last one.
    ``sender``: how the half that sends is (see :mod:`mbframework.state`); unless that is "alive", what is told of the
    provider is of the past. ``paused``: whether sending is, whatever the state: on request, to which whoever sends next
    keeps as well, or by the program itself; ``paused_since``: when it was requested, as the wall clock had it.
    """

    name: str
    mode: str
    state: str
    state_since: float | None = None
    clock_jump_s: float = 0.0
    state_reason: str = ""
    accepted: int
    delivered: int
    pruned: int
    expired: int
    dead: int
    dead_letters: int | None = None
    purged: int
    lost: int
    lost_live: int = 0
    lost_linger: int = 0
    lost_disk: int = 0
    returned: int = 0
    resident_messages: int
    resident_bytes: int
    disk_bytes: int = 0
    segments: int
    oldest_age_s: float | None
    last_error: str | None
    last_error_at: float | None = None
    failures: int = 0
    #: When the present run of failures began; None while the provider answers.
    failing_since: float | None = None
    retry_at: float | None = None
    seek: SeekPosition
    provider: str = ""
    clean: bool = False
    heartbeat_age_s: float | None = None
    writer_pid: int | None = None
    sender_pid: int | None = None
    sender: Sending = "alive"
    paused: bool = False
    paused_since: float | None = None
    #: Messages that a provider took although one in front of them, of the same ordering domain, had failed.
    order_violations: int = 0
    #: Of the delivered ones, those that the destination has lost since, at most: its position went back.
    acknowledged_lost: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def resident(self) -> int:
        """Messages that wait, on disk or in memory."""
        return self.resident_messages

    @property
    def balanced(self) -> bool:
        """Whether the accounts add up."""
        gone = self.delivered + self.pruned + self.expired + self.dead + self.purged + self.lost
        return self.accepted == gone + self.resident_messages

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"balanced": self.balanced}


@dataclass(frozen=True, slots=True)
class BufferStatus:
    """A buffer's directory: its id and its lanes. ``problems``: what could not be read, in words."""

    directory: str
    id: str
    lanes: tuple[LaneStatus, ...]
    problems: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "schema": 1,
            "directory": self.directory,
            "id": self.id,
            "lanes": [lane.as_dict() for lane in self.lanes],
            "problems": list(self.problems),
        }


def read(path: str | os.PathLike[str], files: Files | None = None) -> BufferStatus:
    """The status of the buffer in a directory.

    :raises DirectoryError: it is not a buffer, or cannot be read.
    """
    files = files or Files()
    path = os.path.abspath(os.fspath(path))
    if not os.path.isdir(path):
        raise DirectoryError(f"{path} is not a directory; give the directory of a buffer", path=path)
    facts = directories.read(files, path)
    lanes: list[LaneStatus] = []
    problems: list[str] = []
    for name in directories.lanes_of(files, path):
        lane = os.path.join(path, name)
        try:
            lanes.append(read_lane(files, lane, name, problems))
        except UnsupportedFormat as error:
            problems.append(f"lane {name}: {error}")
        except OSError as error:
            problems.append(f"lane {name} cannot be read: {error.strerror or error}")
    return BufferStatus(path, str(facts["id"]), tuple(lanes), tuple(problems))


def read_lane(files: Files, path: str, name: str, problems: list[str] | None = None) -> LaneStatus:
    """The status of one lane, from its directory; what could not be read of it is added to ``problems``, in words.

    :raises UnsupportedFormat: a newer release wrote it.
    :raises OSError: it cannot be read.
    """
    known = _steady(files, path)
    if problems is not None:
        problems.extend(_unreadable(files, path, known, name))
    halves = writer, sender = halves_of(files, path)
    if problems is not None:
        problems.extend(f"lane {name}: {half.file} cannot be read: {half.trouble}" for half in halves if half.trouble)
    state, sending, told = state_of(files, path, halves), sending_of(halves), sender.told
    accounts = accounts_of(known, running=state.name != "dead", sending=sending in ("alive", "silent"))
    trouble: dict[str, Any] = told.get("trouble", {})
    failures: int = trouble.get("count", 0)
    slot, stored = known.seek, pause.read(files, path)
    return LaneStatus(
        name=name,
        mode=writer.told.get("mode") or "unknown",
        state=state.name,
        state_since=state.since,
        clock_jump_s=state.clock_jump_s,
        state_reason=state.reason,
        accepted=accounts.accepted,
        delivered=accounts.delivered,
        pruned=accounts.pruned,
        expired=accounts.expired,
        dead=accounts.dead,
        dead_letters=letters_kept(files, path),
        purged=accounts.purged,
        lost=accounts.lost,
        lost_live=accounts.lost_live,
        lost_linger=accounts.lost_linger,
        lost_disk=accounts.lost_disk,
        returned=accounts.returned,
        resident_messages=accounts.resident,
        resident_bytes=known.waiting_size,
        disk_bytes=known.size,
        segments=known.count,
        oldest_age_s=_oldest(files, path, known, slot) if slot and accounts.spooled else None,
        last_error=told.get("blocked") or trouble.get("text") or None,
        last_error_at=instant_of(files, told, trouble, "last"),
        failures=failures,
        failing_since=instant_of(files, told, trouble, "began") if failures else None,
        # Who is silent, or gone, tries nothing.
        retry_at=instant_of(files, told, trouble, "retry_at") if sending == "alive" else None,
        seek=SeekPosition(slot.segment, slot.next, slot.offset) if slot else SeekPosition(0, 1, 0),
        provider=told.get("provider", ""),
        clean=known.clean,
        heartbeat_age_s=silence(halves),
        writer_pid=writer.told.get("pid"),
        sender_pid=told.get("pid"),
        sender=sending,
        paused=stored is not None or (sending in ("alive", "silent") and told.get("paused", False)),
        paused_since=stored.at or None if stored is not None else None,
        order_violations=told.get("order_violations", 0),
        acknowledged_lost=told.get("acknowledged", {}).get("lost", 0),
        facts={name: value for name, value in told.get("facts", {}).items() if isinstance(value, str)},
    )


def _unreadable(files: Files, path: str, known: Survey, name: str) -> Iterator[str]:
    """What is missing or damaged of a lane that was in use."""
    used = bool(known.count or known.unreadable)
    if known.head is None and (used or known.seek is not None):
        yield f"lane {name}: its head cannot be read: what was accepted and never reached the disk is not counted"
    if known.seek is None and (used or (known.head is not None and known.head.accepted)):
        yield f"lane {name}: its seek cannot be read: the next to send begins at the oldest segment"
    for file in known.unreadable:
        try:
            # A file that is pruned is cut to nothing, and then removed.
            if not files.stat(os.path.join(path, file)).st_size:
                continue
        except FileNotFoundError:
            continue
        why = f": {known.unsupported}" if known.unsupported else ""
        yield f"lane {name}: the segment file {file} cannot be read{why}"


def _steady(files: Files, path: str) -> Survey:
    """A survey during which the seek did not move, as far as a busy lane allows."""
    for _ in range(_LOOKS - 1):
        known = glance(files, path)
        # The survey reads the seek first.
        now = read_seek(files, path)
        if known.seek is None or now is None or now.generation == known.seek.generation:
            return known
    return glance(files, path)


def read_narration(files: Files, path: str) -> dict[str, Any]:
    """What a status file says, as far as it can be true; nothing where it is missing or torn."""
    told, _ = narration.read(files, path)
    return told


def _oldest(files: Files, path: str, known: Survey, slot: SeekSlot) -> float | None:
    """What :func:`oldest_on_disk` says, without listing the directory again where the survey has the segment."""
    for found in known.segments:
        header = found.header
        if found.end is None or not header.first <= slot.next < found.end:
            continue
        offset = slot.offset if slot.segment == header.first else layout.FIRST_FRAME
        try:
            fd = files.open(os.path.join(path, found.entry.name), write=False)
        except OSError:
            break
        try:
            begun = frame.read_header(files.pread(fd, frame.HEADER_SIZE, offset), 0, header.salt)
        except (UnsupportedFormat, OSError):
            break
        finally:
            files.close(fd)
        if begun is None or not begun.first <= slot.next < begun.first + begun.count:
            break
        if header.boot_id == files.boot_id():
            return max(0.0, (files.boot_ns() - begun.accepted) / 1e9)
        return max(0.0, (files.wall_ns() - wall_of(header, begun.accepted)) / 1e9)
    return oldest_on_disk(files, path, slot)


def oldest_on_disk(files: Files, path: str, slot: SeekSlot) -> float | None:
    """Seconds since the first undelivered message on disk was accepted; None where none is on disk."""
    reader = SpoolReader(files, path)
    try:
        position, ordinal, hint = slot.next, slot.ordinal, (slot.segment, slot.offset)
        for _ in range(100):
            found = reader.read(position, ordinal, until=None, max_messages=1, max_bytes=1, hint=hint)
            if isinstance(found, Run):
                first = found.acceptances[0]
                if first.header.boot_id == files.boot_id():
                    return max(0.0, (files.boot_ns() - first.accepted) / 1e9)
                return max(0.0, (files.wall_ns() - found.accepted[0]) / 1e9)
            if found is None:
                return None
            position, ordinal = found.next, found.ordinal
    except (UnsupportedFormat, OSError):
        return None
    finally:
        reader.close()
    return None


def letters_kept(files: Files, path: str) -> int | None:
    """The dead letters of a lane that are there now; None where they cannot be read. ``path``: the lane's."""
    try:
        return spans.count(DeadStore(files, layout.dead_path(path)).ids())
    except (UnsupportedFormat, OSError):
        return None
