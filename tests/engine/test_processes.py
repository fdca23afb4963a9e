"""Several processes, forks, exits and signals: who holds what, and what survives."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mbframework_fake.provider import FakeProvider
from mbframework_fault.provider import FaultProvider

from mbframework import BufferClosed, BufferLocked, MessageBuffer, SenderStuck, Sidecar, read_status
from mbframework.config import Config
from mbframework.errors import MessageBufferError
from mbframework.files import Files
from mbframework.lockfile import LockFile
from mbframework.plugins.source import resolve, resolve_url
from tests.engine.rig import FAST, SMALL, at_rest, events, eventually, in_state, numbers, padded, program

LIVE = """
def wait_live(buffer):
    while buffer.status().state != "live":
        time.sleep(0.005)
"""


def arrived(path: Path) -> list[int]:
    """What the provider ``file`` wrote."""
    if not path.exists():
        return []
    lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [int(json.loads(line)["value"]) for line in lines]


def deliver(directory: Path, **options: object) -> list[int]:
    """Open again, deliver what is there, and say what it was."""
    provider = FakeProvider()
    with MessageBuffer(directory, provider, **FAST | options) as buffer:
        buffer.flush(60)
        at_rest(buffer)
    return numbers(provider.messages)


def test_a_second_process_gets_a_lane_of_its_own(tmp_path: Path, promised: Callable[[float], float]) -> None:
    text = (
        LIVE
        + """
with MessageBuffer(sys.argv[1], "fake://", **FAST) as buffer:
    buffer.write("t", "0")
    print(buffer.lane, flush=True)
    sys.stdin.readline()
"""
    )
    with program(text, tmp_path / "b") as first, program(text, tmp_path / "b") as second:
        assert {first.line(), second.line()} == {"main", "main-2"}
        begun = time.monotonic()
        with pytest.raises(
            BufferLocked, match=r"writer\.lock is held by process \d+ on .*; share=True would"
        ) as caught:
            MessageBuffer(tmp_path / "b", "fake://", share=False, lock_timeout=600, **FAST)
        # A holder that lives is not waited for.
        assert time.monotonic() - begun < promised(2)
        pids = {first.process.pid, second.process.pid}
        assert any(str(pid) in caught.value.holder for pid in pids)
        with pytest.raises(BufferLocked, match="max_lanes is reached"):
            MessageBuffer(tmp_path / "b", "fake://", max_lanes=2, **FAST)
        for child in (first, second):
            child.tell("go")
            assert child.end()[0] == 0
    lanes = read_status(tmp_path / "b").lanes
    assert [(lane.name, lane.delivered, lane.state) for lane in lanes] == [("main", 1, "dead"), ("main-2", 1, "dead")]


def test_who_holds_a_lock_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    """A sidecar that mends a lane must not drive the writer, which is just starting, away from it."""
    MessageBuffer(tmp_path / "b", **FAST).close()
    lock = LockFile.take(Files(), str(tmp_path / "b/main/writer.lock"), 0.0, brief=True)
    assert lock is not None
    timer = threading.Timer(0.2, lock.release)
    timer.start()
    with MessageBuffer(tmp_path / "b", lock_timeout=60, **FAST) as buffer:
        assert buffer.lane == "main"
    timer.join()


def test_the_same_process_may_hold_two(tmp_path: Path) -> None:
    provider = FakeProvider()
    with (
        MessageBuffer(tmp_path / "b", provider, **FAST) as one,
        MessageBuffer(tmp_path / "b", lambda _: FakeProvider(provider.broker), **FAST) as two,
    ):
        assert (one.lane, two.lane) == ("main", "main-2")
        one.write("t", "1")
        two.write("t", "2")
        one.flush(60)
        two.flush(60)
    assert sorted(numbers(provider.messages)) == [1, 2]


SIDECAR = """
from mbframework.config import Config
from mbframework.errors import MessageBufferError
from mbframework.plugins.source import resolve
sidecar = Sidecar(Config.layered(directory=sys.argv[1], batch_messages=100, **FAST), resolve(sys.argv[2]))
signal.signal(signal.SIGTERM, lambda *_: sidecar.stop())
print("ready", flush=True)
print(sidecar.run(until_empty=len(sys.argv) > 3), flush=True)
"""
WRITER = """
options = FAST | (SMALL if len(sys.argv) > 3 else {})
with MessageBuffer(sys.argv[1], **options) as buffer:
    for number in range(int(sys.argv[2])):
        buffer.write("t", str(number) + " " * 200)
        if number % 200 == 0:
            print(number, flush=True)
            time.sleep(0.002)
"""


def test_a_sidecar_follows_a_writer_live(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with MessageBuffer(tmp_path / "b", segment_size="128KiB", total_size="64MiB", **FAST) as buffer:
        with program(SIDECAR, tmp_path / "b", f"file://{out}") as sidecar:
            sidecar.line()
            for number in range(3000):
                buffer.write("t", str(number))
                if number % 300 == 0:
                    eventually(lambda: arrived(out)[-1:] == [number], "the message in the file")  # noqa: B023
            buffer.flush(60)
            in_state(buffer, "draining", "live")
            assert arrived(out) == list(range(3000))
            assert sidecar.kill(signal.SIGTERM) == 0
        eventually(lambda: buffer.status().delivered == 3000, "the accounts")
        assert buffer.status().balanced


def test_both_killed_again_and_again_lose_nothing(tmp_path: Path) -> None:
    """The writer and its sidecar are killed -9 in turn: each message is there, in order; a kill may repeat a batch."""
    out = tmp_path / "out.jsonl"
    for round_ in range(4):
        with program(SIDECAR, tmp_path / "b", f"file://{out}") if round_ else program("print(1)") as sidecar:
            with program(WRITER, tmp_path / "b", 100_000) as writer:
                for _ in range(8):
                    writer.line()
                if round_:
                    sidecar.line()
                writer.kill()
            if round_:
                sidecar.kill()
    with program(SIDECAR, tmp_path / "b", f"file://{out}", "until-empty") as sidecar:
        sidecar.line()
        assert sidecar.end()[0] == 0
    got = arrived(out)
    # Four runs, each from 0 on: cut where it begins anew, and take out what a kill of the sidecar repeated.
    runs: list[list[int]] = []
    for number in got:
        if number == 0 and (not runs or runs[-1][-1] > 1000):
            runs.append([])
        runs[-1].append(number)
    assert len(runs) == 4
    # Three sidecars were killed -9: a batch each may have come again.
    assert sum(len(run) - len(set(run)) for run in runs) <= 300
    for run in runs:
        first_seen = list(dict.fromkeys(run))
        assert first_seen == list(range(len(first_seen)))
        assert len(first_seen) > 1400
    (lane,) = read_status(tmp_path / "b").lanes
    assert (lane.resident, lane.lost) == (0, 0)
    assert lane.balanced


def test_a_sidecar_and_a_writer_that_prunes(tmp_path: Path) -> None:
    with MessageBuffer(tmp_path / "b", **FAST | SMALL) as buffer:
        for number in range(3000):
            buffer.write("t", f"{number} ".ljust(500))
        provider = FakeProvider()
        config = Config.layered(directory=tmp_path / "b", **FAST)
        source = resolve(provider)
        assert source is not None
        sidecar = Sidecar(config, source)
        assert sidecar.run(until_empty=True) > 0
        got = numbers(provider.messages)
        assert got == list(range(3000 - len(got), 3000))
        eventually(lambda: buffer.status().pruned == 3000 - len(got), "the accounts")
        assert buffer.status().balanced
        assert (buffer.status().delivered, buffer.status().lost) == (len(got), 0)


def test_what_a_sidecar_has_in_hand_is_told_as_pruned_only_if_it_fails(tmp_path: Path) -> None:
    provider = FakeProvider()
    provider.fail_next(after=7)
    provider.stick()
    with MessageBuffer(tmp_path / "b", **FAST | SMALL) as buffer:
        for number in range(20):
            buffer.write("t", padded(number, 500))
        source = resolve(provider)
        assert source is not None
        sidecar = Sidecar(Config.layered(directory=tmp_path / "b", batch_messages=20, **FAST), source)
        run = threading.Thread(target=lambda: sidecar.run(until_empty=True))
        run.start()
        try:
            eventually(lambda: provider.stuck, "a send that hangs")
            for number in range(20, 1500):
                buffer.write("t", padded(number, 500))
            pruned = buffer.status().pruned
            assert pruned > 900
            told = sum(line["undelivered"] for line in events(buffer, "prune"))
            assert told <= pruned
            eventually(lambda: sum(line["in_hand"] for line in events(buffer, "prune")) == 20, "what it has in hand")
        finally:
            provider.release()
            run.join(60)
        arrived = numbers(provider.messages)
        assert arrived[:7] == list(range(7))
        assert arrived[7] >= 20
        pruned = 1500 - len(arrived)
        assert buffer.status().balanced
        assert (buffer.status().pruned, buffer.status().delivered) == (pruned, len(arrived))
        eventually(lambda: sum(line["undelivered"] for line in events(buffer, "prune")) == pruned, "the lines")


@pytest.mark.parametrize("how, used", [("os._exit", True), ("sys.exit", False), ("end", True)])
def test_a_forked_child_gets_a_lane_of_its_own(tmp_path: Path, how: str, used: bool) -> None:
    text = (
        LIVE
        + """
import warnings
warnings.simplefilter("ignore")
buffer = MessageBuffer(sys.argv[1], "file://" + sys.argv[2], **FAST)
wait_live(buffer)
buffer.write("t", "0")
child = os.fork()
if child == 0:
    # Nothing of the parent's is open here.
    held = {os.path.basename(os.path.realpath(f"/proc/self/fd/{n}")) for n in os.listdir("/proc/self/fd")}
    # What a thread of the parent had open for a moment was copied; what is kept open was let go of.
    assert not held & {"head", "seek", "writer.lock", "sender.lock"} and not any(".seg" in name for name in held), held
    if sys.argv[4] == "True":
        assert buffer.write("t", "100") > 0
        assert buffer.lane == "main-2"
        buffer.write("t", "101")
        buffer.flush(60)
    if sys.argv[3] == "os._exit":
        os._exit(7)
    if sys.argv[3] == "sys.exit":
        sys.exit(7)
else:
    for number in range(1, 50):
        buffer.write("t", str(number))
    _, status = os.waitpid(child, 0)
    buffer.write("t", "50")
    buffer.flush(60)
    assert buffer.lane == "main" and buffer.status().balanced
    buffer.close()
    print(os.waitstatus_to_exitcode(status), flush=True)
"""
    )
    with program(text, tmp_path / "b", tmp_path / "{lane}.jsonl", how, used) as child:
        assert child.line() == ("0" if how == "end" else "7")
        assert child.end() == (0, "", "")
    assert arrived(tmp_path / "main.jsonl") == list(range(51))
    assert arrived(tmp_path / "main-2.jsonl") == ([100, 101] if used else [])
    assert all(lane.balanced for lane in read_status(tmp_path / "b").lanes)


@pytest.mark.parametrize("url", ["sqlite://{}/out.db", "file://{}/{{lane}}.jsonl"], ids=["sqlite", "file"])
def test_a_fork_at_any_moment_harms_neither_side(tmp_path: Path, url: str) -> None:
    """While the provider is being made, opened, in the middle of a batch, or idle."""
    text = """
import random, warnings
warnings.simplefilter("ignore")
for attempt in range(12):
    buffer = MessageBuffer(os.path.join(sys.argv[1], str(attempt)), sys.argv[2], **FAST)
    buffer.write_many("t", [b"x" * 100] * 2000)
    time.sleep(random.choice((0, 0, 0.003, 0.01, 0.03)))
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            buffer.write_many("t", [b"y"] * 100)
            buffer.flush(60)
            buffer.close()
            os._exit(0)
        children.append(child)
        buffer.write_many("t", [b"x"] * 100)
    buffer.flush(60)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0, 0, 0], codes
    assert buffer.status().delivered == 2300 and buffer.status().failures == 0
    buffer.close()
print("done", flush=True)
"""
    with program(text, tmp_path, url.format(tmp_path)) as forking:
        assert forking.line() == "done"
        assert forking.end() == (0, "", "")
    lanes = [lane for number in range(12) for lane in read_status(tmp_path / str(number)).lanes]
    assert sum(lane.delivered for lane in lanes) == 12 * 2600
    assert all(lane.balanced and lane.resident == 0 for lane in lanes)


def test_a_fork_that_cannot_wait_for_a_call_leaves_the_child_writing_only(tmp_path: Path) -> None:
    text = """
import warnings
warnings.simplefilter("ignore")
import mbframework.buffer
mbframework.buffer._FORK_WAIT_UNSAFE = 0.2
url = f"fault://?inner=FILE:{sys.argv[1]}/{{lane}}.jsonl&stuck_rate=1&stuck=3s&seed=1"
buffer = MessageBuffer(sys.argv[1] + "/b", url, **FAST | {"close_timeout": 20})
buffer.write("t", "0")
while not (provider := buffer.running_engine().sender.provider) or not provider.hanging.is_set():
    time.sleep(0.005)
child = os.fork()
if child == 0:
    buffer.write("t", "1")
    buffer.close()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
buffer.close()
print("done", flush=True)
"""
    with program(text, tmp_path) as forking:
        assert forking.line() == "done"
        assert forking.end() == (0, "", "")
    lanes = {lane.name: lane for lane in read_status(tmp_path / "b").lanes}
    assert (lanes["main"].delivered, lanes["main-2"].delivered, lanes["main-2"].resident) == (1, 0, 1)
    assert all(lane.balanced for lane in lanes.values())


def test_what_is_written_at_once_is_meant_for_the_new_destination(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with MessageBuffer(tmp_path / "b", f"sqlite:{tmp_path}/{name}.db", **FAST) as buffer:
            buffer.write("t", name)
            buffer.flush(60)
            assert buffer.status().failures == 0


def test_a_child_that_got_no_threads_tries_again_at_its_next_use(tmp_path: Path) -> None:
    text = """
import warnings
warnings.simplefilter("ignore")
from mbframework.errors import MessageBufferError
buffer = MessageBuffer(sys.argv[1], "file:" + sys.argv[1] + "-{lane}.jsonl", **FAST)
child = os.fork()
if child == 0:
    start = threading.Thread.start
    def refuse(thread):
        raise RuntimeError("can't start new thread")
    threading.Thread.start = refuse
    try:
        buffer.write("t", "1")
    except MessageBufferError:
        threading.Thread.start = start
    buffer.write("t", "2")
    buffer.close()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
buffer.close()
print("done", flush=True)
"""
    with program(text, tmp_path / "b") as forking:
        assert forking.line() == "done"
        assert forking.end() == (0, "", "")
    assert sum(lane.delivered for lane in read_status(tmp_path / "b").lanes) == 1


@pytest.mark.parametrize("spare", range(4))
def test_where_no_more_threads_can_be_started_nothing_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spare: int
) -> None:
    start, started = threading.Thread.start, []

    def limited(thread: threading.Thread) -> None:
        if len(started) >= spare:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    with monkeypatch.context() as limit, pytest.raises(MessageBufferError, match="can't start new thread; raise the"):
        limit.setattr(threading.Thread, "start", limited)
        MessageBuffer(tmp_path / "b", FakeProvider(), linger=0.01, **FAST)
    assert not any(thread.is_alive() for thread in started)
    with MessageBuffer(tmp_path / "b", FakeProvider(), **FAST) as buffer:
        assert buffer.lane == "main"


def test_a_child_of_multiprocessing_keeps_what_it_wrote_at_its_end(tmp_path: Path) -> None:
    text = """
import multiprocessing
multiprocessing.set_start_method("fork")
def work(name):
    for number in range(100):
        buffer.write("t", f"{number}")
if __name__ == "__main__":
    buffer = MessageBuffer(sys.argv[1], "fake://?latency=100", **FAST)
    children = [multiprocessing.Process(target=work, args=(name,)) for name in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    print([child.exitcode for child in children], flush=True)
"""
    with program(text, tmp_path / "b") as child:
        assert child.line() == "[0, 0, 0]"
        assert child.end()[0] == 0
    lanes = read_status(tmp_path / "b").lanes
    # Whoever came later may have taken a lane that an earlier child had left.
    assert sum(lane.resident for lane in lanes) == 300
    assert all(lane.balanced and lane.clean for lane in lanes)


def test_a_provider_object_does_not_serve_the_child(tmp_path: Path) -> None:
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        engine, buffer._engine = buffer._engine, None
        with pytest.raises(BufferClosed, match="a provider object .FakeProvider. cannot serve both"):
            buffer.write("t", "0")
        buffer._engine = engine
        buffer.write("t", "0")
    assert (provider.count, sorted(os.listdir(tmp_path / "b"))) == (1, ["buffer.json", "main"])


EXITS = {
    "end": ("", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "exception": ("raise ZeroDivisionError", 1),
    "thread": ("threading.Thread(target=lambda: time.sleep(0.1)).start()", 0),
    "dropped": ("del buffer; import gc; gc.collect()", 0),
    "daemon thread that writes": (
        """
threading.Thread(target=lambda: [buffer.write('more', '1') for _ in iter(int, 1)], daemon=True).start()
time.sleep(0.05)
""",
        0,
    ),
}


@pytest.mark.parametrize("how, mode", [(how, ("buffer", "always")[number % 2]) for number, how in enumerate(EXITS)])
def test_a_program_that_ends_keeps_everything(tmp_path: Path, how: str, mode: str) -> None:
    what, code = EXITS[how]
    text = (
        LIVE
        + f"""
buffer = MessageBuffer(sys.argv[1], "fake://?latency=0.2", mode="{mode}", linger=0.5, **FAST | {{"close_timeout": 0.1}})
wait_live(buffer)
for number in range(500):
    buffer.write("t", str(number))
{what}
"""
    )
    with program(text, tmp_path / "b") as child:
        result, _, err = child.end()
    assert result == code, err
    assert "Traceback" not in err or how in {"exception", "daemon thread that writes"}
    (lane,) = read_status(tmp_path / "b").lanes
    assert (lane.lost, lane.clean, lane.balanced) == (0, True, True)
    assert lane.accepted >= 500
    rest = FakeProvider()
    with MessageBuffer(tmp_path / "b", rest, **FAST) as buffer:
        buffer.flush(60)
        mine = numbers(message for message in rest.messages if message.topic == "t")
        assert mine == list(range(500 - len(mine), 500))
        assert at_rest(buffer)["accepted"] == lane.accepted


def test_a_stuck_provider_does_not_keep_the_program_from_ending(tmp_path: Path) -> None:
    text = (
        LIVE
        + """
import mbframework.engine
mbframework.shutdown._STOP_GRACE = 0.3
class Stuck(Provider):
    def send(self, batch):
        print("stuck", flush=True)
        threading.Event().wait()

buffer = MessageBuffer(sys.argv[1], Stuck(), mode=sys.argv[2], **FAST)
wait_live(buffer)
for number in range(10):
    buffer.write("t", str(number))
sys.stdin.readline()
"""
    )
    for mode, kept in (("buffer", 10), ("block", 0)):
        with program(text, tmp_path / mode, mode) as child:
            child.line()
            child.tell("go")
            code, _, err = child.end()
            assert code == 0, err
            # What cannot be kept is an error, and what can be is none.
            assert ("Undelivered" in err) == (mode == "block")
        assert deliver(tmp_path / mode) == list(range(kept))


TERM = (
    LIVE
    + """
undo = install_sigterm() if sys.argv[3] == "default" else None
if sys.argv[3] == "chained":
    def former(number, frame):
        print("former", flush=True)
        sys.exit(5)
    signal.signal(signal.SIGTERM, former)
    install_sigterm()
buffer = MessageBuffer(sys.argv[1], "fake://?latency=0.05", mode=sys.argv[2], **FAST)
wait_live(buffer)
print("writing", flush=True)
number = 0
while True:
    buffer.write("t", str(number))
    number += 1
    if sys.argv[4] == "slowly":
        time.sleep(0.001)
"""
)


@pytest.mark.parametrize(
    "mode, pace, former, code",
    [
        ("buffer", "fast", "default", -signal.SIGTERM),
        ("always", "fast", "chained", 5),
        ("buffer", "slowly", "chained", 5),
    ],
)
def test_a_handled_sigterm_keeps_everything(tmp_path: Path, mode: str, pace: str, former: str, code: int) -> None:
    with program(TERM, tmp_path / "b", mode, former, pace) as child:
        child.line()
        time.sleep(0.15)
        child.process.send_signal(signal.SIGTERM)
        if former == "chained":
            assert child.line() == "former"
        assert child.end()[0] == code
    (lane,) = read_status(tmp_path / "b").lanes
    assert (lane.lost, lane.clean, lane.balanced) == (0, True, True)
    got = deliver(tmp_path / "b")
    assert got == list(range(lane.delivered, lane.accepted))


def test_sigterm_while_write_waits_and_while_close_runs(tmp_path: Path) -> None:
    waiting = (
        LIVE
        + """
install_sigterm()
buffer = MessageBuffer(sys.argv[1], "fake://?latency=100", mode="block", channel_messages=5, **FAST)
wait_live(buffer)
for number in range(10):
    if number == 5:
        print("full", flush=True)
    buffer.write("t", str(number))
"""
    )
    with program(waiting, tmp_path / "a") as child:
        child.line()
        time.sleep(0.2)
        assert child.kill(signal.SIGTERM) in (-signal.SIGTERM, 1)
    (lane,) = read_status(tmp_path / "a").lanes
    assert (lane.accepted, lane.returned, lane.clean) == (5, 5, True)
    closing = (
        LIVE
        + """
install_sigterm()
buffer = MessageBuffer(sys.argv[1], "fake://?latency=100", **FAST | {"close_timeout": 1})
wait_live(buffer)
buffer.write_many("t", map(str, range(100)))
print("closing", flush=True)
buffer.close()
print("closed", flush=True)
time.sleep(60)
"""
    )
    with program(closing, tmp_path / "b") as child:
        child.line()
        time.sleep(0.1)
        for _ in range(3):
            child.process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
        assert child.end()[0] == -signal.SIGTERM
    assert deliver(tmp_path / "b") == list(range(100))


def test_installing_can_be_undone() -> None:
    from mbframework import install_sigterm

    before = signal.getsignal(signal.SIGTERM)
    undo = install_sigterm()
    assert signal.getsignal(signal.SIGTERM) != before
    undo()
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_unhandled_sigterm_costs_no_more_than_a_kill(tmp_path: Path) -> None:
    text = """
buffer = MessageBuffer(sys.argv[1], "fake://?latency=100", mode="always", **FAST)
for number in range(1000):
    buffer.write("t", str(number))
print("written", flush=True)
time.sleep(60)
"""
    with program(text, tmp_path / "b") as child:
        child.line()
        assert child.kill(signal.SIGTERM) == -signal.SIGTERM
    assert deliver(tmp_path / "b") == list(range(1000))


def test_the_package_needs_no_provider_to_be_imported() -> None:
    code = "import sys, mbframework; print([m for m in sys.modules if m.startswith('mbframework_')])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_close_while_stuck_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mbframework.shutdown._STOP_GRACE", 0.1)
    provider = FakeProvider()
    buffer = MessageBuffer(tmp_path / "b", provider, **FAST)
    in_state(buffer, "live")
    provider.stick()
    buffer.write("t", "0")
    eventually(lambda: provider.stuck, "a send that hangs")
    with pytest.raises(SenderStuck):
        buffer.close(0)
    buffer.close(0)
    provider.release()


_KILLED_WITH_A_BATCH = """
from mbframework.plugins.source import resolve_url
def factory(context):
    provider = resolve_url(sys.argv[2]).create(context)
    send = provider.send
    def killed(batch):
        send(batch)
        os.kill(os.getpid(), 9)
    provider.send = killed
    return provider
buffer = MessageBuffer(sys.argv[1], factory, mode="always", batch_messages=100, **FAST)
buffer.pause()
buffer.write_many("t", [str(number) for number in range(150)])
buffer.resume()
time.sleep(60)
"""


_KILLED_WITH_A_LIVE_BATCH = """
from mbframework.plugins.source import resolve_url
from mbframework.spool.survey import read_seek
from mbframework.files import Files
from tests.engine.rig import eventually, in_state
def factory(context):
    provider = resolve_url(sys.argv[2]).create(context)
    send = provider.send
    def hangs(batch):
        send(batch)
        sent.set()
        threading.Event().wait()
    provider.send = hangs
    return provider
sent = threading.Event()
buffer = MessageBuffer(sys.argv[1], factory, mode="buffer", batch_messages=100, **FAST)
in_state(buffer, "live")
buffer.write_many("t", [str(number) for number in range(100)])
sent.wait()
# What is in hand, and what is written now, goes to disk.
buffer.pause()
buffer.write_many("t", [str(number) for number in range(50)])
eventually(lambda: read_seek(Files(), os.path.join(sys.argv[1], "main")).batch_end == 101, "the batch's end")
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("killed", [_KILLED_WITH_A_BATCH, _KILLED_WITH_A_LIVE_BATCH], ids=["disk", "live"])
@pytest.mark.parametrize("act", ["expire", "purge", "purge and close"])
def test_what_the_provider_may_hold_waits_until_it_was_asked(tmp_path: Path, act: str, killed: str) -> None:
    """A batch of 100 had arrived when the program was killed; the next one cannot reach the provider at first."""
    url = f"sqlite://{tmp_path}/out.db"
    with program(killed, tmp_path / "b", url) as child:
        assert child.end()[0] == -signal.SIGKILL
    provider = FaultProvider(resolve_url(url))
    provider.down()
    options: dict[str, Any] = FAST | ({"expire_after": 0.1} if act == "expire" else {})
    with MessageBuffer(tmp_path / "b", provider, **options) as buffer:
        # Longer than they live, since age is looked at after each failure.
        eventually(lambda: (buffer.status().oldest_age_s or 0) > 0.3 and buffer.status().failures > 3, "some attempts")
        if act == "expire":
            assert (buffer.status().expired, buffer.status().resident) == (0, 150)
        else:
            assert buffer.purge() == 50
            assert (buffer.status().purged, buffer.status().resident) == (50, 100)
        if act == "purge and close":
            buffer.close()
        provider.up()
        eventually(lambda: not buffer.status().resident, "an end")
    if act == "purge and close":
        with MessageBuffer(tmp_path / "b", url, **FAST) as buffer:
            in_state(buffer, "live")
            assert at_rest(buffer) == at_rest(buffer) | {"purged": 150, "delivered": 0}
    else:
        [lane] = read_status(tmp_path / "b").lanes
        gone = lane.expired if act == "expire" else lane.purged
        assert (lane.delivered, gone, lane.resident) == (100, 50, 0)
    with contextlib.closing(sqlite3.connect(tmp_path / "out.db")) as database:
        assert list(database.execute("SELECT count(*) FROM messages")) == [(100,)]


_FORKS_WHILE_AWAY = """
from mbframework.plugins.source import resolve_url
from mbframework_fault.provider import FaultProvider
from tests.engine.rig import eventually, in_state
provider = FaultProvider(resolve_url(sys.argv[2]))
with MessageBuffer(sys.argv[1], provider, mode="always", expire_after=0.2, batch_messages=10, **FAST) as buffer:
    in_state(buffer, "live")
    provider.down()
    buffer.write_many("t", ["0"] * 50)
    eventually(lambda: buffer.status().failures, "a failure, with a batch in hand")
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    buffer.write_many("t", ["1"] * 50)
    eventually(lambda: buffer.status().expired == 100, "the end of all")
"""


@pytest.mark.parametrize("url", ["sqlite:///{}/out.db", "file:///{}/out.jsonl"])
def test_a_fork_during_an_outage_does_not_stop_the_expiry(tmp_path: Path, url: str) -> None:
    """The provider is closed before a fork, with a batch in hand, and cannot be opened again."""
    with program(_FORKS_WHILE_AWAY, tmp_path / "b", url.format(tmp_path)) as forking:
        assert forking.end()[0] == 0


def test_a_sidecar_lets_go_of_lanes_that_are_free(tmp_path: Path) -> None:
    """A program that comes and goes beside it gets the same lane each time."""
    url = f"file:{tmp_path}/out.jsonl"
    with MessageBuffer(tmp_path / "b", **FAST) as buffer:
        buffer.write_many("t", ["0"] * 10)
    source = resolve(url)
    assert source is not None
    sidecar = Sidecar(Config.layered(directory=tmp_path / "b", **FAST), source)
    run = threading.Thread(target=sidecar.run)
    run.start()
    try:
        for _ in range(3):
            eventually(lambda: sidecar.served and not sidecar.lanes, "a free lane")
            with MessageBuffer(tmp_path / "b", url, **FAST) as buffer:
                buffer.write("t", "1")
                assert buffer.lane == "main"
                buffer.flush(60)
        with MessageBuffer(tmp_path / "b", **FAST) as buffer:
            buffer.write_many("t", ["0"] * 10)
            eventually(lambda: not buffer.status().resident, "the sidecar's work")
    finally:
        sidecar.stop()
        run.join(60)
    assert not run.is_alive()
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 23
