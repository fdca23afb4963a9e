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

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mbframework import directory as directories
from mbframework import spans
from mbframework.accounts import accounts_of
from mbframework.deadstore import DeadStore
from mbframework.errors import DirectoryError, UnsupportedFormat
from mbframework.files import Files
from mbframework.lockfile import is_held
from mbframework.spool import frame, layout
from mbframework.spool.reader import Run, SpoolReader
from mbframework.spool.seek import SeekSlot
from mbframework.spool.segment_header import wall_of
from mbframework.spool.survey import Survey, glance, read_seek

#: Seconds without a heartbeat after which what the engine last said is stale.
STALE_AFTER = 3.0
#: Those that a process tells of itself.
_TOLD_STATES = ("live", "buffering", "draining", "paused", "blocked", "disk-error")
#: Those in which messages of the backlog go out.
SENDING_STATES = ("live", "draining")
STATES = (*_TOLD_STATES, "stale", "dead")
_MAX_STATUS = 1 << 20
#: Of the status files.
_SCHEMA = 1
_LOOKS = 4
_MAX_NUMBER = 1 << 63
#: Seconds by which two clocks may differ without one of them having been set.
_JUMP_S = 2.0


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
    #: Messages that a provider took although one in front of them, of the same ordering domain, had failed.
    order_violations: int = 0
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
    (writer, writer_trouble), (sender, sender_trouble) = (
        _narration(files, os.path.join(path, file)) for file in (layout.WRITER_STATUS_FILE, layout.SENDER_STATUS_FILE)
    )
    if problems is not None:
        told = ((layout.WRITER_STATUS_FILE, writer_trouble), (layout.SENDER_STATUS_FILE, sender_trouble))
        problems.extend(f"lane {name}: {file} cannot be read: {trouble}" for file, trouble in told if trouble)
    writer_age, sender_age = _age(files, writer), _age(files, sender)
    state, teller = _state(files, path, writer, writer_age, sender, sender_age)
    accounts = accounts_of(known, running=state != "dead")
    trouble = _dictionary(sender.get("trouble"))
    since, told_since = _instant(files, teller, teller, "since"), _number(teller.get("since"))
    slot = known.seek
    ages = [age for age in (writer_age, sender_age) if age is not None]
    last_error = trouble.get("text") or None
    blocked = _text(sender.get("blocked"))
    return LaneStatus(
        name=name,
        mode=_text(writer.get("mode")) or "unknown",
        state=state,
        state_since=since,
        clock_jump_s=clock_jump(told_since, since) if told_since and since and state in _TOLD_STATES else 0.0,
        state_reason=_text(teller.get("reason")) if state == _text(teller.get("state")) else "",
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
        last_error=blocked or _text(last_error) or None,
        last_error_at=_instant(files, sender, trouble, "last"),
        failures=int(_number(trouble.get("count")) or 0),
        failing_since=_instant(files, sender, trouble, "began") if _number(trouble.get("count")) else None,
        retry_at=_instant(files, sender, trouble, "retry_at"),
        seek=SeekPosition(slot.segment, slot.next, slot.offset) if slot else SeekPosition(0, 1, 0),
        provider=_text(sender.get("provider")),
        clean=known.clean,
        heartbeat_age_s=min(ages) if ages else None,
        writer_pid=_pid(writer),
        sender_pid=_pid(sender),
        order_violations=int(_number(sender.get("order_violations")) or 0),
        facts={name: _text(value) for name, value in _dictionary(sender.get("facts")).items()},
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
    """A status file; empty where it is missing, torn, too large or not what it should be."""
    return _narration(files, path)[0]


def _narration(files: Files, path: str) -> tuple[dict[str, Any], str]:
    """A status file, and what is wrong with it; "" also where there is none."""
    try:
        fd = files.open(path, write=False)
    except FileNotFoundError:
        return {}, ""
    except OSError as error:
        return {}, error.strerror or str(error)
    try:
        raw = files.pread(fd, _MAX_STATUS + 1, 0)
    except OSError as error:
        return {}, error.strerror or str(error)
    finally:
        files.close(fd)
    if len(raw) > _MAX_STATUS:
        return {}, f"it is larger than {_MAX_STATUS:,} bytes"
    try:
        facts = json.loads(raw)
    except (ValueError, RecursionError):
        return {}, "it is not JSON; the engine writes it anew when the lane is opened"
    if not isinstance(facts, dict):
        return {}, "it is no JSON object; the engine writes it anew when the lane is opened"
    schema = facts.get("schema")
    if schema == _SCHEMA:
        return facts, ""
    # What a newer release says is taken as far as it is understood.
    shown = "missing" if schema is None else f"{schema!r:.40}" if isinstance(schema, int | str) else "no number"
    return facts, f"its schema is {shown}; this release knows {_SCHEMA}"


def state_of(files: Files, path: str) -> str:
    """The state of a lane, and nothing else. Raises OSError."""
    writer, sender = (
        read_narration(files, os.path.join(path, file))
        for file in (layout.WRITER_STATUS_FILE, layout.SENDER_STATUS_FILE)
    )
    return _state(files, path, writer, _age(files, writer), sender, _age(files, sender))[0]


def _state(
    files: Files,
    path: str,
    writer: dict[str, Any],
    writer_age: float | None,
    sender: dict[str, Any],
    sender_age: float | None,
) -> tuple[str, dict[str, Any]]:
    """The state, and whose word it is."""
    fresh_writer = _speaks(files, writer, writer_age, os.path.join(path, layout.WRITER_LOCK_FILE))
    fresh_sender = _speaks(files, sender, sender_age, os.path.join(path, layout.SENDER_LOCK_FILE))
    told = _text(writer.get("state"))
    if fresh_writer and told in STATES:
        if told == "buffering" and not writer.get("sends") and fresh_sender:
            return (_text(sender.get("state")), sender) if sender.get("state") in STATES else (told, writer)
        return told, writer
    if fresh_sender and sender.get("state") in STATES:
        return _text(sender.get("state")), sender
    held = any(is_held(files, os.path.join(path, name)) for name in (layout.WRITER_LOCK_FILE, layout.SENDER_LOCK_FILE))
    return "stale" if held else "dead", writer


def _speaks(files: Files, narration: dict[str, Any], age: float | None, lock: str) -> bool:
    """Whether what was told lately is still true: who told it has neither closed the lane nor been killed since."""
    if age is None or age > STALE_AFTER or narration.get("closed"):
        return False
    pid = _pid(narration)
    # A process of another container cannot be seen, but its lock can.
    return (pid is not None and pid > 0 and files.process_exists(pid)) or is_held(files, lock)


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


def _age(files: Files, narration: dict[str, Any]) -> float | None:
    """Seconds since the heartbeat, exact within a boot; None where there is none of this boot."""
    beat = narration.get("heartbeat_boot_ns")
    if not isinstance(beat, int) or _number(beat) is None or narration.get("boot_id") != files.boot_id().hex():
        return None
    return max(0.0, (files.boot_ns() - beat) / 1e9)


def instant(files: Files, boot_ns: int) -> float:
    """An instant of this boot in seconds since 1970, as the wall clock counts now."""
    return (files.wall_ns() - files.boot_ns() + boot_ns) / 1e9


def clock_jump(told: float, since: float) -> float:
    """By how many seconds the wall clock was set since an instant that it gave as ``told``, and now as ``since``."""
    return round(since - told, 1) if abs(since - told) >= _JUMP_S else 0.0


def _instant(files: Files, told: Mapping[str, Any], section: Mapping[str, Any], name: str) -> float | None:
    """An instant of a status file: of this boot by the boot clock, else as the wall clock had it then."""
    boot_ns = section.get(f"{name}_boot_ns")
    if told.get("boot_id") == files.boot_id().hex() and isinstance(boot_ns, int) and _number(boot_ns):
        return instant(files, boot_ns)
    return _number(section.get(name)) or None


def letters_kept(files: Files, path: str) -> int | None:
    """The dead letters of a lane that are there now; None where they cannot be read. ``path``: the lane's."""
    directory = os.path.join(os.path.dirname(path), layout.DEAD_DIRECTORY, os.path.basename(path))
    try:
        return spans.count(DeadStore(files, directory).ids())
    except (UnsupportedFormat, OSError):
        return None


def _dictionary(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> float | None:
    """A number that a clock or a counter can have shown."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < _MAX_NUMBER:
        return None
    return float(value)


def _pid(narration: dict[str, Any]) -> int | None:
    pid = _number(narration.get("pid"))
    return int(pid) if pid is not None else None
