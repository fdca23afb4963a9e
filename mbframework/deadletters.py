"""Messages that a provider will never take, kept with the reason: a small lane of its own under ``dead/``.

Promises
--------
- A rejected message is on the device here before the seek of its lane moves past it.
- Each carries four headers in front of its own: ``mb.seq`` and ``mb.run`` (its sequence, and the opening that gave it
  out), ``mb.reason``, ``mb.at`` (ISO 8601, UTC). A repeat of what was stored lately is skipped, so that a kill between
  the two stores makes no twin; neither where the batch is cut otherwise the next time.
- What a failed sync may have missed is stored again before the next one counts.
- They never push anything out: full dead letters are reported, and the lane waits for a person.
- What the device refuses to give of those stored lately is asked for again by the next :meth:`DeadLetters.add`, and
  given up after some seconds: the lane goes on, and of letters that nobody can read a repeat is not known.

The holder of the lane's sender.lock owns the directory; one thread.
"""

from __future__ import annotations

import bisect
import contextlib
import errno
import os
import stat
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from mbframework.files import Files
from mbframework.ledger import Ledger
from mbframework.message import NO_PARTITION, NO_TIMESTAMP, Batch, Header, pack_headers, unpack_headers
from mbframework.spool import frame, recovery
from mbframework.spool.headfile import NEXT, SEGMENT, TAIL, HeadFile
from mbframework.spool.prepared import NoSpace
from mbframework.spool.reader import Gap, SpoolReader
from mbframework.spool.runs import Runs
from mbframework.spool.segment import Segment
from mbframework.spool.survey import Found, survey
from mbframework.spool.writer import Identity, Limits, SpoolWriter

SEGMENT_SIZE = 1 << 20
#: Sequences among which a repeat is looked for: the largest batch.
_LATELY = 100_000
RESERVED = frozenset({"mb.seq", "mb.run", "mb.reason", "mb.at"})


class DeadLetters:
    """The dead letters of one lane; the directory is made with the first of them."""

    def __init__(
        self, files: Files, directory: str, *, identity: Identity, total_size: int, dir_mode: int, mapped: bool
    ) -> None:
        self._files = files
        self.directory = directory
        self._identity = identity
        self._limits = Limits(
            segment_size=min(SEGMENT_SIZE, total_size // 4),
            segment_age_ns=1 << 62,
            total_size=total_size,
            max_segments=1 << 30,
            min_free=0,
        )
        self._dir_mode = dir_mode
        self._mapped = mapped
        self._spool: SpoolWriter | None = None
        self._head: HeadFile | None = None
        #: Run and sequence of those stored lately.
        self._known: set[tuple[bytes, int]] = set()
        #: Knows what the device refuses from one try to the next.
        self._reader = SpoolReader(files, directory)
        #: Held while letters are added, and by who drops some.
        self._lock = threading.RLock()
        #: The openings of the lane: the first sequence that each could give out, rising, and its run.
        self._openings: list[tuple[int, bytes]] = []

    def add(self, batch: Batch, reasons: Mapping[int, str]) -> tuple[int, str]:
        """Store the messages of ``batch`` at the indices of ``reasons``, lowest first, and put them on the device.

        How many of them are there now, and why not all: "" where they are.

        :raises OSError: the device failed: the same again, later, stores what is missing.
        """
        with self._lock:
            return self._add(batch, reasons)

    def _add(self, batch: Batch, reasons: Mapping[int, str]) -> tuple[int, str]:
        try:
            spool, head = self._open()
        except NoSpace as no_space:
            return 0, no_space.reason
        indices = sorted(reasons)
        runs = self._runs(batch, indices)
        at = datetime.fromtimestamp(self._files.wall_ns() / 1e9, UTC).isoformat()
        stored, why = 0, ""
        try:
            for index, run in zip(indices, runs, strict=True):
                origin = run, batch.sequences[index]
                if origin not in self._known:
                    self._append(spool, head, batch, index, _headers(batch, index, run, reasons[index], at))
                    self._known.add(origin)
                stored += 1
        except NoSpace as no_space:
            why = no_space.reason
        spool.sync_active()
        self._publish(spool, head)
        spool.seal_retired()
        if len(self._known) > 2 * _LATELY:
            least = max(sequence for _, sequence in self._known) - _LATELY
            self._known = {each for each in self._known if each[1] >= least}
        return stored, why

    def apart(self, act: Callable[[], object]) -> object:
        """Call ``act`` while nothing is added and no file is open. Any thread."""
        with self._lock:
            self.close()
            return act()

    def close(self) -> None:
        """Seal what is open and let go of the files."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        spool, head = self._spool, self._head
        self._spool = self._head = None
        if spool is None or head is None:
            return
        spool.retire()
        # A device that fails here costs only the seal: recovery puts one at the next opening.
        with contextlib.suppress(OSError):
            spool.seal_retired()
            self._publish(spool, head)
        spool.close()
        head.close()

    def forget(self) -> None:
        """In a forked child: let go of the copies of descriptors and maps."""
        spool, head = self._spool, self._head
        self._spool = self._head = None
        if spool is not None and head is not None:
            spool.forget()
            head.forget()

    def _runs(self, batch: Batch, indices: Sequence[int]) -> list[bytes]:
        """The opening of the lane that gave out each message; the batch itself knows only that of its last one.

        :raises OSError: the device failed.
        """
        last = batch.position.run
        if all(run != last for _, run in self._openings):
            lane = os.path.join(os.path.dirname(os.path.dirname(self.directory)), os.path.basename(self.directory))
            # Of two openings that begin at the same sequence, the first has given out none.
            self._openings = sorted((opening.first, opening.run) for opening in Runs(self._files, lane).openings())
        if all(run != last for _, run in self._openings):
            return [last] * len(indices)
        places = (bisect.bisect_right(self._openings, batch.sequences[i], key=lambda each: each[0]) for i in indices)
        return [self._openings[place - 1][1] if place else last for place in places]

    def _append(self, spool: SpoolWriter, head: HeadFile, batch: Batch, index: int, block: bytes) -> None:
        now = self._files.boot_ns()
        sequence = max(head.slot.next, spool.end)
        timestamp, partition = batch.timestamps[index], batch.partitions[index]

        def encode() -> bytes:
            return frame.encode_one(
                spool.salt,
                sequence,
                now,
                batch.topics[index].encode(),
                batch.keys[index],
                batch.values[index],
                block,
                None if timestamp == NO_TIMESTAMP else timestamp,
                None if partition == NO_PARTITION else partition,
            )

        data = encode()
        if not spool.fits(len(data), sequence, now):
            spool.make_room(len(data), sequence, now)
            data = encode()
        spool.append(data, sequence, 1, now)
        head.slot.next = sequence + 1
        active = spool.active
        if active is not None:
            head.words[TAIL] = spool.last
            head.words[SEGMENT] = active.segment.first
        head.words[NEXT] = sequence + 1

    def _publish(self, spool: SpoolWriter, head: HeadFile) -> None:
        slot = head.slot
        slot.generation += 1
        slot.ordinal = spool.ordinal
        slot.accepted = spool.ordinal
        slot.wall_ns = self._files.wall_ns()
        slot.boot_ns = self._files.boot_ns()
        if slot.reserved_until - slot.next < recovery.GRANT // 2:
            slot.reserved_until = slot.next + recovery.GRANT
        head.publish(slot.pack())
        head.sync()

    def _open(self) -> tuple[SpoolWriter, HeadFile]:
        if self._spool is not None and self._head is not None:
            return self._spool, self._head
        files, directory, identity = self._files, self.directory, self._identity
        for path in (os.path.dirname(directory), directory):
            with contextlib.suppress(FileExistsError):
                files.make_directory(path, self._dir_mode)
                files.sync_directory(os.path.dirname(path))
            if not stat.S_ISDIR(files.stat(path).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, f"{path} is not a directory; remove what stands there", path)
        known = survey(files, directory)
        begun = recovery.recover(
            files, directory, buffer_id=identity.buffer_id, run=identity.run, boot_id=identity.boot_id
        )
        for found in begun.unsynced:
            recovery.finish_seal(files, directory, found)
        Ledger.open(files, directory, begun.seek, begun.seek_slot, exists=known.seek is not None).close()
        self._known = self._find_known(begun.segments)
        head = HeadFile.begin(
            files, directory, begun.head, begun.head_slot, exists=known.head is not None, mapped=self._mapped
        )
        spool = SpoolWriter(
            files=files,
            directory=directory,
            identity=identity,
            limits=self._limits,
            lock=threading.RLock(),
            mapped=self._mapped,
            end=begun.end,
            ordinal=begun.head.ordinal,
            segments=[Segment.of(found) for found in begun.segments],
        )
        self._spool, self._head = spool, head
        return spool, head

    def _find_known(self, segments: list[Found]) -> set[tuple[bytes, int]]:
        """Run and sequence of the messages stored last: those of a batch that may come again after a kill."""
        known: set[tuple[bytes, int]] = set()
        reader = self._reader
        try:
            end: int | None = None
            for segment in reversed(segments):
                origins = self._origins(reader, segment, end)
                end = segment.header.previous_end
                known |= origins
                if origins and min(seq for _, seq in origins) < max(seq for _, seq in known) - _LATELY:
                    break
            return known
        finally:
            reader.close()

    def _origins(self, reader: SpoolReader, segment: Found, end: int | None) -> set[tuple[bytes, int]]:
        """Run and sequence of each message of a segment that ends in front of ``end``; None: it is the last."""
        origins: set[tuple[bytes, int]] = set()
        first = segment.header.first
        position, ordinal = first, segment.header.ordinal
        while end is None or position < end:
            found = reader.read(position, ordinal, until=end, max_messages=256, max_bytes=1 << 20, hint=(first, 0))
            if found is None:
                break
            if isinstance(found, Gap):
                position, ordinal = found.next, found.ordinal
                continue
            for block in found.header_blocks:
                # The four come first; behind them the message may have headers of these names of its own.
                headers = dict(reversed(unpack_headers(block)))
                run, sequence = headers.get("mb.run"), headers.get("mb.seq")
                if run is not None and sequence is not None:
                    origins.add((bytes.fromhex(run.decode()), int(sequence)))
            position, ordinal = found.end, ordinal + len(found)
        return origins


def _headers(batch: Batch, index: int, run: bytes, reason: str, at: str) -> bytes:
    ours: list[Header] = [
        ("mb.seq", str(batch.sequences[index]).encode()),
        ("mb.run", run.hex().encode()),
        # Cut between two characters.
        ("mb.reason", reason.encode(errors="replace")[:4096].decode(errors="ignore").encode()),
        ("mb.at", at.encode()),
    ]
    try:
        own = unpack_headers(batch.header_blocks[index])
    except ValueError:
        # The reason says so.
        own = ()
    return pack_headers([*ours, *own])
