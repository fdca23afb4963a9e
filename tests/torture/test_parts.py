"""Some of the situations, those that once failed among them, and the proof of the judge."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from mbframework_fake.broker import FakeBroker
from mbframework_fake.provider import FakeProvider

from mbframework import MessageBuffer
from mbframework.events import EventLog
from mbframework.files import Files
from tests.engine.rig import FAST, Disk, eventually, in_state, numbers, padded
from tests.torture import device, full_disk, parts
from tests.torture.application import RECOVERY_S, Application, Outcome


@pytest.mark.skipif(bool(device.obstacle()), reason=f"no small device: {device.obstacle()}")
def test_a_program_starts_on_a_full_device(tmp_path: Path) -> None:
    outcome = parts.SITUATIONS[name := "full opening always reject"](name, tmp_path)
    assert not outcome.breaches, outcome.line()
    assert outcome.delivered > 100


def buffer_on(files: Files, directory: Path, broker: FakeBroker, **options: Any) -> MessageBuffer:
    """With the waits that users have, but for what makes the test long."""

    class On(MessageBuffer):
        @staticmethod
        def _make_files() -> Files:
            return files

    return On(directory, FakeProvider(broker), **options)


def test_room_for_dead_letters_is_found_soon(tmp_path: Path) -> None:
    """However long the waits between two attempts have become."""
    disk, broker = Disk(), FakeBroker()
    broker.reject_when(lambda message: "bad" if message.value == b"bad" else None)
    with buffer_on(disk, tmp_path / "b", broker, retry_wait=20, retry_wait_max=600) as buffer:
        in_state(buffer, "live")
        disk.fail(errno.ENOSPC, "create", "reserve")
        buffer.write_many("t", [b"good", b"bad", b"good"])
        eventually(lambda: "dead letters cannot be stored" in buffer.status().state_reason, "a blocked lane")
        disk.mend()
        buffer.flush(RECOVERY_S)
        status = buffer.status()
        assert (status.delivered, status.dead, status.balanced) == (2, 1, True)


@pytest.mark.parametrize("mode", ["raise", "buffer"])
def test_no_room_for_the_position_is_no_trouble_of_the_provider(mode: str, tmp_path: Path) -> None:
    """As on a file system that copies on write: neither the application nor the provider has to wait."""
    files, broker = full_disk.Refusing(), FakeBroker()
    with buffer_on(files, tmp_path / "b", broker, mode=mode) as buffer:
        in_state(buffer, "live")
        files.names = ("seek", "head")
        for number in range(200):
            buffer.write("t", str(number))
            buffer.flush(RECOVERY_S)
        assert files.refused >= 200
        status = buffer.status()
        assert (status.state, status.failures, status.delivered) == ("live", 0, 200)
        files.names = ()
    with buffer_on(files, tmp_path / "b", broker, mode=mode) as buffer:
        buffer.write("t", "200")
        buffer.flush(RECOVERY_S)
        assert buffer.status().balanced
    assert numbers(broker.messages) == list(range(201))


@pytest.mark.parametrize(
    ("harm", "breach"),
    [
        pytest.param("lose", "the accounts say delivered=3; the books say 2", id="lost"),
        pytest.param("swap", "or not in order", id="order"),
        pytest.param("repeat", "of them different 3", id="repeated"),
        pytest.param("invent", "message 9 arrived, and 3 were accepted", id="invented"),
        pytest.param("refuse", "the application saw ['BufferFull']", id="refused"),
    ],
)
def test_the_judge_finds(harm: str, breach: str, tmp_path: Path) -> None:
    broker, outcome = FakeBroker(), Outcome("judged")
    with MessageBuffer(tmp_path / "b", FakeProvider(broker), **FAST) as buffer:
        program = Application(buffer, broker, outcome)
        for number in range(3):
            buffer.write("topic", padded(number, 10))
            program.accepted += 1
        buffer.flush(60)
        last = buffer.status()
    program.judge(last, set())
    assert not outcome.breaches
    arrived = {"lose": [0, 1], "swap": [2, 1, 0], "repeat": [0, 1, 2, 2], "invent": [0, 1, 9], "refuse": [0, 1, 2]}
    program.refused["BufferFull"] += harm == "refuse"
    program.judge(last, set(), arrived[harm])
    assert breach in " ".join(outcome.breaches)


class Short(Files):
    """Takes a part of what is appended, and then has no room."""

    def __init__(self) -> None:
        self.room: int | None = None

    def append(self, fd: int, data: bytes) -> None:
        if self.room is not None:
            super().append(fd, data[: self.room])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().append(fd, data)


@pytest.mark.parametrize("room", [0, 10, 150])
def test_no_room_in_the_middle_of_event_lines_spoils_none(room: int, tmp_path: Path) -> None:
    files, path = Short(), tmp_path / "events.jsonl"
    log = EventLog(files, str(path), directory=str(tmp_path), lane="main")
    log.tell("opened", number=0)
    log.flush()
    files.room = room
    log.tell("prune", number=1)
    log.tell("prune", number=2)
    log.flush()
    files.room = None
    log.tell("room", number=3)
    log.flush()
    assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == [0, 1, 2, 3]
