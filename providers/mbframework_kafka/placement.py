"""Which partition a message goes to: where the caller says, else by key as every Kafka client does, else anywhere.

Messages with neither partition nor key share one partition within a batch, drawn anew for each batch: record
batches stay large, and the partitions are used evenly.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache

from mbframework.message import NO_PARTITION, Batch
from mbframework_kafka.speedups import compiled

# Murmur2 in plain Python costs more than all else that a message needs. Long keys are not kept: the cache is bounded in
# bytes too.
_LONGEST_CACHED = 64

_SEED = 0x9747B28C
_FACTOR = 0x5BD1E995
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """The hash by which Kafka's clients place keys, unsigned; that of kafka-python at a fraction of its cost."""
    length = len(data)
    mixed = _SEED ^ length
    whole = length & ~3
    for word in struct.unpack_from(f"<{length >> 2}I", data):
        word = word * _FACTOR & _MASK
        mixed = (mixed * _FACTOR ^ (word ^ word >> 24) * _FACTOR) & _MASK
    if length > whole:
        mixed = (mixed ^ int.from_bytes(data[whole:], "little")) * _FACTOR & _MASK
    mixed = (mixed ^ mixed >> 13) * _FACTOR & _MASK
    return mixed ^ mixed >> 15


def _hash(key: bytes) -> int:
    return murmur2(key) & 0x7FFFFFFF


_cached_hash = lru_cache(maxsize=65_536)(_hash)


def key_hash(key: bytes) -> int:
    """Kafka's positive murmur2 of a key."""
    return _cached_hash(key) if len(key) <= _LONGEST_CACHED else _hash(key)


def place(
    batch: Batch, partitions: Mapping[str, Sequence[int]], writable: Mapping[str, Sequence[int]]
) -> tuple[list[int], dict[int, str]]:
    """The partition of each message, and index → reason of those that ask for one that is not there.

    :param partitions: of each topic in the batch, ascending. A topic that is missing here is skipped: its
        messages get partition -1 and no reason.
    :param writable: those of them that have a leader now; where a topic has none, any is drawn.
    """
    shared = {topic: random.choice(writable[topic] or known) for topic, known in partitions.items()}
    count = len(batch)
    if len(partitions) == 1 and batch.partitions.count(NO_PARTITION) == count:
        [(topic, known)] = partitions.items()
        if batch.topics.count(topic) == count:
            return place_keys(batch.keys, known, shared[topic]), {}
    sets = {topic: frozenset(known) for topic, known in partitions.items()}
    placed: list[int] = []
    wrong: dict[int, str] = {}
    for index, (topic, key, asked) in enumerate(zip(batch.topics, batch.keys, batch.partitions, strict=True)):
        known_here = partitions.get(topic)
        if known_here is None:
            placed.append(NO_PARTITION)
        elif asked != NO_PARTITION:
            placed.append(asked)
            if asked not in sets[topic]:
                wrong[index] = f"topic {topic!r} has no partition {asked}; it has {known_here[0]} to {known_here[-1]}"
        elif key is None:
            placed.append(shared[topic])
        else:
            placed.append(known_here[key_hash(key) % len(known_here)])
    return placed, wrong


def place_keys(keys: Sequence[bytes | None], known: Sequence[int], shared: int) -> list[int]:
    """The partition of each message of one topic, where none is asked for: that of its key, else ``shared``."""
    if keys.count(None) == len(keys):
        return [shared] * len(keys)
    if len(known) == 1:
        return [known[0]] * len(keys)
    placed = None if compiled is None else compiled.place_keys(keys, known, shared)
    return plain_place_keys(keys, known, shared) if placed is None else placed


def plain_place_keys(keys: Sequence[bytes | None], known: Sequence[int], shared: int) -> list[int]:
    """The same in plain Python, for whatever partitions there are."""
    count = len(known)
    return [shared if key is None else known[key_hash(key) % count] for key in keys]
