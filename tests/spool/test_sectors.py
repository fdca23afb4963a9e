"""A device that refuses some of what it holds: nothing else is lost, and nothing at all to a refusal that passes."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mbframework_fake.provider import FakeProvider

from mbframework.spool.reader import Gap, SpoolReader
from mbframework.spool.sectors import PERSISTS_NS, TRIES, Sectors
from tests.engine.rig import at_rest, buffer_on, events, eventually, in_state, numbers, padded
from tests.examples import examples
from tests.faulty_files import BadSectors
from tests.spool.segments import History

PAGE = 4096
#: Rounds that a sender makes at the most before whatever is refused is given up, a second apart.
ROUNDS = TRIES + PERSISTS_NS // 10**9


def read_all(files: BadSectors, history: History) -> tuple[list[tuple[int, int, bytes]], list[Gap], int]:
    """(messages, gaps, refusals) of a sender that comes back a second after each refusal."""
    got: list[tuple[int, int, bytes]] = []
    gaps: list[Gap] = []
    position, ordinal, refusals = 1, 0, 0
    hint = (0, 0)
    with closing(SpoolReader(files, history.directory)) as reader:
        for _ in range(1000):
            try:
                found = reader.read(position, ordinal, until=history.end, max_messages=50, max_bytes=1 << 16, hint=hint)
            except OSError:
                refusals += 1
                files.let_pass(1)
                continue
            if found is None:
                return got, gaps, refusals
            if isinstance(found, Gap):
                assert found.ordinal == ordinal + found.lost
                gaps.append(found)
                position, ordinal = found.next, found.ordinal
            else:
                got += [(position + i, ordinal + i, value or b"") for i, value in enumerate(found.values)]
                position, ordinal, hint = found.end, ordinal + len(found), (found.segment, found.offset)
    raise AssertionError("the reader goes on for ever")


def made(directory: str, chance: random.Random) -> History:
    """Three segments of some pages each, the last perhaps not sealed."""
    history = History(directory)
    for state in ("P", chance.choice("PA"), chance.choice("PA")):
        batches = [[bytes(chance.choice([10, 500, 3000, 9000]))] * chance.choice([1, 1, 3]) for _ in range(8)]
        history.add(batches, state=state, gap=chance.choice([0, 0, 7]))
    return history


@examples(150)
@given(st.integers(0, 1 << 32))
def test_what_is_given_up_is_no_more_than_what_the_device_refuses(seed: int) -> None:
    chance = random.Random(seed)
    directory = tempfile.mkdtemp()
    try:
        history, files = made(directory, chance), BadSectors()
        for _ in range(chance.choice([1, 1, 2, 5])):
            path = chance.choice(history.segments).path
            first = chance.randrange(os.path.getsize(path) // PAGE + 1)
            files.refuse(path, range(first, first + chance.choice([1, 1, 3])))
        got, gaps, _ = read_all(files, history)
        # The same as if zeros stood there.
        files.overwrite()
        intact = history.intact()
        assert got == intact
        assert len(got) + sum(gap.lost for gap in gaps) <= history.ordinal
        if intact and intact[-1] == history.everything()[-1]:
            assert len(got) + sum(gap.lost for gap in gaps) == history.ordinal
    finally:
        shutil.rmtree(directory)


@examples(60)
@given(st.integers(0, 1 << 32))
def test_nothing_is_lost_to_a_refusal_that_passes(seed: int) -> None:
    chance = random.Random(seed)
    directory = tempfile.mkdtemp()
    try:
        history, files = made(directory, chance), BadSectors()
        for segment in history.segments:
            pages = range(os.path.getsize(segment.path) // PAGE + 1)
            files.refuse(segment.path, chance.sample(pages, min(3, len(pages))), times=chance.choice([1, 2, 3]))
        got, gaps, _ = read_all(files, history)
        assert files.refusals
        assert got == history.everything()
        assert not [gap for gap in gaps if gap.lost]
    finally:
        shutil.rmtree(directory)


def test_the_rest_of_the_segment_comes_and_the_reason_is_told(tmp_path: Path) -> None:
    history, files = History(str(tmp_path)), BadSectors()
    segment = history.add([[b"a" * 3000], [b"b" * 3000], [b"c" * 3000], [b"d" * 3000], [b"e" * 3000]])
    files.refuse(segment.path, [2])
    got, gaps, refusals = read_all(files, history)
    # Frames two and three stand on the third page of the file.
    assert [value[:1] for _, _, value in got] == [b"a", b"d", b"e"]
    assert [gap[:3] for gap in gaps] == [(3, 2, 1), (4, 3, 1)]
    assert {gap.reason for gap in gaps} == {"the device cannot read what is on disk"}
    assert 1 <= refusals <= ROUNDS


def test_a_device_that_fails_as_a_whole_costs_nothing(tmp_path: Path) -> None:
    history, files = History(str(tmp_path)), BadSectors()
    segment = history.add([[b"a"], [b"b" * 3000], [b"c" * 3000]])
    files.refuse(segment.path, range(1, 3))
    files.gone = True
    with closing(SpoolReader(files, history.directory)) as reader:
        for _ in range(5 * ROUNDS):
            with pytest.raises(OSError):
                reader.read(1, 0, until=history.end, max_messages=9, max_bytes=1 << 16, hint=(0, 0))
            files.let_pass(1)
        # It is back, whole.
        files.gone = False
        files.refuse(segment.path, range(1, 3), times=0)
        found = reader.read(1, 0, until=history.end, max_messages=9, max_bytes=1 << 16, hint=(0, 0))
        assert found is not None
        assert not isinstance(found, Gap)
        assert len(found) == 3


def test_the_sender_goes_on_behind_what_it_cannot_read(tmp_path: Path) -> None:
    count = 200
    with buffer_on(BadSectors(), tmp_path / "b", None, segment_size="64KiB") as buffer:
        for number in range(count):
            buffer.write("t", padded(number, 1000))
    files, provider = BadSectors(), FakeProvider()
    segment = sorted((tmp_path / "b" / "main").glob("P*.seg"))[1]
    files.refuse(str(segment), [4, 5])
    with buffer_on(files, tmp_path / "b", provider, segment_size="64KiB") as buffer:
        eventually(lambda: "cannot be read" in (buffer.status().last_error or ""), "the refusal in the status")
        assert buffer.status().lost == 0
        # Time passes while the sender tries.
        for _ in range(ROUNDS):
            files.let_pass(1)
        buffer.write("t", padded(count, 1000))
        buffer.flush(60)
        in_state(buffer, "live")
        arrived = numbers(provider.messages)
        status = buffer.status()
        at_rest(buffer)
    told = events(buffer, "lost", "sender")
    assert arrived == sorted(set(arrived))
    assert arrived[-1] == count
    missing = sorted(set(range(count)) - set(arrived))
    # Two pages of frames of little more than 1000 bytes, with those that reach into them.
    assert missing == list(range(missing[0], missing[0] + len(missing)))
    assert 7 <= len(missing) <= 10
    assert (status.lost_disk, status.delivered, status.resident) == (len(missing), count + 1 - len(missing), 0)
    assert sum(event["messages"] for event in told) == len(missing)
    assert told[0]["first"] == missing[0] + 1
    assert told[-1]["last"] == missing[-1] + 1


def test_time_alone_gives_nothing_up_and_what_was_read_in_between_begins_anew(tmp_path: Path) -> None:
    path, files = tmp_path / "file", BadSectors()
    path.write_bytes(b"x" * 3 * PAGE)
    fd = files.open(str(path))
    sectors = Sectors(files, str(tmp_path))

    try:
        for times in (0, 1):
            files.refuse(str(path), [1])
            for _ in range(TRIES - 1):
                files.let_pass(3600)
                with pytest.raises(OSError, match="at offset 4096"):
                    sectors.pread(fd, 3 * PAGE, 0)
            # Then it is read again: as part of the whole, or on its own.
            files.refuse(str(path), [1], times=times)
            assert sectors.pread(fd, 3 * PAGE, 0) == b"x" * 3 * PAGE
        files.refuse(str(path), [1])
        for _ in range(TRIES - 1):
            files.let_pass(3600)
            # What stands in front of it is there all the same.
            assert sectors.pread(fd, 3 * PAGE, 0, least=100) == b"x" * PAGE
        assert not sectors.given_up(fd, 0, None)
        files.let_pass(3600)
        assert sectors.pread(fd, 3 * PAGE, 0) == b"x" * PAGE + bytes(PAGE) + b"x" * PAGE
        assert sectors.given_up(fd, 0, PAGE + 1)
        assert not sectors.given_up(fd, 0, PAGE)
        assert not sectors.given_up(fd, 2 * PAGE, None)
    finally:
        files.close(fd)
