"""Full buffers, full and broken devices: the policy applies, everything is counted, and it goes on by itself."""

from __future__ import annotations

import contextlib
import errno
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from mbframework_fake.provider import FakeProvider

from mbframework import BufferFull, DiskFailed, MessageBuffer, Undelivered, read_status
from mbframework.browse import Entry, Gap, LaneBrowser
from mbframework.files import Files
from mbframework.spool.survey import read_seek
from mbframework.transfer import walk
from mbframework.units import MAX_TIME
from tests.engine.rig import (
    BROKEN,
    FAST,
    FULL,
    SMALL,
    Disk,
    accounts,
    at_rest,
    buffer_on,
    events,
    eventually,
    from_directory,
    in_state,
    lane_files,
    numbers,
    padded,
    sampled,
)


def test_the_oldest_are_pruned_and_counted_exactly(tmp_path: Path) -> None:
    provider = FakeProvider()
    provider.down()
    with MessageBuffer(tmp_path / "b", provider, **FAST | SMALL) as buffer:
        with sampled(buffer):
            for number in range(2000):
                buffer.write("t", padded(number, 500))
            status = buffer.status()
            assert status.disk_bytes <= 256 * 1024
            assert (status.accepted, status.pruned + status.resident) == (2000, 2000)
            assert status.pruned > 1400
            pruned = at_rest(buffer)["pruned"]
            provider.up()
            buffer.flush(60)
        pruned = buffer.status().pruned
        assert numbers(provider.messages) == list(range(pruned, 2000))
        eventually(lambda: sum(line["undelivered"] for line in events(buffer, "prune")) == pruned, "the lines")
        assert at_rest(buffer) == at_rest(buffer) | {"pruned": pruned, "delivered": 2000 - pruned}


@pytest.mark.parametrize("fate", ["arrives", "fails"])
def test_what_is_in_flight_is_pruned_only_if_it_fails(tmp_path: Path, fate: str) -> None:
    provider = FakeProvider()
    if fate == "fails":
        provider.fail_next(after=7)
    provider.stick()
    with MessageBuffer(tmp_path / "b", provider, mode="always", batch_messages=20, **FAST | SMALL) as buffer:
        buffer.write_many("t", [padded(number, 500) for number in range(20)])
        eventually(lambda: provider.stuck, "a send that hangs")
        with sampled(buffer):
            for number in range(20, 1500):
                buffer.write("t", padded(number, 500))
            before = buffer.status()
            assert before.delivered == 0
            assert before.pruned > 900
            eventually(lambda: events(buffer, "prune"), "the lines")
            line = events(buffer, "prune")[0]
            assert (line["in_hand"], line["undelivered"]) == (20, line["messages"] - 20)
            provider.release()
            buffer.flush(60)
        arrived = numbers(provider.messages)
        flown = 20 if fate == "arrives" else 7
        assert arrived[:flown] == list(range(flown))
        # Of the 20, what the provider did not take is pruned, and so is whatever else made room meanwhile.
        assert arrived[flown] >= before.pruned + 20
        assert arrived[-1] == 1499
        assert arrived == sorted(set(arrived))
        assert at_rest(buffer) == at_rest(buffer) | {"delivered": len(arrived), "pruned": 1500 - len(arrived)}


def test_block_waits_for_room_and_goes_on(tmp_path: Path) -> None:
    provider = FakeProvider()
    provider.down()
    with MessageBuffer(tmp_path / "b", provider, on_full="block", **FAST | SMALL) as buffer:
        written: list[int] = []

        def write() -> None:
            for number in range(1200):
                buffer.write("t", padded(number, 500))
                written.append(number)

        writer = threading.Thread(target=write)
        writer.start()
        in_state(buffer, "blocked")
        assert "total_size" in buffer.status().state_reason
        assert buffer.pressure == 1.0
        held = len(written)
        assert buffer.status().accepted == held < 600
        provider.up()
        writer.join(60)
        buffer.flush(60)
        assert numbers(provider.messages) == list(range(1200))
        assert at_rest(buffer)["pruned"] == 0
        eventually(lambda: buffer.pressure < 0.6, "what is delivered to make room")


def test_block_and_reject_raise_and_accept_nothing_more(tmp_path: Path) -> None:
    for policy, options in (("reject", {}), ("block", {"block_timeout": 0.05})):
        provider = FakeProvider()
        provider.down()
        with MessageBuffer(tmp_path / policy, provider, on_full=policy, **FAST | SMALL | options) as buffer:
            number = 0
            # Once more after the seals: each cuts its segment, which may make room for another.
            for _ in range(2):
                with pytest.raises(BufferFull, match="total_size"):
                    for number in range(number, 1000):  # noqa: B020  (goes on where it was refused)
                        buffer.write("t", padded(number, 500))
                assert buffer.status().accepted == number
                eventually(lambda: not buffer.running_lane().spool.retired, "the seals")
            in_state(buffer, "blocked")
            with pytest.raises(BufferFull):
                buffer.write("t", padded(number, 500))
            provider.up()
            buffer.flush(60)
            eventually(lambda: not buffer.running_lane().full, "room")
            buffer.write("t", str(number))
            buffer.flush(60)
            assert numbers(provider.messages) == list(range(number + 1))
            at_rest(buffer)


def test_a_waiting_time_is_counted_from_the_first_refusal(tmp_path: Path) -> None:
    """Room that others take does not begin the wait anew."""
    provider = FakeProvider(rate=2000)
    provider.down()
    with MessageBuffer(tmp_path / "b", provider, on_full="block", block_timeout=0.3, **FAST | SMALL) as buffer:
        with pytest.raises(BufferFull) as caught:
            buffer.write_many("t", [padded(number, 500) for number in range(1000)])
        accepted = caught.value.accepted
        assert accepted == range(1, 1 + len(accepted))
        assert 300 < len(accepted) < 500
        assert buffer.status().disk_bytes <= 256 * 1024
        assert buffer.status().accepted == len(accepted)
        provider.up()
        buffer.flush(60)
        assert numbers(provider.messages) == list(range(len(accepted)))


@pytest.mark.parametrize("count, size", [(60_000, 10), (300, 15_000), (5, 16_000)])
def test_write_many_larger_than_memory_a_segment_and_the_whole_buffer(tmp_path: Path, count: int, size: int) -> None:
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, **FAST | SMALL | {"on_full": "block"}) as buffer:
        in_state(buffer, "live")
        with sampled(buffer):
            accepted = buffer.write_many("t", [padded(number, size) for number in range(count)])
            assert accepted == range(1, count + 1)
            largest = max((segment.size for segment in buffer.running_lane().spool.segments), default=0)
            assert largest <= 64 * 1024
            buffer.flush(60)
        assert numbers(provider.messages) == list(range(count))
        in_state(buffer, "live")
        assert at_rest(buffer)["delivered"] == count


def test_write_many_that_prunes_its_own_beginning(tmp_path: Path) -> None:
    provider = FakeProvider()
    provider.down()
    with MessageBuffer(tmp_path / "b", provider, **FAST | SMALL) as buffer:
        with sampled(buffer):
            assert len(buffer.write_many("t", [padded(number, 1000) for number in range(2000)])) == 2000
        provider.up()
        buffer.flush(60)
        pruned = buffer.status().pruned
        assert numbers(provider.messages) == list(range(pruned, 2000))


def test_two_that_need_several_steps_do_not_mix(tmp_path: Path) -> None:
    """Each gets successive sequences, although both wait for room on the way."""
    provider = FakeProvider()
    provider.stick()
    with MessageBuffer(tmp_path / "b", provider, on_full="block", **FAST | SMALL) as buffer:
        ranges: list[range] = []

        def write(name: str) -> None:
            ranges.append(buffer.write_many(name, [bytes(2000)] * 300))

        def single() -> None:
            for _ in range(50):
                buffer.write("single", b"x")

        writers = [threading.Thread(target=write, args=(name,)) for name in ("a", "b")] + [
            threading.Thread(target=single)
        ]
        for writer in writers:
            writer.start()
        in_state(buffer, "blocked", "buffering")
        provider.release()
        for writer in writers:
            writer.join(60)
        buffer.flush(60)
        assert sorted(map(len, ranges)) == [300, 300]
        for name in ("a", "b"):
            got = [message.sequence for message in provider.messages if message.topic == name]
            assert got == list(range(got[0], got[0] + 300))
        assert at_rest(buffer)["delivered"] == 650


def test_min_free_prunes_what_is_there_and_then_refuses(tmp_path: Path) -> None:
    disk, provider = Disk(), FakeProvider()
    provider.down()
    disk.free = 1 << 30
    with buffer_on(
        disk, tmp_path / "b", provider, segment_size="64KiB", total_size="1MiB", min_free="100MiB"
    ) as buffer:
        for number in range(400):
            buffer.write("t", padded(number, 1000))
        assert buffer.status().pruned == 0
        disk.free = 99 << 20
        eventually(lambda: buffer.status().segments <= 1, "the pruning")
        number = 400
        with pytest.raises(BufferFull, match="this lane has nothing left to prune: the device has less"):
            for number in range(400, 800):
                buffer.write("t", padded(number, 1000))
        disk.free = 1 << 30
        eventually(lambda: not buffer.running_lane().full, "room")
        buffer.write("t", padded(number, 1000))
        provider.up()
        buffer.flush(60)
        got = numbers(provider.messages)
        assert got == list(range(number + 1 - len(got), number + 1))
        assert at_rest(buffer) == at_rest(buffer) | {"accepted": number + 1, "delivered": len(got)}


@pytest.mark.parametrize("policy", ["prune", "block", "reject"])
@pytest.mark.parametrize("code", FULL)
def test_a_full_device_is_a_full_buffer(tmp_path: Path, code: int, policy: str) -> None:
    disk, provider = Disk(), FakeProvider()
    provider.down()
    with buffer_on(disk, tmp_path / "b", provider, on_full=policy, block_timeout=0.2, **SMALL) as buffer:
        buffer.write("t", padded(0, 500))
        eventually(lambda: buffer.running_lane().spool.prepared is not None, "the next segment")
        disk.fail(code, "reserve", "create")
        number = 1
        with pytest.raises(BufferFull):
            for number in range(1, 1000):
                buffer.write("t", padded(number, 500))
        assert buffer.status().state == "blocked"
        assert buffer.status().accepted == number
        disk.mend()
        eventually(lambda: not buffer.running_lane().full, "room")
        buffer.write("t", padded(number, 500))
        provider.up()
        buffer.flush(60)
        got = numbers(provider.messages)
        assert got == list(range(buffer.status().pruned, number + 1))
        at_rest(buffer)


def test_a_full_device_while_live_holds_up_nothing_before_memory_is_full(tmp_path: Path) -> None:
    disk, provider = Disk(), FakeProvider()
    with buffer_on(disk, tmp_path / "b", provider, on_full="reject", channel_messages=50, **SMALL) as buffer:
        in_state(buffer, "live")
        eventually(lambda: buffer.running_lane().spool.prepared is not None, "the next segment")
        disk.free = 0
        spool = buffer.running_lane().spool
        spool.limits.min_free = 1 << 20
        with buffer.running_lane().lock:
            prepared, spool.prepared = spool.prepared, None
        provider.down()
        number = 0
        with pytest.raises(BufferFull, match="min_free"):
            for number in range(1000):
                buffer.write("t", str(number))
        assert 50 <= number <= 52
        assert at_rest(buffer)["resident_messages"] == number
        spool.prepared = prepared
        provider.up()
        buffer.flush(60)
        assert numbers(provider.messages) == list(range(number))


@pytest.mark.parametrize("policy", ["prune", "block", "reject"])
def test_closing_without_room_hands_back_what_is_in_memory(tmp_path: Path, policy: str) -> None:
    disk, provider = Disk(), FakeProvider()
    buffer = buffer_on(disk, tmp_path / "b", provider, on_full=policy, **SMALL)
    in_state(buffer, "live")
    eventually(lambda: buffer.running_lane().spool.prepared is not None, "the next segment")
    provider.stick()
    buffer.write_many("t", map(str, range(20)))
    provider.down()
    lane = buffer.running_lane()
    with lane.lock:
        prepared, lane.spool.prepared = lane.spool.prepared, None
    disk.fail(errno.ENOSPC, "create", "reserve")
    provider.release()
    with pytest.raises(Undelivered, match="20 messages were accepted and not delivered .the device is full") as caught:
        buffer.close(0.05)
    assert prepared is not None
    prepared.release(disk)
    assert numbers(caught.value.messages) == list(range(20))
    status = buffer.status()
    assert (status.accepted, status.returned, status.resident) == (20, 20, 0)
    disk.mend()
    with MessageBuffer(tmp_path / "b", FakeProvider(), **FAST) as again:
        again.flush(60)
        assert at_rest(again) == at_rest(again) | {"accepted": 20, "lost": 20, "delivered": 0}


@pytest.mark.parametrize("code", BROKEN)
def test_a_broken_device_is_an_error_prunes_nothing_and_may_come_back(tmp_path: Path, code: int) -> None:
    disk, provider = Disk(), FakeProvider()
    provider.down()
    with buffer_on(disk, tmp_path / "b", provider, **SMALL) as buffer:
        for number in range(100):
            buffer.write("t", padded(number, 500))
        before = at_rest(buffer)
        disk.fail(code)
        in_state(buffer, "disk-error")
        with pytest.raises(DiskFailed, match="broken"):
            buffer.write("t", b"refused")
        with pytest.raises(DiskFailed):
            buffer.write_many("t", [b"refused"] * 2)
        assert str(code) in buffer.status().state_reason
        assert accounts(buffer.status()) == before
        disk.mend()
        eventually(lambda: buffer.status().state != "disk-error", "the end of the trouble")
        buffer.write("t", padded(100, 500))
        provider.up()
        buffer.flush(60)
        assert numbers(provider.messages) == list(range(100, 101)) or numbers(provider.messages) == list(range(101))
        assert numbers(provider.messages)[0] == 0
        assert at_rest(buffer) == at_rest(buffer) | {"accepted": 101, "pruned": 0, "lost": 0}
        eventually(lambda: events(buffer, "disk-error") and events(buffer, "disk-well"), "the lines")


def test_a_device_that_breaks_in_the_middle_of_write_many(tmp_path: Path) -> None:
    disk, provider = Disk(), FakeProvider()
    provider.down()
    with buffer_on(disk, tmp_path / "b", provider, segment_size="64KiB", total_size="1MiB", min_free=0) as buffer:
        buffer.write("t", padded(0, 100))
        eventually(lambda: buffer.running_lane().spool.prepared is not None, "the next segment")
        disk.fail(errno.EIO, "create")
        with pytest.raises(DiskFailed) as caught:
            buffer.write_many("t", [padded(number, 1000) for number in range(1, 400)])
        accepted = caught.value.accepted
        assert accepted.start == 2
        assert 60 < len(accepted) < 250
        assert buffer.status().accepted == 1 + len(accepted)
        disk.mend()
        provider.up()
        buffer.flush(60)
        assert numbers(provider.messages) == list(range(1 + len(accepted)))


def test_limits_below_what_is_there_prune_nothing_unless_told_to(tmp_path: Path) -> None:
    provider = FakeProvider()
    provider.down()
    with MessageBuffer(tmp_path / "b", provider, segment_size="64KiB", total_size="4MiB", min_free=0, **FAST) as buffer:
        for number in range(2000):
            buffer.write("t", padded(number, 500))
    with MessageBuffer(tmp_path / "b", FakeProvider(latency=60), **FAST | SMALL) as buffer:
        buffer.write("t", padded(2000, 500))
        eventually(lambda: buffer.running_lane().space_searches > 2, "housekeeping")
        assert at_rest(buffer) == at_rest(buffer) | {"pruned": 0, "resident_messages": 2001}
    # What the provider has in hand is not pruned.
    options = FAST | SMALL | {"shrink": True, "batch_messages": 100}
    with MessageBuffer(tmp_path / "b", FakeProvider(latency=60), **options) as buffer:
        eventually(lambda: buffer.status().disk_bytes <= 256 * 1024, "the pruning")
        status = buffer.status()
        assert status.pruned > 1000
        assert status.balanced
        assert from_directory(buffer).accepted == 2001
    assert lane_files(buffer)


def test_closing_with_more_in_memory_than_total_size_keeps_the_newest(tmp_path: Path) -> None:
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, **FAST | SMALL) as buffer:
        in_state(buffer, "live")
        provider.stick()
        for number in range(3000):
            buffer.write("t", padded(number, 500))
        assert buffer.status().resident_messages == 3000
        provider.down()
        provider.release()
        buffer.close(timeout=0.2)
    kept = from_directory(buffer)
    assert accounts(kept) | {"pruned": 0, "resident_messages": 0} == dict.fromkeys(accounts(kept), 0) | {
        "accepted": 3000
    }
    assert kept.balanced
    again = FakeProvider()
    with MessageBuffer(tmp_path / "b", again, **FAST | SMALL) as reopened:
        reopened.flush(60)
    assert numbers(again.messages) == list(range(kept.pruned, 3000))


@pytest.mark.parametrize("policy", ["block", "prune"])
def test_a_batch_that_waits_for_room_gets_the_sequences_it_is_stored_at(tmp_path: Path, policy: str) -> None:
    """While a batch of which nothing is accepted waits, others are accepted in front of it."""
    provider = FakeProvider()
    threads, given = 4, list[tuple[int, int]]()
    with MessageBuffer(tmp_path / "b", provider, mode="always", on_full=policy, **FAST | SMALL) as buffer:
        buffer.pause()

        def write(thread: int) -> None:
            for number in range(120):
                size = (20, 3000)[(thread + number) % 2]
                values = [padded(1000 * thread + 2 * number + i, size) for i in range(2)]
                accepted = buffer.write_many("t", values)
                assert len(accepted) == 2
                given.extend(
                    (sequence, int(value.split()[0])) for sequence, value in zip(accepted, values, strict=True)
                )

        writers = [threading.Thread(target=write, args=(thread,)) for thread in range(threads)]
        for writer in writers:
            writer.start()
        if policy == "block":
            in_state(buffer, "blocked")
            buffer.resume()
        for writer in writers:
            writer.join(60)
        buffer.resume()
        buffer.flush(60)
        pruned = buffer.status().pruned
        assert buffer.status().accepted == len(given) == 2 * 120 * threads
        assert buffer.status().balanced
    # What the sender had in hand as it was paused may have arrived although what stood behind it is pruned.
    arrived, place = numbers(provider.messages), {number: sequence for sequence, number in given}
    assert [place[number] for number in arrived] == sorted({place[number] for number in arrived})
    assert len(arrived) == len(given) - pruned
    assert sorted(sequence for sequence, _ in given) == list(range(1, len(given) + 1))


def test_what_is_pruned_in_hand_is_no_sign_of_life_of_the_provider(tmp_path: Path) -> None:
    provider = FakeProvider()
    provider.down()
    options = FAST | SMALL | {"batch_messages": 20, "mode": "always"}
    with MessageBuffer(tmp_path / "b", provider, **options) as buffer:
        buffer.write("t", b"0")
        eventually(lambda: buffer.status().failures > 2, "failures")
        sender = buffer.running_engine().sender
        assert sender is not None
        since = sender.trouble.began
        for number in range(1, 3000):
            buffer.write("t", padded(number, 500))
            if number % 500 == 0:
                failures = buffer.status().failures
                eventually(lambda failures=failures: buffer.status().failures > failures, "another failure")
        status = buffer.status()
        assert status.pruned > 2000
        assert sender.trouble.began == since
        assert not events(buffer, "provider-back", "sender")


@pytest.mark.parametrize("hidden", [False, True])
def test_a_directory_that_is_away_for_a_while_costs_nothing(tmp_path: Path, hidden: bool) -> None:
    """As when a volume is mounted anew: gone, or an empty one in its place."""
    provider = FakeProvider()
    provider.down()
    home = tmp_path / "volume" / "b"
    home.parent.mkdir()
    with MessageBuffer(home, provider, mode="always", batch_messages=20, **FAST | SMALL | {"total_size": "4MiB"}) as b:
        for number in range(2000):
            b.write("t", padded(number, 500))
        home.rename(tmp_path / "away")
        if hidden:
            (home / "main").mkdir(parents=True)
        provider.up()
        eventually(lambda: "cannot be read" in (b.status().last_error or ""), "the word that it is away")
        assert (b.status().state, b.status().lost) == ("blocked", 0)
        written = 2000
        if hidden:
            with pytest.raises(DiskFailed, match="put it back") as refused:
                b.write_many("t", [padded(number, 500) for number in range(2000, 3000)])
            written += len(refused.value.accepted)
            assert not any((home / "main").iterdir()), "nothing is written to what is not the buffer's"
            shutil.rmtree(home)
        (tmp_path / "away").rename(home)
        b.flush(60)
        assert numbers(provider.messages) == list(range(written))
        assert at_rest(b) == at_rest(b) | {"delivered": written, "lost": 0}


def _mount(image: Path, place: Path) -> None:
    done = subprocess.run(["mount", "-o", "loop", image, place], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted ({done.stderr.strip()}); run as root to include this")


@pytest.mark.parametrize("how", ["mounted anew", "copied"])
def test_what_takes_the_buffers_place_is_left_alone(tmp_path: Path, how: str) -> None:
    """The same file system on another device, or a copy: it is the same buffer, and nobody has its locks."""
    volume, image = tmp_path / "volume", tmp_path / "image"
    volume.mkdir()
    provider = FakeProvider()
    provider.down()
    with contextlib.ExitStack() as stack:
        if how == "mounted anew":
            with image.open("wb") as file:
                file.truncate(24 << 20)
            subprocess.run(["/sbin/mkfs.ext4", "-q", image], check=True)
            _mount(image, volume)
            stack.callback(lambda: subprocess.run(["umount", "-l", volume], check=True))
        b = stack.enter_context(MessageBuffer(volume / "b", provider, mode="always", **FAST | SMALL))
        b.write_many("t", [padded(number, 500) for number in range(100)])
        b.sync()
        if how == "mounted anew":
            subprocess.run(["umount", "-l", volume], check=True)
            shutil.copyfile(image, tmp_path / "again")
            _mount(tmp_path / "again", volume)
        else:
            volume.rename(tmp_path / "former")
            shutil.copytree(tmp_path / "former", volume)
        left = {path: path.read_bytes() for path in sorted(volume.rglob("*")) if path.is_file()}
        provider.up()
        in_state(b, "disk-error")
        with pytest.raises(DiskFailed, match="end it, and start it again"):
            b.write("t", "100")
        eventually(lambda: "end it, and start it again" in (b.status().last_error or ""), "what to do")
        b.close()
        assert {path: path.read_bytes() for path in sorted(volume.rglob("*")) if path.is_file()} == left
        assert provider.count == 0
        identity = None if how == "mounted anew" else "adopt"
        with MessageBuffer(volume / "b", provider, identity=identity, **FAST | SMALL) as b:
            b.flush(60)
        assert numbers(provider.messages) == list(range(100))


_KILLED = """
import os, sys, threading
from mbframework import MessageBuffer
from mbframework_sqlite.provider import SQLiteProvider

stored, options = threading.Event(), eval(sys.argv[2])

class Stuck(SQLiteProvider):
    def send(self, batch):
        super().send(batch)
        stored.set()
        threading.Event().wait()

buffer = MessageBuffer(sys.argv[1] + "/b", lambda _: Stuck(sys.argv[1] + "/o.db"), batch_messages=300, **options)
buffer.write_many("t", [b"%d" % number for number in range(100)])
stored.wait()
while buffer.status().pruned < 500:
    buffer.write_many("t", [b"x" * 500] * 100)
os.kill(os.getpid(), 9)
"""


def waiting(directory: Path) -> list[Entry | Gap]:
    """What an export of the lane finds."""
    browser = LaneBrowser(str(directory / "main"))
    return list(walk(browser, browser.settled().next, None))


def test_what_had_arrived_when_the_program_was_killed_is_not_counted_as_pruned(tmp_path: Path) -> None:
    options = {"mode": "always", **FAST, **SMALL}
    done = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path), repr(options)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    [before] = read_status(tmp_path / "b").lanes
    slot = read_seek(Files(), str(tmp_path / "b" / "main"))
    assert slot is not None
    in_hand = slot.batch_end - slot.next
    # Whose it was is gone, and so are the files: until the provider was asked, that is pruned.
    assert (before.sender, in_hand > 0, before.resident) == ("killed", True, len(waiting(tmp_path / "b")))
    with MessageBuffer(tmp_path / "b", **options) as writer:
        assert (writer.status().pruned, writer.status().resident) == (before.pruned, before.resident)
    with MessageBuffer(tmp_path / "b", f"sqlite:{tmp_path}/o.db", **options) as buffer:
        buffer.flush(60)
        with contextlib.closing(sqlite3.connect(tmp_path / "o.db")) as database:
            [arrived] = database.execute("SELECT count(*) FROM messages").fetchone()
        after = at_rest(buffer)
    assert (after["delivered"], after["pruned"]) == (arrived, before.pruned - in_hand)
    assert after["lost"] == 0


def test_a_segment_age_of_three_centuries_is_one(tmp_path: Path) -> None:
    """The sum with the clock is beyond what 64 bits hold."""
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, **SMALL | {"mode": "always", "segment_age": MAX_TIME}) as buffer:
        assert [buffer.write("t", "1"), buffer.write("t", "2")] == [1, 2]
        assert buffer.write_many("t", ["3", "4"]) == range(3, 5)
        buffer.flush(60)
        assert buffer.status().segments == 1
    assert [message.value for message in provider.broker.messages] == [b"1", b"2", b"3", b"4"]
