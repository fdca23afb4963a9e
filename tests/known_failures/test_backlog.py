"""A backlog that is lost, or never given back: failures 5, 7 and 9."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mbframework_fake.broker import FakeBroker
from mbframework_fake.provider import FakeProvider

from mbframework import (
    ConfigurationError,
    MessageBuffer,
    NotAccepted,
    PluginError,
    SenderStuck,
    Sidecar,
    Undelivered,
    read_status,
)
from mbframework.config import Config
from mbframework.files import Files
from mbframework.lockfile import is_held
from mbframework.plugins.source import resolve
from tests.known_failures.conftest import FAST, WAIT_S, eventually, files_below, numbers, padded

BACKLOG = 1000
#: Head, seek, status, events, and the rings of history.
SMALL_FILES = 256 * 1024
RIGHT = {**FAST, "segment_size": "256KiB", "total_size": "64MiB"}

#: A start that opens nothing: provider and options.
REFUSED: dict[str, tuple[Any, dict[str, Any]]] = {
    "no such provider": ("kafak://127.0.0.1:9092", {}),
    "no such option of the provider": ("fake://right?pace=5", {}),
    "not a URL": ("127.0.0.1:9092", {}),
    "no such mode": (None, {"mode": "bufer"}),
    "no such option": (None, {"totalsize": "1GiB"}),
    "a size that is none": (None, {"segment_size": "64 parsecs"}),
    "too few segments": (None, {"segment_size": "1MiB", "total_size": "2MiB"}),
    "a mode that needs a provider": (None, {"mode": "block"}),
}

#: A start that works, towards a broker that is down.
MISTAKEN: dict[str, dict[str, Any]] = {
    "total_size below the backlog": {"segment_size": "64KiB", "total_size": "256KiB"},
    "segment_size too small for what is there": {"segment_size": "64KiB"},
    "segment_size too large": {"segment_size": "8MiB"},
    "max_segments below what is there": {"segment_size": "64MiB", "total_size": "256MiB", "max_segments": 4},
    "min_free beyond the device": {"min_free": "1024TiB"},
    "mode block": {"mode": "block", "block_timeout": 0.2},
    "mode raise": {"mode": "raise"},
    "mode always": {"mode": "always"},
    "another lane": {"lane": "other"},
}


def leave_backlog(path: Path, broker: FakeBroker) -> None:
    """One message delivered, so that the destination is known, and ``BACKLOG`` of 100 KB to 1 KB waiting."""
    with MessageBuffer(path, FakeProvider(broker), **RIGHT) as buffer:
        buffer.write("t", padded(0, 10))
        buffer.flush(WAIT_S)
        broker.down()
        for number in range(1, BACKLOG + 1):
            buffer.write("t", padded(number, 60_000 if number == 1 else 1000))


def try_to_write(buffer: MessageBuffer, first: int) -> list[int]:
    """What the program got in before it noticed."""
    accepted = []
    for number in range(first, first + 5):
        with contextlib.suppress(NotAccepted):
            buffer.write("t", padded(number, 1000))
            accepted.append(number)
    return accepted


def check_nothing_lost(path: Path, broker: FakeBroker, later: list[int]) -> None:
    """A right start delivers the backlog in order, then what was accepted since."""
    with MessageBuffer(path, FakeProvider(broker), **RIGHT) as buffer:
        broker.up()
        buffer.flush(WAIT_S)
        status = buffer.status()
    assert numbers(broker) == [*range(BACKLOG + 1), *later]
    assert status.balanced
    assert (status.pruned, status.lost - status.returned, status.resident) == (0, 0, 0)


@pytest.mark.parametrize("mistake", REFUSED)
def test_05_a_start_that_is_refused_touches_nothing(mistake: str, tmp_path: Path, broker: FakeBroker) -> None:
    path = tmp_path / "buffer"
    leave_backlog(path, broker)
    before = files_below(path)
    provider, options = REFUSED[mistake]
    with pytest.raises((ConfigurationError, PluginError)):
        MessageBuffer(path, provider, **options)
    assert files_below(path) == before
    check_nothing_lost(path, broker, [])


@pytest.mark.parametrize("mistake", MISTAKEN)
def test_05_a_start_with_a_wrong_configuration_loses_nothing(mistake: str, tmp_path: Path, broker: FakeBroker) -> None:
    path = tmp_path / "buffer"
    leave_backlog(path, broker)
    returned: list[int] = []
    buffer = MessageBuffer(path, FakeProvider(broker), **{**FAST, **MISTAKEN[mistake]})
    accepted = try_to_write(buffer, BACKLOG + 1)
    # Its threads have had their turn: one look for space, one attempt to send.
    eventually(lambda: buffer.status().failures > 0, "an attempt to send")
    eventually(lambda: buffer.running_lane().space_searches > 1, "a look for space")
    try:
        buffer.close()
    except Undelivered as error:
        returned = [int((message.value or b"").split(b" ")[0]) for message in error.messages]
    later = [number for number in accepted if number not in returned]
    check_nothing_lost(path, broker, [] if mistake == "another lane" else later)


def test_05_nor_does_one_that_only_writes(tmp_path: Path, broker: FakeBroker) -> None:
    path = tmp_path / "buffer"
    leave_backlog(path, broker)
    with MessageBuffer(path, None, **FAST) as buffer:
        accepted = try_to_write(buffer, BACKLOG + 1)
    check_nothing_lost(path, broker, accepted)


@pytest.mark.parametrize("mode", ["buffer", "always", "block", "raise"])
def test_05_nor_one_towards_another_destination(mode: str, tmp_path: Path, broker: FakeBroker) -> None:
    path, wrong = tmp_path / "buffer", FakeBroker("wrong")
    leave_backlog(path, broker)
    returned: list[int] = []
    buffer = MessageBuffer(path, FakeProvider(wrong), **{**FAST, "mode": mode, "block_timeout": 0.2})
    eventually(lambda: buffer.status().state == "blocked", "the lane noticing")
    assert "another destination" in (buffer.status().last_error or "")
    accepted = try_to_write(buffer, BACKLOG + 1)
    try:
        buffer.close()
    except Undelivered as error:
        returned = [int((message.value or b"").split(b" ")[0]) for message in error.messages]
    assert wrong.count == 0
    check_nothing_lost(path, broker, [number for number in accepted if number not in returned])


def test_05_nor_one_towards_a_place_that_is_not_there(tmp_path: Path, broker: FakeBroker) -> None:
    path = tmp_path / "buffer"
    leave_backlog(path, broker)
    with MessageBuffer(path, f"file:{tmp_path}/no/such/folder/out.jsonl", **FAST) as buffer:
        eventually(lambda: buffer.status().failures > 0, "an attempt to send")
        accepted = try_to_write(buffer, BACKLOG + 1)
    check_nothing_lost(path, broker, accepted)


@pytest.mark.parametrize("mode", ["buffer", "always"])
@pytest.mark.parametrize("away", ["from the start", "half-way", "in the middle of a batch"])
def test_07_a_shutdown_while_the_destination_is_down_keeps_everything(
    away: str, mode: str, tmp_path: Path, broker: FakeBroker
) -> None:
    options = {**FAST, "mode": mode, "batch_messages": 100}
    if away == "from the start":
        broker.down()
    with MessageBuffer(tmp_path / "buffer", FakeProvider(broker), **options) as buffer:
        buffer.write_many("t", [str(number) for number in range(500)])
        if away == "half-way":
            buffer.flush(WAIT_S)
            broker.down()
        elif away == "in the middle of a batch":
            broker.fail_next(10_000, after=1)
        buffer.write_many("t", [str(number) for number in range(500, 1000)])
    status = buffer_status(tmp_path / "buffer")
    assert status.accepted == 1000
    assert status.delivered == broker.count
    assert status.resident == 1000 - broker.count > 0
    assert status.balanced

    broker.up()
    # The failures that were ordered and did not happen are no concern of the next start.
    after = FakeBroker(broker.name)
    with MessageBuffer(tmp_path / "buffer", FakeProvider(after), **options) as buffer:
        buffer.flush(WAIT_S)
        assert buffer.status().delivered == 1000
    assert numbers(broker) + numbers(after) == list(range(1000))


@pytest.mark.parametrize("mode", ["buffer", "always"])
def test_07_also_where_a_send_never_returns(mode: str, tmp_path: Path, broker: FakeBroker) -> None:
    broker.stick()
    buffer = MessageBuffer(tmp_path / "buffer", FakeProvider(broker), **FAST, mode=mode)
    for number in range(1000):
        buffer.write("t", str(number))
    broker.wait_until(lambda: broker.stuck == 1, WAIT_S)
    with pytest.raises(SenderStuck):
        buffer.close()
    status = buffer_status(tmp_path / "buffer")
    assert (status.accepted, status.delivered, status.resident, status.lost) == (1000, 0, 1000, 0)
    # The lane's lock is held until the send has returned, and its late answer changes nothing.
    lock = str(tmp_path / "buffer" / "main" / "sender.lock")
    assert is_held(Files(), lock)
    broker.release()
    eventually(lambda: not is_held(Files(), lock), "the lock given back")
    after = FakeBroker(broker.name)
    with MessageBuffer(tmp_path / "buffer", FakeProvider(after), **FAST) as buffer:
        buffer.flush(WAIT_S)
        assert (buffer.lane, buffer.status().delivered) == ("main", 1000)
    assert numbers(after) == list(range(1000))


@pytest.mark.parametrize("mode", ["block", "raise"])
def test_07_modes_that_keep_nothing_hand_back_and_leave_the_backlog(
    mode: str, tmp_path: Path, broker: FakeBroker
) -> None:
    leave_backlog(tmp_path / "buffer", broker)
    broker.up()
    broker.stick()
    buffer = MessageBuffer(tmp_path / "buffer", FakeProvider(broker), **FAST, mode=mode)
    broker.wait_until(lambda: broker.stuck == 1, WAIT_S)
    # The provider has a batch of the backlog in hand; these wait in memory behind it.
    buffer.write_many("t", ["a", "b", "c"])
    with pytest.raises(Undelivered) as undelivered:
        buffer.close()
    assert [message.value for message in undelivered.value.messages] == [b"a", b"b", b"c"]
    status = buffer_status(tmp_path / "buffer")
    # Behind a backlog the seek cannot pass them: the head counts them.
    assert (status.resident, status.returned, status.balanced) == (BACKLOG, 3, True)
    lock = str(tmp_path / "buffer" / "main" / "sender.lock")
    broker.release()
    eventually(lambda: not is_held(Files(), lock), "the lock given back")
    broker.clear()
    with MessageBuffer(tmp_path / "buffer", FakeProvider(broker), **FAST) as buffer:
        buffer.write("t", "1001")
        buffer.flush(WAIT_S)
        assert buffer.status().balanced
    assert numbers(broker) == list(range(1, 1002))


def test_07_also_where_another_process_sends(tmp_path: Path, broker: FakeBroker) -> None:
    broker.down()
    with MessageBuffer(tmp_path / "buffer", None, **FAST) as buffer:
        buffer.write_many("t", [str(number) for number in range(1000)])
    for attempt in ("down", "up"):
        if attempt == "up":
            broker.up()
        run_sidecar(
            tmp_path / "buffer",
            broker,
            (lambda: buffer_status(tmp_path / "buffer").failures > 0) if attempt == "down" else None,
        )
    status = buffer_status(tmp_path / "buffer")
    assert numbers(broker) == list(range(1000))
    assert (status.delivered, status.resident) == (1000, 0)


@pytest.mark.parametrize("mode", ["buffer", "always"])
def test_09_drained_space_is_given_back(mode: str, tmp_path: Path, broker: FakeBroker) -> None:
    path, segment = tmp_path / "buffer", 256 * 1024
    options = {**FAST, "mode": mode, "segment_size": segment, "total_size": "64MiB"}
    broker.down()
    with MessageBuffer(path, FakeProvider(broker), **options) as buffer:
        for start in range(0, 10_000, 100):
            buffer.write_many("t", [padded(number, 1000) for number in range(start, start + 100)])
        assert disk_usage(path) > 10_000 * 1000
        broker.up()
        buffer.flush(WAIT_S)
        # What stays: the segment that is being written, the one that is ready, and the small files.
        eventually(lambda: disk_usage(path) <= 2 * segment + SMALL_FILES, "the space given back")
        # And again, in a lane that has been at work for a while.
        broker.down()
        buffer.write_many("t", [padded(number, 1000) for number in range(10_000, 15_000)])
        broker.up()
        buffer.flush(WAIT_S)
        eventually(lambda: disk_usage(path) <= 2 * segment + SMALL_FILES, "the space given back again")
    assert disk_usage(path) <= SMALL_FILES
    assert numbers(broker) == list(range(15_000))


def test_09_also_where_another_process_sends(tmp_path: Path, broker: FakeBroker) -> None:
    path, segment = tmp_path / "buffer", 256 * 1024
    with MessageBuffer(path, None, **FAST, segment_size=segment, total_size="64MiB") as buffer:
        buffer.write_many("t", [padded(number, 1000) for number in range(10_000)])
    assert disk_usage(path) > 10_000 * 1000
    run_sidecar(path, broker)
    # The last segment stays until its writer comes back.
    assert disk_usage(path) <= segment + SMALL_FILES
    assert numbers(broker) == list(range(10_000))


def disk_usage(path: Path) -> int:
    """Bytes on the device, as du counts them."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total


def buffer_status(path: Path) -> Any:
    """The only lane's status, from the directory alone."""
    return read_status(path).lanes[0]


def run_sidecar(path: Path, broker: FakeBroker, until: Callable[[], bool] | None = None) -> None:
    """Send until everything is sent, or until a condition holds."""
    source = resolve(FakeProvider(broker))
    assert source is not None
    sidecar = Sidecar(Config.layered(directory=str(path), **FAST), source)
    if until is None:
        sidecar.run(until_empty=True)
        return
    thread = threading.Thread(target=sidecar.run)
    thread.start()
    try:
        eventually(until, "the condition")
    finally:
        sidecar.stop()
        thread.join(WAIT_S)
