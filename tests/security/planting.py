"""What somebody who may write into a buffer's directory puts there, and a lane to put it into."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from mbframework_fake.broker import FakeBroker
from mbframework_fake.provider import FakeProvider

from mbframework import FlushTimeout, MessageBuffer, MessageBufferError
from mbframework.spool import layout
from tests.engine.rig import FAST

PRECIOUS = b"precious"


def leave(path: Path, broker: FakeBroker, count: int = 5) -> None:
    """A buffer that was closed with a few messages waiting; the next has the sequence ``count + 1``."""
    broker.down()
    with MessageBuffer(path, FakeProvider(broker), **FAST, mode="always") as buffer:
        for number in range(count):
            buffer.write("t", str(number))
    broker.up()


def use(path: Path, broker: FakeBroker, first: int = 5, count: int = 5, flush: float = 1.5) -> str:
    """Open it, write, deliver, close, as a program does; why it did not come to that, "" where it did."""
    try:
        with MessageBuffer(path, FakeProvider(broker), **FAST, mode="always") as buffer:
            for number in range(first, first + count):
                buffer.write("t", str(number))
            with suppress(FlushTimeout):
                buffer.flush(flush)
            return buffer.status().last_error or ""
    except (MessageBufferError, OSError) as error:
        return str(error)


class Victim:
    """A file and a directory outside of the buffer, which nothing may change."""

    def __init__(self, place: Path) -> None:
        self.file, self.folder = place / "victim", place / "folder"
        self.file.write_bytes(PRECIOUS)
        self.file.chmod(0o640)
        self.folder.mkdir(mode=0o750)

    def link(self, at: Path, *, hard: bool) -> None:
        """Put a link to it in place of what stands at ``at``; a directory's place gets one to the folder."""
        is_folder = at.is_dir() or at.name in (layout.DEAD_DIRECTORY, layout.CONTROL_DIRECTORY)
        if os.path.lexists(at):
            shutil.rmtree(at) if at.is_dir() and not at.is_symlink() else at.unlink()
        at.parent.mkdir(exist_ok=True)
        if hard:
            os.link(self.file, at)
        else:
            at.symlink_to(self.folder if is_folder else self.file)

    def is_well(self) -> bool:
        info = self.file.stat()
        whole = (self.file.read_bytes(), info.st_mode & 0o777) == (PRECIOUS, 0o640)
        return whole and not os.listdir(self.folder) and self.folder.stat().st_mode & 0o777 == 0o750
