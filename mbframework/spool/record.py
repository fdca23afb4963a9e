"""Records that end with the CRC of what stands before them: segment headers, and the slots of head and seek.

Promises: pure functions on bytes, any thread. Bytes that are not intact give None, never an error; what is intact and
not of this format raises :class:`~mbframework.errors.UnsupportedFormat`.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Sequence
from operator import attrgetter
from struct import Struct
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from mbframework.errors import UnsupportedFormat
from mbframework.speedups import crc32
from mbframework.spool.layout import FORMAT_MAJOR, FORMAT_MINOR, FORMATS, SLOT_COUNT, SLOT_SIZE, SLOT_STRIDE, U64_LIMIT

_U32 = Struct("<I")


class Slot(Protocol):
    """A dataclass whose fields are those of a slot, behind its magic and version, in the order of the bytes."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def generation(self) -> int:
        """Rises with every slot that is written; the highest valid one counts."""

    @property
    def incompatible(self) -> int:
        """Features that a reader must know."""


_S = TypeVar("_S", bound=Slot)


class SlotFormat(Generic[_S]):
    """The bytes of one kind of slot. ``fields``: the format of its fields, as for ``struct``; ``thing``: its name in
    errors."""

    def __init__(self, kind: type[_S], magic: bytes, thing: str, fields: str) -> None:
        self._kind = kind
        self._start = magic, FORMAT_MAJOR, FORMAT_MINOR
        self._thing = thing
        self._struct = Struct("<4sHH" + fields)
        self._names = [field.name for field in dataclasses.fields(kind)]
        self._values = attrgetter(*self._names)

    def pack(self, slot: _S) -> bytes:
        """The slot's 512 bytes.

        :raises ValueError: a field is out of its range.
        """
        values = *self._start, *self._values(slot)
        try:
            raw = self._struct.pack(*values)
        except struct.error as error:
            raise ValueError(f"a number of {slot} is not within its range: {error}") from None
        # Bytes that are too long or too short are cut or filled without a word.
        if self._struct.unpack(raw) != values or not _fit(values):
            raise ValueError(f"{slot}; expected numbers below 2^63, and ids of the length that the format gives them")
        return close_record(raw)

    def unpack(self, buf512: bytes) -> _S | None:
        """The slot in these 512 bytes, or None where they are torn, damaged or empty.

        :raises UnsupportedFormat: intact, of another major version or with an unknown feature.
        """
        if len(buf512) != SLOT_SIZE or not buf512.startswith(self._start[0]) or not record_is_intact(buf512):
            return None
        _, major, _, *values = self._struct.unpack_from(buf512)
        check_version(self._thing, major)
        slot = self._kind(**dict(zip(self._names, values, strict=True)))
        check_version(self._thing, major, slot.incompatible)
        return slot if _fit(values) else None


def close_record(fields: bytes) -> bytes:
    """``fields`` followed by their unsalted CRC."""
    return fields + _U32.pack(crc32(fields))


def record_is_intact(record: bytes) -> bool:
    """Whether ``record`` ends with the CRC of what stands before it."""
    return len(record) > 4 and _U32.pack(crc32(record[:-4])) == record[-4:]


def check_version(thing: str, major: int, incompatible: int = 0) -> None:
    """Refuse what is intact but not of this format.

    :raises UnsupportedFormat: the major version, or a bit of ``incompatible``, is unknown.
    """
    if major not in FORMATS:
        known = " and ".join(map(str, FORMATS))
        raise UnsupportedFormat(
            f"{thing} has format {major}; this release reads format {known}: open it with the release that wrote it"
        )
    if incompatible:
        raise UnsupportedFormat(
            f"{thing} needs features {incompatible:#x}, of which this release knows none: "
            "open it with the release that wrote it"
        )


def newest_slot(buf: bytes, unpack: Callable[[bytes], _S | None]) -> tuple[_S | None, int, bool]:
    """The valid slot with the highest generation, its index (0 where there is none), and whether any slot is
    invalid: then a reader that races a writer reads again. All zeros, or past the end, is empty, not invalid.

    :raises UnsupportedFormat: any slot is intact but unknown: which one is newest cannot be said.
    """
    newest: _S | None = None
    index = 0
    any_invalid = False
    for number in range(SLOT_COUNT):
        raw = buf[number * SLOT_STRIDE : number * SLOT_STRIDE + SLOT_SIZE]
        slot = unpack(raw)
        if slot is None:
            any_invalid = any_invalid or any(raw)
        elif newest is None or slot.generation > newest.generation:
            newest, index = slot, number
    return newest, index, any_invalid


def _fit(values: Sequence[object]) -> bool:
    """Whether every number stays below the limit of the format."""
    return all(value < U64_LIMIT for value in values if isinstance(value, int))
