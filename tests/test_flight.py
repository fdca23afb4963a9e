"""A flight: what is settled of it, and the batch that the provider is given."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from mbframework.flight import Flight
from mbframework.message import NO_PARTITION, NO_TIMESTAMP, Position
from mbframework.spool.reader import Run

blobs = st.none() | st.binary(max_size=9)


def flight_of(rows: Sequence[tuple[bytes | None, bytes | None, bytes | None]]) -> Flight:
    keys, values, blocks = ([row[i] for row in rows] for i in range(3))
    count = len(rows)
    run = Run(
        7, topics=["orders"] * count, keys=keys, values=values, header_blocks=blocks, timestamps=[NO_TIMESTAMP] * count,
        partitions=[NO_PARTITION] * count, accepted=list(range(count)), run=b"R" * 16,
    )  # fmt: skip
    return Flight(run, in_memory=False)


@given(
    st.lists(st.tuples(blobs, blobs, blobs), min_size=1, max_size=8),
    st.lists(st.tuples(st.sets(st.integers(0, 7)) | st.none(), st.sampled_from(["delivered", "dead"])), max_size=4),
)
def test_what_is_settled_stays_settled_and_the_rest_is_the_batch(
    rows: list[tuple[bytes | None, bytes | None, bytes | None]], marks: list[tuple[set[int] | None, str]]
) -> None:
    flight = flight_of(rows)
    expected = [""] * len(rows)
    for chosen, account in marks:
        # All that is left, as the flight itself tells it, or some of all.
        indices = flight.remaining() if chosen is None else sorted(i for i in chosen if i < len(rows))
        fresh = [i for i in indices if not expected[i]]
        assert flight.mark(indices, account) == len(fresh)
        for i in fresh:
            expected[i] = account
        left = [i for i, mark in enumerate(expected) if not mark]
        assert flight.marks == expected
        assert (flight.open, list(flight.remaining())) == (len(left), left)
        batch = flight.batch(flight.remaining())
        assert list(batch.sequences) == [7 + i for i in left]
        assert list(zip(batch.keys, batch.values, batch.header_blocks, strict=True)) == [rows[i] for i in left]
        for most in range(1, len(left) + 1):
            # A portion's position leaves nothing behind that is still to be sent.
            behind = left[most:] or [len(rows)]
            assert flight.batch(flight.remaining()[:most]).position == Position(7 + behind[0], b"R" * 16)
        parts = [part for i in left for part in rows[i] if part is not None]
        assert batch.size_in_bytes() == sum(map(len, parts)) + len("orders") * len(left)
