"""Two processes that meet at a moment of which a run of hundreds of kills sees one or two."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from mbframework_fake.provider import FakeProvider

from mbframework import MessageBuffer, Sidecar
from mbframework.config import Config
from mbframework.files import Files
from mbframework.plugins.source import resolve
from mbframework.spool import layout
from tests.engine.rig import FAST, WAIT_S


class Meeting(Files):
    """Calls ``meet`` once, right before a file gets the name ``at``."""

    def __init__(self, at: str, meet: Callable[[], object]) -> None:
        self._at, self._meet = at, meet

    def rename(self, source: str, target: str) -> None:
        if target.endswith(f"/{self._at}") and self._at:
            self._at = ""
            self._meet()
        super().rename(source, target)


def test_a_sidecar_meets_a_lane_that_is_being_made(tmp_path: Path) -> None:
    """The seek is on the device and has no name yet: it is left to its maker."""
    directory, provider = tmp_path / "outbox", FakeProvider()
    source = resolve(provider)
    assert source is not None

    def drain() -> int:
        sidecar = Sidecar(Config.layered(directory=directory, **FAST), source)
        timer = threading.Timer(WAIT_S, sidecar.stop)
        timer.start()
        try:
            return sidecar.run(until_empty=True)
        finally:
            timer.cancel()
            timer.join()

    class Met(MessageBuffer):
        @staticmethod
        def _make_files() -> Files:
            return Meeting(layout.SEEK_FILE, drain)

    with Met(directory, **FAST) as buffer:
        buffer.write("topic", b"1")
        assert drain() == 1
        assert buffer.status().balanced
    assert [message.value for message in provider.messages] == [b"1"]
