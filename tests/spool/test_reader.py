"""The reader against everything that can stand, or be missing, in a lane's directory."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbframework.errors import UnsupportedFormat
from mbframework.files import Files
from mbframework.message import NO_PARTITION, NO_TIMESTAMP
from mbframework.spool import frame, layout, segment_header
from mbframework.spool.reader import Gap, Run, SpoolReader
from mbframework.spool.writer import Identity, Limits, SpoolWriter
from tests.examples import examples
from tests.spool.segments import BOOT, BUFFER, History, harm


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(str(tmp_path))


def read_all(
    directory: str, position: int, ordinal: int, *, until: int | None, most: int = 100, size: int = 1 << 20,
    hint: tuple[int, int] = (0, 0), limit: int = 1_000,
) -> tuple[list[tuple[int, int, bytes]], int, int, int]:  # fmt: skip
    """(messages, lost, position, ordinal) of a sender that reads until there is nothing."""
    got: list[tuple[int, int, bytes]] = []
    lost = 0
    with closing(SpoolReader(Files(), directory)) as reader:
        for _ in range(limit):
            found = reader.read(position, ordinal, until=until, max_messages=most, max_bytes=size, hint=hint)
            if found is None:
                return got, lost, position, ordinal
            if isinstance(found, Gap):
                assert (found.next, found.ordinal) > (position, ordinal)
                assert found.ordinal == ordinal + found.lost
                lost += found.lost
                position, ordinal = found.next, found.ordinal
            else:
                assert found.first == position
                assert 0 < len(found) <= most
                got += [(position + i, ordinal + i, value or b"") for i, value in enumerate(found.values)]
                hint = (found.segment, found.offset)
                position, ordinal = found.end, ordinal + len(found)
    raise AssertionError("the reader goes on for ever")


values = st.lists(st.binary(max_size=300), min_size=1, max_size=6)
single = st.lists(st.binary(max_size=300), min_size=1, max_size=1)
batches = st.lists(values, max_size=8) | st.lists(single, max_size=20)
segment = st.tuples(batches, st.sampled_from([0, 0, 0, 1, 1000]), st.booleans())


@examples(600)
@given(
    st.lists(segment, min_size=1, max_size=5),
    st.sampled_from(["P", "A", "N"]),
    st.integers(0, 4),
    st.integers(0, 1 << 32),
)
def test_after_any_damage_every_intact_message_comes_once_and_in_order(
    plan: list[tuple[list[list[bytes]], int, bool]], last: str, damages: int, seed: int
) -> None:
    chance = random.Random(seed)
    directory = tempfile.mkdtemp()
    try:
        history = History(directory)
        for number, (batches, gap, crcs) in enumerate(plan):
            state = last if number == len(plan) - 1 else chance.choice("PPPA")
            empty = history.segments and not history.segments[-1].frames
            if batches or state != "P":
                gap = gap or int(bool(empty))
                history.add(batches, state=state, gap=gap, crcs=crcs)
        for _ in range(damages):
            path = chance.choice(history.segments).path if history.segments else ""
            if path and os.path.exists(path):
                harm(path, chance)
        everything = history.everything()
        if not everything:
            return
        start = chance.choice([0, chance.randrange(len(everything))])
        position, ordinal, _ = everything[start]
        hint = chance.choice([(0, 0), *[(each.first, one.offset) for each in history.segments for one in each.frames]])
        if chance.random() < 0.1:
            hint = (hint[0], chance.choice([1, 4099, 1 << 40, layout.U64_LIMIT - 1]))
        got, lost, at, reached = read_all(
            directory, position, ordinal, until=history.end, most=chance.choice([1, 3, 1000]),
            size=chance.choice([1, 500, 1 << 20]), hint=hint,
        )  # fmt: skip
        assert got == [each for each in history.intact() if each[0] >= position]
        assert len(got) + lost == reached - ordinal
        assert reached <= history.ordinal
        if not damages:
            assert (at, lost) == (history.end, 0)
    finally:
        shutil.rmtree(directory)


def test_a_batch_crosses_segments_but_not_gaps_and_says_where_the_next_begins(history: History) -> None:
    history.add([[b"1", b"2"], [b"3"]])
    history.add([[b"4"]])
    history.add([[b"5"]], gap=10, state="A")
    with closing(SpoolReader(Files(), history.directory)) as reader:
        run = reader.read(1, 0, until=None, max_messages=100, max_bytes=1 << 20, hint=(0, 0))
        assert isinstance(run, Run)
        assert run.values == [b"1", b"2", b"3", b"4"]
        assert run.segment == history.segments[1].first
        assert reader.read(5, 4, until=None, max_messages=9, max_bytes=9, hint=(0, 0)) == Gap(15, 4, 0)
        run = reader.read(15, 4, until=None, max_messages=9, max_bytes=1 << 20, hint=(0, 0))
        assert isinstance(run, Run)
        assert run.values == [b"5"]
        assert reader.read(16, 5, until=None, max_messages=9, max_bytes=9, hint=(0, 0)) is None


def test_a_batch_is_bounded_by_bytes_and_begins_inside_a_frame(history: History) -> None:
    made = history.add([[bytes([i]) * 1000 for i in range(10)]], state="A")
    got, lost, _, _ = read_all(history.directory, 4, 3, until=11, size=2500, hint=(1, made.frames[0].offset))
    assert [value[0] for _, _, value in got] == list(range(3, 10))
    assert lost == 0
    with closing(SpoolReader(Files(), history.directory)) as reader:
        run = reader.read(1, 0, until=None, max_messages=100, max_bytes=2500, hint=(0, 0))
        assert isinstance(run, Run)
        assert 2 <= len(run) <= 3
        # A frame larger than the bound is given out a message at a time, never not at all.
        run = reader.read(3, 2, until=None, max_messages=100, max_bytes=1, hint=(0, 0))
        assert isinstance(run, Run)
        assert len(run) == 1


rows = st.tuples(
    st.sampled_from(["t", "orders", "é"]), st.none() | st.binary(max_size=30), st.none() | st.binary(max_size=300),
    st.none() | st.just(b"\x01\x00\x01\x00\x01\x00\x00\x00kv"), st.sampled_from([NO_TIMESTAMP, 5]),
    st.sampled_from([NO_PARTITION, 3]),
)  # fmt: skip


@examples(200)
@given(
    st.lists(st.tuples(st.lists(rows, min_size=1, max_size=3), st.integers(0, 1 << 40)), min_size=1, max_size=40),
    st.sampled_from([1, 2, 7, 1000]),
    st.sampled_from([1, 300, 1 << 20]),
)
def test_every_column_comes_as_it_was_written(
    frames: list[tuple[list[tuple[str, bytes | None, bytes | None, bytes | None, int, int]], int]], most: int, size: int
) -> None:
    directory = tempfile.mkdtemp()
    try:
        history = History(directory)
        made = history.add([], state="A")
        header = segment_header.unpack(made.header)
        assert header is not None
        raw, written, at = b"", [], 1
        for messages, accepted in frames:
            names, keys, payload, blocks, timestamps, partitions = zip(*messages, strict=True)
            topics = [name.encode() for name in names]
            raw += frame.encode_many(header.salt, at, accepted, topics, payload, keys, blocks, timestamps, partitions)
            wall = header.wall_ns + accepted - header.boot_ns
            written += [(at + i, *message, wall, accepted) for i, message in enumerate(messages)]
            at += len(messages)
        with open(made.path, "r+b") as file:
            file.seek(layout.FIRST_FRAME)
            file.write(raw + bytes(4096))
        got: list[tuple[object, ...]] = []
        position, hint = 1, (0, 0)
        with closing(SpoolReader(Files(), directory)) as reader:
            while position < at:
                # A batch that was given back is read again, from wherever the reader stands by then.
                for _ in range(2):
                    run = reader.read(position, position - 1, until=at, max_messages=most, max_bytes=size, hint=hint)
                assert isinstance(run, Run)
                assert run.run == header.run
                boot = [each.accepted for each in run.acceptances for _ in range(each.count)]
                assert run.acceptances[0] == next(iter(run.acceptances))
                assert run.acceptances[-1].header == header
                got += zip(
                    range(run.first, run.end), run.topics, run.keys, run.values, run.header_blocks, run.timestamps,
                    run.partitions, run.accepted, boot, strict=True,
                )  # fmt: skip
                position, hint = run.end, (run.segment, run.offset)
        assert got == written
    finally:
        shutil.rmtree(directory)


def test_the_largest_frame_is_read(history: History) -> None:
    history.add([[b"x" * (layout.MAX_MESSAGE - 5)], [b"y"]])
    got, lost, _, _ = read_all(history.directory, 1, 0, until=None)
    assert [(len(value), value[:1]) for _, _, value in got] == [(layout.MAX_MESSAGE - 5, b"x"), (1, b"y")]
    assert lost == 0


def test_messages_in_front_of_a_frame_of_a_newer_release_are_still_delivered(history: History) -> None:
    made = history.add([[b"1"], [b"2"]], state="A")
    salt = int.from_bytes(made.header[32:36], "little")
    newer = frame.assemble(salt, 2, 0, 1, 1 << 9, 0, b"")
    with open(made.path, "r+b") as file:
        file.seek(made.frames[1].offset)
        file.write(newer)
    with closing(SpoolReader(Files(), history.directory)) as reader:
        run = reader.read(1, 0, until=3, max_messages=100, max_bytes=1 << 20, hint=(0, 0))
        assert isinstance(run, Run)
        assert run.values == [b"1"]
        with pytest.raises(UnsupportedFormat):
            reader.read(2, 1, until=3, max_messages=100, max_bytes=1 << 20, hint=(0, 0))


def test_frames_beyond_what_the_successor_calls_the_end_are_hidden(history: History) -> None:
    made = history.add([[b"1"], [b"2", b"old"]])
    history.end, history.ordinal = 3, 2
    history.add([[b"new"]])
    assert made.end == 4
    got, lost, _, _ = read_all(history.directory, 1, 0, until=4)
    assert [value for _, _, value in got] == [b"1", b"2", b"new"]
    assert lost == 0


@pytest.mark.timeout(60)
def test_a_frame_that_does_not_follow_the_one_in_front_is_behind_a_gap(history: History) -> None:
    """However right its checksums are."""
    made = history.add([[b"1"], [b"2"], [b"3"]])
    _, second, third = made.frames
    with open(made.path, "r+b") as file:
        file.seek(second.offset)
        file.write(third.raw)
    got, lost, at, ordinal = read_all(history.directory, 1, 0, until=history.end)
    assert ([each[0] for each in got], lost, at, ordinal) == ([1, 3], 1, 4, 3)


def test_messages_that_only_the_ordinals_know_of_are_lost(history: History) -> None:
    history.add([[b"1", b"2"]])
    history.add([[b"3"]])
    got, lost, at, ordinal = read_all(history.directory, 3, 0, until=history.end)
    assert (got, lost, at, ordinal) == ([(3, 2, b"3")], 2, 4, 3)


def test_a_frame_being_stored_by_another_process_is_not_taken_for_damage(history: History) -> None:
    """The writer's live page counts messages that linger in memory: ``until`` may lie beyond what is stored."""
    made = history.add([[b"1"], [b"2" * 100]], state="A")
    whole = Path(made.path).read_bytes()
    torn = bytearray(whole)
    begin = made.frames[1].offset
    torn[begin + 60 : begin + len(made.frames[1].raw)] = bytes(len(made.frames[1].raw) - 60)
    Path(made.path).write_bytes(torn)
    with closing(SpoolReader(Files(), history.directory)) as reader:
        assert isinstance(reader.read(1, 0, until=9, max_messages=9, max_bytes=9, hint=(0, 0)), Run)
        assert reader.read(2, 1, until=9, max_messages=9, max_bytes=9, hint=(0, 0)) is None
        Path(made.path).write_bytes(whole)
        run = reader.read(2, 1, until=9, max_messages=9, max_bytes=9, hint=(0, 0))
        assert isinstance(run, Run)
        assert run.values == [b"2" * 100]


@pytest.mark.parametrize("sealed", ["before it is opened", "while it is read"])
def test_behind_damage_in_the_last_segment_reading_goes_on_once_it_is_sealed(history: History, sealed: str) -> None:
    made = history.add([[b"1"], [b"2"], [b"3"]])
    waiting = os.path.join(history.directory, layout.unsealed_name(1))
    with open(made.path, "r+b") as file:
        file.seek(made.frames[1].offset + 41)
        file.write(b"?")
    if sealed == "while it is read":
        os.rename(made.path, waiting)
    with closing(SpoolReader(Files(), history.directory)) as reader:
        run = reader.read(1, 0, until=None, max_messages=1, max_bytes=9, hint=(0, 0))
        assert isinstance(run, Run)
        if sealed == "while it is read":
            # Without its end being known, and not sealed: the frame may be in the making.
            assert reader.read(2, 1, until=None, max_messages=9, max_bytes=9, hint=(0, 0)) is None
            os.rename(waiting, made.path)
        assert reader.read(2, 1, until=None, max_messages=9, max_bytes=9, hint=(0, 0)) == Gap(3, 2, 1)
        run = reader.read(3, 2, until=None, max_messages=9, max_bytes=9, hint=(0, 0))
        assert isinstance(run, Run)
        assert run.values == [b"3"]
        assert reader.read(4, 3, until=None, max_messages=9, max_bytes=9, hint=(0, 0)) is None


class Rushing(Files):
    """A listing that misses files which are being renamed."""

    def __init__(self) -> None:
        self.hidden: set[str] = set()
        self.before_open: dict[str, str] = {}

    def list(self, path: str) -> list[str]:
        names = [name for name in super().list(path) if name not in self.hidden]
        self.hidden.clear()
        return names

    def open(self, path: str, *, create: bool = False, exclusive: bool = False, write: bool = True) -> int:
        target = self.before_open.pop(path, "")
        if target:
            os.rename(path, target)
        return super().open(path, create=create, exclusive=exclusive, write=write)


@pytest.mark.parametrize("race", ["missing in the listing", "renamed behind the listing"])
def test_a_segment_that_is_being_renamed_is_not_lost(history: History, race: str) -> None:
    history.add([[b"1"]], state="A")
    second = history.add([[b"2"]], state="N")
    history.add([[b"3"]], state="A")
    files = Rushing()
    if race == "missing in the listing":
        files.hidden = {os.path.basename(second.path)}
    else:
        files.before_open = {second.path: os.path.join(history.directory, layout.unsealed_name(second.first))}
    with closing(SpoolReader(files, history.directory)) as reader:
        run = reader.read(2, 1, until=4, max_messages=9, max_bytes=1 << 20, hint=(0, 0))
        assert isinstance(run, Run)
        assert run.values == [b"2", b"3"]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[SpoolWriter]:
    spool = SpoolWriter(
        files=Files(), directory=str(tmp_path), identity=Identity(BUFFER, b"R" * 16, BOOT, "main"),
        limits=Limits(1 << 18, 1 << 62, 1 << 30, 1 << 20, 0), lock=threading.RLock(), mapped=True, end=1, ordinal=0,
        segments=[],
    )  # fmt: skip
    yield spool
    spool.close()


def test_a_reader_follows_a_writer_at_work_and_misses_nothing(writer: SpoolWriter) -> None:
    total = 20_000
    failed: list[BaseException] = []

    def write() -> None:
        try:
            for sequence in range(1, total + 1):
                with writer.lock:
                    value = b"%d" % sequence * (1 + sequence % 40)
                    size = frame.size_of_one(5, 0, len(value), 0)
                    if not writer.fits(size, sequence, 0):
                        writer.make_room(size, sequence, 0)
                    data = frame.encode_one(writer.salt, sequence, 0, b"topic", None, value, None, None, None)
                    writer.append(data, sequence, 1, 0)
                if sequence % 700 == 0:
                    writer.seal_retired()
                if sequence % 900 == 0:
                    writer.prepare()
        except BaseException as error:  # noqa: BLE001  (shown by the test's own thread)
            failed.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    position, ordinal = 1, 0
    hint = (0, 0)
    with closing(SpoolReader(Files(), writer.directory)) as reader:
        while position <= total and not failed:
            # Both in one process, with an exact end, and in another, without.
            until = writer.end if position % 2 else None
            found = reader.read(position, ordinal, until=until, max_messages=64, max_bytes=1 << 16, hint=hint)
            if found is None:
                assert thread.is_alive() or writer.end > position
                continue
            if isinstance(found, Gap):
                assert found.lost == 0
                position, ordinal = found.next, found.ordinal
                continue
            for i, value in enumerate(found.values):
                sequence = position + i
                assert value == b"%d" % sequence * (1 + sequence % 40)
            hint = (found.segment, found.offset)
            position, ordinal = found.end, ordinal + len(found)
    thread.join()
    assert not failed
    assert position == total + 1


def test_a_missing_directory_and_foreign_files_hold_nothing(tmp_path: Path) -> None:
    (tmp_path / "P1.seg").write_bytes(b"no segment of ours")
    os.symlink("/etc/passwd", tmp_path / layout.sealed_name(7))
    (tmp_path / layout.sealed_name(9)).mkdir()
    for directory in (str(tmp_path), str(tmp_path / "missing")):
        with closing(SpoolReader(Files(), directory)) as reader:
            assert reader.read(1, 0, until=10, max_messages=1, max_bytes=1, hint=(0, 0)) is None
