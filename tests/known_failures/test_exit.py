"""The last messages lost at exit: failure 20."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mbframework_file.line import decode

from mbframework import MessageBuffer, read_status
from tests.known_failures.conftest import WAIT_S

COUNT = 500

PROGRAM = """
import os, signal, sys, threading
from mbframework import MessageBuffer, install_sigterm

def main():
    buffer = MessageBuffer(sys.argv[1], sys.argv[2], mode=sys.argv[3], close_timeout=float(sys.argv[4]))
    for number in range({count}):
        buffer.write("t", str(number))
    return buffer

{ending}
"""

#: How a program ends, and its exit status.
ENDINGS: dict[str, tuple[str, int]] = {
    "returns from main": ("buffer = main()", 0),
    "drops the buffer": ("main()", 0),
    "sys.exit": ("buffer = main(); sys.exit(3)", 3),
    "an unhandled exception": ("buffer = main(); raise RuntimeError('a bug')", 1),
    "an unhandled exception inside with": ("with main() as buffer: raise RuntimeError('a bug')", 1),
    "an interrupt": ("buffer = main(); raise KeyboardInterrupt", -signal.SIGINT),
    "a handled SIGTERM": ("buffer = main(); install_sigterm(); os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
    "a thread that writes": ("thread = threading.Thread(target=main); thread.start()", 0),
    "a child of multiprocessing": (
        """
import multiprocessing
child = multiprocessing.get_context("fork").Process(target=main)
child.start()
child.join()
""",
        0,
    ),
}


#: In mode ``buffer`` the last messages are in memory, in mode ``always`` in a file already.
CASES = [(ending, provider, "buffer") for ending in ENDINGS for provider in ("up", "down")]
CASES += [("returns from main", provider, "always") for provider in ("up", "down")]
CASES += [("returns from main", "hanging", mode) for mode in ("buffer", "always")]


@pytest.mark.parametrize("ending, provider, mode", CASES)
def test_20_the_last_messages_are_not_lost_at_exit(ending: str, provider: str, mode: str, tmp_path: Path) -> None:
    if ending == "a thread that writes" and (3, 12) <= sys.version_info < (3, 12, 2):
        # https://github.com/python/cpython/issues/113964
        pytest.skip("this Python starts no thread once the main thread has ended; use 3.12.2 or newer")
    out = tmp_path / "out.jsonl"
    inner = f"file:{out}"
    behind = f"fault://?inner=FILE:{out}"
    url = {"up": inner, "down": f"{behind}&outage=0s%2B3600s", "hanging": f"{behind}&stuck_rate=1&stuck=3600s"}[
        provider
    ]
    code, status = ENDINGS[ending]
    close_timeout = str(WAIT_S) if provider == "up" else "0.1"
    program = PROGRAM.format(count=COUNT, ending=code)
    child = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "buffer"), url, mode, close_timeout],
        check=False,
        timeout=60,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONWARNINGS": "ignore::DeprecationWarning"},
    )
    assert child.returncode == status, child.stderr
    left = read_status(tmp_path / "buffer").lanes[0]
    assert (left.accepted, left.lost, left.balanced) == (COUNT, 0, True)
    if provider == "up":
        assert left.delivered == COUNT
    else:
        assert left.resident == COUNT
        with MessageBuffer(tmp_path / "buffer", inner) as buffer:
            buffer.flush(WAIT_S)
    with open(out, "rb") as lines:
        assert [decode(line).value for line in lines] == [str(number).encode() for number in range(COUNT)]
