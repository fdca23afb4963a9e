"""What disks, descriptors and permissions do to a buffer: failures 1, 10, 12, 13, 16 and 19."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from mbframework_fake.broker import FakeBroker
from mbframework_fake.provider import FakeProvider

from mbframework import CloseIncomplete, MessageBuffer, NotAccepted, read_status
from mbframework.files import Files
from mbframework.spool import layout, seek
from tests.engine.rig import Disk, buffer_on
from tests.known_failures.conftest import FAST, WAIT_S, eventually, files_below, numbers, padded

SMALL: dict[str, Any] = {**FAST, "mode": "always", "segment_size": "64KiB", "min_free": 0}


# ---- 1: a crash between the removal of a file and the sync of the ledger


class Stops(Disk):
    """From the n-th change behind the first removal on every one fails, as if the process were gone."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after
        self.unlinked = 0
        self.error = self._gone

    def unlink(self, path: str) -> None:
        super().unlink(path)
        self.unlinked += path.endswith(".seg")

    def _gone(self, call: str) -> int:
        if not self.unlinked:
            return 0
        self.after -= 1
        return errno.EIO if self.after < 0 else 0


@pytest.mark.parametrize("after", [0, 1, 3])
@pytest.mark.parametrize("behind_the_removal", ["the seek is lost", "another segment is missing"])
def test_01_a_crash_between_removal_and_sync_is_no_crash_loop(
    behind_the_removal: str, after: int, tmp_path: Path, broker: FakeBroker
) -> None:
    path = tmp_path / "buffer"
    broker.down()
    with MessageBuffer(path, FakeProvider(broker), **SMALL) as buffer:
        for number in range(500):
            buffer.write("t", padded(number, 1000))
    before = (path / "main/seek").read_bytes()
    broker.up()
    with suppress(NotAccepted, CloseIncomplete), buffer_on(Stops(after), path, FakeProvider(broker), **SMALL) as buffer:
        broker.wait_for(500, WAIT_S)
    if behind_the_removal == "the seek is lost":
        # What the crash left of it: the position before all of this.
        (path / "main/seek").write_bytes(before)
    else:
        for gone in sorted((path / "main").glob("P*.seg"))[:1]:
            gone.unlink()
    for start in range(3):
        with MessageBuffer(path, FakeProvider(broker), **SMALL) as buffer:
            buffer.write("t", padded(1000 + start, 10))
            buffer.flush(WAIT_S)
            assert buffer.status().balanced
    arrived = numbers(broker)
    assert arrived[:500] == list(range(500))
    assert [number for number in arrived if number >= 1000] == [1000, 1001, 1002]


# ---- 10: a full disk


FILLING = """
import os, sys
from mbframework import BufferFull, MessageBuffer
from tests.known_failures.conftest import FAST, padded
options = {**FAST, "mode": "always", "segment_size": "64KiB", "min_free": 0, "on_full": "reject", "total_size": "1GiB"}
accepted = 0
buffer = MessageBuffer(sys.argv[1] + "/buffer", None, **options)
try:
    for accepted in range(100_000):
        buffer.write("t", padded(accepted, 1000))
except BufferFull:
    pass
# Whatever else fills the device up to its last byte harms nothing that was accepted.
try:
    with open(sys.argv[1] + "/filler", "wb") as filler:
        while True:
            filler.write(bytes(4096))
            filler.flush()
except OSError:
    pass
try:
    buffer.write("t", padded(accepted, 1000))
    accepted += 1
except BufferFull:
    pass
try:
    buffer.close()
except Exception as error:
    print(type(error).__name__, error)
os.unlink(sys.argv[1] + "/filler")
print("accepted", accepted)
"""


@pytest.fixture
def tiny_device(tmp_path: Path) -> Iterator[Path]:
    """A device of 2 MiB, which a map cannot grow on."""
    place = tmp_path / "device"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2M", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small device cannot be mounted ({mounted.stderr.strip()}); run as root to include this")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_10_a_full_disk_is_no_signal_that_kills(tiny_device: Path, broker: FakeBroker) -> None:
    child = subprocess.run(
        [sys.executable, "-c", FILLING, str(tiny_device)],
        capture_output=True, text=True, check=False, timeout=60, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    accepted = int(child.stdout.split()[-1])
    assert accepted > 500
    with MessageBuffer(tiny_device / "buffer", FakeProvider(broker), **SMALL, on_full="reject") as buffer:
        buffer.flush(WAIT_S)
        assert buffer.status().lost == 0
    assert numbers(broker) == list(range(accepted))


class Watched(Files):
    """Notes how much of each file that is mapped has a place on the device."""

    holes: list[int]

    def map(self, fd: int, size: int) -> Any:
        info = os.fstat(fd)
        self.holes.append(size - min(size, info.st_blocks * 512))
        return super().map(fd, size)


def test_10_nothing_is_mapped_that_has_no_place_on_the_device(tmp_path: Path, broker: FakeBroker) -> None:
    files = Watched()
    files.holes = []
    broker.down()
    with buffer_on(files, tmp_path / "buffer", FakeProvider(broker), **SMALL) as buffer:
        for number in range(500):
            buffer.write("t", padded(number, 1000))
    assert len(files.holes) > 5
    assert set(files.holes) == {0}


# ---- 12: no descriptors left


def test_12_too_many_open_files_are_not_taken_for_damage(tmp_path: Path, broker: FakeBroker) -> None:
    path = tmp_path / "buffer"
    broker.down()
    options = {**SMALL, "on_full": "reject"}
    with MessageBuffer(path, FakeProvider(broker), **options) as buffer:
        for number in range(300):
            buffer.write("t", padded(number, 1000))
        eventually(lambda: buffer.status().segments > 3, "segments")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with ExitStack() as undo:
            # No file can be opened from here on, by any thread.
            resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
            undo.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
            broker.up()
            accepted = 300
            with suppress(NotAccepted):
                for _ in range(300):
                    buffer.write("t", padded(accepted, 1000))
                    accepted += 1
            # The sender has had its turn: a provider in memory needs no descriptor, the segments do.
            looks = buffer.running_lane().space_searches
            eventually(lambda: buffer.running_lane().space_searches > looks, "another look for space")
        buffer.flush(WAIT_S)
        status = buffer.status()
    assert numbers(broker) == list(range(accepted))
    assert (status.lost, status.dead, status.balanced) == (0, 0, True)
    assert not [name for name in files_below(path) if "damaged" in name or name.endswith(".bad")]


def test_12_nor_when_opening(tmp_path: Path, broker: FakeBroker) -> None:
    path = tmp_path / "buffer"
    broker.down()
    with MessageBuffer(path, FakeProvider(broker), **SMALL) as buffer:
        for number in range(300):
            buffer.write("t", padded(number, 1000))
    before = files_below(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for spare in range(6):
        with ExitStack() as undo:
            lowest = os.open(os.devnull, os.O_RDONLY)
            os.close(lowest)
            undo.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + spare, hard))
            why = _open_and_close(path)
            assert not why or "many open files" in why, why
    segments = {name: data for name, data in before.items() if name.endswith(".seg")}
    assert segments.items() <= files_below(path).items()
    broker.up()
    with MessageBuffer(path, FakeProvider(broker), **SMALL) as buffer:
        buffer.flush(WAIT_S)
    assert numbers(broker) == list(range(300))


def _open_and_close(path: Path) -> str:
    """Why it does not open; "" where it does."""
    try:
        buffer = MessageBuffer(path, None, **SMALL)
    except Exception as error:  # noqa: BLE001 - which one depends on how far it came
        return str(error)
    buffer.close()
    return ""


# ---- 13: a position file of zeros


@pytest.mark.parametrize("left", ["zeros", "nothing in it", "no file", "one slot of three"])
def test_13_a_position_of_zeros_opens_and_delivers_everything(left: str, tmp_path: Path, broker: FakeBroker) -> None:
    path = tmp_path / "buffer"
    options = {**SMALL, "retain_delivered": 3600}
    with MessageBuffer(path, FakeProvider(broker), **options) as buffer:
        buffer.write_many("t", [padded(number, 1000) for number in range(200)])
        buffer.flush(WAIT_S)
        broker.down()
        buffer.write_many("t", [padded(number, 1000) for number in range(200, 300)])
    file = path / "main" / layout.SEEK_FILE
    if left == "no file":
        file.unlink()
    elif left == "one slot of three":
        # A torn write of the newest: the one before counts, and no more than its batch comes again.
        _, newest, _ = seek.newest(file.read_bytes())
        with open(file, "r+b") as data:
            data.seek(newest * layout.SLOT_STRIDE)
            data.write(bytes(layout.SLOT_SIZE))
    else:
        file.write_bytes(bytes(file.stat().st_size if left == "zeros" else 0))
    broker.clear()
    broker.up()
    with MessageBuffer(path, FakeProvider(broker), **options) as buffer:
        buffer.write("t", padded(300, 10))
        buffer.flush(WAIT_S)
        status = buffer.status()
    arrived = numbers(broker)
    assert arrived == list(range(arrived[0], 301))
    assert arrived[0] <= 200
    assert (status.lost, status.resident, status.balanced) == (0, 0, True)


# ---- 16: a permission problem


OPENING_AS_ANOTHER = """
import os, sys
from mbframework import MessageBuffer
from mbframework.errors import BufferLocked
# What is imported late may lie where the other user must not look.
MessageBuffer(sys.argv[1] + "-first", None).close()
try:
    MessageBuffer(sys.argv[1] + "/no/such", None)
except Exception:
    pass
"".encode("ascii"), "".encode("idna")
os.setgid(4001); os.setuid(4001)
try:
    MessageBuffer(sys.argv[1], None).close()
except Exception as error:
    print(type(error).__name__, isinstance(error, BufferLocked), error)
else:
    print("opened")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take another user's part; run as root to include this")
@pytest.mark.parametrize("name", ["writer.lock", "head", "../buffer.json"])
def test_16_a_permission_problem_is_not_called_a_lock(name: str, broker: FakeBroker) -> None:
    place = Path(tempfile.mkdtemp(prefix="mbframework-16-"))
    try:
        path = place / "buffer"
        with MessageBuffer(path, FakeProvider(broker), **SMALL) as buffer:
            buffer.write("t", "0")
        for each in (place, *place.rglob("*")):
            os.chown(each, 4001, 4001)
        file = path / "main" / name
        os.chown(file, 0, 0)
        file.chmod(0o600)
        done = subprocess.run(
            [sys.executable, "-c", OPENING_AS_ANOTHER, str(path)],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        kind, is_lock, *words = done.stdout.split()
        assert is_lock == "False", done.stdout
        assert file.name in done.stdout, done.stdout
        assert "permission" in done.stdout.lower() or "may not open" in done.stdout, done.stdout
        assert kind != "opened"
        assert words
    finally:
        shutil.rmtree(place)


# ---- 19: no space


@pytest.mark.parametrize(
    ("call", "code"),
    [
        *((call, errno.ENOSPC) for call in ("create", "reserve", "pwrite", "rename", "datasync", "truncate")),
        ("sync_directory", errno.EDQUOT),
    ],
)
def test_19_no_space_at_any_call_corrupts_nothing(call: str, code: int, tmp_path: Path, broker: FakeBroker) -> None:
    disk, path = Disk(), tmp_path / "buffer"
    broker.down()
    options = {**SMALL, "on_full": "reject"}
    accepted: list[int] = []

    def write(buffer: MessageBuffer, count: int) -> None:
        for _ in range(count):
            with suppress(NotAccepted):
                buffer.write("t", padded(len(accepted), 1000))
                accepted.append(len(accepted))

    with suppress(CloseIncomplete), buffer_on(disk, path, FakeProvider(broker), **options) as buffer:
        write(buffer, 100)
        disk.fail(code, call)
        write(buffer, 200)
        disk.mend()
        eventually(lambda: _takes(buffer, accepted), "room again")
        write(buffer, 100)
        disk.fail(code, call)
    with MessageBuffer(path, FakeProvider(broker), **options) as buffer:
        broker.up()
        buffer.flush(WAIT_S)
        assert buffer.status().balanced
    assert numbers(broker) == accepted
    assert read_status(path).lanes[0].lost == 0


def _takes(buffer: MessageBuffer, accepted: list[int]) -> bool:
    try:
        buffer.write("t", padded(len(accepted), 1000))
    except NotAccepted:
        return False
    accepted.append(len(accepted))
    return True
