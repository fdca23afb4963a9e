"""Backlogs and batches that are too much at once: failures 6, 8 and 18."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from mbframework_fake.broker import FakeBroker
from mbframework_fake.provider import FakeProvider

from mbframework import MessageBuffer, SendFailed
from mbframework.message import Batch
from tests.known_failures.conftest import FAST, WAIT_S, numbers, padded

# ---- 6: the memory of a restart

RESTART = """
import resource, sys, tracemalloc
from mbframework import Batch, MessageBuffer, Provider
from tests.known_failures.conftest import FAST

class Counts(Provider):
    count = 0
    def send(self, batch: Batch) -> None:
        self.count += len(batch)

tracemalloc.start()
provider = Counts()
with MessageBuffer(sys.argv[1], provider, **FAST, total_size="1GiB") as buffer:
    opened = tracemalloc.get_traced_memory()[1]
    buffer.flush(60)
print(opened, tracemalloc.get_traced_memory()[1], provider.count)
"""


def peak_of_restart(path: Path) -> tuple[int, int, int]:
    """The most bytes in use until it was open, and until all was delivered; messages delivered."""
    done = subprocess.run(
        [sys.executable, "-c", RESTART, str(path)],
        capture_output=True, text=True, check=True, timeout=100, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    opened, most, count = map(int, done.stdout.split())
    return opened, most, count


def test_06_a_restart_takes_no_more_memory_for_a_larger_backlog(tmp_path: Path) -> None:
    peaks = []
    for count in (5_000, 60_000):
        path = tmp_path / str(count)
        with MessageBuffer(path, None, **FAST, segment_size="1MiB", total_size="1GiB") as buffer:
            for start in range(0, count, 1000):
                buffer.write_many("t", [padded(number, 1000) for number in range(start, start + 1000)])
        opened, most, delivered = peak_of_restart(path)
        assert delivered == count
        peaks.append((opened, most))
    (opened_small, most_small), (opened_large, most_large) = peaks
    assert opened_large - opened_small < 2 << 20, peaks
    assert most_large - most_small < 8 << 20, peaks
    assert most_large < 24 << 20, peaks


# ---- 8: full at the start


@pytest.mark.parametrize("mode", ["buffer", "always"])
def test_08_a_full_buffer_that_blocks_is_no_deadlock_at_the_start(
    mode: str, tmp_path: Path, broker: FakeBroker
) -> None:
    path = tmp_path / "buffer"
    options: dict[str, Any] = {
        **FAST, "mode": mode, "segment_size": "64KiB", "total_size": "256KiB", "min_free": 0, "on_full": "reject",
    }  # fmt: skip
    broker.down()
    accepted = 0
    with MessageBuffer(path, FakeProvider(broker), **options) as buffer:
        with pytest.raises(Exception, match="full"):
            for accepted in range(100_000):
                buffer.write("t", padded(accepted, 1000))
    broker.up()
    done = threading.Event()

    def program() -> None:
        # The first thing that it does is to wait for room, on the thread that opened the buffer.
        with MessageBuffer(path, FakeProvider(broker), **options | {"on_full": "block"}) as buffer:
            for number in range(accepted, accepted + 2000):
                buffer.write("t", padded(number, 1000))
            buffer.flush(WAIT_S)
        done.set()

    thread = threading.Thread(target=program, daemon=True)
    thread.start()
    thread.join(2 * WAIT_S)
    assert done.is_set()
    assert numbers(broker) == list(range(accepted + 2000))


# ---- 18: a flush that is too large for its time


class Slow(FakeProvider):
    """Whatever is more than it can take within its time comes to nothing, and it cannot tell how far it got."""

    def __init__(self, broker: FakeBroker, most: int) -> None:
        super().__init__(broker)
        self.most = most
        self.sizes: list[int] = []

    def send(self, batch: Batch) -> None:
        self.sizes.append(len(batch))
        if len(batch) > self.most:
            raise SendFailed("timed out", uncertain=True)
        super().send(batch)


@pytest.mark.parametrize("mode", ["buffer", "always"])
@pytest.mark.parametrize("most", [3, 40])
def test_18_a_batch_that_always_times_out_is_sent_in_smaller_ones(
    most: int, mode: str, tmp_path: Path, broker: FakeBroker
) -> None:
    provider = Slow(broker, most)
    with MessageBuffer(tmp_path / "buffer", provider, **FAST, mode=mode) as buffer:
        buffer.write_many("t", [str(number) for number in range(200)])
        buffer.flush(WAIT_S)
        provider.most = 10_000
        buffer.write_many("t", [str(number) for number in range(200, 3000)])
        buffer.flush(WAIT_S)
        status = buffer.status()
    assert numbers(broker) == list(range(3000))
    assert (status.delivered, status.lost, status.balanced) == (3000, 0, True)
    # It does not stay with small ones when that is not needed any more.
    assert max(provider.sizes[-5:]) > most
