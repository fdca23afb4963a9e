"""A file or a directory of a simulated disk: what is in memory, what is on the device, and the steps in between.

Promise: a sync that failed takes what it was to write for clean, as Linux does: a later one that succeeds says nothing
of it.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field

PAGE = 4096
ZEROS = bytes(PAGE)
#: One change of a page: which, from where in it, what. Or of the size: -1, the size, nothing.
Change = tuple[int, int, bytes]
#: One change of names, done in one step: what each leads to from now on, None for nothing.
Naming = dict[str, int | None]


@dataclass
class Inode:
    """A file or a directory: what is in memory, what is on the device, and the steps from there to here."""

    number: int
    mode: int
    size: int = 0
    pages: dict[int, bytes] = field(default_factory=dict)
    kept_size: int = 0
    kept_pages: dict[int, bytes] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    #: So many of the changes were to be written by a sync that failed.
    given_up: int = 0
    links: int = 0
    #: What the extension stores into, while it may.
    memory: bytearray | None = None
    names: dict[str, int] = field(default_factory=dict)
    kept_names: dict[str, int] = field(default_factory=dict)
    namings: list[Naming] = field(default_factory=list)
    #: The open file description that holds the lock, 0 for none.
    locked_by: int = 0

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    def copy(self) -> Inode:
        return Inode(
            self.number, self.mode, self.size, dict(self.pages), self.kept_size, dict(self.kept_pages),
            list(self.changes), self.given_up, self.links, None, dict(self.names), dict(self.kept_names),
            list(self.namings),
        )  # fmt: skip

    def read(self, offset: int, size: int) -> bytes:
        end = min(offset + size, self.size)
        if end <= offset:
            return b""
        pages = self.pages
        parts = [pages.get(page, ZEROS) for page in range(offset // PAGE, (end - 1) // PAGE + 1)]
        start = offset % PAGE
        return b"".join(parts)[start : start + end - offset]

    def write(self, offset: int, data: bytes) -> None:
        done, memory = 0, self.memory
        if memory is not None and offset < len(memory):
            end = min(len(memory), offset + len(data))
            memory[offset:end] = data[: end - offset]
        while done < len(data):
            page, start = divmod(offset + done, PAGE)
            chunk = bytes(data[done : done + PAGE - start])
            old = self.pages.get(page, ZEROS)
            self.pages[page] = chunk if len(chunk) == PAGE else old[:start] + chunk + old[start + len(chunk) :]
            self.changes.append((page, start, chunk))
            done += len(chunk)
        if offset + len(data) > self.size:
            self.resize(offset + len(data))

    def resize(self, size: int) -> None:
        if size < self.size:
            page, start = divmod(size, PAGE)
            last = (self.size - 1) // PAGE
            self.size = max(self.size, (last + 1) * PAGE)
            self.write(size, bytes((last + 1) * PAGE - size))
            for gone in range(page + bool(start), last + 1):
                self.pages.pop(gone, None)
        self.size = size
        self.changes.append((-1, size, b""))

    def sync(self) -> None:
        if not self.given_up:
            self.kept_pages = dict(self.pages)
            self.changes = []
        else:
            # Only what was stored again since is written, by whole pages.
            fresh = {page for page, _, _ in self.changes[self.given_up :]}
            for page in fresh - {-1}:
                self.kept_pages[page] = self.pages.get(page, ZEROS)
            self.changes = [each for each in self.changes[: self.given_up] if each[0] not in {-1, *fresh}]
            self.given_up = len(self.changes)
        self.kept_size = self.size

    def give_up(self) -> None:
        """A sync failed: what it was to write counts as clean from now on."""
        self.given_up = len(self.changes)


def apply(names: dict[str, int], naming: Naming) -> None:
    """Take the step, in these names."""
    for name, target in naming.items():
        if target is None:
            names.pop(name, None)
        else:
            names[name] = target
