"""Readings of real directories and buffers, also of those that do not answer."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mbframework_fake.provider import FakeProvider

from mbframework import AsyncMessageBuffer, ConfigurationError, MessageBuffer
from mbframework.files import Files
from mbframework.metrics import sources
from mbframework.metrics.samples import Reading
from mbframework.metrics.sources import Source, Sources, of_directory
from tests.engine.rig import FAST, eventually


class Hanging(Files):
    """A file system that does not answer until it is told to."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.answers.set()

    def stat(self, path: str) -> os.stat_result:
        self.answers.wait()
        return super().stat(path)


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    files = Hanging()
    yield files
    files.answers.set()


def test_a_directory_and_a_buffer_tell_the_same(tmp_path: Path) -> None:
    broker_is_down = "fault:?inner=fake:&error_rate=1"
    with MessageBuffer(tmp_path / "outbox", broker_is_down, total_size="1MiB", **FAST) as buffer:
        buffer.write_many("t", [b"x" * 100] * 50)
        both = Sources((buffer, tmp_path / "outbox"))

        def agree() -> bool:
            # What was read of the buffer stands in front, in whichever order they were given.
            inside, outside = (reading.lanes[0] for reading in both.read())
            return (
                inside.status.accepted == outside.status.accepted == 50
                and inside.status.state == outside.status.state == "buffering"
                and inside.limit == outside.limit == 1 << 20
                and bool(inside.retries)
                and inside.retries == outside.retries
            )

        eventually(agree, "agreement")
    assert both.read()[1].lanes[0].status.state == "dead"
    both.remove(buffer)
    both.remove(tmp_path / "nothing")
    assert len(both.read()) == 1


async def _look(buffer: AsyncMessageBuffer) -> Reading:
    async with buffer:
        await buffer.write("t", "1")
        return Sources((buffer.buffer,)).read()[0]


def test_an_asynchronous_buffer_is_a_source_too(tmp_path: Path) -> None:
    import asyncio

    reading = asyncio.run(_look(AsyncMessageBuffer(tmp_path / "outbox", FakeProvider(), **FAST)))
    assert reading.lanes[0].status.accepted == 1


def test_what_cannot_be_read_is_said_and_comes_back(tmp_path: Path) -> None:
    source = of_directory(tmp_path / "outbox")

    def read() -> Reading:
        source.ask()
        return source.answer(20)

    assert "cannot be read" in read().error
    MessageBuffer(tmp_path / "outbox").close()
    assert read().error == ""
    (tmp_path / "outbox").rename(tmp_path / "elsewhere")
    assert "cannot be read" in read().error
    (tmp_path / "elsewhere").rename(tmp_path / "outbox")
    assert read().error == ""


def test_a_file_system_that_hangs_costs_the_patience_and_no_thread_more(tmp_path: Path, hanging: Hanging) -> None:
    MessageBuffer(tmp_path / "outbox").close()
    source = of_directory(tmp_path / "outbox", hanging)
    hanging.answers.clear()
    before = threading.active_count()
    for _ in range(3):
        source.ask()
        assert "has not answered for" in source.answer(0.01).error
        assert threading.active_count() == before + 1
    hanging.answers.set()
    assert source.answer(20).error == ""
    # What it said counts for a while.
    hanging.answers.clear()
    source.ask()
    assert source.answer(0.01).error == ""


def test_after_a_while_an_old_answer_counts_no_more(
    tmp_path: Path, hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    MessageBuffer(tmp_path / "outbox").close()
    source = of_directory(tmp_path / "outbox", hanging)
    source.ask()
    assert source.answer(20).error == ""
    hanging.answers.clear()
    monkeypatch.setattr(sources, "KEPT_S", 0.0)
    source.ask()
    assert "is its disk well?" in source.answer(0.01).error


def test_a_defect_in_one_is_its_error() -> None:
    def read() -> Reading:
        raise RuntimeError("out of\x1bhand")

    source = Source("/outbox", read)
    source.ask()
    assert source.answer(20) == Reading("/outbox", error="out of\\x1bhand")


@pytest.mark.parametrize("wrong", [7, None, object()])
def test_what_is_no_source_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="expected a MessageBuffer, or the path of a directory"):
        Sources((wrong,))
