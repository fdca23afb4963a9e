"""What waits in memory: numbered by place, taken in order, measured."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mbframework.channel import NEVER, OVERHEAD, Channel, run_of, size_of
from mbframework.intake import Item
from mbframework.message import NO_PARTITION, NO_TIMESTAMP
from mbframework.spool.segment_header import SegmentHeader

HEADER = SegmentHeader(
    salt=1, buffer_id=bytes(16), run=bytes(16), first=1, ordinal=0, previous_end=0, wall_ns=1000, boot_ns=100,
    boot_id=bytes(16), reserved=0, lane="",
)  # fmt: skip


def item(number: int, size: int = 10) -> Item:
    return ("t", str(number).encode().ljust(size), None, None, None, None)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4), st.integers(1, 400)), max_size=30))
def test_messages_leave_in_order_with_successive_sequences(steps: list[tuple[int, int, int]]) -> None:
    channel, number = Channel(7), 0
    waiting: list[tuple[int, Item, int]] = []
    for now, (added, count, most) in enumerate(steps, 1):
        items = [item(number + i) for i in range(added)]
        waiting += [(7 + number + i, each, now) for i, each in enumerate(items)]
        number += added
        channel.extend(items, sum(map(size_of, items)), now)
        assert channel.next == 7 + number
        assert channel.bytes == sum(size_of(each) + OVERHEAD for _, each, _ in waiting)
        first = channel.first
        taken = channel.take(count, most)
        assert [(first + i, each[:6], each[6]) for i, each in enumerate(taken)] == waiting[: len(taken)]
        assert len(taken) <= count
        assert len(taken) <= 1 or sum(size_of(each) + OVERHEAD for each in taken) <= most
        assert bool(taken) == bool(waiting)
        del waiting[: len(taken)]
        assert channel.oldest == (waiting[0][2] if waiting else NEVER)
        assert channel.first == 7 + number - len(waiting)
    assert channel.clear() == len(waiting)
    assert (channel.items, channel.bytes, channel.oldest, channel.next) == ([], 0, NEVER, 7 + number)


def test_a_batch_has_all_columns() -> None:
    channel = Channel(1)
    channel.extend([("t", b"v", b"k", b"\0\0", 5, 3), item(1)], 20, 150)
    run = run_of(1, channel.take(10, NEVER), HEADER, 900, b"r" * 16)
    assert (run.timestamps, run.partitions, run.keys) == ([5, NO_TIMESTAMP], [3, NO_PARTITION], [b"k", None])
    assert run.accepted == [1050, 1050]
    assert [(each.count, each.accepted) for each in run.acceptances] == [(1, 150), (1, 150)]
    assert (run.first, run.end, run.run) == (1, 3, b"r" * 16)
