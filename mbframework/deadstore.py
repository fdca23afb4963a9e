"""The dead letters of a lane, for those who look at them: read, dropped, and the room that they took given back.

Promises
--------
- Reading changes nothing, and works beside the process that adds letters. What the device refuses to give is left out.
- A letter is dropped when :meth:`DeadStore.drop` has returned: that is then on the device (:mod:`mbframework.dropped`),
  and the letter is never seen again, whatever stops the machine.
- :meth:`DeadStore.tidy` removes segments of which no letter is left, and only those whose letters cannot come a second
  time: by them the store knows a repeat. Its accounts stay what they are: the store's own seek stands at the first
  letter that is kept, and counts what lies below as purged.

A letter's ``id`` is its sequence in the store: never given twice. The holder of the lane's sender.lock may drop; for
:meth:`~DeadStore.tidy` its :class:`~mbframework.deadletters.DeadLetters` must be closed as well. One thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypeAlias

from mbframework.dropped import BySegment, Dropped
from mbframework.files import Files
from mbframework.ledger import Ledger
from mbframework.message import NO_PARTITION, NO_TIMESTAMP, Header, unpack_headers
from mbframework.spans import Span, common, count, joined, spans_of, without
from mbframework.spool import layout, survey
from mbframework.spool.reader import Gap, Run, SpoolReader
from mbframework.spool.recovery import check_counts
from mbframework.spool.remains import Remains
from mbframework.spool.seek import SeekSlot
from mbframework.spool.survey import Found, Survey
from mbframework.spool.walk import sealed_end

#: The headers that the store puts in front of a message's own.
OURS: Final = ("mb.seq", "mb.run", "mb.reason", "mb.at")
EVERYTHING: Final = range(layout.U64_LIMIT)
_AT_ONCE = 256
#: Whether the message with a sequence of the lane has left it for good.
Settled: TypeAlias = "Callable[[int], bool]"
#: Calls what it is given while nobody adds letters, and their files are closed.
Apart: TypeAlias = "Callable[[Callable[[], object]], object]"
_AT_ONCE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter. ``at``: seconds since 1970 when it was stored; ``sequence`` and ``run``: where it stood in its
    lane (0 and empty where that cannot be read); ``headers``: its own; ``timestamp`` in nanoseconds."""

    id: int
    at: float
    reason: str
    sequence: int
    run: str
    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]
    timestamp: int | None
    partition: int | None

    @property
    def size(self) -> int:
        """Bytes of topic, key, value and headers."""
        own = sum(len(name.encode()) + len(value or b"") for name, value in self.headers)
        return len(self.topic.encode()) + len(self.key or b"") + len(self.value or b"") + own


class DeadStore:
    """See the module. ``directory`` is that of the dead letters of one lane; it need not exist."""

    def __init__(self, files: Files, directory: str) -> None:
        self._files = files
        self.directory = directory
        self._dropped = Dropped(files, directory)

    def letters(self, ids: Iterable[int] = EVERYTHING) -> Iterator[Letter]:
        """The letters with these ids that are there and not dropped, in order. Close the iterator where it is left
        early.

        :raises UnsupportedFormat: a newer release wrote them.
        :raises OSError: they cannot be read.
        """
        known = self._survey()
        dropped, wanted = self._dropped.spans(), spans_of(ids)
        reader = SpoolReader(self._files, self.directory, Remains(self._files, self.directory))
        try:
            for segment in known.segments:
                for span in common(self._kept(known, segment, dropped), wanted):
                    yield from self._read(reader, segment, span)
        finally:
            reader.close()

    def ids(self) -> list[Span]:
        """The ids of the letters that are not dropped, as spans, without reading them; a damaged one counts."""
        known = self._survey()
        dropped = self._dropped.spans()
        return joined(span for segment in known.segments for span in self._kept(known, segment, dropped))

    def drop(self, ids: Iterable[int]) -> int:
        """Let go of these; how many of them were there. Raises OSError: try again, nothing is lost by that."""
        known = self._survey()
        dropped, wanted = self._dropped.spans(), spans_of(ids)
        news: list[tuple[Span, int]] = []
        for segment in known.segments:
            news += [(span, segment.header.salt) for span in common(self._kept(known, segment, dropped), wanted)]
        if news:
            self._dropped.add(news)
        return count(span for span, _ in news)

    def has_empty(self) -> bool:
        """Whether :meth:`tidy` may find something to remove. Raises OSError."""
        known = self._survey()
        dropped = self._dropped.spans()
        return any(not self._kept(known, segment, dropped) for segment in known.segments)

    def tidy(self, settled: Settled) -> int:
        """Remove the segments of which nothing is kept; how many. Raises OSError, UnsupportedFormat.

        :param settled: whether the lane's message with that sequence cannot come again.
        """
        known = self._survey()
        if known.seek is None or known.unsupported:
            return 0
        check_counts(known, self.directory)
        dropped = self._dropped.spans()
        kept = {segment.header.first: self._kept(known, segment, dropped) for segment in known.segments}
        gone = [
            segment
            for segment in known.segments
            if segment.entry.sealed and not kept[segment.header.first] and self._cannot_come(segment, settled)
        ]
        if gone and len(gone) < len(known.segments) and gone[-1] is known.segments[-1]:
            # Where others stay, the last one does too: it says how far the store has come.
            gone.pop()
        self._move_seek(known, kept)
        for segment in gone:
            self._files.unlink(os.path.join(self.directory, segment.entry.name))
        if gone:
            self._files.sync_directory(self.directory)
        left = [segment.header for segment in known.segments if segment not in gone]
        floor = self._seek_of(known)
        self._dropped.compact({header.salt: max(header.first, floor) for header in left})
        return len(gone)

    # ---- reading

    def _survey(self) -> Survey:
        known = survey.survey(self._files, self.directory)
        for found in known.segments:
            # Where a segment behind it is gone, the next one tells more than is true.
            if found.entry.sealed and found.end is not None:
                path = os.path.join(self.directory, found.entry.name)
                with suppress(FileNotFoundError):
                    fd = self._files.open(path, write=False)
                    try:
                        found.end = min(
                            found.end, sealed_end(Remains(self._files, self.directory), fd, found.header, found.size)
                        )
                    finally:
                        self._files.close(fd)
        return known

    def _kept(self, known: Survey, segment: Found, dropped: BySegment) -> list[Span]:
        """The ids in a segment that are neither dropped nor below the store's seek."""
        header = segment.header
        begin = max(header.first, known.seek.next if known.seek is not None else 0)
        return without(joined([(begin, segment.end or header.first)]), dropped.get(header.salt, []))

    def _read(self, reader: SpoolReader, segment: Found, span: Span) -> Iterator[Letter]:
        header = segment.header
        position, end = span
        while position < end:
            found = reader.read(
                position,
                header.ordinal + position - header.first,
                until=end,
                max_messages=min(_AT_ONCE, end - position),
                max_bytes=_AT_ONCE_BYTES,
                hint=(header.first, 0),
            )
            if found is None:
                return
            if isinstance(found, Gap):
                position = max(found.next, position + 1)
                continue
            yield from _letters(found)
            position = found.end

    def _cannot_come(self, segment: Found, settled: Settled) -> bool:
        """Whether no letter of a segment, dropped ones included, is known only here."""
        reader = SpoolReader(self._files, self.directory, Remains(self._files, self.directory))
        try:
            span = segment.header.first, segment.end or segment.header.first
            return all(settled(letter.sequence) for letter in self._read(reader, segment, span))
        finally:
            reader.close()

    # ---- the store's own seek

    def _seek_of(self, known: Survey) -> int:
        slot = survey.read_seek(self._files, self.directory)
        return slot.next if slot is not None else known.seek.next if known.seek is not None else 0

    def _move_seek(self, known: Survey, kept: dict[int, list[Span]]) -> None:
        """To the first letter that is kept, or to the end."""
        if known.seek is None:
            return
        end, ordinal = known.spool_end, known.ordinal
        for segment in known.segments:
            spans = kept[segment.header.first]
            if spans:
                end, ordinal = spans[0][0], segment.header.ordinal + spans[0][0] - segment.header.first
                break
        if end <= known.seek.next:
            return
        ledger = Ledger.open(self._files, self.directory, known.seek, known.seek_slot, exists=True)
        try:
            ledger.advance(end, ordinal, "purged")
            ledger.sync()
        finally:
            ledger.close()


def settled_by(slot: SeekSlot) -> Settled:
    """What a lane's seek, which must be on the device, says of a sequence: below it, or settled out of order."""
    position, bits = slot.next, int.from_bytes(slot.bitmap, "little")
    return lambda sequence: sequence < position or bool(bits >> (sequence - position) & 1)


def settled_in(files: Files, lane_path: str) -> Settled:
    """The same for a lane that nobody sends. Raises OSError."""
    slot = survey.read_seek(files, lane_path)
    if slot is None:
        return lambda _sequence: False
    fd = files.open(os.path.join(lane_path, layout.SEEK_FILE))
    try:
        files.datasync(fd)
    finally:
        files.close(fd)
    return settled_by(slot)


def settled_now(ledger: Ledger) -> Settled:
    """The same for a lane that this process sends. Raises OSError."""
    with ledger.lock:
        slot = replace(ledger.slot)
    ledger.sync()
    return settled_by(slot)


def drop(store: DeadStore, ids: Iterable[int], settled: Callable[[], Settled], apart: Apart) -> int:
    """Drop and give the room back, in the process that holds the sender's lock; how many were there.

    :param settled: puts the lane's seek on the device and says what is settled by it.
    :param apart: calls what it is given while the lane's ``DeadLetters`` are closed.
    :raises OSError: the device failed; what was dropped by then is.
    """
    number = store.drop(ids)
    if store.has_empty():
        apart(lambda: store.tidy(settled()))
    return number


def _letters(run: Run) -> Iterator[Letter]:
    for i in range(len(run)):
        said, own = _headers(run.header_blocks[i])
        timestamp, partition = run.timestamps[i], run.partitions[i]
        yield Letter(
            id=run.first + i,
            at=_instant(said.get("mb.at", ""), run.accepted[i] / 1e9),
            reason=said.get("mb.reason", ""),
            sequence=_number(said.get("mb.seq", "")),
            run=said.get("mb.run", ""),
            topic=run.topics[i],
            key=run.keys[i],
            value=run.values[i],
            headers=own,
            timestamp=None if timestamp == NO_TIMESTAMP else timestamp,
            partition=None if partition == NO_PARTITION else partition,
        )


def _headers(block: bytes | None) -> tuple[dict[str, str], tuple[Header, ...]]:
    """What the store says of a letter, and the message's own headers, which may have the same names."""
    try:
        headers = unpack_headers(block)
    except ValueError:
        return {"mb.reason": "its headers cannot be read"}, ()
    if tuple(name for name, _ in headers[: len(OURS)]) != OURS:
        return {}, headers
    return {name: (value or b"").decode(errors="replace") for name, value in headers[:4]}, headers[4:]


def _number(text: str) -> int:
    return int(text) if len(text) < 20 and text.isascii() and text.isdigit() else 0


def _instant(text: str, otherwise: float) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return otherwise
