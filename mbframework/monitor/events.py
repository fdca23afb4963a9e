"""The event files of a lane, read from their ends, and their lines in words.

Promises
--------
- Costs no more than the lines asked for, however long the files are, and nothing while they do not change.
- What is not a line of ours (not JSON, not UTF-8, of wrong types, longer than MAX_LINE) is passed over, or told as far
  as it can be; nothing is raised for it. A file that is missing or cannot be read has no lines.
- Within a file the order is that of its lines; the two files are merged by the clock that nobody sets, where the lines
  tell of which boot they are. An event of this boot is dated as the wall clock counts now.

Any thread.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mbframework.files import Files
from mbframework.monitor.history import SECOND, Now
from mbframework.monitor.order import boot_of, merged
from mbframework.monitor.view import Event, Level
from mbframework.printable import shortened
from mbframework.spool import layout
from mbframework.units import format_size, format_time

#: Bytes of a line, beyond which it is passed over.
MAX_LINE = 256 * 1024
#: Bytes at the end of a file in which its lines are looked for; the engine rotates at 4 MiB.
_TAIL = 64 << 20
_COUNTED = 8 << 20
_BLOCK = 256 * 1024
_TEXT = 400
#: Inside a JSON text a quotation mark follows a backslash, so that only a line's own kind reads like this.
_PRUNE = b'"kind": "prune"'

#: A difference of the clocks that has changed so much is another one: one of them was set.
_SET_NS = SECOND // 2

_Stamp = tuple[int, int, int, int]


class EventFiles:
    """The event files of one lane."""

    def __init__(self, files: Files, lane_path: str, lane: str) -> None:
        self._files = files
        self._lane = lane
        self._paths = [os.path.join(lane_path, name) for name in (layout.WRITER_EVENTS_FILE, layout.SENDER_EVENTS_FILE)]
        self._lock = threading.Lock()
        self._known: dict[str, tuple[_Stamp, int, list[Event]]] = {}
        self._ahead: int | None = None
        #: By inode: up to where the prunes of a writer's file are counted, and how many there are.
        self._prunes: dict[int, tuple[int, int]] = {}

    def last(self, limit: int) -> list[Event]:
        """The last ``limit`` events of both halves, newest last."""
        if limit <= 0:
            return []
        with self._lock:
            now = self._now()
            writer, sender = (self._half(path, limit, now) for path in self._paths)
        return merged(writer, sender)[-limit:]

    def prunes(self) -> int:
        """How often the writer has pruned, as far as its files tell or have told."""
        with self._lock:
            for path in (f"{self._paths[0]}.1", self._paths[0]):
                self._count_prunes(path)
            return sum(count for _, count in self._prunes.values())

    def _now(self) -> Now:
        """Now; the clocks, which are read one after the other, differ as before unless one of them was set."""
        boot_ns, wall_ns = self._files.boot_ns(), self._files.wall_ns()
        if self._ahead is None or abs(wall_ns - boot_ns - self._ahead) > _SET_NS:
            self._ahead = wall_ns - boot_ns
        return Now(boot_ns, boot_ns + self._ahead, self._files.boot_id())

    def _half(self, path: str, limit: int, now: Now) -> list[Event]:
        newer = self._of(path, limit, now)
        if len(newer) >= limit:
            return newer
        return self._of(f"{path}.1", limit - len(newer), now) + newer

    def _of(self, path: str, limit: int, now: Now) -> list[Event]:
        try:
            fd = self._files.open(path, write=False)
        except OSError:
            self._known.pop(path, None)
            return []
        try:
            info = self._files.fstat(fd)
            stamp = info.st_ino, info.st_size, info.st_mtime_ns, now.wall_ns - now.boot_ns
            known = self._known.get(path)
            if known is None or known[0] != stamp or known[1] < limit:
                events = []
                for line in lines_from_end(self._files, fd, info.st_size):
                    event = parse(line, self._lane, now)
                    if event is not None:
                        events.append(event)
                    if len(events) == limit:
                        break
                known = self._known[path] = stamp, limit, events[::-1]
        except OSError:
            return []
        finally:
            self._files.close(fd)
        return known[2][-limit:]

    def _count_prunes(self, path: str) -> None:
        try:
            fd = self._files.open(path, write=False)
        except OSError:
            return
        try:
            info = self._files.fstat(fd)
            size = info.st_size
            begin, count = self._prunes.get(info.st_ino, (max(0, size - _COUNTED), 0))
            if begin > size:
                begin = count = 0
            if begin < size:
                raw = self._files.pread(fd, min(size - begin, _COUNTED), begin)
                # A line that is being written is looked at when it is whole.
                whole = raw.rfind(b"\n") + 1 or (len(raw) if len(raw) > MAX_LINE else 0)
                self._prunes[info.st_ino] = begin + whole, count + raw.count(_PRUNE, 0, whole)
        except OSError:
            return
        finally:
            self._files.close(fd)


def lines_from_end(files: Files, fd: int, size: int) -> Iterator[bytes]:
    """The whole lines of a file, the last first, without their ends; those longer than MAX_LINE are left out.

    :raises OSError: it cannot be read.
    """
    at, rest, too_long = size, b"", False
    # What follows the last line's end is still being written.
    complete = False
    while at > max(0, size - _TAIL):
        begin = max(0, at - _BLOCK)
        raw = files.pread(fd, at - begin, begin)
        at = begin
        *_, last = parts = raw.split(b"\n")
        if len(parts) == 1:
            rest, too_long = (b"", True) if too_long or len(raw) + len(rest) > MAX_LINE else (raw + rest, False)
            continue
        if complete and not too_long and len(last) + len(rest) <= MAX_LINE:
            yield last + rest
        yield from reversed(parts[1:-1])
        rest, too_long, complete = parts[0], False, True
    if at == 0 and complete and not too_long and len(rest) <= MAX_LINE:
        yield rest


def parse(line: bytes, lane: str, now: Now | None = None) -> Event | None:
    """An event from its line; None where it is none. Without ``now`` it is dated as the wall clock had it then."""
    try:
        facts = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(facts, dict):
        return None
    kind, at = facts.get("kind"), _number(facts.get("at"))
    if not isinstance(kind, str) or not kind or at is None:
        return None
    boot_id, boot_ns = boot_of(facts)
    if now is not None and boot_id == now.boot_id.hex() and boot_ns <= now.boot_ns:
        at = (now.wall_ns - now.boot_ns + boot_ns) / SECOND
    told = _Told(facts)
    say, level = _KINDS.get(kind, (_other, _info))
    return Event(at, lane, shortened(kind, 40), level(told), shortened(say(told), _TEXT), facts)


class _Told:
    """What a line says, whatever the types of its values."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = facts

    def text(self, name: str, otherwise: str = "") -> str:
        value = self.facts.get(name)
        return value if isinstance(value, str) and value else otherwise

    def number(self, name: str) -> float:
        return _number(self.facts.get(name)) or 0.0

    def count(self, name: str, noun: str = "message") -> str:
        number = self.whole(name)
        return f"{number} {noun}" if number == "1" else f"{number} {noun}s"

    def whole(self, name: str) -> str:
        """A number of things; "?" where that is none."""
        number = self.facts.get(name, 0)
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < layout.U64_LIMIT:
            return "?"
        return f"{number:,}"

    def size(self, name: str) -> str:
        return format_size(max(0, int(self.number(name))))

    def time(self, name: str) -> str:
        return format_time(max(0.0, self.number(name)))

    def because(self) -> str:
        reason = self.text("reason")
        return f": {reason}" if reason else ""

    def sequences(self) -> str:
        """Which messages, where that is known."""
        first, last = int(self.number("first")), int(self.number("last"))
        if first <= 0 or last < first:
            return ""
        return f" (sequence {first:,})" if first == last else f" (sequences {first:,} to {last:,})"


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < layout.U64_LIMIT:
        return None
    return float(value)


def _opened(told: _Told) -> str:
    by = f" by process {int(told.number('pid'))}" if told.number("pid") else ""
    return f"opened{by}" + (f"; the next message is {int(told.number('next')):,}" if told.number("next") else "")


def _recovered(told: _Told) -> str:
    notes = told.facts.get("notes")
    said = "; ".join(note for note in notes if isinstance(note, str)) if isinstance(notes, list) else ""
    lost = f", {told.count('lost')} LOST" if told.number("lost") else ""
    return f"{told.count('messages')} ({told.size('bytes')}) found in {told.time('seconds')}{lost}" + (
        f": {said}" if said else ""
    )


def _closed(told: _Told) -> str:
    state, pid = told.text("state"), int(told.number("pid"))
    return "closed" + (f" while {state}" if state else "") + (f" by process {pid}" if pid else "")


def _change(told: _Told) -> str:
    return f"{told.text('before', '?')} → {told.text('after', '?')}{told.because()}"


def _failure(told: _Told) -> str:
    maybe = "; some may have arrived" if told.facts.get("uncertain") is True else ""
    wait = f"; next attempt in {told.time('retry_wait_s')}" if told.number("retry_wait_s") else ""
    return f"{told.text('reason', 'the provider failed')}{maybe}{wait}"


def _provider_back(told: _Told) -> str:
    error = told.text("error")
    return f"the provider answers again, after {told.count('failures', 'failure')}" + (f": {error}" if error else "")


def _position(told: _Told) -> str:
    return (
        f"the provider already held what lies before {int(told.number('sequence')):,}: {told.count('skipped')} skipped"
    )


def _dead(told: _Told) -> str:
    topic = told.text("topic")
    where = f" of topic {topic}" if topic else ""
    return f"message {int(told.number('sequence')):,}{where} went to the dead letters{told.because()}"


def _expired(told: _Told) -> str:
    return f"{told.count('messages')} older than {told.time('limit_s')}{told.sequences()}"


def _prune(told: _Told) -> str:
    if told.facts.get("segments") == 0:
        return f"{told.count('messages')} UNDELIVERED, which the sender had in hand when their segments were pruned"
    undelivered = f", {told.whole('undelivered')} UNDELIVERED" if told.facts.get("undelivered") else ""
    in_hand = f", {told.whole('in_hand')} in the sender's hand" if told.facts.get("in_hand") else ""
    return (
        f"{told.count('segments', 'segment')}, {told.size('bytes')}, {told.count('messages')}{undelivered}{in_hand}"
        f"{told.sequences()}{told.because()}"
    )


def _prune_level(told: _Told) -> Level:
    return "error" if told.number("undelivered") else "warning" if told.number("in_hand") else "info"


def _removed(told: _Told) -> str:
    size = f", {told.size('bytes')}" if "bytes" in told.facts else ""
    return f"{told.count('segments', 'delivered segment')} removed{size}{told.sequences()}"


def _seal(told: _Told) -> str:
    return (
        f"segment {int(told.number('segment')):,} is complete: {told.size('bytes')}, "
        f"the last message is {int(told.number('last')):,}"
    )


def _control(told: _Told) -> str:
    uid, pid = int(told.number("uid")), int(told.number("pid"))
    who = f" by user {uid}, process {pid}" if pid > 0 else ""
    return f"{told.text('action', 'a request')}{who}: {told.text('result', 'no result')}"


def _control_level(told: _Told) -> Level:
    # One that could not be told apart is a refusal.
    return "info" if told.text("action") else "warning"


def _other(told: _Told) -> str:
    known = ("schema", "at", "boot_ns", "boot_id", "kind")
    shown = (f"{name}={value}" for name, value in list(told.facts.items())[:20] if name not in known)
    return shortened(", ".join(each[:_TEXT] for each in shown), _TEXT)


def _info(_: _Told) -> Level:
    return "info"


def _warning(_: _Told) -> Level:
    return "warning"


def _error(_: _Told) -> Level:
    return "error"


def _if_any(name: str, level: Level) -> Callable[[_Told], Level]:
    return lambda told: level if told.number(name) else "info"


def _state_level(told: _Told) -> Level:
    after = told.text("after")
    return "error" if after in ("blocked", "disk-error") else "warning" if after == "buffering" else "info"


def _said(otherwise: str) -> Callable[[_Told], str]:
    return lambda told: told.text("reason", otherwise)


#: By kind: its text and its level. The kinds are those of docs/status.md.
_KINDS: Mapping[str, tuple[Callable[[_Told], str], Callable[[_Told], Level]]] = {
    "opened": (_opened, _info),
    "recovered": (_recovered, _if_any("lost", "error")),
    "closed": (_closed, _info),
    "state": (_change, _state_level),
    "hand-over": (_change, _info),
    "mode": (_change, _info),
    "control": (_control, _control_level),
    "failure": (_failure, _warning),
    "provider-back": (_provider_back, _info),
    "blocked": (_said("a person is needed"), _error),
    "position": (_position, _info),
    "acknowledged-lost": (_said("the destination has lost what it had acknowledged"), _error),
    "order-violation": (
        lambda told: f"{told.count('messages')} taken behind one that failed{told.sequences()}",
        _warning,
    ),
    "dead": (_dead, _warning),
    "expired": (_expired, _warning),
    "lost": (lambda told: f"{told.count('messages')} LOST{told.sequences()}{told.because()}", _error),
    "purge": (lambda told: f"{told.count('messages')} removed on request", _warning),
    "prune": (_prune, _prune_level),
    "removed": (_removed, _info),
    "seal": (_seal, _info),
    "room": (_said("there is room again"), _info),
    "disk-error": (_said("the device fails"), _error),
    "disk-well": (_said("the device works again"), _info),
}
