"""The head of a lane as its writer keeps it: the slots and the live page.

Promises
--------
- ``next`` on the live page is stored after each acceptance, so that after a kill it is known how many messages were
  accepted and not spooled. The offset beside it is that of the last frame stored: recovery begins there.
- A sequence is given out only below what the head, on the device, has reserved.
- Slots are packed in the order of their generations, under the lane's lock, and may be published in any: one that
  comes late is left out, since a newer one says all that it does.

Threads: the words of the live page are stored under the lane's lock; :meth:`HeadFile.publish` and
:meth:`HeadFile.sync` may be called by any thread, the latter by none that holds it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from array import array
from typing import Final

from mbframework.files import Files, Map
from mbframework.spool import head, layout
from mbframework.spool.head import HeadSlot, LivePage
from mbframework.spool.slots import SlotFile

#: Indices into ``words``.
NEXT: Final = 0
ACKNOWLEDGED: Final = 1
SEGMENT: Final = 2
TAIL: Final = 3
HEARTBEAT: Final = 4
SLEEPING: Final = 5
_COUNT: Final = 6


class _StoredWords:
    """The words where the file may not be mapped: each store is a write, so that they are as new as in a map.

    A device that refuses one does not refuse the message: the next publication finds out.
    """

    __slots__ = ("_fd", "_files", "_values")

    def __init__(self, files: Files, fd: int) -> None:
        self._files = files
        self._fd = fd
        self._values = [0] * _COUNT

    def __getitem__(self, index: int) -> int:
        return self._values[index]

    def __setitem__(self, index: int, value: int) -> None:
        self._values[index] = value
        with contextlib.suppress(OSError):
            self._files.pwrite(self._fd, value.to_bytes(8, "little"), head.LIVE_NEXT + 8 * index)


class HeadFile:
    """See the module. ``slot`` is what is published next; its fields are set under the lane's lock."""

    def __init__(self, files: Files, slots: SlotFile, slot: HeadSlot, map_: Map | None) -> None:
        self._files = files
        self._slots = slots
        self.slot = slot
        self._map = map_
        self._publishing = threading.Lock()
        self._published = 0
        #: The live page's words.
        self.words: memoryview | array[int] | _StoredWords = (
            map_.words(head.LIVE_NEXT, _COUNT) if map_ is not None else _StoredWords(files, slots.fd)
        )

    @classmethod
    def begin(
        cls, files: Files, directory: str, slot: HeadSlot, durable: int, *, exists: bool, mapped: bool
    ) -> HeadFile:
        """Put this opening's first slot on the device and start its live page.

        :raises OSError: the device failed.
        """
        path = os.path.join(directory, layout.HEAD_FILE)
        if exists:
            slots = SlotFile.resume(files, path, durable, head.HEAD_FILE_SIZE, slot.pack())
        else:
            slots = SlotFile.create(files, path, head.HEAD_FILE_SIZE, slot.pack())
        try:
            if exists:
                if files.fstat(slots.fd).st_size < head.HEAD_FILE_SIZE:
                    # Somebody has cut it. Reserved, not only made longer: it is stored to through a map.
                    files.reserve(slots.fd, head.HEAD_FILE_SIZE)
                slots.write(slot.pack())
                slots.sync()
            return cls._started(files, slots, slot, mapped=mapped)
        except BaseException:
            slots.close()
            raise

    @classmethod
    def _started(cls, files: Files, slots: SlotFile, slot: HeadSlot, *, mapped: bool) -> HeadFile:
        page = LivePage(slot.run, slot.boot_id, slot.next, 0, 0, 0, files.boot_ns(), 0)
        files.pwrite(slots.fd, head.pack_live(page), head.LIVE_PAGE)
        # The words are stored in the host's byte order, and the file is little-endian.
        direct = mapped and sys.byteorder == "little"
        map_ = files.map(slots.fd, head.HEAD_FILE_SIZE) if direct else None
        result = cls(files, slots, slot, map_)
        result.words[NEXT] = slot.next
        return result

    def publish(self, raw: bytes) -> None:
        """Store a packed slot. Raises OSError."""
        generation = int.from_bytes(raw[8:16], "little")
        with self._publishing:
            if generation < self._published:
                return
            self._published = generation
            self._slots.write(raw)

    def sync(self) -> None:
        """What was published before is on the device. Raises OSError."""
        self._slots.sync()

    def close(self) -> None:
        """Let go of the file and its map."""
        self._slots.close()
        self._unmap()

    def forget(self) -> None:
        """In a forked child: let go of the copies."""
        self._slots.forget()
        self._unmap()

    def _unmap(self) -> None:
        words = self.words
        self.words = array("Q", [words[index] for index in range(_COUNT)])
        if isinstance(words, memoryview):
            words.release()
        if self._map is not None:
            self._map.close()
            self._map = None
