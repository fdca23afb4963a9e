"""A request to the process that holds a lane: what it may ask, and how it is read. Pure.

Promises: :func:`checked` accepts what :func:`packed` has made, in the same boot and in time, and nothing else; the
arguments of a request that it returned are of the types that its action takes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from mbframework.spool import layout

Role: TypeAlias = 'Literal["writer", "sender"]'
#: Who answers what.
ROLES: Final[Mapping[str, Role]] = {
    "pause": "sender",
    "resume": "sender",
    "retry": "sender",
    "dead-drop": "sender",
    "purge": "sender",
    "mode": "writer",
    "dead-replay": "writer",
}
#: Bytes of a request, and of an answer, at most.
MOST_BYTES: Final = 1 << 18
#: Ids in one request, so that it is never too long.
MOST_IDS: Final = 10_000
#: Nanoseconds that a request holds at most.
LONGEST_NS: Final = 60 * 10**9


@dataclass(frozen=True, slots=True)
class Request:
    """One that was checked; ``pid`` says who asks, as far as it can be believed."""

    id: str
    action: str
    arguments: Mapping[str, Any]
    pid: int


class Refused(Exception):
    """Why a file is not a request to execute."""


def packed(
    number: str, action: str, arguments: Mapping[str, Any], *, pid: int, boot_id: str, now: int, timeout: float
) -> bytes:
    """The bytes of a request with the id ``number``, which holds from ``now`` (boot-clock nanoseconds) on for
    ``timeout`` seconds."""
    content = {
        "schema": 1,
        "id": number,
        "action": action,
        "arguments": dict(arguments),
        "pid": pid,
        "boot_id": boot_id,
        "boot_ns": now,
        "ttl_ns": min(int(timeout * 1e9), LONGEST_NS),
    }
    return json.dumps(content).encode()


def checked(raw: bytes, number: str, boot_id: str, now: int) -> Request:
    """The request in a file's bytes.

    :param number: the id that its name gives.
    :param now: boot-clock nanoseconds.
    :raises Refused: it is not one, or not one of now.
    """
    try:
        facts = json.loads(raw)
    except (ValueError, RecursionError):
        raise Refused("it is not JSON") from None
    if not isinstance(facts, dict) or facts.get("schema") != 1 or facts.get("id") != number:
        raise Refused("it is not a request of this release")
    action, arguments = facts.get("action"), facts.get("arguments")
    begun, ttl, pid = facts.get("boot_ns"), facts.get("ttl_ns"), facts.get("pid")
    if not isinstance(action, str) or action not in ROLES:
        raise Refused(f"there is no action {str(action)[:40]!r}")
    if type(begun) is not int or type(ttl) is not int or type(pid) is not int:
        raise Refused("it does not say when it was asked, or by whom")
    if facts.get("boot_id") != boot_id:
        raise Refused("it was asked before the machine was started")
    if not begun <= now <= begun + min(ttl, LONGEST_NS):
        raise Refused("it is too old")
    if not isinstance(arguments, dict):
        raise Refused("its arguments are not an object")
    _check_arguments(action, arguments)
    return Request(number, action, arguments, pid)


def _check_arguments(action: str, arguments: Mapping[str, Any]) -> None:
    if action == "mode":
        if set(arguments) != {"mode"} or not isinstance(arguments["mode"], str):
            raise Refused("mode takes one argument, 'mode', a text")
    elif action in ("dead-replay", "dead-drop"):
        ids, below = arguments.get("ids"), arguments.get("below", layout.U64_LIMIT)
        listed = isinstance(ids, list) and len(ids) <= MOST_IDS and all(map(_is_id, ids))
        everything = arguments.get("all") is True and (_is_id(below) or below == layout.U64_LIMIT)
        if not (set(arguments) == {"ids"} and listed) and not (set(arguments) <= {"all", "below"} and everything):
            raise Refused(f"{action} takes 'ids', a list of at most {MOST_IDS:,} numbers, or 'all' and 'below'")
    elif arguments:
        raise Refused(f"{action} takes no arguments")


def _is_id(value: object) -> bool:
    return type(value) is int and 0 < value < layout.U64_LIMIT


def ids_of(arguments: Mapping[str, Any]) -> Sequence[int]:
    """The ids that checked arguments stand for."""
    if "ids" in arguments:
        ids: list[int] = arguments["ids"]
        return ids
    return range(1, arguments.get("below", layout.U64_LIMIT))


def chunks(ids: Iterable[int], most: int) -> Iterable[list[int]]:
    """The ids in lists of at most ``most``, each fit for one request."""
    chunk: list[int] = []
    for each in ids:
        chunk.append(each)
        if len(chunk) == most:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
