"""Watching real engines from outside: what they do, how they die, and what can happen to their directories."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mbframework_fake.provider import FakeProvider

from mbframework import MessageBuffer
from mbframework.deadstore import DeadStore
from mbframework.files import Files
from mbframework.history import SENDER_FILE, WRITER_FILE, Ring, Sent, Written
from mbframework.history import read as read_ring
from mbframework.monitor import LaneView, Monitor, View
from mbframework.status import read
from tests.engine.rig import FAST, eventually, program
from tests.monitor.lanes import make_lane, move_seek

#: Options of the engines here: quick, and with a sign of life every tenth of a second.
QUICK = "FAST | dict(status_interval=0.1)"


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is at reading, each look is a new one."""
    monkeypatch.setattr("mbframework.monitor.lane._LONG_NS", 1 << 62)


@contextmanager
def watched(path: Path, files: Files | None = None) -> Iterator[Monitor]:
    monitor = Monitor(path, files)
    try:
        yield monitor
    finally:
        monitor.close()


def lane_of(monitor: Monitor) -> LaneView:
    view = monitor.look()
    assert not view.error
    (lane,) = view.lanes
    return lane


def wait_for(monitor: Monitor, condition: Callable[[LaneView], object], what: str) -> LaneView:
    """Look until a look shows it; that look's lane."""
    seen: list[LaneView] = []

    def holds() -> bool:
        view = monitor.look()
        seen[:] = view.lanes
        return bool(seen and condition(seen[0]))

    eventually(holds, what)
    return seen[0]


ENGINE = f"""
from mbframework_fake.provider import FakeProvider
provider = FakeProvider()
with MessageBuffer(sys.argv[1], provider, **{QUICK}) as buffer:
    stop = threading.Event()
    def write():
        while not stop.wait(0.005):
            buffer.write("t", b"x" * 100)
    thread = threading.Thread(target=write)
    thread.start()
    print("open", flush=True)
    while (order := input()) != "end":
        getattr(provider, order)()
    stop.set()
    thread.join()
    buffer.flush(60)
"""


def test_an_outage_from_beginning_to_end(tmp_path: Path) -> None:
    with program(ENGINE, tmp_path / "b") as engine, watched(tmp_path / "b") as monitor:
        engine.line()
        live = wait_for(monitor, lambda lane: lane.status.state == "live" and lane.incoming, "live")
        assert live.verdict.kind in ("keeping-up", "idle")
        engine.tell("down")
        down = wait_for(monitor, lambda lane: lane.verdict.kind == "growing" and lane.status.last_error, "the outage")
        assert down.status.state == "buffering"
        assert "full in" in down.verdict.text or "pruning begins in" in down.verdict.text
        assert down.verdict.seconds
        assert len(down.segments) >= 1
        waiting = wait_for(monitor, lambda lane: lane.status.resident > 100, "a backlog")
        rows = waiting.segments.rows(0, len(waiting.segments))
        assert rows[0].state in ("draining", "filling")
        assert rows[0].age_s
        assert waiting.outgoing is not None
        engine.tell("up")
        after = wait_for(
            monitor,
            lambda lane: (
                lane.status.state == "live" and not lane.segments and any(point.accepted > 0 for point in lane.history)
            ),
            "live again",
        )
        assert after.verdict.kind == "keeping-up"
        assert after.incoming
        assert after.incoming.messages > 0
        assert after.incoming.size
        assert after.incoming.size / after.incoming.messages == pytest.approx(100, rel=0.5)
        kinds = [event.kind for event in monitor.events("main")]
        assert kinds[0] == "opened"
        assert kinds.index("failure") < kinds.index("provider-back")
        assert [event.text for event in monitor.events("main") if event.kind == "state"][-1].endswith("→ live")
        engine.tell("end")
        assert engine.end()[0] == 0
        closed = wait_for(monitor, lambda lane: lane.verdict.kind == "dead", "the end")
        assert closed.verdict.text == "closed, nothing waits"
        assert closed.status.accepted == closed.status.delivered
        assert monitor.events("main", 1)[-1].kind == "closed"


HELD = f"""
buffer = MessageBuffer(sys.argv[1], "fake:?outage=0s%2B1h", **{QUICK})
buffer.write_many("t", [b"%d" % number for number in range(1000)])
print("open", flush=True)
input()
os._exit(0)
"""


def test_a_killed_engine_is_dead_at_once(tmp_path: Path) -> None:
    with program(HELD, tmp_path / "b") as engine, watched(tmp_path / "b") as monitor:
        engine.line()
        wait_for(monitor, lambda lane: lane.status.state == "buffering" and lane.status.resident == 1000, "a backlog")
        wait_for(monitor, lambda lane: lane.verdict.kind in ("growing", "stalled"), "a verdict")
        wait_for(monitor, lambda lane: "away" in lane.status.state_reason, "why, which was not known at first")
        engine.kill()
        lane = lane_of(monitor)
        assert lane.verdict.kind == "dead"
        assert lane.verdict.text == "dead, 1,000 messages wait"
        assert lane.status.balanced
        # Another opens it, and it lives again.
        with program(HELD, tmp_path / "b") as other:
            other.line()
            lane = wait_for(monitor, lambda lane: lane.status.resident == 2000, "the next engine")
            assert lane.status.state == "buffering"
            assert all(point.accepted >= 0 and point.delivered >= 0 for point in lane.history)
            other.kill()


def test_a_stopped_engine_is_stale(tmp_path: Path) -> None:
    with program(HELD, tmp_path / "b") as engine, watched(tmp_path / "b") as monitor:
        engine.line()
        wait_for(monitor, lambda lane: lane.status.state == "buffering", "the engine")
        engine.process.send_signal(signal.SIGSTOP)
        lane = wait_for(
            monitor, lambda lane: lane.verdict.kind != "growing" and lane.status.state == "stale", "silence"
        )
        assert lane.verdict.kind == "stale"
        assert lane.verdict.seconds
        assert lane.verdict.seconds >= 3
        assert "no sign of life for" in lane.verdict.text
        engine.process.send_signal(signal.SIGCONT)
        wait_for(monitor, lambda lane: lane.status.state == "buffering", "a sign of life")
        engine.kill()


PRUNES = f"""
buffer = MessageBuffer(sys.argv[1], "fake:?outage=0s%2B1h", **{QUICK} | SMALL)
print("open", flush=True)
for number in range(10000):
    buffer.write("t", b"x" * 200)
print("written", flush=True)
input()
os._exit(0)
"""


def test_prunes_are_counted_and_said(tmp_path: Path) -> None:
    with program(PRUNES, tmp_path / "b") as engine, watched(tmp_path / "b") as monitor:
        engine.line()
        wait_for(monitor, lambda lane: lane.status.accepted, "the first message")
        assert engine.line() == "written"
        lane = wait_for(monitor, lambda lane: lane.prunes and lane.status.accepted == 10_000, "pruning")
        assert lane.total_size == 256 << 10
        assert lane.segment_size == 64 << 10
        told = [event for event in monitor.events("main", 10_000) if event.kind == "prune"]
        assert told[-1].level == "error"
        assert "UNDELIVERED" in told[-1].text
        eventually(
            lambda: (
                sum(
                    int(event.facts["undelivered"]) for event in monitor.events("main", 10_000) if event.kind == "prune"
                )
                == lane_of(monitor).status.pruned
            ),
            "an event for each pruned message",
        )
        engine.kill()


def test_the_rings_tell_a_monitor_that_has_just_begun(tmp_path: Path) -> None:
    lane = make_lane(tmp_path / "b", 3)
    begun = Files().boot_ns() - 5 * 10**9

    class Then(Files):
        at = begun

        def boot_ns(self) -> int:
            return self.at

        def wall_ns(self) -> int:
            return self.at + time.time_ns() - super().boot_ns()

    clock = Then()
    writer, sender = Ring(clock, str(lane), WRITER_FILE), Ring(clock, str(lane), SENDER_FILE)
    for second in range(6):
        writer.put(Written(10 * second, 1000 * second, second, 100))
        sender.put(Sent(4 * second, 400 * second, 0))
        clock.at += 10**9
    with watched(tmp_path / "b") as monitor:
        seen = lane_of(monitor)
    assert [round(point.accepted) for point in seen.history] == [0, 10, 10, 10, 10, 10]
    assert [round(point.delivered) for point in seen.history] == [0, 4, 4, 4, 4, 4]
    assert seen.history[-1].at == pytest.approx(time.time(), abs=60)
    assert seen.incoming is not None
    assert seen.incoming.messages == pytest.approx(10, rel=0.01)
    assert seen.incoming.size == pytest.approx(1000, rel=0.01)
    assert seen.outgoing is not None
    assert seen.outgoing.messages == pytest.approx(4, rel=0.01)


@pytest.mark.parametrize("halves", [1, 2])
def test_the_first_look_does_not_reach_back_over_a_change_of_state(tmp_path: Path, halves: int) -> None:
    """It drained, until five seconds ago; of two processes it is the sender that tells so, the other only writes."""
    lane = make_lane(tmp_path / "b", 30)
    begun = Files().boot_ns() - 20 * 10**9
    changed = begun + 15 * 10**9

    class Then(Files):
        at = begun

        def boot_ns(self) -> int:
            return self.at

        def wall_ns(self) -> int:
            return self.at + 10**18

    clock = Then()
    writer, sender = Ring(clock, str(lane), WRITER_FILE), Ring(clock, str(lane), SENDER_FILE)
    for second in range(20):
        writer.put(Written(10 * second, 1000 * second, 100, 100))
        sender.put(Sent(40 * min(second, 15), 0, 0))
        clock.at += 10**9
    told = {"schema": 1, "pid": os.getpid(), "boot_id": Files().boot_id().hex(), "heartbeat_boot_ns": clock.at}
    by_sender = told | {"state": "buffering", "reason": "refused", "since_boot_ns": changed}
    by_writer = told | {"state": "buffering", "reason": "this process only writes", "since_boot_ns": begun - 10**12}
    if halves == 1:
        by_writer = by_sender | {"sends": True}
    (lane / "status.writer.json").write_text(json.dumps(by_writer))
    (lane / "status.sender.json").write_text(json.dumps(by_sender))
    with watched(tmp_path / "b", clock) as monitor:
        seen = lane_of(monitor)
    assert (seen.status.state, seen.status.state_reason, seen.status.sender) == ("buffering", "refused", "alive")
    assert seen.status.state_since is not None
    assert clock.wall_ns() / 1e9 - seen.status.state_since == pytest.approx(5)
    assert seen.verdict.kind == "growing"


# ---- damage


def test_what_is_no_buffer_is_said_and_recovers(tmp_path: Path) -> None:
    path = tmp_path / "b"
    with watched(path) as monitor:
        assert "No such file" in monitor.look().error
        path.write_text("a file")
        assert "not a directory" in monitor.look().error
        path.unlink()
        path.mkdir()
        assert "not a buffer" in monitor.look().error
        path.rmdir()
        make_lane(path, 3)
        view = monitor.look()
        assert (view.error, view.problems) == ("", ())
        assert len(view.id) == 32
        (path / "buffer.json").write_text('{"format": 2, "id": 7}')
        assert "format 2" in monitor.look().error
        (path / "buffer.json").write_bytes(b"\xff{")
        assert "not the file of a buffer" in monitor.look().error
        shutil.rmtree(path)
        assert monitor.look().lanes == ()
        assert monitor.events("main") == []
        make_lane(path, 5, delivered=7)
        lane = lane_of(monitor)
        assert (lane.status.resident, len(lane.segments), lane.history) == (43, 5, ())


def test_another_buffer_in_its_place_begins_anew(tmp_path: Path) -> None:
    make_lane(tmp_path / "b", 9)
    with watched(tmp_path / "b") as monitor:
        assert lane_of(monitor).status.accepted == 90
        shutil.rmtree(tmp_path / "b")
        make_lane(tmp_path / "b", 2)
        (tmp_path / "b" / "buffer.json").write_text(json.dumps({"format": 1, "id": "ab" * 16}))
        lane = lane_of(monitor)
        assert lane.status.accepted == 20
        assert lane.incoming is None


def head_of_another_format(lane: Path) -> None:
    (lane / "head").write_bytes(_slot(b"MBHD"))


def seek_of_another_format(lane: Path) -> None:
    (lane / "seek").write_bytes(_slot(b"MBSK"))


def _slot(magic: bytes) -> bytes:
    from mbframework.spool.record import close_record

    return close_record((magic + b"\2\0").ljust(508, b"\0"))


def torn_head(lane: Path) -> None:
    (lane / "head").write_bytes(b"\xff" * 5000)


def no_seek(lane: Path) -> None:
    (lane / "seek").unlink()


def directory_for_head(lane: Path) -> None:
    (lane / "head").unlink()
    (lane / "head").mkdir()


def newer_ring(lane: Path) -> None:
    from mbframework.spool.record import close_record

    (lane / WRITER_FILE).write_bytes(close_record(b"MBHIST\r\n\2\0".ljust(60, b"\0")))


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (head_of_another_format, "format 2"),
        (seek_of_another_format, "format 2"),
        (torn_head, "its head cannot be read"),
        (no_seek, "its seek cannot be read"),
        (directory_for_head, "lane main cannot be read"),
        (newer_ring, "history.writer"),
    ],
)
def test_what_cannot_be_read_of_a_lane_is_said(tmp_path: Path, spoil: Callable[[Path], None], word: str) -> None:
    lane = make_lane(tmp_path / "b", 2)
    with watched(tmp_path / "b") as monitor:
        spoil(lane)
        for _ in range(2):
            view = monitor.look()
            assert not view.error
            assert word in "; ".join(view.problems)
        shutil.rmtree(tmp_path / "b")
        make_lane(tmp_path / "b", 2)
        with watched(tmp_path / "b") as again:
            assert lane_of(again).status.resident == 20
        assert monitor.look().lanes


HOSTILE: list[bytes] = [
    b"",
    b"{",
    b"[]",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"limits": [], "heartbeat_boot_ns": "x", "pid": "y", "accepted_bytes": -1, "state": 7}',
    b'{"limits": {"total_size": 1e999, "segment_size": true}, "traffic": {"bytes": 1e300, "last_delivered": NaN}}',
    b'{"limits": {"total_size": -5}, "heartbeat_boot_ns": 99999999999999999999, "pid": 99999999999999, "trouble": 3}',
    b'{"state": "live", "boot_id": 5, "on_full": {}, "traffic": {"last_delivered": 1e308}, "since": 1e308}',
]


@pytest.mark.parametrize("content", HOSTILE)
@pytest.mark.parametrize("name", ["status.writer.json", "status.sender.json"])
def test_hostile_status_files_cost_what_they_told(tmp_path: Path, name: str, content: bytes) -> None:
    lane = make_lane(tmp_path / "b", 2, delivered=5)
    (lane / name).write_bytes(content)
    with watched(tmp_path / "b") as monitor:
        for _ in range(2):
            view = monitor.look()
            assert view.error == ""
            assert [name in problem for problem in view.problems] == [True]
            assert view.lanes[0].status.resident == 15
            assert view.lanes[0].verdict.kind == "dead"
            assert view.lanes[0].total_size is None


class Refusing(Files):
    """Refuses what a user without rights may not do; as root nothing else does."""

    where = ""

    def open(self, path: str, *, create: bool = False, exclusive: bool = False, write: bool = True) -> int:
        self._check(path)
        return super().open(path, create=create, exclusive=exclusive, write=write)

    def list(self, path: str) -> list[str]:
        self._check(path + os.sep)
        return super().list(path)

    def stat(self, path: str) -> os.stat_result:
        self._check(path)
        return super().stat(path)

    def _check(self, path: str) -> None:
        if self.where and path.startswith(self.where):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


def test_missing_permission_is_said_and_recovers(tmp_path: Path) -> None:
    lane = make_lane(tmp_path / "b", 2)
    files = Refusing()
    with watched(tmp_path / "b", files) as monitor:
        for where, in_error in ((f"{lane}/", False), (f"{tmp_path}/b/", True)):
            files.where = where
            view = monitor.look()
            assert "Permission denied" in (view.error if in_error else "; ".join(view.problems))
            assert not view.lanes
            assert monitor.events("main") == []
        files.where = ""
        assert lane_of(monitor).status.resident == 20


def test_a_lane_that_may_not_be_entered_is_named(tmp_path: Path) -> None:
    make_lane(tmp_path / "b", 2)
    (tmp_path / "b" / "hidden").mkdir()
    files = Refusing()
    files.where = f"{tmp_path}/b/hidden/"
    with watched(tmp_path / "b", files) as monitor:
        view = monitor.look()
    assert [lane.name for lane in view.lanes] == ["main"]
    assert view.problems == ("lane hidden cannot be read: Permission denied",)


def test_names_and_errors_carry_no_escapes(tmp_path: Path) -> None:
    with watched(tmp_path / "a\x1b[2Jb") as monitor:
        assert "\x1b" not in monitor.look().error
        assert monitor.events("../..") == monitor.events("..") == monitor.events("") == []


class Skewed(Files):
    """A wall clock that somebody sets."""

    skew = 0

    def wall_ns(self) -> int:
        return super().wall_ns() + self.skew


def test_a_clock_that_jumps_changes_no_rate_and_no_state(tmp_path: Path) -> None:
    files = Skewed()
    with program(ENGINE, tmp_path / "b") as engine:
        engine.line()
        with watched(tmp_path / "b", files) as monitor:
            wait_for(monitor, lambda lane: len(lane.history) >= 2, "a history")
            for skew in (-86_400, 86_400):
                files.skew = skew * 10**9
                lane = lane_of(monitor)
                assert lane.status.state == "live"
                assert lane.incoming is not None
                assert 0 < lane.incoming.messages < 1000
                assert lane.history
                assert abs(lane.history[-1].at - files.wall_ns() / 1e9) < 60
        engine.kill()


def test_what_did_not_change_is_not_read_again(tmp_path: Path) -> None:
    lane = make_lane(tmp_path / "b", 50)
    old = time.time() - 60
    os.utime(lane, (old, old))
    opened: list[str] = []

    class Listening(Files):
        def open(self, path: str, *, create: bool = False, exclusive: bool = False, write: bool = True) -> int:
            opened.append(os.path.basename(path))
            return super().open(path, create=create, exclusive=exclusive, write=write)

    with watched(tmp_path / "b", Listening()) as monitor:
        first = lane_of(monitor)
        assert any(name.endswith(".seg") for name in opened)
        opened.clear()
        again = lane_of(monitor)
        assert not any(name.endswith(".seg") for name in opened)
        assert again.status.resident == first.status.resident
        assert (again.status.oldest_age_s or 0) >= (first.status.oldest_age_s or 0)
        move_seek(lane, 42)
        eventually(lambda: lane_of(monitor).status.resident == 458, "the news")


def test_a_heartbeat_of_another_boot_counts_while_it_changes(tmp_path: Path) -> None:
    lane = make_lane(tmp_path / "b", 2)

    class Later(Files):
        passed = 0

        def boot_ns(self) -> int:
            return super().boot_ns() + self.passed

    def beat(number: int) -> None:
        told: dict[str, Any] = {"boot_id": "cd" * 16, "heartbeat_boot_ns": number, "pid": 1, "state": "buffering"}
        (lane / "status.writer.json").write_text(json.dumps(told))

    files = Later()
    with watched(tmp_path / "b", files) as monitor:
        beat(10)
        assert lane_of(monitor).status.state == "dead"
        for number in range(11, 14):
            files.passed += 10**9
            beat(number)
            assert lane_of(monitor).status.state == "buffering"
        files.passed += 4 * 10**9
        lane_view = lane_of(monitor)
        assert lane_view.status.state == "stale"
        assert 4 <= (lane_view.status.heartbeat_age_s or 0) < 60


def test_lanes_come_and_go(tmp_path: Path) -> None:
    make_lane(tmp_path / "b", 2)
    with watched(tmp_path / "b") as monitor:
        shutil.copytree(tmp_path / "b" / "main", tmp_path / "b" / "lane-2")
        view: View = monitor.look()
        assert [lane.name for lane in view.lanes] == ["main", "lane-2"]
        shutil.rmtree(tmp_path / "b" / "lane-2")
        assert [lane.name for lane in monitor.look().lanes] == ["main"]


def test_a_monitor_that_has_just_begun_knows_the_last_minutes(tmp_path: Path) -> None:
    """From the rings of the engine alone: the process is dead, and nobody looked while it ran."""
    with program(ENGINE, tmp_path / "b") as engine:
        engine.line()
        ring = str(tmp_path / "b/main" / WRITER_FILE)
        eventually(lambda: (past := read_ring(Files(), ring, WRITER_FILE)) and len(past.records) > 4, "four seconds")
        engine.tell("end")
        assert engine.end()[0] == 0
    with watched(tmp_path / "b") as monitor:
        (lane,) = monitor.look().lanes
    assert len(lane.history) >= 4
    assert any(point.accepted > 0 for point in lane.history)
    assert any(point.delivered > 0 for point in lane.history)


@pytest.mark.parametrize("hours", [-2, 2])
def test_times_are_right_after_the_clock_was_set(tmp_path: Path, hours: int) -> None:
    provider = FakeProvider()
    provider.down()
    files = Skewed()
    with MessageBuffer(tmp_path / "b", provider, **FAST | {"status_interval": 0.1, "retry_wait_max": 30}) as buffer:
        buffer.write("t", b"waits")
        with watched(tmp_path / "b", files) as monitor:
            wait_for(monitor, lambda lane: lane.status.failures and lane.status.state == "buffering", "a failure")
            assert lane_of(monitor).status.clock_jump_s == 0
            files.skew = hours * 3_600 * 10**9
            for status in (lane_of(monitor).status, read(tmp_path / "b", files).lanes[0]):
                now = files.wall_ns() / 1e9
                for at in (status.state_since, status.failing_since, status.last_error_at):
                    assert at is not None
                    assert 0 <= now - at < 60
                assert status.retry_at is None or now - 60 < status.retry_at < now + 60
                assert status.clock_jump_s == pytest.approx(hours * 3_600, abs=60)
    # Of another boot there is only what the wall clock had.
    for name in ("status.writer.json", "status.sender.json"):
        path = tmp_path / "b" / "main" / name
        path.write_text(json.dumps(json.loads(path.read_text()) | {"boot_id": "0" * 32}))
    told = json.loads((tmp_path / "b" / "main" / "status.writer.json").read_text())
    (lane,) = read(tmp_path / "b", files).lanes
    assert (lane.state_since, lane.clock_jump_s) == (told["since"], 0)


def test_dead_letters_that_are_dropped_are_missed_at_once(tmp_path: Path) -> None:
    provider = FakeProvider()
    provider.reject_when(lambda message: "no such column")
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        buffer.write_many("t", [b"a", b"b"])
        buffer.flush(60)
    with watched(tmp_path / "b") as monitor:
        assert lane_of(monitor).status.dead_letters == 2
        store = DeadStore(Files(), str(tmp_path / "b" / "dead" / "main"))
        store.drop([next(store.letters()).id])
        assert (lane_of(monitor).status.dead_letters, lane_of(monitor).status.dead) == (1, 2)
