"""A provider that neither answers nor fails: what the state says of it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from mbframework import MessageBuffer
from mbframework.message import Batch
from mbframework.provider import Context, Provider


class Silent(Provider):
    """Answers as long as ``answers`` is set; ``called`` tells that a batch is in its hands."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.answers.set()
        self.called = threading.Event()

    def open(self, context: Context) -> None:
        pass

    def send(self, batch: Batch) -> None:
        self.called.set()
        self.answers.wait(30)


def wait_for_state(buffer: MessageBuffer, states: set[str], patience: float = 60.0) -> str:
    """The first of ``states`` that is seen; while waiting, no other state but ``live``."""
    deadline = time.monotonic() + patience
    pause = threading.Event()
    while (state := buffer.status().state) not in states:
        assert time.monotonic() < deadline, state
        pause.wait(0.01)
    return state


def test_a_lane_is_buffering_until_its_silent_provider_answers(tmp_path: Path) -> None:
    provider = Silent()
    with MessageBuffer(tmp_path / "outbox", provider, live_wait=0.05, live_after=0.0) as buffer:
        wait_for_state(buffer, {"live"})
        provider.answers.clear()
        provider.called.clear()
        try:
            buffer.write("topic", b"1")
            assert provider.called.wait(60)
            # Up as far as anybody knows, but that is not draining.
            assert wait_for_state(buffer, {"buffering", "draining"}) == "buffering"
            assert "keep up" in buffer.status().state_reason
        finally:
            provider.answers.set()
        buffer.flush(60)
        assert wait_for_state(buffer, {"live"}) == "live"
