"""A little of what ``python -m tests.fuzz`` does at length, and the proof that it finds what is there to be found."""

from __future__ import annotations

import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mbframework.spool import frame, several, singles
from mbframework.spool.reader import SpoolReader
from tests.fuzz import corpus, guided, runner
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


def test_half_of_the_inputs_have_valid_checksums() -> None:
    """Of all of them, those included that have no checksum at all; what is counted as resealed has no wrong one."""
    made = [target.make(chance) for target, chance in (runner.drawn(5, number, ALL) for number in range(2000))]
    resealed = [each for each in made if each.resealed]
    assert len(resealed) >= len(made) / 2
    for each in resealed:
        for name, data in each.files.items():
            for at, of, told, salt in checksums(name, data, each.facts.get("salt", 0)):
                assert zlib.crc32(of, salt) == int.from_bytes(told, "little"), f"{name} at {at}"


def checksums(name: str, data: bytes, salt: int) -> Iterator[tuple[int, bytes, bytes, int]]:
    """Of each checksum that format.md puts into such a file: where, of which bytes, what it says, and its salt. Frames
    are found by the lengths of those in front."""
    at = 0
    places = _RECORDS.get(name.partition(".")[0], ())
    if name.endswith(".seg"):
        salt, at, places = int.from_bytes(data[32:36], "little"), 4096, ((0, 256, 256, 256),)
    for start, end, stride, size in places:
        for place in range(start, min(end, len(data)), stride):
            raw = data[place : place + size]
            if len(raw) == size and any(raw):
                yield place, raw[:-4], raw[-4:], 0
    while data[at : at + 4] == b"MBF1" and at + 40 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        yield at, data[at : at + 36], data[at + 36 : at + 40], salt
        yield at, data[at + 40 : at + max(40, length)], data[at + 32 : at + 36], salt
        at += max(40, length) + 7 & ~7


#: By the first part of a file's name: (from, to, apart, bytes) of records that end with their checksum.
_RECORDS = {
    "header": ((0, 256, 256, 256),),
    "head": ((0, 12288, 4096, 512),),
    "seek": ((0, 12288, 4096, 512),),
    "dropped": ((0, 1 << 20, 24, 24),),
    "history": ((0, 64, 64, 64), (64, 1 << 20, 72, 72)),
}


def test_bytes_make_chance() -> None:
    """What a fuzzer that is guided by coverage varies decides what is made."""
    target = BY_NAME["reader"]
    once, twice = (target.make(ByteChance(bytes(range(256)))) for _ in range(2))
    other = target.make(ByteChance(bytes(range(255, -1, -1))))
    assert once.files == twice.files != other.files


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed: pip install atheris")
def test_what_is_guided_by_coverage_finds_and_keeps_what_it_found(tmp_path: Path) -> None:
    """In children, since its loop ends the process: one finds nothing, and one what is planted."""
    assert guided.watch(["seal", "frame"], tmp_path, ["-runs=100", "-seed=1", "-verbosity=0"])
    assert not list(tmp_path.iterdir())
    planted = (
        "import sys\nfrom pathlib import Path\nfrom mbframework.spool import frame\n"
        "from tests.fuzz import guided, test_fuzz\nfrom tests.fuzz.targets import BY_NAME\n"
        "frame.read_body = test_fuzz.without_body_crc\n"
        "guided.run([BY_NAME['frame']], Path(sys.argv[1]), ['-runs=3000', '-seed=1'])"
    )
    done = subprocess.run([sys.executable, "-c", planted, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode > 0, done.stderr
    name, again = corpus.from_text(next(tmp_path.glob("frame-*.txt")).read_text())
    assert name == "frame"
    assert again.files


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
        raw[36:] = zlib.crc32(raw[:36], salt).to_bytes(4, "little")
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
