"""The three slots: what is left of them after a kill, a failed sync and a power loss."""

from __future__ import annotations

import errno
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbframework.files import Files
from mbframework.spool import seek
from mbframework.spool.layout import SLOT_SIZE, SLOT_STRIDE
from mbframework.spool.seek import SEEK_FILE_SIZE, SeekSlot
from mbframework.spool.slots import SlotFile
from tests.examples import examples
from tests.faulty_files import FaultyFiles


def slot(number: int) -> bytes:
    return SeekSlot(generation=number, run=bytes(16), buffer_id=bytes(16), next=number, ordinal=number).pack()


class Disk(Files):
    """One file: what the cache shows, what the device holds, and what was stored since the last good sync."""

    def __init__(self, size: int, chance: random.Random, grain: int) -> None:
        self.chance, self.grain = chance, grain
        self.cache = bytearray(size)
        self.device = bytearray(size)
        self.unsynced: list[tuple[int, bytes]] = []
        self.fails = False
        #: Called in the middle of a sync, after it was decided what it covers.
        self.meanwhile = lambda: None

    def pwrite(self, fd: int, data: bytes, offset: int) -> None:
        self.cache[offset : offset + len(data)] = data
        self.unsynced.append((offset, data))

    def datasync(self, fd: int) -> None:
        covered, self.unsynced = self.unsynced, []
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        if self.fails:
            # Linux marks the pages clean, whether or not they arrived: the next sync does not see them.
            self._some(self.device, covered)
            raise OSError(errno.EIO, "failed")
        for offset, data in covered:
            self.device[offset : offset + len(data)] = data

    def after_power_loss(self) -> bytes:
        """Any part of what was not synced."""
        result = bytearray(self.device)
        self._some(result, self.unsynced)
        return bytes(result)

    def _some(self, image: bytearray, stores: list[tuple[int, bytes]]) -> None:
        for offset, data in stores:
            for start in range(0, len(data), self.grain):
                if self.chance.random() < 0.5:
                    piece = data[start : start + self.grain]
                    image[offset + start : offset + start + len(piece)] = piece


actions = st.lists(
    st.sampled_from(["write", "sync", "write during sync", "failed sync", "write during failed sync"]), max_size=30
)


@examples(400)
@given(actions, st.integers(0, 1 << 32), st.sampled_from([1, 8, 512]))
def test_after_a_power_loss_a_slot_as_new_as_the_last_good_sync_is_there(
    history: list[str], seed: int, grain: int
) -> None:
    disk = Disk(SEEK_FILE_SIZE, random.Random(seed), grain)
    for image in (disk.cache, disk.device):
        image[:SLOT_SIZE] = slot(1)
    file = SlotFile(disk, -1, 0)
    number = promised = 1
    for action in history:
        if action == "write":
            number += 1
            file.write(slot(number))
            continue
        covered = number

        def meanwhile() -> None:
            nonlocal number
            if "write during" in action:  # noqa: B023  (called within this round)
                number += 1
                file.write(slot(number))

        disk.meanwhile, disk.fails = meanwhile, "failed" in action
        try:
            file.sync()
            promised = max(promised, covered)
        except OSError:
            assert disk.fails
        # A kill loses nothing: the cache shows the newest.
        newest, _, _ = seek.newest(bytes(disk.cache))
        assert newest is not None
        assert newest.generation == number
        for _ in range(3):
            left, _, _ = seek.newest(disk.after_power_loss())
            assert left is not None
            assert promised <= left.generation <= number


def test_a_store_that_failed_is_made_good_by_the_next_sync_or_it_fails_too(tmp_path: Path) -> None:
    files = FaultyFiles()
    path = str(tmp_path / "seek")
    file = SlotFile.create(files, path, SEEK_FILE_SIZE, slot(1))
    try:
        file.write(slot(2))
        files.fail_at(1, errno.EIO, times=2, only=("pwrite",))
        with pytest.raises(OSError):
            file.write(slot(3))
        with pytest.raises(OSError):
            file.sync()
        files.heal()
        file.sync()
        newest, _, _ = seek.newest((tmp_path / "seek").read_bytes())
        assert newest is not None
        assert newest.generation == 3
    finally:
        file.close()
        files.bury()


def test_at_every_call_of_making_it_the_file_is_whole_or_absent_and_nothing_is_overwritten(tmp_path: Path) -> None:
    reached = False
    for n in range(1, 20):
        directory = tmp_path / str(n)
        directory.mkdir()
        (directory / "seek").write_bytes(b"rubbish")
        files = FaultyFiles()
        files.stop_at(n)
        try:
            SlotFile.create(files, str(directory / "seek"), SEEK_FILE_SIZE, slot(7)).close()
            reached = True
        except BaseException:
            if not files.dead:
                raise
        files.bury()
        kept = [path.read_bytes() for path in directory.iterdir() if path.name in ("seek", "seek.damaged-0")]
        assert b"rubbish" in kept
        if (directory / "seek").exists() and (directory / "seek").read_bytes() != b"rubbish":
            raw = (directory / "seek").read_bytes()
            assert len(raw) == SEEK_FILE_SIZE
            assert seek.newest(raw)[0] == seek.unpack_slot(slot(7))
        # Whatever was left there, the next opening makes it.
        whole = FaultyFiles()
        SlotFile.create(whole, str(directory / "seek"), SEEK_FILE_SIZE, slot(8)).close()
        whole.bury()
        if reached:
            break
    assert reached


def test_an_opened_file_spares_the_slot_that_was_read(tmp_path: Path) -> None:
    path = tmp_path / "seek"
    files = Files()
    SlotFile.create(files, str(path), SEEK_FILE_SIZE, slot(1)).close()
    for number in range(2, 12):
        newest, index, _ = seek.newest(path.read_bytes())
        file = SlotFile.open(files, str(path), index)
        file.write(slot(number))
        after = path.read_bytes()
        file.close()
        assert newest is not None
        assert seek.unpack_slot(after[index * SLOT_STRIDE :][:SLOT_SIZE]) == newest
        found = seek.newest(after)[0]
        assert found is not None
        assert found.generation == number
