"""The openings of a lane: one record each, on the device before the opening gives out a sequence.

A provider that keeps a position keeps the run with it; one that is not recorded here comes from another directory.

Promises
--------
- The file is bounded: it keeps the last ``KEPT`` openings at least, twice as many at most, and whichever head, seek and
  segments name. A position that a provider keeps is of a run that delivered something: the one that the seek names or a
  later one, but where an older state of the provider was restored.
- Where the device refuses some of the records, the runs that head, seek and segments name are known all the same, and
  the next opening makes the file anew from all of these.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NamedTuple

from mbframework.files import Files, is_full
from mbframework.spool import survey
from mbframework.spool.index import SegmentIndex
from mbframework.spool.layout import ID_SIZE, RUN_RECORD, RUNS_FILE
from mbframework.spool.remains import Remains
from mbframework.spool.slots import NEW, SlotFile, draft, finish

#: So many openings are known at least: of a program that begins every minute those of three weeks.
KEPT: Final = 1 << 15


class Opening(NamedTuple):
    """One record: the run, the first sequence that it could give out, and when it began, wall ns."""

    run: bytes
    first: int
    wall_ns: int


class Runs:
    """The file ``runs`` of a lane. :meth:`add` needs the writer's lock; everything else any thread."""

    def __init__(self, files: Files, directory: str) -> None:
        self._files = files
        self._directory = directory
        self._path = os.path.join(directory, RUNS_FILE)

    def add(self, run: bytes, first: int) -> None:
        """Record an opening. Raises OSError."""
        finish(self._files, self._path)
        record = RUN_RECORD.pack(run, first, self._files.wall_ns())
        raw, refused = self._read()
        if refused:
            known = b"".join(RUN_RECORD.pack(*opening) for opening in self._known(raw, refused=True))
            content = known + record
            SlotFile.create(self._files, self._path, len(content), content).close()
            return
        if len(raw) >= 2 * KEPT * RUN_RECORD.size:
            raw = self._shorten(raw)
        fd = self._files.open(self._path, create=True)
        try:
            # A record that a power loss tore is overwritten.
            self._files.pwrite(fd, record, len(raw) - len(raw) % RUN_RECORD.size)
            self._files.datasync(fd)
        finally:
            self._files.close(fd)
        self._files.sync_directory(self._directory)

    def _shorten(self, raw: bytes) -> bytes:
        """Make the file anew with what has to be known of it; on a full device it goes on as it is."""
        whole = [Opening(*record) for record in RUN_RECORD.iter_unpack(raw[: len(raw) - len(raw) % RUN_RECORD.size])]
        named = {opening.run for opening in self._told()}
        kept = [opening for opening in whole[:-KEPT] if opening.run in named] + whole[-KEPT:]
        content = b"".join(RUN_RECORD.pack(*opening) for opening in kept)
        files, new = self._files, f"{self._path}{NEW}"
        try:
            if files.exists(new):
                files.unlink(new)
            files.close(draft(files, self._path, content))
            # The other name leads to it before this one goes.
            files.sync_directory(self._directory)
        except OSError as error:
            with suppress(OSError):
                files.unlink(new)
            if not is_full(error):
                raise
            return raw
        files.unlink(self._path)
        finish(files, self._path)
        return content

    def openings(self) -> list[Opening]:
        """Those that are known, in no order; none where there is no file. Raises UnsupportedFormat, OSError."""
        raw, refused = self._read()
        return self._known(raw, refused=refused)

    def knows(self, run: bytes) -> bool:
        """Whether ``run`` is an opening of this lane. Raises UnsupportedFormat, OSError."""
        return any(opening.run == run for opening in self.openings())

    def _read(self) -> tuple[bytes, bool]:
        """What can be read of the file, and whether the device refuses some of it."""
        # It may get its name between two looks.
        for path in (self._path, f"{self._path}{NEW}", self._path):
            try:
                fd = self._files.open(path, write=False)
            except FileNotFoundError:
                continue
            try:
                remains = Remains(self._files, self._directory)
                return remains.pread(fd, self._files.fstat(fd).st_size, 0), remains.refused(fd) is not None
            finally:
                self._files.close(fd)
        return b"", False

    def _known(self, raw: bytes, *, refused: bool) -> list[Opening]:
        whole = raw[: len(raw) - len(raw) % RUN_RECORD.size]
        known = [Opening(*record) for record in RUN_RECORD.iter_unpack(whole) if record[0] != bytes(ID_SIZE)]
        if refused:
            recorded = {opening.run for opening in known}
            told = {opening.run: opening for opening in self._told()}
            known = [opening for run, opening in told.items() if run not in recorded] + known
        return known

    def _told(self) -> Iterator[Opening]:
        """What the other files say of openings, the most exact last."""
        passed = survey.read_seek(self._files, self._directory)
        if passed is not None and passed.run != bytes(ID_SIZE):
            yield Opening(passed.run, max(1, passed.next - 1), passed.wall_ns)
        index = SegmentIndex(self._files, self._directory)
        index.refresh()
        for entry in reversed(index.entries):
            header = index.header(entry)
            if header is not None:
                yield Opening(header.run, header.first, header.wall_ns)
        top = survey.read_head(self._files, self._directory)
        if top is not None:
            yield Opening(top.run, top.run_first, top.wall_ns)
