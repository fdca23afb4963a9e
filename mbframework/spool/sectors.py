"""Reading from a device that refuses some of what it holds.

Promises
--------
- A refusal is an error at first: whoever reads again asks the device again. What it gives then is as good as ever.
- A page that was refused at least ``TRIES`` times, over ``PERSISTS_NS`` or more, is given up: from then on it reads as
  zeros, where no frame validates, so that it is damage like any other, and no larger than that page.
- Nothing is given up on a device that fails as a whole: it must carry out a sync of the directory first.

Reads only. One thread at a time.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from mbframework.files import Files
from mbframework.spool.remains import PAGE, is_refusal

TRIES: Final = 3
PERSISTS_NS: Final = 3 * 10**9


@dataclass(slots=True)
class _Refusal:
    since: int
    tries: int = 0
    given_up: bool = False


class Sectors:
    """See the module. ``directory`` is that of the files."""

    def __init__(self, files: Files, directory: str) -> None:
        self._files = files
        self._directory = directory
        #: By inode, since a file is renamed meanwhile, and page.
        self._refusals: dict[tuple[int, int], _Refusal] = {}
        #: Boot time at which the device last carried out a sync.
        self._answered_at = -PERSISTS_NS

    def pread(self, fd: int, size: int, offset: int, least: int | None = None) -> bytes:
        """Up to ``size`` bytes, fewer at the end of the file; zeros for what was given up. Where the device refuses
        something behind the first ``least`` bytes, what stands in front of that.

        :raises OSError: the device refuses some of the first ``least`` bytes (None: of all), or failed otherwise.
        """
        try:
            data = self._files.pread(fd, size, offset)
        except OSError as error:
            if not is_refusal(error):
                raise
            return self._by_pages(fd, size, offset, size if least is None else least)
        if self._refusals:
            inode = self._files.fstat(fd).st_ino
            for page in range(offset // PAGE, (offset + size) // PAGE + 1):
                self._refusals.pop((inode, page), None)
        return data

    def given_up(self, fd: int, start: int, end: int | None) -> bool:
        """Whether some of the file from offset ``start`` to ``end`` (None: to its end) was given up."""
        if not self._refusals:
            return False
        inode, first = self._files.fstat(fd).st_ino, start // PAGE
        last = None if end is None else (end - 1) // PAGE
        return any(
            refusal.given_up and of == inode and first <= page and (last is None or page <= last)
            for (of, page), refusal in self._refusals.items()
        )

    def _by_pages(self, fd: int, size: int, offset: int, least: int) -> bytes:
        info = self._files.fstat(fd)
        parts: list[bytes] = []
        refused: OSError | None = None
        at, end = offset, min(offset + size, info.st_size)
        while at < end:
            stop = min(end, (at // PAGE + 1) * PAGE)
            piece = self._page(fd, (info.st_ino, at // PAGE), stop - at, at)
            if isinstance(piece, OSError):
                # Those behind it are asked for all the same, so that the waiting for all of them is one.
                refused = refused or piece
            else:
                if refused is None:
                    parts.append(piece)
                if len(piece) < stop - at:
                    # Cut meanwhile.
                    break
            at = stop
        data = b"".join(parts)
        if refused is not None and len(data) < least:
            raise refused
        return data

    def _page(self, fd: int, key: tuple[int, int], size: int, offset: int) -> bytes | OSError:
        """The bytes of (a part of) a page, or why there are none now."""
        refusal = self._refusals.get(key)
        if refusal is None or not refusal.given_up:
            try:
                data = self._files.pread(fd, size, offset)
            except OSError as error:
                if not is_refusal(error):
                    raise
                if not self._persists(key):
                    return OSError(error.errno, f"{os.strerror(error.errno or 0)} at offset {offset}", self._directory)
            else:
                self._refusals.pop(key, None)
                return data
        return bytes(size)

    def _persists(self, key: tuple[int, int]) -> bool:
        """Whether this refusal, noted now, is one too many."""
        now = self._files.boot_ns()
        refusal = self._refusals.setdefault(key, _Refusal(now))
        refusal.tries += 1
        if refusal.tries >= TRIES and now - refusal.since >= PERSISTS_NS:
            if now - self._answered_at >= PERSISTS_NS:
                self._files.sync_directory(self._directory)
                self._answered_at = now
            refusal.given_up = True
        return refusal.given_up
