"""A finished record batch, as kafka-python's accumulator and sender handle one: the interface of its own builder.

What is missing in a finished batch is who sends it: the producer's id, epoch and sequence, which the library gives it
when it takes it out of the accumulator, and the checksum over all of it, which is made then. Used under the library's
lock of the partition, from whatever thread holds it.
"""

from __future__ import annotations

import struct
from typing import Any

from crc32c import crc32c
from kafka import errors as kafka_errors

_CRC_AT = 17
#: The checksum is of everything from the attributes on.
_ATTRIBUTES_AT = 21
_CRC = struct.Struct(">I")
_ATTRIBUTES = struct.Struct(">h")
#: Producer id, epoch, base sequence.
_STATE = struct.Struct(">qhi")
_STATE_AT = 43
_TRANSACTIONAL = 0x10


class FinishedRecords:
    """``count`` records, encoded in ``content`` by :func:`~mbframework_kafka.batches.record_batches`.

    Takes no further record, and counts as full, so that it is sent without lingering.
    """

    __slots__ = ("_closed", "_content", "_count", "_state")

    def __init__(self, content: bytearray, count: int) -> None:
        self._content = content
        self._count = count
        self._state = (-1, -1, -1)
        self._closed = False

    def append(self, timestamp: int, key: bytes | None, value: bytes | None, headers: object = None) -> None:
        """None: there is no room."""

    def skip(self, offsets_to_skip: int) -> None:
        """Offsets are dense here."""
        raise kafka_errors.IllegalStateError("a finished record batch skips no offsets")

    def set_producer_state(
        self, producer_id: int, producer_epoch: int, base_sequence: int, is_transactional: bool
    ) -> None:
        """Once, before :meth:`close`: what was sent keeps its sequence, or the broker would not know it again."""
        if self._closed:
            raise kafka_errors.IllegalStateError("a closed record batch keeps its producer state")
        self._state = (producer_id, producer_epoch, base_sequence)
        _STATE.pack_into(self._content, _STATE_AT, *self._state)
        (attributes,) = _ATTRIBUTES.unpack_from(self._content, _ATTRIBUTES_AT)
        attributes = attributes | _TRANSACTIONAL if is_transactional else attributes & ~_TRANSACTIONAL
        _ATTRIBUTES.pack_into(self._content, _ATTRIBUTES_AT, attributes)

    @property
    def producer_id(self) -> int:
        """-1 for none."""
        return self._state[0]

    @property
    def producer_epoch(self) -> int:
        """-1 for none."""
        return self._state[1]

    @property
    def base_sequence(self) -> int:
        """-1 for none."""
        return self._state[2]

    def close(self) -> None:
        """Make the checksum; may be called again."""
        if not self._closed:
            with memoryview(self._content) as content:
                _CRC.pack_into(content, _CRC_AT, crc32c(content[_ATTRIBUTES_AT:]))
            self._closed = True

    def records(self) -> Any:
        """For reading, as the library does."""
        from kafka.record.memory_records import MemoryRecords

        return MemoryRecords(self._content)

    def size_in_bytes(self) -> int:
        """Of the batch with its header."""
        return len(self._content)

    def compression_rate(self) -> float:
        """For the library's metrics; how large it was before is not kept."""
        return 1.0

    def is_full(self) -> bool:
        """Always."""
        return True

    def next_offset(self) -> int:
        """How many records it has."""
        return self._count

    def buffer(self) -> bytearray:
        """The bytes to send, once closed."""
        return self._content
