"""The extension does what plain Python does: byte for byte, store for store, error for error."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbframework import MessageBuffer, frame_draft, speedups
from mbframework.frame_draft import FrameDraft
from mbframework.message import NO_PARTITION, NO_TIMESTAMP
from mbframework.spool import frame, segment_header, singles
from mbframework.spool.layout import MAX_COUNT, MAX_FRAME, U64_LIMIT
from tests.examples import examples
from tests.spool.test_singles import mostly_good, piece, window_of

pytestmark = pytest.mark.skipif(
    speedups.compiled is None,
    reason=f"no extension: {speedups.why_plain}; pip install --editable . makes it where there is a C compiler",
)
compiled: Any = speedups.compiled

SALT = 0xA1B2C3D4
blobs = st.none() | st.binary(max_size=40)
timestamps = st.none() | st.just(NO_TIMESTAMP) | st.integers(-(1 << 63), (1 << 63) - 1)
partitions = st.none() | st.integers(-(1 << 31), (1 << 31) - 1)
sequences = st.sampled_from([1, 9, U64_LIMIT - 20]) | st.integers(1, U64_LIMIT - 20)
topics = st.sampled_from(["t", "orders", "é", "t" * 300])
items = st.lists(st.tuples(topics, blobs, blobs, blobs, timestamps, partitions), min_size=1, max_size=12)
times = st.integers(-(1 << 63), (1 << 63) - 1)


@examples(500)
@given(st.binary(max_size=700), st.integers(0, 0xFFFFFFFF), st.integers(0, 40))
def test_crc(data: bytes, start: int, skip: int) -> None:
    assert compiled.crc32(memoryview(data)[skip:], start) == zlib.crc32(data[skip:], start)


def test_crc_of_every_short_length_and_of_much() -> None:
    data = random.Random(1).randbytes(1 << 20)
    for size in (*range(300), 65_535, 65_536, 65_537, 1 << 20):
        assert compiled.crc32(data[:size], 7) == zlib.crc32(data[:size], 7)
    assert compiled.crc32(data) == zlib.crc32(data)


@examples(400)
@given(sequences, times, st.binary(max_size=70), st.tuples(blobs, blobs, blobs, timestamps, partitions))
def test_encode_one(sequence: int, accepted: int, topic: bytes, rest: Any) -> None:
    arguments = SALT, sequence, accepted, topic, *rest
    assert compiled.encode_one(*arguments) == frame.plain_encode_one(*arguments)


@examples(300)
@given(sequences, times, items, st.booleans(), st.booleans())
def test_encode_many(sequence: int, accepted: int, messages: list[Any], one_topic: bool, absent: bool) -> None:
    names, values, keys, blocks, moments, places = (list(column) for column in zip(*messages, strict=True))
    raw: Any = names[0].encode() if one_topic else [name.encode() for name in names]
    columns: list[Any] = [
        raw, tuple(values), *([None] * 4 if absent else [
            keys, blocks,
            [NO_TIMESTAMP if given is None else given for given in moments],
            [NO_PARTITION if given is None else given for given in places],
        ])
    ]  # fmt: skip
    made = compiled.encode_many(SALT, sequence, accepted, *columns)
    assert made == frame.plain_encode_many(SALT, sequence, accepted, *columns)


@examples(300)
@given(sequences, times, items, st.integers(0, 3), st.sampled_from([0, 60, 300, 1 << 20]))
def test_frames_are_cut_and_encoded_alike(
    sequence: int, accepted: int, messages: list[Any], start: int, most: int
) -> None:
    start = min(start, len(messages) - 1)
    draft = FrameDraft(messages, start, most, sequence, accepted)
    assert draft.count == frame_draft.fitting(messages, start, most)
    assert draft.encode(SALT) == draft._plain_encode(SALT)
    raw = compiled.encode_items(SALT, sequence, accepted, messages, start, draft.count)
    assert raw == draft.encode(SALT)


@pytest.mark.parametrize(
    "wrong",
    [
        {"topic": "text"}, {"topic": bytes(65_536)}, {"value": bytearray(b"v")}, {"key": "key"}, {"timestamp": 1 << 63},
        {"timestamp": True}, {"partition": 1 << 31}, {"partition": 1.0}, {"value": bytes(MAX_FRAME)}, {"sequence": -1},
        {"salt": 1 << 32},
    ],
    ids=lambda wrong: f"{next(iter(wrong))} {next(iter(wrong.values()))!r:.20}",
)  # fmt: skip
def test_what_is_not_usual_is_left_to_python(wrong: dict[str, Any]) -> None:
    usual: dict[str, Any] = {
        "salt": SALT, "sequence": 1, "accepted": 0, "topic": b"t", "key": None, "value": b"v", "block": None,
        "timestamp": None, "partition": None,
    }  # fmt: skip
    assert compiled.encode_one(*usual.values()) is not None
    assert compiled.encode_one(*(usual | wrong).values()) is None


#: Flags and lengths that no encoder writes; the CRC of what is made of them is right.
numbers = st.sampled_from([0, 1, 2, 7, 0xFFFFFFFF, 0xFFFFFFFE, 1 << 31, 1 << 16]) | st.integers(0, 90)
short = st.sampled_from([0, 1, 2, 0xFFFF]) | st.integers(0, 9)
hostile = st.tuples(
    st.lists(short, max_size=6), st.lists(numbers, max_size=24), st.binary(max_size=120), st.integers(0, 63),
    st.integers(0, 6) | st.sampled_from([MAX_COUNT, MAX_COUNT - 1]), st.integers(0, 12) | st.just(0xFFFF),
)  # fmt: skip


@examples(1500)
@given(hostile)
def test_decoding_hostile_bodies(content: Any) -> None:
    halves, words, rest, flags, count, topic_length = content
    body = b"".join(half.to_bytes(2, "little") for half in halves)
    body += b"".join(word.to_bytes(4, "little") for word in words) + rest
    _compare_bodies(body, flags, count, topic_length)


@examples(500)
@given(items, st.integers(0, 1 << 32), st.sampled_from(["", "flip", "cut", "more", "length"]))
def test_decoding_bodies_that_are_nearly_right(messages: list[Any], seed: int, damage: str) -> None:
    raw = FrameDraft(messages, 0, 1 << 20, 1, 0)._plain_encode(SALT)
    header = frame.read_header(raw, 0, SALT)
    assert header is not None
    chance, body = random.Random(seed), bytearray(raw[frame.HEADER_SIZE : header.length])
    if damage == "flip":
        body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
    elif damage == "cut":
        del body[chance.randrange(len(body)) :]
    elif damage == "more":
        body += bytes(chance.randrange(1, 9))
    elif damage == "length":
        at = chance.randrange(len(body))
        body[at : at + 4] = chance.choice([b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4)])
    _compare_bodies(bytes(body), header.flags, header.count, header.topic_length)


def _compare_bodies(body: bytes, flags: int, count: int, topic_length: int) -> None:
    found = compiled.decode_body(body, count, flags, topic_length)
    raw = frame.assemble(SALT, 1, 0, count, flags, topic_length, body)
    header = frame.read_header(raw, 0, SALT)
    if header is None or flags & frame.SEAL:
        # Nobody decodes such a body; but if somebody did, there would be no harm.
        return
    plain = frame.plain_decode_body(body, header)
    assert (None if found is None else frame.Columns(1, count, *found, 0)) == plain


@examples(400)
@given(
    mostly_good, st.lists(piece, max_size=4), st.integers(0, 1 << 32), st.booleans(),
    st.sampled_from([1, U64_LIMIT - 4]), st.sampled_from([0, 1, 3, 1000]), st.sampled_from([0, 1, 200, 1 << 30]),
)  # fmt: skip
def test_decoding_singles(
    good: list[Any], pieces: list[Any], seed: int, damaged: bool, first: int, most: int, max_size: int
) -> None:
    raw = bytearray(window_of(good + pieces, first))
    chance = random.Random(seed)
    if damaged and raw:
        raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
    for offset in (0, 8, len(raw), len(raw) + 8):
        arguments = bytes(raw), offset, SALT, first, most, max_size
        assert singles.Singles(*compiled.decode_singles(*arguments)) == singles.plain_decode_singles(*arguments)


# ---- writing


@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_stores_in_the_same_order(seed: int) -> None:
    """A program's writes, on a disk that sees each store, once on either path."""
    told = [_journal(seed, path) for path in ("require", "off")]
    assert [facts.pop("compiled") for facts in told] == [True, False]
    fast, plain = (facts.pop("lane_calls") for facts in told)
    assert fast < plain, "the extension left everything to Python"
    assert told[0] == told[1]


def _journal(seed: int, path: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.spool.journal", str(seed)], cwd=Path(__file__).parents[2], capture_output=True,
        text=True, check=False, timeout=60, env=os.environ | {speedups.VARIABLE: path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def test_threads_that_write_in_every_way(tmp_path: Path) -> None:
    """Segments roll, calls that C takes and calls that Python takes meet: each message is there, once, and the
    messages of a thread are in its order."""
    rounds, given_out = 400, [list[int]() for _ in range(4)]
    with MessageBuffer(tmp_path / "outbox", segment_size="256KiB", total_size="1GiB", close_timeout=0) as buffer:

        def work(number: int) -> None:
            mine = given_out[number]
            for i in range(rounds):
                value = b"%d %d " % (number, i) + bytes(i)
                mine.append(buffer.write("t", value))
                mine.append(buffer.write("t", value, key=b"k", headers=[("a", b"b")]))
                mine += buffer.write_many("t", [value] * 3)
                mine += buffer.write_many("t", iter([value]))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        status = buffer.status()
        assert status.balanced
        assert status.accepted == status.resident_messages == 4 * rounds * 6
    assert all(mine == sorted(mine) for mine in given_out)
    assert sorted(itertools.chain(*given_out)) == list(range(1, 4 * rounds * 6 + 1))
    found = _stored(tmp_path / "outbox" / "main")
    for number, mine in enumerate(given_out):
        assert all(found[sequence].startswith(b"%d " % number) for sequence in mine)
    assert len(found) == 4 * rounds * 6


def _stored(lane: Path) -> dict[int, bytes]:
    """Sequence → value, of all segments, with plain Python."""
    found: dict[int, bytes] = {}
    for path in sorted(lane.glob("*.seg"), key=lambda path: path.name[1:]):
        raw = path.read_bytes()
        segment = segment_header.unpack(raw[:256])
        assert segment is not None
        at = 4096
        while (header := frame.read_header(raw, at, segment.salt)) and not frame.is_seal(header):
            body = frame.read_body(raw, at, segment.salt, header)
            assert body is not None
            columns = frame.plain_decode_body(body, header)
            assert columns is not None
            found |= {header.first + i: value or b"" for i, value in enumerate(columns.values)}
            at = frame.next_offset(at, header.length)
    return found


def test_a_class_may_have_a_write_of_its_own(tmp_path: Path) -> None:
    class Loud(MessageBuffer):
        def write(self, topic: str, *arguments: Any, **named: Any) -> int:
            return super().write(topic.upper(), *arguments, **named)

    with Loud(tmp_path / "outbox", close_timeout=0) as buffer:
        assert (buffer.write("t", b"v"), buffer.write("t", value=b"v")) == (1, 2)
        with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
            buffer.write("t", b"v", colour=1)
        with pytest.raises(TypeError, match="missing 1 required positional argument"):
            buffer.write("t")
        with pytest.raises(TypeError, match="multiple values for argument 'topic'"):
            MessageBuffer.write(buffer, "t", b"v", topic="t")  # type: ignore[misc]
        # A name that was put together is not the object that the extension looks for.
        named = {"topic": "t", "Value".lower(): b"v"}
        assert MessageBuffer.write(buffer, **named) == 3  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="descriptor 'write'"):
        MessageBuffer.write(3, "t", b"v")  # type: ignore[arg-type]


# ---- the lane's lock


@contextmanager
def held_elsewhere(lock: Any) -> Iterator[threading.Event]:
    """Another thread has the lock until the event is set, or the block ends."""
    taken, enough = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            enough.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    try:
        yield enough
    finally:
        enough.set()
        thread.join()


def test_the_lock_is_a_reentrant_one() -> None:
    lock = compiled.Lock()
    with lock:
        assert lock.acquire()
        assert lock._is_owned()
        lock.release()
        assert lock._is_owned()
    assert not lock._is_owned()
    with pytest.raises(RuntimeError):
        lock.release()
    with held_elsewhere(lock) as enough:
        assert not lock._is_owned()
        assert not lock.acquire(blocking=False)
        assert not lock.acquire(timeout=0.01)
        with pytest.raises(RuntimeError):
            lock.release()
        enough.set()
        assert lock.acquire(timeout=30)
        lock.release()
    for wrong in ({"blocking": False, "timeout": 1}, {"timeout": -2}, {"timeout": float("nan")}):
        with pytest.raises((ValueError, OverflowError)):
            lock.acquire(**wrong)


def test_a_signal_is_handled_while_a_thread_waits_for_the_lock() -> None:
    class HandledError(Exception):
        pass

    def handler(*_: object) -> None:
        raise HandledError

    lock = compiled.Lock()
    before = signal.signal(signal.SIGALRM, handler)
    try:
        with held_elsewhere(lock):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(HandledError):
                lock.acquire()
            assert not lock._is_owned()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert lock.acquire(blocking=False)


def test_a_write_waits_for_who_has_the_lane(tmp_path: Path) -> None:
    with MessageBuffer(tmp_path / "outbox", close_timeout=0) as buffer:
        buffer.write("t", b"v")
        done = threading.Event()

        def write() -> None:
            buffer.write("t", b"v")
            done.set()

        thread = threading.Thread(target=write)
        with buffer.running_lane().lock:
            thread.start()
            assert not done.wait(0.1)
            # In the same thread, as from a signal's handler: put aside.
            assert buffer.write("t", b"v") == 0
        thread.join()
        assert done.is_set()
