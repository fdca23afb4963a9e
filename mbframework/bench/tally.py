"""Numbered messages, and what arrives of them: order and number are checked without keeping any."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from mbframework.errors import SendFailed
from mbframework.message import Batch
from mbframework.provider import Context, Provider

_NUMBER = 8


def values(first: int, count: int, size: int) -> list[bytes]:
    """``count`` values of ``size`` bytes with successive numbers from ``first`` on."""
    rest = bytes(max(0, size - _NUMBER))
    return [number.to_bytes(_NUMBER, "big") + rest for number in range(first, first + count)]


def number_of(value: bytes | None) -> int:
    """The number that :func:`values` gave to a value."""
    assert value is not None
    return int.from_bytes(value[:_NUMBER], "big")


class Tally:
    """What became of the messages with the numbers 0, 1, 2, …"""

    def __init__(self) -> None:
        self.arrived = 0
        #: Numbers that were passed over.
        self.missing = 0
        #: Numbers that came at or after their turn again.
        self.repeated = 0
        self.next = 0

    def add(self, batch: Iterable[bytes | None]) -> None:
        """Count values as they arrive."""
        expected = self.next
        for value in batch:
            number = number_of(value)
            self.arrived += 1
            if number < expected:
                self.repeated += 1
                continue
            self.missing += number - expected
            expected = number + 1
        self.next = expected

    @property
    def text(self) -> str:
        """For people."""
        return f"arrived {self.arrived:,}, passed over {self.missing:,}, repeated or out of order {self.repeated:,}"


class TallyProvider(Provider):
    """A broker that keeps a tally, of values that are ``numbered``, or of how many there were.

    While ``away`` is set it can be neither opened nor sent to.
    """

    def __init__(self, *, numbered: bool = True) -> None:
        self.tally = Tally()
        self.numbered = numbered
        self.away = threading.Event()

    def open(self, context: Context) -> None:
        self._refuse()

    def send(self, batch: Batch) -> None:
        self._refuse()
        if self.numbered:
            self.tally.add(batch.values)
        else:
            self.tally.arrived += len(batch)

    def _refuse(self) -> None:
        if self.away.is_set():
            raise SendFailed("the provider is away", provider="tally")
