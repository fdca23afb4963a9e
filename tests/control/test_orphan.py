"""A lane that nobody holds: purged after any stop, paused for whoever comes next."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mbframework_fake.provider import FakeProvider

from mbframework import BufferLocked, LaneStatus, MessageBuffer, pause, read_status
from mbframework import orphan as orphans
from mbframework.directory import read
from mbframework.files import Files
from mbframework.orphan import Orphan
from tests.engine.rig import FAST, SMALL, padded, program
from tests.faulty_files import FaultyFiles, Killed, calls_of


def purge(directory: Path, files: Files | None = None) -> int:
    buffer_id = bytes.fromhex(read(Files(), str(directory))["id"])
    with Orphan(files or Files(), str(directory / "main"), buffer_id) as orphan:
        return orphan.purge()


def lane_of(directory: Path) -> LaneStatus:
    (lane,) = read_status(directory).lanes
    assert lane.balanced, lane
    return lane


def test_a_killed_writers_backlog_is_purged_and_does_not_come_back(tmp_path: Path) -> None:
    directory = tmp_path / "b"
    text = (
        "buffer = MessageBuffer(sys.argv[1], **FAST, **SMALL)\n"
        "buffer.write_many('t', [b'%d' % n + bytes(999) for n in range(120)])\n"
        "print('written', flush=True)\n"
        "signal.pause()\n"
    )
    with program(text, directory) as writer:
        assert writer.line() == "written"
        with pytest.raises(BufferLocked, match=rf"lane main is held by process {writer.process.pid} "):
            purge(directory)
        writer.kill()
    assert lane_of(directory).resident == 120
    assert purge(directory) == 120
    lane = lane_of(directory)
    assert (lane.accepted, lane.purged, lane.resident, lane.lost, lane.segments) == (120, 120, 0, 0, 0)
    assert purge(directory) == 0
    provider = FakeProvider()
    with MessageBuffer(directory, provider, **FAST) as buffer:
        buffer.write("t", "new")
        buffer.flush(60)
    assert [message.value for message in provider.messages] == [b"new"]
    lane = lane_of(directory)
    assert (lane.accepted, lane.purged, lane.delivered) == (121, 120, 1)


def test_a_stop_at_any_call_purges_all_or_may_be_done_again(tmp_path: Path) -> None:
    with MessageBuffer(tmp_path / "made", **FAST, **SMALL) as buffer:
        for number in range(60):
            buffer.write("t", padded(number, 1000))

    def home_of(name: str) -> Path:
        shutil.copytree(tmp_path / "made", tmp_path / name)
        return tmp_path / name

    total = calls_of(lambda files: purge(home_of("counted"), files))
    assert total > 5
    for call in range(1, total + 1):
        home = home_of(str(call))
        files = FaultyFiles(Files().boot_id())
        files.stop_at(call)
        with pytest.raises(Killed):
            purge(home, files)
        files.bury()
        lane = lane_of(home)
        assert (lane.accepted, lane.purged + lane.resident) == (60, 60), call
        purge(home)
        lane = lane_of(home)
        assert (lane.purged, lane.lost, lane.segments) == (60, 0, 0), call


def test_a_pause_waits_for_whoever_sends_next(tmp_path: Path) -> None:
    with MessageBuffer(tmp_path / "b", FakeProvider(), **FAST) as buffer:
        lane = f"{buffer.directory}/main"
        with pytest.raises(BufferLocked):
            orphans.pause(Files(), lane)
    assert pause.read(Files(), lane) is None
    orphans.pause(Files(), lane)
    found = pause.read(Files(), lane)
    assert found is not None
    assert f"by user {found.uid} at " in found.words
    assert orphans.resume(Files(), lane)
    assert not orphans.resume(Files(), lane)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"at": "x", "uid": 0}', b'{"at": 1e300, "uid": 0}', b"\xff"])
def test_a_pause_that_cannot_be_read_is_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "paused").write_bytes(content)
    assert pause.read(Files(), str(tmp_path)) == pause.Pause()
    assert "paused on request: mb resume" in pause.Pause().words
    (tmp_path / "paused").unlink()
    (tmp_path / "paused").symlink_to("/nowhere")
    assert pause.read(Files(), str(tmp_path)) == pause.Pause()
    assert pause.lift(Files(), str(tmp_path))
