"""What a device still gives of a lane's files, for who looks once and does not come back.

Promises
--------
- A page that the device refuses reads as zeros, where nothing validates: damage, and no larger than that page. The rest
  of the file is there.
- A ``patient`` look, which is to be acted upon, asks for what is refused again, for ``PATIENCE_S`` altogether, and
  believes no refusal of a device that fails as a whole: that must carry out a sync of the directory first.
- What was refused is known afterwards, so that it is not taken for what was never written.

Reads only. One thread at a time.
"""

from __future__ import annotations

import errno
from typing import Final, Protocol

from mbframework.files import Files

PAGE: Final = 4096
#: Seconds that all pages together are waited for, and between two looks at one.
PATIENCE_S: Final = 1.0
_PAUSE_S: Final = 0.25
#: What a device, or a file system that checks what it reads, says of bytes that it cannot give.
_REFUSED: Final = frozenset(
    number for name in ("EIO", "EBADMSG", "ENODATA", "EUCLEAN") if (number := getattr(errno, name, None)) is not None
)


class Reads(Protocol):
    """What gives the bytes of open files: a device, or what remains of one."""

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        """Up to ``size`` bytes; fewer only at the end of the file."""


def is_refusal(error: OSError) -> bool:
    """Whether the device says that it cannot give these bytes, and not that it, or the call, failed otherwise."""
    return error.errno in _REFUSED


class Remains:
    """See the module. ``directory`` is that of the files."""

    def __init__(self, files: Files, directory: str, *, patient: bool = False) -> None:
        self._files = files
        self._directory = directory
        #: How often something is still asked for again.
        self._looks = int(PATIENCE_S / _PAUSE_S) if patient else 0
        self._asked = not patient
        #: By inode, since a file may be renamed meanwhile: the pages that were refused.
        self._refused: dict[int, set[int]] = {}

    def pread(self, fd: int, size: int, offset: int, least: int | None = None) -> bytes:
        """Up to ``size`` bytes, fewer at the end of the file; zeros for what is refused, which is never too much:
        ``least`` is for those who would rather have less (:class:`~mbframework.spool.sectors.Sectors`).

        :raises OSError: the device failed, and not only at some page.
        """
        del least
        try:
            return self._files.pread(fd, size, offset)
        except OSError as error:
            if not is_refusal(error):
                raise
        info = self._files.fstat(fd)
        parts: list[bytes] = []
        at, end = offset, min(offset + size, info.st_size)
        while at < end:
            stop = min(end, (at // PAGE + 1) * PAGE)
            piece = self._page(fd, stop - at, at)
            if piece is None:
                self._refused.setdefault(info.st_ino, set()).add(at // PAGE)
                piece = bytes(stop - at)
            parts.append(piece)
            if len(piece) < stop - at:
                # Cut meanwhile.
                break
            at = stop
        return b"".join(parts)

    def refused(self, fd: int, start: int = 0) -> int | None:
        """The offset behind the last page of an open file, at ``start`` or behind it, that was refused; None where
        there is none."""
        pages = self._refused.get(self._files.fstat(fd).st_ino) if self._refused else None
        last = max(pages) if pages else -1
        return (last + 1) * PAGE if (last + 1) * PAGE > start else None

    def given_up(self, fd: int, start: int, end: int | None) -> bool:
        """Whether some of the file from offset ``start`` to ``end`` (None: to its end) was refused."""
        pages = self._refused.get(self._files.fstat(fd).st_ino, ()) if self._refused else ()
        return any(start < (page + 1) * PAGE and (end is None or page * PAGE < end) for page in pages)

    def _page(self, fd: int, size: int, offset: int) -> bytes | None:
        """(A part of) one page; None where it is refused."""
        while True:
            try:
                return self._files.pread(fd, size, offset)
            except OSError as error:
                if not is_refusal(error):
                    raise
                if not self._looks:
                    break
            self._looks -= 1
            self._files.pause(_PAUSE_S)
        if not self._asked:
            self._files.sync_directory(self._directory)
            self._asked = True
        return None
