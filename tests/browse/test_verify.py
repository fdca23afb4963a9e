"""What is checked, on lanes that run, were killed, or are damaged: nothing intact is called damaged, and no damage
intact."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mbframework.errors import NotABuffer
from mbframework.verify import BufferCheck, check_buffer
from tests.browse.conftest import COUNT
from tests.browse.harm import HARMS, cut, overwrite, patch, remove, segments


def ranges(check: BufferCheck) -> list[tuple[int | None, int | None, int]]:
    return [(each.first, each.last, each.messages) for lane in check.lanes for each in lane.all_damages]


def test_an_intact_buffer(outbox: Path) -> None:
    seen: list[int] = []
    check = check_buffer(str(outbox), progress=seen.append)
    assert check.intact
    assert sum(segment.messages for segment in check.lanes[0].segments) == COUNT
    assert sum(seen) == pytest.approx(sum(path.stat().st_size for path in segments(outbox)), rel=0.1)


@pytest.mark.parametrize("name", HARMS)
def test_no_damage_is_overlooked(outbox: Path, name: str) -> None:
    HARMS[name](outbox)
    assert not check_buffer(str(outbox)).intact


def test_any_single_byte_counts(outbox: Path) -> None:
    chance = random.Random(3)
    for _ in range(60):
        path = chance.choice(segments(outbox))
        at = chance.randrange(path.stat().st_size)
        old = path.read_bytes()[at]
        overwrite(path, at, bytes([old ^ (1 << chance.randrange(8))]))
        assert not check_buffer(str(outbox)).intact, (path.name, at)
        overwrite(path, at, bytes([old]))
    assert check_buffer(str(outbox)).intact


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (patch(0, 4096 + 152 * 10 + 60, b"\xff"), [(11, 11, 1)]),
        (cut(2, 4096 + 152), [(808, 1209, 402)]),
        (remove(3), [(1210, 1612, 403)]),
        (remove(0, 1), [(1, 806, 806)]),
        (remove(-1), [(3628, None, 373)]),
        (patch(2, 0, bytes(100)), [(None, None, 0), (807, 1209, 403)]),
    ],
)
def test_what_cannot_be_read_is_told_exactly(outbox: Path, harm: object, expected: list[object]) -> None:
    assert callable(harm)
    harm(outbox)
    assert ranges(check_buffer(str(outbox))) == expected


def test_a_lost_buffer_file_is_damage_and_other_directories_are_refused(outbox: Path, tmp_path: Path) -> None:
    (outbox / "buffer.json").unlink()
    check = check_buffer(str(outbox))
    assert not check.intact
    assert "buffer.json" in check.damages[0].text
    with pytest.raises(NotABuffer):
        check_buffer(str(tmp_path))


ENGINE = """
import sys, threading
from mbframework import MessageBuffer
url = sys.argv[2] or None
buffer = MessageBuffer(sys.argv[1], url, mode="always", segment_size="256KiB",
                       total_size="2MiB", max_segments=8)
number = 0
while True:
    buffer.write_many("t", [b"%07d" % each + b"x" * (each % 700) for each in range(number, number + 20)])
    number += 20
    if number % 4000 == 0:
        print(number, flush=True)
"""


@pytest.mark.parametrize("url", ["", "sqlite:///{}"])
def test_a_running_lane_is_never_called_damaged(tmp_path: Path, url: str) -> None:
    """Segments are filled, sealed, delivered and pruned all the while; at the end the writer is killed."""
    command = [sys.executable, "-c", ENGINE, str(tmp_path / "b"), url.format(tmp_path / "out.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as engine:
        assert engine.stdout is not None
        for _ in range(25):
            engine.stdout.readline()
            check = check_buffer(str(tmp_path / "b"))
            assert check.intact, check
        engine.send_signal(signal.SIGKILL)
        engine.stdout.read()
    check = check_buffer(str(tmp_path / "b"))
    assert check.intact, check
