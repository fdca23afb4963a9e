"""Status files, event lines, requests and other JSON, as written and as nobody would write them.

Promises: everything follows from ``chance``.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any

from tests.fuzz import mutation
from tests.fuzz.memory import BOOT, NOW_NS, WALL_NS

#: What JSON can say that a program may not expect; as text, since Python's encoder would not say some of it.
HOSTILE = (
    "null", "true", "false", "0", "-1", "1e308", "1e999", "-1e999", "NaN", "Infinity", "-Infinity", "1" * 400,
    "9223372036854775807", "9223372036854775808", "-9223372036854775809", "1.5", '""', '"\\u0000\\u001b[31m"',
    '"\\ud800"', '"' + "x" * 2000 + '"', "[]", "{}", "[[]]", '{"a": 1}', "[1, 2, 3]", '[null, "x", {}]',
    "[" * 60 + "]" * 60, '"live"', '"\\u202e\\u2028"', "1" * 5000, '{"": ""}', '"[red]x[/red]"',
)  # fmt: skip
_KINDS = (
    "opened", "recovered", "closed", "state", "hand-over", "mode", "control", "failure", "provider-back", "blocked",
    "position", "order-violation", "dead", "expired", "lost", "purge", "prune", "removed", "seal", "room", "disk-error",
    "disk-well", "", "newer kind",
)  # fmt: skip
_FIELDS = (
    "pid", "next", "messages", "bytes", "seconds", "notes", "lost", "state", "before", "after", "reason", "uncertain",
    "retry_wait_s", "failures", "error", "sequence", "skipped", "topic", "limit_s", "segments", "undelivered", "first",
    "last", "segment", "action", "uid", "result",
)  # fmt: skip
ACTIONS = ("pause", "resume", "retry", "mode", "purge", "dead-replay", "dead-drop")


def status_file(chance: Random) -> bytes:
    """Of a writer or a sender."""
    return json.dumps(
        {
            "schema": 1, "pid": 1, "boot_id": BOOT.hex(), "heartbeat_boot_ns": NOW_NS - 10**8, "mode": "buffer",
            "state": chance.choice(("live", "buffering", "draining")), "since": WALL_NS / 1e9, "reason": "why",
            "sends": True, "trouble": {"text": "no", "last": 1.0, "count": 2, "began": 1.0, "retry_at": 2.0},
            "provider": "kafka", "blocked": "", "facts": {"broker": "b"}, "order_violations": 0,
        }
    ).encode()  # fmt: skip


def event_line(chance: Random) -> bytes:
    """One line, with its end."""
    facts: dict[str, Any] = {"schema": 1, "at": WALL_NS / 1e9, "boot_ns": NOW_NS, "kind": chance.choice(_KINDS)}
    for name in chance.sample(_FIELDS, chance.randrange(5)):
        facts[name] = chance.choice((0, 1, 17, "text", "another", ["note"]))
    return json.dumps(facts).encode() + b"\n"


def request(chance: Random, number: str) -> bytes:
    """One that an engine would execute."""
    action = chance.choice(ACTIONS)
    arguments: dict[str, Any] = {}
    if action == "mode":
        arguments = {"mode": "always"}
    elif action.startswith("dead"):
        arguments = chance.choice(({"ids": [1, 2, 3]}, {"all": True}, {"all": True, "below": 9}))
    return json.dumps(
        {
            "schema": 1, "id": number, "action": action, "arguments": arguments, "pid": 1, "boot_id": BOOT.hex(),
            "boot_ns": NOW_NS - 10**8, "ttl_ns": 5 * 10**9,
        }
    ).encode()  # fmt: skip


def distort(raw: bytes, chance: Random) -> bytes:
    """JSON with hostile values, or JSON no more."""
    how = chance.randrange(4)
    if how == 0:
        data = bytearray(raw)
        mutation.several(chance, lambda: mutation.damage(data, chance))
        return bytes(data)
    if how == 1 and chance.random() < 0.3:
        return chance.choice(HOSTILE).encode()
    try:
        facts = json.loads(raw)
    except ValueError:
        return raw
    if not isinstance(facts, dict):
        return raw
    parts = {json.dumps(name): json.dumps(value) for name, value in facts.items()}
    for _ in range(chance.randrange(1, 4)):
        name = chance.choice(list(parts))
        way = chance.randrange(6)
        if way == 0:
            del parts[name]
            if not parts:
                break
        elif way == 1:
            parts[chance.choice(HOSTILE) if chance.random() < 0.1 else '"extra"'] = chance.choice(HOSTILE)
        else:
            parts[name] = chance.choice(HOSTILE)
    return ("{" + ", ".join(f"{name}: {value}" for name, value in parts.items()) + "}").encode()
