"""The dashboard beside a real engine: each change is on the screen within two seconds, and the counts are right."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mbframework_fake.provider import FakeProvider
from mbtui.app import DashboardApp
from mbtui.arguments import Options
from mbtui.lane_words import lost_messages
from watchdog.observers import Observer

from mbframework import MessageBuffer
from tests.engine.rig import FAST, SMALL
from tests.tui.stage import Stage

PROMISED_S = 2.0


@contextmanager
def writing(buffer: MessageBuffer, pause: float = 0.002) -> Iterator[None]:
    """Write all the time, on a thread of its own."""
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(pause):
            buffer.write("orders", b"x" * 100)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def play(directory: Path, acts: Any, **options: Any) -> None:
    async def run() -> None:
        app = DashboardApp(Options(directories=(str(directory),), **options))
        try:
            async with app.run_test(size=(120, 40), notifications=True) as pilot:
                await acts(Stage(app, pilot))
        finally:
            app.stop()

    asyncio.run(run())


async def _shown_within(seconds: float, stage: Stage, text: str) -> None:
    began = time.monotonic()
    await stage.until_shown(text)
    assert time.monotonic() - began < seconds, f"{text} came late"


def test_an_outage_is_followed_from_live_to_live(tmp_path: Path, promised: Callable[[float], float]) -> None:
    provider = FakeProvider()
    options = FAST | {"status_interval": 1.0}
    with MessageBuffer(tmp_path / "b", provider, mode="buffer", **options) as buffer, writing(buffer):

        async def acts(stage: Stage) -> None:
            await stage.until_shown("● LIVE")
            provider.down()
            await _shown_within(promised(PROMISED_S), stage, "■ BUFFERING")
            await stage.until_shown("the fake broker is away", "began", "×")
            provider.set_rate(400)
            provider.up()
            await _shown_within(promised(PROMISED_S), stage, "▲ DRAINING")
            provider.set_rate(None)
            await stage.until(lambda: buffer.status().state == "live")
            await _shown_within(promised(PROMISED_S), stage, "● LIVE")
            await stage.until_shown("nothing lost", "state")

        play(tmp_path / "b", acts)


def test_what_is_pruned_is_on_the_screen_with_the_right_count(tmp_path: Path) -> None:
    provider = FakeProvider()
    provider.down()
    with MessageBuffer(tmp_path / "b", provider, mode="buffer", **FAST, **SMALL) as buffer:

        async def acts(stage: Stage) -> None:
            await stage.until_shown("nothing lost")
            await asyncio.to_thread(lambda: [buffer.write("t", b"x" * 1000) for _ in range(1000)])
            # The oldest are pruned in the background; what the engine counts is what the screen has to say.
            await stage.until(lambda: f"LOST {buffer.status().pruned:,}" in stage.text)
            pruned = buffer.status().pruned
            assert pruned > 100
            await stage.until_shown("prune", "UNDELIVERED")
            place = stage.app.main.place
            assert place is not None
            assert place[1] is not None
            assert lost_messages(place[1]) == pruned

        play(tmp_path / "b", acts)


def test_a_directory_that_is_not_there_yet_goes_and_comes_back(
    tmp_path: Path, promised: Callable[[float], float]
) -> None:
    directory = tmp_path / "b"

    async def acts(stage: Stage) -> None:
        await stage.until_shown("? UNREADABLE", str(directory))
        for _ in range(2):
            with MessageBuffer(directory, None, mode="always", **FAST) as buffer:
                buffer.write("t", b"1")
                await _shown_within(promised(PROMISED_S), stage, "BACKLOG")
            await stage.until_shown("† DEAD")
            shutil.rmtree(directory)
            await _shown_within(promised(PROMISED_S), stage, "? UNREADABLE")

    play(directory, acts)


def test_the_watch_is_armed_again_where_the_directory_comes_back(tmp_path: Path) -> None:
    directory = tmp_path / "b"
    MessageBuffer(directory, None, mode="always", **FAST).close()

    async def acts(stage: Stage) -> None:
        await stage.until_shown("DEAD")
        watcher = stage.app.watcher
        assert watcher is not None
        first = watcher.watched
        assert first == {str(directory)}
        os.rename(directory, tmp_path / "elsewhere")
        await stage.until(lambda: not watcher.watched)
        os.rename(tmp_path / "elsewhere", directory)
        await stage.until(lambda: watcher.watched == first)
        assert watcher.polling == ""

    play(directory, acts)


@pytest.mark.parametrize("how", ["exhausted", "poll"])
def test_without_notifications_the_directory_is_looked_at_all_the_same(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, promised: Callable[[float], float]
) -> None:
    if how == "exhausted":
        # What inotify says when a user has no more instances, which a test cannot use up for everybody.
        def schedule(*_: Any, **__: Any) -> None:
            raise OSError(errno.EMFILE, "inotify instance limit reached")

        monkeypatch.setattr(Observer, "schedule", schedule)
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, mode="buffer", **FAST) as buffer, writing(buffer):

        async def acts(stage: Stage) -> None:
            await stage.until_shown("● LIVE", "polling")
            provider.down()
            await _shown_within(promised(PROMISED_S), stage, "■ BUFFERING")

        play(tmp_path / "b", acts, poll=how == "poll")


def test_a_killed_program_leaves_a_directory_that_reads(tmp_path: Path) -> None:
    order = {
        "directory": str(tmp_path / "b"), "provider": "fake://?outage=0s%2B1000s", "options": {"mode": "buffer"},
        "value": 100, "backlog": 3_000, "rate": 1_000, "slot": 0,
    }  # fmt: skip
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.watched", json.dumps(order)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"ready\n"

        async def acts(stage: Stage) -> None:
            await stage.until_shown("■ BUFFERING")
            program.kill()
            await stage.until_shown("† DEAD", "not closed properly", "no process has it")
            told = [int(found.replace(",", "")) for found in re.findall(r"([\d,]+) msgs ", stage.text)]
            assert max(told) >= 3_000

        play(tmp_path / "b", acts)
