"""Every checksum of a lane made right again, after whatever was done to its files.

Promises: what :func:`reseal` says is so. Where the bytes that a checksum is of go on past the end of the file, it is
that of those which are there; a structure whose own end is cut off has none.
"""

from __future__ import annotations

from collections.abc import Iterator

from mbframework import history
from mbframework.spool import layout
from tests.fuzz import mutation
from tests.fuzz.lanes import Lane, Segment
from tests.fuzz.untruths import salt_of


def reseal(lane: Lane) -> bool:
    """Make them right; False where that cannot be, since one is of bytes that hold another which is of it."""
    for name, data in lane.others.items():
        if name in (layout.HEAD_FILE, layout.SEEK_FILE):
            _reseal_records(data, 0, layout.SLOT_COUNT * layout.SLOT_STRIDE, layout.SLOT_STRIDE, layout.SLOT_SIZE)
        elif name in (history.WRITER_FILE, history.SENDER_FILE):
            mutation.reseal_record(data, 0, history.HEADER_SIZE)
            _reseal_records(data, history.HEADER_SIZE, len(data), history.RECORD_SIZE, history.RECORD_SIZE)
        elif name.startswith("dropped"):
            _reseal_records(data, 0, len(data), 24, 24)
        elif name.endswith(".seg"):
            # One that was made ahead holds zeros, until it is harmed.
            _reseal_records(data, 0, 256, 256, 256)
    for segment in lane.segments:
        _reseal_segment(segment)
    return not any(_reseal_segment(segment) for segment in lane.segments)


def _reseal_records(data: bytearray, start: int, end: int, stride: int, size: int) -> None:
    empty = bytes(size)
    for at in range(start, min(end, len(data)), stride):
        if data[at : at + size] != empty:
            mutation.reseal_record(data, at, at + size)


def _walk(data: bytearray) -> Iterator[int]:
    """Where a reader finds frames, who goes by the lengths that they claim."""
    at = layout.FIRST_FRAME
    while data[at : at + 4] == b"MBF1":
        yield at
        at += max(40, int.from_bytes(data[at + 4 : at + 8], "little")) + 7 & ~7


def _reseal_segment(segment: Segment) -> bool:
    """True where a checksum was another one before."""
    data, before = segment.data, bytes(segment.data)
    salt = salt_of(segment)
    mutation.reseal_record(data, 0, 256)
    mutation.reseal_frames(data, {*segment.frames, *_walk(data)}, salt)
    if segment.seal:
        mutation.reseal_seal(data, segment.seal, salt, whole=True)
    return data != before
