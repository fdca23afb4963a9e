"""Damage to bytes: what disks, crashes and people do to them, and what an attacker would.

Promises: everything follows from ``chance`` alone, which may be a :class:`random.Random`, Hypothesis's, or one that
draws from the bytes of a coverage-guided fuzzer. Nothing becomes much longer than it was.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import TypeAlias, TypeVar

#: Where a structure's numbers stand: (offset, bytes).
Fields: TypeAlias = Sequence[tuple[int, int]]
_T = TypeVar("_T")

_EDGES = [edge for bits in (0, 1, 2, 3, 8, 12, 15, 16, 20, 24, 31, 32, 48, 62, 63, 64) for edge in (1 << bits,)]

FRAME: Fields = ((0, 4), (4, 4), (8, 8), (16, 8), (24, 4), (28, 2), (30, 2), (32, 4), (36, 4))
SEGMENT: Fields = (
    (0, 8), (8, 2), (10, 2), (12, 4), (16, 4), (20, 4), (24, 4), (28, 4), (32, 4), (36, 4), (40, 16), (56, 16), (72, 8),
    (80, 8), (88, 8), (96, 8), (104, 8), (112, 16), (128, 8), (136, 2), (138, 8),
)  # fmt: skip
SEAL_BODY: Fields = (*((at, 8) for at in range(40, 96, 8)), (96, 4), (100, 4), (104, 4))
SEEK: Fields = (
    (0, 4), (4, 2), (6, 2), (8, 8), (16, 16), *((at, 8) for at in range(32, 136, 8)), (136, 4), (140, 2), (142, 2),
    (144, 8), (152, 16), (168, 8), (176, 8), (184, 8), (500, 8),
)  # fmt: skip
HEAD: Fields = (
    (0, 4), (4, 2), (6, 2), (8, 8), (16, 16), (32, 16), (48, 16), *((at, 8) for at in range(64, 208, 8)), (208, 4),
    (212, 4), (216, 8), (248, 8),
)  # fmt: skip
LIVE: Fields = ((0, 8), (8, 16), (24, 16), *((at, 8) for at in range(40, 88, 8)))
RING_HEADER: Fields = ((0, 8), (8, 2), (10, 2), (12, 4), (16, 4), (20, 4), (24, 16), (40, 16), (56, 4))
RING_RECORD: Fields = ((0, 8), (8, 8), *((at, 8) for at in range(16, 64, 8)), (64, 4))


def pick(chance: Random, ways: Mapping[_T, int]) -> _T:
    """One of ``ways``, each as often as it says."""
    return chance.choices(list(ways), list(ways.values()))[0]


def number_like(chance: Random, old: int, size: int) -> int:
    """A number of ``size`` bytes that may break something."""
    most = (1 << 8 * size) - 1
    how = chance.randrange(5)
    if how == 0:
        return chance.choice(_EDGES) - chance.randrange(3) & most
    if how == 1:
        return old + chance.choice((-8, -4, -2, -1, 1, 2, 4, 8, 40, 4096)) & most
    if how == 2:
        return old ^ 1 << chance.randrange(8 * size)
    if how == 3:
        return chance.randrange(64)
    return chance.randrange(most + 1)


def poke(data: bytearray, at: int, size: int, chance: Random) -> None:
    """Another number in place of the one at ``at``, as far as the data reaches."""
    size = min(size, len(data) - at)
    if size > 0:
        old = int.from_bytes(data[at : at + size], "little")
        data[at : at + size] = number_like(chance, old, size).to_bytes(size, "little")


def change_field(data: bytearray, start: int, fields: Fields, chance: Random) -> None:
    """One of the numbers of the structure at ``start``."""
    at, size = chance.choice(fields)
    poke(data, start + at, size, chance)


def damage(data: bytearray, chance: Random, low: int = 0, high: int | None = None) -> None:
    """One harm to the bytes from ``low`` to ``high``."""
    end = min(len(data), len(data) if high is None else high)
    if low >= end:
        return
    at = chance.randrange(low, end)
    how = chance.randrange(8)
    if how <= 1:
        data[at] ^= 1 << chance.randrange(8)
    elif how == 2:
        data[at] = chance.randrange(256)
    elif how == 3:
        size = min(end - at, chance.choice((1, 4, 8, 40, 300, 512, 4096)))
        data[at : at + size] = bytes(size)
    elif how == 4:
        size = min(end - at, chance.choice((1, 4, 8, 40, 300)))
        data[at : at + size] = chance.randbytes(size)
    elif how == 5:
        poke(data, at & ~3, chance.choice((2, 4, 8)), chance)
    elif how == 6:
        # A piece of it over another.
        start = chance.randrange(low, end)
        size = min(end - max(at, start), chance.choice((8, 40, 64, 512, 4096)))
        data[at : at + size] = data[start : start + size]
    else:
        start, size = chance.randrange(low, end) & ~7, chance.choice((8, 40, 64, 512))
        piece = bytes(data[start : start + size])
        data[at & ~7 : (at & ~7) + len(piece)] = piece


def resize(data: bytearray, chance: Random) -> None:
    """Cut it, or go on behind its end."""
    how = chance.randrange(4)
    if how <= 1 and data:
        del data[chance.randrange(len(data)) :]
    elif how == 2:
        data += bytes(chance.choice((1, 8, 16, 4096)))
    else:
        data += chance.randbytes(chance.choice((1, 8, 100)))


# ---- checksums made right again


def reseal_frame(data: bytearray, at: int, salt: int, *, body: bool = True) -> None:
    """The CRCs of the frame at ``at``, by the length that it claims; ``body``: that of its body as well."""
    if at + 40 > len(data):
        return
    if body:
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        data[at + 32 : at + 36] = _crc(data[at + 40 : max(at + 40, at + length)], salt)
    data[at + 36 : at + 40] = _crc(data[at : at + 36], salt)


def reseal_seal(data: bytearray, at: int, salt: int, *, whole: bool = False) -> None:
    """The CRCs of the seal at ``at``: of its trailer, its body, its header; ``whole``: of the file in front as well."""
    length = int.from_bytes(data[at + 4 : at + 8], "little")
    if whole and at + 108 <= len(data) and any(data[at + 100 : at + 104]):
        data[at + 104 : at + 108] = _crc(data[:at], salt)
    trailer = at + length - 16
    if at + 56 <= trailer <= len(data) - 16:
        data[trailer + 12 : trailer + 16] = _crc(data[trailer : trailer + 12], salt)
    reseal_frame(data, at, salt)


def reseal_record(data: bytearray, start: int, end: int) -> None:
    """The unsalted CRC that the bytes from ``start`` to ``end`` close with."""
    if len(data) >= end:
        data[end - 4 : end] = _crc(data[start : end - 4], 0)


def reseal_frames(data: bytearray, starts: Iterable[int], salt: int) -> None:
    """The CRCs of all these frames, from the last to the first: a body that claims too much holds those behind it."""
    for at in sorted(starts, reverse=True):
        reseal_frame(data, at, salt)


def resalt(data: bytearray, salt: int, frames: Sequence[int]) -> None:
    """Another salt, for the header and for the frames at these offsets."""
    struct.pack_into("<I", data, 32, salt)
    reseal_record(data, 0, 256)
    for at in frames:
        reseal_frame(data, at, salt)


def _crc(data: bytes | bytearray, salt: int) -> bytes:
    return zlib.crc32(data, salt).to_bytes(4, "little")


def several(chance: Random, act: Callable[[], object], most: int = 4) -> None:
    """Once, or a few times."""
    for _ in range(1 + min(chance.randrange(most), chance.randrange(most))):
        act()
