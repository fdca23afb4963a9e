"""Maps of a simulated disk, into which the engine stores, in Python or by the extension.

Promises
--------
- A store by Python is one on the disk, with a stop in front of each half.
- The extension stores into memory, as on a real disk. What it has stored is found by comparing, and done again on the
  disk piece by piece, in the order that ``native/tip.h`` promises: see :meth:`Lent.take_in`. Whatever else it stored
  anywhere is an AssertionError.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, Self

from mbframework.files import Map
from mbframework.spool import frame, layout
from mbframework.spool.headfile import NEXT, TAIL
from tests.model.inode import PAGE, ZEROS, Inode

if TYPE_CHECKING:
    from tests.model.disk import SimulatedDisk


class Words(array):  # type: ignore[type-arg]
    """The words of a map, and the memory into which the extension stores them."""

    disk: SimulatedDisk
    inode: int
    offset: int
    #: What is on the disk of them.
    stored: list[int]

    @classmethod
    def of(cls, disk: SimulatedDisk, inode: int, offset: int, count: int) -> Self:
        made = cls("Q", bytes(8 * count))
        made.disk, made.inode, made.offset, made.stored = disk, inode, offset, [0] * count
        return made

    def __setitem__(self, index: Any, value: Any) -> None:
        self.disk.store(self.inode, self.offset + 8 * index, value.to_bytes(8, "little"))
        self.stored[index] = value
        super().__setitem__(index, value)


class SimulatedMap(Map):
    """A map of a file of the disk."""

    __slots__ = ("_disk", "_inode", "_size")

    def __init__(self, disk: SimulatedDisk, inode: int, size: int) -> None:
        self._disk, self._inode, self._size = disk, inode, size
        self.store = self._store

    def _store(self, where: slice, data: bytes) -> None:
        if not self._size:
            raise ValueError("the map is closed")
        assert where.stop - where.start == len(data)
        self._disk.store(self._inode, where.start, data)

    def words(self, offset: int, count: int) -> memoryview:
        words: Any = Words.of(self._disk, self._inode, offset, count)
        self._disk.lent.words.append(words)
        return words  # type: ignore[no-any-return]

    def pages(self) -> Any:
        return self._disk.lent.lend(self._inode, self._size)

    def close(self) -> None:
        self._disk.lent.take_back(self._inode)
        self._size = 0


class Lent:
    """The segments that the extension may store into, and the words of all maps."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self._disk = disk
        self._lent: dict[int, bytearray] = {}
        self.words: list[Words] = []
        self._taking = False

    def lend(self, number: int, size: int) -> Any:
        """The memory of a segment, for the extension."""
        if not self._disk.lends:
            return None
        inode = self._disk.inodes[number]
        self._lent[number] = inode.memory = bytearray(inode.read(0, size))
        return inode.memory

    def take_back(self, number: int) -> None:
        """It is unmapped."""
        if number in self._lent:
            self.take_in()
            memory = self._lent.pop(number)
            assert self._disk.dead or _difference(self._disk.inodes[number], memory) < 0, (
                "the extension says nothing of what it stored"
            )
            self._disk.inodes[number].memory = None

    def take_in(self) -> None:
        """Do on the disk what the extension has done to memory since the last call: of each frame the body, then the
        header, then the live page's words TAIL and NEXT; a stop may come in front of each, and within the first two."""
        if self._taking or not self._lent or all(each.tolist() == each.stored for each in self.words):
            return
        self._taking = True
        try:
            for number, memory in list(self._lent.items()):
                while (at := _difference(self._disk.inodes[number], memory)) >= 0:
                    self._take_frame(number, memory, at & ~7)
            for words in self.words:
                assert words.tolist() == words.stored, f"words are {words.tolist()}, with the frames {words.stored}"
        finally:
            self._taking = False

    def _take_frame(self, number: int, memory: bytearray, at: int) -> None:
        raw = bytes(memory[at : at + frame.HEADER_SIZE])
        length, first, count = (int.from_bytes(raw[i:j], "little") for i, j in ((4, 8), (8, 16), (24, 28)))
        assert raw.startswith(layout.FRAME_MARKER), f"the extension has stored something at {at}, and no frame"
        body = at + frame.HEADER_SIZE
        for start, end in (*halves(body, layout.align8(at + length)), *halves(at, body)):
            self._disk.copy_in("store by C", number, start, bytes(memory[start:end]))
        words = next((each for each in self.words if each.tolist() != each.stored), None)
        assert words is not None, f"the extension has stored the frame at {at}, and says nothing of it"
        for index, value in ((TAIL, at), (NEXT, first + count)):
            self._disk.copy_in("store by C", words.inode, words.offset + 8 * index, value.to_bytes(8, "little"))
            words.stored[index] = value


def halves(start: int, end: int) -> list[tuple[int, int]]:
    """A copying may be stopped in the middle."""
    half = start + ((end - start) // 2 & ~7)
    return [(start, half), (half, end)] if start < half and end - start > 8 else [(start, end)]


def _difference(inode: Inode, memory: bytearray) -> int:
    """The first offset at which a file and memory differ; -1: nowhere."""
    for start in range(0, len(memory), PAGE):
        kept, here = inode.pages.get(start // PAGE, ZEROS), memory[start : start + PAGE]
        if here != kept[: len(here)]:
            return start + next(i for i, byte in enumerate(here) if byte != kept[i])
    return -1
