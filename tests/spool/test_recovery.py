"""Stops at any point, and what the next opening makes of them."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mbframework.accounts import accounts_of
from mbframework.browse import Gap as BrowsedGap
from mbframework.browse import LaneBrowser
from mbframework.spool import head, layout, recovery, seek
from mbframework.spool.headfile import NEXT, SEGMENT, TAIL
from mbframework.spool.reader import Gap, SpoolReader
from mbframework.spool.survey import glance, survey
from mbframework.transfer import walk
from tests.faulty_files import FadingFiles, FaultyFiles, Killed
from tests.spool.minilane import Memory, MiniLane
from tests.spool.test_survey import counts


def drain(lane: MiniLane) -> list[int]:
    """Everything that the sender still finds; it goes through the ledger."""
    got = []
    for _ in range(5000):
        slot = lane.ledger.slot
        found = lane.reader.read(
            slot.next, slot.ordinal, until=lane.spool.end, max_messages=64, max_bytes=1 << 20,
            hint=(slot.segment, slot.offset),
        )  # fmt: skip
        if found is None:
            break
        if not isinstance(found, Gap):
            bits = int.from_bytes(slot.bitmap, "little")
            got += [found.first + i for i in range(len(found)) if not bits >> i & 1]
        lane.send(64)
    else:
        raise AssertionError("the reader goes on for ever")
    missing = lane.spool.ordinal - lane.ledger.ordinal
    if missing:
        lane.ledger.lose(lane.ledger.next, lane.ledger.next, lane.spool.ordinal)
    return got


def balance(lane: MiniLane) -> int:
    """Messages that are in some account, or resident."""
    slot, top = lane.ledger.slot, lane.head.slot
    lost = top.lost_live + top.lost_linger + top.returned
    return slot.exits + lost + lane.spool.ordinal - slot.ordinal - slot.settled


def unfold(seed: int) -> tuple[random.Random, int, bool]:
    chance = random.Random(seed)
    return chance, chance.choice([5, 20, 60]), chance.random() < 0.8


def check_dead(files: FaultyFiles, directory: str, where: str) -> None:
    """What is said to wait where nobody sends stands there, and nothing else."""
    known = glance(files, directory)
    if known.head is None or known.seek is None:
        return
    waiting = accounts_of(known, running=False, sending=False).resident
    browser = LaneBrowser(directory, files)
    settled = browser.settled()
    found = [item for item in walk(browser, settled.next, None) if not isinstance(item, BrowsedGap)]
    assert sum(not settled.has(item) for item in found) == waiting, where


def run_until_killed(directory: str, files: FaultyFiles, seed: int, memory: Memory) -> None:
    """A history of two openings; the second perhaps after a clean close."""
    chance, steps, mapped = unfold(seed)
    try:
        lane = MiniLane(files, directory, memory, mapped=mapped)
        lane.play(chance, steps)
        lane.spill()
        lane.close(clean=chance.random() < 0.5)
        memory.live_lost = 0
        lane = MiniLane(files, directory, memory, mapped=mapped)
        lane.play(chance, steps)
        files.dead = True
    except Killed:
        pass


def check_after_kill(directory: str, memory: Memory, where: str, *, mapped: bool = True) -> None:
    files = FaultyFiles()
    before = {path.name: path.read_bytes() for path in Path(directory).glob("P*.seg")}
    check_dead(files, directory, where)
    lane = MiniLane(files, directory, memory)
    assert lane.next > memory.given, where
    # Where the head may not be mapped, the kill may have come before the word of the last call was stored.
    unknown = memory.live_lost - lane.begun.lost
    assert unknown == 0 or (unknown > 0 and not mapped), where
    memory.accepted -= unknown
    assert balance(lane) == memory.accepted, where
    waits = [each for each in sorted(memory.appended) if each >= lane.ledger.next]
    settled = lane.ledger.slot.settled
    lane.write(3, 10)
    late = [lane.next - 3 + i for i in range(3)]
    got = drain(lane)
    assert set(got) <= {*waits, *late}, where
    assert len(got) == len(waits) + 3 - settled, where
    assert got == sorted(got), where
    assert lane.ledger.slot.lost == 0, where
    assert balance(lane) == memory.accepted, where
    for name, raw in before.items():
        path = Path(directory, name)
        assert not path.exists() or path.read_bytes() in (raw, b""), (where, name)
    lane.sync_seek()
    lane.close()
    files.bury()
    # What is left are files of ours, and a lane that opens again in order.
    assert not [name for name in os.listdir(directory) if name.endswith(".prep")], where
    files = FaultyFiles()
    lane = MiniLane(files, directory, memory)
    assert lane.next == memory.given + 1, where
    assert balance(lane) == memory.accepted, where
    assert drain(lane) == [], where
    lane.close()
    files.bury()


@pytest.mark.parametrize("seed", range(12))
def test_a_kill_between_any_two_calls_loses_nothing(tmp_path: Path, seed: int) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    files = FaultyFiles()
    run_until_killed(str(whole), files, seed, Memory())
    files.bury()
    total = files.calls
    chosen = sorted({*range(1, 40), *random.Random(seed).sample(range(1, total + 1), min(total, 60)), total + 1})
    for n in chosen:
        directory = tmp_path / str(n)
        directory.mkdir()
        files, memory = FaultyFiles(), Memory()
        files.stop_at(n)
        run_until_killed(str(directory), files, seed, memory)
        files.bury()
        where = f"seed {seed}, killed at call {n}: {files.journal[-3:]}"
        check_after_kill(str(directory), memory, where, mapped=unfold(seed)[2])
        shutil.rmtree(directory)


@pytest.mark.parametrize(("offset", "damage"), [(0, bytes(4096)), (40, b"\xff")])
@pytest.mark.parametrize("lingering", [0, 3])
def test_what_stood_behind_a_damaged_header_was_on_disk(
    tmp_path: Path, offset: int, damage: bytes, lingering: int
) -> None:
    files, memory = FaultyFiles(), Memory()
    lane = MiniLane(files, str(tmp_path), memory)
    for number in range(200):
        lane.write(3, 700)
        if number == 3:
            lane.publish()
    assert lane.spool.active is not None
    first = lane.spool.active.segment.first
    # Accepted, and not appended when the kill comes.
    lane.head.words[NEXT] = lane.next + lingering
    files.bury()
    with open(tmp_path / lane.spool.active.segment.name, "r+b") as file:
        file.seek(offset)
        file.write(damage)
    files = FaultyFiles()
    assert counts(glance(files, str(tmp_path))) == counts(survey(files, str(tmp_path)))
    lane = MiniLane(files, str(tmp_path), memory)
    assert (lane.begun.lost, lane.begun.head.lost_linger, lane.begun.head.ordinal) == (lingering, lingering, 600)
    assert any(f"segment {first}, which was being filled" in note for note in lane.begun.notes)
    assert drain(lane) == list(range(1, first))
    assert (lane.ledger.slot.lost, balance(lane)) == (601 - first, 600 + lingering)
    lane.close()
    files.bury()


@pytest.mark.parametrize("seed", range(12))
def test_a_power_loss_at_any_call_loses_only_what_was_not_synced(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    whole = tmp_path / "whole"
    whole.mkdir()
    files = FadingFiles()
    run_until_killed(str(whole), files, seed, Memory())
    files.bury()
    for n in sorted(chance.sample(range(1, files.calls + 2), min(files.calls, 60))):
        directory, after = tmp_path / str(n), tmp_path / f"{n}-after"
        directory.mkdir()
        where = f"seed {seed}, power lost at call {n}"
        files, memory = FadingFiles(), Memory()
        files.stop_at(n)
        run_until_killed(str(directory), files, seed, memory)
        files.lose_power(str(directory), str(after), chance)
        files.bury()
        check_after_power_loss(str(after), memory, where)
        shutil.rmtree(directory)
        shutil.rmtree(after)


def check_after_power_loss(directory: str, memory: Memory, where: str) -> None:
    files = FaultyFiles(boot=b"C" * 16)
    lane = MiniLane(files, directory, memory)
    assert not survey(files, directory).unreadable, where
    assert lane.next > memory.given, where
    assert lane.ledger.next >= memory.settled, where
    total = balance(lane)
    must = [each for each in sorted(memory.appended) if lane.ledger.next <= each < memory.durable]
    bits = lane.ledger.slot.settled
    lane.write(2, 10)
    got = drain(lane)
    assert got == sorted(set(got)), where
    assert set(got) <= set(memory.appended), where
    assert len(set(must) - set(got)) <= bits, where
    assert got[-2:] == [lane.next - 2, lane.next - 1], where
    assert balance(lane) == total + 2, where
    lane.sync_seek()
    lane.close()
    files.bury()
    files = FaultyFiles(boot=b"C" * 16)
    lane = MiniLane(files, directory, memory)
    assert balance(lane) == total + 2, where
    assert drain(lane) == [], where
    lane.close()
    files.bury()


def killed_lane(directory: Path, play: Callable[[MiniLane], None]) -> Memory:
    files, memory = FaultyFiles(), Memory()
    lane = MiniLane(files, str(directory), memory)
    play(lane)
    files.dead = True
    files.bury()
    return memory


def some_writes(lane: MiniLane) -> None:
    for size in (10, 9000, 9000, 9000, 700):
        for _ in range(4):
            lane.write(2, size)
    lane.send(5)
    lane.publish()


LIVE = layout.SLOT_COUNT * layout.SLOT_STRIDE


@pytest.mark.parametrize("field", ["next", "segment", "tail"])
@pytest.mark.parametrize("value", [0, 1, 3, 4096, 4104, 1 << 20, (1 << 63) - 8, (1 << 63) - 1, (1 << 64) - 1])
def test_a_live_page_that_points_anywhere_costs_nothing(tmp_path: Path, field: str, value: int) -> None:
    memory = killed_lane(tmp_path, some_writes)
    place = LIVE + 40 + 8 * {"next": NEXT, "segment": SEGMENT, "tail": TAIL}[field]
    with open(tmp_path / "head", "r+b") as file:
        file.seek(place)
        file.write(value.to_bytes(8, "little"))
    if field == "next" and memory.given < value < 1 + recovery.GRANT:
        # It cannot be told from messages that were accepted and were only in memory.
        memory.live_lost = value - memory.given - 1
        memory.accepted += memory.live_lost
    check_after_kill(str(tmp_path), memory, f"{field} = {value}")


def spoil(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "zeros":
        path.write_bytes(bytes(path.stat().st_size))
    elif how == "garbage":
        path.write_bytes(random.Random(1).randbytes(path.stat().st_size))
    else:
        path.write_bytes(path.read_bytes()[:300])


@pytest.mark.parametrize("how", ["missing", "empty", "zeros", "garbage", "cut"])
@pytest.mark.parametrize("which", ["head", "seek", "both"])
def test_without_a_head_or_a_seek_everything_on_disk_is_still_delivered(tmp_path: Path, which: str, how: str) -> None:
    memory = killed_lane(tmp_path, some_writes)
    for name in ("head", "seek"):
        if which in (name, "both"):
            spoil(tmp_path / name, how)
    files = FaultyFiles()
    lane = MiniLane(files, str(tmp_path), memory)
    if which == "head":
        assert lane.next == memory.given + 1 + recovery.LEAP
    assert lane.next > memory.given
    resident = [each for each in sorted(memory.appended) if each >= lane.ledger.next]
    assert lane.ledger.next == (6 if which == "head" else 1)
    # The accounts agree with one another, whatever could be known.
    assert balance(lane) == lane.begun.head.accepted
    assert drain(lane) == resident
    assert lane.ledger.slot.lost == 0
    lane.close()
    files.bury()


def test_torn_slots_give_way_to_the_one_before(tmp_path: Path) -> None:
    memory = killed_lane(tmp_path, some_writes)
    for name, module in (("head", head), ("seek", seek)):
        raw = bytearray((tmp_path / name).read_bytes())
        newest, index, _ = module.newest(bytes(raw[:LIVE]))
        assert newest is not None
        raw[index * layout.SLOT_STRIDE + 100] ^= 1
        (tmp_path / name).write_bytes(raw)
    files = FaultyFiles()
    lane = MiniLane(files, str(tmp_path), memory)
    assert lane.next > memory.given
    waits = [each for each in sorted(memory.appended) if each >= lane.ledger.next]
    assert drain(lane) == waits
    lane.close()
    files.bury()


def test_reopened_three_times_without_a_write_nothing_changes(tmp_path: Path) -> None:
    memory = killed_lane(tmp_path, some_writes)
    seen = []
    for clean in (False, False, True, True, True):
        files = FaultyFiles()
        lane = MiniLane(files, str(tmp_path), memory)
        seen.append((lane.spool.end, lane.spool.ordinal, balance(lane), lane.ledger.next))
        assert lane.next > memory.given
        given = lane.next
        lane.close(clean=clean)
        files.bury()
    assert len(set(seen)) == 1
    files = FaultyFiles()
    lane = MiniLane(files, str(tmp_path), memory)
    assert lane.next == given
    waits = [each for each in sorted(memory.appended) if each >= lane.ledger.next]
    assert drain(lane) == waits
    lane.close()
    files.bury()


def test_files_below_the_floor_are_removed_and_not_counted_again(tmp_path: Path) -> None:
    def play(lane: MiniLane) -> None:
        some_writes(lane)
        lane.spool.retire()
        lane.write(1, 1)
        lane.tidy()
        victims = lane.spool.segments[:2]
        lane.head.slot.floor = lane.spool.segments[2].first
        lane.head.slot.floor_ordinal = lane.spool.segments[2].ordinal
        lane.publish(sync=True)
        # Killed after the first was cut, before it was unlinked.
        os.truncate(tmp_path / victims[0].name, 0)

    memory = killed_lane(tmp_path, play)
    files = FaultyFiles()
    lane = MiniLane(files, str(tmp_path), memory)
    floor = lane.head.slot.floor
    assert lane.ledger.next == floor
    assert lane.ledger.slot.pruned == lane.head.slot.floor_ordinal - 5
    assert balance(lane) == memory.accepted
    kept = [layout.parse_name(name) for name in os.listdir(tmp_path)]
    assert min(each[1] for each in kept if each is not None) == floor
    assert drain(lane) == [each for each in sorted(memory.appended) if each >= floor]
    assert lane.ledger.slot.lost == 0
    lane.close()
    files.bury()


@pytest.mark.parametrize("failing", ["datasync", "rename", "sync_directory"])
def test_finishing_a_seal_is_tried_again_until_it_works(tmp_path: Path, failing: str) -> None:
    memory = killed_lane(tmp_path, some_writes)
    files = FaultyFiles()
    lane = MiniLane(files, str(tmp_path), memory)
    assert lane.begun.unsynced
    files.fail_at(1, 5, only=(failing,))
    with pytest.raises(OSError):
        lane.finish()
    files.heal()
    lane.finish()
    assert all(segment.name.startswith("P") for segment in lane.spool.segments)
    lane.close()
    files.bury()
    with SpoolReaderOf(str(tmp_path)) as got:
        assert got == [each for each in sorted(memory.appended) if each >= 6]


class SpoolReaderOf:
    """The sequences that a monitor finds from 6 on."""

    def __init__(self, directory: str) -> None:
        self._reader = SpoolReader(FaultyFiles(), directory)

    def __enter__(self) -> list[int]:
        got: list[int] = []
        position, ordinal = 6, 5
        while found := self._reader.read(
            position, ordinal, until=None, max_messages=99, max_bytes=1 << 20, hint=(0, 0)
        ):
            if isinstance(found, Gap):
                position, ordinal = found.next, found.ordinal
                continue
            got += range(found.first, found.end)
            position, ordinal = found.end, ordinal + len(found)
        return got

    def __exit__(self, *exc: object) -> None:
        self._reader.close()
