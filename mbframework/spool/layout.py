"""Names and numbers of the on-disk format; docs/format.md explains them.

Promises: nothing here calls the operating system. Whatever :func:`parse_name` accepts, the naming functions
produce, byte for byte; so a file that merely resembles one of ours is never taken for it. Sizes and offsets
are bytes.
"""

from __future__ import annotations

import os
import re
from struct import Struct
from typing import Final

#: The major versions that this release reads, and the one that it writes: never one that the release before cannot
#: read, unless it was told to (decision 0018).
FORMATS: Final = (1,)
FORMAT_MAJOR: Final = 1
FORMAT_MINOR: Final = 0

SEGMENT_MAGIC: Final = b"MBSEG\r\n\x1a"
FRAME_MARKER: Final = b"MBF1"
SEEK_MAGIC: Final = b"MBSK"
HEAD_MAGIC: Final = b"MBHD"
LIVE_MAGIC: Final = b"MBLIVE\r\n"
SEAL_MAGIC: Final = 0x5345414C

#: Every u64 on disk stays below this, so that it also fits a signed field (file offsets, SQLite).
U64_LIMIT: Final = 1 << 63

FIRST_FRAME: Final = 4096
MAX_FRAME: Final = 16 << 20
#: Bytes of topic, key, value and header block of one message.
MAX_MESSAGE: Final = MAX_FRAME - (128 << 10)
#: Messages in one frame; bounds the memory that decoding a frame of tiny messages takes.
MAX_COUNT: Final = 1 << 16
NONE_LENGTH: Final = 0xFFFFFFFF
ID_SIZE: Final = 16

# The buffer's directory.
BUFFER_FILE: Final = "buffer.json"
MAIN_LANE: Final = "main"
DEAD_DIRECTORY: Final = "dead"

# A lane's directory.
HEAD_FILE: Final = "head"
SEEK_FILE: Final = "seek"
RUNS_FILE: Final = "runs"
WRITER_STATUS_FILE: Final = "status.writer.json"
SENDER_STATUS_FILE: Final = "status.sender.json"
WRITER_EVENTS_FILE: Final = "events.writer.jsonl"
SENDER_EVENTS_FILE: Final = "events.sender.jsonl"
CONTROL_DIRECTORY: Final = "control"
WRITER_LOCK_FILE: Final = "writer.lock"
SENDER_LOCK_FILE: Final = "sender.lock"

#: Those in whose place nothing but a regular file may stand.
LANE_FILES: Final = (
    HEAD_FILE, SEEK_FILE, RUNS_FILE, WRITER_LOCK_FILE, SENDER_LOCK_FILE, WRITER_STATUS_FILE, SENDER_STATUS_FILE,
    WRITER_EVENTS_FILE, SENDER_EVENTS_FILE,
)  # fmt: skip

#: One record of the file ``runs``: run id, first sequence, wall ns.
RUN_RECORD: Final = Struct("<16sQq")

_SEGMENT_NAME = re.compile(r"([PA])([0-9]{20})\.seg")
_PREPARED_NAME = re.compile(r"N([0-9a-f]{8})\.prep")


#: Head and seek: three slots of SLOT_SIZE bytes, SLOT_STRIDE apart, from offset 0 on.
SLOT_SIZE: Final = 512
SLOT_STRIDE: Final = 4096
SLOT_COUNT: Final = 3


def align8(n: int) -> int:
    """``n`` rounded up to a multiple of 8."""
    return (n + 7) & ~7


def sealed_name(first: int) -> str:
    """The name of the sealed segment whose first sequence is ``first``."""
    return f"P{_sequence(first):020d}.seg"


def unsealed_name(first: int) -> str:
    """The name of the segment that begins at ``first`` and is not yet sealed, synced and cut."""
    return f"A{_sequence(first):020d}.seg"


def prepared_name(salt: int) -> str:
    """The name of the prepared segment with this salt."""
    if not 0 < salt < 1 << 32:
        raise ValueError(f"salt {salt}; expected 1 to 2^32 - 1")
    return f"N{salt:08x}.prep"


def dead_path(lane_path: str) -> str:
    """The directory of the dead letters of the lane in the directory ``lane_path``."""
    directory, lane = os.path.split(lane_path)
    return os.path.join(directory, DEAD_DIRECTORY, lane)


def parse_name(name: str) -> tuple[str, int] | None:
    """``("P" or "A", first sequence)``, ``("N", salt)``, or None for a file that is not a segment of ours."""
    if match := _SEGMENT_NAME.fullmatch(name):
        number = int(match[2])
        return (match[1], number) if 0 < number < U64_LIMIT else None
    if match := _PREPARED_NAME.fullmatch(name):
        number = int(match[1], 16)
        return ("N", number) if number else None
    return None


def _sequence(first: int) -> int:
    if not 0 < first < U64_LIMIT:
        raise ValueError(f"first sequence {first}; expected 1 to 2^63 - 1")
    return first
