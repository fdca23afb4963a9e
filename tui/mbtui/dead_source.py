"""What the screen of dead letters reads, and what it has done with them.

Promises
--------
- Everything is read, and every answer waited for, on a thread of its own; the coroutines only wait.
- A look costs the headers of the store's segments; letters are read by pages, and of each no more than
  :data:`mbtui.preview.LIMIT` bytes of its value are kept.
- Letters are replayed and dropped by :class:`~mbframework.deaddesk.DeadDesk`: by the process that holds the lane, or,
  where none does, here and under the lane's locks.

Create and close it on the event loop. Raises OSError, and errors of mbframework where a newer release wrote the store
or nobody answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Final, NamedTuple

from mbframework.config import Config
from mbframework.deaddesk import DeadDesk, Outcome
from mbframework.deadstore import Letter
from mbframework.files import Files
from mbframework.spans import Span, common, count, joined, without
from mbtui.pattern import Pattern
from mbtui.preview import LIMIT
from mbtui.reading_thread import ReadingThread
from mbtui.segment_source import finds

#: Seconds of a search between two looks at whether it goes on, and letters read at a time.
_SLICE_S: Final = 0.2
_STRIDE: Final = 50
#: Seconds that an answer may take: replaying waits for a disk.
_TIMEOUT: Final = 30.0
_HEADERS = 64
_SHORT = 4096

Progress = Callable[[float], None]


class DeadRow(NamedTuple):
    """A letter with the beginning of its value, and the bytes of the whole value and of the whole letter."""

    letter: Letter
    value_size: int
    size: int


class DeadSource:
    """The dead letters of lane ``lane`` in the buffer's directory ``directory``."""

    def __init__(self, directory: str, lane: str, files: Files | None = None) -> None:
        self._desk = DeadDesk(files or Files(), Config.layered(directory=directory), lane, _TIMEOUT)
        self._store = self._desk.store
        self._reading = ReadingThread()
        self._asking = ReadingThread()

    def close(self) -> None:
        """Let go of the threads."""
        self._reading.close()
        self._asking.close()

    async def ids(self) -> list[Span]:
        """The ids of the letters that are there now."""
        return await self._reading.run(self._store.ids)

    async def rows(self, ids: Sequence[Span], start: int, stop: int) -> dict[int, DeadRow]:
        """Row → letter; row i is the i-th of ``ids``. One that cannot be read is left out."""
        return await self._reading.run(partial(self._read_rows, ids, start, stop))

    async def find(
        self, pattern: Pattern, ids: Sequence[Span], start: int, stop: int, progress: Progress
    ) -> int | None:
        """The first row from ``start`` on below ``stop`` whose topic, key, value or reason is found; where ``stop`` is
        smaller, the last one in front of ``start`` and from ``stop`` on."""
        at = start
        while at != stop:
            hit, at = await self._reading.run(partial(self._scan, pattern, ids, at, stop))
            if hit is not None:
                return hit
            progress(abs(at - start) / abs(stop - start))
        return None

    async def drop(self, ids: Sequence[Span], progress: Progress) -> Outcome:
        """Throw these away."""
        return await self._asking.run(partial(self._desk.drop, numbers_of(ids), self._told(ids, progress)))

    async def replay(self, ids: Sequence[Span], progress: Progress) -> Outcome:
        """Write these again as new messages, and drop them."""
        return await self._asking.run(partial(self._desk.replay, numbers_of(ids), self._told(ids, progress)))

    def _told(self, ids: Sequence[Span], progress: Progress) -> Callable[[int], None]:
        """What the desk calls, on its thread, with the number of letters that are done."""
        loop, whole, done = asyncio.get_running_loop(), count(ids), 0

        def tell(number: int) -> None:
            nonlocal done
            done += number
            loop.call_soon_threadsafe(progress, min(1.0, done / whole))

        return tell

    def _read_rows(self, ids: Sequence[Span], start: int, stop: int) -> dict[int, DeadRow]:
        wanted = slice_of(ids, start, stop)
        numbers = {each: start + i for i, each in enumerate(numbers_of(wanted))}
        return {numbers[row.letter.id]: row for row in self._letters(wanted) if row.letter.id in numbers}

    def _letters(self, spans: Sequence[Span]) -> list[DeadRow]:
        found: list[DeadRow] = []
        for first, end in spans:
            with closing(self._store.letters(range(first, end))) as letters:  # type: ignore[type-var]  # a generator
                found += map(_trimmed, letters)
        return found

    def _scan(self, pattern: Pattern, ids: Sequence[Span], at: int, stop: int) -> tuple[int | None, int]:
        """A hit, or None and where to go on."""
        until = time.monotonic() + _SLICE_S
        back = stop < at
        while at != stop:
            to = max(at - _STRIDE, stop) if back else min(at + _STRIDE, stop)
            rows = self._read_rows(ids, min(at, to), max(at, to))
            for number in sorted(rows, reverse=back):
                letter = rows[number].letter
                if finds(pattern, f"{letter.topic}\n{letter.reason}", letter.key, letter.value):
                    return number, number
                if time.monotonic() >= until:
                    return None, number if back else number + 1
            at = to
            if time.monotonic() >= until:
                break
        return None, at


def numbers_of(spans: Sequence[Span]) -> list[int]:
    """All of them, in order."""
    return [number for first, end in spans for number in range(first, end)]


def slice_of(spans: Sequence[Span], start: int, stop: int) -> list[Span]:
    """The ones from the ``start``-th on and in front of the ``stop``-th."""
    result: list[Span] = []
    passed = 0
    for first, end in spans:
        low, high = max(0, start - passed), min(end - first, stop - passed)
        if low < high:
            result.append((first + low, first + high))
        passed += end - first
    return result


def place_of(spans: Sequence[Span], number: int) -> int:
    """How many of them are smaller than ``number``."""
    return count(common(spans, [(0, number)]))


def turned(spans: Sequence[Span], number: int) -> list[Span]:
    """With ``number`` where it was not among them, without it where it was."""
    one = [(number, number + 1)]
    return without(spans, one) if common(spans, one) else joined([*spans, *one])


def _trimmed(letter: Letter) -> DeadRow:
    """Without what no screen could show."""
    value_size, size = len(letter.value or b""), letter.size
    small = replace(
        letter,
        value=letter.value and letter.value[:LIMIT],
        key=letter.key and letter.key[:_SHORT],
        headers=tuple((name[:_SHORT], value and value[:_SHORT]) for name, value in letter.headers[:_HEADERS]),
    )
    return DeadRow(small, value_size, size)
