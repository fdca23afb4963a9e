"""Dead letters that go into the buffer again, as new messages behind what is there.

Promises
--------
- A letter is dropped only after its message is kept: a kill in between repeats it and loses nothing.
- Topic, key, value, own headers, timestamp and partition are those that the message had.
- One call takes at most ``AT_ONCE`` letters, or ``AT_ONCE_BYTES``, and waits for no room: it says how far it came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from mbframework.deadstore import DeadStore, Letter
from mbframework.errors import DurabilityError, MessageError, NotAccepted
from mbframework.intake import Item, check_size
from mbframework.message import pack_headers
from mbframework.patience import WouldWait

if TYPE_CHECKING:
    from mbframework.lane import Lane

AT_ONCE = 1000
AT_ONCE_BYTES = 8 << 20
#: Takes an item, its topic's UTF-8 and its size in bytes.
Write: TypeAlias = "Callable[[Item, bytes, int], object]"


@dataclass(frozen=True, slots=True)
class Replayed:
    """The letters that are messages again, and why not all that were asked for: "" where they are."""

    ids: tuple[int, ...]
    why: str = ""


def replay(store: DeadStore, ids: Iterable[int], write: Write, keep: Callable[[], object]) -> Replayed:
    """Write the letters with these ids again, and make sure that they are kept; to be dropped by the caller.

    :param keep: returns when everything written is delivered, or on the device.
    :raises MessageBufferError: ``keep`` failed: the messages are accepted, and their letters must stay.
    :raises OSError: likewise, or the letters cannot be read.
    """
    done: list[int] = []
    why, size = "", 0
    with closing(store.letters(ids)) as letters:  # type: ignore[type-var]  # a generator
        for letter in letters:
            item, raw, own = message_of(letter)
            try:
                write(item, raw, own)
            except MessageError as error:
                # This one alone is refused, now as later.
                why = why or f"letter {letter.id}: {error}"
                continue
            except (NotAccepted, WouldWait, DurabilityError) as error:
                why = str(error)
                break
            done.append(letter.id)
            size += own
            if len(done) >= AT_ONCE or size >= AT_ONCE_BYTES:
                break
    if done:
        keep()
    return Replayed(tuple(done), why)


def message_of(letter: Letter) -> tuple[Item, bytes, int]:
    """What a lane takes: the item, the topic's UTF-8, and the bytes of topic, value, key and headers."""
    raw = letter.topic.encode()
    block = pack_headers(letter.headers) if letter.headers else None
    size = len(raw) + len(letter.value or b"") + len(letter.key or b"") + len(block or b"")
    return (letter.topic, letter.value, letter.key, block, letter.timestamp, letter.partition), raw, size


def into(lane: Lane) -> Write:
    """The ``write`` of a lane that this process has open."""

    def write(item: Item, raw: bytes, size: int) -> None:
        check_size(size, lane.max_message)
        lane.write(item, raw, size, wait=False)

    return write
