"""The messages of one lane on disk, by pages: for a look, a list, a copy.

Promises
--------
- Reads only and needs no lock: on lanes that are being written, sent and emptied meanwhile, and on dead ones.
- A page reads what it returns and, on the way there, at most the headers of the frames in front of it: no other body.
- What cannot be read is a :class:`Gap` of the page, at its place; a frame that is only being stored is *not yet*.
- Memory: a page, of whose values no more than ``value_limit`` bytes each are kept, and one frame (16 MiB).

One thread at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from mbframework.files import Files
from mbframework.message import NO_PARTITION, NO_TIMESTAMP, Header, unpack_headers
from mbframework.scan import Framed, Hole, Scan
from mbframework.spool import layout
from mbframework.spool.index import Entry as SegmentFile
from mbframework.spool.index import SegmentIndex
from mbframework.spool.segment_header import SegmentHeader, end_before, wall_of
from mbframework.spool.survey import read_head, read_live, read_seek
from mbframework.spool.walk import sealed_end, walk
from mbframework.verify import check_segment

#: Bytes of values with which a page ends.
_PAGE_BYTES = 32 << 20


class Entry(NamedTuple):
    """One message. Times are wall-clock nanoseconds, ``size`` is the bytes of topic, key, value and headers."""

    sequence: int
    topic: str
    key: bytes | None
    #: None: a tombstone. No longer than ``value_limit``; ``value_size`` is how long it is on disk (0 for none).
    value: bytes | None
    value_size: int
    headers: list[Header]
    timestamp: int | None
    partition: int | None
    accepted: int
    size: int
    #: The segment (its first sequence), and where in its file the message's frame begins.
    segment: int
    offset: int
    ordinal: int


class Gap(NamedTuple):
    """``messages`` messages that cannot be read, with sequences from ``first`` to ``last``; ``why`` in words."""

    first: int
    last: int
    messages: int
    why: str


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """A segment file. ``end`` is one past its last readable sequence; times are wall-clock nanoseconds of acceptance,
    None without a message. ``damage``: in words, empty where every byte is as it was written."""

    first: int
    end: int
    name: str
    size: int
    sealed: bool
    ordinal: int
    previous_end: int
    messages: int
    frames: int
    first_time: int | None
    last_time: int | None
    damage: tuple[str, ...]


class LaneBrowser:
    """See the module. ``path`` is the lane's directory."""

    def __init__(self, path: str, files: Files | None = None) -> None:
        self._files = files or Files()
        self.path = path
        self._index = SegmentIndex(self._files, path)

    @property
    def first(self) -> int:
        """The first sequence on disk; equal to ``end`` where nothing is. Raises UnsupportedFormat, OSError."""
        self._index.refresh()
        for entry in self._index.entries:
            header = self._index.header(entry)
            if header is not None:
                return header.first
        return self.end

    @property
    def end(self) -> int:
        """One past the last sequence on disk, 1 where nothing is. Raises UnsupportedFormat, OSError."""
        self._index.refresh()
        for entry in reversed(self._index.entries):
            opened = self._index.open(entry)
            if opened is None:
                continue
            fd, header = opened
            try:
                return self._end_of_last(entry, fd, header)
            finally:
                self._files.close(fd)
        return 1

    def page(self, at: int, limit: int, *, value_limit: int | None = None) -> list[Entry | Gap]:
        """Up to ``limit`` messages from sequence ``at`` on, the next intact one where that is not there; with the gaps
        between them. Empty: nothing (yet).

        :param value_limit: bytes of each value to keep; None: all. Where values are large a page ends early, behind
            the message with which it has 32 MiB.
        :raises UnsupportedFormat: a newer release wrote it.
        :raises OSError: the device failed.
        """
        self._index.refresh()
        return self._collect(at, None, limit, value_limit)[0]

    def before(self, at: int, limit: int, *, value_limit: int | None = None) -> list[Entry | Gap]:
        """The last ``limit`` messages in front of sequence ``at``, in order, with the gaps between them; fewer where
        values are large: ask again in front of the first."""
        self._index.refresh()
        result: list[Entry | Gap] = []
        kept, span = 0, limit
        while len(result) < limit and kept < _PAGE_BYTES and (entry := self._index.at_or_before(at - 1)) is not None:
            start = max(entry.first, min(at, self._end_of(entry) or at) - span)
            some, complete = self._collect(start, at, limit, value_limit)
            if not complete and span > 1:
                # Too large for one page: the ones nearest to ``at`` are asked for.
                span //= 2
                continue
            result = (some + result)[-limit:]
            kept += sum(map(_weight, some))
            # Where nothing is, steps grow: sequences may leap.
            span, at = min(span, max(1, limit - len(result))) if some else 2 * span, start
        return result

    def segment(self, first: int) -> SegmentInfo | None:
        """About the segment that begins at ``first``, every byte of which is read; None: it is gone, or not readable
        at all. Raises UnsupportedFormat, OSError."""
        self._index.refresh()
        entry = next((each for each in self._index.entries if each.first == first), None)
        opened = None if entry is None else self._index.open(entry)
        if entry is None or opened is None:
            return None
        fd, header = opened
        try:
            checked = check_segment(
                self._files, fd, header, entry.name, end=self._end_of(entry), last=self._index.after(first) is None,
                reached=self._reached(fd, header),
            )  # fmt: skip
            return SegmentInfo(
                first=first,
                end=checked.end,
                name=entry.name,
                size=checked.size,
                sealed=checked.sealed,
                ordinal=header.ordinal,
                previous_end=header.previous_end,
                messages=checked.messages,
                frames=checked.frames,
                first_time=self._time(fd, header, first),
                last_time=self._time(fd, header, checked.end - 1),
                damage=tuple(each.text for each in checked.damages),
            )
        finally:
            self._files.close(fd)

    def settled(self) -> Settled:
        """What has left the lane by now. Raises UnsupportedFormat, OSError."""
        return Settled.of(self._files, self.path)

    def spooled(self) -> tuple[int, int]:
        """How many messages were ever spooled, as the head tells, and a sequence that all of theirs lie below. Pages
        that are asked for later have them all, but for what is settled and what is missing.

        Raises UnsupportedFormat, OSError."""
        head = read_head(self._files, self.path)
        return (0, 1) if head is None else (head.ordinal, head.next)

    def close(self) -> None:
        """For symmetry: no file stays open between two calls."""

    def _collect(
        self, at: int, stop: int | None, limit: int, value_limit: int | None
    ) -> tuple[list[Entry | Gap], bool]:
        """Messages from ``at`` on and in front of ``stop``; and whether there is nothing more, not for want of room."""
        result: list[Entry | Gap] = []
        kept = 0
        entry = self._index.at_or_before(at) or self._index.after(at)
        #: Where what was read so far ends, as sequence and ordinal; None: nothing was.
        reached: tuple[int, int] | None = None
        while entry is not None and (stop is None or entry.first < stop):
            opened = self._index.open(entry)
            later = self._index.after(entry.first)
            if opened is None:
                entry = later
                continue
            fd, header = opened
            try:
                if reached is not None and header.ordinal > reached[1] and header.first > at:
                    lost = header.ordinal - reached[1]
                    first = max(at, min(reached[0], header.first))
                    result.append(Gap(first, header.first - 1, lost, "missing or unreadable segments"))
                at = max(at, header.first)
                scan = self._scan(fd, entry, header, at)
                for step in scan:
                    if isinstance(step, Hole):
                        info = self._files.fstat(fd)
                        if not info.st_nlink or not info.st_size:
                            # It has been delivered or pruned meanwhile, and was cut for that.
                            break
                        found: list[Entry] | list[Gap] = _gap(step, at)
                        at = max(at, step.next)
                    else:
                        found = [_cut(each, value_limit) for each in _entries(step, header, at, stop, scan.end)]
                    for item in found:
                        if len(result) >= limit or kept >= _PAGE_BYTES:
                            return result, False
                        result.append(item)
                        kept += _weight(item)
                        at = (item.sequence if isinstance(item, Entry) else item.last) + 1
                    if stop is not None and at >= stop:
                        return result, True
                reached = scan.at, header.ordinal + scan.at - header.first
            finally:
                self._files.close(fd)
            if len(result) >= limit or kept >= _PAGE_BYTES:
                return result, False
            entry = later
        return result, True

    def _scan(self, fd: int, entry: SegmentFile, header: SegmentHeader, at: int) -> Scan:
        scan = Scan(
            self._files, fd, header, end=self._end_of(entry), grows=self._index.after(entry.first) is None, skip=at,
            reached=self._reached(fd, header),
        )  # fmt: skip
        scan.go_near(at)
        return scan

    def _end_of(self, entry: SegmentFile) -> int | None:
        """One past the segment's last sequence, as its successor tells; None without one."""
        later = self._index.after(entry.first)
        header = None if later is None else self._index.header(entry)
        successor = None if later is None else self._index.header(later)
        return None if header is None or successor is None else end_before(header, successor)

    def _reached(self, fd: int, header: SegmentHeader) -> int | None:
        """Where the last stored frame of a segment begins, as the live page tells, which has no checksum."""
        live = read_live(self._files, self.path)
        if live is None or live.segment != header.first or live.tail >= self._files.fstat(fd).st_size:
            return None
        return live.tail

    def _end_of_last(self, entry: SegmentFile, fd: int, header: SegmentHeader) -> int:
        if entry.sealed:
            return sealed_end(self._files, fd, header, self._files.fstat(fd).st_size)
        reached = self._reached(fd, header)
        if reached is not None:
            return walk(self._files, fd, header, reached, 0, search=False).end
        scan = Scan(self._files, fd, header, grows=True, skip=layout.U64_LIMIT)
        scan.go_near(layout.U64_LIMIT)
        for _ in scan:
            pass
        return scan.at

    def _time(self, fd: int, header: SegmentHeader, sequence: int) -> int | None:
        """When the message with ``sequence``, or the next intact one, was accepted."""
        scan = Scan(self._files, fd, header, grows=True, skip=sequence)
        scan.go_near(sequence)
        for step in scan:
            if isinstance(step, Framed) and step.columns is not None:
                return wall_of(header, step.header.accepted)
        return None


def _gap(hole: Hole, at: int) -> list[Gap]:
    """The hole from sequence ``at`` on; nothing where no message is missing there."""
    first = max(hole.first, at)
    return [Gap(first, hole.next - 1, hole.next - first, hole.why)] if hole.next > first else []


def _weight(item: Entry | Gap) -> int:
    """Bytes that an item keeps in memory."""
    return 0 if isinstance(item, Gap) else item.size - item.value_size + len(item.value or b"")


def _headers(block: bytes | None) -> list[Header]:
    """A block that is none, under a right checksum, is shown as it is."""
    try:
        return list(unpack_headers(block))
    except ValueError:
        return [("unreadable headers", block)]


def _entries(step: Framed, header: SegmentHeader, at: int, stop: int | None, end: int | None) -> Iterator[Entry]:
    """The messages of a frame from sequence ``at`` on, and in front of ``stop`` and of the segment's ``end``."""
    columns = step.columns
    if columns is None:
        return
    last = min(each for each in (columns.first + columns.count, stop, end) if each is not None)
    accepted = wall_of(header, columns.accepted)
    for index in range(max(0, at - columns.first), last - columns.first):
        sequence = columns.first + index
        topic, key, value = columns.topics[index], columns.keys[index], columns.values[index]
        block = columns.header_blocks[index]
        timestamp, partition = columns.timestamps[index], columns.partitions[index]
        yield Entry(
            sequence=sequence,
            topic=topic,
            key=key,
            value=value,
            value_size=len(value or b""),
            headers=_headers(block),
            timestamp=None if timestamp == NO_TIMESTAMP else timestamp,
            partition=None if partition == NO_PARTITION else partition,
            accepted=accepted,
            size=len(topic.encode()) + len(key or b"") + len(value or b"") + len(block or b""),
            segment=header.first,
            offset=step.offset,
            ordinal=header.ordinal + sequence - header.first,
        )


def _cut(entry: Entry, value_limit: int | None) -> Entry:
    if value_limit is None or entry.value is None or len(entry.value) <= value_limit:
        return entry
    return entry._replace(value=entry.value[:value_limit])


class Settled(NamedTuple):
    """Up to where a lane is delivered, pruned or purged: everything below ``next``, and the messages whose ordinal is
    ``ordinal`` + i where bit i of ``bits`` is set. ``reached``: the ordinals below are those of messages below
    ``next``; None without a readable seek."""

    next: int
    ordinal: int
    bits: int
    reached: int | None

    @classmethod
    def of(cls, files: Files, path: str) -> Settled:
        """What seek and head of the lane's directory say. Raises UnsupportedFormat, OSError."""
        slot, top = read_seek(files, path), read_head(files, path)
        floor, passed = (top.floor, top.floor_ordinal) if top is not None else (0, 0)
        if slot is None:
            return cls(floor, 0, 0, None)
        reached = slot.ordinal if floor <= slot.next else max(passed, slot.ordinal)
        return cls(max(slot.next, floor), slot.ordinal, int.from_bytes(slot.bitmap, "little"), reached)

    def has(self, entry: Entry) -> bool:
        """Whether the message has left the lane."""
        bit = entry.ordinal - self.ordinal
        return entry.sequence < self.next or (0 <= bit < self.bits.bit_length() and bool(self.bits >> bit & 1))

    def waiting(self, begin: int, end: int) -> int:
        """How many of the messages with ordinals from ``begin`` on and below ``end`` have not left the lane."""
        begin = max(begin, self.reached or 0)
        number = max(0, end - begin)
        bits = self.bits >> (begin - self.ordinal)
        return number - (bits & ((1 << min(number, bits.bit_length())) - 1)).bit_count()
