"""Rules on what a batch is: in order, whole, acknowledged when ``send()`` returns, and forgotten then."""

from __future__ import annotations

import gc
import weakref

from mbframework.message import NO_PARTITION, NO_TIMESTAMP, Message, Position
from mbframework.testing.conformance.courier import Courier, attempt
from mbframework.testing.conformance.hooks import RUN
from mbframework.testing.conformance.letters import Column, WatchedBatch, batch_of, letter, numbered
from mbframework.testing.conformance.rules import Rules

#: Larger ones are not tried: limits of hundreds of megabytes are nominal.
LARGEST_TRIED = 1 << 20


class DeliveryRules(Rules):
    """See the module."""

    def test_order_is_kept(self) -> None:
        """Of a topic and key, in batches of all sizes."""
        messages = [
            message
            for at in range(60)
            for message in numbered(at * 5 + 1, 5, self.topics[at % len(self.topics)], key=b"key-%d" % (at % 3))
        ]
        with self.opened() as provider:
            courier = Courier(provider)
            for start, stop in ((0, 1), (1, 100), (100, 101), (101, 108), (108, 300)):
                courier.carry(messages[start:stop], self.recovery_timeout, size=100)
        self.judge(messages, self.read(len(messages)))

    def test_an_empty_batch_is_nothing(self) -> None:
        """It is no error, and nothing arrives."""
        with self.opened() as provider:
            provider.send(batch_of([]))
            messages = numbered(1, 1, self.topic)
            Courier(provider).carry(messages, self.recovery_timeout)
            provider.send(batch_of([], first=2))
        self.judge(messages, self.read(1))

    def test_a_huge_batch_arrives(self) -> None:
        """``huge_batch`` messages at once."""
        messages = numbered(1, self.huge_batch, self.topic)
        with self.opened() as provider:
            Courier(provider).carry(messages, self.answer_timeout, size=self.huge_batch)
        self.judge(messages, self.read(len(messages)))

    def test_a_large_message_arrives(self) -> None:
        """As large as ``max_message_bytes`` allows, but of 1 MiB at most."""
        with self.opened() as provider:
            limit = min(provider.max_message_bytes or LARGEST_TRIED, LARGEST_TRIED)
            room = limit - len(self.topic.encode()) - 1
            message = letter(1, self.topic, value=bytes(range(32, 127)) * (room // 95) + b"." * (room % 95))
            courier = Courier(provider).carry([message], self.recovery_timeout)
        assert not courier.rejected, f"a message of {limit} bytes was rejected ({courier.rejected[1]}); lower the limit"
        found = self.read(1)
        expected, value = self.expected(message).value, found[0].value if found else None
        sizes = [None if content is None else len(content) for content in (expected, value)]
        assert expected == value, f"a value of {sizes[0]} bytes arrived as {sizes[1]}"

    def test_a_message_that_is_too_large_holds_nothing_up(self) -> None:
        """Where ``max_message_bytes`` is stated, a larger message is rejected alone, or taken all the same."""
        with self.opened() as provider:
            limit = provider.max_message_bytes
            self.need(limit and limit <= 8 * LARGEST_TRIED, "max_message_bytes is not stated, or far away")
            messages = numbered(1, 3, self.topic)
            messages[1] = messages[1]._replace(value=b"x" * (4 * (limit or 0)))
            courier = Courier(provider).carry(messages, self.recovery_timeout)
        rejected = set(courier.rejected)
        assert rejected <= {2}, f"messages {sorted(rejected)} were rejected; expected at most the large one, 2"
        taken = [message for message in messages if message.sequence not in rejected]
        self.judge(taken, self.read(len(taken)))

    def test_acknowledged_messages_can_be_read(self) -> None:
        """``send()`` returns when they are there, and not when they are handed to a library."""
        messages = numbered(1, 9, self.topic)
        with self.opened() as provider:
            for end in (3, 6, 9):
                Courier(provider).carry(messages[end - 3 : end], self.recovery_timeout)
                self.judge(messages[:end], self.read(end))

    def test_nothing_of_a_batch_is_kept(self) -> None:
        """No reference to a batch, or one of its columns, outlives ``send()``."""
        with self.opened() as provider:
            batch = _watched(numbered(1, 3, self.topic))
            watched = [weakref.ref(batch)] + [weakref.ref(column) for column in (batch.values, batch.keys)]
            provider.send(batch)
            del batch
            gc.collect()
            kept = [ref() for ref in watched if ref() is not None]
            assert not kept, f"a {type(kept[0]).__name__} of the batch is still referred to after send() returned"

    def test_time_between_batches_is_no_trouble(self) -> None:
        """``idle()`` comes between sends."""
        messages = numbered(1, 4, self.topic)
        with self.opened() as provider:
            provider.idle()
            for message in messages:
                outcome = attempt(provider, [message])
                assert outcome.error is None, f"a send after idle() failed: {outcome.said}"
                provider.idle()
        self.judge(messages, self.read(4))


def _watched(messages: list[Message]) -> WatchedBatch:
    keys: list[bytes | None] = Column(message.key for message in messages)  # type: ignore[assignment]
    values: list[bytes | None] = Column(message.value for message in messages)  # type: ignore[assignment]
    count = len(messages)
    return WatchedBatch(
        sequences=[message.sequence for message in messages],
        topics=[message.topic for message in messages],
        keys=keys,
        values=values,
        header_blocks=[None] * count,
        timestamps=[NO_TIMESTAMP] * count,
        partitions=[NO_PARTITION] * count,
        accepted=[message.accepted for message in messages],
        position=Position(messages[-1].sequence + 1, RUN),
    )
