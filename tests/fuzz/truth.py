"""What an input really holds, and the comparison of what was read with it.

Promises: known by :mod:`tests.fuzz.reference` alone, and, where nobody made a checksum right, by what was written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mbframework.browse import Entry
from mbframework.message import NO_PARTITION, NO_TIMESTAMP, unpack_headers
from tests.fuzz import reference
from tests.fuzz.reference import Said


class Truth:
    """The messages of all files, by sequence; of a hostile lane there may be several with one."""

    def __init__(self, files: Mapping[str, bytes], written: Mapping[int, Said] | None) -> None:
        self._written = written
        self._said: dict[int, list[tuple[Said, int]]] = {}
        for data in set(files.values()):
            for found in reference.frames_of(data).values():
                for i, said in enumerate(found.messages if found is not None else ()):
                    accepted = reference.wall_of(data, said.accepted)
                    self._said.setdefault(found.first + i, []).append((said, accepted))  # type: ignore[union-attr]

    def check(self, sequence: int, said: tuple[Any, ...], accepted: int) -> None:
        """A message that was read: the first six of :class:`Said`, and the wall clock of its acceptance."""
        here = [each[:6] for each, wall in self._said.get(sequence, ()) if wall == accepted]
        assert said in here, f"{sequence} was read as {said}; {here} stands there"
        if self._written is not None:
            assert said == self._written[sequence][:6], f"{sequence} was written as {self._written[sequence]}"

    def check_shown(self, entry: Entry) -> None:
        """A message of a page; headers that cannot be read may be shown in any way."""
        timestamp = NO_TIMESTAMP if entry.timestamp is None else entry.timestamp
        partition = NO_PARTITION if entry.partition is None else entry.partition
        shown = entry.topic, entry.key, entry.value, timestamp, partition
        for said, wall in self._said.get(entry.sequence, ()):
            if (*said[:3], *said[4:6], wall) != (*shown, entry.accepted):
                continue
            try:
                headers = list(unpack_headers(said.header_block))
            except ValueError:
                return
            if entry.headers == headers:
                return
        raise AssertionError(f"{entry} stands nowhere")

    def check_letter(self, number: int, said: tuple[Any, ...]) -> None:
        """Topic, key and value of a dead letter."""
        assert said in [each[:3] for each, _ in self._said.get(number, ())], f"letter {number} stands nowhere"
