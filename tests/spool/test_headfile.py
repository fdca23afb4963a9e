from __future__ import annotations

from pathlib import Path

import pytest

from mbframework.files import Files
from mbframework.spool import headfile
from mbframework.spool.head import HeadSlot
from mbframework.spool.headfile import HeadFile
from mbframework.spool.survey import read_head, read_live


@pytest.mark.parametrize("mapped", [True, False])
def test_a_slot_that_was_packed_earlier_never_replaces_a_later_one(mapped: bool, tmp_path: Path) -> None:
    # Two threads pack under the lane's lock and store outside of it: the order of the two stores is open.
    slot = HeadSlot(generation=1, buffer_id=b"B" * 16, run=b"R" * 16, boot_id=b"b" * 16)
    file = HeadFile.begin(Files(), str(tmp_path), slot, 0, exists=False, mapped=mapped)
    slot.generation = 2
    earlier = slot.pack()
    slot.generation, slot.reserved_until = 3, 1 << 24
    later = slot.pack()
    file.publish(later)
    file.publish(earlier)
    file.sync()
    file.close()
    found = read_head(Files(), str(tmp_path))
    assert found is not None
    assert (found.generation, found.reserved_until) == (3, 1 << 24)


@pytest.mark.parametrize("mapped", [True, False])
def test_a_word_is_seen_by_other_processes_as_soon_as_it_is_stored(mapped: bool, tmp_path: Path) -> None:
    # After a kill this is all that tells how many messages were accepted and never spooled.
    files = Files()
    slot = HeadSlot(generation=1, buffer_id=b"B" * 16, run=b"R" * 16, boot_id=files.boot_id(), reserved_until=900)
    file = HeadFile.begin(files, str(tmp_path), slot, 0, exists=False, mapped=mapped)
    file.words[headfile.NEXT] = 501
    file.words[headfile.TAIL] = 4096
    page = read_live(files, str(tmp_path))
    file.close()
    assert page is not None
    assert (page.next, page.tail, file.words[headfile.NEXT]) == (501, 4096, 501)


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("size", [600, 4096, 16000])
def test_a_file_that_was_cut_is_made_whole(mapped: bool, size: int, tmp_path: Path) -> None:
    files = Files()
    slot = HeadSlot(generation=1, buffer_id=b"B" * 16, run=b"R" * 16, boot_id=files.boot_id(), reserved_until=900)
    HeadFile.begin(files, str(tmp_path), slot, 0, exists=False, mapped=mapped).close()
    path = tmp_path / "head"
    with path.open("r+b") as file:
        file.truncate(size)
    slot.generation = 2
    again = HeadFile.begin(files, str(tmp_path), slot, 0, exists=True, mapped=mapped)
    again.words[headfile.NEXT] = 501
    page = read_live(files, str(tmp_path))
    assert page is not None
    assert page.next == 501
    again.close()
