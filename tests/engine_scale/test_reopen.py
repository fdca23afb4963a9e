"""Opening after a kill, when the housekeeper had fallen behind: many segments are full and none of them is sealed.

``mb bench open`` measures how long it takes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mbframework import MessageBuffer
from mbframework.bench.tally import TallyProvider
from mbframework.files import Files
from mbframework.spool.survey import survey
from mbframework.units import MiB

OPTIONS = {"segment_size": 4 * MiB, "total_size": 64 * MiB}
UNSEALED = 4

WRITER = """
import os, signal, sys
from mbframework import MessageBuffer
from mbframework.bench.tally import values

buffer = MessageBuffer(sys.argv[1], None, segment_size=int(sys.argv[2]), total_size=int(sys.argv[3]))
engine = buffer._engine
engine.housekeeper.stop(10)
written = 0
while len(engine.lane.spool.retired) < int(sys.argv[4]):
    buffer.write("reopen", values(written, 1, 1000)[0])
    written += 1
print(written, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


class CountingFiles(Files):
    """How many bytes were read."""

    def __init__(self) -> None:
        self.read = 0

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        data = super().pread(fd, size, offset)
        self.read += len(data)
        return data


@pytest.fixture
def killed(tmp_path: Path) -> tuple[Path, int]:
    """A buffer whose writer was killed, and how many messages it had written."""
    directory = tmp_path / "outbox"
    numbers = map(str, (OPTIONS["segment_size"], OPTIONS["total_size"], UNSEALED))
    done = subprocess.run(
        [sys.executable, "-c", WRITER, directory, *numbers], stdout=subprocess.PIPE, check=False, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    return directory, int(done.stdout)


def unsealed(directory: Path) -> list[str]:
    return [name for name in sorted(os.listdir(directory / "main")) if name.endswith(".seg") and name[0] == "A"]


def test_the_time_to_open_does_not_grow_with_what_is_unsealed(killed: tuple[Path, int]) -> None:
    directory, written = killed
    files = CountingFiles()
    known = survey(files, str(directory / "main"))
    assert known.spool_end == written + 1
    assert known.tail_ordinal == written
    assert sum(not found.entry.sealed for found in known.segments) == UNSEALED + 1
    # The last segment's end is looked for where the live page says that it is; the others' is told by the next one.
    assert files.read < 2 * MiB


@pytest.mark.parametrize("restarted", [False, True], ids=["same boot", "machine restarted"])
def test_everything_arrives_and_every_segment_is_sealed_later(
    killed: tuple[Path, int], restarted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, written = killed
    if restarted:
        monkeypatch.setattr(Files, "boot_id", lambda self: b"another boot, 16")
    with MessageBuffer(directory, None, **OPTIONS, close_timeout=0) as buffer:
        assert buffer.status().resident == written
    assert not unsealed(directory)
    provider = TallyProvider()
    with MessageBuffer(directory, provider, **OPTIONS, catch_up="full") as buffer:
        buffer.flush(60)
        status = buffer.status()
    assert (provider.tally.arrived, provider.tally.missing, provider.tally.repeated) == (written, 0, 0)
    assert (status.accepted, status.delivered, status.lost, status.resident) == (written, written, 0, 0)
