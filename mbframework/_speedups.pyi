# The extension in C; its sources, and what it promises, are in native/.

from collections.abc import Sequence
from typing import Any, TypeAlias

_Blobs: TypeAlias = list[bytes | None]

BUILD: int

def crc32(data: Any, value: int = 0, /) -> int: ...
def decode_singles(
    window: bytes, offset: int, salt: int, first: int, most: int, max_size: int, /
) -> tuple[int, int, list[str], _Blobs, _Blobs, _Blobs, list[int], list[int], list[int]] | None: ...
def decode_several(
    window: bytes, offset: int, salt: int, first: int, most: int, max_size: int, /
) -> tuple[int, int, list[str], _Blobs, _Blobs, _Blobs, list[int], list[int], list[int], list[int]] | None: ...
def decode_body(
    body: bytes, count: int, flags: int, topic_length: int, /
) -> tuple[list[str], _Blobs, _Blobs, _Blobs, list[int], list[int]] | None: ...
def encode_one(
    salt: int,
    sequence: int,
    accepted: int,
    topic: bytes,
    key: bytes | None,
    value: bytes | None,
    header_block: bytes | None,
    timestamp: int | None,
    partition: int | None,
    /,
) -> bytes | None: ...
def encode_many(
    salt: int,
    first: int,
    accepted: int,
    topics: Sequence[bytes] | bytes,
    values: Sequence[bytes | None],
    keys: Sequence[bytes | None] | None,
    header_blocks: Sequence[bytes | None] | None,
    timestamps: Sequence[int] | None,
    partitions: Sequence[int] | None,
    /,
) -> bytes | None: ...
def encode_items(
    salt: int, first: int, accepted: int, items: Sequence[Sequence[Any]], start: int, count: int, /
) -> bytes | None: ...
def fitting(items: Sequence[Sequence[Any]], start: int, most: int, max_bytes: int, overhead: int, /) -> int | None: ...

# Their attributes stand in mbframework.speedups.
class Lock: ...
class Tip: ...
class Gate: ...
class Pen: ...

def install(cls: type[Pen], /) -> None: ...
