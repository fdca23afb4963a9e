"""Hundreds of buffers on one machine: one exporter, one check, one dashboard, as docs/integrations.md says."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys

import pytest

from mbframework import MessageBuffer

MANY = 200


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Buffers in which three messages wait. Copies: to write each of them by an engine would tell no more."""
    home = tmp_path_factory.mktemp("many")
    first = home / "b000"
    with MessageBuffer(first, mode="always", segment_size="1MiB", total_size="4MiB") as buffer:
        buffer.write_many("orders", [b"a", b"b", b"c"])
    for number in range(1, MANY):
        shutil.copytree(first, home / f"b{number:03}")
    return [str(path) for path in sorted(home.iterdir())]


def mb(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mbframework", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def test_one_exporter_serves_them_all(directories: list[str]) -> None:
    done = mb("metrics", *directories, "--once")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert sum(line.startswith("mbframework_up{") and line.endswith(" 1.0") for line in lines) == MANY
    waiting = [line for line in lines if line.startswith("mbframework_buffer_messages{")]
    assert sum(float(line.rpartition(" ")[2]) for line in waiting) == 3 * MANY


def test_one_check_sums_them_up(directories: list[str]) -> None:
    done = mb("check", *directories)
    assert done.returncode == 1
    (line,) = done.stdout.splitlines()
    assert line.startswith("MB WARNING - b000: no process has it, and 3 messages wait; b001: ")


def test_one_dashboard_shows_them_all(directories: list[str]) -> None:
    pytest.importorskip("textual", reason="needs textual; run: pip install 'mbframework[tui]'")
    from mbtui.app import DashboardApp
    from mbtui.arguments import Options

    from tests.tui.stage import Stage

    async def play() -> None:
        app = DashboardApp(Options(directories=tuple(directories)))
        try:
            async with app.run_test(size=(120, 40), notifications=True) as pilot:
                stage = Stage(app, pilot)
                await stage.until_shown("b000/main", f"1/{MANY}")
                await stage.press("[")
                await stage.until_shown("b199/main", f"{MANY}/{MANY}")
                await stage.press("l")
                await stage.until_shown("b170/main", "b199/main")
        finally:
            app.stop()

    asyncio.run(play())
