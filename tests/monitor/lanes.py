"""Directories of buffers as an engine would leave them, made without one: as large as they need to be, in no time."""

from __future__ import annotations

import json
import os
from pathlib import Path

from mbframework.files import Files
from mbframework.spool import frame, head, layout, seal, seek
from mbframework.spool.head import HeadSlot
from mbframework.spool.seek import SeekSlot
from mbframework.spool.segment_header import SegmentHeader
from mbframework.spool.slots import SlotFile

BUFFER = b"I" * 16
RUN = b"R" * 16
#: Messages in each segment.
EACH = 10
SIZE = 1 << 20


def make_lane(directory: Path, segments: int, delivered: int = 0, files: Files | None = None) -> Path:
    """A dead buffer whose one lane has so many sealed segments, sparse files of about 1 MiB; of the first messages
    ``delivered`` are. Returns the lane's directory."""
    files = files or Files()
    lane = directory / "main"
    lane.mkdir(parents=True)
    (directory / "buffer.json").write_text(json.dumps({"format": 1, "id": BUFFER.hex()}))
    (lane / "writer.lock").touch()
    (lane / "sender.lock").touch()
    wall, boot, boot_id = files.wall_ns(), files.boot_ns(), files.boot_id()
    for number in range(segments):
        first = 1 + number * EACH
        salt = 1 + number
        header = SegmentHeader(
            salt=salt, buffer_id=BUFFER, run=RUN, first=first, ordinal=first - 1, previous_end=first, wall_ns=wall,
            boot_ns=boot, boot_id=boot_id, reserved=SIZE, lane="main",
        )  # fmt: skip
        accepted = boot - (segments - number) * 10**9
        frames = frame.encode_many(salt, first, accepted, b"t", [b"%d" % (first + i) for i in range(EACH)])
        end = seal.pack(seal.Seal(first + EACH, 0, 0, 0, accepted, 0, SIZE), salt)
        fd = os.open(lane / layout.sealed_name(first), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.pwrite(fd, header.pack(), 0)
            os.pwrite(fd, frames, layout.FIRST_FRAME)
            os.pwrite(fd, end, SIZE)
        finally:
            os.close(fd)
    last = segments * EACH + 1
    top = HeadSlot(
        generation=1, buffer_id=BUFFER, run=RUN, boot_id=boot_id, next=last, reserved_until=last, ordinal=last - 1,
        accepted=last - 1, wall_ns=wall, boot_ns=boot, flags=head.CLEAN,
    )  # fmt: skip
    SlotFile.create(files, str(lane / layout.HEAD_FILE), head.HEAD_FILE_SIZE, top.pack()).close()
    move_seek(lane, delivered, files)
    return lane


def move_seek(lane: Path, delivered: int, files: Files | None = None, *, ahead: tuple[int, ...] = ()) -> None:
    """Say that the first ``delivered`` messages are, and those that stand so many behind them (0: the next)."""
    (lane / layout.SEEK_FILE).unlink(missing_ok=True)
    slot = SeekSlot(
        generation=1, run=RUN, next=1 + delivered, ordinal=delivered, buffer_id=BUFFER,
        delivered=delivered + len(ahead),
    )  # fmt: skip
    bits = sum(1 << each for each in ahead)
    slot.bitmap, slot.bits_used = bits.to_bytes(seek.BITMAP_SIZE, "little"), bits.bit_length()
    SlotFile.create(files or Files(), str(lane / layout.SEEK_FILE), seek.SEEK_FILE_SIZE, slot.pack()).close()
