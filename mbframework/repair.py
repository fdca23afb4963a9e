"""Mending what :mod:`mbframework.verify` finds, by a person's order.

Promises
--------
- Nothing is changed without both locks of the lane, and nothing before everything that will be is copied (or linked)
  into ``DIR/.repair-<time>/``, which no program takes for a lane.
- Every intact message is kept, at its sequence, in order. A segment with a hole becomes one segment in front of it and
  one behind; a lost header is computed back; what cannot be read is told as ranges of sequences.
- The loss stays in the ordinals, where the sender finds it, or is counted at once: the accounts balance.
- A stop at any point leaves a lane that opens; repairing it again goes on. Head, seek and the ends of segments are
  recovery's business, and are left to it.

One thread.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mbframework.errors import BufferLocked, DirectoryError
from mbframework.files import Files
from mbframework.ledger import Ledger
from mbframework.lockfile import LockFile, describe, holder
from mbframework.mending import close_in_order
from mbframework.piece import Piece
from mbframework.salvage import first_of, header_of
from mbframework.scan import Hole, Scan
from mbframework.shelf import Shelf
from mbframework.spool import layout, recovery
from mbframework.spool.index import Entry, SegmentIndex
from mbframework.spool.runs import Runs
from mbframework.spool.segment_header import SegmentHeader, end_before
from mbframework.spool.survey import read_head, read_seek
from mbframework.status import read_narration
from mbframework.verify import BufferCheck, Damage, LaneCheck, check_buffer

_MIB = 1 << 20
_SMALL = (layout.HEAD_FILE, layout.SEEK_FILE, layout.RUNS_FILE)
Progress = Callable[[int], object]


@dataclass(slots=True)
class Repair:
    """What was, or without ``done`` would be, made good. ``lost`` are the messages that cannot be read, by lane;
    ``copy`` is where what was changed has been kept; ``after`` is the check behind it."""

    directory: str
    before: BufferCheck
    steps: list[str]
    lost: dict[str, list[Damage]]
    done: bool = False
    copy: str = ""
    after: BufferCheck | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "schema": 1,
            "directory": self.directory,
            "intact": self.before.intact,
            "done": self.done,
            "steps": self.steps,
            "lost": {lane: [asdict(each) for each in damages] for lane, damages in self.lost.items()},
            "copy": self.copy,
            "intact_after": None if self.after is None else self.after.intact,
        }


def plan(check: BufferCheck) -> Repair:
    """What a repair would do about the damage that ``check`` found. Pure."""
    steps = [f"restore {layout.BUFFER_FILE} from the lanes" for _ in check.damages]
    lost: dict[str, list[Damage]] = {}
    for lane in check.lanes:
        for segment in lane.segments:
            if segment.damages:
                how = "from its intact messages" if segment.first else "and compute its header back, where that can be"
                steps.append(f"lane {lane.name}: rebuild segment {segment.name} {how}")
        steps += [f"lane {lane.name}: count as lost: {each.sentence}" for each in lane.damages if each.messages]
        steps += [f"lane {lane.name}: recover: {each.text}" for each in lane.damages if not each.messages]
        if gone := [each for each in lane.all_damages if each.messages]:
            lost[lane.name] = gone
    return Repair(check.directory, check, steps, lost)


def repair(path: str, files: Files | None = None, progress: Progress = bool) -> Repair:
    """Mend the buffer in a directory; see the module.

    :raises BufferLocked: a process has a damaged lane open.
    :raises DirectoryError: it is not a buffer, or a lane cannot be read at all: nothing was changed.
    :raises OSError: the device failed; the copies are where the steps say.
    """
    files = files or Files()
    path = os.path.abspath(path)
    with ExitStack() as locks:
        for name in _locked_lanes(check_buffer(path, files, progress)):
            locks.enter_context(_held(files, os.path.join(path, name)))
        # What was seen before the locks may have changed.
        check = check_buffer(path, files, progress)
        if check.errors:
            raise DirectoryError(f"{path} cannot be repaired: {'; '.join(check.errors)}", path=path)
        result = plan(check)
        if check.intact:
            return result
        result.lost.clear()
        shelf = Shelf.make(files, path)
        result.copy = shelf.path
        buffer_id = _buffer_id(files, check)
        if check.damages:
            _restore_buffer_file(files, check, buffer_id)
        for lane in check.lanes:
            if lane.all_damages:
                work = _LaneRepair(files, lane, shelf, buffer_id, progress)
                work.run()
                result.lost[lane.name] = work.lost
        result.after = check_buffer(path, files, progress)
        result.done = True
    return result


def _locked_lanes(check: BufferCheck) -> list[str]:
    """The lanes whose locks a repair needs; dead letters belong to the sender of their lane."""
    damaged = [lane.name for lane in check.lanes if lane.all_damages]
    return sorted({os.path.basename(name) for name in damaged})


@contextmanager
def _held(files: Files, lane: str) -> Iterator[None]:
    """Both locks of a lane."""
    with ExitStack() as stack:
        for name in (layout.WRITER_LOCK_FILE, layout.SENDER_LOCK_FILE):
            path = os.path.join(lane, name)
            lock = LockFile.take(files, path, 0.0)
            if lock is None:
                who = describe(holder(files, path))
                raise BufferLocked(f"{lane} is open in {who}: stop it first, then repair", path=lane, holder=who)
            stack.callback(lock.release)
        yield


@dataclass(slots=True)
class _Rebuilt:
    """What a segment becomes: the file ``name`` goes, ``pieces`` (path, first sequence) come."""

    name: str
    pieces: list[tuple[str, int]] = field(default_factory=list)
    #: One past the last sequence of the last piece; 0 without one.
    end: int = 0


class _LaneRepair:
    """One lane, whose locks are held."""

    def __init__(self, files: Files, lane: LaneCheck, shelf: Shelf, buffer_id: bytes, progress: Progress) -> None:
        self._files = files
        self._lane = lane
        self._shelf = shelf
        self._buffer_id = buffer_id
        self._progress = progress
        self._made = 0
        #: From this sequence on it is not known where messages are missing; 0: it is.
        self._unsure = 0
        self.lost: list[Damage] = []

    def run(self) -> None:
        files, path = self._files, self._lane.path
        for name in _SMALL:
            self._shelf.copy(path, name)
        self._name_prepared()
        index = SegmentIndex(files, path)
        index.refresh()
        damaged = {segment.name for segment in self._lane.segments if segment.damages}
        rebuilt = self._rebuild_all(index, damaged)
        replaced = {each.name for each in rebuilt}
        for entry in index.entries:
            if entry.name in replaced:
                self._shelf.link(path, entry.name)
            elif not entry.sealed:
                self._shelf.copy(path, entry.name)
        files.sync_directory(self._shelf.place(path))
        # From the back, so that a stop on the way leaves no segment in front of its successor's view of it.
        for each in reversed(rebuilt):
            self._install(each)
        files.sync_directory(path)
        self._recover()

    def _name_prepared(self) -> None:
        """A file that was in use under the name of a prepared one, and has lost its header, would be taken for one that
        was not, and deleted."""
        files, path = self._files, self._lane.path
        index = SegmentIndex(files, path)
        index.refresh()
        taken = {entry.name for entry in index.entries}
        firsts = {entry.first for entry in index.entries}
        for name in files.list(path):
            if (layout.parse_name(name) or "-")[0] != "N" or name in taken:
                continue
            fd = files.open(os.path.join(path, name), write=False)
            try:
                first = first_of(files, fd)
            finally:
                files.close(fd)
            if first is not None and first not in firsts:
                self._shelf.link(path, name)
                files.rename(os.path.join(path, name), os.path.join(path, layout.unsealed_name(first)))
        files.sync_directory(path)

    def _rebuild_all(self, index: SegmentIndex, damaged: set[str]) -> list[_Rebuilt]:
        """Write what replaces damaged segments, and those whose header tells of an end that is not reached any more."""
        files, path = self._files, self._lane.path
        rebuilt: list[_Rebuilt] = []
        # What is behind the last segment: the end of what was kept, how far it went, the ordinal there.
        kept = reached = ordinal = 0
        unread = False
        before: SegmentHeader | None = None
        for place, entry in enumerate(index.entries):
            after = self._successor(index, place)
            fd = files.open(os.path.join(path, entry.name), write=False)
            try:
                found = index.header(entry)
                header = found or header_of(
                    files, fd, entry.first, lane=os.path.basename(path), begin=(reached or entry.first, ordinal),
                    neighbour=after or before, successor=after, head=read_head(files, path),
                )  # fmt: skip
                if header is None:
                    rebuilt.append(_Rebuilt(entry.name))
                    unread = True
                    continue
                if found is None and after is None and 0 < reached < entry.first:
                    # Whether messages stood between, nobody tells any more.
                    self._unsure = self._unsure or reached
                first_of_all = not reached
                missing = header.ordinal - ordinal
                # A header that was found out of others says nothing of what was in front of it, but its ordinal does.
                if not first_of_all and missing > 0 and (unread or found is None or header.previous_end > reached):
                    self._lose(reached, header.first, missing, "missing")
                unread = False
                if after is not None:
                    limit: int | None = end_before(header, after)
                else:
                    # What follows it has lost its header; how far it went the check knows by its own frames or seal.
                    limit = self._end(entry) if found and place + 1 < len(index.entries) else None
                if found and entry.name not in damaged and (first_of_all or header.previous_end == kept):
                    kept = reached = self._end(entry)
                else:
                    begin = header.previous_end if first_of_all else kept
                    result, scan = self._rebuild(entry, fd, header, limit, begin)
                    rebuilt.append(result)
                    kept, reached = result.end or begin, scan.at
            finally:
                files.close(fd)
            ordinal, before = header.ordinal + reached - header.first, header
        return rebuilt

    def _successor(self, index: SegmentIndex, place: int) -> SegmentHeader | None:
        headers = (index.header(each) for each in index.entries[place + 1 :])
        return next((each for each in headers if each is not None), None)

    def _end(self, entry: Entry) -> int:
        """One past the last sequence of a segment, as the check has found."""
        return next(each.end for each in self._lane.segments if each.name == entry.name)

    def _lose(self, first: int, next_: int, messages: int, why: str) -> None:
        self.lost.append(Damage(why, first, next_ - 1, messages))

    def _rebuild(
        self, entry: Entry, fd: int, header: SegmentHeader, limit: int | None, previous_end: int
    ) -> tuple[_Rebuilt, Scan]:
        """Copy the intact frames into new files, one for each row without a hole."""
        result = _Rebuilt(entry.name)
        scan = Scan(self._files, fd, header, end=limit, grows=limit is None and not entry.sealed)
        piece: Piece | None = None
        try:
            for step in scan:
                if isinstance(step, Hole):
                    if step.next > step.first:
                        self._lose(step.first, step.next, step.next - step.first, step.why)
                        if piece is not None:
                            result.end, piece = piece.finish(), None
                    continue
                if piece is None:
                    first = step.header.first
                    new = replace(
                        header,
                        first=first,
                        ordinal=header.ordinal + first - header.first,
                        previous_end=min(first, result.end or previous_end),
                    )
                    piece = Piece(self._files, self._new_name(), new)
                    result.pieces.append((piece.path, first))
                piece.add(step, self._files.pread(fd, step.header.length, step.offset))
                self._progress(step.header.length)
            if piece is not None:
                result.end, piece = piece.finish(), None
        finally:
            if piece is not None:
                piece.close()
        return result, scan

    def _new_name(self) -> str:
        self._made += 1
        return os.path.join(self._shelf.place(self._lane.path), f"new-{self._made}")

    def _install(self, each: _Rebuilt) -> None:
        files, path = self._files, self._lane.path
        old = each.name
        for piece, first in reversed(each.pieces):
            name = layout.sealed_name(first)
            if name == old:
                # Both names stand for the segment; the sealed one goes before the other.
                old = layout.unsealed_name(first)
                files.rename(os.path.join(path, name), os.path.join(path, old))
            files.rename(piece, os.path.join(path, name))
            files.sync_directory(path)
        files.unlink(os.path.join(path, old))

    def _recover(self) -> None:
        """Let recovery make head and seek, and count what is missing in front of the first segment and at the end."""
        files, path = self._files, self._lane.path
        run = files.random(layout.ID_SIZE)
        begun = recovery.recover(files, path, buffer_id=self._buffer_id, run=run, boot_id=files.boot_id())
        if not self._lane.holds_letters:
            Runs(files, path).add(run, begun.head.next)
        ledger = Ledger.open(files, path, begun.seek, begun.seek_slot, exists=begun.seek_exists)
        try:
            ledger.apply_floor(begun.head.floor, begun.head.floor_ordinal)
            # What had left the lane is no loss.
            self.lost = [clipped for each in self.lost for clipped in _clipped(each, ledger.slot.next)]
            if begun.segments:
                front, slot = begun.segments[0].header, ledger.slot
                if slot.next < front.first and slot.ordinal < front.ordinal:
                    before, at = slot.lost, slot.next
                    ledger.lose(at, front.first, front.ordinal)
                    told = sum(each.messages for each in self.lost if each.last is not None and each.last < front.first)
                    untold = ledger.slot.lost - before - told
                    if untold > 0:
                        self._lose(at, front.first, untold, "missing in front of the first segment")
            slot = ledger.slot
            tail = max(
                slot.ordinal + int.from_bytes(slot.bitmap, "little").bit_length(),
                max((found.end_ordinal for found in begun.segments), default=0),
            )
            ledger.sync()
        finally:
            ledger.close()
        missing = max(0, begun.head.ordinal - tail)
        # Recovery has counted what a killed writer had accepted, and of which no ordinal is known.
        behind = [each for each in self.lost if each.first is not None and each.first >= begun.end]
        untold = missing + begun.lost - sum(each.messages for each in behind)
        if untold > 0:
            first = max([begun.end, *(each.last + 1 for each in behind if each.last is not None)])
            if begun.lost:
                lost = Damage("accepted, and not on disk when its program was stopped", first, None, untold)
            else:
                lost = Damage("missing at the end", first, first + untold - 1, untold)
            self.lost.append(Damage("missing", self._unsure, None, untold) if self._unsure else lost)
        begun.head.ordinal -= missing
        begun.head.lost_linger += missing
        close_in_order(files, path, begun)


def _clipped(damage: Damage, begin: int) -> list[Damage]:
    """What of a damage lies from sequence ``begin`` on."""
    if damage.first is None or damage.last is None or damage.first >= begin:
        return [damage]
    whole = damage.messages == damage.last - damage.first + 1
    left = damage.last + 1 - begin
    if left <= 0:
        return []
    return [Damage(damage.text, begin, damage.last, left if whole else min(left, damage.messages))]


def _buffer_id(files: Files, check: BufferCheck) -> bytes:
    """The buffer's id, as its lanes tell.

    :raises DirectoryError: none does, or they do not agree.
    """
    found: set[bytes] = set()
    for lane in check.lanes:
        top = read_head(files, lane.path)
        slot = read_seek(files, lane.path)
        found |= {each.buffer_id for each in (top, slot) if each is not None}
        index = SegmentIndex(files, lane.path)
        index.refresh()
        for entry in index.entries:
            header = index.header(entry)
            if header is not None:
                found.add(header.buffer_id)
                break
    found.discard(bytes(layout.ID_SIZE))
    if len(found) != 1:
        raise DirectoryError(
            f"{check.directory}: its lanes name {len(found)} buffers, expected one: a lane was put here from another "
            "buffer; move it away, then repair",
            path=check.directory,
        )
    return found.pop()


def _restore_buffer_file(files: Files, check: BufferCheck, buffer_id: bytes) -> None:
    """Make ``buffer.json`` anew, here: a person says that this is the place."""
    path = check.directory
    name = os.path.join(path, layout.BUFFER_FILE)
    told = [read_narration(files, os.path.join(lane.path, layout.WRITER_STATUS_FILE)) for lane in check.lanes]
    kept: dict[str, Any] = next((each["buffer"] for each in told if isinstance(each.get("buffer"), dict)), {})
    created = kept.get("created") if kept.get("id") == buffer_id.hex() else None
    temporary = f"{name}.new.{files.random(4).hex()}"
    fd = files.open(temporary, create=True, exclusive=True)
    try:
        inodes = [files.stat(path).st_ino, files.fstat(fd).st_ino]
        facts = {"format": layout.FORMAT_MAJOR, "id": buffer_id.hex(), "created": created or "", "inodes": inodes}
        files.pwrite(fd, json.dumps(facts, indent=1).encode() + b"\n", 0)
        files.datasync(fd)
    finally:
        files.close(fd)
    with suppress(FileNotFoundError):
        # What stands there was read and is none.
        files.rename(name, f"{name}.damaged-{files.random(4).hex()}")
    files.rename(temporary, name)
    files.sync_directory(path)
