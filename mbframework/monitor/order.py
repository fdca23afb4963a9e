"""The events of both halves of a lane, in the order in which they happened.

Promises: pure, and total. The order within each half stays as it is. Of one boot both halves are merged by its clock,
which nobody sets; lines that do not tell of which boot they are, by the wall clock. Boots are in the order in which the
halves have them, and by the wall clock where only one of them has a boot.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from mbframework.monitor.view import Event
from mbframework.spool import layout

_BOOT_ID = re.compile("[0-9a-f]{32}")


def boot_of(facts: Mapping[str, Any]) -> tuple[str, int]:
    """Of which boot a line is, and when in it, in nanoseconds; "" and 0 where it does not tell."""
    boot_id, boot_ns = facts.get("boot_id"), facts.get("boot_ns")
    if not isinstance(boot_id, str) or not _BOOT_ID.fullmatch(boot_id):
        return "", 0
    if isinstance(boot_ns, bool) or not isinstance(boot_ns, int) or not 0 <= boot_ns < layout.U64_LIMIT:
        return "", 0
    return boot_id, boot_ns


def merged(one: Sequence[Event], other: Sequence[Event]) -> list[Event]:
    """Both halves, each the oldest first, together."""
    left, right = _boots(one), _boots(other)
    # How often each boot is still to come.
    mine_left, theirs_left = (Counter(boot for boot, _ in half) for half in (left, right))
    found: list[Event] = []

    def take(half: list[tuple[str, list[Event]]], remaining: Counter[str]) -> list[Event]:
        boot, events = half.pop()
        remaining[boot] -= 1
        return events

    while left and right:
        (mine, first), (theirs, second) = left[-1], right[-1]
        if mine == theirs:
            found += heapq.merge(first, second, key=lambda event: boot_of(event.facts)[1] if mine else event.at)
            take(left, mine_left)
            take(right, theirs_left)
        elif theirs_left[mine]:
            found += take(right, theirs_left)
        elif mine_left[theirs] or first[0].at <= second[0].at:
            found += take(left, mine_left)
        else:
            found += take(right, theirs_left)
    for _, events in (*reversed(left), *reversed(right)):
        found += events
    return found


def _boots(events: Sequence[Event]) -> list[tuple[str, list[Event]]]:
    """The events boot by boot, the oldest boot last."""
    return [(boot, list(group)) for boot, group in groupby(events, lambda event: boot_of(event.facts)[0])][::-1]
