"""Places at which a kill -9 hits too seldom for a run to meet them: the directory is made to look as if it had."""

from __future__ import annotations

import shutil
from pathlib import Path
from struct import Struct

from mbframework import MessageBuffer, status
from mbframework.spool import head, layout

_U64 = Struct("<Q")
#: Of the word in the live page that says which sequence comes next.
_NEXT = head.LIVE_PAGE + 40


def test_killed_between_a_frame_and_the_word_that_tells_of_it(tmp_path: Path) -> None:
    """The frame was stored, so the message counts as accepted, for the monitor as for the next opening."""
    killed = tmp_path / "killed"
    with MessageBuffer(tmp_path / "outbox", status_interval=60) as buffer:
        buffer.write("topic", b"1")
        # From here on the active segment has a name of its own.
        buffer.sync()
        last = [buffer.write("topic", value) for value in (b"2", b"3")][-1]
        shutil.copytree(tmp_path / "outbox", killed, ignore=shutil.ignore_patterns("*.prep"))
    with (killed / "main" / layout.HEAD_FILE).open("r+b") as file:
        file.seek(_NEXT)
        assert file.read(_U64.size) == _U64.pack(last + 1)
        file.seek(_NEXT)
        file.write(_U64.pack(last))
    lane = status.read(killed).lanes[0]
    assert (lane.accepted, lane.resident, lane.balanced) == (3, 3, True)
    with MessageBuffer(killed, identity="adopt") as buffer:
        again = buffer.status()
    assert (again.accepted, again.resident, again.balanced) == (3, 3, True)
