"""Who can write the directory: modes of what is made, and links, files and segments that somebody has put there."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
import zlib
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
from mbframework_fake.broker import FakeBroker
from mbframework_fake.provider import FakeProvider

from mbframework import MessageBuffer, read_status
from mbframework.errors import MessageBufferError
from mbframework.spool import frame, layout, segment_header
from tests.engine.rig import FAST, numbers
from tests.fuzz import lanes, mutation
from tests.security.planting import Victim, leave, use

# ---- modes


@pytest.mark.parametrize("umask", [0, 0o077])
@pytest.mark.parametrize("dir_mode", [0o700, 0o2770])
def test_modes_do_not_depend_on_the_umask(dir_mode: int, umask: int, tmp_path: Path) -> None:
    path = tmp_path / "buffer"
    broker = FakeBroker()
    broker.reject_when(lambda message: "no" if message.value == b"3" else None)
    before = os.umask(umask)
    try:
        broker.down()
        with MessageBuffer(path, FakeProvider(broker), **FAST, segment_size="64KiB", dir_mode=dir_mode) as buffer:
            for number in range(300):
                buffer.write("t", str(number).ljust(1000 if number > 10 else 0))
            broker.up()
            buffer.flush(60)
            buffer.pause()
            broker.down()
            buffer.write("t", b"x" * 10_000)
            found = {}
            for each in (path, *path.rglob("*")):
                # A prepared file may just have got its name.
                with contextlib.suppress(FileNotFoundError):
                    found[each] = each.lstat()
    finally:
        os.umask(before)
    assert (path / "dead/main").is_dir()
    for each, info in found.items():
        mode = stat.S_IMODE(info.st_mode)
        if each.is_dir():
            assert mode == (0o700 if each.name == "control" else dir_mode), each
        elif each.name.startswith(("status.", "history.")):
            assert mode in (0o600, 0o600 | dir_mode & 0o040 & ~umask), each
        else:
            # Whatever holds a message, a position or a topic is its owner's alone.
            assert mode == 0o600, each


# ---- links


FILES = [
    "buffer.json", "main/head", "main/seek", "main/runs", "main/writer.lock", "main/sender.lock",
    "main/status.writer.json", "main/status.writer.json.tmp", "main/events.writer.jsonl", "main/events.sender.jsonl.1",
    "main/history.writer", "main/history.sender.tmp", "main/paused", "main/head.new", f"main/{layout.unsealed_name(6)}",
    f"main/{layout.sealed_name(6)}",
]  # fmt: skip
FOLDERS = ["main", "main/control", "dead", "dead/main"]


@pytest.mark.parametrize(
    ("name", "hard"), [(name, hard) for hard in (False, True) for name in FILES] + [(name, False) for name in FOLDERS]
)
def test_no_link_leads_out_of_the_directory(name: str, hard: bool, tmp_path: Path) -> None:
    path, broker = tmp_path / "buffer", FakeBroker()
    leave(path, broker)
    broker.reject_when(lambda message: "no" if message.value == b"7" else None)
    victim = Victim(tmp_path)
    victim.link(path / name, hard=hard)
    why = use(path, broker)
    assert victim.is_well(), f"{name}: {why}"
    if why:
        # What stands in the way is told by its name.
        assert (path / name).name in why, why
    status = read_status(path).lanes if (path / "main").is_dir() and name != "buffer.json" else ()
    # And costs no message: the rest is delivered when it is gone.
    if os.path.lexists(path / name) and name not in ("buffer.json", "main/head", "main/seek", "main"):
        (path / name).unlink() if (path / name).is_symlink() or (path / name).is_file() else None
        use(path, broker, first=10, count=1)
        arrived = set(numbers(broker.messages)) | {7}
        assert set(range(5)) <= arrived
        assert sum(lane.lost for lane in read_status(path).lanes) == 0, status


def test_a_directory_that_is_a_link_or_others_may_write_is_refused(tmp_path: Path) -> None:
    broker = FakeBroker()
    leave(tmp_path / "buffer", broker)
    (tmp_path / "link").symlink_to(tmp_path / "buffer")
    assert "symbolic link" in use(tmp_path / "link", broker)
    for mode in (0o777, 0o770, 0o707):
        (tmp_path / "buffer").chmod(mode)
        assert "may be written by others" in use(tmp_path / "buffer", broker)
    (tmp_path / "buffer").chmod(0o700)
    (tmp_path / "buffer/main").chmod(0o777)
    assert "may be written by others" in use(tmp_path / "buffer", broker)
    assert not broker.count


def test_a_pipe_in_the_place_of_a_file_holds_nobody_up(tmp_path: Path) -> None:
    broker = FakeBroker()
    for name in ("main/head", "main/status.sender.json", "main/paused", "buffer.json"):
        path = tmp_path / name.replace("/", "-")
        leave(path, broker)
        (path / name).unlink(missing_ok=True)
        os.mkfifo(path / name)
        use(path, broker)
        # Nor a monitor.
        with suppress(MessageBufferError, OSError):
            read_status(path)


# ---- files that have a segment's name


@pytest.mark.parametrize("first", [1, 3, 6, (1 << 63) - 1])
@pytest.mark.parametrize("kind", ["rubbish", "nothing", "a directory"])
def test_a_file_with_a_segments_name_costs_no_message(kind: str, first: int, tmp_path: Path) -> None:
    path, broker = tmp_path / "buffer", FakeBroker()
    leave(path, broker)
    planted = path / "main" / layout.unsealed_name(first)
    if kind == "a directory":
        planted.mkdir()
    else:
        planted.write_bytes(b"rubbish" * 1000 if kind == "rubbish" else b"")
    # The first time it comes half-way, so that the next begins in the middle of a segment.
    broker.fail_next(after=3)
    use(path, broker, 5, flush=0)
    use(path, broker, 10)
    assert numbers(broker.messages) == list(range(15))
    (lane,) = read_status(path).lanes
    assert (lane.lost, lane.balanced) == (0, True)


def write_segment(path: Path, data: bytes) -> None:
    (path / "main" / layout.sealed_name(1)).write_bytes(data)


def claims(data: bytearray, chance: Random) -> None:
    """As many headers as fit, each with a right checksum, that claim the rest of the file."""
    salt = int.from_bytes(data[32:36], "little")
    del data[layout.FIRST_FRAME :]
    size = 1 << 21
    for at in range(0, size, 64):
        prefix = frame._PREFIX.pack(b"MBF1", size - at, 1 + at // 64, 0, 1, 0, 0, chance.getrandbits(32))
        data += (prefix + zlib.crc32(prefix, salt).to_bytes(4, "little")).ljust(64, b"\0")


def many(data: bytearray, chance: Random) -> None:
    """As many messages as a frame may have, in as few bytes."""
    salt = int.from_bytes(data[32:36], "little")
    del data[layout.FIRST_FRAME :]
    for number in range(4):
        data += frame.encode_many(salt, 1 + number * 65_536, 0, b"", [b""] * 65_536)


def lengths(data: bytearray, chance: Random) -> None:
    """Lengths in the columns that reach far beyond the body."""
    salt = int.from_bytes(data[32:36], "little")
    mutation.poke(data, layout.FIRST_FRAME + 41, 4, chance)
    mutation.reseal_frame(data, layout.FIRST_FRAME, salt)


HOSTILE = """
import resource, sys, time
from mbframework import MessageBuffer, read_status
from mbframework_fake.broker import FakeBroker
from mbframework_fake.provider import FakeProvider
from tests.engine.rig import FAST
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
broker = FakeBroker(keep=10)
read_status(sys.argv[1])
with MessageBuffer(sys.argv[1], FakeProvider(broker), **FAST) as buffer:
    buffer.write("t", "last")
    try:
        buffer.flush(60)
    except TimeoutError as error:
        print(error, buffer.status())
print("grown", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, broker.messages[-1].value)
"""


@pytest.mark.parametrize("how", [claims, many, lengths])
def test_a_hostile_segment_takes_neither_memory_nor_time(how: object, tmp_path: Path) -> None:
    path, broker = tmp_path / "buffer", FakeBroker()
    leave(path, broker)
    (segment,) = (path / "main").glob("P*.seg")
    data = bytearray(segment.read_bytes())
    assert segment_header.unpack(data) is not None
    how(data, Random(1))  # type: ignore[operator]
    write_segment(path, bytes(data))
    done = subprocess.run(
        [sys.executable, "-c", HOSTILE, str(path)],
        capture_output=True, text=True, check=False, timeout=60, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *_, grown, last = done.stdout.split("\n")[-2].split()
    assert last == "b'last'", done.stdout
    # KiB: some times the size of the file (2 MiB), and what a program that runs needs.
    assert int(grown) < 100 * 1024


def test_numbers_that_no_lane_can_reach_open_nothing_and_touch_nothing(tmp_path: Path) -> None:
    for name, field in (("head", 72), ("seek", 32)):
        path, broker = tmp_path / name, FakeBroker()
        leave(path, broker)
        file = path / "main" / name
        data = bytearray(file.read_bytes())
        for slot in range(layout.SLOT_COUNT):
            at = slot * layout.SLOT_STRIDE
            if any(data[at : at + layout.SLOT_SIZE]):
                data[at + field : at + field + 8] = (layout.U64_LIMIT - 2).to_bytes(8, "little")
                mutation.reseal_record(data, at, at + layout.SLOT_SIZE)
        file.write_bytes(data)
        segments = {each.name: each.read_bytes() for each in (path / "main").glob("*.seg")}
        with pytest.raises(MessageBufferError, match="which no lane can have reached"):
            MessageBuffer(path, None).close()
        assert {each.name: each.read_bytes() for each in (path / "main").glob("*.seg")} == segments


def test_what_a_hostile_lane_gives_is_never_more_than_it_holds(tmp_path: Path) -> None:
    """A few of the lanes of tests/fuzz, on real files and through a whole program."""
    for number in range(4):
        path, broker, chance = tmp_path / str(number), FakeBroker(), Random(number)
        leave(path, broker)
        for segment in (path / "main").glob("*.seg"):
            segment.unlink()
        lane = lanes.make_lane(chance, 2)
        lanes.harm(lane, chance, lies=True)
        for name, data in lane.content().items():
            (path / "main" / name).write_bytes(data)
        before = broker.count
        use(path, broker, first=900, count=2)
        held = sum(data.count(b"MBF1") for data in lane.content().values())
        assert broker.count - before <= max(held, 1) * 8000 + 2
