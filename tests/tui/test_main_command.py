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
from mbframework.files import Files
from mbframework.spool.survey import read_seek
from mbframework.status import oldest_on_disk, read_lane
from tests.engine.rig import FAST
from tests.monitor.lanes import make_lane


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


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_report_that_cannot_be_written_is_one_line(failing: Path) -> None:
    command = [sys.executable, "-m", "mbtui", "--once", str(failing)]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr == "mbtui: the report cannot be written: No space left on device\n"


@pytest.mark.parametrize("name", ["status.writer.json", "status.sender.json"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("null", "it is no JSON object"),
        ('{"schema": [[]]}', "its schema is no number"),
        ("{}", "its schema is missing"),
        ('{"schema": 1, "mode": "buf', "it is not JSON"),
        ('{"schema": 99}', "its schema is 99"),
        ('{"schema": "\\u001b[31m[red]"}', "its schema is"),
    ],
)
def test_a_status_file_that_is_not_what_it_should_be_is_named(
    failing: Path, name: str, content: str, words: str
) -> None:
    (failing / "main" / name).write_text(content)
    done = mbtui("--once", str(failing))
    assert f"{name} cannot be read: {words}" in done.stdout
    assert "200 msgs" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_lane_without_status_files_is_no_problem(failing: Path) -> None:
    for path in (failing / "main").glob("status.*"):
        path.unlink()
    assert "cannot be read" not in mbtui("--once", str(failing)).stdout


class Counting(Files):
    """Counts how often the lane's directory is listed, where that of its dead letters does not count."""

    listings = 0

    def list(self, path: str) -> list[str]:
        self.listings += path.endswith("main") and not path.endswith("dead/main")
        return super().list(path)


def test_the_age_of_the_oldest_costs_no_second_listing(tmp_path: Path) -> None:
    for number, delivered in enumerate((0, 20, 25)):
        lane = make_lane(tmp_path / str(number), 5, delivered)
        counting = Counting()
        status = read_lane(counting, str(lane), "main")
        assert counting.listings == 1
        slot = read_seek(counting, str(lane))
        assert slot is not None
        expected = oldest_on_disk(counting, str(lane), slot)
        assert expected is not None
        assert status.oldest_age_s == pytest.approx(expected, abs=60)
