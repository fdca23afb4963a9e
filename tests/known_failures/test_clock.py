"""The clock set back: failure 11."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mbframework_fake.broker import FakeBroker
from mbframework_fake.provider import FakeProvider

from mbframework import MessageBuffer
from mbframework.files import Files
from tests.known_failures.conftest import FAST, WAIT_S, eventually, files_below, numbers, padded

HOUR_NS = 3600 * 10**9


class Clocks(Files):
    """The machine's clocks, moved; shared by all buffers of a test. ``boot`` is the number of the boot."""

    wall_offset = 0
    boot_offset = 0
    boot = 1

    def wall_ns(self) -> int:
        return super().wall_ns() + Clocks.wall_offset

    def boot_ns(self) -> int:
        return super().boot_ns() + Clocks.boot_offset

    def boot_id(self) -> bytes:
        return bytes([Clocks.boot]) * 16


@pytest.fixture(autouse=True)
def clocks(monkeypatch: pytest.MonkeyPatch) -> type[Clocks]:
    monkeypatch.setattr(MessageBuffer, "_make_files", Clocks)
    for name in ("wall_offset", "boot_offset", "boot"):
        monkeypatch.setattr(Clocks, name, getattr(Clocks, name))
    return Clocks


def restart_machine(clocks: type[Clocks]) -> None:
    """Another boot, whose clock begins near zero."""
    clocks.boot += 1
    clocks.boot_offset = 10**9 - Files().boot_ns()


OPTIONS: dict[str, Any] = {**FAST, "mode": "always", "segment_size": "64KiB", "total_size": "16MiB"}


def sealed(path: Path) -> dict[str, bytes]:
    """The segments that nothing may change any more; a name says the first sequence in the file."""
    return {name: data for name, data in files_below(path).items() if Path(name).name.startswith("P")}


def check_behind(before: dict[str, bytes], after: dict[str, bytes]) -> None:
    """What was there is unchanged, and what is new comes behind it."""
    assert before.items() <= after.items()
    assert min(after.keys() - before.keys()) > max(before)


@pytest.mark.parametrize("step", [-1, -24 * 365, 24 * 365])
def test_11_a_clock_that_is_set_never_leads_into_past_files(
    step: int, tmp_path: Path, broker: FakeBroker, clocks: type[Clocks]
) -> None:
    path = tmp_path / "buffer"
    broker.down()
    with MessageBuffer(path, FakeProvider(broker), **OPTIONS) as buffer:
        for number in range(1500):
            buffer.write("t", padded(number, 1000))
        eventually(lambda: len(sealed(path)) > 3, "sealed segments")
        before = sealed(path)
        clocks.wall_offset = step * HOUR_NS
        for number in range(1500, 3000):
            buffer.write("t", padded(number, 1000))
        eventually(lambda: len(sealed(path)) > len(before) + 3, "sealed segments")
        check_behind(before, sealed(path))
        age = buffer.status().oldest_age_s
        assert age is not None
        assert 0 <= age < 600
        broker.up()
        buffer.flush(WAIT_S)
        status = buffer.status()
    assert numbers(broker) == list(range(3000))
    assert (status.delivered, status.expired, status.balanced) == (3000, 0, True)


@pytest.mark.parametrize("another_boot", [False, True], ids=["the same boot", "another boot"])
@pytest.mark.parametrize("step", [-1, -24 * 365])
def test_11_nor_across_a_restart(
    step: int, another_boot: bool, tmp_path: Path, broker: FakeBroker, clocks: type[Clocks]
) -> None:
    path = tmp_path / "buffer"
    broker.down()
    with MessageBuffer(path, FakeProvider(broker), **OPTIONS) as buffer:
        for number in range(500):
            buffer.write("t", padded(number, 1000))
    before = sealed(path)
    clocks.wall_offset = step * HOUR_NS
    if another_boot:
        restart_machine(clocks)
    broker.up()
    broker.stick()
    with MessageBuffer(path, FakeProvider(broker), **OPTIONS, expire_after=600) as buffer:
        for number in range(500, 1000):
            buffer.write("t", padded(number, 1000))
        eventually(lambda: len(sealed(path)) > len(before), "a sealed segment")
        check_behind(before, sealed(path))
        broker.wait_until(lambda: broker.stuck == 1, WAIT_S)
        age = buffer.status().oldest_age_s
        assert age is not None
        assert 0 <= age < 600
        broker.release()
        buffer.flush(WAIT_S)
        status = buffer.status()
    assert numbers(broker) == list(range(1000))
    assert (status.delivered, status.expired, status.balanced) == (1000, 0, True)


def test_11_age_is_counted_by_a_clock_that_nobody_sets(
    tmp_path: Path, broker: FakeBroker, clocks: type[Clocks]
) -> None:
    broker.down()
    with MessageBuffer(tmp_path / "buffer", FakeProvider(broker), **OPTIONS, expire_after=60) as buffer:
        for number in range(100):
            buffer.write("t", str(number))
        # Two minutes pass, and in the middle of them somebody sets the wall clock back by an hour.
        clocks.boot_offset += 120 * 10**9
        clocks.wall_offset += 120 * 10**9 - HOUR_NS
        for number in range(100, 200):
            buffer.write("t", str(number))
        broker.up()
        buffer.flush(WAIT_S)
        # The step is a reason to wait: nothing expires for a minute after it, rather too late than too early.
        assert numbers(broker) == list(range(200))

        broker.down()
        for number in range(200, 300):
            buffer.write("t", str(number))
        clocks.boot_offset += 120 * 10**9
        clocks.wall_offset += 120 * 10**9
        for number in range(300, 400):
            buffer.write("t", str(number))
        broker.up()
        buffer.flush(WAIT_S)
        status = buffer.status()
    assert numbers(broker) == [*range(200), *range(300, 400)]
    assert (status.expired, status.delivered, status.balanced) == (100, 300, True)
