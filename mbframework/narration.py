"""The status files, read: what a process has said of itself, as far as it can be true.

Promises
--------
- A file that is missing, torn, too large or not what it should be says nothing. Why is told in words.
- What no clock, counter or process can have (negative, huge, not finite, of a wrong type, in the future) is left out of
  what is said, and named. What is left is of the types that docs/status.md gives.
- What this release does not know is left as it is: a newer one may have written it.

Any thread.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from mbframework.files import Files
from mbframework.spool import layout

_MAX_STATUS = 1 << 20
#: Of the status files.
_SCHEMA = 1
_NAMED = 3
#: A million messages a second for thirty years.
_MOST = 10**15
#: Seconds since 1970 at the end of the last year that a calendar has.
_LAST = 253_402_300_800
#: The parts of a file are made one behind the other; nanoseconds.
_MOMENT = 10 * 10**9
_YEAR = 366 * 86_400 * 10**9
#: Seconds by which two clocks may differ without one of them having been set.
_JUMP_S = 2.0


def read(files: Files, path: str) -> tuple[dict[str, Any], str]:
    """What a status file says, and what is wrong with it; "" also where there is none. Raises nothing."""
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
    wrong = leave_out_nonsense(facts, files.boot_id().hex(), files.boot_ns())
    schema = facts.get("schema")
    if schema != _SCHEMA:
        # What a newer release says is taken as far as it is understood.
        shown = "missing" if schema is None else f"{schema!r:.40}" if isinstance(schema, int | str) else "no number"
        return facts, f"its schema is {shown}; this release knows {_SCHEMA}"
    if wrong:
        named = ", ".join(wrong[:_NAMED]) + (f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else "")
        return facts, f"no engine writes what stands in {named}; that is left out until it is written anew"
    return facts, ""


def age(files: Files, told: Mapping[str, Any]) -> float | None:
    """Seconds since the heartbeat, exact within a boot; None where there is none of this boot."""
    beat: int | None = told.get("heartbeat_boot_ns")
    if beat is None or told.get("boot_id") != files.boot_id().hex():
        return None
    return max(0.0, (files.boot_ns() - beat) / 1e9)


def instant(files: Files, boot_ns: int) -> float:
    """An instant of this boot in seconds since 1970, as the wall clock counts now."""
    return (files.wall_ns() - files.boot_ns() + boot_ns) / 1e9


def instant_of(files: Files, told: Mapping[str, Any], section: Mapping[str, Any], name: str) -> float | None:
    """An instant in a section of what was told: of this boot by the boot clock, else as the wall clock had it then."""
    boot_ns = section.get(f"{name}_boot_ns")
    if boot_ns and told.get("boot_id") == files.boot_id().hex():
        return instant(files, boot_ns)
    return section.get(name) or None


def clock_jump(told: float, since: float) -> float:
    """By how many seconds the wall clock was set since an instant that it gave as ``told``, and now as ``since``."""
    return round(since - told, 1) if abs(since - told) >= _JUMP_S else 0.0


def leave_out_nonsense(facts: dict[str, Any], boot_id: str, boot_ns: int) -> list[str]:
    """Take out of ``facts`` what cannot be true, now, by the boot clock; the names of it. Changes ``facts`` only."""
    wrong = []
    for name, fits in _FIELDS.items():
        section, _, field = name.rpartition(".")
        table = facts.get(section) if section else facts
        if isinstance(table, dict) and field in table and not fits(table[field]):
            del table[field]
            wrong.append(name)
    # Whoever wrote this did so in the past, and what it tells had happened by then.
    beat = facts.get("heartbeat_boot_ns")
    if beat is not None and facts.get("boot_id") == boot_id and beat > boot_ns:
        beat = None
        wrong.append("heartbeat_boot_ns")
        del facts["heartbeat_boot_ns"]
    for section, field, ahead in _INSTANTS:
        table = facts.get(section, {}) if section else facts
        at = table.get(f"{field}_boot_ns")
        if at is not None and beat is not None and at > beat + ahead:
            wrong.append(f"{section}.{field}_boot_ns".lstrip("."))
            del table[f"{field}_boot_ns"]
            table.pop(field, None)
    return wrong


def _text(value: object) -> bool:
    return isinstance(value, str)


def _flag(value: object) -> bool:
    return isinstance(value, bool)


def _table(value: object) -> bool:
    return isinstance(value, dict)


def _whole(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < most


def _count(value: object) -> bool:
    return _whole(value, _MOST)


def _size(value: object) -> bool:
    return _whole(value, layout.U64_LIMIT)


def _limit(value: object) -> bool:
    return value is None or _whole(value, layout.U64_LIMIT)


def _process(value: object) -> bool:
    return _whole(value, 1 << 31) and value != 0


def _boot(value: object) -> bool:
    return _whole(value, layout.U64_LIMIT)


def _instant(value: object) -> bool:
    """Seconds since 1970; 0: never."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _LAST


def _interval(value: object) -> bool:
    """Seconds; a silence is told within a day."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 86_400


#: Those that the files have in common with what they tell of, a table in front of what is in it.
_FIELDS: Mapping[str, Callable[[object], bool]] = {
    "pid": _process,
    "host": _text,
    "boot_id": _text,
    "heartbeat_boot_ns": _boot,
    "heartbeat": _instant,
    "interval": _interval,
    "lane": _text,
    "state": _text,
    "reason": _text,
    "since": _instant,
    "since_boot_ns": _boot,
    "closed": _flag,
    # Of a writer.
    "mode": _text,
    "sends": _flag,
    "live": _flag,
    "epoch": _count,
    "accepted": _count,
    "accepted_bytes": _size,
    "live_accepted": _count,
    "spooled": _count,
    "inline_prepared": _count,
    "sealed": _count,
    "disk_error": _text,
    "full": _text,
    "on_full": _text,
    "limits": _table,
    "limits.total_size": _limit,
    "limits.segment_size": _limit,
    "limits.max_segments": _limit,
    "limits.shared_total_size": _limit,
    "limits.shared_used": _limit,
    "events_dropped": _count,
    # Of a sender.
    "provider": _text,
    "up": _flag,
    "paused": _flag,
    "blocked": _text,
    "trouble": _table,
    "trouble.text": _text,
    "trouble.began": _instant,
    "trouble.began_boot_ns": _boot,
    "trouble.last": _instant,
    "trouble.last_boot_ns": _boot,
    "trouble.count": _count,
    "trouble.retry_at": _instant,
    "trouble.retry_at_boot_ns": _boot,
    "traffic": _table,
    "traffic.batches": _count,
    "traffic.failures": _count,
    "traffic.retries": _count,
    "traffic.bytes": _size,
    "traffic.last_delivered": _instant,
    "traffic.last_delivered_boot_ns": _boot,
    "acknowledged": _table,
    "acknowledged.buffer": _text,
    "acknowledged.provider": _text,
    "acknowledged.next": _size,
    "acknowledged.lost": _count,
    "order_violations": _count,
    "facts": _table,
    "observer_events_dropped": _count,
}
#: Instants that the boot clock has as well: table, field, and by how much they may lie ahead of the heartbeat.
_INSTANTS = (
    ("", "since", _MOMENT),
    ("trouble", "began", _MOMENT),
    ("trouble", "last", _MOMENT),
    ("trouble", "retry_at", _YEAR),
    ("traffic", "last_delivered", _MOMENT),
)
