"""A little of what ``python -m tests.fuzz`` does at length, and the proof that it finds what is there to be found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mbframework.spool import frame, several, singles
from mbframework.spool.reader import SpoolReader
from tests.fuzz import corpus, runner
from tests.fuzz.bytes_targets import Frames
from tests.fuzz.guided import ByteChance
from tests.fuzz.judging import judge
from tests.fuzz.target import Input, Target
from tests.fuzz.targets import ALL, BY_NAME

_Many = TypeVar("_Many", singles.Singles, several.Several)


@pytest.mark.parametrize("target", ALL, ids=lambda target: target.name)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_whatever_stands_there(target: Target, chance: Random) -> None:
    target.check(target.make(chance))


@pytest.mark.parametrize("target", ALL, ids=lambda target: target.name)
def test_within_time_and_memory(target: Target) -> None:
    for seed in range(20):
        found = judge(target, target.make(Random(seed)), memory=True)
        assert found is None, found.text if found else ""


@pytest.mark.parametrize("path", corpus.kept(), ids=lambda path: path.stem)
def test_what_once_found_something_finds_nothing_any_more(path: Path) -> None:
    name, kept = corpus.from_text(path.read_text())
    found = judge(BY_NAME[name], kept, memory=True)
    assert found is None, found.text if found else ""


def test_a_kept_input_is_the_same_when_it_is_read_again() -> None:
    for target in ALL:
        made = target.make(Random(1))
        name, again = corpus.from_text(corpus.to_text(target.name, made, "why\nso"))
        assert (name, again.files, again.facts) == (target.name, made.files, made.facts)


def test_the_same_seed_makes_the_same_inputs_for_any_number_of_processes(tmp_path: Path) -> None:
    def inputs(numbers: range) -> list[tuple[str, dict[str, bytes]]]:
        made = ((target, target.make(chance)) for target, chance in (runner.drawn(7, n, ALL) for n in numbers))
        return [(target.name, given.files) for target, given in made]

    assert inputs(range(40)) == inputs(range(20)) + inputs(range(20, 40))
    names = [target.name for target in ALL]
    *_, (alone, _) = runner.run(names, tmp_path, inputs=300, seed=7, processes=1)
    assert (alone.inputs, alone.findings) == (300, {})
    assert set(alone.counts) > {"frame", "reader", "control"}


def test_bytes_make_chance() -> None:
    """What a fuzzer that is guided by coverage varies decides what is made."""
    target = BY_NAME["reader"]
    once, twice = (target.make(ByteChance(bytes(range(256)))) for _ in range(2))
    other = target.make(ByteChance(bytes(range(255, -1, -1))))
    assert once.files == twice.files != other.files


# ---- planted


def found_by(name: str, seeds: int = 3000) -> str:
    """What a target finds, within so many inputs; "" for nothing."""
    target = BY_NAME[name]
    for seed in range(seeds):
        found = judge(target, target.make(Random(seed)), memory=seed % 20 == 0)
        if found is not None:
            return found.why
    return ""


def without_body_crc(buf: Any, offset: int, salt: int, header: frame.FrameHeader) -> bytes | None:
    body = bytes(buf[offset + frame.HEADER_SIZE : offset + header.length])
    return body if len(body) == header.length - frame.HEADER_SIZE else None


def without_header_crc(buf: Any, offset: int, salt: int) -> frame.FrameHeader | None:
    """The checksum of the body is all that counts: the number of the message may be any."""
    raw = bytearray(buf[offset : offset + frame.HEADER_SIZE])
    if len(raw) == frame.HEADER_SIZE and not offset & 7:
        raw[36:] = frame.crc32(bytes(raw[:36]), salt).to_bytes(4, "little")
    return _READ_HEADER(bytes(raw), 0, salt) if offset >= 0 and not offset & 7 else None


_READ_HEADER = frame.read_header


def another_value(decode: Callable[..., _Many]) -> Callable[..., _Many]:
    def planted(*arguments: Any) -> _Many:
        found = decode(*arguments)
        found.values[-1:] = [b"another"] * len(found.values[-1:])
        return found

    return planted


def twice_the_window(read: Callable[..., bytes]) -> Callable[..., bytes]:
    return lambda self, offset, size: read(self, offset, size) + bytes(1 << 25)


def never_on(self: SpoolReader, *_: object) -> None:
    self._frame = None


@pytest.mark.parametrize(
    ("target", "owner", "name", "planted"),
    [
        ("frame", frame, "read_body", without_body_crc),
        ("reader", frame, "read_body", without_body_crc),
        ("opening", frame, "read_body", without_body_crc),
        ("frame", frame, "read_header", without_header_crc),
        ("reader", frame, "read_header", without_header_crc),
        ("frame", singles, "decode_singles", another_value(singles.decode_singles)),
        ("frame", several, "decode_several", another_value(several.decode_several)),
        ("reader", SpoolReader, "_need", twice_the_window(SpoolReader._need)),
        ("reader", SpoolReader, "_advance", never_on),
        ("opening", SpoolReader, "_has_later", lambda self: False),
    ],
    ids=[
        "a body is believed",
        "by the reader",
        "by recovery",
        "checksum over the body only",
        "by the reader as well",
        "a single frame",
        "a frame of several",
        "memory",
        "an endless loop",
        "an end",
    ],
)
def test_a_planted_defect_is_found(
    target: str, owner: Any, name: str, planted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, planted)
    assert found_by(target)


def test_a_hostile_count_is_measured() -> None:
    """The limit of memory is one that can be passed."""

    class Wasteful(Frames):
        def check(self, given: Input) -> None:
            super().check(given)
            bytes(1 << 22)

    target = Wasteful()
    found = judge(target, target.make(Random(1)), memory=True)
    assert found is not None
    assert "TooMuchMemory" in found.place
