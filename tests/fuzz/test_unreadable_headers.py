"""A header block that cannot be read, in a frame whose checksums are right: the message is a dead letter, the rest goes
on, and nothing is tried for ever."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from mbframework_fake.broker import FakeBroker
from mbframework_fake.provider import FakeProvider

from mbframework import MessageBuffer, SendFailed
from mbframework.deadstore import DeadStore
from mbframework.files import Files
from mbframework.message import Batch, pack_headers
from mbframework.spool import frame, segment_header

#: As long as the block that stands there, so that only the checksum of the body has to be made anew.
_GOOD = pack_headers([("name", b"value")])
BLOCKS = {
    "too few bytes": struct.pack("<H", 9) + _GOOD[2:],
    "a value beyond the end": _GOOD[:4] + struct.pack("<I", 1000) + _GOOD[8:],
    "a name that is no text": _GOOD[:8] + b"\xff\xfe\xff\xfe" + _GOOD[12:],
}


class Wrapping(FakeProvider):
    """A provider that makes an answer of its own of whatever is raised in it."""

    def send(self, batch: Batch) -> None:
        try:
            super().send(batch)
        except ValueError as error:
            raise SendFailed(f"it cannot be sent: {error}") from error


@pytest.mark.parametrize("provider", [FakeProvider, Wrapping], ids=["raised", "wrapped"])
@pytest.mark.parametrize("together", [False, True], ids=["single frames", "one frame"])
@pytest.mark.parametrize("block", BLOCKS)
def test_it_is_a_dead_letter_and_the_rest_goes_on(
    block: str, together: bool, provider: type[FakeProvider], tmp_path: Path
) -> None:
    path, broker = tmp_path / "buffer", FakeBroker()
    with MessageBuffer(path, provider(broker), mode="always", close_timeout=0.0) as buffer:
        buffer.pause()
        values = [str(number) for number in range(1, 7)]
        if together:
            buffer.write_many("t", values, headers=[[("name", b"value")]] * 6)
        else:
            for value in values:
                buffer.write("t", value, headers=[("name", b"value")])
        buffer.sync()
    spoil(path / "main", {2, 5}, BLOCKS[block])
    with MessageBuffer(path, provider(broker), mode="always", retry_wait=30.0) as buffer:
        buffer.resume()
        buffer.flush(60)
        status = buffer.status()
    assert [message.value for message in broker.messages] == [b"1", b"3", b"4", b"6"]
    assert (status.delivered, status.dead, status.lost, status.balanced) == (4, 2, 0, True)
    letters = list(DeadStore(Files(), str(path / "dead" / "main")).letters())
    assert [(letter.sequence, letter.value) for letter in letters] == [(2, b"2"), (5, b"5")]
    assert all("headers cannot be read" in letter.reason for letter in letters)


def spoil(lane: Path, sequences: set[int], block: bytes) -> None:
    """Put the block in the place of those of these messages, and make the checksums right again."""
    (file,) = lane.glob("*.seg")
    raw = bytearray(file.read_bytes())
    segment = segment_header.unpack(bytes(raw[:256]))
    assert segment is not None
    at = 4096
    while (header := frame.read_header(raw, at, segment.salt)) and not frame.is_seal(header):
        body = raw[at + frame.HEADER_SIZE : at + header.length]
        places = places_of(bytes(body), header.count)
        for index in range(header.count):
            if header.first + index in sequences:
                body[places[index] : places[index] + len(block)] = block
        fresh = frame.assemble(
            segment.salt, header.first, header.accepted, header.count, header.flags, header.topic_length, bytes(body)
        )
        raw[at : at + len(fresh)] = fresh
        at = frame.next_offset(at, header.length)
    # Without a seal, whose checksums would tell of it.
    file.write_bytes(raw[:at])
    file.rename(file.with_name("A" + file.name[1:]))


def places_of(body: bytes, count: int) -> Sequence[int]:
    """Where the header blocks of a frame begin."""
    first = len(body) - count * len(_GOOD)
    return [first + index * len(_GOOD) for index in range(count)]
