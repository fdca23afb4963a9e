"""Rules on what a message is: value, key, headers, timestamp, topic and partition arrive as ``kept()`` says."""

from __future__ import annotations

from collections.abc import Sequence

from mbframework.message import Message
from mbframework.testing.conformance.courier import Courier
from mbframework.testing.conformance.hooks import Arrived
from mbframework.testing.conformance.letters import letter
from mbframework.testing.conformance.rules import Rules

_EVERY_BYTE = bytes(range(256))
#: Nanoseconds: a whole second, every digit in use, long ago, and far from now.
_TIMES = (1_700_000_000_000_000_000, 1_700_000_001_234_567_891, 1_000_000, 4_102_444_800_000_000_001)


class ContentRules(Rules):
    """See the module."""

    def test_values_arrive_byte_for_byte(self) -> None:
        """Text, no text, and what a format of lines or of JSON would trip over."""
        values = (
            b"text",
            _EVERY_BYTE,
            b"a\0b",
            b"two\nlines\r\n",
            b'{"json": [1]}',
            "ü€😀\u2028".encode(),
            b" ",
            b"\xff",
        )
        messages = [letter(number, self.topic, value=b"%d:" % number + value) for number, value in enumerate(values, 1)]
        self._deliver_and_compare(messages, "value")

    def test_a_tombstone_is_not_an_empty_value(self) -> None:
        """A value of None and one of no bytes."""
        messages = [letter(1, self.topic, value=None), letter(2, self.topic, value=b"")]
        self._deliver_and_compare(messages, "value")

    def test_keys_arrive_byte_for_byte(self) -> None:
        """Bytes that are no text, NUL among them; no key; an empty key."""
        keys = (b"text", b"a\0b\0", b"\0", None, b"", _EVERY_BYTE, "schlüssel".encode(), b"two\nlines")
        messages = [letter(number, self.topic, value=b"%d" % number, key=key) for number, key in enumerate(keys, 1)]
        self._need_kept(messages, "key", None)
        self._deliver_and_compare(messages, "key")

    def test_headers_arrive_as_given(self) -> None:
        """Order, repeated names, None, empty values, bytes that are no text."""
        lists: tuple[tuple[tuple[str, bytes | None], ...], ...] = (
            (("b", b"1"), ("a", b"2"), ("c", b"3")),
            (("a", b"1"), ("a", b"2"), ("b", b"3"), ("a", b"1")),
            (("none", None), ("empty", b"")),
            (("bytes", _EVERY_BYTE), ("näme", "wért".encode())),
            (),
        )
        messages = [letter(n, self.topic, value=b"%d" % n, headers=headers) for n, headers in enumerate(lists, 1)]
        self._need_kept(messages, "headers", ())
        self._deliver_and_compare(messages, "headers")

    def test_timestamps_are_kept(self) -> None:
        """The caller's, to the precision that ``kept()`` tells, and what stands where none was given."""
        times = (*_TIMES, None)
        messages = [letter(n, self.topic, value=b"%d" % n, timestamp=time) for n, time in enumerate(times, 1)]
        self._need_kept(messages, "timestamp", None)
        self._deliver_and_compare(messages, "timestamp")

    def test_every_message_reaches_its_topic(self) -> None:
        """Of those in ``topics``, mixed in one batch."""
        self.need(len(self.topics) > 1, "needs a second name in topics")
        messages = [letter(n, self.topics[n % len(self.topics)], value=b"%d" % n) for n in range(1, 13)]
        self._need_kept(messages, "topic", "")
        self._deliver_and_compare(messages, "topic")

    def test_a_partition_that_is_asked_for_is_used(self) -> None:
        """Whatever the key says."""
        self.need(self.partitions, "needs partitions: numbers of partitions that exist")
        count = len(self.partitions)
        messages = [
            letter(n, self.topic, value=b"%d" % n, key=b"%d" % (n % 5), partition=self.partitions[n % count])
            for n in range(1, 4 * count + 1)
        ]
        self._deliver_and_compare(messages, "partition")

    def _need_kept(self, messages: Sequence[Message], name: str, absent: object) -> None:
        kept = [self.kept(message) for message in messages]
        some = any(one is not None and getattr(one, name) != absent for one in kept)
        self.need(some, f"the destination keeps no {name}, says kept()")

    def _deliver_and_compare(self, messages: Sequence[Message], name: str) -> None:
        wanted = {message.sequence: self.kept(message) for message in messages}
        with self.opened() as provider:
            courier = Courier(provider).carry(messages, self.recovery_timeout)
        refused = {sequence for sequence, kept in wanted.items() if kept is None}
        assert set(courier.rejected) == refused, (
            f"rejected: {courier.rejected or 'nothing'}; by kept() it should be messages {sorted(refused) or 'none'}"
        )
        expected = [kept for kept in wanted.values() if kept is not None]
        found = self.read(len(expected))
        # By value and the field in question, since messages with several keys need not arrive in one order.
        missing = [one for one in _of(expected, name) if one not in _of(found, name)]
        strange = [one for one in _of(found, name) if one not in _of(expected, name)]
        wrong = f"expected and not there: {missing}; there: {strange}" if missing or strange else ""
        assert not wrong, f"(value, {name}) {wrong}"
        assert len(found) == len(expected), f"{len(found)} messages arrived; expected {len(expected)}"


def _of(messages: Sequence[Arrived], name: str) -> list[tuple[bytes | None, object]]:
    return [(message.value, getattr(message, name)) for message in messages]
