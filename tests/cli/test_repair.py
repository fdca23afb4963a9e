"""``mb repair``: nothing without ``--yes``; with it, intact again, the loss told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mbframework import MessageBuffer
from mbframework.status import read
from tests.browse.harm import cut, remove, segments
from tests.cli.conftest import Run
from tests.cli.tables import values


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    with MessageBuffer(tmp_path / "outbox", segment_size="64KiB", total_size="4MiB") as buffer:
        for number in range(2000):
            buffer.write("t", b"%05d" % number + b"x" * 95)
    return tmp_path / "outbox"


def test_only_told_and_then_done(mb: Run, outbox: Path, tmp_path: Path) -> None:
    cut(1, 30_000)(outbox)
    before = [path.read_bytes() for path in segments(outbox)]
    told = mb("repair", "outbox")
    assert told.returncode == 1
    assert b"--yes" in told.stderr
    assert "rebuild segment P00000000000000000404.seg" in told.stdout.decode()
    assert [path.read_bytes() for path in segments(outbox)] == before
    done = json.loads(mb("repair", "outbox", "--yes", "--json").stdout)
    lost = sum(each["messages"] for each in done["lost"]["main"])
    assert done["done"]
    assert done["intact_after"]
    assert Path(done["copy"]).name.startswith(".repair-")
    assert mb("verify", "outbox").returncode == 0
    assert [lane.name for lane in read(outbox).lanes] == ["main"]
    assert mb("drain", "outbox", "--provider", "sqlite:out.db", "--until-empty").returncode == 0
    assert len(values(tmp_path / "out.db")) == 2000 - lost
    (lane,) = read(outbox).lanes
    assert (lane.lost, lane.balanced) == (lost, True)
    again = mb("repair", "outbox", "--yes")
    assert again.returncode == 0
    assert b"nothing is to be done" in again.stdout


def test_what_is_lost_is_told_for_people(mb: Run, outbox: Path) -> None:
    remove(2)(outbox)
    done = mb("repair", "outbox", "--yes")
    assert done.returncode == 0
    text = done.stdout.decode()
    assert "403 messages are lost" in text
    assert "sequences 807 to 1209" in text
    assert text.endswith("intact now\n")


def test_an_open_buffer_is_refused(mb: Run, outbox: Path) -> None:
    remove(2)(outbox)
    with MessageBuffer(outbox, mode="always"):
        done = mb("repair", "outbox", "--yes")
    assert done.returncode == 2
    assert b"stop it first" in done.stderr
    assert mb("repair", "missing", "--yes").returncode == 2
