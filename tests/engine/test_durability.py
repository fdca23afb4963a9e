"""When data is forced to the device: by policy, shared by callers, and what a failure means."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest
from mbframework_fake.provider import FakeProvider

from mbframework import ConfigurationError, DurabilityError, MessageBuffer
from mbframework.files import Files
from tests.engine.rig import FAST, Disk, at_rest, buffer_on, eventually, in_state, numbers


class Device(Disk):
    """A disk that is no tmpfs, whatever the tests run on."""

    def file_system(self, path: str) -> str:
        return "ext4"


def test_always_syncs_before_each_write_returns(tmp_path: Path) -> None:
    disk = Device()
    with buffer_on(disk, tmp_path / "b", FakeProvider(latency=60), mode="always", fsync="always") as buffer:
        for number in range(10):
            before = disk.calls["datasync"]
            sequence = buffer.write("t", str(number))
            assert disk.calls["datasync"] > before
            assert buffer.running_lane().head.slot.synced_sequence == sequence + 1
        before = disk.calls["datasync"]
        accepted = buffer.write_many("t", map(str, range(1000)))
        assert buffer.running_lane().head.slot.synced_sequence == accepted[-1] + 1
        assert disk.calls["datasync"] - before < 20


def test_callers_share_a_sync(tmp_path: Path) -> None:
    class Slow(Device):
        gate = threading.Event()

        def datasync(self, fd: int) -> None:
            self.gate.wait(0.02)
            super().datasync(fd)

    disk = Slow()
    with buffer_on(disk, tmp_path / "b", FakeProvider(latency=60), mode="always", fsync="always") as buffer:
        before = disk.calls["datasync"]
        writers = [threading.Thread(target=lambda: [buffer.write("t", "x") for _ in range(10)]) for _ in range(16)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        # 160 messages, each on the device before its write returned.
        assert buffer.running_lane().head.slot.synced_sequence == 161
        assert disk.calls["datasync"] - before < 120
        disk.gate.set()


def test_live_messages_are_not_worth_a_sync(tmp_path: Path) -> None:
    disk, provider = Device(), FakeProvider()
    with buffer_on(disk, tmp_path / "b", provider, fsync="always", fsync_interval=3600, live_wait=60) as buffer:
        in_state(buffer, "live")
        buffer.write("t", "0")
        buffer.flush(60)
        eventually(lambda: buffer.running_lane().spool.prepared is not None, "the next segment")
        before = disk.calls["datasync"]
        for number in range(1, 200):
            buffer.write("t", str(number))
        buffer.flush(60)
        assert disk.calls["datasync"] - before < 5
        provider.down()
        buffer.write("t", "200")
        in_state(buffer, "buffering")
        before = disk.calls["datasync"]
        buffer.write("t", "201")
        assert disk.calls["datasync"] > before


@pytest.mark.parametrize("policy, least, most", [("interval", 3, 400), ("never", 0, 0)])
def test_the_other_policies_sync_in_the_background_or_not_at_all(
    tmp_path: Path, policy: str, least: int, most: int
) -> None:
    disk = Device()
    options = {"mode": "always", "fsync": policy, "fsync_interval": 0.02, "segment_size": "4MiB"}
    with buffer_on(disk, tmp_path / "b", FakeProvider(latency=60), **options) as buffer:
        buffer.write("t", "x")
        lane = buffer.running_lane()
        eventually(
            lambda: lane.spool.prepared is not None and lane.spool.prepared.in_flight is None, "the next segment"
        )
        before, rounds = disk.calls["datasync"], lane.space_searches
        lane.chores.set()
        eventually(lambda: lane.space_searches > rounds + 3, "some housekeeping")
        assert least <= disk.calls["datasync"] - before <= most


def test_a_failed_sync_says_accepted_and_not_durable(tmp_path: Path) -> None:
    disk, provider = Device(), FakeProvider()
    provider.down()
    with buffer_on(disk, tmp_path / "b", provider, mode="always", fsync="always") as buffer:
        buffer.write("t", "0")
        disk.fail(errno.EIO, "datasync")
        with pytest.raises(DurabilityError, match="message 2 is accepted but not known to be on the device") as caught:
            buffer.write("t", "1")
        assert caught.value.sequence == 2
        assert buffer.status().accepted == 2
        in_state(buffer, "disk-error")
        disk.mend()
        eventually(lambda: buffer.status().state != "disk-error", "the end of the trouble")
        buffer.write("t", "2")
        provider.up()
        buffer.flush(60)
        assert numbers(provider.messages) == [0, 1, 2]
        at_rest(buffer)


def test_always_is_refused_where_nothing_is_kept(tmp_path: Path) -> None:
    class Memory(Files):
        def file_system(self, path: str) -> str:
            return "tmpfs"

    class OnMemory(MessageBuffer):
        @staticmethod
        def _make_files() -> Files:
            return Memory()

    with pytest.raises(ConfigurationError, match="fsync: 'always' on tmpfs, which keeps nothing"):
        OnMemory(tmp_path / "b", fsync="always", **FAST)
    assert not (tmp_path / "b").exists()
    with pytest.raises(ConfigurationError, match="linger"):
        OnMemory(tmp_path / "b", fsync="always", linger=1)
