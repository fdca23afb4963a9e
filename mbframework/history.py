r"""The last minutes of a lane in a small file: what lets a monitor that has just begun draw the past.

Promises
--------
- Two files a lane, ``history.writer`` and ``history.sender``, each written by the process that holds that half, about
  once a second, in place; neither ever grows. Narration, not authority: a file that is missing, torn or hostile costs
  what it told, a damaged record only itself.
- Records hold counters, never rates: whoever reads takes differences, and only within one run. Messages count from
  the making of the buffer, bytes from the opening.
- Nothing is kept open between two records, so that neither a fork nor an abandoned thread inherits anything.

:class:`Ring` is for one thread at a time, the functions for any. A file is the header of 64 bytes and RECORDS records
of 72 (little-endian)::

     0  8s  magic "MBHIST\r\n"               0  u64 number, from 1 on; the place is (number - 1) % RECORDS
     8  u16 major, u16 minor                 8  8s  the first eight bytes of the run
    12  u32 record size, u32 records        16  u64 boot-time ns, i64 wall ns
    20  u32 half: 1 writer, 2 sender        32  u64 messages, bytes, then of a writer resident messages and
    24  16s boot id, 16s run                        bytes, of a sender discarded messages and 0
    56  u32 0, u32 CRC                      64  u32 0, u32 CRC
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Final, NamedTuple

from mbframework.errors import UnsupportedFormat
from mbframework.files import Files
from mbframework.spool.layout import FORMAT_MAJOR, FORMAT_MINOR, ID_SIZE, U64_LIMIT
from mbframework.spool.record import check_version, close_record, record_is_intact

WRITER_FILE: Final = "history.writer"
SENDER_FILE: Final = "history.sender"
#: Ten minutes of seconds.
RECORDS: Final = 600
HEADER_SIZE: Final = 64
RECORD_SIZE: Final = 72
FILE_SIZE: Final = HEADER_SIZE + RECORDS * RECORD_SIZE

_MAGIC = b"MBHIST\r\n"
_HEADER = Struct("<8sHHIII16s16sI")
_RECORD = Struct("<Q8sQq4QI")
_NUMBER = Struct("<Q")
_RUN = 8
_HALVES = {WRITER_FILE: 1, SENDER_FILE: 2}


class Written(NamedTuple):
    """A writer's counters: accepted, and what waits, on disk and in memory."""

    messages: int
    bytes: int
    resident_messages: int
    resident_bytes: int


class Sent(NamedTuple):
    """A sender's counters: delivered, and messages that left by any other account."""

    messages: int
    bytes: int
    discarded: int


@dataclass(frozen=True, slots=True)
class Record:
    """One second of the past. ``run`` tells openings apart; ``counters`` as in :class:`Written` or :class:`Sent`."""

    number: int
    run: bytes
    boot_ns: int
    wall_ns: int
    counters: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Past:
    """A file's content: its header's boot and run, which are those of the newest opening, and its records in order."""

    boot_id: bytes
    run: bytes
    records: list[Record]


class Ring:
    """The file ``name`` (WRITER_FILE or SENDER_FILE) of a lane, written by whoever holds that half. Making one touches
    nothing."""

    def __init__(self, files: Files, lane_path: str, name: str, mode: int = 0o600) -> None:
        self._files = files
        self._path = os.path.join(lane_path, name)
        self._name = name
        self._mode = mode
        self._run = files.random(ID_SIZE)
        self._number = 0

    def put(self, counters: Sequence[int]) -> None:
        """Add a record. A file that is missing, or not what it should be, is made anew. Raises OSError."""
        if not self._number:
            self._begin()
        fd = self._open()
        try:
            self._number += 1
            record = Record(
                self._number, self._run[:_RUN], self._files.boot_ns(), self._files.wall_ns(), _four(counters)
            )
            self._files.pwrite(fd, pack_record(record), place_of(self._number))
        finally:
            self._files.close(fd)

    def _begin(self) -> None:
        """Go on behind what an earlier opening wrote, where that can be read."""
        try:
            past = read(self._files, self._path, self._name)
        except UnsupportedFormat:
            # A newer release's: narration is not kept for it.
            past = None
        last = past.records[-1].number if past is not None and past.records else 0
        if past is None or last > U64_LIMIT // 2:
            self._make()
            return
        self._number = last
        fd = self._files.open(self._path)
        try:
            self._files.pwrite(fd, self._header(), 0)
        finally:
            self._files.close(fd)

    def _open(self) -> int:
        try:
            fd = self._files.open(self._path)
        except FileNotFoundError:
            self._make()
            return self._files.open(self._path)
        if self._files.fstat(fd).st_size == FILE_SIZE:
            return fd
        self._files.close(fd)
        self._make()
        return self._files.open(self._path)

    def _make(self) -> None:
        self._files.replace(self._path, self._header() + bytes(FILE_SIZE - HEADER_SIZE), self._mode)

    def _header(self) -> bytes:
        return pack_header(self._name, self._files.boot_id(), self._run)


def place_of(number: int) -> int:
    """Where in its file the record of this number stands."""
    return HEADER_SIZE + (number - 1) % RECORDS * RECORD_SIZE


def pack_header(name: str, boot_id: bytes, run: bytes) -> bytes:
    """The header of the file ``name``."""
    return close_record(
        _HEADER.pack(_MAGIC, FORMAT_MAJOR, FORMAT_MINOR, RECORD_SIZE, RECORDS, _HALVES[name], boot_id, run, 0)
    )


def pack_record(record: Record) -> bytes:
    """A record's 72 bytes; counters beyond their range are cut to it."""
    counters = (min(max(0, each), U64_LIMIT - 1) for each in record.counters)
    return close_record(_RECORD.pack(record.number, record.run, record.boot_ns, record.wall_ns, *counters, 0))


def unpack_record(raw: bytes, place: int) -> Record | None:
    """The record in these 72 bytes, which stand at ``place`` (0 to RECORDS − 1); None where there is none."""
    if len(raw) != RECORD_SIZE or not record_is_intact(raw):
        return None
    number, run, boot_ns, wall_ns, *counters, _ = _RECORD.unpack_from(raw)
    if not number or (number - 1) % RECORDS != place or max(number, boot_ns, *counters) >= U64_LIMIT:
        return None
    return Record(number, run, boot_ns, wall_ns, (counters[0], counters[1], counters[2], counters[3]))


def decode(raw: bytes, name: str, after: int = 0) -> Past | None:
    """A file's content; None where it is not the ring ``name``.

    :param after: only records of a higher number.
    :raises UnsupportedFormat: a newer release wrote it.
    """
    header = raw[:HEADER_SIZE]
    if len(header) < HEADER_SIZE or not header.startswith(_MAGIC) or not record_is_intact(header):
        return None
    _magic, major, _minor, size, count, half, boot_id, run, _ = _HEADER.unpack_from(header)
    check_version(f"the file {name}", major)
    if (size, count, half) != (RECORD_SIZE, RECORDS, _HALVES[name]):
        return None
    records = []
    for place in range(RECORDS):
        start = HEADER_SIZE + place * RECORD_SIZE
        # A glance before the CRC: most are known.
        if len(raw) < start + RECORD_SIZE or _NUMBER.unpack_from(raw, start)[0] <= after:
            continue
        record = unpack_record(raw[start : start + RECORD_SIZE], place)
        if record is not None:
            records.append(record)
    records.sort(key=lambda record: record.number)
    return Past(boot_id, run[:_RUN], records)


def read(files: Files, path: str, name: str, after: int = 0) -> Past | None:
    """What the file at ``path`` holds; None where it is missing, or no ring of that name.

    :raises UnsupportedFormat: a newer release wrote it.
    :raises OSError: it cannot be read.
    """
    try:
        fd = files.open(path, write=False)
    except FileNotFoundError:
        return None
    try:
        return decode(files.pread(fd, FILE_SIZE, 0), name, after)
    finally:
        files.close(fd)


def _four(counters: Sequence[int]) -> tuple[int, int, int, int]:
    """A sender has three."""
    first, second, third, fourth = (*counters, 0)[:4]
    return first, second, third, fourth
