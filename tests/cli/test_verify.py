"""``mb verify``: what is told, and the exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mbframework import MessageBuffer
from tests.browse.harm import remove, segments
from tests.cli.conftest import Run
from tests.cli.test_damage import newer


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    with MessageBuffer(tmp_path / "outbox", segment_size="64KiB", total_size="4MiB") as buffer:
        for number in range(2000):
            buffer.write("t", b"%05d" % number + b"x" * 95)
    return tmp_path / "outbox"


def test_intact(mb: Run, outbox: Path) -> None:
    done = mb("verify", "outbox")
    assert done.returncode == 0
    lines = done.stdout.decode().splitlines()
    assert lines[-1] == "intact"
    assert sum(line.endswith("  ok") for line in lines) == len(segments(outbox))
    assert done.stderr == b""


def test_damaged(mb: Run, outbox: Path) -> None:
    remove(2)(outbox)
    done = mb("verify", "outbox")
    assert done.returncode == 1
    assert "sequences 807 to 1209 (403 messages)" in done.stdout.decode()
    found = json.loads(mb("verify", "outbox", "--json").stdout)
    assert (found["schema"], found["intact"]) == (1, False)
    (damage,) = found["lanes"][0]["damages"]
    assert (damage["first"], damage["last"], damage["messages"]) == (807, 1209, 403)


def test_what_cannot_be_checked(mb: Run, outbox: Path, tmp_path: Path) -> None:
    for directory in ("missing", "."):
        done = mb("verify", directory)
        assert done.returncode == 3
        assert len(done.stderr.splitlines()) == 1
    newer(outbox / "main")
    done = mb("verify", "outbox")
    assert done.returncode == 3
    assert "format" in done.stdout.decode()


def test_an_open_buffer(mb: Run, outbox: Path) -> None:
    with MessageBuffer(outbox) as buffer:
        buffer.write("t", b"x")
        assert mb("verify", "outbox").returncode == 0
