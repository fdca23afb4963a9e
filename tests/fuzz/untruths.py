"""Lies about a segment: what damage alone does not do, since a checksum would tell of it.

Promises: each makes right the checksums of what it changes, or most of them; where frames and the seal stand now is
kept in the segment, so that :mod:`tests.fuzz.resealing` finds them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

from mbframework.spool import frame, layout
from tests.fuzz import mutation
from tests.fuzz.memory import NOW_NS

if TYPE_CHECKING:
    from tests.fuzz.lanes import Lane, Segment


def _lie_header(_: Lane, segment: Segment, chance: Random) -> None:
    mutation.several(chance, lambda: mutation.change_field(segment.data, 0, mutation.SEGMENT, chance))
    if chance.random() < 0.2:
        salt = chance.randrange(1, 1 << 32)
        mutation.resalt(segment.data, salt, list(segment.frames))
    mutation.reseal_record(segment.data, 0, 256)


def salt_of(segment: Segment) -> int:
    """The salt that its header tells."""
    return int.from_bytes(segment.data[32:36], "little")


def _lie_frame(_: Lane, segment: Segment, chance: Random) -> None:
    if not segment.frames:
        return
    at = chance.choice(list(segment.frames))
    length = segment.frames[at]
    how = chance.randrange(4)
    if how <= 1:
        mutation.several(chance, lambda: mutation.change_field(segment.data, at, mutation.FRAME, chance))
    elif how == 2:
        # The columns: their numbers stand at the front of the body.
        mutation.poke(segment.data, at + 40 + 2 * chance.randrange(max(1, length // 4)), chance.choice((2, 4)), chance)
    else:
        mutation.damage(segment.data, chance, at + 40, at + length)
    mutation.reseal_frame(segment.data, at, salt_of(segment), body=chance.random() < 0.8)


def _lie_seal(_: Lane, segment: Segment, chance: Random) -> None:
    if not segment.seal:
        return
    at = segment.seal
    fields = mutation.SEAL_BODY if chance.random() < 0.7 else mutation.FRAME
    mutation.change_field(segment.data, at, fields, chance)
    if chance.random() < 0.3:
        mutation.poke(segment.data, len(segment.data) - 16, 8, chance)
    mutation.reseal_seal(segment.data, at, salt_of(segment))


def _lie_copy(lane: Lane, segment: Segment, chance: Random) -> None:
    """A frame of one place at another, of this segment or the next."""
    source = chance.choice(lane.segments)
    if not source.frames:
        return
    at = chance.choice(list(source.frames))
    raw = source.data[at : at + source.frames[at]]
    to = chance.choice([*segment.frames, len(segment.data) & ~7, chance.randrange(4096, len(segment.data) + 8) & ~7])
    segment.data[to : to + len(raw)] = raw
    # What stood where it stands now is gone.
    segment.frames = {each: size for each, size in segment.frames.items() if not to - 40 < each < to + len(raw)}
    segment.frames[to] = len(raw)
    if segment.seal < to + len(raw):
        segment.seal = 0
    mutation.reseal_frame(segment.data, to, salt_of(segment), body=False)


def _lie_bomb(_: Lane, segment: Segment, chance: Random) -> None:
    """Headers that claim much, each with a right CRC, as many as there is room for."""
    data, salt = segment.data, salt_of(segment)
    del data[layout.FIRST_FRAME :]
    segment.seal = 0
    size = 1 << chance.randrange(8, 15)
    step = chance.choice((40, 48, 64))
    rising = chance.randrange(3)
    first = segment.first
    for at in range(layout.FIRST_FRAME, layout.FIRST_FRAME + size, step):
        length = chance.choice((size, layout.FIRST_FRAME + size - at, 40 + 4 * 1000, layout.MAX_FRAME, step))
        count = chance.choice((1, 2, 1000, 65_536))
        data += struct.pack("<4sIQqI12x", b"MBF1", length, first, NOW_NS, count).ljust(step, b"\0")
        first += rising
    segment.frames = dict.fromkeys(range(layout.FIRST_FRAME, len(data), step), step)
    for at in segment.frames:
        mutation.reseal_frame(data, at, salt, body=False)


def _lie_many(_: Lane, segment: Segment, chance: Random) -> None:
    """Very many messages in few bytes."""
    data, salt = segment.data, salt_of(segment)
    del data[layout.FIRST_FRAME :]
    count = chance.choice((100, 1000, 8000))
    data += frame.encode_many(salt, segment.first, NOW_NS, b"", [b""] * count)
    segment.frames, segment.seal = {layout.FIRST_FRAME: len(data) - layout.FIRST_FRAME}, 0
    if chance.random() < 0.5:
        mutation.change_field(data, layout.FIRST_FRAME, mutation.FRAME, chance)
        mutation.reseal_frame(data, layout.FIRST_FRAME, salt)


def _lie_name(lane: Lane, segment: Segment, chance: Random) -> None:
    """The file under another name, or a second time under one."""
    first = chance.choice((1, 2, segment.first + 1, segment.end, 1 << 40, layout.U64_LIMIT - 1, segment.first))
    name = chance.choice((layout.sealed_name, layout.unsealed_name))(first)
    if chance.random() < 0.3:
        name = layout.prepared_name(chance.randrange(1, 1 << 32))
    taken = {each.name for each in lane.segments} | set(lane.others)
    if name in taken:
        return
    if chance.random() < 0.5:
        segment.name = name
    else:
        lane.segments.append(replace(segment, name=name, data=segment.data[:], frames=dict(segment.frames)))


def _lie_swap(lane: Lane, segment: Segment, chance: Random) -> None:
    other = chance.choice(lane.segments)
    for part in ("data", "frames", "seal"):
        mine, its = getattr(segment, part), getattr(other, part)
        setattr(segment, part, its)
        setattr(other, part, mine)


def _lie_gone(lane: Lane, segment: Segment, chance: Random) -> None:
    if len(lane.segments) > 1:
        lane.segments.remove(segment)


#: Each as often as it says.
OF_SEGMENTS: Mapping[Callable[[Lane, Segment, Random], Any], int] = {
    _lie_header: 5,
    _lie_frame: 8,
    _lie_seal: 4,
    _lie_copy: 3,
    _lie_bomb: 1,
    _lie_many: 1,
    _lie_name: 2,
    _lie_swap: 1,
    _lie_gone: 1,
}
