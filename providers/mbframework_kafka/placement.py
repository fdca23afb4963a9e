"""Which partition a message goes to: where the caller says, else by key as every Kafka client does, else anywhere.

Messages with neither partition nor key share one partition within a batch, drawn anew for each batch: record
batches stay large, and the partitions are used evenly. Used from the sender's thread only.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import lru_cache

from kafka.partitioner.default import murmur2

from mbframework.message import NO_PARTITION, Batch

# murmur2 in plain Python costs microseconds. Long keys are not kept: the cache is bounded in bytes too.
_LONGEST_CACHED = 64


def _hash(key: bytes) -> int:
    return int(murmur2(key)) & 0x7FFFFFFF


_cached_hash = lru_cache(maxsize=16_384)(_hash)


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
    sets = {topic: frozenset(known) for topic, known in partitions.items()}
    placed: list[int] = []
    wrong: dict[int, str] = {}
    for index, (topic, key, asked) in enumerate(zip(batch.topics, batch.keys, batch.partitions, strict=True)):
        known = partitions.get(topic)
        if known is None:
            placed.append(NO_PARTITION)
        elif asked != NO_PARTITION:
            placed.append(asked)
            if asked not in sets[topic]:
                wrong[index] = f"topic {topic!r} has no partition {asked}; it has {known[0]} to {known[-1]}"
        elif key is None:
            placed.append(shared[topic])
        else:
            placed.append(known[key_hash(key) % len(known)])
    return placed, wrong
