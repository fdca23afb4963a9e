"""The program itself in tmux, beside a real engine and a real Kafka that is killed and comes back."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from mbframework import MessageBuffer
from mbframework.testing.kafka import KafkaBroker
from tests.engine.rig import eventually

pytestmark = [
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed; run: apt-get install -y tmux"),
    pytest.mark.timeout(300),
]

PROMISED_S = 2.0
#: What the surroundings of the tests may have, and the terminal of a person has not.
_OURS = ("TMUX", "NO_COLOR", "COLUMNS", "LINES")


class Tmux:
    """A tmux server of its own, with ``mbtui`` in it."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        size: tuple[int, int] = (100, 30),
        environ: dict[str, str] | None = None,
    ) -> None:
        self._socket = str(folder / "tmux")
        command = [sys.executable, "-m", "mbtui", *arguments]
        environ = {name: value for name, value in os.environ.items() if name not in _OURS} | (environ or {})
        self._run("-f", "/dev/null", "new-session", "-d", "-x", str(size[0]), "-y", str(size[1]), *command, env=environ)

    @property
    def pid(self) -> int:
        """The program's process."""
        return int(self._run("list-panes", "-F", "#{pane_pid}"))

    def _run(self, *arguments: str, env: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            ["tmux", "-S", self._socket, *arguments], capture_output=True, text=True, env=env, check=False
        )
        return done.stdout

    @property
    def screen(self) -> str:
        """What stands on the terminal."""
        return self._run("capture-pane", "-p")

    def press(self, *keys: str) -> None:
        """Press keys, by tmux's names."""
        self._run("send-keys", *keys)

    @property
    def ended(self) -> bool:
        """Whether the program has left."""
        return not self._run("list-panes")

    def shows(self, text: str, timeout: float = 60.0) -> float:
        """Wait until a text is on the screen; the seconds that took."""
        began = time.monotonic()
        while text not in (screen := self.screen):
            assert time.monotonic() - began < timeout, f"{text} is not on the screen:\n{screen}"
        return time.monotonic() - began

    def close(self) -> None:
        """End it, whatever it does."""
        self._run("kill-server")


@contextmanager
def in_tmux(folder: Path, *arguments: str, environ: dict[str, str] | None = None) -> Iterator[Tmux]:
    tmux = Tmux(folder, *arguments, environ=environ)
    try:
        yield tmux
    finally:
        tmux.close()


@contextmanager
def written(write: Callable[[], object], pause: float) -> Iterator[None]:
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(pause):
            write()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def in_state(buffer: MessageBuffer, state: str) -> None:
    eventually(lambda: buffer.status().state == state, f"state {state}")


def test_kafka_goes_and_comes_back(
    tmp_path: Path,
    kafka_control: KafkaBroker,
    kafka_topic: Callable[..., str],
    promised: Callable[[float], float],
) -> None:
    topic, directory = kafka_topic(), tmp_path / "buffer"
    url = f"kafka://{kafka_control.bootstrap}?send_timeout=2s"
    options = {"retry_wait_max": 0.5, "catch_up": "full"}
    with MessageBuffer(directory, url, mode="buffer", **options) as buffer, in_tmux(tmp_path, str(directory)) as tmux:
        with written(lambda: buffer.write(topic, b"x" * 1000), 0.005):
            in_state(buffer, "live")
            tmux.shows("● LIVE", promised(PROMISED_S))
            kafka_control.kill()
            in_state(buffer, "buffering")
            tmux.shows("■ BUFFERING", promised(PROMISED_S))
            tmux.shows("next retry")
            # Enough for a while of draining.
            for _ in range(400):
                buffer.write_many(topic, [b"y" * 1000] * 500)
            kafka_control.restart()
            in_state(buffer, "draining")
            tmux.shows("▲ DRAINING", promised(PROMISED_S))
            in_state(buffer, "live")
            tmux.shows("● LIVE", promised(PROMISED_S))
            tmux.shows("nothing lost", promised(PROMISED_S))
        buffer.flush(60)


@pytest.mark.parametrize("how", ["q", "C-c"])
def test_it_leaves_the_terminal_as_it_was(how: str, tmp_path: Path) -> None:
    MessageBuffer(tmp_path / "b", None, mode="always").close()
    with in_tmux(tmp_path, str(tmp_path / "b")) as tmux:
        tmux.shows("† DEAD")
        tmux.press(how)
        eventually(lambda: tmux.ended, "the end of mbtui")


#: The second is what some shells export.
@pytest.mark.parametrize("environ", [{}, {"COLUMNS": "80", "LINES": "24"}], ids=["plain", "sizes in the environment"])
def test_keys_and_sizes_in_a_real_terminal(environ: dict[str, str], tmp_path: Path) -> None:
    with MessageBuffer(tmp_path / "b", None, mode="always") as buffer:
        buffer.write("t", b"1")
    with in_tmux(tmp_path, "--ascii", str(tmp_path / "b"), environ=environ) as tmux:
        tmux.shows("SEGMENTS 1")
        assert tmux.screen.isascii()
        tmux.press("?")
        tmux.shows("this help")
        tmux.press("Escape")
        tmux._run("resize-window", "-x", "50", "-y", "10")
        eventually(lambda: "SEGMENTS" not in tmux.screen, "the small screen")
        tmux.shows("wait 1")


def test_the_simulator_has_the_size_of_its_terminal(tmp_path: Path) -> None:
    with in_tmux(tmp_path, "--simulate", "--ascii", environ={"COLUMNS": "60", "LINES": "12"}) as tmux:
        tmux.shows("provider up")
        assert max(len(line) for line in tmux.screen.splitlines()) > 90


@pytest.mark.parametrize("attempt", range(3))
def test_it_ends_with_its_terminal(attempt: int, tmp_path: Path) -> None:
    MessageBuffer(tmp_path / "b", None, mode="always").close()
    with in_tmux(tmp_path, str(tmp_path / "b")) as tmux:
        tmux.shows("SEGMENTS")
        process = os.pidfd_open(tmux.pid)
        try:
            tmux.press("?")
        finally:
            # While it draws.
            tmux.close()
            try:
                assert select.select([process], [], [], 60.0)[0], "mbtui outlives its terminal"
            finally:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(process, signal.SIGKILL)
                os.close(process)
