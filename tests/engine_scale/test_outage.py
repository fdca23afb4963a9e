"""A week's outage in small: far more than fits is written while the provider is away, or holds a batch in its hand.

``mb bench memory`` is the same with 5 GB.
"""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from mbframework import MessageBuffer
from mbframework.bench.memory import suffer
from mbframework.bench.tally import TallyProvider, number_of, values
from mbframework.errors import SendFailed
from mbframework.message import Batch
from mbframework.status import LaneStatus
from mbframework.units import MiB

VALUE = 1000


def check_accounts(status: LaneStatus, provider: TallyProvider, written: int) -> None:
    """Every message is in exactly one account, as counted by the provider and by the one who wrote."""
    tally = provider.tally
    told = {
        "accepted": status.accepted,
        "delivered": status.delivered,
        "pruned": status.pruned,
        "others": status.expired + status.dead + status.purged + status.lost + status.resident,
    }
    assert told == {"accepted": written, "delivered": tally.arrived, "pruned": tally.missing, "others": 0}
    assert tally.repeated == 0, "out of order, or more than once"
    assert tally.next == written, "the newest messages are those that are kept"
    assert status.balanced


def test_the_oldest_are_pruned_and_counted_and_the_rest_arrives_in_order(tmp_path: Path) -> None:
    # Whole blocks: ten segments of 4,000,000 bytes take 17,920 bytes more of the device than their sizes say.
    total_size, written = 40 * MiB, 200_000
    provider = TallyProvider()
    options = {"total_size": total_size, "segment_size": total_size // 10, "catch_up": "full"}
    with MessageBuffer(tmp_path / "outbox", provider, **options) as buffer:
        found = suffer(
            buffer, written, VALUE, 60,
            down=provider.away.set, up=provider.away.clear, tally=lambda: provider.tally,
        )  # fmt: skip
    check_accounts(found.status, provider, written)
    assert found.before_return.balanced
    assert found.before_return.delivered == 10_000, "what had been sent before the provider went, and nothing else"
    # The prepared segment, the active one and room for a burst take their part of total_size.
    assert total_size // 2 < (found.status.delivered - 10_000) * VALUE < total_size
    assert found.writing.segments <= total_size
    assert found.draining.segments <= total_size
    assert max(found.writing.anon, found.draining.anon) - found.empty_anon <= 32 * MiB


class HoldingProvider(TallyProvider):
    """Holds the first batch that begins at or after ``hold_from``; then it arrives, or where ``fails``, it does not."""

    def __init__(self, hold_from: int, *, fails: bool) -> None:
        super().__init__()
        self.hold_from = hold_from
        self.fails = fails
        self.held = range(0)
        self.first_after = -1
        self.reached = threading.Event()
        self.release = threading.Event()

    def send(self, batch: Batch) -> None:
        first = number_of(batch.values[0])
        if first >= self.hold_from and not self.held:
            self.held = range(first, first + len(batch))
            self.reached.set()
            assert self.release.wait(60)
            if self.fails:
                raise SendFailed("the batch did not arrive", provider="holding")
        if self.held and self.first_after < 0:
            self.first_after = first
        super().send(batch)


@pytest.mark.parametrize("fails", [False, True], ids=["arrives", "fails"])
def test_a_batch_in_flight_outlives_the_segment_that_held_it(tmp_path: Path, fails: bool) -> None:
    """It is delivered where it arrives, and pruned where it does not; never both."""
    provider = HoldingProvider(1000, fails=fails)
    options = {"mode": "always", "total_size": "8MiB", "segment_size": "512KiB", "catch_up": "full"}
    with MessageBuffer(tmp_path / "outbox", provider, **options) as buffer:
        buffer.write_many("outage", values(0, 1000, VALUE))
        buffer.flush(60)
        buffer.write_many("outage", values(1000, 1000, VALUE))
        assert provider.reached.wait(60)
        for first in range(2000, 40_000, 1000):
            buffer.write_many("outage", values(first, 1000, VALUE))
        during = buffer.status()
        assert during.balanced
        assert during.pruned > 20_000
        provider.release.set()
        buffer.flush(60)
        status = buffer.status()
    check_accounts(status, provider, 40_000)
    if fails:
        assert provider.first_after > 20_000, "what lies below the floor is not sent again"
    else:
        assert provider.first_after == provider.held.start == 1000
