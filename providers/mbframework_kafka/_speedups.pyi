# The extension in C; its sources, and what it promises, are native/kafka*.

from collections.abc import Sequence

BUILD: int

def place_keys(keys: Sequence[bytes | None], known: Sequence[int], shared: int, /) -> list[int] | None: ...
def record_batch(
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
    header_blocks: Sequence[bytes | None],
    timestamps: Sequence[int],
    accepted: Sequence[int],
    chosen: list[int] | None,
    start: int,
    limit: int,
    /,
) -> tuple[bytearray, int, int, int] | None: ...
