"""What no other test saw when the ledger was changed (``python -m tests.model.mutants``): each sees one such change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mbframework.flight import Flight
from mbframework.ledger import Ledger
from tests.faulty_files import FaultyFiles
from tests.test_ledger import fresh, reopened, run_of


class Meanwhile(FaultyFiles):
    """Does something while the device syncs."""

    act: Callable[[], object] = bool

    def datasync(self, fd: int) -> None:
        act, self.act = self.act, bool
        act()
        super().datasync(fd)


@pytest.fixture
def files() -> Meanwhile:
    return Meanwhile()


@pytest.fixture
def ledger(files: Meanwhile, tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger.open(files, str(tmp_path), fresh(), 0, exists=False)
    yield made
    made.close()


def test_a_batch_that_was_never_on_disk_moves_no_ordinal(ledger: Ledger) -> None:
    flight = Flight(run_of(1, 3), in_memory=True)
    with ledger.lock:
        assert ledger.begin(flight)
        flight.mark(range(3), "delivered")
        ledger.land(flight, 0)
    assert (ledger.next, ledger.ordinal, ledger.slot.delivered) == (4, 0, 3)


def test_what_the_seek_has_passed_counts_for_no_later_batch(ledger: Ledger) -> None:
    first = Flight(run_of(1, 4), in_memory=False)
    with ledger.lock:
        assert ledger.begin(first)
        first.mark([1, 2], "delivered")
        ledger.progress(first)
        ledger.abandon(first)
    ledger.advance(5, 4, "purged")
    assert (ledger.slot.delivered, ledger.slot.purged, ledger.slot.settled) == (2, 2, 0)
    second = Flight(run_of(5, 4), in_memory=False)
    with ledger.lock:
        assert ledger.begin(second)
        assert second.open == 4


def test_a_floor_takes_of_a_batch_only_what_lies_below_it(ledger: Ledger) -> None:
    flight = Flight(run_of(1, 4), in_memory=False)
    with ledger.lock:
        assert ledger.begin(flight)
        assert ledger.apply_floor(3, 2)
        ledger.below_floor(flight)
        assert flight.remaining() == [2, 3]


def test_what_is_settled_while_the_seek_is_synced_is_not_on_the_device_yet(files: Meanwhile, ledger: Ledger) -> None:
    ledger.advance(9, 8, "delivered")
    files.act = lambda: ledger.advance(20, 19, "delivered")
    ledger.sync()
    assert ledger.synced_next == 9
    ledger.sync()
    assert ledger.synced_next == 20


def test_a_floor_is_applied_once_also_by_the_next_sender(files: Meanwhile, ledger: Ledger, tmp_path: Path) -> None:
    assert ledger.apply_floor(3, 2)
    assert not ledger.apply_floor(3, 2)
    again = reopened(files, str(tmp_path))
    assert not again.apply_floor(3, 2)
    assert again.slot.pruned == 2
    again.close()


def test_what_the_provider_has_above_a_floor_waits_there_to_be_read(files: Meanwhile, tmp_path: Path) -> None:
    """Ten were in its hand when the program was killed, and are there; five of them were pruned before it was asked."""
    slot = fresh()
    slot.batch_end = 11
    made = Ledger.open(files, str(tmp_path), slot, 0, exists=False)
    made.hold()
    made.advance(6, 5, "pruned")
    made.release(11)
    assert (made.next, made.ordinal, made.slot.delivered) == (6, 5, 5)
    made.close()
