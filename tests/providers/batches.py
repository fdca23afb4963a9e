"""Batches of any content, for the tests of the providers that need no server."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hypothesis import strategies as st

from mbframework.message import Batch, Message
from mbframework.provider import Context
from mbframework.testing.conformance import letters

RUN = b"r" * 16
ROOT = Path(__file__).parents[2]


def context(lane: str = "main", buffer_id: str = "b" * 32) -> Context:
    """A lane's context with a ``stopping`` of its own."""
    return Context(buffer_id=buffer_id, lane=lane, run=RUN)


def batch_of(messages: Sequence[Message], run: bytes = RUN) -> Batch:
    """A batch that holds these messages, at least one."""
    return letters.batch_of(messages, run=run)


def make_batch(first: int, count: int, *, run: bytes = RUN, size: int = 0) -> Batch:
    """Messages ``first`` to ``first + count - 1``, whose values tell their sequence, in ``size`` bytes or more."""
    return batch_of(
        [
            Message(sequence, "orders", b"%d" % sequence + b"." * size, b"k", (), None, None, 1_700_000_000_000_000_000)
            for sequence in range(first, first + count)
        ],
        run,
    )


def sequences_of(messages: Sequence[Message]) -> list[int]:
    """The sequences that arrived, in order."""
    return [message.sequence for message in messages]


def documented_urls(page: str, scheme: str) -> list[str]:
    """Every URL of a scheme that a page of the documentation shows in a block of code or between backquotes."""
    text = (ROOT / "docs" / "providers" / f"{page}.md").read_text()
    found = re.findall(rf"(?<![\w/+=]){scheme}:[^\s`\"')]+", text)
    # A comma may stand between hosts.
    return [url.rstrip(",") for url in found]


_content = st.none() | st.binary(max_size=40) | st.text(max_size=20).map(str.encode)
_nanoseconds = st.integers(-(1 << 62), 1 << 62)
#: Lists of one to eight messages of any content, with rising sequences.
any_messages = st.lists(
    st.builds(
        Message,
        sequence=st.integers(1, 1 << 20),
        topic=st.text(min_size=1, max_size=20),
        value=_content,
        key=_content,
        headers=st.lists(st.tuples(st.text(max_size=8), _content), max_size=3).map(tuple),
        timestamp=st.none() | _nanoseconds,
        partition=st.none() | st.integers(0, (1 << 31) - 1),
        accepted=_nanoseconds,
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda message: message.sequence,
).map(lambda messages: sorted(messages, key=lambda message: message.sequence))
