"""What is fuzzed: an input, and a target that makes inputs and judges what becomes of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import Any, ClassVar

from tests.fuzz.memory import MemoryFiles
from tests.fuzz.reference import Said
from tests.fuzz.truth import Truth


@dataclass
class Input:
    """Files, by path, and the numbers and texts that go with them. ``messages``: what was written, by sequence, where
    nobody lied about it; None: only what the checksums say is known. ``resealed``: after all changes every checksum in
    it was made right again."""

    files: dict[str, bytes]
    facts: dict[str, Any] = field(default_factory=dict)
    messages: Mapping[int, Said] | None = None
    resealed: bool = False

    @cached_property
    def truth(self) -> Truth:
        """What the files hold."""
        return Truth(self.files, self.messages)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(map(len, self.files.values()))


class Target(ABC):
    """One thing that reads bytes. ``share``: how often it is drawn among all; ``memory``: bytes that it may need, fixed
    and for each byte of the input."""

    name: ClassVar[str]
    share: ClassVar[int] = 10
    memory: ClassVar[tuple[int, int]] = 256 << 10, 64

    @abstractmethod
    def make(self, chance: Random) -> Input:
        """An input; where its kind has checksums, two of three with all of them made right again."""

    @abstractmethod
    def check(self, given: Input) -> None:
        """Read it. What is raised is a finding, and so is what is not true."""


@contextmanager
def opened(given: Input) -> Iterator[MemoryFiles]:
    """The input as a lane's directory; whoever reads it gives its descriptors back."""
    boot = bytes.fromhex(given.facts["boot"]) if "boot" in given.facts else b"B" * 16
    files = MemoryFiles(given.files, boot)
    yield files
    assert not files.open_descriptors, f"{files.open_descriptors} descriptors left open"
