"""After a repair: every intact message is delivered, in order, the loss is told and counted, and all is intact."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from mbframework import MessageBuffer
from mbframework.browse import Entry, LaneBrowser
from mbframework.deadstore import DeadStore
from mbframework.errors import BufferLocked
from mbframework.files import Files
from mbframework.repair import Repair, plan, repair
from mbframework.salvage import start_of
from mbframework.spool.index import SegmentIndex
from mbframework.status import read
from mbframework.verify import check_buffer
from tests.browse.conftest import COUNT
from tests.browse.harm import HARMS, overwrite
from tests.faulty_files import FaultyFiles, Killed

HEADERS = {"a header", "the first header", "the last header and all of its page", "headers of neighbours"}


def content(directory: Path) -> dict[str, str]:
    """What stands in a buffer, but for what locks say."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def lost_by(result: Repair) -> int:
    return sum(each.messages for damages in result.lost.values() for each in damages)


def delivered(outbox: Path, database: Path) -> list[int]:
    """The numbers that arrive when an engine sends the rest; its accounts balance."""
    with MessageBuffer(outbox, f"sqlite:///{database}") as buffer:
        buffer.flush(60)
        status = buffer.status()
    assert status.balanced
    assert status.resident == 0
    with closing(sqlite3.connect(database)) as connection:
        arrived = [int(value[:5]) for (value,) in connection.execute("SELECT value FROM messages ORDER BY id")]
    assert arrived == sorted(set(arrived))
    return arrived


@pytest.mark.parametrize("name", HARMS)
def test_everything_intact_is_kept_and_the_rest_is_counted(outbox: Path, tmp_path: Path, name: str) -> None:
    HARMS[name](outbox)
    before = content(outbox)
    readable = {item.sequence for item in _all(outbox)}
    result = repair(str(outbox))
    assert result.done
    assert result.after is not None
    assert result.after.intact
    assert check_buffer(str(outbox)).intact
    kept = content(Path(result.copy))
    for path, digest in before.items():
        if content(outbox).get(path) != digest and path.startswith("main"):
            assert kept[path] == digest, path
    assert {item.sequence for item in _all(outbox)} >= readable
    assert all(item.value == b"%05d" % (item.sequence - 1) + b"x" * 95 for item in _all(outbox))
    arrived = delivered(outbox, tmp_path / "out.db")
    assert {number + 1 for number in arrived} >= readable
    assert COUNT - len(arrived) == lost_by(result)
    (lane,) = read(outbox).lanes
    assert lane.delivered == len(arrived)
    if name not in {"the head", "head and seek"}:
        assert (lane.accepted, lane.lost) == (COUNT, lost_by(result))
    if name in HEADERS:
        assert lost_by(result) == 0


def _all(outbox: Path) -> list[Entry]:
    browser = LaneBrowser(str(outbox / "main"))
    found: list[Entry] = []
    at = 1
    while page := browser.page(at, 1000):
        found += [item for item in page if isinstance(item, Entry)]
        last = page[-1]
        at = (last.sequence if isinstance(last, Entry) else last.last) + 1
    return found


def test_an_intact_buffer_is_left_alone(outbox: Path) -> None:
    before = content(outbox)
    result = repair(str(outbox))
    assert not result.done
    assert content(outbox) == before


def test_the_plan_changes_nothing(outbox: Path) -> None:
    HARMS["a segment is missing"](outbox)
    before = content(outbox)
    result = plan(check_buffer(str(outbox)))
    assert result.steps
    assert lost_by(result) == 403
    assert content(outbox) == before


def test_an_open_lane_is_refused(outbox: Path) -> None:
    HARMS["three bytes in the middle"](outbox)
    with MessageBuffer(outbox, mode="always") as buffer:
        buffer.write("t", b"99999")
        before = content(outbox)
        with pytest.raises(BufferLocked, match="stop it first"):
            repair(str(outbox))
        assert {path: digest for path, digest in content(outbox).items() if "P000" in path}.items() <= before.items()


@pytest.mark.parametrize("harm", ["json", "torn json"])
def test_a_lost_buffer_file_comes_back(outbox: Path, tmp_path: Path, harm: str) -> None:
    name = outbox / "buffer.json"
    if harm == "json":
        name.unlink()
    else:
        overwrite(name, 0, bytes(8))
    assert repair(str(outbox)).done
    assert len(delivered(outbox, tmp_path / "out.db")) == COUNT


@pytest.mark.parametrize("name", ["the end of a segment is cut off", "first, middle and last are missing", "a header",
                                  "every segment twice"])  # fmt: skip
def test_a_repair_that_is_stopped_anywhere_goes_on_later(outbox: Path, tmp_path: Path, name: str) -> None:
    HARMS[name](outbox)
    readable = {item.sequence for item in _all(outbox)}
    calls = FaultyFiles()
    shutil.copytree(outbox, tmp_path / "whole")
    repair(str(tmp_path / "whole"), calls)
    calls.bury()
    expected = delivered(tmp_path / "whole", tmp_path / "whole.db") if _adopted(tmp_path / "whole") else []
    chance = random.Random(5)
    for number in sorted(chance.sample(range(1, calls.calls), min(8, calls.calls - 1))):
        copy = tmp_path / f"stopped-{number}"
        shutil.copytree(outbox, copy)
        files = FaultyFiles()
        files.stop_at(number)
        with pytest.raises(Killed):
            repair(str(copy), files)
        files.bury()
        assert {item.sequence for item in _all(copy)} >= readable, number
        repair(str(copy))
        assert check_buffer(str(copy)).intact, number
        _adopted(copy)
        assert delivered(copy, tmp_path / f"{number}.db") == expected, number
        shutil.rmtree(copy)


def _adopted(copy: Path) -> bool:
    """A copy is not sent before it is told that it may be."""
    MessageBuffer(copy, mode="always", identity="adopt").close()
    return True


WRITER = """
import sys
from mbframework import MessageBuffer
buffer = MessageBuffer(sys.argv[1], mode="always", segment_size="1MiB", total_size="64MiB", linger=0)
for number in range(20_000):
    buffer.write("t", b"%05d" % number + b"x" * 95)
print("done", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("harm", [
    lambda path: overwrite(path, 200_000, b"\xff" * 9),
    lambda path: overwrite(path, 200_000, bytes(50_000)),
    lambda path: overwrite(path, 0, bytes(4096)),
    lambda path: os.truncate(path, 100_000),
])  # fmt: skip
def test_the_segment_that_a_killed_program_was_filling(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "b")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
    assert check_buffer(str(tmp_path / "b")).intact
    index = SegmentIndex(Files(), str(tmp_path / "b" / "main"))
    index.refresh()
    harm(tmp_path / "b" / "main" / index.entries[-1].name)
    result = repair(str(tmp_path / "b"))
    assert result.done
    assert check_buffer(str(tmp_path / "b")).intact
    arrived = delivered(tmp_path / "b", tmp_path / "out.db")
    (lane,) = read(tmp_path / "b").lanes
    assert 10_000 < len(arrived) <= 20_000
    assert lane.lost == 20_000 - len(arrived)


def test_dead_letters_are_mended_and_what_was_dropped_stays_dropped(tmp_path: Path) -> None:
    with MessageBuffer(tmp_path / "b", "fake://?reject_every=3") as buffer:
        for number in range(900):
            buffer.write("t", b"%05d" % number + b"x" * 95)
        buffer.flush(60)
    store = DeadStore(Files(), str(tmp_path / "b" / "dead" / "main"))
    ids = [letter.id for letter in store.letters()]
    assert len(ids) == 300
    store.drop(ids[10:20])
    (segment,) = (tmp_path / "b" / "dead" / "main").glob("P*.seg")
    overwrite(segment, segment.stat().st_size // 2, b"\xff" * 4)
    assert not check_buffer(str(tmp_path / "b")).intact
    result = repair(str(tmp_path / "b"))
    assert check_buffer(str(tmp_path / "b")).intact
    left = [letter.id for letter in store.letters()]
    assert len(left) == 290 - lost_by(result)
    assert not set(left) & set(ids[10:20])


def test_a_salt_is_computed_back() -> None:
    import zlib

    chance = random.Random(1)
    for size in (1, 12, 36, 1000):
        data, start = chance.randbytes(size), chance.getrandbits(32)
        assert start_of(data, zlib.crc32(data, start)) == start
