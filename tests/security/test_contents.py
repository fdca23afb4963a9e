"""Who can choose a topic, a message, a lane's name or an error's text: it stays text, and stays in its place."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from mbframework_fake.broker import FakeBroker
from mbframework_fake.provider import FakeProvider

from mbframework import ConfigurationError, MessageBuffer
from mbframework.monitor import Monitor
from tests.engine.rig import FAST, eventually
from tests.security.planting import leave

#: A terminal's escapes, markup of the dashboard, a line of a log, a path, and direction marks.
NASTY = "\x1b]0;pwned\x07\x1b[31m[red]x[/red]\r\n2024-01-01 ERROR forged\x9b2J\u202e../../etc/passwd\x00"


def mb(*arguments: object) -> str:
    """What a command prints on both streams."""
    done = subprocess.run(
        [sys.executable, "-m", "mbframework", *map(str, arguments)], capture_output=True, check=False, timeout=60
    )
    assert b"Traceback" not in done.stderr, done.stderr
    return (done.stdout + done.stderr).decode()


def is_harmless(text: str) -> bool:
    """Whether a terminal only shows it."""
    return all(each.isprintable() or each == "\n" for each in text)


def test_no_topic_key_value_or_reason_steers_a_terminal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, broker = tmp_path / "buffer", FakeBroker()
    broker.reject_when(lambda message: f"reason {NASTY}" if message.key == b"reject" else None)
    with MessageBuffer(path, FakeProvider(broker), **FAST) as buffer:
        buffer.write(NASTY, NASTY, key="reject", headers=[(NASTY, NASTY.encode())])
        buffer.flush(60)
        broker.down()
        buffer.write(NASTY, NASTY, key=NASTY, headers=[(NASTY, NASTY.encode())])
        eventually(lambda: buffer.status().failures, "a failure")
    for command in (
        ("status", path), ("peek", path), ("dead", "list", path), ("dead", "list", "--full", path), ("verify", path),
        ("check", path), ("tail", path),
    ):  # fmt: skip
        said = mb(*command)
        assert is_harmless(said), (command, said)
    for message in broker.messages:
        assert message.topic == NASTY
    assert all(is_harmless(record.getMessage()) for record in caplog.records if record.name.startswith("mbframework"))
    monitor = Monitor(path)
    for event in monitor.events("main", 100):
        assert event.text.isprintable()
    for name in ("events.writer.jsonl", "events.sender.jsonl"):
        for line in (path / "main" / name).read_bytes().splitlines():
            assert line.isascii()
            assert isinstance(json.loads(line), dict)


def test_the_words_of_an_error_steer_no_terminal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mbframework")
    path, broker = tmp_path / "buffer", FakeBroker()
    broker.fail_next(3, error=RuntimeError(NASTY))
    with MessageBuffer(path, FakeProvider(broker), **FAST) as buffer:
        buffer.write("t", "0")
        buffer.flush(60)
        broker.fail_next(1000, error=RuntimeError(NASTY))
        buffer.write("t", "1")
        eventually(lambda: buffer.status().failures, "a failure")
    assert is_harmless(mb("status", path))
    assert broker.count == 1


def test_a_message_that_holds_a_segment_stays_one_message(tmp_path: Path) -> None:
    """The salt keeps frames inside a value from being taken for frames, also where its own frame is damaged."""
    path, broker = tmp_path / "buffer", FakeBroker()
    leave(path, broker)
    (inner,) = (path / "main").glob("P*.seg")
    payload = inner.read_bytes()
    broker.down()
    with MessageBuffer(path, FakeProvider(broker), **FAST, mode="always") as buffer:
        buffer.write("t", payload[4096:])
        buffer.write("t", b"\0" * 3 + payload)
        buffer.write("t", "last")
    outer = max((path / "main").glob("P*.seg"))
    data = bytearray(outer.read_bytes())
    # The frame around the first is torn: a reader searches for what comes behind it.
    at = data.index(b"MBF1", 4096)
    data[at] ^= 0xFF
    outer.write_bytes(data)
    broker.up()
    with MessageBuffer(path, FakeProvider(broker), **FAST) as buffer:
        buffer.flush(60)
        assert buffer.status().lost == 1
    values = [message.value for message in broker.messages]
    assert values == [*(b"%d" % number for number in range(5)), b"\0" * 3 + payload, b"last"]


@pytest.mark.parametrize("lane", ["../elsewhere", "/etc", "a/b", "..", ".", "", "dead", "a\0b", "\x1b[31m", "x" * 200])
def test_a_lanes_name_is_no_path(lane: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigurationError, ValueError)) as refused:
        MessageBuffer(tmp_path / "buffer", None, lane=lane)
    assert is_harmless(str(refused.value))
    assert list(tmp_path.iterdir()) == []


def test_a_topic_is_no_path(tmp_path: Path) -> None:
    broker = FakeBroker()
    with MessageBuffer(tmp_path / "buffer", FakeProvider(broker), **FAST, mode="always") as buffer:
        for topic in ("../../x", "/etc/passwd", "a/b", "..", "head"):
            buffer.write(topic, "v")
        buffer.flush(60)
    assert [message.topic for message in broker.messages] == ["../../x", "/etc/passwd", "a/b", "..", "head"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["buffer"]
