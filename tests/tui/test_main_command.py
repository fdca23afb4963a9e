"""The command ``mbtui`` where there is no terminal: one plain report, and what wrong usage gets."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from mbframework_fake.provider import FakeProvider

from mbframework import MessageBuffer
from tests.engine.rig import FAST


def mbtui(
    *arguments: str, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mbtui", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30, check=False, cwd=cwd, env=env
    )


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    """A buffer with a backlog, left by a program whose provider was away."""
    provider = FakeProvider()
    provider.down()
    with MessageBuffer(tmp_path / "b", provider, mode="buffer", **FAST) as buffer:
        for number in range(200):
            buffer.write("t", str(number))
    return tmp_path / "b"


def test_a_pipe_gets_one_report(failing: Path) -> None:
    done = mbtui(str(failing))
    assert done.returncode == 0
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    first = done.stdout.splitlines()
    assert first[0] == str(failing)
    assert first[2].startswith("† DEAD")
    for text in ("200 msgs", "nothing lost", "the fake broker is away", "BACKLOG", "opened"):
        assert text in done.stdout


def test_ascii_and_several_directories(failing: Path) -> None:
    done = mbtui("--ascii", "--once", str(failing), str(failing.parent / "gone"))
    assert done.returncode == 1
    assert done.stdout.isascii()
    assert "+ DEAD" in done.stdout
    assert str(failing.parent / "gone") in done.stdout.splitlines()
    assert "Traceback" not in done.stdout + done.stderr


def test_a_dumb_terminal_gets_the_report_too(failing: Path) -> None:
    main, side = pty.openpty()
    environ = os.environ | {"TERM": "dumb"}
    with subprocess.Popen(
        [sys.executable, "-m", "mbtui", str(failing)], stdin=side, stdout=side, env=environ
    ) as process:
        os.close(side)
        seen = b""
        try:
            while chunk := os.read(main, 1 << 16):
                seen += chunk
        except OSError:
            # The other side has gone.
            pass
        finally:
            os.close(main)
    assert process.returncode == 0
    assert b"DEAD" in seen
    assert b"\x1b" not in seen


def test_nothing_to_look_at(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "MBFRAMEWORK_DIRS"}
    done = mbtui(cwd=tmp_path, env=environ)
    if done.returncode == 0:
        pytest.skip("a program on this machine has a buffer open")
    assert done.returncode == 2
    assert "run: mbtui DIR" in done.stderr


def test_directories_may_come_from_the_environment(failing: Path, tmp_path: Path) -> None:
    done = mbtui("--once", cwd=tmp_path, env=os.environ | {"MBFRAMEWORK_DIRS": str(failing)})
    assert str(failing) in done.stdout.splitlines()


def test_wrong_usage_is_one_line_and_exit_status_2() -> None:
    done = mbtui("--nosuch")
    assert done.returncode == 2
    assert "unrecognized arguments: --nosuch" in done.stderr


def test_a_reader_that_goes_away_is_no_error(failing: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        command = [sys.executable, "-m", "mbtui", "--once", str(failing)]
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, timeout=30, check=False)
    finally:
        os.close(write)
    assert done.stderr == b""
