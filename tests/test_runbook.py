"""The runbook's commands do what it says, each section in the circumstances that it is about.

In a ``console`` block a comment ``# exit status N`` behind a command tells its status, 0 where there is none; lines
below it are an excerpt of what it prints, as in tests/packaging/test_readme.py.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from mbframework import MessageBuffer, read_status
from tests.engine.rig import SMALL, Disk, buffer_on, eventually
from tests.packaging.test_readme import commands, shows

ROOT = Path(__file__).parents[1]
DOWN = "fault:?inner=sqlite:out.db&outage=0s+1h"
QUICK: dict[str, Any] = {"close_timeout": 0, "status_interval": 0.1, "retry_wait_max": 0.2}
STATUS = re.compile(r"\s+# exit status (\d)$")
#: What the runbook calls the process, and where the old disk is.
PID, OLD_DISK = "4711", "/mnt/old-disk"

WRITER = """
import sys, time
from mbframework import MessageBuffer
buffer = MessageBuffer("orders", sys.argv[1], status_interval=0.1)
buffer.write_many("orders", [b"x"] * 10)
print("ready", flush=True)
time.sleep(600)
"""


def sections() -> dict[str, list[str]]:
    """By heading the text of the console blocks."""
    text = (ROOT / "docs" / "runbook.md").read_text()
    found = {}
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        heading, _, body = part.partition("\n")
        blocks = re.findall(r"^( *)```console\n(.*?)^\1```$", body, re.MULTILINE | re.DOTALL)
        found[heading] = [re.sub(f"^{indent}", "", block, flags=re.MULTILINE) for indent, block in blocks]
    return found


Scene = Callable[[Path], AbstractContextManager[dict[str, str]]]
SCENES: dict[str, Scene] = {}


def scene(heading: str) -> Callable[[Callable[[Path], Iterator[dict[str, str]]]], Scene]:
    """The circumstances of a section; what is yielded is put in the place of the runbook's names."""

    def register(make: Callable[[Path], Iterator[dict[str, str]]]) -> Scene:
        SCENES[heading] = contextmanager(make)
        return SCENES[heading]

    return register


@contextmanager
def program(folder: Path, provider: str, state: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that writes, until the lane is in that state."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, provider], cwd=folder, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        eventually(lambda: read_status(folder / "orders").lanes[0].state == state, state)
        yield process
    finally:
        process.kill()
        process.communicate()


def backlog(folder: Path) -> None:
    """What a program leaves behind whose provider is gone."""
    with MessageBuffer(folder / "orders", "sqlite:out.db", **QUICK) as buffer:
        buffer.write("orders", b"x")
        buffer.flush(60)
    with MessageBuffer(folder / "orders", DOWN, **QUICK) as buffer:
        buffer.write_many("orders", [b"x"] * 10)
        eventually(lambda: buffer.status().failures, "a failure")


@scene("Where to begin")
def an_outage(folder: Path) -> Iterator[dict[str, str]]:
    with MessageBuffer(folder / "orders", DOWN, **QUICK) as buffer:
        buffer.write_many("orders", [b"x"] * 10)
        eventually(lambda: buffer.status().failures, "a failure")
        yield {"mb check orders": "mb check orders --resident 10,"}


@scene("It prunes")
def pruning(folder: Path) -> Iterator[dict[str, str]]:
    with MessageBuffer(folder / "orders", DOWN, **(QUICK | SMALL)) as buffer:
        for _ in range(1_000):
            buffer.write("orders", b"x" * 500)
        log = folder / "orders" / "main" / "events.writer.jsonl"
        eventually(lambda: '"prune"' in log.read_text(), "the event")
        yield {}
    assert len((folder / "waiting.jsonl").read_text().splitlines()) == read_status(folder / "orders").lanes[0].resident


@scene("It is blocked")
def another_destination(folder: Path) -> Iterator[dict[str, str]]:
    backlog(folder)
    with MessageBuffer(folder / "orders", "sqlite:another.db", **QUICK):
        eventually(lambda: read_status(folder / "orders").lanes[0].state == "blocked", "the status file")
        yield {}


@scene("The disk breaks")
def a_broken_disk(folder: Path) -> Iterator[dict[str, str]]:
    disk = Disk()
    with buffer_on(disk, folder / "orders", None, **QUICK) as buffer:
        buffer.write_many("orders", [b"x" * 100] * 10)
        buffer.sync()
        (segment,) = (folder / "orders" / "main").glob("A*.seg")
        with segment.open("r+b") as file:
            file.seek(file.read().index(b"x" * 100))
            file.write(b"y")
        disk.fail(errno.EIO, "datasync", "reserve", "sync_directory")
        eventually(lambda: read_status(folder / "orders").lanes[0].state == "disk-error", "the status file")
        yield {}
        disk.mend()


@scene("The disk is full")
def a_full_disk(folder: Path) -> Iterator[dict[str, str]]:
    with MessageBuffer(folder / "orders", DOWN, on_full="block", block_timeout="1ms", **(QUICK | SMALL)) as buffer:
        buffer.write_many("orders", [b"x" * 1_000] * 100)
        yield {"1MiB": "50kB"}


@scene("A host dies with a backlog")
def a_dead_host(folder: Path) -> Iterator[dict[str, str]]:
    old = folder / "old-disk"
    old.mkdir()
    with program(old, DOWN.replace("out.db", "../out.db"), "buffering") as process:
        process.kill()
    yield {OLD_DISK: str(old)}


@scene("A region is lost")
def another_region(folder: Path) -> Iterator[dict[str, str]]:
    backlog(folder)
    yield {}


@scene("Dead letters")
def rejected(folder: Path) -> Iterator[dict[str, str]]:
    rejects = "fault:?inner=sqlite:out.db&reject_rate=1"
    with MessageBuffer(folder / "orders", rejects, **QUICK) as buffer:
        buffer.write_many("orders", [b"x"] * 3)
        buffer.flush(60)
    yield {}
    status = read_status(folder / "orders").lanes[0]
    assert (status.dead, status.delivered) == (3, 3)


@scene("A provider is stuck")
def stuck(folder: Path) -> Iterator[dict[str, str]]:
    with program(folder, "fault:?inner=sqlite:out.db&stuck_rate=1&stuck=1h", "draining") as process:
        since = read_status(folder / "orders").lanes[0].state_since
        eventually(lambda: since is None or time.time() > since + 1, "a second")
        yield {PID: str(process.pid)}
    assert read_status(folder / "orders").lanes[0].resident == 0


@scene("A process is silent")
def stopped(folder: Path) -> Iterator[dict[str, str]]:
    with program(folder, "sqlite:out.db", "live") as process:
        process.send_signal(signal.SIGSTOP)
        eventually(lambda: read_status(folder / "orders").lanes[0].state == "stale", "stale")
        yield {PID: str(process.pid)}
        eventually(lambda: read_status(folder / "orders").lanes[0].state == "live", "life")


@scene("Nobody sends")
def a_killed_sidecar(folder: Path) -> Iterator[dict[str, str]]:
    with MessageBuffer(folder / "orders", **QUICK) as buffer:
        buffer.write("orders", b"x")
        drain = [sys.executable, "-m", "mbframework", "drain", "orders"]
        with subprocess.Popen(drain, cwd=folder, env=environment()) as process:
            eventually(lambda: read_status(folder / "orders").lanes[0].delivered, "the sidecar")
            process.send_signal(signal.SIGSTOP)
            buffer.write("orders", b"x")
            process.kill()
        yield {PID: str(process.pid)}
        assert read_status(folder / "orders").lanes[0].delivered == 2


@scene("A pause was forgotten")
def paused(folder: Path) -> Iterator[dict[str, str]]:
    with program(folder, "sqlite:out.db", "live"):
        run("mb pause orders", folder, environment(), 0)
        eventually(lambda: read_status(folder / "orders").lanes[0].state == "paused", "the pause")
        yield {}
        eventually(lambda: read_status(folder / "orders").lanes[0].state == "live", "life")


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MBFRAMEWORK_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return kept | {"PATH": path, "MBFRAMEWORK_PROVIDER": "sqlite:out.db", "COLUMNS": "100"}


def run(command: str, folder: Path, env: dict[str, str], status: int) -> str:
    done = subprocess.run(
        ["sh", "-c", command], cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == status, f"{command}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


def test_every_section_with_commands_has_its_circumstances() -> None:
    assert list(SCENES) == [heading for heading, blocks in sections().items() if blocks] == list(sections())


@pytest.mark.parametrize("heading", list(SCENES))
def test_the_commands_of(heading: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    env = environment()
    with SCENES[heading](tmp_path) as names:
        for block in sections()[heading]:
            for command, output in commands(block):
                status = STATUS.search(command)
                command = STATUS.sub("", command)
                for name, real in names.items():
                    command = command.replace(name, real)
                if command.startswith("export "):
                    name, _, value = command.removeprefix("export ").partition("=")
                    env[name] = value
                    continue
                printed = run(command, tmp_path, env, int(status[1]) if status else 0)
                assert not output or shows(f"…\n{output}", printed), f"{command}\n{printed}"
