"""Directories that are damaged, copied or of a newer format: what is told of them, and that nothing is hidden."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from mbframework import MessageBuffer
from mbframework.spool import layout
from tests.cli.conftest import Run
from tests.cli.tables import values

COUNT = 2000


def cut(segment: Path) -> None:
    with segment.open("r+b") as file:
        file.truncate(20_000)


def behead(segment: Path) -> None:
    with segment.open("r+b") as file:
        file.write(b"\xa5" * 256)


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    with MessageBuffer(tmp_path / "outbox", segment_size="64KiB", total_size="1MiB") as buffer:
        for number in range(COUNT):
            buffer.write("t", b"%05d" % number + b"x" * 95)
    return tmp_path / "outbox"


@pytest.mark.parametrize("harm", [cut, behead, Path.unlink])
@pytest.mark.parametrize("which", [0, 1, -1])
def test_what_damage_took_is_counted_wherever_it_stood(
    mb: Run, outbox: Path, tmp_path: Path, harm: Callable[[Path], None], which: int
) -> None:
    harm(sorted((outbox / "main").glob("P*.seg"))[which])
    done = mb("drain", "outbox", "--provider", "sqlite:out.db", "--until-empty")
    arrived = [int(value[:5]) for value in values(tmp_path / "out.db")]
    assert done.returncode == 0
    assert arrived == sorted(set(arrived))
    lost = COUNT - len(arrived)
    assert 0 < lost < COUNT
    assert f"{lost:,} lost; nothing waits" in done.stderr.decode()
    (lane,) = json.loads(mb("status", "outbox", "--json").stdout)["lanes"]
    assert (lane["delivered"], lane["lost"], lane["resident_messages"]) == (len(arrived), lost, 0)
    assert lane["balanced"]


def newer(path: Path) -> None:
    raw = bytearray((path / "head").read_bytes())
    for offset in range(0, layout.SLOT_COUNT * layout.SLOT_STRIDE, layout.SLOT_STRIDE):
        if any(raw[offset : offset + 512]):
            raw[offset + 4] = layout.FORMAT_MAJOR + 1
            raw[offset + 508 : offset + 512] = struct.pack("<I", zlib.crc32(raw[offset : offset + 508]))
    (path / "head").write_bytes(raw)


def no_file(path: Path) -> None:
    (path / "seek").unlink()
    (path / "seek").mkdir()


@pytest.mark.parametrize(("change", "word"), [(newer, "format"), (no_file, "not a regular file")])
def test_a_lane_that_cannot_be_read_is_not_an_empty_one(
    mb: Run, outbox: Path, change: Callable[[Path], None], word: str
) -> None:
    change(outbox / "main")
    segments = {path.name: path.read_bytes() for path in (outbox / "main").glob("*.seg")}
    done = mb("drain", "outbox", "--provider", "sqlite:out.db", "--until-empty")
    assert done.returncode == 2
    assert b"lane main cannot be sent" in done.stderr
    assert word.encode() in done.stderr
    assert b"nothing waits" not in done.stderr
    told = mb("status", "outbox").stdout.decode()
    assert "nothing was written" not in told
    assert word in told
    assert segments == {path.name: path.read_bytes() for path in (outbox / "main").glob("*.seg")}


def test_a_copy_is_not_sent_and_the_next_step_is_told(mb: Run, outbox: Path, tmp_path: Path) -> None:
    shutil.copytree(outbox, tmp_path / "copy")
    done = mb("drain", "copy", "--provider", "sqlite:out.db", "--until-empty")
    assert done.returncode == 2
    assert b"identity='adopt'" in done.stderr


def test_a_lost_head_is_told_and_what_is_left_adds_up(mb: Run, outbox: Path) -> None:
    (outbox / "main" / "head").write_bytes(bytes(16384))
    found = json.loads(mb("status", "outbox", "--json").stdout)
    assert "head" in found["problems"][0]
    assert found["lanes"][0]["balanced"]
    assert found["lanes"][0]["resident_messages"] == COUNT
