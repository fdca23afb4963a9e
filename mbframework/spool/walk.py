"""Going through the frames of one segment's file: where it ends, and what stands behind damage.

Promises: reads only. A frame counts where it is whole, intact and of this segment's salt; nothing else is believed.
Any thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mbframework.spool import frame, layout, seal
from mbframework.spool.frame import FrameHeader
from mbframework.spool.remains import Reads
from mbframework.spool.segment_header import SegmentHeader

_WINDOW = 1 << 20
#: The first look, since most often the next intact frame is near.
_NEAR = 1 << 16


@dataclass(frozen=True, slots=True)
class Walked:
    """The end of an unsealed segment: one past its last intact sequence, and the offset behind it."""

    end: int
    offset: int
    frames: int
    sealed: bool
    highest: int


def walk(
    files: Reads, fd: int, header: SegmentHeader, offset: int, sequence: int, *, search: bool = True,
    limit: int | None = None,
) -> Walked:  # fmt: skip
    """The end of a segment, from a frame at ``offset`` on.

    :param sequence: that of the frame at ``offset``; 0: whatever stands there. Where no intact frame stands, the
        walk begins at the front.
    :param search: look for intact frames behind one that is not.
    :param limit: the end that the successor tells: frames beyond it are hidden.
    """
    base, window = offset, files.pread(fd, _WINDOW, offset)
    begin = frame.read_header(window, 0, header.salt) if offset >= layout.FIRST_FRAME else None
    if begin is None or (sequence and begin.first != sequence) or begin.first < header.first:
        if (offset, sequence) != (layout.FIRST_FRAME, header.first):
            return walk(files, fd, header, layout.FIRST_FRAME, header.first, limit=limit)
        at = header.first
    else:
        at = begin.first
    frames = highest = 0
    end_offset = offset
    while True:
        place = offset - base
        if place + frame.HEADER_SIZE > len(window):
            base, window, place = offset, files.pread(fd, _WINDOW, offset), 0
        found = frame.read_header(window, place, header.salt)
        if found is not None and place + found.length > len(window):
            base, window, place = offset, files.pread(fd, max(_WINDOW, found.length), offset), 0
        if found is not None and found.first >= at and (limit is None or found.first + found.count <= limit):
            if frame.is_seal(found):
                if frame.read_body(window, place, header.salt, found) is not None:
                    return Walked(found.first, offset, frames, True, highest)
            elif frame.read_body(window, place, header.salt, found) is not None:
                at = found.first + found.count
                frames += 1
                highest = found.accepted
                offset = end_offset = frame.next_offset(offset, found.length)
                continue
        survivor = find_frame(files.pread, fd, header.salt, offset + 8, at, limit) if search else None
        if survivor is None:
            return Walked(at, end_offset, frames, False, highest)
        offset = survivor[0]


def sealed_end(files: Reads, fd: int, header: SegmentHeader, size: int) -> int:
    """One past the last sequence of a sealed segment: by its seal, else by walking."""
    trailer = files.pread(fd, seal.TRAILER_SIZE, max(0, size - seal.TRAILER_SIZE))
    offset = seal.read_trailer(trailer, header.salt)
    if offset is not None:
        stored = seal.unpack(files.pread(fd, max(0, size - offset), offset), 0, header.salt)
        if stored is not None and stored.offset == offset:
            return stored.end
    return walk(files, fd, header, layout.FIRST_FRAME, header.first).end


def find_frame(
    pread: Callable[[int, int, int], bytes], fd: int, salt: int, start: int, at: int, end: int | None
) -> tuple[int, FrameHeader] | None:
    """The first whole, intact frame (or seal) at or after offset ``start`` whose sequences lie in [at, end].

    The time is that of reading so far, whatever the frames on the way claim: nothing begins inside of one.

    :param pread: reads from ``fd`` so many bytes at an offset, as :meth:`Files.pread`.
    """
    offset, size = layout.align8(start), _NEAR
    while True:
        window = pread(fd, size, offset)
        size = _WINDOW
        if len(window) < frame.HEADER_SIZE:
            return None
        place = frame.find_marker(window, 0)
        while 0 <= place <= len(window) - frame.HEADER_SIZE:
            header = frame.read_header(window, place, salt)
            behind = place + 8
            if header is not None and header.first >= at and (end is None or header.first + header.count <= end):
                if frame.decode(pread(fd, header.length, offset + place), 0, salt, header) is not None:
                    return offset + place, header
                behind = frame.next_offset(place, header.length)
            place = frame.find_marker(window, behind) if behind < len(window) else behind
        # A marker in the last bytes is looked at again with what follows it.
        step = len(window) - frame.HEADER_SIZE + 1 if place < 0 else place
        offset += max(8, step & ~7)
