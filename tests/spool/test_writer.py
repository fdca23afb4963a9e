"""The writing end: the race of the filler, failing devices, limits, and seals."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from mbframework.spool import frame, layout, seal
from mbframework.spool.prepared import MiB, NoSpace
from mbframework.spool.reader import Gap, SpoolReader
from mbframework.spool.survey import survey
from mbframework.spool.writer import Identity, Limits, SpoolWriter
from tests.faulty_files import FaultyFiles
from tests.spool.segments import BOOT, BUFFER

KiB = 1024


def spool_in(
    directory: Path, files: FaultyFiles, *, size: int = 64 * KiB, mapped: bool = True, total: int = 1 << 40,
    segments: int = 1 << 20, min_free: int = 0,
) -> SpoolWriter:  # fmt: skip
    return SpoolWriter(
        files=files, directory=str(directory), identity=Identity(BUFFER, b"R" * 16, BOOT, "main"),
        limits=Limits(size, 1 << 62, total, segments, min_free), lock=threading.RLock(), mapped=mapped, end=1,
        ordinal=0, segments=[], next_size=size,
    )  # fmt: skip


def write(spool: SpoolWriter, size: int = 100, count: int = 1) -> None:
    """One frame; each value begins with its sequence."""
    with spool.lock:
        first = spool.end
        values = [b"%d " % (first + i) + b"\xff" * size for i in range(count)]

        def encode() -> bytes:
            return frame.encode_many(spool.salt, first, 5, b"topic", values)

        data = encode()
        if not spool.fits(len(data), first, 5):
            spool.make_room(len(data), first, 5)
            data = encode()
        spool.append(data, first, count, 5)


def read(directory: Path) -> list[int]:
    """The sequences that stand there; none may be lost."""
    got: list[int] = []
    with closing(SpoolReader(FaultyFiles(), str(directory))) as reader:
        position, ordinal = 1, 0
        while found := reader.read(position, ordinal, until=None, max_messages=1 << 20, max_bytes=1 << 20, hint=(0, 0)):
            assert not isinstance(found, Gap) or not found.lost
            if isinstance(found, Gap):
                position, ordinal = found.next, found.ordinal
                continue
            got += [int((value or b"").split()[0]) for value in found.values]
            position, ordinal = found.end, ordinal + len(found)
    return got


class Held(FaultyFiles):
    """Zeros wait between the choice of their place and their being written."""

    def __init__(self, chunk: int) -> None:
        super().__init__()
        self._chunk = chunk
        self.chosen = threading.Event()
        self.go = threading.Event()

    def fill(self, fd: int, start: int, end: int) -> None:
        if start == self._chunk * 256 * KiB:
            self.chosen.set()
            assert self.go.wait(60)
        super().fill(fd, start, end)


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("chunk", [0, 3, 4, 5, 7])
def test_no_zeros_land_on_a_frame(tmp_path: Path, chunk: int, mapped: bool) -> None:
    files = Held(chunk)
    spool = spool_in(tmp_path, files, size=2 * MiB, mapped=mapped)
    filler = threading.Thread(target=spool.prepare)
    filler.start()
    assert files.chosen.wait(60)
    prepared = spool.prepared
    assert prepared is not None
    # Below 1 MiB it is not ready: one is made in its place.
    taken = chunk >= 4
    write(spool)
    assert spool.counters.inline_prepared == (0 if taken else 1)
    first = spool.active
    assert first is not None
    assert (first.file is prepared) == taken
    while taken and spool.fits(64 * KiB, spool.end, 5):
        write(spool, 60 * KiB)
    if taken:
        assert chunk * 256 * KiB - 64 * KiB < spool.tail() <= chunk * 256 * KiB
    files.go.set()
    filler.join()
    while spool.active is first:
        write(spool, 60 * KiB)
    if taken:
        # What lay behind the zeros was used as well, once they had landed.
        assert first.tail > 2 * MiB - 80 * KiB
    assert read(tmp_path) == list(range(1, spool.end))
    spool.seal_retired()
    spool.close()
    files.bury()
    assert read(tmp_path) == list(range(1, spool.end))


def test_a_segment_is_not_sealed_while_zeros_are_on_their_way_into_it(tmp_path: Path) -> None:
    files = Held(4)
    spool = spool_in(tmp_path, files, size=2 * MiB)
    filler = threading.Thread(target=spool.prepare)
    filler.start()
    assert files.chosen.wait(60)
    write(spool)
    spool.retire()
    assert spool.seal_retired() == []
    files.go.set()
    filler.join()
    assert [each.first for each in spool.seal_retired()] == [1]
    spool.close()
    files.bury()
    assert read(tmp_path) == [1]


def test_closing_waits_for_the_chunk_of_zeros_in_flight(tmp_path: Path) -> None:
    """Else its descriptor's number may be another file's by the time that it is written."""
    files = Held(1)
    spool = spool_in(tmp_path, files, size=2 * MiB)
    filler = threading.Thread(target=spool.prepare)
    filler.start()
    assert files.chosen.wait(60)
    prepared = spool.prepared
    assert prepared is not None
    closer = threading.Thread(target=spool.close)
    closer.start()
    while spool.prepared is not None:
        closer.join(0.001)
    assert os.fstat(prepared.fd).st_size == 2 * MiB
    files.go.set()
    closer.join(60)
    filler.join(60)
    assert not closer.is_alive()
    assert prepared.fd == -1
    assert os.listdir(tmp_path) == []
    files.bury()


def test_a_device_that_refuses_the_zeros_costs_only_them(tmp_path: Path) -> None:
    files = FaultyFiles()
    spool = spool_in(tmp_path, files, size=2 * MiB)
    files.fail_at(3, errno.EIO, only=("pwrite",))
    with pytest.raises(OSError):
        spool.prepare()
    files.heal()
    write(spool)
    assert spool.counters.inline_prepared == 0
    spool.retire()
    assert len(spool.seal_retired()) == 1
    spool.close()
    files.bury()
    assert read(tmp_path) == [1]


class Slow(FaultyFiles):
    """A sync that waits for as long as the test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = False
        self.begun = threading.Event()
        self.go = threading.Event()

    def datasync(self, fd: int) -> None:
        if self.slow:
            self.slow = False
            self.begun.set()
            assert self.go.wait(60)
        super().datasync(fd)


def test_a_sync_under_way_outlives_the_seal_and_the_close_of_its_segment(tmp_path: Path) -> None:
    files = Slow()
    spool = spool_in(tmp_path, files)
    write(spool)
    spool.name_active()
    files.slow = True
    reached: list[tuple[int, int, int] | None] = []
    syncing = threading.Thread(target=lambda: reached.append(spool.sync_active()))
    syncing.start()
    assert files.begun.wait(60)
    tail = spool.tail()
    write(spool)
    spool.retire()
    sealing = threading.Thread(target=spool.seal_retired)
    sealing.start()
    write(spool)
    files.go.set()
    syncing.join(60)
    sealing.join(60)
    assert reached == [(1, tail, 2)]
    assert not spool.retired
    spool.close()
    files.bury()
    assert read(tmp_path) == [1, 2, 3]


class Forgetful(FaultyFiles):
    """A device that, like Linux, takes pages for clean once it has told that they could not be written."""

    def __init__(self) -> None:
        super().__init__()
        self.dirty: dict[int, dict[int, bytes]] = {}
        self.device: dict[int, bytearray] = {}
        self.failures = 0

    def pwrite(self, fd: int, data: bytes, offset: int) -> None:
        super().pwrite(fd, data, offset)
        self.dirty.setdefault(os.fstat(fd).st_ino, {})[offset] = data

    def datasync(self, fd: int) -> None:
        inode = os.fstat(fd).st_ino
        pages = self.dirty.pop(inode, {})
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EIO, "not written")
        image = self.device.setdefault(inode, bytearray(1 << 20))
        for offset, data in pages.items():
            image[offset : offset + len(data)] = data


@pytest.mark.parametrize("failures", [1, 2])
@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("named", [True, False])
def test_a_sync_that_failed_is_not_made_good_by_one_that_has_nothing_to_do(
    tmp_path: Path, failures: int, sealed: bool, named: bool
) -> None:
    files = Forgetful()
    spool = spool_in(tmp_path, files, mapped=False)
    write(spool)
    if named:
        spool.sync_active()
    write(spool)
    files.failures = failures
    if sealed:
        spool.retire()
    act: Callable[[], object] = spool.seal_retired if sealed else spool.sync_active
    if failures == 2:
        # Twice in a row is a broken device.
        with pytest.raises(OSError):
            act()
    act()
    # New messages go elsewhere, and older ones are where they were.
    write(spool)
    assert len(spool.segments) == 2
    spool.sync_active()
    assert read(tmp_path) == [1, 2, 3]
    for path in sorted(tmp_path.iterdir()):
        raw = path.read_bytes()
        assert bytes(files.device[path.stat().st_ino][: len(raw)]).rstrip(b"\0") == raw.rstrip(b"\0")
    spool.close()
    files.bury()


def state_of(spool: SpoolWriter, directory: Path, files: FaultyFiles) -> tuple[object, ...]:
    return (
        sorted(os.listdir(directory)), spool.end, spool.ordinal, spool.tail(), len(spool.segments), len(spool.retired),
        spool.active, spool.used(), len(files._open),
    )  # fmt: skip


@pytest.mark.parametrize("mapped", [True, False])
def test_where_there_is_no_room_nothing_changes_and_no_file_is_left(
    tmp_path: Path, mapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = FaultyFiles()
    spool = spool_in(tmp_path, files, mapped=mapped)
    write(spool)
    write(spool, 50 * KiB)
    before = state_of(spool, tmp_path, files)
    limits = spool.limits
    refusals = [
        Limits(64 * KiB, 1 << 62, 100 * KiB, 100, 0),
        Limits(64 * KiB, 1 << 62, 1 << 40, 1, 0),
        Limits(64 * KiB, 1 << 62, 1 << 40, 100, 1 << 60),
    ]
    for refusal in refusals:
        spool.limits = refusal
        with pytest.raises(NoSpace):
            write(spool, 50 * KiB)
        with pytest.raises(NoSpace):
            spool.prepare()
        assert state_of(spool, tmp_path, files) == before
    monkeypatch.setattr(files, "free_bytes", lambda _: 50 * KiB)
    spool.limits = Limits(64 * KiB, 1 << 62, 1 << 40, 100, 0)
    with pytest.raises(NoSpace, match=f"no room for the next segment of {64 * KiB} bytes: {50 * KiB} are free"):
        spool.prepare()
    monkeypatch.undo()
    spool.limits = limits
    for call in ("create", "reserve"):
        for number in (errno.ENOSPC, errno.EDQUOT):
            files.fail_at(1, number, times=2, only=(call,))
            with pytest.raises(NoSpace):
                write(spool, 50 * KiB)
            with pytest.raises(NoSpace):
                spool.prepare()
            files.heal()
            assert state_of(spool, tmp_path, files) == before
    # It recovers by itself, and a frame that fits the open segment never needed room.
    write(spool, 100)
    write(spool, 50 * KiB)
    assert read(tmp_path) == [1, 2, 3, 4]
    spool.close()
    files.bury()


@pytest.mark.parametrize(("number", "raised"), [(errno.ENOSPC, NoSpace), (errno.EIO, OSError)])
def test_unmapped_a_frame_that_was_refused_leaves_room_for_the_next(
    tmp_path: Path, number: int, raised: type[Exception]
) -> None:
    files = FaultyFiles()
    spool = spool_in(tmp_path, files, mapped=False)
    for _ in range(2):
        # The header of a new segment, and then its first frame.
        files.fail_at(1, number, only=("pwrite",))
        with pytest.raises(raised):
            write(spool)
        files.heal()
        assert os.listdir(tmp_path) == []
        assert (spool.end, spool.ordinal, spool.segments, len(files._open)) == (1, 0, [], 0)
    files.fail_at(2, number, only=("pwrite",))
    with pytest.raises(raised):
        write(spool)
    files.heal()
    assert spool.busy
    spool.settle()
    spool.retire()
    write(spool)
    write(spool)
    spool.retire()
    assert [each.first for each in spool.seal_retired()] == [1]
    assert read(tmp_path) == [1, 2]
    spool.close()
    files.bury()


def test_an_empty_segment_makes_way_for_one_of_the_same_name(tmp_path: Path) -> None:
    files = FaultyFiles()
    spool = spool_in(tmp_path, files)
    spool.make_room(100, 1, 5)
    spool.name_active()
    assert os.listdir(tmp_path) == [layout.unsealed_name(1)]
    spool.retire()
    assert os.listdir(tmp_path) == []
    assert spool.segments == []
    spool.make_room(100, 1, 5)
    # Too small for this one.
    write(spool, 100 * KiB)
    spool.name_active()
    assert os.listdir(tmp_path) == [layout.unsealed_name(1)]
    assert spool.seal_retired() == []
    assert read(tmp_path) == [1]
    spool.close()
    files.bury()


@pytest.mark.parametrize("mapped", [True, False])
def test_whatever_call_fails_once_the_next_round_makes_good(tmp_path: Path, mapped: bool) -> None:
    def play(spool: SpoolWriter, attempt: Callable[[Callable[[], object]], None]) -> None:
        for _ in range(3):
            attempt(lambda: write(spool, 20 * KiB))
            attempt(lambda: write(spool, 20 * KiB))
            attempt(spool.prepare)
            attempt(spool.sync_active)
            attempt(lambda: write(spool, 40 * KiB))
            attempt(spool.seal_retired)
        spool.retire()
        attempt(spool.seal_retired)

    def simply(what: Callable[[], object]) -> None:
        what()

    def again(what: Callable[[], object]) -> None:
        # A round of the housekeeper, and the next one.
        for _ in range(3):
            try:
                what()
            except OSError:
                assert spool is not None
                if spool.busy:
                    spool.settle()
            else:
                return
        raise AssertionError("it never works again")

    whole = tmp_path / "whole"
    whole.mkdir()
    files = FaultyFiles()
    spool = spool_in(whole, files, mapped=mapped)
    play(spool, simply)
    spool.close()
    files.bury()
    total = files.calls
    assert total > 40
    for n in range(1, total + 1):
        directory = tmp_path / str(n)
        directory.mkdir()
        files = FaultyFiles()
        spool = spool_in(directory, files, mapped=mapped)
        files.fail_at(n, errno.EIO)
        play(spool, again)
        names = os.listdir(directory)
        assert all(name.startswith("P") or name == getattr(spool.prepared, "name", "") for name in names), n
        spool.close()
        assert not files._open, n
        assert read(directory) == list(range(1, 10)), n
        for name in os.listdir(directory):
            raw = (directory / name).read_bytes()
            salt = int.from_bytes(raw[32:36], "little")
            offset = seal.read_trailer(raw[-seal.TRAILER_SIZE :], salt)
            assert offset is not None, n
            assert seal.unpack(raw, offset, salt) is not None, n
        files.bury()


@pytest.mark.parametrize("size", [64 * KiB, MiB])
def test_frames_larger_than_what_was_prepared_get_a_segment_of_their_own(tmp_path: Path, size: int) -> None:
    files = FaultyFiles()
    spool = spool_in(tmp_path, files, size=size)
    spool.prepare()
    for value in (10, layout.MAX_MESSAGE - 100, 10, 3 * MiB, size - 4096, 10, 60 * KiB):
        write(spool, value)
        spool.seal_retired()
    assert spool.prepared is None or spool.prepared.size == size
    spool.retire()
    spool.seal_retired()
    spool.close()
    files.bury()
    assert read(tmp_path) == list(range(1, 8))
    for path in tmp_path.iterdir():
        # Nothing but frames and the seal: what was reserved beyond is given back.
        raw = path.read_bytes()
        salt = int.from_bytes(raw[32:36], "little")
        offset = seal.read_trailer(raw[-seal.TRAILER_SIZE :], salt)
        assert offset is not None
        stored = seal.unpack(raw, offset, salt)
        assert stored is not None
        assert stored.offset + seal.size(len(stored.crcs)) == len(raw)


def test_a_segment_filled_to_the_brim_still_has_room_for_its_seal(tmp_path: Path) -> None:
    files = FaultyFiles()
    spool = spool_in(tmp_path, files)
    write(spool, 1)
    active = spool.active
    assert active is not None
    while spool.fits(128, spool.end, 5):
        write(spool, 1)
    spool.retire()
    spool.seal_retired()
    assert active.segment.size <= 64 * KiB
    spool.close()
    files.bury()
    known = survey(FaultyFiles(), str(tmp_path))
    assert known.spool_end == spool.end
