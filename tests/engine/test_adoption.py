"""What a process leaves is sent by one that is still there, which opened the buffer before the other one died."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import pytest
from mbframework_fake.provider import FakeProvider

from mbframework import MessageBuffer, RoutedBuffer
from mbframework.adoption import Adoption
from mbframework.config import Config
from mbframework.directory import prepare
from mbframework.files import Files
from mbframework.lockfile import is_held
from mbframework.plugins.source import resolve
from mbframework.provider import Context
from tests.engine.rig import FAST, eventually, in_state, program

#: Writes, sends nothing, and waits to be killed.
LEAVES = """
with MessageBuffer(sys.argv[1], mode="always", **FAST) as buffer:
    buffer.write_many("t", [str(number) for number in range(int(sys.argv[2]))])
    print(buffer.lane, flush=True)
    sys.stdin.readline()
"""


def arrived(path: Path) -> list[int]:
    return [int(json.loads(line)["value"]) for line in path.read_text().splitlines()] if path.exists() else []


def leave(directory: Path, count: int, expected: str) -> None:
    """A process writes so many messages into a lane of its own, and is killed."""
    with program(LEAVES, directory, count) as process:
        assert process.line() == expected
        process.process.send_signal(signal.SIGKILL)
        process.process.wait()


def test_a_process_that_was_there_before_sends_what_another_one_left(tmp_path: Path) -> None:
    directory, out = tmp_path / "b", f"file:{tmp_path}/{{lane}}.jsonl"
    left, lock = tmp_path / "main-2.jsonl", str(directory / "main-2" / "sender.lock")
    with MessageBuffer(directory, out, adopt_after=0.1, **FAST) as buffer:
        leave(directory, 500, "main-2")
        eventually(lambda: len(arrived(left)) == 500, "the other one's messages")
        assert arrived(left) == list(range(500))
        # It is free again: a process that comes takes it, and goes on with its sequence.
        eventually(lambda: not is_held(Files(), lock), "a free lane")
        with MessageBuffer(directory, out, adopt_after=0.1, **FAST) as next_one:
            assert next_one.lane == "main-2"
            assert next_one.write("t", "500") > 500
            next_one.flush(60)
        buffer.write("t", "501")
        buffer.flush(60)
    assert arrived(left) == list(range(501))


def test_one_of_many_adopts_and_a_fork_meanwhile_takes_no_lock_along(tmp_path: Path) -> None:
    directory, out = tmp_path / "b", tmp_path / "{lane}.jsonl"
    slow = f"fault:?inner=file://{out}&latency=0.05"
    options = FAST | {"adopt_after": 0.1, "batch_messages": 10}
    with MessageBuffer(directory, slow, **options) as first, MessageBuffer(directory, slow, **options) as second:
        leave(directory, 500, "main-3")
        left = tmp_path / "main-3.jsonl"
        eventually(lambda: arrived(left), "the first of them")
        child = os.fork()
        if child == 0:
            status = 1
            try:
                first.write("t", "1")
                first.flush(60)
                second.write("t", "2")
                second.flush(60)
                status = 0
            finally:
                os._exit(status)
        eventually(lambda: len(arrived(left)) == 500, "all of them")
        assert os.waitpid(child, 0)[1] == 0
        assert arrived(left) == list(range(500))
        eventually(lambda: not is_held(Files(), str(directory / "main-3" / "sender.lock")), "a free lane")
    assert sorted(n for path in tmp_path.glob("*.jsonl") for n in arrived(path)) == sorted([*range(500), 1, 2])


def test_while_the_provider_is_down_a_lane_stays_free_for_who_comes(tmp_path: Path) -> None:
    """Else each process that is replaced during an outage would make one lane more."""
    directory, folder = tmp_path / "b", tmp_path / "out"
    out = f"file:{folder}/{{lane}}.jsonl"
    options = FAST | {"adopt_after": 0.1}
    with MessageBuffer(directory, out, **options) as buffer:
        buffer.write("t", "0")
        in_state(buffer, "blocked")
        leave(directory, 5, "main-2")
        adoption = buffer.running_engine().adoption
        assert adoption is not None
        eventually(lambda: "main-2" in adoption._since, "a look")
        # Ten looks, and more.
        threading.Event().wait(0.5)
        assert not adoption.senders()
        with MessageBuffer(directory, out, **options) as next_one:
            assert next_one.lane == "main-2"
        folder.mkdir()
        buffer.retry_now()
        eventually(lambda: len(arrived(folder / "main-2.jsonl")) == 5, "the other one's messages")


def test_a_lane_that_cannot_be_sent_is_let_go_of(tmp_path: Path) -> None:
    directory = tmp_path / "b"
    (tmp_path / "main-2.jsonl").mkdir()
    with MessageBuffer(directory, f"file:{tmp_path}/{{lane}}.jsonl", adopt_after=0.1, **FAST) as buffer:
        buffer.write("t", "0")
        buffer.flush(60)
        leave(directory, 5, "main-2")
        adoption = buffer.running_engine().adoption
        assert adoption is not None
        eventually(lambda: adoption._silent, "a lane that is not sent")
        eventually(lambda: not adoption.senders(), "it is free again")
        assert not is_held(Files(), str(directory / "main-2" / "sender.lock"))


def test_each_lane_of_a_routed_buffer_adopts_those_of_its_name(tmp_path: Path) -> None:
    directory, out = tmp_path / "b", tmp_path / "{lane}.jsonl"
    lanes = {"orders": {"topics": "t"}, "audit": {"topics": "audit"}}
    with RoutedBuffer(directory, f"file:{out}", lanes=lanes, adopt_after=0.1, **FAST):
        text = LEAVES.replace('mode="always"', 'mode="always", lane="orders"')
        with program(text, directory, 20) as process:
            assert process.line() == "orders-2"
            process.process.kill()
            process.process.wait()
        eventually(lambda: len(arrived(tmp_path / "orders-2.jsonl")) == 20, "the other one's messages")


def test_what_is_not_an_orphan_is_left_alone(tmp_path: Path) -> None:
    """Another name, a writer at work, a pause by a person."""
    directory, out = tmp_path / "b", f"file:{tmp_path}/{{lane}}.jsonl"
    config = Config.layered(directory=directory, **FAST)
    with MessageBuffer(directory, out, lane="other", adopt_after=0.1, **FAST):
        with MessageBuffer(directory, mode="always", **FAST) as writes:
            writes.write("t", "0")
            adoption = Adoption.beside(
                Files(), config, resolve(out), prepare(Files(), str(directory), config), "other", None, lambda: True
            )
            assert adoption is not None
            assert not adoption._is_orphan("main")
        assert adoption._is_orphan("main")
        (directory / "main" / "paused").write_text("{}")
        assert not adoption._is_orphan("main")
    assert not (tmp_path / "main.jsonl").exists()


@pytest.mark.parametrize("given", ["object", "share"])
def test_who_cannot_send_for_others_does_not_try(tmp_path: Path, given: str) -> None:
    provider = FakeProvider() if given == "object" else "fake:"
    with MessageBuffer(tmp_path / "b", provider, share=given == "object", **FAST) as buffer:
        engine = buffer.running_engine()
        assert engine.adoption is None
        buffer.write("t", "0")
        buffer.flush(60)


def test_a_lane_whose_provider_hung_is_free_when_it_returns(tmp_path: Path) -> None:
    directory, arrivals, go, hangs = tmp_path / "b", FakeProvider(), threading.Event(), threading.Event()

    class Hanging(FakeProvider):
        def open(self, context: Context) -> None:
            if not go.is_set():
                hangs.set()
                go.wait()
            super().open(context)

    def make(context: Context) -> FakeProvider:
        return Hanging(arrivals.broker) if context.lane == "main-2" else FakeProvider()

    lock = str(directory / "main-2" / "sender.lock")
    with MessageBuffer(directory, make, **FAST | {"adopt_after": 0.1, "close_timeout": 0.1}) as buffer:
        leave(directory, 100, "main-2")
        assert hangs.wait(60)
        in_state(buffer, "live")
        adoption = buffer._engine.adoption  # type: ignore[union-attr]
        assert adoption is not None
        eventually(lambda: not adoption.senders(), "that it is given up")
        # The thread in the provider still has it: nobody else may send.
        assert is_held(Files(), lock)
        go.set()
        eventually(lambda: len(arrivals.messages) == 100, "the other one's messages")
        eventually(lambda: not is_held(Files(), lock), "a free lane")
