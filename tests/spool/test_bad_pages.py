"""A page that the device refuses, of any file of a killed lane: that opens, takes messages, and loses nothing else."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mbframework_fake.provider import FakeProvider

from mbframework import DirectoryError, LaneStatus
from mbframework.config import Config
from mbframework.files import Files
from mbframework.ledger import Ledger
from mbframework.plugins.source import resolve
from mbframework.repair import repair
from mbframework.sidecar import Sidecar
from mbframework.spool import frame, head, layout, recovery, seek, segment_header, survey
from mbframework.spool.frame import FrameHeader
from mbframework.spool.headfile import HeadFile
from mbframework.spool.runs import Runs
from mbframework.status import read as read_status
from tests.engine.rig import FAST, at_rest, buffer_on, eventually, numbers, padded, program
from tests.faulty_files import BadSectors, FaultyFiles, Killed
from tests.spool.segments import BUFFER

PAGE = 4096
#: Messages that were written before the kill, the last 130 of them not delivered.
COUNT = 330

_KILLED = """
directory = sys.argv[1]
text = lambda number: f"{number} ".encode().ljust(1000, b".")
from mbframework_fake.provider import FakeProvider
with MessageBuffer(directory, None, segment_size="64KiB", **FAST) as buffer:
    for number in range(200):
        buffer.write("t", text(number))
provider = FakeProvider()
buffer = MessageBuffer(directory, provider, segment_size="64KiB", batch_messages=10, mode="always", **FAST)
buffer.flush(60)
buffer.pause()
for number in range(200, 330):
    buffer.write("t", text(number))
buffer.sync()
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lane whose process was killed with 130 messages in three segments, the last one not sealed."""
    directory = tmp_path_factory.mktemp("killed") / "b"
    with program(_KILLED, directory) as process:
        process.line()
        process.kill()
    return directory


def copied(killed: Path, tmp_path: Path) -> Path:
    shutil.copytree(killed, tmp_path / "b")
    return tmp_path / "b"


def segments(lane: Path) -> list[Path]:
    """Those in use, in order."""
    known = survey.survey(Files(), str(lane))
    return [lane / found.entry.name for found in known.segments]


def frames_of(path: Path) -> list[tuple[int, FrameHeader]]:
    """A segment's frames and their offsets."""
    raw = path.read_bytes()
    header = segment_header.unpack(raw[: segment_header.SEGMENT_HEADER_SIZE])
    assert header is not None
    found, offset = [], layout.FIRST_FRAME
    while (each := frame.read_header(raw, offset, header.salt)) is not None and each.count:
        found.append((offset, each))
        offset = frame.next_offset(offset, each.length)
    return found


def standing_on(path: Path, page: int) -> set[int]:
    """The numbers of the messages that stand on a page of a segment, with a part at least; on its header's, all."""
    return {
        number
        for offset, each in frames_of(path)
        if page == 0 or (offset < (page + 1) * PAGE and page * PAGE < offset + each.length)
        for number in range(each.first - 1, each.first - 1 + each.count)
    }


def delivered_beside(files: BadSectors, directory: Path) -> tuple[list[int], LaneStatus]:
    """Open, write at once, and let time pass until nothing waits: the numbers that arrived, and the accounts."""
    provider = FakeProvider()
    with buffer_on(files, directory, provider, identity="adopt", segment_size="64KiB") as buffer:
        buffer.write("t", padded(COUNT, 1000))

        def idle() -> bool:
            files.let_pass(0.5)
            # A write is never harmed.
            assert buffer.status().state != "disk-error"
            return not buffer.status().resident

        eventually(idle, "the end of the backlog")
        status = buffer.status()
        at_rest(buffer)
    return numbers(provider.messages), status


@pytest.mark.parametrize("page", [0, 1, 5, -1])
@pytest.mark.parametrize("place", [-1, -2, -3])
def test_a_page_of_a_segment_costs_the_messages_that_stand_on_it(
    killed: Path, tmp_path: Path, place: int, page: int
) -> None:
    directory, files = copied(killed, tmp_path), BadSectors()
    segment = segments(directory / "main")[place]
    if page < 0:
        # Where the last frame ends.
        page = max(number for number in range(16) if standing_on(segment, number))
    # The last segment is short: there, nothing stands on some of these.
    gone = standing_on(segment, page)
    files.refuse(str(segment), [page])
    arrived, status = delivered_beside(files, directory)
    assert files.refusals or not gone
    assert arrived == sorted({*range(200, COUNT + 1)} - gone)
    assert (status.accepted, status.lost) == (COUNT + 1, len(gone))
    # The next opening has nothing to mend, or to count again.
    with buffer_on(files, directory, FakeProvider()) as buffer:
        buffer.write("t", padded(COUNT + 1, 1000))
        buffer.flush(60)
        assert (buffer.status().accepted, buffer.status().lost) == (COUNT + 2, len(gone))


@pytest.mark.parametrize(
    ("name", "page"), [*(("head", page) for page in range(4)), *(("seek", page) for page in range(3)), ("runs", 0)]
)
def test_a_page_of_a_small_file_costs_nothing(killed: Path, tmp_path: Path, name: str, page: int) -> None:
    directory, files = copied(killed, tmp_path), BadSectors()
    before = survey.survey(Files(), str(directory / "main"))
    files.refuse(str(directory / "main" / name), [page])
    arrived, status = delivered_beside(files, directory)
    # An older slot of the seek may send again what a newer one knew of.
    assert arrived == sorted(set(arrived))
    assert arrived[-COUNT + 199 :] == [*range(200, COUNT + 1)]
    assert name == "seek" or len(arrived) == COUNT - 199
    assert (status.accepted, status.lost, status.resident) == (COUNT + 1, 0, 0)
    assert before.head is not None
    # What takes no stores any more has been made anew.
    assert (directory / "main" / f"{name}.damaged-0").exists()
    after = survey.survey(files, str(directory / "main"))
    assert not after.head_damaged
    assert not after.seek_damaged
    assert after.head is not None
    assert after.head.next > before.head.reserved_until
    # The openings that the file knew are known as before.
    assert {each.run for each in Runs(files, str(directory / "main")).openings()} >= {before.head.run, after.head.run}


def test_a_refusal_that_passes_while_the_lane_is_opened_changes_nothing(killed: Path, tmp_path: Path) -> None:
    directory, files = copied(killed, tmp_path), BadSectors()
    lane = directory / "main"
    before = survey.survey(Files(), str(lane))
    for path in (lane / "head", lane / "seek", *segments(lane)[-3:]):
        files.refuse(str(path), [0], times=1)
    arrived, status = delivered_beside(files, directory)
    assert arrived == [*range(200, COUNT + 1)]
    assert (status.accepted, status.lost) == (COUNT + 1, 0)
    after = survey.survey(files, str(lane))
    assert before.head is not None
    assert after.head is not None
    # No leap, and no file made anew.
    assert before.head.reserved_until <= after.head.next < before.head.reserved_until + recovery.GRANT
    assert not [name for name in os.listdir(lane) if "damaged" in name]


def test_a_segment_is_sealed_although_some_of_it_cannot_be_read_back(tmp_path: Path) -> None:
    files = BadSectors()
    with buffer_on(files, tmp_path / "b", None, segment_size="64KiB") as buffer:
        for number in range(20):
            buffer.write("t", padded(number, 1000))
        (segment,) = segments(tmp_path / "b" / "main")
        files.refuse(str(segment), [2, 6])
        for number in range(20, 120):
            buffer.write("t", padded(number, 1000))
        eventually(lambda: len(list((tmp_path / "b" / "main").glob("P*"))) >= 2, "two seals")
        sealed = segments(tmp_path / "b" / "main")[0]
        gone = standing_on(sealed, 2) | standing_on(sealed, 6)
    assert files.refusals
    provider = FakeProvider()
    with buffer_on(files, tmp_path / "b", provider) as buffer:

        def idle() -> bool:
            files.let_pass(0.5)
            return not buffer.status().resident

        eventually(idle, "the end of the backlog")
        assert buffer.status().lost == len(gone)
        at_rest(buffer)
    assert numbers(provider.messages) == sorted({*range(120)} - gone)


def test_a_device_that_fails_as_a_whole_is_not_mended(killed: Path, tmp_path: Path) -> None:
    directory, files = copied(killed, tmp_path), BadSectors()
    lane = directory / "main"
    before = {name: (lane / name).stat().st_size for name in os.listdir(lane)}
    for path in (lane / "head", lane / "seek", *segments(lane)):
        files.refuse(str(path), range(16))
    files.gone = True
    with pytest.raises(OSError) as told:
        recovery.recover(files, str(lane), buffer_id=BUFFER, run=b"R" * 16, boot_id=files.boot_id())
    assert told.value.errno == errno.EIO
    assert {name: (lane / name).stat().st_size for name in os.listdir(lane)} == before


def test_a_monitor_tells_what_remains(killed: Path, tmp_path: Path) -> None:
    directory, files = copied(killed, tmp_path), BadSectors()
    lane = directory / "main"
    last = segments(lane)[-1]
    files.refuse(str(lane / "head"), range(4))
    files.refuse(str(last), [0])
    told = read_status(directory, files)
    assert [each.name for each in told.lanes] == ["main"]
    assert told.lanes[0].delivered == 200
    assert any("head cannot be read" in each for each in told.problems)
    assert any(last.name in each for each in told.problems)


def test_a_buffer_file_that_cannot_be_read_is_named_and_repaired(killed: Path, tmp_path: Path) -> None:
    directory, files = copied(killed, tmp_path), BadSectors()
    path = directory / layout.BUFFER_FILE
    before = path.read_bytes()
    files.refuse(str(path), [0])
    with pytest.raises(DirectoryError, match=re.escape(f"{path} cannot be read")) as told:
        buffer_on(files, directory, None)
    assert f"run mb repair on {directory}" in str(told.value)
    assert path.read_bytes() == before
    assert repair(str(directory), files).done
    arrived, status = delivered_beside(files, directory)
    assert arrived == [*range(200, COUNT + 1)]
    assert status.lost == 0


# ---- head and seek


def refused_slot(files: BadSectors, path: Path, newest: Callable[[bytes], tuple[object, int, bool]]) -> None:
    """Refuse the newest slot alone."""
    files.refuse(str(path), [newest(path.read_bytes()[: head.LIVE_PAGE])[1]])


def test_the_end_in_order_of_an_earlier_opening_is_not_taken_for_that_of_the_last(tmp_path: Path) -> None:
    directory, files = tmp_path / "b", BadSectors()
    with buffer_on(files, directory, None):
        pass
    lane = directory / "main"
    clean = survey.survey(files, str(lane)).head
    assert clean is not None
    # An opening that was killed: its slots follow the one that says CLEAN.
    begun = recovery.recover(files, str(lane), buffer_id=BUFFER, run=b"R" * 16, boot_id=files.boot_id())
    HeadFile.begin(files, str(lane), begun.head, begun.head_slot, exists=True, mapped=False).close()
    given = begun.head.next + 1000
    refused_slot(files, lane / "head", head.newest)
    known = survey.survey(files, str(lane))
    assert known.head is not None
    assert known.head.generation == clean.generation
    assert not known.clean
    again = recovery.recover(files, str(lane), buffer_id=BUFFER, run=b"S" * 16, boot_id=files.boot_id())
    assert again.head.next > given


def test_what_was_delivered_and_removed_is_not_lost_with_the_slot_that_told_so(tmp_path: Path) -> None:
    directory, files = tmp_path / "b", BadSectors()
    lane = directory / "main"
    with buffer_on(files, directory, None, segment_size="64KiB") as buffer:
        for number in range(200):
            buffer.write("t", padded(number, 1000))
    with buffer_on(files, directory, FakeProvider(), segment_size="64KiB") as buffer:
        buffer.flush(60)
        eventually(lambda: not list(lane.glob("P*1.seg")), "the removal of the first segment")
        buffer.pause()
        buffer.write("t", padded(200, 1000))
    refused_slot(files, lane / "seek", seek.newest)
    raw = (lane / "seek").read_bytes()
    # The other two are of the time before.
    old = seek.SeekSlot(generation=1, run=bytes(layout.ID_SIZE), next=1, ordinal=0, buffer_id=BUFFER)
    bad = seek.newest(raw)[1]
    with open(lane / "seek", "r+b") as file:
        for index in range(layout.SLOT_COUNT):
            if index != bad:
                file.seek(index * layout.SLOT_STRIDE)
                file.write(old.pack())
    with buffer_on(files, directory, FakeProvider()) as buffer:
        buffer.flush(60)
        status = buffer.status()
        at_rest(buffer)
    assert (status.accepted, status.delivered, status.lost) == (201, 201, 0)


@pytest.mark.parametrize("name", ["head", "seek", "runs"])
def test_killed_while_a_file_is_made_anew_it_is_found_all_the_same(killed: Path, tmp_path: Path, name: str) -> None:
    class Both(FaultyFiles):
        """Refuses one page of the file, until it has been made anew: not that of the newest slot."""

        def __init__(self, inode: int) -> None:
            super().__init__()
            self.inode = inode

        def pread(self, fd: int, size: int, offset: int) -> bytes:
            if os.fstat(fd).st_ino == self.inode and offset < (page + 1) * PAGE and page * PAGE < offset + size:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().pread(fd, size, offset)

        def pause(self, seconds: float) -> None:
            pass

    def opened(files: Both, lane: Path) -> None:
        run = b"R" * 16
        begun = recovery.recover(files, str(lane), buffer_id=BUFFER, run=run, boot_id=files.boot_id())
        Runs(files, str(lane)).add(run, begun.head.next)
        Ledger.open(files, str(lane), begun.seek, begun.seek_slot, exists=begun.seek_exists).close()
        HeadFile.begin(files, str(lane), begun.head, begun.head_slot, exists=begun.head_exists, mapped=False).close()

    known = survey.survey(Files(), str(killed / "main"))
    assert known.head is not None
    assert known.seek is not None
    newest = {"head": known.head_slot, "seek": known.seek_slot}
    page = (newest[name] + 1) % layout.SLOT_COUNT if name in newest else 0
    n = 0
    while True:
        n += 1
        lane = tmp_path / str(n)
        shutil.copytree(killed / "main", lane)
        files = Both((lane / name).stat().st_ino)
        files.stop_at(n)
        try:
            opened(files, lane)
        except Killed:
            files.bury()
        else:
            files.bury()
            break
        found = survey.survey(Files(), str(lane))
        assert found.head is not None, n
        assert found.seek is not None, n
        assert found.head.reserved_until >= known.head.reserved_until
        assert found.seek.next == known.seek.next
        assert Runs(Files(), str(lane)).knows(known.head.run), n
        # And the next opening finds its way.
        following = Both(files.inode)
        opened(following, lane)
        following.bury()
        again = survey.survey(Files(), str(lane))
        assert again.head is not None
        assert again.head.epoch > known.head.epoch
        shutil.rmtree(lane)
    assert n > 10
    assert (lane / f"{name}.damaged-0").exists()


# ---- the end of the spool


@pytest.mark.parametrize("without_head", [False, True])
@pytest.mark.parametrize("synced", [False, True])
@pytest.mark.parametrize("zeroed", [5, 40])
def test_what_is_gone_from_the_end_is_counted_once(
    tmp_path: Path, zeroed: int, synced: bool, without_head: bool
) -> None:
    directory, out = tmp_path / "b", tmp_path / "out.jsonl"
    text = (
        "buffer = MessageBuffer(sys.argv[1], None)\n"
        "for number in range(40): buffer.write('t', b'%d' % number + bytes(1000))\n"
        "if len(sys.argv) > 2: buffer.sync()\n"
        "print('ready', flush=True)\ntime.sleep(60)\n"
    )
    with program(text, directory, *["sync"] * synced) as process:
        process.line()
        process.kill()
    lane = directory / "main"
    (segment,) = segments(lane)
    offset = frames_of(segment)[-zeroed][0]
    with open(segment, "r+b") as file:
        file.seek(offset)
        file.write(bytes(segment.stat().st_size - offset))
    if without_head:
        (lane / "head").unlink()
    source = resolve(f"file://{out}")
    assert source is not None
    Sidecar(Config.layered(directory=directory, **FAST), source).run(until_empty=True)
    status = read_status(directory).lanes[0]
    arrived = len(out.read_text().splitlines()) if out.exists() else 0
    assert status.balanced
    assert (arrived, status.delivered, status.resident) == (40 - zeroed, 40 - zeroed, 0)
    # Nothing else than the head knows how much there was.
    assert (status.accepted, status.lost) == ((40 - zeroed, 0) if without_head else (40, zeroed))
