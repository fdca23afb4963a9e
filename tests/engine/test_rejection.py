"""What a provider may answer: rejections, garbage, "a person must act", its own wait, its own limit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mbframework_fake.provider import FakeProvider

from mbframework import (
    Batch,
    Context,
    MessageBuffer,
    MessageTooLarge,
    Position,
    Provider,
    ProviderUnusable,
    SendFailed,
)
from mbframework.files import Files
from mbframework.message import unpack_headers
from mbframework.sender import sound
from mbframework.spool.layout import SENDER_STATUS_FILE
from mbframework.spool.reader import Run, SpoolReader
from tests.engine.rig import FAST, at_rest, eventually, in_state, numbers, sampled


class Scripted(Provider):
    """Answers each send with what the script says; takes everything when the script is at its end."""

    def __init__(self, *script: Callable[[Batch], object]) -> None:
        self.script = list(script)
        self.arrived: list[int] = []
        self.sends: list[int] = []
        self.opened = 0

    def open(self, context: Context) -> None:
        self.opened += 1

    def send(self, batch: Batch) -> None:
        self.sends.append(len(batch))
        if self.script:
            self.script.pop(0)(batch)
            return
        self.arrived += numbers(batch)


def failing(error: BaseException, times: int = 1) -> list[Callable[[Batch], object]]:
    def answer(_: Batch) -> None:
        raise error

    return [answer] * times


def dead_letters(buffer: MessageBuffer) -> list[tuple[bytes | None, dict[str, bytes | None]]]:
    """Value and headers of each dead letter, from the files."""
    reader = SpoolReader(Files(), f"{buffer.directory}/dead/{buffer.lane}")
    found: list[tuple[bytes | None, dict[str, bytes | None]]] = []
    position = ordinal = 0
    try:
        while (
            run := reader.read(position, ordinal, until=None, max_messages=500, max_bytes=1 << 20, hint=(0, 0))
        ) is not None:
            if isinstance(run, Run):
                found += [
                    (value, dict(unpack_headers(block)))
                    for value, block in zip(run.values, run.header_blocks, strict=True)
                ]
                position, ordinal = run.end, ordinal + len(run)
            else:
                position, ordinal = run.next, run.ordinal
    finally:
        reader.close()
    return found


@pytest.mark.parametrize("keep_position", [False, True])
@pytest.mark.parametrize("mode", ["buffer", "always", "block"])
def test_one_bad_message_goes_to_the_dead_letters_and_the_rest_goes_on(
    tmp_path: Path, mode: str, keep_position: bool
) -> None:
    provider = FakeProvider(keep_position=keep_position)
    provider.reject_when(
        lambda message: f"{(message.value or b'').decode()} is bad" if int(message.value or b"0") % 7 == 3 else None
    )
    with MessageBuffer(tmp_path / "b", provider, mode=mode, **FAST) as buffer:
        in_state(buffer, "live")
        with sampled(buffer) as seen:
            for start in range(0, 1000, 100):
                buffer.write_many("t", map(str, range(start, start + 100)), headers=[[("own", b"x")]] * 100)
            buffer.flush(60)
        good = [number for number in range(1000) if number % 7 != 3]
        bad = [number for number in range(1000) if number % 7 == 3]
        assert numbers(provider.messages) == good
        letters = dead_letters(buffer)
        assert [int(value or b"") for value, _ in letters] == bad
        value, headers = letters[0]
        assert (value, headers["own"], headers["mb.reason"], headers["mb.seq"]) == (b"3", b"x", b"3 is bad", b"4")
        assert at_rest(buffer) == at_rest(buffer) | {"delivered": len(good), "dead": len(bad), "resident_messages": 0}
        if mode == "buffer":
            # A poisoned message is no outage.
            assert "buffering" not in {status.state for status in seen}


def test_a_hundred_in_a_row_are_trouble_of_the_provider(tmp_path: Path) -> None:
    provider = FakeProvider()
    provider.reject_when(lambda message: "not authorised")
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        in_state(buffer, "live")
        for number in range(150):
            buffer.write("t", str(number))
        in_state(buffer, "blocked")
        status = buffer.status()
        assert status.dead < 100
        assert "in a row were rejected, which looks like trouble of the provider: not authorised" in str(
            status.last_error
        )
        dead = status.dead
        provider.reject_when(None)
        buffer.flush(60)
        in_state(buffer, "live")
        assert numbers(provider.messages) == list(range(dead, 150))
        assert at_rest(buffer)["dead"] == dead


def test_rejections_one_by_one_are_counted_across_batches(tmp_path: Path) -> None:
    """A provider that stops at the first message that it does not like, and likes none."""

    def first(_: Batch) -> None:
        raise SendFailed("no", rejected={0: "no"})

    provider = Scripted(*[first] * 1000)
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        buffer.write_many("t", map(str, range(300)))
        in_state(buffer, "blocked")
        assert buffer.status().dead == 99
        provider.script.clear()
        buffer.flush(60)
        assert provider.arrived == list(range(99, 300))


def test_full_dead_letters_block_and_bury_nothing(tmp_path: Path) -> None:
    provider = FakeProvider()
    provider.reject_when(lambda message: "no" if message.sequence % 2 else None)
    with MessageBuffer(tmp_path / "b", provider, dead_total_size="256KiB", **FAST) as buffer:
        for _ in range(60):
            buffer.write_many("t", [bytes(5000)] * 10)
        in_state(buffer, "blocked")
        assert "the dead letters are full" in str(buffer.status().last_error)
        eventually(lambda: buffer.status().failures > 3, "further attempts")
        dead = buffer.status().dead
        assert 10 < dead < 300
        assert len(dead_letters(buffer)) == dead
        provider.reject_when(None)
        buffer.flush(60)
        assert at_rest(buffer) == at_rest(buffer) | {"dead": dead, "delivered": 600 - dead}


@pytest.mark.parametrize(
    "answers",
    [
        failing(ValueError("from a client library"), 3),
        failing(SystemExit(3)),
        failing(SendFailed("bad index", undelivered=[99])),
        failing(SendFailed("negative index", undelivered=[-1])),
        failing(SendFailed("no index", undelivered=["a"])),  # type: ignore[list-item]
        failing(SendFailed("bad rejection", rejected={99: "no"})),
        failing(SendFailed("no mapping", rejected=[1])),  # type: ignore[arg-type]
        failing(SendFailed("bad wait", retry_after=float("nan"))),
        failing(SendFailed("bad wait", retry_after="soon")),  # type: ignore[arg-type]
        failing(type("Mute", (Exception,), {"__str__": lambda self: 1 / 0})()),
    ],
    ids=lambda answers: "",
)
def test_whatever_is_raised_costs_a_retry_and_no_message(tmp_path: Path, answers: list[Any]) -> None:
    provider = Scripted(*answers)
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        buffer.write_many("t", map(str, range(10)))
        buffer.flush(60)
        assert provider.arrived == list(range(10))
        assert at_rest(buffer) == at_rest(buffer) | {"delivered": 10, "dead": 0}
        # One attempt for each answer; then all of it, in smaller portions after the second in a row.
        assert len(provider.sends) > len(answers)
        assert sum(provider.sends[len(answers) :]) == 10


def test_the_reason_of_a_rejection_may_be_anything(tmp_path: Path) -> None:
    provider = Scripted(*failing(SendFailed("odd", undelivered=(), rejected={3: ("tuple", 1)})))  # type: ignore[dict-item]
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        buffer.write_many("t", map(str, range(10)))
        buffer.flush(60)
        assert dead_letters(buffer)[0][1]["mb.reason"] == b"('tuple', 1)"
        assert at_rest(buffer) == at_rest(buffer) | {"delivered": 9, "dead": 1}


def test_a_suffix_within_each_key_is_order_and_anything_else_is_counted(tmp_path: Path) -> None:
    def per_key(batch: Batch) -> None:
        raise SendFailed("one key failed", undelivered=[i for i in range(len(batch)) if batch.keys[i] == b"1"])

    def middle(batch: Batch) -> None:
        raise SendFailed("the first of key 1 failed", undelivered=[1])

    provider = Scripted(per_key, middle)
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        buffer.write_many("t", map(str, range(8)), keys=[str(number % 2) for number in range(8)])
        buffer.flush(60)
        # The second answer is about 1, 3, 5, 7: 3 failed, and 5 and 7, of the same key, arrived.
        assert provider.arrived == [3]
        assert buffer.status().order_violations == 2
        assert at_rest(buffer)["delivered"] == 8
        eventually(lambda: _narrated(buffer) == 2, "the directory's count")
        # What arrives with a batch that failed in part has gone out as well.
        size = sum(len(f"t{number % 2}{number}") for number in range(8))
        status = tmp_path / "b" / "main" / SENDER_STATUS_FILE
        eventually(lambda: json.loads(status.read_text())["traffic"]["bytes"] == size, "all bytes")


def _narrated(buffer: MessageBuffer) -> int:
    from tests.engine.rig import from_directory

    return from_directory(buffer).order_violations


def test_unusable_blocks_with_its_text_and_recovers(tmp_path: Path) -> None:
    opening = [ProviderUnusable("wrong password for user mb")]

    class Guarded(Scripted):
        def open(self, context: Context) -> None:
            super().open(context)
            if opening:
                raise opening[0]

    provider = Guarded(*failing(ProviderUnusable("may not write to t"), 2))
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        buffer.write("t", "0")
        in_state(buffer, "blocked")
        assert buffer.status().last_error == "wrong password for user mb"
        assert "wrong password" in buffer.status().state_reason
        opening.clear()
        buffer.flush(60)
        assert provider.arrived == [0]
        assert len(provider.sends) == 3
        in_state(buffer, "live")


def test_a_block_that_turns_into_an_outage_is_shown_as_one(tmp_path: Path) -> None:
    provider = Scripted(*failing(ProviderUnusable("not allowed")), *failing(SendFailed("gone"), 10_000))
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        buffer.write("t", "0")
        eventually(lambda: buffer.status().last_error == "gone", "the second error")
        assert buffer.status().state == "buffering"


def test_the_broker_may_ask_for_its_own_wait(tmp_path: Path) -> None:
    provider = Scripted(*failing(SendFailed("busy", retry_after=60)))
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        buffer.write("t", "0")
        eventually(lambda: buffer.status().failures, "the failure")
        status = buffer.status()
        assert status.retry_at is not None
        assert status.last_error_at is not None
        assert 59 < status.retry_at - status.last_error_at < 61
        buffer.retry_now()
        buffer.flush(60)
        assert provider.arrived == [0]


def test_what_the_provider_does_not_take_is_refused_at_write(tmp_path: Path) -> None:
    provider = FakeProvider(max_message_bytes=1000)
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        in_state(buffer, "live")
        with pytest.raises(MessageTooLarge) as caught:
            buffer.write("t", bytes(1000))
        assert (caught.value.size, caught.value.limit) == (1001, 1000)
        with pytest.raises(MessageTooLarge):
            buffer.write_many("t", [b"small", bytes(1000)])
        buffer.write("t", bytes(999))
        # The limit may become known, or change, with a failure.
        provider.max_message_bytes = 500
        provider.fail_next()
        buffer.write("t", b"x")
        buffer.flush(60)
        with pytest.raises(MessageTooLarge, match="at most 500 are taken"):
            buffer.write("t", bytes(999))
        provider.max_message_bytes = None
        provider.fail_next()
        buffer.write("t", b"x")
        buffer.flush(60)
        buffer.write("t", bytes(10_000))
        assert buffer.status().accepted == 4


def test_an_answer_that_makes_no_sense_counts_for_the_whole_batch() -> None:
    error = SendFailed("what", undelivered=[5], rejected={0: "x"}, retry_after=3)
    checked = sound(error, 5)
    assert (checked.undelivered, checked.rejected, checked.uncertain, checked.retry_after) == (None, {}, True, 3.0)
    assert sound(error, 6).undelivered == [5]


def test_an_idle_provider_that_is_gone_takes_the_lane_out_of_live(tmp_path: Path) -> None:
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        in_state(buffer, "live")
        buffer.write("t", "0")
        buffer.flush(60)
        provider.down()
        in_state(buffer, "buffering")
        provider.up()
        in_state(buffer, "live")


class Careless(Provider):
    """Breaks the contract in one place, a few times, and then keeps it."""

    def __init__(self, where: str, what: Any) -> None:
        self.where, self.what, self.times = where, what, 3
        self.arrived: list[int] = []

    def _may_fail(self, where: str, right: Any = None) -> Any:
        if where != self.where or not self.times:
            return right
        self.times -= 1
        if isinstance(self.what, BaseException):
            raise self.what
        return self.what

    def open(self, context: Context) -> None:
        self._may_fail("open")

    def destination(self) -> str:
        return self._may_fail("destination", "")

    def committed(self) -> Position | None:
        return self._may_fail("committed")

    def send(self, batch: Batch) -> None:
        self._may_fail("send")
        self.arrived.extend(int(value or b"") for value in batch.values)


@pytest.mark.parametrize(
    "where, what",
    [
        ("open", SystemExit(3)),
        ("open", asyncio.CancelledError()),
        ("send", asyncio.CancelledError()),
        ("send", GeneratorExit()),
        ("destination", 5),
        ("committed", "the end"),
        ("committed", (1, 2)),
    ],
)
def test_no_provider_ends_the_sender(tmp_path: Path, where: str, what: Any) -> None:
    provider = Careless(where, what)
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        buffer.write_many("t", map(str, range(10)))
        buffer.flush(60)
        assert (provider.arrived, provider.times) == (list(range(10)), 0)


def test_a_provider_that_cannot_be_made_shows_where_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked: list[int] = []

    def make(_: object) -> FakeProvider:
        asked.append(1)
        raise DeprecationWarning("first" if len(asked) < 4 else "second")

    with MessageBuffer(tmp_path / "b", make, **FAST) as buffer:
        eventually(lambda: len(asked) > 6, "attempts")
        assert "second" in (buffer.status().last_error or "")
    told = [record for record in caplog.records if "opening the provider failed" in record.getMessage()]
    assert [index for index, record in enumerate(told) if record.exc_info] == [0, 3]
