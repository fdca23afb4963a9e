"""What outlasts a loss of power, of all that was not synced.

Promise: what POSIX promises and no more. A file keeps what its last successful sync saw; of every later store, sector
by sector, any state that the sector ever had; in some mixtures the front of one such state and the back of another,
since not every device stores a sector at once. Names keep what the last sync of their directory saw; of the later
changes any that do not rest on one that was lost. A rename is done or not done.
"""

from __future__ import annotations

import random

from tests.model.inode import PAGE, ZEROS, Inode, apply

SECTOR = 512


class Survival:
    """What outlasts a loss of power, of all that was not synced. ``pattern``: "nothing", "everything", "names",
    "data", or a number, the seed of a mixture."""

    def __init__(self, pattern: str | int) -> None:
        self.pattern = pattern
        self._chance = random.Random(pattern) if isinstance(pattern, int) else None
        chance = self._chance
        self._share = chance.choice([0.1, 0.5, 0.9]) if chance is not None else 0.0
        self._torn = chance is not None and chance.random() < 0.5
        #: Also within sectors.
        self._shredded = self._torn and chance is not None and chance.random() < 0.5

    def file(self, inode: Inode) -> tuple[int, dict[int, bytes]]:
        """Size and pages of a file."""
        changes = inode.changes
        if not changes or self.pattern in ("nothing", "names"):
            return inode.kept_size, inode.kept_pages
        if self.pattern in ("everything", "data"):
            return inode.size, inode.pages
        chance = self._chance
        assert chance is not None
        sizes = [inode.kept_size, *(start for page, start, _ in changes if page == -1), inode.size]
        size = chance.choice(sizes)
        pages = dict(inode.kept_pages)
        for page in sorted({page for page, _, _ in changes if page >= 0}):
            versions = [inode.kept_pages.get(page, ZEROS)]
            for where, start, chunk in changes:
                if where == page:
                    old = versions[-1]
                    versions.append(old[:start] + chunk + old[start + len(chunk) :])
            pages[page] = self._page(versions, chance)
        return size, pages

    def _page(self, versions: list[bytes], chance: random.Random) -> bytes:
        def version() -> bytes:
            if chance.random() < 0.3:
                return chance.choice(versions)
            return versions[-1] if chance.random() < self._share else versions[0]

        if not self._torn:
            return version()
        page = bytearray()
        for at in range(0, PAGE, SECTOR):
            cut = at + (chance.randrange(SECTOR) if self._shredded else 0)
            if cut > at:
                page += version()[at:cut]
            page += version()[cut : at + SECTOR]
        return bytes(page)

    def names(self, inode: Inode) -> dict[str, int]:
        """What stands in a directory."""
        if not inode.namings or self.pattern in ("nothing", "data"):
            return dict(inode.kept_names)
        if self.pattern in ("everything", "names"):
            return dict(inode.names)
        chance = self._chance
        assert chance is not None
        result = dict(inode.kept_names)
        # A journal keeps the first few; others keep any, but none that rests on one that is lost.
        first = chance.randint(0, len(inode.namings)) if chance.random() < 0.5 else -1
        lost: set[str | int] = set()
        for number, naming in enumerate(inode.namings):
            touched: set[str | int] = {*naming, *(target for target in naming.values() if target is not None)}
            keeps = number < first if first >= 0 else chance.random() < self._share
            if not keeps or touched & lost:
                lost |= touched
                continue
            apply(result, naming)
        return result
