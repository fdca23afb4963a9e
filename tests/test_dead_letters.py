"""Dead letters: what is stored with each, what is skipped, what a failing or full device does to them."""

from __future__ import annotations

import errno
import itertools
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from mbframework import MessageBuffer, read_status
from mbframework.deadletters import DeadLetters
from mbframework.deadstore import DeadStore
from mbframework.errors import MessageError
from mbframework.files import Files
from mbframework.intake import check_headers
from mbframework.message import NO_PARTITION, NO_TIMESTAMP, Batch, Header, Message, Position, pack_headers
from mbframework.spool.layout import RUN_RECORD
from mbframework.spool.reader import Gap, SpoolReader
from mbframework.spool.sectors import PERSISTS_NS, TRIES
from mbframework.spool.survey import survey
from mbframework.spool.writer import Identity
from tests.engine.rig import program
from tests.faulty_files import BadSectors, FaultyFiles, Killed

RUN = b"\x11" * 16


def batch_of(
    values: Sequence[bytes | None],
    *,
    first: int = 1,
    keys: Sequence[bytes | None] | None = None,
    headers: Sequence[Header] = (),
    run: bytes = RUN,
) -> Batch:
    count = len(values)
    return Batch(
        sequences=range(first, first + count),
        topics=[f"topic-{i}" for i in range(count)],
        keys=keys or [None] * count,
        values=values,
        header_blocks=[pack_headers(headers) if headers else None] * count,
        timestamps=[NO_TIMESTAMP, *range(1, count)],
        partitions=[NO_PARTITION, *range(count - 1)],
        accepted=[0] * count,
        position=Position(first + count, run),
    )


def letters(files: Files, home: Path, *, total_size: int = 4 << 20, mapped: bool = False) -> DeadLetters:
    identity = Identity(b"I" * 16, os.urandom(16), files.boot_id(), "main")
    return DeadLetters(
        files, str(home / "dead/main"), identity=identity, total_size=total_size, dir_mode=0o700, mapped=mapped
    )


def stored(home: Path) -> list[Message]:
    """Every letter that can be read, in order."""
    files, directory = Files(), str(home / "dead/main")
    first = survey(files, directory).segments[0].header
    reader = SpoolReader(files, directory)
    found: list[Message] = []
    position, ordinal = first.first, first.ordinal
    try:
        while (
            run := reader.read(position, ordinal, until=None, max_messages=99, max_bytes=1 << 24, hint=(0, 0))
        ) is not None:
            if isinstance(run, Gap):
                assert run.lost == 0
                position, ordinal = run.next, run.ordinal
                continue
            found += Batch(
                sequences=range(run.first, run.end), topics=run.topics, keys=run.keys, values=run.values,
                header_blocks=run.header_blocks, timestamps=run.timestamps, partitions=run.partitions,
                accepted=run.accepted, position=Position(run.end, run.run),
            )  # fmt: skip
            position, ordinal = run.end, ordinal + len(run)
    finally:
        reader.close()
    return found


def origins(home: Path) -> list[int]:
    """Where the letters once stood."""
    return [int(message.headers[0][1] or b"") for message in stored(home)]


def test_a_letter_is_the_message_as_it_was_behind_four_headers(tmp_path: Path) -> None:
    own: list[Header] = [("mb.seq", b"mine"), ("h", None), ("h", b""), ("mb.run", b"not hexadecimal")]
    values, keys = [None, b"", b"v"], [b"", None, b"k"]
    dead = letters(Files(), tmp_path)
    assert dead.add(batch_of(values, first=7, keys=keys, headers=own), {2: "third", 0: "first", 1: "second"}) == (3, "")
    found = stored(tmp_path)
    assert [(each.value, each.key) for each in found] == list(zip(values, keys, strict=True))
    assert [each.topic for each in found] == ["topic-0", "topic-1", "topic-2"]
    assert [each.timestamp for each in found] == [None, 1, 2]
    assert [each.partition for each in found] == [None, 0, 1]
    for number, (each, reason) in enumerate(zip(found, (b"first", b"second", b"third"), strict=True)):
        (seq, run, why, at), rest = each.headers[:4], each.headers[4:]
        assert (seq, run, why) == (
            ("mb.seq", b"%d" % (7 + number)),
            ("mb.run", RUN.hex().encode()),
            ("mb.reason", reason),
        )
        assert at[0] == "mb.at"
        assert at[1] is not None
        assert at[1].endswith(b"+00:00")
        assert list(rest) == own
    dead.close()
    # Its own headers of those names mislead nobody after a reopening.
    again = letters(Files(), tmp_path)
    assert again.add(batch_of(values, first=7, headers=own), {0: "again"}) == (1, "")
    again.close()
    assert origins(tmp_path) == [7, 8, 9]


def test_a_long_reason_is_cut_between_characters(tmp_path: Path) -> None:
    dead = letters(Files(), tmp_path)
    assert dead.add(batch_of([b"v"]), {0: "x" + "ä" * 5000}) == (1, "")
    dead.close()
    reason = stored(tmp_path)[0].headers[2][1]
    assert reason is not None
    assert len(reason) <= 4096
    assert reason.decode() == "x" + "ä" * 2047


def test_a_message_with_the_most_headers_has_room_for_four_more(tmp_path: Path) -> None:
    most = 65_535 - 4
    block = check_headers([("", None)] * most)
    assert block is not None
    with pytest.raises(MessageError, match="65,531"):
        check_headers([("", None)] * (most + 1))
    dead = letters(Files(), tmp_path)
    assert dead.add(batch_of([b"v"], headers=[("", None)] * most), {0: "no"}) == (1, "")
    dead.close()
    assert len(stored(tmp_path)[0].headers) == 65_535


@pytest.mark.parametrize("size", [10, 700_000])
def test_a_repeat_makes_no_twin(tmp_path: Path, size: int) -> None:
    """Also where each letter of the batch fills a segment of its own, and after a kill."""
    files = FaultyFiles()
    values = [bytes(size)] * 4
    dead = letters(files, tmp_path, total_size=32 << 20)
    assert dead.add(batch_of(values), dict.fromkeys(range(4), "no")) == (4, "")
    assert dead.add(batch_of(values), dict.fromkeys(range(4), "no")) == (4, "")
    files.bury()

    again = letters(Files(), tmp_path, total_size=32 << 20)
    assert again.add(batch_of(values), dict.fromkeys(range(4), "no")) == (4, "")
    assert again.add(batch_of(values, run=b"\x22" * 16), {1: "another run"}) == (1, "")
    again.close()
    assert origins(tmp_path) == [1, 2, 3, 4, 2]


def test_killed_at_any_call_a_second_try_has_each_once_and_in_order(tmp_path: Path) -> None:
    reasons = dict.fromkeys(range(3), "no")
    for n in itertools.count(1):
        home = tmp_path / str(n)
        home.mkdir()
        files = FaultyFiles()
        files.stop_at(n)
        try:
            letters(files, home).add(batch_of([b"a", b"b", b"c"]), reasons)
        except Killed:
            pass
        else:
            files.bury()
            break
        files.bury()
        again = letters(Files(), home)
        assert again.add(batch_of([b"a", b"b", b"c"]), reasons) == (3, "")
        again.close()
        assert origins(home) == [1, 2, 3], f"killed at call {n}: {files.journal[-1]}"
    assert n > 10


def test_each_call_may_fail_once_and_none_is_lost(tmp_path: Path) -> None:
    """None counts as stored that is not on the device, and the second try makes no twin."""
    reasons = dict.fromkeys(range(3), "no")
    for n in itertools.count(1):
        home = tmp_path / str(n)
        home.mkdir()
        files = FaultyFiles()
        dead = letters(files, home)
        files.fail_at(n, errno.EIO)
        try:
            assert dead.add(batch_of([b"a", b"b", b"c"]), reasons) == (3, "")
        except OSError:
            assert dead.add(batch_of([b"a", b"b", b"c"]), reasons) == (3, "")
        else:
            dead.close()
            break
        journal = list(files.journal)
        dead.close()
        files.bury()
        assert origins(home) == [1, 2, 3], f"failed at call {n}: {journal[n - 1]}"
    assert n > 10


def test_a_failed_sync_is_not_made_good_by_a_second_one(tmp_path: Path) -> None:
    """Linux tells once that a page was not written: the letter is stored again in front of the sync that counts."""
    files = FaultyFiles()
    dead = letters(files, tmp_path)
    assert dead.add(batch_of([b"a"]), {0: "no"}) == (1, "")
    files.fail_at(1, errno.EIO, times=2, only=("datasync",))
    with pytest.raises(OSError, match="datasync"):
        dead.add(batch_of([b"b"], first=2), {0: "no"})
    begun = len(files.journal)
    assert dead.add(batch_of([b"b"], first=2), {0: "no"}) == (1, "")
    assert files.journal[begun : begun + 2] == ["pwrite", "datasync"]
    dead.close()
    assert origins(tmp_path) == [1, 2]


def test_a_failure_half_way_leaves_nothing_open(tmp_path: Path) -> None:
    """Neither of an opening nor of a store, with and without a map, in a new store and in one that is there."""
    for there, mapped in itertools.product((False, True), repeat=2):
        for n in itertools.count(1):
            home = tmp_path / f"{there}-{mapped}-{n}"
            home.mkdir()
            if there:
                earlier = letters(Files(), home)
                assert earlier.add(batch_of([b"a"]), {0: "no"}) == (1, "")
                earlier.close()
            before = os.listdir("/proc/self/fd")
            files = FaultyFiles()
            files.fail_at(n, errno.EIO)
            dead = letters(files, home, mapped=mapped)
            try:
                dead.add(batch_of([b"b"], first=2), {0: "no"})
            except OSError:
                assert dead.add(batch_of([b"b"], first=2), {0: "no"}) == (1, "")
            dead.close()
            assert os.listdir("/proc/self/fd") == before, f"failed at call {n}: {files.journal[n - 1]}"
            if len(files.journal) < n:
                break
        assert n > 10


REJECTING = """
import os
from mbframework.files import Files

class Rejecting(Provider):
    def send(self, batch):
        numbers = [int(value) for value in batch.values]
        if any(number % 3 == 1 for number in numbers):
            rejected = {i: "no" for i, number in enumerate(numbers) if number % 3 == 1}
            raise SendFailed("no", rejected=rejected, undelivered=[])

class Dying(Files):
    # The letters are on the device, and the seek has not moved past their messages.
    def datasync(self, fd):
        super().datasync(fd)
        if os.readlink(f"/proc/self/fd/{fd}").endswith("/dead/main/head"):
            os.kill(os.getpid(), signal.SIGKILL)

class Killed(MessageBuffer):
    @staticmethod
    def _make_files():
        return Dying()

kind = {"killed": Killed, "whole": MessageBuffer}[sys.argv[1]]
buffer = kind(sys.argv[2], Rejecting(), batch_messages=int(sys.argv[3]), **FAST)
buffer.flush(60)
buffer.close(10)
"""


@pytest.mark.parametrize("batch_messages", [100, 4, 1])
def test_a_kill_makes_no_twin_of_messages_of_several_openings(tmp_path: Path, batch_messages: int) -> None:
    """The batch that comes again ends in another opening than the one that was killed."""

    def write(first: int) -> None:
        with MessageBuffer(tmp_path / "b") as buffer:
            buffer.write_many("t", map(str, range(first, first + 3)))

    def send(how: str) -> int:
        with program(REJECTING, how, tmp_path / "b", batch_messages) as sender:
            return sender.end()[0]

    write(0)
    write(3)
    assert send("killed") == -signal.SIGKILL
    write(6)
    assert send("whole") == 0
    found = stored(tmp_path / "b")
    assert [each.value for each in found] == [b"1", b"4", b"7"]
    status = read_status(tmp_path / "b").lanes[0]
    assert (status.accepted, status.delivered, status.dead, status.resident) == (9, 6, 3, 0)
    # Each names the opening that gave it out.
    raw = (tmp_path / "b/main/runs").read_bytes()
    runs = [run for run, _, _ in RUN_RECORD.iter_unpack(raw)]
    assert [each.headers[1][1] for each in found] == [runs[i].hex().encode() for i in (0, 1, 3)]


class FailingRead(FaultyFiles):
    """The ``n``-th read fails."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.left = n

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        self.left -= 1
        if self.left == 0:
            raise OSError(errno.EIO, "pread")
        return super().pread(fd, size, offset)


def test_an_opening_that_failed_forgets_nothing(tmp_path: Path) -> None:
    """The device fails while the last letters are looked up; the next attempt still knows them."""
    first = letters(Files(), tmp_path)
    assert first.add(batch_of([b"a", b"b"]), {0: "no", 1: "no"}) == (2, "")
    first.close()

    for fail_at in range(1, 400):
        files = FailingRead(fail_at)
        dead = letters(files, tmp_path)
        try:
            assert dead.add(batch_of([b"a", b"b"]), {0: "no", 1: "no"}) == (2, "")
        except OSError:
            assert dead.add(batch_of([b"a", b"b"]), {0: "no", 1: "no"}) == (2, "")
            dead.close()
        else:
            dead.close()
            break
    else:
        pytest.fail("the opening reads more than it should")
    assert origins(tmp_path) == [1, 2]


def test_a_page_that_cannot_be_read_does_not_keep_new_letters_out(tmp_path: Path) -> None:
    files = BadSectors()
    first = letters(files, tmp_path)
    values = [b"%d" % i + bytes(2000) for i in range(12)]
    assert first.add(batch_of(values), dict.fromkeys(range(12), "no")) == (12, "")
    first.close()
    (segment,) = (tmp_path / "dead/main").glob("P*.seg")
    files.refuse(str(segment), [3])
    store = DeadStore(files, str(tmp_path / "dead/main"))
    left = [letter.sequence for letter in store.letters()]
    assert 9 <= len(left) < 12
    # The store knows them all, and those that can be read are still no twins.
    dead = letters(files, tmp_path)
    tries = 0
    while True:
        tries += 1
        try:
            assert dead.add(batch_of([b"new"], first=13), {0: "no"}) == (1, "")
        except OSError:
            assert tries <= TRIES + PERSISTS_NS // 10**9
            files.let_pass(1)
        else:
            break
    known = left[-1] - 1
    assert dead.add(batch_of([values[known]], first=known + 1), {0: "no"}) == (1, "")
    dead.close()
    assert [letter.sequence for letter in store.letters()] == [*left, 13]
    assert store.drop(range(1, 1 << 40)) == 13
    assert not list(store.letters())


def test_full_says_how_many_were_stored_and_pushes_nothing_out(tmp_path: Path) -> None:
    dead = letters(Files(), tmp_path, total_size=64 << 10)
    values: list[bytes | None] = [bytes(3000)] * 40
    count, why = dead.add(batch_of(values), dict.fromkeys(range(40), "no"))
    assert 0 < count < 40
    assert "total_size" in why
    assert dead.add(batch_of(values), dict.fromkeys(range(40), "no")) == (count, why)
    dead.close()
    assert origins(tmp_path) == list(range(1, count + 1))


def test_on_the_device_before_it_returns(tmp_path: Path) -> None:
    """Segment and head are synced behind the last store; the seek of the dead letters says nothing new."""
    unsynced: set[str] = set()

    def name(fd: int) -> str:
        return os.readlink(f"/proc/self/fd/{fd}")

    class Watched(FaultyFiles):
        def pwrite(self, fd: int, data: bytes, offset: int) -> None:
            super().pwrite(fd, data, offset)
            if not name(fd).endswith("seek"):
                unsynced.add(str(os.fstat(fd).st_ino))

        def datasync(self, fd: int) -> None:
            super().datasync(fd)
            unsynced.discard(str(os.fstat(fd).st_ino))

    files = Watched()
    dead = letters(files, tmp_path)
    for sequence in (1, 2, 3):
        assert dead.add(batch_of([b"v"], first=sequence), {0: "no"}) == (1, "")
        assert not unsynced
        assert "datasync" in files.journal
        files.journal.clear()
    dead.close()
