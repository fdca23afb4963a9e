"""A segment made of frames of another one, which was damaged.

Promises: what :meth:`Piece.finish` has returned for is whole, sealed with the CRCs of all its bytes, and on the device.
One thread; all raise OSError.
"""

from __future__ import annotations

from mbframework.files import Files
from mbframework.scan import Framed
from mbframework.speedups import crc32
from mbframework.spool import frame, layout, seal
from mbframework.spool.segment_header import SegmentHeader

_MIB = 1 << 20


class Piece:
    """A sealed segment in the making. The frames are taken byte for byte: the salt stays, by which they, and what was
    dropped of dead letters, are known. Its file is new and full, so that nothing stale can stand in it."""

    def __init__(self, files: Files, path: str, header: SegmentHeader) -> None:
        self._files = files
        self.path = path
        self._header = header
        self._frames = self._messages = 0
        self._lowest = self._highest = 0
        self._end = header.first
        self._offset = layout.FIRST_FRAME
        self._fd = files.open(path, create=True, exclusive=True)

    def add(self, step: Framed, raw: bytes) -> None:
        """Append a frame, given with its bytes."""
        old = step.header
        self._files.pwrite(self._fd, raw + bytes(-len(raw) & 7), self._offset)
        self._offset = frame.next_offset(self._offset, len(raw))
        self._lowest = old.accepted if not self._frames else min(self._lowest, old.accepted)
        self._highest = max(self._highest, old.accepted)
        self._frames += 1
        self._messages += old.count
        self._end = old.first + old.count

    def finish(self) -> int:
        """Header, seal, sync; one past the last sequence."""
        files, header, offset = self._files, self._header, self._offset
        files.pwrite(self._fd, header.pack(), 0)
        crcs = [
            crc32(files.pread(self._fd, min(_MIB, offset - start), start), header.salt)
            for start in range(0, offset, _MIB)
        ]
        stored = seal.Seal(
            end=self._end, messages=self._messages, frames=self._frames, lowest=self._lowest, highest=self._highest,
            frame_bytes=offset - layout.FIRST_FRAME, offset=offset, crcs=crcs,
        )  # fmt: skip
        files.pwrite(self._fd, seal.pack(stored, header.salt), offset)
        files.datasync(self._fd)
        self.close()
        return self._end

    def close(self) -> None:
        """Give the descriptor back."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._files.close(fd)
