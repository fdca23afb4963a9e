"""Replay in a real engine, killed between what was written again and what is dropped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from mbframework_fake.provider import FakeProvider

from mbframework import BufferFull, Config, MessageBuffer, read_status
from mbframework.control import ControlError, ask
from mbframework.deaddesk import DeadDesk
from mbframework.deadstore import DeadStore
from mbframework.files import Files
from mbframework.replay import AT_ONCE
from tests.engine.rig import FAST, at_rest, eventually, program

FILES = Files()
REJECTS = "fake:?reject=bad"


def rejected(directory: Path, count: int, padding: int = 0) -> DeadStore:
    """A buffer, closed, with so many dead letters."""
    with MessageBuffer(directory, REJECTS, max_rejections=10**6, **FAST) as buffer:
        for number in range(count):
            value = f"bad {number}" + "." * padding
            buffer.write("t", value, key=str(number), headers=[("h", b"1")], partition=2, timestamp=number)
        buffer.flush(60)
    return DeadStore(FILES, str(directory / "dead/main"))


def ids(store: DeadStore) -> list[int]:
    return [letter.id for letter in store.letters()]


def desk(directory: Path) -> DeadDesk:
    return DeadDesk(FILES, Config(directory=str(directory), segment_size=1 << 20, total_size=8 << 20), "main")


@pytest.mark.parametrize("mode", ["buffer", "always", "block"])
def test_letters_become_messages_behind_what_is_there(tmp_path: Path, mode: str) -> None:
    store = rejected(tmp_path / "b", 3)
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, mode=mode, **FAST) as buffer:
        buffer.write("t", "before")
        assert desk(tmp_path / "b").replay(ids(store)).done == 3
        buffer.flush(60)
        assert ids(store) == []
        accounts = at_rest(buffer)
    assert [message.value for message in provider.messages] == [b"before", b"bad 0", b"bad 1", b"bad 2"]
    last = provider.messages[-1]
    assert (last.key, last.headers, last.partition, last.timestamp) == (b"2", (("h", b"1"),), 2, 2)
    # They were accepted a second time, and stay counted as once dead.
    assert (accounts["accepted"], accounts["delivered"], accounts["dead"]) == (7, 4, 3)


def test_what_is_rejected_again_is_another_letter_and_is_not_replayed_again(tmp_path: Path) -> None:
    store = rejected(tmp_path / "b", 3)
    with MessageBuffer(tmp_path / "b", REJECTS, **FAST) as buffer:
        first = ids(store)
        assert desk(tmp_path / "b").replay(first).done == 3
        buffer.flush(60)
        assert len(ids(store)) == 3
        assert min(ids(store)) > max(first)
        assert (buffer.status().dead, buffer.status().accepted) == (6, 6)


def test_many_letters_are_replayed_in_parts(tmp_path: Path) -> None:
    count = 2 * AT_ONCE + 7
    store = rejected(tmp_path / "b", count)
    provider = FakeProvider()
    moved: list[int] = []
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        assert desk(tmp_path / "b").replay(ids(store), moved.append).done == count
        buffer.flush(60)
    assert [message.value for message in provider.messages] == [b"bad %d" % number for number in range(count)]
    assert moved == [AT_ONCE, AT_ONCE, 7]
    assert store.ids() == []


def test_letters_that_find_no_room_stay(tmp_path: Path) -> None:
    store = rejected(tmp_path / "b", 3, padding=9000)
    provider = FakeProvider()
    provider.down()
    options = FAST | {"segment_size": "64KiB", "total_size": "256KiB", "min_free": 0}
    with MessageBuffer(tmp_path / "b", provider, on_full="reject", mode="always", **options) as buffer:

        def full() -> bool:
            """Refused, and not only because the next segment is being prepared."""
            try:
                buffer.write("t", bytes(9000))
            except BufferFull:
                return buffer.status().state == "blocked"
            return False

        eventually(full, "a full buffer")
        accepted = buffer.status().accepted
        outcome = desk(tmp_path / "b").replay(ids(store))
        assert outcome.done == 0
        assert "total_size" in outcome.why
        assert (ids(store), buffer.status().accepted) == ([1, 2, 3], accepted)
        provider.up()
        buffer.flush(60)
        eventually(lambda: buffer.status().state != "blocked", "room")
        assert desk(tmp_path / "b").replay(ids(store)).done == 3
        assert ids(store) == []


def test_full_dead_letters_block_the_lane_until_some_are_dropped(tmp_path: Path) -> None:
    provider = FakeProvider()
    provider.reject_when(lambda message: "no" if message.key == b"bad" else None)
    options = FAST | {"dead_total_size": "256KiB", "max_rejections": 10**6}
    with MessageBuffer(tmp_path / "b", provider, **options) as buffer:
        for number in range(60):
            buffer.write("t", f"{number}" + "." * 9000, key="bad")
        buffer.write("t", "good")
        eventually(lambda: buffer.status().state == "blocked", "full dead letters")
        store = DeadStore(FILES, str(tmp_path / "b/dead/main"))
        filled = len(ids(store))
        assert 10 < filled < 60
        while buffer.status().dead < 60:
            left = ids(store)
            assert desk(tmp_path / "b").drop(left).done == len(left)
            eventually(lambda left=left: ids(store) != [] or buffer.status().dead == 60, "letters that found room")
        buffer.flush(60)
        assert at_rest(buffer)["dead"] == 60
    assert [message.value for message in provider.messages] == [b"good"]


def test_in_a_mode_that_keeps_nothing_letters_wait_for_delivery(tmp_path: Path) -> None:
    store = rejected(tmp_path / "b", 1)
    provider = FakeProvider()
    options = FAST | {"close_timeout": 5}
    with MessageBuffer(tmp_path / "b", provider, mode="block", **options) as buffer:
        buffer.flush(60)
        provider.stick()
        with pytest.raises(ControlError, match="1 messages are not delivered"):
            ask(FILES, str(tmp_path / "b/main"), "dead-replay", {"ids": [1]}, timeout=20)
        provider.release()
        assert ids(store) == [1]


@pytest.mark.parametrize("writer", [True, False])
@pytest.mark.parametrize("sender", [True, False])
def test_whoever_holds_which_half_a_letter_is_replayed(tmp_path: Path, writer: bool, sender: bool) -> None:
    """A program that only writes, a sidecar that only sends, both, or none of them."""
    store = rejected(tmp_path / "b", 2)
    hold = (
        "from mbframework.control import Control, SenderHandlers\n"
        "from mbframework.deadstore import DeadStore, drop\n"
        "from mbframework.events import EventLog\n"
        "from mbframework.files import Files\n"
        "from mbframework.lockfile import LockFile\n"
        "here, files = sys.argv[1], Files()\n"
        "lane = here + '/main'\n"
        "if sys.argv[2] == 'writer':\n"
        "    buffer = MessageBuffer(here, **FAST)\n"
        "else:\n"
        "    lock = LockFile.take(files, lane + '/sender.lock', 0)\n"
        "    store = DeadStore(files, here + '/dead/main')\n"
        "    let_go = lambda ids: drop(store, ids, lambda: (lambda sequence: True), lambda act: act())\n"
        "    act = SenderHandlers(pause=bool, resume=bool, retry=bool, drop=let_go, purge=int)\n"
        "    log = EventLog(files, lane + '/events.sender.jsonl', directory=here, lane='main')\n"
        "    control = Control(files, lane, log, sender=act)\n"
        "    control.open()\n"
        "    def attend():\n"
        "        while True:\n"
        "            control.attend()\n"
        "            time.sleep(0.02)\n"
        "    threading.Thread(target=attend, daemon=True).start()\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "if sys.argv[2] == 'writer':\n"
        "    buffer.close()\n"
    )
    held = [role for role, wanted in (("writer", writer), ("sender", sender)) if wanted]
    with program(hold, tmp_path / "b", held[0] if held else "writer") as one:
        if held:
            assert one.line() == "ready"
        else:
            one.kill()
        with program(hold, tmp_path / "b", held[-1]) if len(held) == 2 else program("pass") as two:
            if len(held) == 2:
                assert two.line() == "ready"
            assert desk(tmp_path / "b").replay(ids(store)).done == 2
            assert ids(store) == []
            for each in (one, two):
                if each.process.poll() is None and each.process.stdin is not None:
                    each.process.stdin.close()
                    each.process.stdin = None
            two.end()
        if held:
            assert one.end()[0] == 0
    (lane,) = read_status(tmp_path / "b").lanes
    assert (lane.accepted, lane.dead, lane.resident, lane.balanced) == (4, 2, 2, True)


KILLED_BETWEEN = (
    "from mbframework import clerk\n"
    "clerk.drop = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)\n"
    "buffer = MessageBuffer(sys.argv[1], sys.argv[2], **FAST)\n"
    "print('ready', flush=True)\n"
    "signal.pause()\n"
)


@pytest.mark.parametrize("provider", ["sqlite:{}/out.db", "fault:?inner=sqlite:{}/out.db&outage=0s+1h"])
def test_a_kill_between_write_and_drop_repeats_and_loses_nothing(
    tmp_path: Path, provider: str, values_of: Callable[[Path], list[bytes]]
) -> None:
    store = rejected(tmp_path / "b", 2)
    with program(KILLED_BETWEEN, tmp_path / "b", provider.format(tmp_path)) as victim:
        assert victim.line() == "ready"
        with pytest.raises(ControlError):
            ask(FILES, str(tmp_path / "b/main"), "dead-replay", {"ids": ids(store)}, timeout=2)
        victim.end()
    assert ids(store) == [1, 2]
    with MessageBuffer(tmp_path / "b", f"sqlite:{tmp_path}/out.db", **FAST) as buffer:
        buffer.flush(60)
        assert values_of(tmp_path / "out.db") == [b"bad 0", b"bad 1"]
        assert desk(tmp_path / "b").replay(ids(store)).done == 2
        buffer.flush(60)
        status = buffer.status()
        assert (status.accepted, status.delivered, status.dead, status.lost) == (6, 4, 2, 0)
        at_rest(buffer)
    assert values_of(tmp_path / "out.db") == [b"bad 0", b"bad 1"] * 2
    assert ids(store) == []
